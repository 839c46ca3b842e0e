"""IFEval (arXiv 2311.07911): does the answer follow instructions that a program can check."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar

from stair_jax.evaluation.benchmark import Benchmark, Metric, Source
from stair_jax.evaluation.case import Answer, Case
from stair_jax.evaluation.instructions.checks import (
    CHECKS,
    BadArguments,
    checked_arguments,
    follows,
    follows_loosely,
    uncheckable,
)
from stair_jax.evaluation.judges.judge import Verdict
from stair_jax.evaluation.rows import Row, checked_cases, read_rows, usual_places
from stair_jax.evaluation.statistics import ratio_to
from stair_jax.monitoring import say

_NAMES = ("prompt_strict", "prompt_loose", "followed_strict", "followed_loose", "instructions")


class IfEval(Benchmark):
    """The prompts of the user's file, each with one to three instructions.

    A prompt counts where all of its instructions are followed; instructions count one by one
    beside it. Strictly, the answer as it is; loosely, also without its first and last line and
    without asterisks. A prompt with an instruction that has no check here is missing.
    """

    NAME: ClassVar[str] = "ifeval"
    SOURCE: ClassVar[Source] = Source(
        usual_places("ifeval", "input_data.jsonl", "ifeval.jsonl"),
        "instruction_following_eval/data/input_data.jsonl of "
        "https://github.com/google-research/google-research as ifeval/input_data.jsonl (columns "
        "prompt, instruction_id_list, kwargs)",
    )
    METRICS: ClassVar[tuple[Metric, ...]] = (
        Metric("prompt_strict", "prompt_strict"),
        Metric("prompt_loose", "prompt_loose"),
        Metric("instruction_strict", "followed_strict", ratio_to("instructions")),
        Metric("instruction_loose", "followed_loose", ratio_to("instructions")),
    )

    def read(self, path: Path) -> list[Case]:
        """One case a row; says which instructions cannot be checked, and how many rows have one."""
        rows = read_rows(path, "prompt", "instruction_id_list", "kwargs")
        cases = checked_cases(path, [_case(row) for row in rows])
        unchecked = Counter(name for case in cases for name in set(_unchecked(case)))
        if unchecked:
            names = ", ".join(f"{name} in {count}" for name, count in sorted(unchecked.items()))
            missing = sum(any(_unchecked(case)) for case in cases)
            count = f"{missing} of {len(cases)} prompts"
            say(f"ifeval: {count} are missing, without a check of: {names}")
        return cases

    def grade(self, case: Case, answer: Answer, verdict: Verdict | None) -> dict[str, float | None]:
        """Whether all instructions are followed (1 or 0), and how many of how many."""
        if any(_unchecked(case)):
            return dict.fromkeys(_NAMES)
        listed = case.columns["instructions"]
        strict = [follows(answer.final, one["id"], one["kwargs"]) for one in listed]
        loose = [follows_loosely(answer.final, one["id"], one["kwargs"]) for one in listed]
        numbers = (all(strict), all(loose), sum(strict), sum(loose), len(listed))
        return dict(zip(_NAMES, map(float, numbers), strict=True))


def _unchecked(case: Case) -> Iterable[str]:
    for one in case.columns["instructions"]:
        if name := uncheckable(one["id"], one["kwargs"]):
            yield name


def _case(row: Row) -> Case:
    names, arguments = row.value("instruction_id_list"), row.value("kwargs")
    if not isinstance(names, list) or not names or not isinstance(arguments, list):
        raise row.error("instruction_id_list and kwargs are not lists with items")
    if len(names) != len(arguments):
        raise row.error(f"there are {len(names)} instructions and {len(arguments)} kwargs")
    pairs = zip(names, arguments, strict=True)
    return Case(
        id=row.text("key", str(row.number)),
        prompt=row.text("prompt"),
        columns={"instructions": [_instruction(row, name, given) for name, given in pairs]},
    )


def _instruction(row: Row, name: Any, arguments: Any) -> dict[str, Any]:
    if not isinstance(name, str) or not isinstance(arguments, dict | type(None)):
        raise row.error("instruction_id_list is no list of text, or kwargs none of objects")
    if name not in CHECKS:
        return {"id": name, "kwargs": {}}
    try:
        return {"id": name, "kwargs": checked_arguments(name, arguments or {})}
    except BadArguments as error:
        raise row.error(str(error)) from error
