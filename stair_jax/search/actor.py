"""Host side of one search tree: sampling of steps and rollouts, judging, rewards, texts.

The jitted search (`kernel.py`) decides which node comes next. An actor turns this into requests to
the rollout engine, reads the completions, and keeps the texts and tokens of the nodes. Request ids
are `(slot, node, what, visit, ...)` with `what` one of "step", "rollout" and "judge".

Sequences are kept in the engine's KV cache along the search tree: the prompt has a handle, and each
step that can be continued has a handle below that of its parent. So requests for steps and rollouts
bring no tokens of their own, and only a judge's prompt has to be prefilled.

Where the answer has a start, the root stands for prompt and start, and the tree is that of what
follows. The depth at which the search stops and the length of an answer count it.
"""

import functools
import math
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from stair_jax.data.records import Prompt
from stair_jax.decoding.requests import Completion, Handle, Request, num_tokens, request_key
from stair_jax.search.expansion import ExpansionSamples, first_step, whole_characters
from stair_jax.search.host_node import HostNode, SharedRollout, make_nodes
from stair_jax.search.judging.judges import Judgement, Judging
from stair_jax.search.more_pairs import final_visits
from stair_jax.search.search_context import PRIORS, Reward, SamplingSettings, SearchContext
from stair_jax.search.shared_judgements import SharedJudgement, SharedJudgements
from stair_jax.search.tree_records import TreeRecord
from stair_jax.search.tree_samples import Replies, add_reply
from stair_jax.text import starts, steps

__all__ = [
    "PRIORS",
    "Actor",
    "Children",
    "Evaluated",
    "Reward",
    "SamplingSettings",
    "SearchContext",
]


@dataclass(frozen=True)
class Children:
    """The result of an expansion of one lane; `Actor.grow` then adds the steps to the tree."""

    lane: int
    steps: list[HostNode]


@dataclass(frozen=True)
class Evaluated:
    """The result of an evaluation of one lane; the reward is NaN if it is missing."""

    lane: int
    reward: float
    judged: bool = False  # a malformed answer has a reward without a judgement of its own


Outcome = list[Request] | Children | Evaluated


@dataclass
class _Evaluation:
    """An evaluation in progress."""

    lane: int
    entry: dict[str, Any] = field(default_factory=dict)  # what the tree record will say of it
    judging: Judging | None = None  # of its own
    shared: SharedJudgement | None = None


class Actor:
    """The host side of one search tree.

    Attributes:
      prompt: the prompt of the tree.
      no_room: True once a rollout from the root was refused because the prompt fills the engine's
        context; the tree cannot be searched.
      replies: of the judge, for `tree_samples`; None: they are not kept.
      priority: of the requests to come; affects the cost, not the tree.
    """

    def __init__(
        self,
        context: SearchContext,
        prompt: Prompt,
        tokens: Sequence[int],
        slot: int,
        number: int,
        start: Sequence[int] = (),
    ):
        """A tree with only a root.

        Args:
          context: settings and objects that all trees share.
          prompt: the prompt of the tree.
          tokens: token ids of the prompt, rendered by the chat template.
          slot: index among the trees in flight; the first part of the request ids.
          number: how many trees were started before. It is the priority of the requests at first,
            so that older trees go first and give their cache back soonest.
          start: token ids of `prompt.start`, which the answer begins with.
        """
        self.prompt, self.no_room = prompt, False
        self.replies: Replies | None = None
        self._context, self._slot, self.priority = context, slot, number
        self._start_ids = tuple(start)
        self._max_depth = context.max_depth - starts.num_steps(prompt.start or ())
        root = (*tokens, *start)
        self._judge_prefixes = context.judge_prefixes.open(prompt)
        self._steps = [
            HostNode(-1, (), root, self._start_ids, "", handle=context.engine.keep(root))
        ]
        self._expanding: dict[int, ExpansionSamples] = {}
        self._evaluating: dict[tuple[int, int], _Evaluation] = {}
        self._shared = SharedJudgements()
        self._told: list[Evaluated] = []  # see `take_told`
        self._counts: Counter[str] = Counter()
        self._generated = 0
        self._prefilled = len(root) + sum(map(_own_tokens, self._judge_prefixes.values()))
        self._begun = time.monotonic()

    def expand(self, node: int, lane: int = 0) -> list[Request] | Children:
        """Asks for sampled steps after `node`.

        Returns:
          requests; or at once the result: no children if the answer has reached its maximum length
          or depth, or the only child if a reused rollout step was all that was needed.
        """
        step, context = self._steps[node], self._context
        # The jitted search counts depth from the root: behind a start it would go deeper.
        if context.step_limit(step.answer) < 1 or len(step.path) >= self._max_depth:
            return Children(lane, [])
        count = context.most_children(node)
        samples = self._expanding[node] = ExpansionSamples(lane, count)
        step.expansions += 1
        if step.reusable is not None:
            samples.found[0], step.reusable = step.reusable, None
            self._counts["reused_steps"] += 1
        if samples.is_complete:
            return self._children(node)
        return self._ask_steps(node, range(len(samples.found), count))

    def grow(self, children: Children) -> None:
        """Adds the steps of an expansion as nodes.

        Node numbers are given by position on both sides, so this has to be called in the order in
        which the expansions are delivered to the jitted search.
        """
        self._steps += children.steps

    def evaluate(self, node: int, lane: int = 0) -> list[Request] | Evaluated:
        """Asks for a reward of `node`: of its own answer if it is terminal, else of a new rollout.

        Returns:
          requests, or at once the reward of an answer that is not judged.
        """
        step, context = self._steps[node], self._context
        step.evaluations += 1
        visit = step.evaluations
        if visit == 1 and step.shared is not None:
            return self._share(node, step.shared, lane)
        self._evaluating[node, visit] = _Evaluation(lane)
        limit = context.answer_limit(step.answer)
        if step.terminal or limit < 1:
            return self._judge(node, visit, step.answer, step.terminal)
        self._counts["rollouts"] += 1
        keep = self._may_reuse(node, visit)
        return [self._request(node, "rollout", visit, limit=limit, keep=keep)]

    def receive(self, completion: Completion) -> Outcome:
        """Processes a completion of one of this tree's requests.

        Returns:
          requests to submit next (may be empty), or the result that is now complete.
        """
        assert isinstance(completion.id, tuple)
        node, what, visit = completion.id[1:4]
        self._generated += num_tokens(completion)
        self._counts["too_long"] += getattr(completion, "finish", "") == "too_long"
        if what == "step":
            samples = self._expanding[node]
            samples.found[completion.id[4]] = completion
            return self._end_or_ask_again(node) if samples.is_complete else []
        if what == "rollout":
            return self._roll_out(node, visit, completion)
        judging = self._evaluating[node, visit].judging
        assert judging is not None
        if self.replies is not None:
            source, question = completion.id[4:]
            said = self.replies.setdefault((node, visit), {})
            add_reply(
                said, f"{source} {question}", self._context.judge.tokenizer_of(source), completion
            )
        retries = judging.receive(completion)
        self._prefilled += sum(map(num_tokens, retries))
        return self._score(node, visit, judging) if judging.done else retries

    def take_told(self) -> list[Evaluated]:
        """The evaluations that `receive` completed beside the one of its completion.

        They waited for its judgement, as their answers are the same.
        """
        told, self._told = self._told, []
        return told

    def final_visits(self, visits: Sequence[int]) -> list[int]:
        """Nodes to evaluate after the budget, by default those that never were.

        Args:
          visits: of each node in the jitted search, at least as many entries as nodes.
        """
        return final_visits(self._steps, visits, self._context.more_pairs)

    def release(self) -> None:
        """Releases all of the tree's handles in the engine's cache."""
        engine = self._context.engine
        for samples in self._expanding.values():  # of a tree that is given up
            for sample in samples.found.values():
                if sample.handle is not None:
                    engine.release(sample.handle)
        self._expanding.clear()
        for step in reversed(self._steps):
            for handle in (step.reusable.handle if step.reusable else None, step.handle):
                if handle is not None:
                    engine.release(handle)
            step.reusable = step.handle = None
        self._context.judge_prefixes.close(self._judge_prefixes)
        self._judge_prefixes = {}

    def record(self, visits: Sequence[int], iterations: int) -> TreeRecord:
        """The record of the finished tree.

        Args:
          visits: visits of each node in the jitted search, at least as many entries as nodes. Only
            the search knows how often a terminal node was visited again. A node that was visited
            only after the budget has 0 there and counts as visited once.
          iterations: number of search iterations.
        """
        self._mark_shared()
        nodes = make_nodes(self._steps, visits)
        self._counts["missing"] = nodes[0].missing
        return TreeRecord(
            id=self.prompt.id,
            prompt=self.prompt.prompt,
            kind=self.prompt.kind,
            source=self.prompt.source,
            system=self.prompt.system,
            history=self.prompt.history,
            start=self.prompt.start or None,
            start_tokens=len(self._start_ids) or None,
            model=self._context.model,
            settings=self._context.settings,
            nodes=nodes,
            iterations=iterations,
            counts={name: count for name, count in sorted(self._counts.items()) if count},
            generated_tokens=self._generated,
            prefilled_tokens=self._prefilled,
            seconds=round(time.monotonic() - self._begun, 3),
        )

    def _request(self, node: int, what: str, *visit: int, limit: int, keep: bool) -> Request:
        """A request for a step or a rollout after `node`.

        Its random key is a hash of seed, prompt id, path of the node, kind and visit. So a sample
        does not depend on the slot, the batch or the order of requests, and a resumed run asks for
        the same samples again.
        """
        context, step = self._context, self._steps[node]
        return Request(
            id=(self._slot, node, what, *visit),
            tokens=(),
            parent=step.handle,
            sampling=context.sampling.limited(
                limit, context.step_ids if what == "step" else context.end_ids
            ),
            key=request_key(context.seed, self.prompt.id, *step.path, what, *visit),
            keep=keep,
            priority=self.priority,
        )

    def _ask_steps(self, node: int, numbers: Sequence[int]) -> list[Request]:
        """Requests of samples of an expansion in progress, by their numbers."""
        step = self._steps[node]
        limit = self._context.step_limit(step.answer)
        return [
            self._request(node, "step", step.expansions, number, limit=limit, keep=True)
            for number in numbers
        ]

    def _end_or_ask_again(self, node: int) -> list[Request] | Children:
        """The children of an expansion whose samples are there, or samples for its duplicates."""
        context = self._context
        numbers = self._expanding[node].ask_again(
            context.more_pairs.resample, context.sampling.keep_cut_steps
        )
        return self._ask_steps(node, numbers) or self._children(node)

    def _children(self, node: int) -> Children:
        """Turns the samples of a complete expansion into children."""
        context, parent = self._context, self._steps[node]
        samples = self._expanding.pop(node)
        if keep_cut := context.sampling.keep_cut_steps:
            for number, sample in samples.found.items():
                samples.found[number] = whole_characters(
                    sample, context.tokenizer.decode, context.engine
                )
        steps_found = samples.distinct_steps(context.engine, self._counts, keep_cut)
        children = [
            HostNode(
                parent=node,
                path=(*parent.path, number),
                tokens=sample.tokens,
                answer=parent.answer + sample.tokens,
                text=context.tokenizer.decode(sample.tokens),
                prior=PRIORS[context.prior](sample.logps),
                terminal=sample.tokens[-1] in context.end_ids,
                handle=sample.handle,
            )
            for number, sample in enumerate(steps_found)
        ]
        for child in children:
            if child.terminal and child.handle is not None:  # a finished answer is not continued
                context.engine.release(child.handle)
                child.handle = None
        self._counts["expansions"] += 1
        if parent.rollout is not None and children:
            self._pass_on(parent, children[0])
        return Children(samples.lane, children)

    def _pass_on(self, parent: HostNode, child: HostNode) -> None:
        """Gives the first rollout of a node to the child that was made of its first step."""
        rollout, count = parent.rollout, len(child.tokens)
        assert rollout is not None
        parent.rollout = None
        if tuple(rollout.tokens[:count]) == child.tokens:
            rest = replace(
                rollout, tokens=rollout.tokens[count:], logps=rollout.logps[count:], handle=None
            )
            child.shared = SharedRollout(rest, parent.judgements[1])

    def _share(self, node: int, shared: SharedRollout, lane: int) -> Evaluated:
        """The first visit of a node that takes the rollout of its parent for its own."""
        step = self._steps[node]
        self._counts["shared_rollouts"] += 1
        step.shared = None
        if not step.terminal and len(step.path) < self._max_depth and shared.rest.tokens:
            self._reuse_rest(step, shared.rest)
        step.judgements[1] = dict(shared.entry)
        reward = shared.entry["reward"]
        return Evaluated(lane, math.nan if reward is None else reward)

    def _reuse_rest(self, step: HostNode, rest: Completion) -> None:
        """Keeps what a shared rollout samples next, to become a child of the node."""
        context = self._context
        cut, limit = context.sampling.keep_cut_steps, context.step_limit(step.answer)
        first = first_step(rest, context.step_ids, limit, context.engine, cut)
        if first.finish == "stop" or cut:
            # The engine has no handle within a rollout: these tokens are prefilled when used.
            first = replace(first, handle=context.engine.keep(first.tokens, step.handle))
            self._prefilled += len(first.tokens)
        step.reusable, step.rollout = first, rest

    def _may_reuse(self, node: int, visit: int) -> bool:
        """Whether the first step of this rollout is kept as the node's first child."""
        context = self._context
        reuses = context.sampling.reuse_rollout_step or context.more_pairs.share_rollouts
        return reuses and visit == 1 and len(self._steps[node].path) < self._max_depth

    def _roll_out(self, node: int, visit: int, rollout: Completion) -> Outcome:
        """Keeps a completed rollout's first step for reuse, if wanted, and judges its answer."""
        context, step = self._context, self._steps[node]
        if rollout.finish == "too_long":
            self.no_room |= node == 0
        elif self._may_reuse(node, visit):
            limit = context.step_limit(step.answer)
            step.reusable = first_step(
                rollout,
                context.step_ids,
                limit,
                context.engine,
                context.sampling.keep_cut_steps,
            )
            if context.more_pairs.share_rollouts:
                step.rollout = replace(rollout, handle=None)
        answer = step.answer + tuple(rollout.tokens)
        return self._judge(node, visit, answer, rollout.finish == "stop")

    def _judge(
        self, node: int, visit: int, answer: tuple[int, ...], finished: bool
    ) -> list[Request] | Evaluated:
        """Starts the judging of an answer; an answer without a final answer is not judged."""
        context, step = self._context, self._steps[node]
        evaluation = self._evaluating[node, visit]
        text = context.tokenizer.decode(answer)
        evaluation.entry = {"answer": steps.final_answer(text)}
        if context.judge.malformed(text, finished):
            self._counts["malformed"] += 1
            evaluation.entry["malformed"] = True
            return self._close(node, visit, context.judge.malformed_reward)
        output, path = steps.output_text(text), (*step.path, "judge", visit)
        if context.more_pairs.share_judgements:
            read = context.judge.reads(self.prompt.kind, output, text)
            shared = evaluation.shared = self._shared.join(read, (node, visit))
            if shared.judging is not None:
                return self._take_over(node, visit, shared, shared.judging)
            # Of the text alone: which of its evaluations comes first depends on what else runs.
            path = ("judge", read)
        judging = evaluation.judging = context.judge.requests(
            self.prompt.conversation,
            self.prompt.kind,
            evaluation.entry["answer"],
            functools.partial(request_key, context.seed, self.prompt.id, *path),
            id=(self._slot, node, "judge", visit),
            parents=self._judge_prefixes,
            priority=self.priority,
            output=output,
            text=text,
            reference=self.prompt.reference,
            label=self.prompt.label,
        )
        if evaluation.shared is not None:
            evaluation.shared.judging = judging
        requests = judging.start()
        self._prefilled += sum(map(num_tokens, requests))
        return requests or self._score(node, visit, judging)

    def _take_over(
        self, node: int, visit: int, shared: SharedJudgement, judging: Judging
    ) -> list[Request] | Evaluated:
        """Takes the scores of another evaluation's judgement, or waits for them."""
        self._counts["shared_judgements"] += 1
        if judging.done:
            return self._reward(node, visit, judging.result)
        shared.waiting.append((node, visit))
        return []

    def _score(self, node: int, visit: int, judging: Judging) -> Evaluated:
        """Closes the evaluation of a judgement that is complete, and those that wait for it."""
        result = judging.result
        if self._context.watch is not None:
            self._context.watch.see(result)
        self._counts["judged"] += 1
        self._counts["unreadable"] += result.unreadable
        self._counts["closings"] += result.closings
        shared = self._evaluating[node, visit].shared
        waiting = shared.take_waiting() if shared is not None else []
        self._told += [self._reward(*place, result) for place in waiting]
        return self._reward(node, visit, result)

    def _reward(self, node: int, visit: int, result: Judgement) -> Evaluated:
        """Closes an evaluation with the scores of a judgement."""
        scores = {"helpfulness": result.helpfulness, "safety": result.safety}
        self._evaluating[node, visit].entry |= scores
        if result.helpfulness is None or result.safety is None:
            return self._close(node, visit, None)
        return self._close(node, visit, self._context.reward(result.helpfulness, result.safety))

    def _close(self, node: int, visit: int, reward: float | None) -> Evaluated:
        """Records the evaluation with its reward."""
        evaluation = self._evaluating.pop((node, visit))
        given = None if reward is None else float(reward)
        if given is not None and not math.isfinite(given):  # of a reward of the user's own
            self._counts["nonfinite"] += 1
            given = None
        self._steps[node].judgements[visit] = evaluation.entry | {"reward": given}
        judged = evaluation.judging is not None
        return Evaluated(evaluation.lane, math.nan if given is None else given, judged)

    def _mark_shared(self) -> None:
        """Says in each entry for how many evaluations its judgement was made, if for several."""
        for places in self._shared.groups():
            for node, visit in places:
                self._steps[node].judgements[visit]["shared"] = len(places)
            if self.replies is not None and places[0] in self.replies:
                self.replies.update(dict.fromkeys(places, self.replies[places[0]]))


def _own_tokens(handle: Handle) -> int:
    """Number of tokens that a handle adds to its parent's."""
    return len(handle.tokens) - (len(handle.parent.tokens) if handle.parent else 0)
