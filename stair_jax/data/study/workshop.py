"""What all parts of the study share while they are made."""

from dataclasses import dataclass

from stair_jax.data.study.admission import Admission
from stair_jax.data.study.catalogue import SETS
from stair_jax.data.study.public_set import Row
from stair_jax.data.study.sizes import Sizes
from stair_jax.data.study.sources import Sources
from stair_jax.data.study.texts import CountTokens, Item, items

CONTRAST = "CoCoNot contrast"  # the source of harmless prompts that sound harmful
_CONTRAST_CATEGORY = "Requests with safety concerns"

# The source of a row, by the name of its set.
TITLES = {
    "star1": "STAR-1",
    "gsm8k_train": "gsm8k",
    "gsm8k_test": "gsm8k",
    "alpaca_gpt4": "alpaca_gpt4",
    "alpaca": "alpaca",
    "alpaca_harmless": "alpaca",
    "dolly": "dolly",
    "ultrafeedback": "UltraFeedback",
    "refusal_direction": "refusal_direction",
    "advbench": "AdvBench",
    "safety_tuned_llamas": "safety-tuned-llamas",
    "harmbench_val": "HarmBench val",
    "oktest": "OKTest",
    "strongreject": "StrongREJECT",
    "xstest": "XSTest",
}


@dataclass(frozen=True)
class Workshop:
    """Sources, rules and measures.

    Attributes:
      sources: rows of the public sets.
      admission: which prompts may go where.
      sizes: how many rows are wanted.
      count: tokens of prompt and answer.
      seed: of all orders.
    """

    sources: Sources
    admission: Admission
    sizes: Sizes
    count: CountTokens
    seed: int

    def items(self, name: str, with_input: bool = False) -> list[Item]:
        """The rows of a set, each prompt once, in their order; []: the set is absent."""
        return items(SETS[name], self.sources.rows(name), self.seed, with_input)

    def contrast(self) -> list[Item]:
        """Harmless prompts that sound harmful, with an answer each."""
        return [
            item
            for item in self.items("coconot_pref")
            if item.row.get("category", _CONTRAST_CATEGORY) == _CONTRAST_CATEGORY
        ]

    def is_short(self, prompt: str) -> bool:
        """Whether a prompt is within the size of prompts."""
        return self.count(prompt, "") <= self.sizes.prompt_tokens


def answer_of(row: Row) -> str:
    """The answer of an instruction: column output or response."""
    return str(row.get("output") or row.get("response") or "").strip()
