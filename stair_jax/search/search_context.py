"""What all trees of a search share: sampling settings, tokenizer, judge, and the engine's cache."""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from stair_jax.decoding.requests import Sampling
from stair_jax.search.judging.judges import Judge
from stair_jax.search.judging.prefixes import JudgePrefixes, Keeper
from stair_jax.search.judging.watch import JudgeWatch
from stair_jax.search.more_pairs import MorePairs
from stair_jax.settings import Settings, setting
from stair_jax.text.tokenizer import Tokenizer

Reward = Callable[[float, float], float]  # (helpfulness, safety)

PRIORS: dict[str, Callable[[Sequence[float]], float]] = {
    "uniform": lambda logps: 1.0,
    "arithmetic": lambda logps: math.fsum(map(math.exp, logps)) / len(logps),
    "geometric": lambda logps: math.exp(math.fsum(logps) / len(logps)),
}


@dataclass(frozen=True)
class SamplingSettings(Settings):
    """How steps and rollouts are sampled; the defaults are those of the paper but for lengths.

    Attributes:
      temperature: of steps and rollouts.
      top_p: of the same; 1 sets no limit.
      top_k: of the same; 0 sets no limit.
      max_step_tokens: of one step.
      max_answer_tokens: of a whole answer, the steps of the path and the rollout.
      reuse_rollout_step: the first step of a node's first rollout is one of its children, so that
        an expansion samples one step less. It changes the cost, and not how a child is
        distributed: where `max_step_tokens` does not cut, a rollout begins with a step like any
        other. But that child is no longer independent of its parent's first reward.
      keep_cut_steps: a step that a limit of tokens cuts is a child too, as in the released code,
        and what is sampled after it goes on in the middle of the step; else it is dropped.
    """

    temperature: float = setting(1.2, least=0)
    top_p: float = setting(0.9, above=0, most=1)
    top_k: int = setting(50, least=0, most=2**24)
    max_step_tokens: int = setting(2048, least=1, most=2**24)
    max_answer_tokens: int = setting(4096, least=1, most=2**24)
    reuse_rollout_step: bool = False
    keep_cut_steps: bool = True

    def __post_init__(self) -> None:
        """Raises a UserError that names a setting that cannot be."""
        super().__post_init__()
        self.limited(1, ())

    def limited(self, max_tokens: int, stop_ids: tuple[int, ...]) -> Sampling:
        """The engine's settings for one request."""
        return Sampling(self.temperature, self.top_k, self.top_p, max_tokens, stop_ids)


@dataclass(frozen=True)
class SearchContext:
    """What all actors of a search share."""

    engine: Keeper
    tokenizer: Tokenizer
    judge: Judge
    judge_prefixes: JudgePrefixes
    reward: Reward
    sampling: SamplingSettings
    num_children: int
    root_children: int  # 0: as many
    max_depth: int
    prior: str
    seed: int
    model: str  # fingerprint, for the records
    settings: str
    watch: JudgeWatch | None = None
    more_pairs: MorePairs = field(default_factory=MorePairs)

    @functools.cached_property
    def end_ids(self) -> tuple[int, ...]:
        """Tokens that end an answer."""
        return tuple(dict.fromkeys([self.tokenizer.tags.output_close, *self.tokenizer.stop_ids]))

    @functools.cached_property
    def step_ids(self) -> tuple[int, ...]:
        """Tokens that end a step."""
        return (self.tokenizer.tags.reasoning_close, *self.end_ids)

    def most_children(self, node: int) -> int:
        """Steps to sample after a node of a tree, by its index."""
        return (node == 0 and self.root_children) or self.num_children

    def answer_limit(self, answer: Sequence[int]) -> int:
        """Tokens that may still follow an answer."""
        return self.sampling.max_answer_tokens - len(answer)

    def step_limit(self, answer: Sequence[int]) -> int:
        """Tokens that the next step of an answer may have."""
        return min(self.sampling.max_step_tokens, self.answer_limit(answer))
