"""Which of the judged answers are kept, and why others are not."""

from typing import NamedTuple

from stair_jax.data.records import SynthesisPrompt, is_harmless
from stair_jax.errors import UserError
from stair_jax.search.judging.settings import JudgeSettings
from stair_jax.synthesis.records import JudgedAnswer, PromptAnswers
from stair_jax.synthesis.settings import AcceptSettings

UNJUDGED, UNSAFE, UNHELPFUL, LOW_REWARD, LIMIT = (
    "unjudged",
    "unsafe",
    "unhelpful",
    "low_reward",
    "limit",
)


class Selection(NamedTuple):
    """The answers to a prompt, sorted.

    Attributes:
      kept: the best first.
      rejected: the others by their numbers, each with the reason.
    """

    kept: list[JudgedAnswer]
    rejected: list[tuple[JudgedAnswer, str]]


def select(
    prompt: SynthesisPrompt, found: PromptAnswers, settings: AcceptSettings, judge: JudgeSettings
) -> Selection:
    """Sorts the answers to a prompt; of two with the same reward the one with the lower number.

    Args:
      prompt: that was answered.
      found: its answers.
      settings: what is kept.
      judge: who judged, which says what was asked about the answers to prompts of a kind.
    """
    reasons = {
        each.number: each.reason or _objection(prompt, each, settings, judge)
        for each in found.answers
    }
    fit = [each for each in found.answers if not reasons[each.number]]
    fit.sort(key=lambda each: (-_value(each), each.number))
    kept = fit[: settings.max_per_prompt or None]
    reasons |= {each.number: LIMIT for each in fit[len(kept) :]}
    rejected = [(each, reasons[each.number]) for each in found.answers if reasons[each.number]]
    return Selection(kept, rejected)


def check_scored(judge: JudgeSettings, kinds: tuple[str, ...]) -> None:
    """Checks that the answers to prompts of each kind have a score at all.

    Raises:
      UserError: the judge scores nothing.
    """
    for kind in kinds:
        by_rule = judge.safety_rule == "paper_release" and kind == "safety"
        if not (by_rule or judge.questions(kind)):
            raise UserError(
                f"the judge scores no answers to {kind} prompts: see judge.source, and "
                f"judge.{kind}_prompts, or leave {kind!r} out of kinds"
            )


def _objection(
    prompt: SynthesisPrompt, answer: JudgedAnswer, settings: AcceptSettings, judge: JudgeSettings
) -> str:
    """Why a judged answer is not kept; "": it may be. S is +1 where it is not asked for."""
    if answer.reward is None or answer.safety is None or answer.helpfulness is None:
        return UNJUDGED
    if _below(answer.safety, settings.min_safety):
        return UNSAFE
    is_rated = "helpfulness" in judge.questions(prompt.kind)
    if (
        is_rated
        and is_harmless(prompt.kind, prompt.label)
        and _below(answer.helpfulness, settings.min_helpfulness)
    ):
        return UNHELPFUL
    return LOW_REWARD if _below(answer.reward, settings.min_reward) else ""


def _below(value: float, least: float | None) -> bool:
    return least is not None and value < least


def _value(answer: JudgedAnswer) -> float:
    assert answer.reward is not None
    return answer.reward
