"""HarmBench (Mazeika et al., arXiv 2402.04249): harmful behaviours in text."""

from pathlib import Path

from stair_jax.evaluation.benchmark import Metric, Source
from stair_jax.evaluation.benchmarks.harmful import ATTACK_SUCCESS, HarmfulBenchmark
from stair_jax.evaluation.case import Case
from stair_jax.evaluation.rows import Row, checked_cases, read_rows, usual_places

_HOW = (
    "download {} of https://github.com/centerforaisafety/HarmBench, folder data/behavior_datasets"
)
_COLUMNS = ("Behavior", "BehaviorID", "FunctionalCategory", "SemanticCategory", "ContextString")
_VAL = "harmbench_behaviors_text_val.csv"
_TEST = "harmbench_behaviors_text_test.csv"


class _HarmBench(HarmfulBenchmark):
    """The behaviours of a split.

    A behaviour with a context is asked as the authors ask it: the context, a line `---`, then the
    behaviour. The group is the functional category, each with a column: standard, contextual,
    copyright. The authors find copied text by its hashes; here the judge is asked about the
    copyright behaviours as well.
    """

    METRICS = (
        ATTACK_SUCCESS,
        *(
            Metric(f"attack_success_{group}", "harmful", worst="high", group=group, labels=("yes",))
            for group in ("standard", "contextual", "copyright")
        ),
    )

    def read(self, path: Path) -> list[Case]:
        """The behaviours, with their contexts."""
        return checked_cases(path, [_case(row) for row in read_rows(path, *_COLUMNS)])


class HarmBench(_HarmBench):
    """The 80 behaviours of the validation split: for choices of settings, wordings, thresholds."""

    NAME = "harmbench"
    SOURCE = Source(usual_places("harmbench", _VAL), _HOW.format(_VAL))
    ROLE = "development"


class HarmBenchTest(_HarmBench):
    """The 320 behaviours of the test split."""

    NAME = "harmbench_test"
    SOURCE = Source(usual_places("harmbench", _TEST), _HOW.format(_TEST))
    ROLE = "reported"


def _case(row: Row) -> Case:
    behaviour, context = row.text("Behavior").strip(), row.text("ContextString", "").strip()
    return Case(
        id=row.text("BehaviorID"),
        prompt=f"{context}\n\n---\n\n{behaviour}" if context else behaviour,
        group=row.text("FunctionalCategory"),
        columns={
            "behaviour": behaviour,
            "context": context,
            "SemanticCategory": row.text("SemanticCategory", ""),
        },
    )
