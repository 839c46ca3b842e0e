"""One tree on the host: what it asks of an engine, and what it makes of the completions.

The tree kernel decides which node is next; an actor samples steps and answers there, has the
answers judged, and keeps the texts. Request ids are `(slot, node, what, visit, ...)`.

The tree of kept sequences is the search tree: the prompt is its root, each step that an answer can
be gone on from has a handle below that of the step before it, and a request brings no tokens of
its own but those of a judge's prompt.
"""

import functools
import math
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from stair_jax.data.records import Prompt
from stair_jax.decoding.requests import Completion, Handle, Request, request_key
from stair_jax.search.branch import Step, make_nodes
from stair_jax.search.judge import Judging
from stair_jax.search.records import TreeRecord
from stair_jax.search.room import PRIORS, Reward, Room, SamplingSettings
from stair_jax.search.samples import Samples, first_step
from stair_jax.text import steps

__all__ = ["PRIORS", "Actor", "Children", "Evaluated", "Reward", "Room", "SamplingSettings"]


@dataclass(frozen=True)
class Children:
    """A finished expansion; the steps join the tree by `Actor.grow`."""

    lane: int
    steps: list[Step]


@dataclass(frozen=True)
class Evaluated:
    """A finished evaluation; the reward is nan where it is missing."""

    lane: int
    reward: float


Outcome = list[Request] | Children | Evaluated


@dataclass
class _Evaluation:
    """An evaluation under way."""

    lane: int
    entry: dict[str, Any] = field(default_factory=dict)  # of the record
    judging: Judging | None = None


class Actor:
    """The host side of one search tree.

    Attributes:
      prompt: what the tree is about.
      no_room: the prompt fills the engine's context, so that no token can follow it.
    """

    def __init__(self, room: Room, prompt: Prompt, tokens: Sequence[int], slot: int, number: int):
        """A tree that holds the root.

        Args:
          room: shared settings.
          prompt: what the tree is about.
          tokens: the rendered prompt.
          slot: its place among the trees in flight.
          number: of the trees started before: older ones go first.
        """
        self.prompt, self.no_room = prompt, False
        self._room, self._slot, self._number = room, slot, number
        self._tokens = tuple(tokens)
        self._openings = room.openings.open(prompt)
        self._steps = [Step(-1, (), self._tokens, (), "", handle=room.engine.keep(self._tokens))]
        self._expanding: dict[int, Samples] = {}
        self._evaluating: dict[tuple[int, int], _Evaluation] = {}
        self._counts: Counter[str] = Counter()
        self._generated = 0
        self._prefilled = len(self._tokens) + sum(map(_own_tokens, self._openings.values()))
        self._start = time.monotonic()

    def expand(self, node: int, lane: int = 0) -> list[Request] | Children:
        """Asks for steps after `node`; no children when the answer has no room for a step."""
        step, room = self._steps[node], self._room
        limit = room.step_limit(step.answer)
        if limit < 1:
            return Children(lane, [])
        samples = self._expanding[node] = Samples(lane, room.num_children)
        step.expansions += 1
        if step.reusable is not None:
            samples.found[0], step.reusable = step.reusable, None
            self._counts["reused_steps"] += 1
        if samples.is_complete:
            return self._children(node)
        return [
            self._request(node, "step", step.expansions, number, limit=limit, keep=True)
            for number in range(len(samples.found), room.num_children)
        ]

    def grow(self, children: Children) -> None:
        """Gives the steps of an expansion their numbers, as the kernel does when it gets them."""
        self._steps += children.steps

    def evaluate(self, node: int, lane: int = 0) -> list[Request] | Evaluated:
        """Asks for the reward of `node`: of its own answer where it is terminal, else of a rollout.

        Returns:
          requests, or at once the reward of an answer that need not be judged.
        """
        step, room = self._steps[node], self._room
        step.evaluations += 1
        visit = step.evaluations
        self._evaluating[node, visit] = _Evaluation(lane)
        limit = room.answer_limit(step.answer)
        if step.terminal or limit < 1:
            return self._judge(node, visit, step.answer, step.terminal)
        self._counts["rollouts"] += 1
        keep = self._may_reuse(node, visit)
        return [self._request(node, "rollout", visit, limit=limit, keep=keep)]

    def receive(self, completion: Completion) -> Outcome:
        """Takes a completion.

        Returns:
          what to submit next (perhaps nothing), or what is now complete.
        """
        assert isinstance(completion.id, tuple)
        node, what, visit = completion.id[1:4]
        self._generated += len(completion.tokens)
        self._counts["too_long"] += completion.finish == "too_long"
        if what == "step":
            samples = self._expanding[node]
            samples.found[completion.id[4]] = completion
            return self._children(node) if samples.is_complete else []
        if what == "rollout":
            return self._roll_out(node, visit, completion)
        judging = self._evaluating[node, visit].judging
        assert judging is not None
        retries = judging.receive(completion)
        self._prefilled += sum(len(request.tokens) for request in retries)
        return self._score(node, visit, judging) if judging.done else retries

    def unvisited(self) -> list[int]:
        """Nodes that were never evaluated: the visits after the budget."""
        return [node for node, step in enumerate(self._steps) if step.evaluations == 0]

    def release(self) -> None:
        """Gives the engine's handles back."""
        engine = self._room.engine
        for step in reversed(self._steps):
            for handle in (step.reusable.handle if step.reusable else None, step.handle):
                if handle is not None:
                    engine.release(handle)
            step.reusable = step.handle = None
        self._room.openings.close(self._openings)
        self._openings = {}

    def record(self, visits: Sequence[int], iterations: int) -> TreeRecord:
        """The finished tree.

        Args:
          visits: visits of each node in the kernel, which alone knows how often a terminal node
            was visited again; those of unvisited nodes are 0, and count as one from here on.
          iterations: of the search.
        """
        nodes = make_nodes(self._steps, visits)
        self._counts["missing"] = nodes[0].missing
        return TreeRecord(
            id=self.prompt.id,
            prompt=self.prompt.prompt,
            kind=self.prompt.kind,
            source=self.prompt.source,
            model=self._room.model,
            settings=self._room.settings,
            nodes=nodes,
            iterations=iterations,
            counts={name: count for name, count in sorted(self._counts.items()) if count},
            generated_tokens=self._generated,
            prefilled_tokens=self._prefilled,
            seconds=round(time.monotonic() - self._start, 3),
        )

    def _request(self, node: int, what: str, *visit: int, limit: int, keep: bool) -> Request:
        """A request for a step, or for a rollout, after `node`."""
        room, step = self._room, self._steps[node]
        return Request(
            id=(self._slot, node, what, *visit),
            tokens=(),
            parent=step.handle,
            sampling=room.sampling.limited(
                limit, room.step_ids if what == "step" else room.end_ids
            ),
            key=request_key(room.seed, self.prompt.id, *step.path, what, *visit),
            keep=keep,
            priority=self._number,
        )

    def _children(self, node: int) -> Children:
        """Makes children of the samples."""
        room, parent = self._room, self._steps[node]
        samples = self._expanding.pop(node)
        whole = samples.whole_steps(room.engine, self._counts)
        children = [
            Step(
                parent=node,
                path=(*parent.path, number),
                tokens=sample.tokens,
                answer=parent.answer + sample.tokens,
                text=room.tokenizer.decode(sample.tokens),
                prior=PRIORS[room.prior](sample.logps, len(whole)),
                terminal=sample.tokens[-1] in room.end_ids,
                handle=sample.handle,
            )
            for number, sample in enumerate(whole)
        ]
        for child in children:
            if child.terminal and child.handle is not None:  # nothing goes on from it
                room.engine.release(child.handle)
                child.handle = None
        self._counts["expansions"] += 1
        return Children(samples.lane, children)

    def _may_reuse(self, node: int, visit: int) -> bool:
        """Whether the first step of this rollout will be a child of the node."""
        reuses = self._room.sampling.reuse_rollout_step and visit == 1
        return reuses and len(self._steps[node].path) < self._room.max_depth

    def _roll_out(self, node: int, visit: int, rollout: Completion) -> Outcome:
        room, step = self._room, self._steps[node]
        if rollout.finish == "too_long":
            self.no_room |= node == 0
        elif self._may_reuse(node, visit):
            limit = room.step_limit(step.answer)
            step.reusable = first_step(rollout, room.step_ids, limit, room.engine)
        answer = step.answer + tuple(rollout.tokens)
        return self._judge(node, visit, answer, rollout.finish == "stop")

    def _judge(
        self, node: int, visit: int, answer: tuple[int, ...], finished: bool
    ) -> list[Request] | Evaluated:
        """Opens the judging of an answer, or gives the reward of a malformed one."""
        room, step = self._room, self._steps[node]
        evaluation = self._evaluating[node, visit]
        text = room.tokenizer.decode(answer)
        evaluation.entry = {"answer": steps.final_answer(text)}
        if room.judge.malformed(text, finished):
            self._counts["malformed"] += 1
            evaluation.entry["malformed"] = True
            return self._close(node, visit, room.judge.malformed_reward)
        judging = evaluation.judging = room.judge.requests(
            self.prompt.prompt,
            self.prompt.kind,
            evaluation.entry["answer"],
            functools.partial(request_key, room.seed, self.prompt.id, *step.path, "judge", visit),
            id=(self._slot, node, "judge", visit),
            parents=self._openings,
            priority=self._number,
        )
        requests = judging.start()
        self._prefilled += sum(len(request.tokens) for request in requests)
        return requests or self._score(node, visit, judging)

    def _score(self, node: int, visit: int, judging: Judging) -> Evaluated:
        result = judging.result
        self._counts["judged"] += 1
        self._counts["unreadable"] += result.unreadable
        scores = {"helpfulness": result.helpfulness, "safety": result.safety}
        self._evaluating[node, visit].entry |= scores
        if result.helpfulness is None or result.safety is None:
            return self._close(node, visit, None)
        return self._close(node, visit, self._room.reward(result.helpfulness, result.safety))

    def _close(self, node: int, visit: int, reward: float | None) -> Evaluated:
        """Writes the evaluation down."""
        evaluation = self._evaluating.pop((node, visit))
        given = None if reward is None else float(reward)
        self._steps[node].judgements[visit] = evaluation.entry | {"reward": given}
        return Evaluated(evaluation.lane, math.nan if given is None else given)


def _own_tokens(handle: Handle) -> int:
    """Tokens of a handle that its parent has not."""
    return len(handle.tokens) - (len(handle.parent.tokens) if handle.parent else 0)
