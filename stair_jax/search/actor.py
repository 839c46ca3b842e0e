"""One tree on the host: what it asks of an engine, and what it makes of the completions.

The tree kernel decides which node is next; an actor samples steps and answers there, has the
answers judged, and keeps the texts. Request ids are `(slot, node, what, ...)`.
"""

import functools
import math
import operator
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from stair_jax.data.prompts import Prompt
from stair_jax.decoding.requests import Completion, Handle, Request, Sampling, request_key
from stair_jax.errors import UserError
from stair_jax.search.judge import Judge, Judging
from stair_jax.search.records import Node, TreeRecord
from stair_jax.text import steps
from stair_jax.text.tokenizer import Tokenizer

Reward = Callable[[float, float], float]  # (helpfulness, safety)

PRIORS: dict[str, Callable[[Sequence[float], int], float]] = {
    "uniform": lambda logps, siblings: 1 / siblings,
    "arithmetic": lambda logps, siblings: math.fsum(map(math.exp, logps)) / len(logps),
    "geometric": lambda logps, siblings: math.exp(math.fsum(logps) / len(logps)),
}


@dataclass(frozen=True)
class SamplingSettings:
    """How steps and rollouts are sampled (STAIR section 3).

    Attributes:
      temperature: of steps and rollouts.
      top_p: of the same; 1 sets no limit.
      top_k: of the same; 0 sets no limit.
      max_step_tokens: of one step.
      max_answer_tokens: of a whole answer, the steps of the path and the rollout.
    """

    temperature: float = 1.2
    top_p: float = 0.9
    top_k: int = 50
    max_step_tokens: int = 2048
    max_answer_tokens: int = 4096

    def __post_init__(self) -> None:
        if min(self.max_step_tokens, self.max_answer_tokens) < 1:
            raise UserError("max_step_tokens and max_answer_tokens must be at least 1")
        self.limited(1, ())

    def limited(self, max_tokens: int, stop_ids: tuple[int, ...]) -> Sampling:
        """The engine's settings for one request."""
        return Sampling(self.temperature, self.top_k, self.top_p, max_tokens, stop_ids)


@dataclass(frozen=True)
class Room:
    """What all actors of a search share."""

    release: Callable[[Handle], None]  # of the engine
    tokenizer: Tokenizer
    judge: Judge
    reward: Reward
    sampling: SamplingSettings
    num_children: int
    prior: str
    seed: int
    model: str  # fingerprint, for the records
    settings: str

    @functools.cached_property
    def end_ids(self) -> tuple[int, ...]:
        """Tokens that end an answer."""
        return tuple(dict.fromkeys([self.tokenizer.tags.output_close, *self.tokenizer.stop_ids]))

    @functools.cached_property
    def step_ids(self) -> tuple[int, ...]:
        """Tokens that end a step."""
        return (self.tokenizer.tags.reasoning_close, *self.end_ids)


@dataclass(frozen=True)
class Children:
    """A finished expansion, as the kernel wants it."""

    priors: list[float]
    terminal: list[bool]


@dataclass
class _Step:
    """A node on the host, with the rewards of its own evaluations."""

    parent: int
    path: tuple[int, ...]  # child numbers from the root: names the node in random keys
    tokens: tuple[int, ...]  # of the step
    answer: tuple[int, ...]  # of the answer up to and with the step
    text: str
    prior: float = 0.0
    terminal: bool = False
    handle: Handle | None = None
    expansions: int = 0
    evaluations: int = 0
    rewards: list[float] = field(default_factory=list)
    judgements: list[dict[str, Any]] = field(default_factory=list)


class _Total(NamedTuple):
    """Evaluations of a node, or of a whole subtree."""

    visits: int = 0  # with a reward
    reward: float = 0.0  # summed
    missing: int = 0

    def __add__(self, other: "_Total") -> "_Total":  # type: ignore[override]
        return _Total(*map(operator.add, self, other))


class Actor:
    """The host side of one search tree."""

    def __init__(self, room: Room, prompt: Prompt, tokens: Sequence[int], slot: int):
        """A tree that holds the root.

        Args:
          room: shared settings.
          prompt: what the tree is about.
          tokens: the rendered prompt.
          slot: its place among the trees in flight.
        """
        self.prompt, self.slot = prompt, slot
        self._room = room
        self._tokens = tuple(tokens)
        self._steps = [_Step(-1, (), (), (), "")]
        self._samples: dict[int, Completion] = {}
        self._sampled_at = 0
        self._judging: dict[int, tuple[Judging, dict[str, Any]]] = {}
        self._counts: Counter[str] = Counter()
        self._generated = self._prefilled = 0
        self._start = time.monotonic()

    def expand(self, node: int) -> list[Request] | Children:
        """Asks for steps after `node`; no children when the answer has no room for a step."""
        step, room = self._steps[node], self._room
        limit = min(
            room.sampling.max_step_tokens, room.sampling.max_answer_tokens - len(step.answer)
        )
        if limit < 1:
            return Children([], [])
        sampling = room.sampling.limited(limit, room.step_ids)
        self._samples, self._sampled_at = {}, node
        step.expansions += 1
        return [
            self._request(node, sampling, "step", step.expansions, number, keep=True)
            for number in range(room.num_children)
        ]

    def evaluate(self, node: int) -> list[Request] | float:
        """Asks for the reward of `node`: of its own answer where it is terminal, else of a rollout.

        Returns:
          requests, or at once the reward of an answer that need not be judged (nan: missing).
        """
        step, room = self._steps[node], self._room
        step.evaluations += 1
        if step.terminal:
            return self._judge(node, step.answer, finished=True)
        limit = room.sampling.max_answer_tokens - len(step.answer)
        if limit < 1:
            return self._judge(node, step.answer, finished=False)
        self._counts["rollouts"] += 1
        sampling = room.sampling.limited(limit, room.end_ids)
        return [self._request(node, sampling, "rollout", step.evaluations)]

    def receive(self, completion: Completion) -> list[Request] | Children | tuple[int, float]:
        """Takes a completion.

        Returns:
          what to submit next (perhaps nothing), or the expansion that is now complete, or a node
          and its reward (nan: missing).
        """
        assert isinstance(completion.id, tuple)
        node, what = completion.id[1:3]
        self._generated += len(completion.tokens)
        self._counts["too_long"] += completion.finish == "too_long"
        if what == "step":
            self._samples[completion.id[4]] = completion
            return self._children() if len(self._samples) == self._room.num_children else []
        if what == "rollout":
            answer = self._steps[node].answer + tuple(completion.tokens)
            judged = self._judge(node, answer, completion.finish == "stop")
            return judged if isinstance(judged, list) else (node, judged)
        judging, entry = self._judging[node]
        retries = judging.receive(completion)
        self._prefilled += sum(len(request.sequence) for request in retries)
        if not judging.done:
            return retries
        del self._judging[node]
        return node, self._score(node, judging, entry)

    def unvisited(self) -> list[int]:
        """Nodes that were never evaluated: the visits after the budget."""
        return [node for node, step in enumerate(self._steps) if step.evaluations == 0]

    def release(self) -> None:
        """Gives the engine's handles back."""
        for step in self._steps:
            if step.handle is not None:
                self._room.release(step.handle)
                step.handle = None

    def record(self, visits: Sequence[int], iterations: int) -> TreeRecord:
        """The finished tree.

        Args:
          visits: visits of each node in the kernel, which alone knows how often a terminal node
            was visited again; those of unvisited nodes are 0, and count as one from here on.
          iterations: of the search.
        """
        totals = [self._own(node, max(visits[node], 1)) for node in range(len(self._steps))]
        for node in range(len(self._steps) - 1, 0, -1):  # children come after their parents
            parent = self._steps[node].parent
            totals[parent] = totals[parent] + totals[node]
        nodes = [self._node(node, total) for node, total in enumerate(totals)]
        self._counts["missing"] = totals[0].missing
        return TreeRecord(
            id=self.prompt.id,
            prompt=self.prompt.prompt,
            kind=self.prompt.kind,
            source=self.prompt.source,
            model=self._room.model,
            settings=self._room.settings,
            nodes=tuple(nodes),
            iterations=iterations,
            counts={name: count for name, count in sorted(self._counts.items()) if count},
            generated_tokens=self._generated,
            prefilled_tokens=self._prefilled,
            seconds=round(time.monotonic() - self._start, 3),
        )

    def _own(self, node: int, visits: int) -> "_Total":
        """The evaluations of the node itself."""
        step = self._steps[node]
        count = len(step.rewards)
        if step.terminal:  # one reward, used again on each visit
            return _Total(visits, visits * step.rewards[0]) if count else _Total(missing=visits)
        return _Total(count, math.fsum(step.rewards), step.evaluations - count)

    def _node(self, node: int, total: "_Total") -> Node:
        step = self._steps[node]
        return Node(
            parent=step.parent,
            text=step.text,
            tokens=self._tokens if node == 0 else step.tokens,
            depth=len(step.path),
            visits=total.visits,
            value=total.reward / total.visits if total.visits else None,
            reward=step.rewards[0] if step.terminal and step.rewards else None,
            terminal=step.terminal,
            prior=step.prior,
            missing=total.missing,
            judgements=step.judgements,
        )

    def _request(
        self, node: int, sampling: Sampling, what: str, *visit: int, keep: bool = False
    ) -> Request:
        step = self._steps[node]
        self._prefilled += len(self._tokens) + len(step.answer)
        return Request(
            id=(self.slot, node, what, *visit),
            tokens=() if step.handle else self._tokens + step.answer,
            parent=step.handle,
            sampling=sampling,
            key=request_key(self._room.seed, self.prompt.id, *step.path, what, *visit),
            keep=keep,
        )

    def _children(self) -> Children:
        """Makes children of the samples."""
        room, parent = self._room, self._steps[self._sampled_at]
        samples = self._whole_steps()
        first = len(self._steps)
        for number, sample in enumerate(samples):
            tokens = tuple(sample.tokens)
            self._steps.append(
                _Step(
                    parent=self._sampled_at,
                    path=(*parent.path, number),
                    tokens=tokens,
                    answer=parent.answer + tokens,
                    text=room.tokenizer.decode(tokens),
                    prior=PRIORS[room.prior](sample.logps, len(samples)),
                    terminal=tokens[-1] in room.end_ids,
                )
            )
            self._keep(self._steps[-1], sample.handle)
        self._counts["expansions"] += 1
        made = self._steps[first:]
        return Children([step.prior for step in made], [step.terminal for step in made])

    def _whole_steps(self) -> list[Completion]:
        """The samples without those that were cut off and without exact duplicates."""
        distinct: dict[tuple[int, ...], Completion] = {}
        for _, sample in sorted(self._samples.items()):
            tokens = tuple(sample.tokens)
            if sample.finish == "stop" and tokens not in distinct:
                distinct[tokens] = sample
                continue
            self._counts["duplicate_steps" if sample.finish == "stop" else "cut_steps"] += 1
            if sample.handle is not None:
                self._room.release(sample.handle)
        return list(distinct.values())

    def _keep(self, step: _Step, handle: Handle | None) -> None:
        """Keeps the handle of a step that can be gone on from."""
        if step.terminal and handle is not None:
            self._room.release(handle)
        else:
            step.handle = handle

    def _judge(self, node: int, answer: tuple[int, ...], finished: bool) -> list[Request] | float:
        """Opens the judging of an answer, or gives the reward of a malformed one."""
        room, step = self._room, self._steps[node]
        text = room.tokenizer.decode(answer)
        entry: dict[str, Any] = {"answer": steps.final_answer(text)}
        if room.judge.malformed(text, finished):
            self._counts["malformed"] += 1
            return self._close(node, entry | {"malformed": True}, room.judge.malformed_reward)
        visit = step.evaluations
        judging = room.judge.requests(
            self.prompt.prompt,
            self.prompt.kind,
            entry["answer"],
            lambda question, attempt: request_key(
                room.seed, self.prompt.id, *step.path, "judge", visit, question, attempt
            ),
            id=(self.slot, node, "judge"),
        )
        requests = judging.start()
        if not requests:
            return self._score(node, judging, entry)
        self._judging[node] = (judging, entry)
        self._prefilled += sum(len(request.sequence) for request in requests)
        return requests

    def _score(self, node: int, judging: Judging, entry: dict[str, Any]) -> float:
        result = judging.result
        self._counts["judged"] += 1
        self._counts["unreadable"] += result.unreadable
        entry |= {"helpfulness": result.helpfulness, "safety": result.safety}
        if result.helpfulness is None or result.safety is None:
            return self._close(node, entry, None)
        return self._close(node, entry, self._room.reward(result.helpfulness, result.safety))

    def _close(self, node: int, entry: dict[str, Any], reward: float | None) -> float:
        """Writes the evaluation down; the reward, nan if it is missing."""
        step = self._steps[node]
        step.judgements.append(entry | {"reward": reward})
        if reward is None:
            return math.nan
        step.rewards.append(float(reward))
        return float(reward)
