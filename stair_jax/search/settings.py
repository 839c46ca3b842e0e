"""The settings of a search, as a flat section of a config."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from stair_jax.errors import UserError
from stair_jax.search.judge import JudgeSettings
from stair_jax.search.room import PRIORS, SamplingSettings
from stair_jax.search.tree_data import SearchConfig
from stair_jax.settings import read_settings


@dataclass(frozen=True)
class SearchSettings:
    """Everything that a tree depends on, beside the prompt, the model and the seed.

    Attributes:
      tree: see `SearchConfig`; its fields stand in the section itself.
      sampling: see `SamplingSettings`; its fields stand in the section itself.
      judge: see `JudgeSettings`.
      prior: of a step, the mean token probability: "arithmetic", "geometric", or "uniform" (1).
      max_prompt_tokens: rendered; longer prompts are left out.
    """

    tree: SearchConfig = field(default_factory=SearchConfig)
    sampling: SamplingSettings = field(default_factory=SamplingSettings)
    judge: JudgeSettings = field(default_factory=JudgeSettings)
    prior: str = "arithmetic"
    max_prompt_tokens: int = 2048

    def __post_init__(self) -> None:
        if self.prior not in PRIORS:
            raise UserError(f"prior {self.prior!r} is none of {', '.join(PRIORS)}")

    @classmethod
    def read(cls, section: Mapping[str, Any]) -> "SearchSettings":
        """Reads a flat config section, whose one sub-section is `judge`.

        Raises:
          UserError: an unknown field, or a value out of range.
        """
        section = dict(section)
        judge = read_settings(JudgeSettings, section.pop("judge", {}), "judge")
        parts: dict[str, Any] = {}
        for name, part in (("tree", SearchConfig), ("sampling", SamplingSettings)):
            known = {f.name for f in fields(part)} & section.keys()
            parts[name] = part(**{key: section.pop(key) for key in known})
        return read_settings(cls, section | parts | {"judge": judge}, "search")

    @property
    def expected_tokens(self) -> int:
        """A guess of what one tree pins in a cache at once: as many whole steps as it expands."""
        steps = self.tree.num_children * self.sampling.max_step_tokens
        longest = max(steps, self.sampling.max_answer_tokens)
        return self.max_prompt_tokens + self.tree.in_flight * longest
