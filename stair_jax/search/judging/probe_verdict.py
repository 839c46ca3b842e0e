"""Whether a judge that was probed may guide a search; if not, what to try."""

from stair_jax.search.judging.auc import Auc
from stair_jax.search.judging.probe import ProbeResult
from stair_jax.search.judging.replies import QUESTIONS, Question

_CHECK = "`stair-jax judge check MODEL` tries several wordings and proposes one"
_CHANCE = 0.5


def summarize(result: ProbeResult) -> str:
    """What was seen, in one line."""
    aucs = ((question, result.auc(question)) for question in QUESTIONS)
    parts = [f"AUC of {question} {area}" for question, area in aucs if area is not None]
    read = f"{result.readable:.0%} of the scores could be read"
    return f"{len(result.cases)} cases: " + ", ".join([read, *parts])


def objection(
    result: ProbeResult,
    min_readable: float,
    min_auc: float,
    is_calibrated: bool,
    section: str = "search",
) -> str | None:
    """Why what the judge guides would be of no use; None: nothing speaks against it.

    Args:
      result: of the probe, with the scores that would be used.
      min_readable: least share of scores that can be read.
      min_auc: least AUC; it counts as missed where the whole 95 % interval lies below it.
      is_calibrated: whether the scores are calibrated, and so cannot be upside down.
      section: of the config, which has the `judge`.
    """
    judge = f"{section}.judge"
    if result.readable < min_readable:
        return (
            f"the judge cannot be read: {summarize(result)}, and {judge}.min_readable is "
            f"{min_readable:g}; it replied {_quoted(result)}. Try "
            f'{judge}.mode="expected", which reads log-probs, or a judge of its own '
            f"({judge}.source); {_CHECK}"
        )
    for question in QUESTIONS:
        area = result.auc(question)
        if area is not None and area.high < min_auc:
            return _about(question, area, min_auc, is_calibrated, judge)
    return None


def _about(question: Question, area: Auc, min_auc: float, is_calibrated: bool, judge: str) -> str:
    if area.high < _CHANCE:
        return (
            f"the judge's {question} is upside down: on labelled cases it has AUC {area} (95 % "
            "interval), so that it would teach the model what it should avoid. Try another "
            f"wording ({_CHECK}), or {judge}.calibrate=True, which turns it round"
        )
    turn = "" if is_calibrated else f', {judge}.calibrate=True with safety_score="expected"'
    return (
        f"the judge's {question} does not tell good answers from bad ones: on labelled cases it "
        f"has AUC {area} (95 % interval), below {judge}.min_auc={min_auc:g}. Try another "
        f"wording ({_CHECK}){turn}, another judge ({judge}.source), or do not ask it "
        f"({judge}.safety_prompts, helpfulness_prompts)"
    )


def _quoted(result: ProbeResult) -> str:
    return " and ".join(result.replies) or "nothing"
