"""What is wrong with an answer before anybody judges it, and how its writer is told."""

from stair_jax.synthesis.records import CUT, EMPTY, MALFORMED, Written
from stair_jax.synthesis.settings import WritingSettings
from stair_jax.synthesis.templates import STRUCTURE
from stair_jax.text import steps

# The form is shown once more: what was asked for may stand far above a long answer.
_STRUCTURED = """\
Your reply does not have the form that was asked for: {fault}.

Write the whole reply again. What it says stays the same, and its form is this:

{form}"""
_PLAIN = """\
Your reply holds {tag} otherwise than as one block at its end.

Write the whole reply again, with the same content and without any such tag."""


def find_fault(answer: Written, settings: WritingSettings, start: str = "") -> str:
    """Why an answer cannot be kept, whatever a judge says of it; "": it can.

    Args:
      answer: as its writer gave it.
      settings: the format that it must have.
      start: what it was made to begin with.
    """
    if answer.fault:
        return answer.fault
    if not answer.is_finished:
        return CUT
    if not answer.text.strip():
        return EMPTY
    whole = start + answer.text
    if settings.answer_format == "structured":
        return "" if steps.is_well_formed(whole) else MALFORMED
    return MALFORMED if steps.breaks_output(whole) else ""


def ask_repair(answer: Written, settings: WritingSettings) -> str:
    """The turn that asks for a malformed answer anew: what is wrong with it, and the form.

    Returns:
      "" where no repair is wanted, or the answer is not malformed.
    """
    if not settings.repair or find_fault(answer, settings) != MALFORMED:
        return ""
    if settings.answer_format == "plain":
        return _PLAIN.format(tag=steps.OUTPUT_OPEN)
    try:
        steps.parse(answer.text)
    except steps.FormatError as error:
        return _STRUCTURED.format(fault=error, form=STRUCTURE)
    return ""
