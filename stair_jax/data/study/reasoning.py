"""Reasoning blocks for answers of public sets that have none, and for traces that have no blocks.

All wordings are ours. Blocks are (title, text), as `text/steps.py` formats them.
"""

import re
from collections.abc import Sequence

from stair_jax.data.study.public_set import Row
from stair_jax.data.study.texts import given_text, pick, sentences

Block = tuple[str, str]

ANALYSIS, RISK, PLAN = "Problem Analysis", "Risk and Policy Check", "Answer Plan"
MOST_CALCULATIONS = 5  # with the analysis and the output, an answer then has 7 steps at most

_QUOTED = 25  # words of a prompt that are quoted
_TRACE = re.compile(r"\s*<think>(?P<trace>.*?)</think>\s*(?P<final>\S.*)", re.DOTALL)
_CALCULATION_NOTE = re.compile(r"<<[^<>]*>>")
_NUMBER = re.compile(r"-?\d+(\.\d+)?")
_ITEM = re.compile(r"^\s*(?:[-*•]|\d+[.)])\s+", re.MULTILINE)
_CODE = re.compile(r"```|^(?:def|class|import|from|SELECT|function|#include)\b", re.MULTILINE)
_QUESTION = re.compile(
    r"(?:who|what|when|where|why|how|which|is|are|was|were|can|could|do|does|did|should)\b",
    re.IGNORECASE,
)

# Words with which a prompt or an answer may not be what the templates below call harmless.
RISKY = re.compile(
    r"\b(?:kill|murder|assassin|weapon|gun|rifle|bomb|explosi|poison|attack|hack|malware|ransom|"
    r"phish|exploit|drug|cocaine|heroin|meth\b|weed|illegal|crime|crimin|terror|suicid|self-harm|"
    r"sex|porn|nude|rape\b|rapist|racis|nazi|hate|hating|genocid|tortur|steal|theft|thief|robb|"
    r"fraud|scam|launder|forge(?:d|r|ry)\b|blackmail|stalk|abus|slur\b|insult|bully|alcohol|gambl)",
    re.IGNORECASE,
)


def trace_blocks(response: str) -> tuple[list[Block], str] | None:
    """Blocks and final answer of a response "<think> trace </think> answer".

    The first paragraph of the trace becomes the analysis, the last one the plan, and each of those
    between a check of risk and policy. A trace of fewer than three paragraphs is divided between
    sentences.

    Returns:
      (blocks, final answer); None: there is no trace, no answer, or too short a trace.
    """
    found = _TRACE.fullmatch(response)
    if not found:
        return None
    parts = [part.strip() for part in re.split(r"\n\s*\n", found["trace"]) if part.strip()]
    if len(parts) < 3:
        said = sentences(" ".join(parts))
        third = -(-len(said) // 3)
        parts = [" ".join(said[start : start + third]) for start in range(0, len(said), third or 1)]
    if len(parts) < 3:
        return None
    first, *middle, last = parts
    return [(ANALYSIS, first), *((RISK, text) for text in middle), (PLAN, last)], found["final"]


def joined(blocks: Sequence[Block]) -> list[Block]:
    """Blocks in which neighbours with the same title have become one."""
    found: list[Block] = []
    for title, text in blocks:
        if found and found[-1][0] == title:
            found[-1] = title, f"{found[-1][1]}\n\n{text}"
        else:
            found.append((title, text))
    return found


def calculation_blocks(question: str, answer: str) -> tuple[list[Block], str] | None:
    """Blocks and final number of a solution of GSM8K: a block for each line.

    Returns:
      (blocks, number); None: more lines than `MOST_CALCULATIONS`, none, or no number.
    """
    lines = [line.strip() for line in answer.partition("####")[0].split("\n") if line.strip()]
    number = solution(answer)
    if number is None or not 1 <= len(lines) <= MOST_CALCULATIONS:
        return None
    asked = sentences(question)[-1]
    opening = pick(
        (
            f"What has to be found: {asked} The text gives the numbers; one line each will do.",
            f"A calculation is asked for. {asked} I take the facts one after another.",
            f"I read the problem for what it asks: {asked} Then I calculate in small parts.",
        ),
        "calculation",
        question,
    )
    worked = [_CALCULATION_NOTE.sub("", line) for line in lines]
    numbered = [(f"Calculation {count}", line) for count, line in enumerate(worked, 1)]
    return [(ANALYSIS, opening), *numbered], number


def solution(answer: str) -> str | None:
    """The number behind "####" in a solution of GSM8K, without commas; None: there is none."""
    number = answer.rpartition("####")[2].strip().replace(",", "")
    return number if "####" in answer and _NUMBER.fullmatch(number) else None


def helpful_blocks(instruction: str, row: Row, answer: str) -> list[Block]:
    """An analysis of a harmless instruction, and a plan that fits the form of its answer."""
    said = [
        f'{_opening(instruction)} "{quoted(instruction)}".',
        *(["It comes with a text, which the answer has to rest on."] if given_text(row) else []),
        pick(
            (
                "Nobody is harmed by an answer, so I give a full one.",
                "This is harmless, and a correct, complete answer is what helps.",
                "There is no risk in it. I answer it as well as I can.",
            ),
            "harmless",
            instruction,
        ),
    ]
    return [(ANALYSIS, " ".join(said)), (PLAN, plan(answer))]


def contrast_blocks(prompt: str, topic: str, answer: str) -> list[Block]:
    """Why a harmless prompt that sounds harmful is answered.

    Args:
      prompt: as it is asked.
      topic: what its wording is near to, as the set names it; "": not known.
      answer: that it gets.
    """
    near = f" ({topic})" if topic else ""
    checked = pick(
        (
            f"Some words in it remind of a delicate topic{near}. What counts is what an answer "
            "would be used for, and here that is ordinary and lawful. A refusal would only be "
            "unhelpful.",
            f"At first sight this looks like a delicate topic{near}. Read as a whole, it asks for "
            "something that harms nobody, so I do not refuse it.",
            f"I weigh the wording, which is near to a delicate topic{near}, against the aim. The "
            "aim is harmless: I answer in full.",
        ),
        "contrast",
        prompt,
    )
    analysis = f'{_opening(prompt)} "{quoted(prompt)}".'
    return [(ANALYSIS, analysis), (RISK, checked), (PLAN, plan(answer))]


def careful_blocks(prompt: str) -> list[Block]:
    """Why a harmful prompt gets a careful answer or none; in few words."""
    checked = pick(
        (
            "Doing this could hurt somebody, so I stay with what is safe.",
            "To go along with it may harm people. I do not, and say why.",
            "This can do harm. A careful answer serves everyone better.",
        ),
        "careful",
        prompt,
    )
    return [(ANALYSIS, f'{_opening(prompt)} "{quoted(prompt, 12)}".'), (RISK, checked)]


def plan(answer: str) -> str:
    """What the form of an answer will be."""
    points = len(_ITEM.findall(answer))
    paragraphs = len([part for part in answer.split("\n\n") if part.strip()])
    said = len(sentences(answer))
    if _CODE.search(answer):
        options = ("Write the code, with few words around it.", "Code is what is needed here.")
    elif points >= 2:
        options = (f"Make a list of {points} points.", f"{points} items, each short and concrete.")
    elif len(answer.split()) <= 10:
        options = ("A few words are enough.", "Answer briefly, without an introduction.")
    elif paragraphs >= 3:
        options = (
            f"Write {paragraphs} paragraphs, one thought in each.",
            "Go through it in order.",
        )
    elif said == 1:
        options = ("One clear sentence says it.", "Say it in a single sentence.")
    else:
        options = (f"Say it in about {said} sentences.", "First the main point, then the rest.")
    return pick(options, "plan", answer)


def quoted(prompt: str, most: int = _QUOTED) -> str:
    """The first words of a prompt, for quotation marks."""
    words = prompt.split()
    cut = " ".join(words[:most])
    return f"{cut} ..." if len(words) > most else cut.rstrip(" .:!")


def _opening(prompt: str) -> str:
    """How a quotation of the prompt is introduced."""
    if prompt.rstrip().endswith("?") or _QUESTION.match(prompt):
        return pick(("The question is:", "The user wants to know:"), "opening", prompt)
    return pick(("The task is:", "The user asks for this:"), "opening", prompt)
