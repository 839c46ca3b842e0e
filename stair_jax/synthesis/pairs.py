"""Pairs of whole answers to a prompt, for DPO: step pairs whose path is empty, or a start."""

from stair_jax.data.records import StepPair, SynthesisPrompt
from stair_jax.synthesis.duplicates import near_duplicates
from stair_jax.synthesis.records import DUPLICATE, JudgedAnswer, PromptAnswers
from stair_jax.synthesis.settings import PairSettings

# Why a prompt gives no pair.
SKIPPED, UNJUDGED, SMALL_GAP, LOW_VALUE = "skipped", "unjudged", "small_gap", "low_value"
NO_ANSWER, NOT_GIVEN, BAD_GIVEN, ALIKE = "no_answer", "not_given", "bad_given", "alike"

Ends = tuple[JudgedAnswer, JudgedAnswer]  # chosen, rejected


def make_pair(
    prompt: SynthesisPrompt, found: PromptAnswers, settings: PairSettings, max_similarity: float
) -> StepPair | str:
    """The pair of a prompt, or why it has none.

    Args:
      prompt: that was answered.
      found: its answers.
      settings: which pair.
      max_similarity: from which on two answers are alike, as `WritingSettings` says.
    """
    if found.skipped:
        return SKIPPED
    ends = _best_worst(found) if settings.pairs == "best_worst" else _given_own(found, settings)
    if isinstance(ends, str):
        return ends
    chosen, rejected = ends
    if near_duplicates([chosen.text, rejected.text], max_similarity)[1]:
        return ALIKE
    return _too_weak(chosen, rejected, settings) or _pair(prompt, chosen, rejected)


def _best_worst(found: PromptAnswers) -> Ends | str:
    """The best sound answer, and the worst of all that have a reward."""
    rewarded = [(each.reward, each) for each in found.answers if each.reward is not None]
    sound = [(reward, each) for reward, each in rewarded if not each.reason]
    if not sound or len(rewarded) < 2:
        are_alike = sound and any(each.reason == DUPLICATE for each in found.answers)
        return ALIKE if are_alike else UNJUDGED
    best = max(sound, key=lambda entry: (entry[0], -entry[1].number))
    worst = min(rewarded, key=lambda entry: (entry[0], entry[1].number))
    return best[1], worst[1]


def _given_own(found: PromptAnswers, settings: PairSettings) -> Ends | str:
    """The answer of the prompt's row, and the model's own with the lowest reward."""
    given = found.given
    if given is None:
        return NOT_GIVEN
    if given.reason:
        return BAD_GIVEN
    sound = [each for each in found.answers if not each.reason]
    if not sound:
        return NO_ANSWER
    rewarded = [(each.reward, each) for each in sound if each.reward is not None]
    if settings.v0 is None and not rewarded:
        return given, sound[0]
    if not rewarded or (settings.v0 is not None and given.reward is None):
        return UNJUDGED
    return given, min(rewarded, key=lambda entry: (entry[0], entry[1].number))[1]


def _too_weak(chosen: JudgedAnswer, rejected: JudgedAnswer, settings: PairSettings) -> str:
    """Why the rewards of two answers make no pair; "": they do, or need not."""
    if settings.v0 is None:
        return ""
    assert chosen.reward is not None and rejected.reward is not None
    if chosen.reward - rejected.reward <= settings.v0:
        return SMALL_GAP
    is_low = settings.v1 is not None and chosen.reward < settings.v1
    return LOW_VALUE if is_low else ""


def _pair(prompt: SynthesisPrompt, chosen: JudgedAnswer, rejected: JudgedAnswer) -> StepPair:
    """Token ids where both were sampled: texts would end with a token more than samples do."""
    are_sampled = None not in (chosen.tokens, rejected.tokens) and not prompt.start
    return StepPair(
        f"{prompt.id}:{_name(chosen)}-{_name(rejected)}",
        prompt.prompt,
        prompt.start or (),
        chosen.text,
        rejected.text,
        system=prompt.system,
        history=prompt.history,
        start=prompt.start,
        kind=prompt.kind,
        chosen_value=chosen.reward,
        rejected_value=rejected.reward,
        chosen_terminal=True,
        rejected_terminal=True,
        path_tokens=() if are_sampled else None,
        chosen_tokens=chosen.tokens if are_sampled else None,
        rejected_tokens=rejected.tokens if are_sampled else None,
    )


def _name(answer: JudgedAnswer) -> str:
    return "given" if answer.number < 0 else str(answer.number)
