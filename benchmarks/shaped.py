"""A workload in the shape of SI-MCTS, without a search: trees that ask for fixed or drawn lengths.

An iteration of a tree is four steps after one path, a rollout after one of them, and a judgement
of fresh tokens. The path goes on from that step; after four iterations it starts anew at the
prompt, and the tree gives its handles back. Trees start where others would be by then, each in
another part of an iteration and at another depth: a window then sees what goes on in the long run.
"""

import time
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field

import numpy as np

from benchmarks.trace import Trace
from stair_jax.decoding.requests import (
    Completion,
    EngineStats,
    Handle,
    Request,
    Sampling,
    request_key,
)
from stair_jax.search.runner import EngineProtocol
from stair_jax.search.search_report import since

CHILDREN, DEPTH = 4, 4
PROMPT, STEP, ROLLOUT, REPLY, JUDGED = 120, 120, 300, 100, 500
ITERATION = CHILDREN * STEP + ROLLOUT + REPLY  # new tokens
# Of drawn lengths: shares of the mean, as of steps of 150 +- 50 and replies of 130 +- 30 tokens.
_DEVIATION = {"step": 1 / 3, "rollout": 1 / 2, "judge": 1 / 4}

Length = Callable[[str, int, Hashable], int]


def fixed_length(what: str, mean: int, key: Hashable) -> int:
    """The mean."""
    return mean


def drawn_length(what: str, mean: int, key: Hashable) -> int:
    """A normal draw by the key, cut at a tenth of the mean and as far above it."""
    rng = np.random.default_rng(request_key(0, *key))  # type: ignore[misc]
    drawn = rng.normal(mean, _DEVIATION[what] * mean)
    return max(1, round(min(max(drawn, 0.1 * mean), 1.9 * mean)))


@dataclass
class Tree:
    """One tree: `ask` gives its next requests, once the last ones are all completed.

    Attributes:
        number: of the tree; its random numbers depend on it alone.
        engine: keeps the handles.
        length: of steps, rollouts and replies.
        scale: of all lengths, for tests.
        phase: the share of its first four iterations that it is taken to have behind it.
    """

    number: int
    engine: EngineProtocol
    length: Length
    scale: float = 1.0
    phase: float = 0.0
    iterations: int = 0
    seen: float = 0.0  # summed over the sampled tokens: the tokens that each sees
    waiting: int = 0
    _root: Handle | None = None
    _path: Handle | None = None
    _kept: list[Handle] = field(default_factory=list)
    _completed: list[Completion] = field(default_factory=list)
    _requests: Iterator[list[Request]] | None = None

    def ask(self) -> list[Request]:
        """What to submit next."""
        if self._requests is None:
            self._requests = self._run()
        requests = next(self._requests)
        self.waiting = len(requests)
        self._completed.clear()
        return requests

    def receive(self, completion: Completion, request: Request) -> None:
        """Takes a completion."""
        self.waiting -= 1
        self._completed.append(completion)
        count = len(completion.tokens)
        before = len(request.tokens) + (len(request.parent.tokens) if request.parent else 0)
        self.seen += count * (before + count / 2)
        if completion.handle is not None:
            self._kept.append(completion.handle)

    def release(self) -> None:
        """Gives all handles back."""
        for handle in self._kept:
            self.engine.release(handle)
        self._kept.clear()

    def _run(self) -> Iterator[list[Request]]:
        self._root = self._path = self.engine.keep(self._tokens("prompt", PROMPT))
        self.iterations = int(DEPTH * self.phase)
        if self.iterations:
            tokens = self._tokens("path", self.iterations * STEP)
            self._path = self.engine.keep(tokens, self._root)
            self._kept.append(self._path)
        step, rollout, reply = map(self._scaled, (STEP, ROLLOUT, REPLY))
        # Sampled one after another, of the iteration that is taken to be under way.
        passed = round(DEPTH * self.phase % 1 * (step + rollout + reply))
        while True:
            yield [self._request("step", STEP, passed, number) for number in range(CHILDREN)]
            first = min(self._completed, key=lambda completion: completion.id)  # type: ignore
            self._path = first.handle
            passed = max(0, passed - step)
            yield [self._request("rollout", ROLLOUT, passed)]
            passed = max(0, passed - rollout)
            yield [self._request("judge", REPLY, passed)]
            passed = 0
            self.iterations += 1
            if self.iterations % DEPTH == 0:
                self.release()
                self._path = self._root

    def _tokens(self, what: str, count: int) -> tuple[int, ...]:
        rng = np.random.default_rng(request_key(1, self.number, self.iterations, what))
        # Of the pocket tokenizer's size: any model has these ids.
        return tuple(rng.integers(0, 512, self._scaled(count)).tolist())

    def _request(self, what: str, mean: int, passed: int, number: int = 0) -> Request:
        name = (self.number, self.iterations, what, number)
        judge = what == "judge"
        sampling = Sampling(
            temperature=0.6 if judge else 1.2,
            top_k=0 if judge else 50,
            top_p=0.9,
            max_tokens=max(1, self.length(what, self._scaled(mean), name) - passed),
        )
        return Request(
            name,
            tokens=self._tokens(what, JUDGED) if judge else (),
            parent=None if judge else self._path,
            sampling=sampling,
            key=request_key(2, *name),
            keep=what == "step",
        )

    def _scaled(self, count: int) -> int:
        return max(2, round(count * self.scale))


@dataclass(frozen=True)
class Measured:
    """What a window came to.

    Attributes:
        seconds: of the window.
        stats: of the engine in it.
        mean_seen: tokens that a sampled token saw, over the whole drive.
        iterations: judgements that came back in the window.
        programs: seconds of each program's kernels in what was profiled after the window.
    """

    seconds: float
    stats: EngineStats
    mean_seen: float
    iterations: int
    programs: dict[str, float]


def drive(
    engine: EngineProtocol,
    num_trees: int,
    length: Length,
    *,
    warm: float,
    seconds: float,
    lockstep: bool = False,
    scale: float = 1.0,
    trace_seconds: float = 0.0,
) -> Measured:
    """Runs trees on an idle engine, which is idle again afterwards.

    Args:
        engine: with no handle of these trees.
        num_trees: side by side.
        length: of what is sampled.
        warm: seconds before the window.
        seconds: of the window.
        lockstep: no tree goes on before all are done with what they asked for.
        scale: of all lengths.
        trace_seconds: that are profiled after the window.
    """
    phases = [0.0 if lockstep else number / num_trees for number in range(num_trees)]
    trees = [Tree(number, engine, length, scale, phase) for number, phase in enumerate(phases)]
    asked: dict[Hashable, Request] = {}
    totals = [0, 0]  # sampled tokens of completions, and iterations

    def submit(requests: list[Request]) -> None:
        asked.update((request.id, request) for request in requests)
        engine.submit(requests)

    def step() -> None:
        completions = engine.step()
        for completion in completions:
            tree = trees[completion.id[0]]  # type: ignore[index]
            tree.receive(completion, asked.pop(completion.id))
            totals[0] += len(completion.tokens)
            totals[1] += completion.id[2] == "judge"  # type: ignore[index]
            if not tree.waiting and not lockstep:
                submit(tree.ask())
        if lockstep and completions and not any(tree.waiting for tree in trees):
            submit([request for tree in trees for request in tree.ask()])

    def run(until: float) -> None:
        while time.perf_counter() < until:
            step()

    submit([request for tree in trees for request in tree.ask()])
    start = time.perf_counter()
    run(start + warm)
    before, opened, judged = EngineStats(**vars(engine.stats)), time.perf_counter(), totals[1]
    run(opened + seconds)
    measured = Measured(
        seconds=time.perf_counter() - opened,
        stats=since(before, engine.stats),
        mean_seen=sum(tree.seen for tree in trees) / max(totals[0], 1),
        iterations=totals[1] - judged,
        programs=_profiled(lambda: run(time.perf_counter() + trace_seconds), trace_seconds),
    )
    _drain(engine, trees)
    return measured


def _profiled(run: Callable[[], None], trace_seconds: float) -> dict[str, float]:
    if not trace_seconds:
        return {}
    trace = Trace()
    trace.start()
    run()
    return trace.stop()[1]


def _drain(engine: EngineProtocol, trees: list[Tree]) -> None:
    """Runs what is pending to its end, and gives all handles back."""
    while engine.pending:
        for completion in engine.step():
            if completion.handle is not None:
                engine.release(completion.handle)
    for tree in trees:
        tree.release()
        if tree._root is not None:
            engine.release(tree._root)
