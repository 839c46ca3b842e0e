"""Tries our wordings of a judge's questions on labelled cases, and proposes the best."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from stair_jax import checkpoint
from stair_jax.decoding.driver import Driver
from stair_jax.decoding.engine import Engine
from stair_jax.decoding.engine_config import EngineConfig
from stair_jax.errors import UserError
from stair_jax.run.model_folders import find_model
from stair_jax.search.judging.auc import Auc
from stair_jax.search.judging.judges import Judge, JudgeSettings
from stair_jax.search.judging.probe import run_probe
from stair_jax.search.judging.probe_cases import ProbeCase
from stair_jax.search.judging.replies import QUESTIONS, Question
from stair_jax.text.judge_wordings import WORDINGS
from stair_jax.text.tokenizer import Tokenizer

MODES = ("expected", "generative")
_LEAST_READABLE = 0.5  # of a wording that is proposed
_UPSIDE_DOWN = 0.5
_HEADER = ("question", "wording", "mode", "read", "AUC [95 % interval]", "seconds")


@dataclass(frozen=True)
class Trial:
    """What a judge said of the cases in one wording.

    Attributes:
      question: "helpfulness" or "safety".
      wording: its name.
      mode: "expected" or "generative".
      readable: share of the scores that could be read.
      auc: None where none could be read of one of the sides.
      seconds: that it took; the first one of a mode includes compilation.
    """

    question: Question
    wording: str
    mode: str
    readable: float
    auc: Auc | None
    seconds: float

    @property
    def rank(self) -> float:
        """The lower end of the interval; -1 where the judge cannot be read."""
        return self.auc.low if self.auc and self.readable >= _LEAST_READABLE else -1.0


def load_judge(source: str, dtype: str, slots: int, context: int) -> tuple[Engine, Tokenizer]:
    """An engine over a model on the default device, and its tokenizer.

    Raises:
      UserError: as `checkpoint.load`; or the model is a reward model.
    """
    loaded = checkpoint.load(find_model(source), dtype)
    if "score" in loaded.params:
        raise UserError(f"{source} is a reward model, which cannot be asked: name a language model")
    sizes = EngineConfig(
        num_slots=slots, max_length=context, prefill_rows=8, prefill_width=64, steps_per_call=4
    )
    return Engine(loaded.config, loaded.params, sizes, consume=True), loaded.tokenizer


def try_wordings(
    engine: Engine,
    tokenizer: Tokenizer,
    cases: Sequence[ProbeCase],
    modes: Sequence[str] = MODES,
    max_tokens: int = 256,
    seed: int = 0,
) -> Iterator[Trial]:
    """Judges the cases in each wording and mode, one question at a time.

    Safety is asked about the answers to safety prompts, helpfulness about all, as a search does
    unless it is told otherwise.

    Args:
      engine: over the judge.
      tokenizer: of the judge.
      cases: labelled cases.
      modes: of `MODES`.
      max_tokens: of a reply in generative mode.
      seed: of the sampling.
    """
    for mode in modes:
        for question in QUESTIONS:
            for name in WORDINGS[question]:
                settings = JudgeSettings(
                    mode=mode,  # type: ignore[arg-type]
                    safety_prompts=(question,),
                    helpfulness_prompts=(question,) if question == "helpfulness" else (),
                    safety_score="expected",
                    max_tokens=max_tokens,
                    attempts=1,
                    **{f"{question}_template": name},  # type: ignore[arg-type]
                )
                start = time.monotonic()
                result = run_probe(Judge(tokenizer, settings), Driver(engine), cases, seed)
                seconds = time.monotonic() - start
                yield Trial(question, name, mode, result.readable, result.auc(question), seconds)


def format_trials(trials: Sequence[Trial]) -> str:
    """The trials as a table."""
    rows = [_HEADER] + [
        (
            trial.question,
            trial.wording,
            trial.mode,
            f"{trial.readable:.0%}",
            "-" if trial.auc is None else str(trial.auc),
            f"{trial.seconds:.1f}",
        )
        for trial in trials
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def propose(trials: Sequence[Trial], min_auc: float = 0.7) -> list[str]:
    """What to put into a config, line by line, and what speaks against it.

    The mode in which the best wordings of both questions have the larger lower ends of their
    intervals, and these wordings.
    """
    best = {
        mode: [_best(trials, mode, question) for question in QUESTIONS]
        for mode in dict.fromkeys(trial.mode for trial in trials)
    }
    mode = max(best, key=lambda mode: sum(trial.rank for trial in best[mode]))
    lines = [f"--config.search.judge.mode={mode}"]
    for trial in best[mode]:
        lines.append(f"--config.search.judge.{trial.question}_template={trial.wording}")
    if mode == "expected":
        lines.append("--config.search.judge.safety_score=expected")
    for trial in best[mode]:
        lines += _doubts(trial, trials, min_auc)
    return lines


def _best(trials: Sequence[Trial], mode: str, question: Question) -> Trial:
    fitting = [trial for trial in trials if (trial.mode, trial.question) == (mode, question)]
    return max(fitting, key=lambda trial: trial.rank)


def _doubts(best: Trial, trials: Sequence[Trial], min_auc: float) -> list[str]:
    """What to know of the best wording of a question before it is used."""
    own = [trial for trial in trials if trial.question == best.question and trial.auc]
    lines = []
    if best.rank < 0 or best.auc is None:
        lines.append(f"# {best.question}: no wording could be read; take another judge")
    elif best.auc.high < min_auc:
        lines.append(
            f"# {best.question}: no wording tells good answers from bad ones; take another judge, "
            "or do not ask it"
        )
    turned = [trial.wording for trial in own if trial.auc and trial.auc.high < _UPSIDE_DOWN]
    if turned:
        names = ", ".join(dict.fromkeys(turned))
        lines.append(f"# {best.question}: upside down in the wording {names}; do not use that")
    return lines
