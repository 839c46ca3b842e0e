"""The settings of a search: what its trees depend on."""

from dataclasses import dataclass

from stair_jax.search.judging.judges import JudgeSettings
from stair_jax.search.more_pairs import MorePairs
from stair_jax.search.search_context import PRIORS, SamplingSettings
from stair_jax.search.tree import SearchConfig
from stair_jax.settings import Settings, setting


@dataclass(frozen=True)
class SearchSettings(Settings):
    """Everything that a tree depends on, beside the prompt, the model and the seed.

    Attributes:
      tree: see `SearchConfig`.
      sampling: see `SamplingSettings`.
      judge: see `JudgeSettings`.
      more_pairs: options beyond the paper's search, see `MorePairs`.
      prior: of a step, the mean token probability: "arithmetic", "geometric", or "uniform" (1).
      max_prompt_tokens: rendered; longer prompts are left out.
      give_up_after: evaluations of a tree, the first ones, after which it is given up where none of
        them gave a reward; 0: never.
    """

    tree: SearchConfig = setting(SearchConfig)
    sampling: SamplingSettings = setting(SamplingSettings)
    judge: JudgeSettings = setting(JudgeSettings)
    more_pairs: MorePairs = setting(MorePairs)
    prior: str = setting("arithmetic", choices=tuple(PRIORS))
    max_prompt_tokens: int = setting(2048, least=1, most=2**24)
    give_up_after: int = setting(0, least=0)

    @property
    def expected_tokens(self) -> int:
        """A guess of what one tree pins in a cache at once: as many whole steps as it expands."""
        steps = self.tree.width * self.sampling.max_step_tokens
        longest = max(steps, self.sampling.max_answer_tokens)
        return self.max_prompt_tokens + self.tree.in_flight * longest
