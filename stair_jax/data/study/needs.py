"""Which sets the study has to have, and what is said of those that are absent."""

from collections.abc import Collection, Iterator, Mapping, Sequence

from stair_jax.data.study import harmless_words
from stair_jax.data.study.catalogue import SETS
from stair_jax.data.study.public_set import Row
from stair_jax.data.study.sources import Sources
from stair_jax.errors import UserError, did_you_mean

# The sets that give rows to a file, any of which keeps it from being empty.
_FEEDS: Mapping[str, tuple[str, ...]] = {
    "sft": ("star1", "gsm8k_train", "alpaca_gpt4", "alpaca", "dolly", "safety_tuned_llamas"),
    "sft_contrast": ("coconot_pref",),
    "sft_direct": ("star1", "gsm8k_train", "alpaca_gpt4", "alpaca", "dolly", "safety_tuned_llamas"),
    **{
        f"prompts{number}": (
            *("advbench", "refusal_direction", "safety_tuned_llamas", "coconot_pref"),
            *("alpaca_harmless", "ultrafeedback", "gsm8k_train"),
        )
        for number in (1, 2, 3)
    },
    "dev": ("harmbench_val", "oktest", "gsm8k_train"),
    "judge_cases": (
        *("xstest_gpt4", "xstest_llama2new", "advbench", "gsm8k_train"),
        *("alpaca_gpt4", "safety_tuned_llamas"),
    ),
    "judge_labels/xstest_refusal": ("xstest_gpt4", "xstest_llama2new"),
}
_REPORTED = ("strongreject", "xstest", "gsm8k_test")


def parse_required(text: str) -> tuple[str, ...]:
    """The sets that a list names; "all": every one.

    Raises:
      UserError: there is no such set.
    """
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    if names == ("all",):
        return tuple(SETS)
    for name in names:
        if name not in SETS:
            raise UserError(f"there is no data set {name!r}: {did_you_mean(name, SETS)}")
    return names


def check_found(sources: Sources, required: Collection[str]) -> None:
    """Raises a UserError that names the required sets that are absent, and where they are."""
    absent = [SETS[name].how for name in required if name in sources.absent]
    if absent:
        raise UserError(f"--require names sets that are absent: bring {'; '.join(absent)}")


def check_not_empty(files: Mapping[str, Sequence[Row]], sources: Sources) -> None:
    """Raises a UserError where a file has no rows of a set: names those that would give some."""
    for name, feeds in _FEEDS.items():
        if all(row.get("source") == harmless_words.SOURCE for row in files[name]):
            raise UserError(f"{name}.jsonl would be empty: bring {_how(feeds, sources)}")
    if not any(name.startswith("eval/") for name in files):
        raise UserError(f"eval/ would be empty: bring {_how(_REPORTED, sources)}")


def missing_lines(sources: Sources) -> Iterator[str]:
    """What to say of the absent sets: one line for each role."""
    said = {
        "training": "these training sets are absent, so that their part is smaller",
        "development": "these development sets are absent: their rows are missing, and no "
        "training row is compared with them",
        "reported": "no training row is compared with these reported sets, which are absent",
    }
    for role, text in said.items():
        names = [name for name in sources.absent if SETS[name].role == role and SETS[name].prompt]
        if names:
            yield f"{text}: {', '.join(names)}"


def _how(names: Sequence[str], sources: Sources) -> str:
    absent = [name for name in names if name in sources.absent] or names
    return " or ".join(SETS[name].how for name in absent)
