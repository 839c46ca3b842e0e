"""Fuzzed text: no control tokens from text, lossless decoding, parsers that do not crash.

Each text goes through one tokenizer and all parsers. Then parsers and tokenizers are timed on
repetitive texts of increasing length, up to `longest` characters: their time must be linear.
"""

import itertools
import random
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from soak.fuzz import draw_text
from soak.growing import how_it_grows
from soak.result import Result
from soak.tokenizers import keeps_text, tokenizers
from stair_jax.monitoring import Progress
from stair_jax.search.judging.replies import QUESTIONS, read_conclusion, release_safety
from stair_jax.text import chat, steps
from stair_jax.text.plain import valid_unicode
from stair_jax.text.tokenizer import Tokenizer

LONGEST = 2**20
_LONGEST_ENCODED = 2**18  # for the tokenizers, of which there are many
# A text that is timed consists of a head, many repetitions of a piece, and a tail.
_HEADS = (
    "",
    "Conclusion",
    "Conclusion:",
    "Conclusion: [5",
    "Conclusion: 4/",
    "<|Reasoning_step|>Title:",
    "<|Output|>",
)
_PIECES = (
    "a",
    " ",
    "\n",
    " \n",
    "<",
    "<|Out",
    "[1",
    "*_`",
    "Conclusion: ",
    "Conclusion: [5] ",
    steps.FINAL_PREFIX,
    *steps.TAGS,
    steps.format_step("a", "b"),
    steps.OUTPUT_OPEN + "<|Out",
)
_TAILS = ("", "x")
_PARSERS: dict[str, Callable[[str], object]] = {
    "parse_tolerant": steps.parse_tolerant,
    "final_answer": steps.final_answer,
    "is_well_formed": steps.is_well_formed,
    "has_one_output": steps.has_one_output,
    "breaks_output": steps.breaks_output,
    **{
        f"read_conclusion({question})": partial(read_conclusion, question) for question in QUESTIONS
    },
    "release_safety": release_safety,
}


class _Family(NamedTuple):
    """A tokenizer and its properties."""

    name: str
    tokenizer: Tokenizer
    control: frozenset[int]
    names: list[str]  # of the control tokens
    frame: list[int]  # control tokens of a prompt without any in its text
    keeps_text: bool


def run(size: int, seed: int, folder: Path, longest: int = LONGEST) -> Result:
    """Checks `size` texts; text i is drawn with the seed `seed` + i.

    Args:
        size: number of texts.
        seed: of the first text.
        folder: not used.
        longest: length of the longest text that is timed, in characters; 0: none is timed.
    """
    result = Result("text")
    families = [_family(name, tokenizer) for name, tokenizer in tokenizers()]
    progress = Progress("text", size, "texts")
    for number in range(seed, seed + size):
        family = families[number % len(families)]
        text = draw_text(random.Random(number), [*family.names, *steps.TAGS])
        result.counts[family.name] += 1
        for what in [*_tokenizer_problems(family, text), *_parser_problems(text)]:
            result.fail(what, number, f"{len(text)} characters: {text[:200]!r}")
        progress.update(number - seed + 1, failures=len(result.failures))
    progress.close()
    if longest:
        _check_growth(result, families, longest)
    return result


def _family(name: str, tokenizer: Tokenizer) -> _Family:
    added = tokenizer.hf.added_tokens_decoder
    control = frozenset(added) | set(tokenizer.hf.all_special_ids)
    frame = [token for token in chat.encode_prompt(tokenizer, "step") if token in control]
    names = [token.content for token in added.values()]
    return _Family(name, tokenizer, control, names, frame, keeps_text(tokenizer))


def _tokenizer_problems(family: _Family, text: str) -> list[str]:
    """Problems of a tokenizer with a text, one line each."""
    tokenizer, name = family.tokenizer, family.name
    try:
        ids = tokenizer.encode_text(text)
        prompt = chat.encode_prompt(tokenizer, text)
        answer = tokenizer.encode_answer(text)
        decoded = tokenizer.decode(ids)
    except Exception as error:
        return [f"{name}: {type(error).__name__}: {error}"]
    found = []
    # The unknown token of a vocabulary of words may represent any text.
    if family.control.intersection(ids) - {tokenizer.hf.unk_token_id}:
        found.append(f"{name}: encode_text gives a control token")
    if _controls(family, prompt) != family.frame:
        found.append(f"{name}: the text of a prompt changes its control tokens")
    tags = dict(zip(vars(tokenizer.tags).values(), steps.TAGS, strict=True))
    written = [tags.get(token, str(token)) for token in _controls(family, answer)]
    if written != steps.TAG_PATTERN.findall(text):
        found.append(
            f"{name}: encode_answer gives a control token that is not a tag, or loses a tag"
        )
    if family.keeps_text and decoded != _normalized(tokenizer, text):
        found.append(f"{name}: decode(encode_text(text)) differs from the text")
    return found


def _controls(family: _Family, ids: list[int]) -> list[int]:
    unknown = family.tokenizer.hf.unk_token_id
    return [token for token in ids if token in family.control and token != unknown]


def _normalized(tokenizer: Tokenizer, text: str) -> str:
    normalizer = tokenizer.hf.backend_tokenizer.normalizer
    text = valid_unicode(text)
    return str(normalizer.normalize_str(text)) if normalizer else text


def _parser_problems(text: str) -> list[str]:
    """Problems of the parsers with a text, one line each."""
    found = []
    for name, parse in _PARSERS.items():
        try:
            parse(text)
        except Exception as error:
            found.append(f"{name}: {type(error).__name__}: {error}")
    if found:
        return found
    answer = steps.parse_tolerant(text)
    shown = [answer.final, *(part for step in answer.steps for part in step)]
    if any(steps.TAG_PATTERN.search(part) for part in shown):
        found.append("parse_tolerant shows a tag")
    if steps.is_well_formed(text):
        if steps.parse(text) != answer:
            found.append("parse and parse_tolerant read a well-formed answer differently")
        if steps.parse(steps.format_answer(answer.steps, answer.final)) != answer:
            found.append("formatting and parsing an answer changes it")
        if not steps.has_one_output(text):
            found.append("a well-formed answer has not one output block")
    return found


def _check_growth(result: Result, families: list[_Family], longest: int) -> None:
    """Adds a failure for each parser and tokenizer whose time is not linear."""
    shapes = list(itertools.product(_HEADS, _PIECES, _TAILS))
    work = [(name, parse, shape, longest) for name, parse in _PARSERS.items() for shape in shapes]
    limit = min(longest, _LONGEST_ENCODED)
    for family in families:
        name, encode = f"{family.name}: encode_text", family.tokenizer.encode_text
        work += [(name, encode, ("", piece, ""), limit) for piece in _PIECES]
    progress = Progress("text: timing", len(work), "shapes")
    for done, (name, function, shape, limit) in enumerate(work, start=1):
        grows = how_it_grows(partial(_repeated, *shape), function, limit)
        result.counts["timed"] += 1
        if grows.is_linear:
            kind = "encode_text" if "encode_text" in name else "parser"
            figure = f"slowest_{kind}_us_a_character"
            own = 1e6 * grows.seconds / grows.length
            result.figures[figure] = max(result.figures.get(figure, 0.0), own)
        else:
            what = f"{name} takes {grows.seconds:.2g} s for {grows.length} characters of {shape}"
            result.fail(what, 0, grows.words)
        progress.update(done, failures=len(result.failures))
    progress.close()


def _repeated(head: str, piece: str, tail: str, length: int) -> str:
    return head + piece * (length // len(piece)) + tail
