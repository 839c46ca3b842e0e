"""AlpacaEval 2 (arXiv 2404.04475): is the model's answer preferred to a baseline's."""

from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from stair_jax.evaluation.benchmark import Benchmark, Metric, Source
from stair_jax.evaluation.case import Answer, Case
from stair_jax.evaluation.judges.judge import Material, Verdict
from stair_jax.evaluation.length_control import length_controlled
from stair_jax.evaluation.rows import Row, checked_cases, read_rows, usual_places


class AlpacaEval(Benchmark):
    """The instruction as it is; a judge compares the answer with the baseline's, in both orders.

    The preference is a probability, so that `win_rate` is the authors' weighted win rate. Its
    level depends on the judge: the one of the paper is no longer served, so that figures of others
    compare with each other alone.
    """

    NAME: ClassVar[str] = "alpaca_eval"
    SOURCE: ClassVar[Source] = Source(
        usual_places("alpaca_eval", "gpt4_1106_preview_model_outputs.json", "alpaca_eval.json"),
        "results/gpt4_1106_preview/model_outputs.json of "
        "https://github.com/tatsu-lab/alpaca_eval as alpaca_eval/alpaca_eval.json (instruction, "
        "output; instruction_difficulty where it is known)",
    )
    QUESTION: ClassVar[str] = "preference"
    METRICS: ClassVar[tuple[Metric, ...]] = (
        Metric("lc_win_rate", "win", length_controlled),
        Metric("win_rate", "win"),
        Metric("length_difference", "length_difference", unit="characters"),
    )

    def read(self, path: Path) -> list[Case]:
        """One case a row; its group is the set that the instruction is from."""
        rows = read_rows(path, "instruction", "output")
        return checked_cases(path, [_case(row) for row in rows])

    def material(self, case: Case, answer: Answer) -> Material:
        """The answer, and beside it that of the baseline."""
        return replace(super().material(case, answer), other=case.columns["output"])

    def grade(self, case: Case, answer: Answer, verdict: Verdict | None) -> dict[str, float | None]:
        """`win`: probability that the answer is preferred; `length_difference` in characters."""
        win = verdict.scores.get("p") if verdict and verdict.label is not None else None
        difference = float(len(answer.final) - len(case.columns["output"]))
        scores = {"win": win, "length_difference": difference}
        if case.columns["difficulty"] is not None:
            scores["difficulty"] = case.columns["difficulty"]
        return scores


def _case(row: Row) -> Case:
    difficulty = None
    if row.value("instruction_difficulty") not in (None, ""):
        difficulty = row.number_in("instruction_difficulty")
    # an answer may be empty, as some baselines' are
    output = row.value("output")
    if not isinstance(output, str):
        raise row.error("the column 'output' is not text")
    return Case(
        id=str(row.number),
        prompt=row.text("instruction"),
        group=row.text("dataset", ""),
        columns={
            "output": output,
            "generator": row.text("generator", ""),
            "difficulty": difficulty,
        },
    )
