"""Malformed answers go back to their writer once; the forms that templates and repairs show."""

import pytest

from stair_jax.data.records import SynthesisPrompt
from stair_jax.decoding.driver import Driver, run_tasks
from stair_jax.synthesis.faults import ask_repair, find_fault
from stair_jax.synthesis.records import Written
from stair_jax.synthesis.settings import WritingSettings
from stair_jax.synthesis.templates import STRUCTURE, TEMPLATES, fill_template
from stair_jax.synthesis.writers import LocalWriter
from stair_jax.testing.scripted_engine import RandomReplies, ScriptedEngine
from stair_jax.text import steps

REPAIR = "Your reply does not have the form"
SOUND = steps.format_answer([("A", "x")], "b")
PROMPT = SynthesisPrompt("p", "Why?", "safety")


@pytest.fixture
def write(tokenizer):
    """`write(reply, prompt, ...)`: (the writing of a prompt, the requests as texts)."""

    def run(reply, prompt=PROMPT, room=2**40, **values):
        replies = RandomReplies(tokenizer)
        replies.reply = reply
        engine = ScriptedEngine(replies, max_length=room)
        settings = WritingSettings(**{"num_candidates": 2, "repair": True} | values)
        writer = LocalWriter(engine, tokenizer, settings, {}, 3, keeps_tokens=True)
        (writing,) = run_tasks(Driver(engine), [writer.task(prompt, "")])
        assert not engine.handles
        return writing, [tokenizer.decode(request.sequence) for request in engine.seen]

    return run


def repaired(request, text):
    """Malformed at first."""
    return SOUND if REPAIR in text else "No tags."


def test_a_local_model_gets_its_malformed_answer_back_once(write, tokenizer):
    writing, seen = write(repaired)
    assert [each.text for each in writing.answers] == [SOUND] * 2 and writing.repairs == 2
    assert [tokenizer.decode(each.tokens).strip() for each in writing.answers] == [SOUND] * 2
    assert len(seen) == 4
    assert seen[2].startswith("Why?No tags.") and "text outside of a block" in seen[2]


class TagsAsText(RandomReplies):
    """Writes tags as a checkpoint does that was not trained on them: letter by letter."""

    def write(self, request):
        text = self.reply(request, self.tokenizer.decode(request.sequence))
        tokens = [*self.tokenizer.encode_text(text), self.tokenizer.eos_id]
        return tokens, [-1.0] * len(tokens)


@pytest.mark.parametrize("replies", [RandomReplies, TagsAsText])
def test_a_malformed_answer_is_shown_in_the_tokens_that_it_was_written_in(tokenizer, replies):
    open_step = SOUND.removesuffix("<|/Output|>")  # malformed
    writing = replies(tokenizer)
    writing.reply = lambda request, text: SOUND if REPAIR in text else open_step
    engine = ScriptedEngine(writing)
    settings = WritingSettings(num_candidates=1, repair=True)
    made = LocalWriter(engine, tokenizer, settings, {}, 3).task(PROMPT, "")
    (made,) = run_tasks(Driver(engine), [made])
    assert made.answers[0].text == SOUND
    asked = list(engine.seen[-1].sequence)
    encode = tokenizer.encode_text if replies is TagsAsText else tokenizer.encode_answer
    written = encode(open_step)
    assert any(asked[i : i + len(written)] == written for i in range(len(asked)))
    tags = set(vars(tokenizer.tags).values())
    assert tags.isdisjoint(asked) == (replies is TagsAsText)


def test_the_second_answer_counts_whatever_it_is(write):
    writing, seen = write(lambda request, text: "Still none." if REPAIR in text else "No tags.")
    assert [each.text for each in writing.answers] == ["Still none."] * 2 and len(seen) == 4


def test_the_first_answer_stands_where_a_repair_has_no_room(write):
    writing, _ = write(repaired, room=60, max_answer_tokens=20)
    assert [each.text for each in writing.answers] == ["No tags."] * 2
    assert not writing.skipped


@pytest.mark.parametrize(
    ("changes", "prompt"),
    [
        ({"repair": False}, PROMPT),
        ({"answer_format": "plain"}, PROMPT),
        ({"max_answer_tokens": 3}, PROMPT),  # cut, not malformed
        ({}, SynthesisPrompt("p", "Why?", "safety", start=(steps.format_step("A", "x"),))),
    ],
)
def test_nothing_goes_back_where_that_is_not_wanted_or_could_not_help(write, changes, prompt):
    writing, seen = write(repaired, prompt, **changes)
    assert len(seen) == 2 and writing.repairs == 0


def test_a_plain_answer_with_an_output_block_in_its_middle_is_asked_for_without():
    answer = Written(f"So: {steps.format_output('b')} and more.", True)
    assert find_fault(answer, plain := WritingSettings(answer_format="plain")) == "malformed"
    assert ask_repair(answer, plain) == ""
    turn = ask_repair(answer, WritingSettings(answer_format="plain", repair=True))
    assert "without any such tag" in turn and "<|Output|>" in turn


def test_the_form_that_writers_are_shown_is_the_grammar():
    shown, _, about = STRUCTURE.rpartition("\n\n")
    parsed = steps.parse(shown)
    assert len(parsed.steps) == 2 and parsed.final and "tags exactly" in about


@pytest.mark.parametrize("name", ["rewrite", "steps", "deliberative_steps"])
def test_templates_for_writers_without_training_show_the_form(name):
    text = fill_template(TEMPLATES[name], "{answer}?", "{form}!", "{policy}.")
    assert text.endswith(STRUCTURE) and "{answer}?" in text
    assert ("{policy}." in text) == (name == "rewrite")
    assert ("{form}!" in text) == (name == "deliberative_steps")
