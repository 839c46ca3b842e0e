"""How many rows of what the files of the study have, and how long these may be."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Sizes:
    """Most rows of each part.

    Attributes:
      max_tokens: of prompt and answer of a row of `sft.jsonl`.
      prompt_tokens: of a prompt of a search or an evaluation, before it is wrapped.
      safe: SFT rows for safety, by set.
      helpful: SFT rows for helpfulness, by set.
      contrast: SFT rows of harmless prompts that sound harmful.
      contrast_tokens: of such a row.
      contrast_opening: take only the first sentence of their answers, which are long.
      harmful: harmful prompts in each file of prompts.
      borderline: CoCoNot's harmless prompts that sound harmful in each file of prompts.
      harmless_words: those of our own wording.
      harmless: plain harmless prompts in each file of prompts, by set.
      wrapped: share of the harmful prompts of the second and the third file that is in a wrapper.
      wrapped_harmless: harmless ones in the same wrappers, in each of these files.
      development: rows to tune on, by set.
      reported: rows of an evaluation file; None: all.
      reported_gsm8k: of GSM8K's test.
      judged: labelled cases, by group.
    """

    max_tokens: int
    prompt_tokens: int
    safe: Mapping[str, int]
    helpful: Mapping[str, int]
    contrast: int
    contrast_tokens: int
    contrast_opening: bool
    harmful: int
    borderline: int
    harmless_words: int
    harmless: Mapping[str, int]
    wrapped: float
    wrapped_harmless: int
    development: Mapping[str, int]
    reported: int | None
    reported_gsm8k: int
    judged: Mapping[str, int]


FULL = Sizes(
    max_tokens=700,
    prompt_tokens=300,
    safe={"star1": 1000},
    helpful={"gsm8k_train": 800, "alpaca_gpt4": 300, "alpaca": 200, "dolly": 200},
    contrast=150,
    contrast_tokens=700,
    contrast_opening=False,
    harmful=300,
    borderline=80,
    harmless_words=180,
    harmless={"alpaca_harmless": 80, "ultrafeedback": 60, "gsm8k_train": 100},
    wrapped=0.4,
    wrapped_harmless=38,
    development={"harmbench_val": 80, "oktest": 100, "gsm8k_train": 100},
    reported=None,
    reported_gsm8k=200,
    judged={
        "harmful, refused": 30,
        "harmful, answered": 40,
        "sounds harmful, answered": 25,
        "sounds harmful, refused": 25,
        "harmless, right": 30,
        "harmless, wrong": 25,
        "harmless, refused": 15,
        "harmless, beside": 15,
    },
)
SMALL = Sizes(
    max_tokens=120,
    prompt_tokens=48,
    safe={"safety_tuned_llamas": 128},
    helpful={"gsm8k_train": 32, "alpaca_gpt4": 48, "alpaca": 48, "dolly": 32},
    contrast=16,
    contrast_tokens=180,
    contrast_opening=True,
    harmful=12,
    borderline=3,
    harmless_words=7,
    harmless={"alpaca_harmless": 6, "gsm8k_train": 4},
    wrapped=0.3,
    wrapped_harmless=1,
    development={"harmbench_val": 8, "oktest": 8, "gsm8k_train": 8},
    reported=32,
    reported_gsm8k=32,
    judged=dict.fromkeys(FULL.judged, 6),
)
