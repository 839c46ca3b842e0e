"""The plugin for vLLM reads answers as the server does; of vLLM there is what it imports."""

import importlib.util
import sys
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

import stair_jax
from stair_jax.server import reasoning
from stair_jax.text.steps import FINAL_PREFIX, TAGS, format_answer

PLUGIN = Path(stair_jax.__file__).parents[1] / "launch" / "vllm_reasoning.py"
IDS = {tag: number for number, tag in enumerate(TAGS)}
REASONING_OPEN, REASONING_CLOSE, OUTPUT_OPEN, OUTPUT_CLOSE = range(4)
WORD = 9
# As vLLM stops at the closing tag of the output block, it may come or not.
PIECES = (*TAGS, FINAL_PREFIX, "Final", "Title: A\n", "word", " ", "\n\n", "<", "<|", "<|Out", "é")


@dataclass
class DeltaMessage:
    """As in vLLM, as far as it is used."""

    reasoning: str | None = None
    content: str | None = None


class ReasoningParser:
    """As in vLLM."""

    def __init__(self, tokenizer, *args, **kwargs):
        self.vocab = tokenizer.vocab


@pytest.fixture(scope="module")
def plugin():
    """The module, and the class that it has registered."""
    registered = {}

    def register_module(name):
        return lambda parser: registered.setdefault(name, parser)

    stubs = {
        "vllm.entrypoints.openai.engine.protocol": {"DeltaMessage": DeltaMessage},
        "vllm.reasoning.abs_reasoning_parsers": {
            "ReasoningParser": ReasoningParser,
            "ReasoningParserManager": SimpleNamespace(register_module=register_module),
        },
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, values in stubs.items():
            module = ModuleType(name)
            module.__dict__.update(values)
            patch.setitem(sys.modules, name, module)
        spec = importlib.util.spec_from_file_location("vllm_reasoning", PLUGIN)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return SimpleNamespace(split=module.split, Parser=registered["stair_jax"])


@pytest.fixture
def parser(plugin):
    return plugin.Parser(SimpleNamespace(vocab=IDS))


def streamed(parser, pieces):
    """(reasoning, content) of an answer that comes in pieces, as vLLM asks for them."""
    deltas, text = [], ""
    for piece in pieces:
        before, text = text, text + piece
        deltas.append(parser.extract_reasoning_streaming(before, text, piece, [], [], []))
    known = [delta for delta in deltas if delta]
    last = parser.get_streaming_fallback_content(text, None) or ""
    found = "".join(delta.reasoning or "" for delta in known)
    return found, "".join(delta.content or "" for delta in known) + last


@given(st.lists(st.sampled_from(PIECES), max_size=14))
def test_a_whole_answer_is_split_as_by_the_server(plugin, pieces):
    text = "".join(pieces)
    assert plugin.split(text) == tuple(reasoning.split(text))


@given(st.lists(st.sampled_from(PIECES), max_size=14), st.lists(st.integers(0, 60), max_size=6))
def test_an_answer_in_pieces_gives_the_same(plugin, pieces, cuts):
    """But for reasoning of which only the end tells, as vLLM then asks for content alone."""
    text = "".join(pieces)
    places = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    parts = [text[start:end] for start, end in pairwise(places)]
    found = streamed(plugin.Parser(SimpleNamespace(vocab=IDS)), parts)
    whole = reasoning.split(text)
    assert found[1] == whole.content
    assert whole.reasoning.startswith(found[0])
    missing = whole.reasoning.removeprefix(found[0])
    assert not missing or missing.startswith("<") or TAGS[OUTPUT_CLOSE] in text


def test_a_structured_answer_comes_letter_by_letter(parser):
    answer = format_answer([("Look", "A sum."), ("Add", "Two and two.")], "4")
    found = streamed(parser, answer)
    assert found == ("Title: Look\nA sum.\n\nTitle: Add\nTwo and two.", "4")


def test_fields_without_text_are_left_out(parser):
    assert parser.extract_reasoning("4", None) == (None, "4")
    assert parser.extract_reasoning(f"{TAGS[0]}A step", None) == ("A step", None)
    assert parser.extract_reasoning_streaming("", TAGS[0], TAGS[0], [], [], []) is None


def test_a_grammar_applies_inside_of_the_output_block_alone(parser):
    step = [REASONING_OPEN, WORD, REASONING_CLOSE]
    assert not parser.is_reasoning_end([])
    assert not parser.is_reasoning_end(step)
    assert parser.is_reasoning_end([*step, OUTPUT_OPEN, WORD])
    # An earlier answer in the prompt has ended: the next one has not begun.
    assert not parser.is_reasoning_end([*step, OUTPUT_OPEN, WORD, OUTPUT_CLOSE, WORD])


def test_the_ids_of_the_content_stand_in_the_last_output_block(parser):
    step = [REASONING_OPEN, WORD, REASONING_CLOSE]
    assert parser.extract_content_ids(step) == []
    assert parser.extract_content_ids([*step, OUTPUT_OPEN, 7, 8]) == [7, 8]
    assert parser.extract_content_ids([*step, OUTPUT_OPEN, 7, 8, OUTPUT_CLOSE, 9]) == [7, 8]


def test_a_step_that_the_prompt_has_begun_goes_on(parser):
    parser.adjust_initial_state_from_prompt([WORD, REASONING_OPEN, WORD])
    found = streamed(parser, [" and on.", TAGS[REASONING_CLOSE], TAGS[OUTPUT_OPEN], "4"])
    assert found == ("and on.", "4")


def test_a_tokenizer_without_the_tags_is_refused(plugin):
    with pytest.raises(ValueError, match="no export of stair_jax"):
        plugin.Parser(SimpleNamespace(vocab={}))
