"""Options of a search that aim at more preference pairs for the same tokens; all are off at first.

What each of them costs and brings is measured by `benchmarks/pairs_per_token.py`; the figures are
in docs/benchmarks_history.md.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from stair_jax.search.host_node import HostNode
from stair_jax.settings import Settings, setting


@dataclass(frozen=True)
class MorePairs(Settings):
    """Where a search leaves the paper's; the defaults do not.

    Attributes:
      resample: most samples that an expansion takes again in place of those that were dropped as
        duplicates; 0: none, as in the paper.
      share_rollouts: the first rollout of a node is also that of the child that it passes through:
        its first step becomes a child (as with `reuse_rollout_step`), whose first visit takes the
        reward of the rollout, and so on along the rollout. Ancestors count this reward again.
      share_judgements: evaluations of one tree whose final answers are equal, to the character, get
        one judgement, made when the first of them is due. Its random key is that of the answer, so
        that a tree still depends on nothing beside it. A judge that samples would have drawn anew
        for each; one whose scores could not be read is missing for all of them.
      final_visits: after the budget, "all" visits each node once that was never visited, as in the
        paper; "terminal" visits the answers among them alone, whose judgement takes no rollout;
        "siblings" these, and it rolls out from siblings of a node with `final_min_visits` visits
        until they have as many.
      final_min_visits: see `final_visits`; `min_visits` of the preferences is the value to take.
      stop_after: a tree ends when so many rewards were given and all of them lie within
        `stop_spread`; 0: never.
      stop_spread: see `stop_after`.
    """

    resample: int = setting(0, least=0, most=256)
    share_rollouts: bool = False
    share_judgements: bool = setting(False, absent=False)
    final_visits: str = setting("all", choices=("all", "terminal", "siblings"))
    final_min_visits: int = setting(4, least=1)
    stop_after: int = setting(0, least=0)
    stop_spread: float = setting(0.0, least=0)

    def stops(self, rewards: Sequence[float]) -> bool:
        """Whether a tree ends that was given these rewards, without those that are missing."""
        if not self.stop_after or len(rewards) != self.stop_after:
            return False
        return max(rewards) - min(rewards) <= self.stop_spread


def final_visits(steps: Sequence[HostNode], visits: Sequence[int], options: MorePairs) -> list[int]:
    """The nodes to evaluate after the budget; one that is there several times, so many times.

    Args:
      steps: the nodes of a tree; parents before their children.
      visits: of each node in the jitted search, at least as many entries as nodes.
      options: which visits.
    """
    unvisited = [node for node, step in enumerate(steps) if step.evaluations == 0]
    if options.final_visits == "all":
        return unvisited
    chosen = [node for node in unvisited if steps[node].terminal]
    if options.final_visits == "siblings":
        least = options.final_min_visits
        children: dict[int, list[int]] = {}
        for node, step in enumerate(steps[1:], start=1):
            if not step.terminal:
                children.setdefault(step.parent, []).append(node)
        for siblings in children.values():
            if any(visits[node] >= least for node in siblings):
                for node in siblings:
                    chosen += [node] * (least - visits[node])
    return chosen
