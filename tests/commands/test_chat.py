"""`stair-jax chat`: turns that stream, commands, Ctrl-C, and a terminal that stays the user's."""

import io
import os
import pty
import re
import select
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from stair_jax import launch, stopping
from stair_jax.commands import chat as chat_command
from stair_jax.commands.chat_session import Chat, ChatOptions
from stair_jax.errors import UserError
from stair_jax.inference.methods import METHODS
from stair_jax.run.answer_models import AnswerSettings, ModelFiles, find_files
from stair_jax.run.answering import Answerer, load_answerer
from stair_jax.stopping import Stopped, StopSignals
from stair_jax.testing.scripted_engine import RandomReplies, ScriptedEngine
from stair_jax.testing.tiny_tokenizers import bpe_tokenizer
from stair_jax.text import steps
from stair_jax.text.terminal import printable

ROOT = Path(launch.__file__).parents[1]
# A shell lets its background jobs, and so their children, ignore SIGINT.
COMMAND = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from stair_jax import launch
sys.exit(launch.main())
"""
ANSWER = steps.format_answer([("Look", "It is a sum."), ("Count", "1 and 1")], "two")


@pytest.fixture(scope="module")
def loaded(tiny_models):
    """The tiny model; long answers, as a random model seldom ends one."""
    settings = AnswerSettings(temperature=1.0, method="sample", max_answer_tokens=40, slots=2)
    files, _ = find_files(tiny_models.model, "", settings)
    return load_answerer(files, None, settings, 1, steps=4)


@pytest.fixture
def signals(monkeypatch):
    """Signals whose timer does not look by itself; SIGINT as Python handles it."""
    monkeypatch.setattr(stopping, "_SECONDS", 1000.0)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    with StopSignals() as signals:
        yield signals
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def chat(loaded, signals):
    """A chat with the tiny model, and the list of what it prints."""
    printed = []
    chat = Chat(loaded, ChatOptions("sample"), signals, printed.append)
    yield chat, printed
    chat.reset()
    assert loaded.engine.pending == 0 and loaded.engine.free == loaded.engine.capacity
    assert not loaded.engine._handles


@pytest.fixture
def scripted(signals):
    """A chat whose model says ANSWER, or what a test sets as `reply`."""
    tokenizer = bpe_tokenizer()
    replies = RandomReplies(tokenizer)
    replies.reply = lambda request, text: ANSWER
    engine = ScriptedEngine(replies, max_length=400)
    files = ModelFiles("scripted", Path(), None, tokenizer, True)
    answerer = Answerer(engine, files, AnswerSettings(n=2), None)
    printed = []
    chat = Chat(answerer, ChatOptions("greedy"), signals, printed.append)
    yield chat, printed, replies
    chat.reset()
    assert not engine.handles and not engine.pending


def test_what_is_streamed_is_the_answer(chat):
    """Of a random model: any bytes, tags and control characters."""
    chat, printed = chat
    for turn in range(3):
        printed.clear()
        chat.reset()
        answered = chat.ask(f"turn {turn}")
        assert len(printed) > 2 or len(answered.tokens) < 8  # in pieces
        shown = "".join(printed)
        assert shown.endswith("\n")
        assert "\x1b" not in shown
        if not steps.TAG_PATTERN.search(answered.text):
            assert shown == printable(answered.text.strip()) + "\n"


def test_later_turns_begin_with_what_the_cache_has(chat, loaded):
    chat, _ = chat
    first = chat.ask("hello")
    before = loaded.engine.stats.reused
    chat.ask("go on")
    assert loaded.engine.stats.reused - before >= first.prompt_tokens - 1


def test_the_first_ctrl_c_stops_an_answer_and_leaves_no_page_behind(chat, loaded):
    chat, printed = chat
    free = loaded.engine.free

    def interrupt(text):
        if not printed:
            os.kill(os.getpid(), signal.SIGINT)
        printed.append(text)

    chat.write = interrupt
    assert chat.ask("hello") is None and chat.was_stopped
    assert loaded.engine.pending == 0 and loaded.engine.free == free
    assert chat.messages == [] and chat.signals.number is None
    assert chat.ask("hello") is not None and not chat.was_stopped


def test_a_second_ctrl_c_leaves(chat):
    chat, _ = chat
    chat.write = lambda text: [os.kill(os.getpid(), signal.SIGINT) for _ in range(2)]
    with pytest.raises(Stopped):
        chat.ask("hello")
    chat.signals.go_on()


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("shown", "- Look\nIt is a sum.\n- Count\n1 and 1\n\ntwo\n"),
        ("folded", "- Look\n- Count\n\ntwo\n"),
        ("hidden", "two\n"),
    ],
)
def test_steps_are_shown_folded_or_hidden(scripted, how, expected):
    chat, printed, _ = scripted
    chat.options.steps = how
    chat.ask("1 + 1?")
    assert "".join(printed) == expected
    printed.clear()
    chat.has_colors = True
    chat.ask("1 + 1?")
    shown = "".join(printed)
    assert re.sub("\x1b\\[2m|\x1b\\[0m", "", shown) == expected
    assert ("\x1b[2m- Look\x1b[0m" in shown) == (how != "hidden") and "\x1b[2mtwo" not in shown


def test_control_characters_of_the_model_are_escaped(scripted):
    chat, printed, replies = scripted
    forged = "\x1b]0;owned\x07\x1b[2J\r\u202e"
    replies.reply = lambda request, text: steps.format_answer(
        [(f"T{forged}", forged)], forged + "x"
    )
    chat.ask("hi")
    shown = "".join(printed)
    assert not set(shown) & set("\x1b\x07\r\u202e")
    assert shown.count("\\x1b]0;owned\\x07\\x1b[2J\\x0d\\u202e") == 3


@pytest.mark.parametrize(("history", "said"), [("final", "two"), ("whole", ANSWER)])
def test_later_turns_have_the_final_answer_or_all_of_it(scripted, history, said):
    chat, _, _ = scripted
    chat.options.history = history
    chat.options.system = "Be brief."
    chat.ask("1 + 1?")
    chat.ask("Why?")
    tokenizer = chat.answerer.files.tokenizer
    texts = ["Be brief.", "1 + 1?", said, "Why?"]
    roles = ["system", "user", "assistant", "user"]
    messages = [{"role": r, "content": t} for r, t in zip(roles, texts, strict=True)]
    expected = tokenizer.hf.apply_chat_template(
        messages, add_generation_prompt=True, return_dict=False
    )
    assert list(chat.answerer.engine.seen[-1].sequence) == expected


def test_a_chat_that_is_too_long_is_told_with_its_tokens(scripted):
    chat, _, _ = scripted
    with pytest.raises(
        UserError, match=r"the chat has \d{4,} tokens with this turn, and the contex"
    ):
        chat.ask("long " * 400)
    assert not chat.messages and not chat.answerer.engine.seen


@pytest.fixture
def talk(scripted, monkeypatch, capsys):
    """`talk(text)`: (what the chat prints, lines on stderr) where `text` is on stdin."""
    chat, printed, _ = scripted

    def talk(text):
        monkeypatch.setattr(sys, "stdin", io.StringIO(text))
        chat_command._talk(chat, chat_command._texts(chat, is_terminal=False))
        return "".join(printed), capsys.readouterr().err.splitlines()

    return talk


def test_commands_change_the_chat(scripted, talk):
    chat, _, _ = scripted
    chat.options.steps = "hidden"
    shown, said = talk("hi\n/system Be brief.\n\n/method sample\nhi\n")
    assert (shown, said) == ("two\ntwo\n", [])
    assert (chat.options.system, chat.options.method) == ("Be brief.", "sample")
    assert len(chat.messages) == 4
    talk("/reset\n/system\n/steps folded\n/quit\nnever asked\n")
    assert chat.messages == [] and chat.options == ChatOptions("sample", "folded")


def test_mistakes_in_commands_are_told_and_the_chat_goes_on(talk):
    known = ", ".join(map(repr, METHODS))
    shown, said = talk(
        "/rest\n/steps flat\n/method beam_serch\n/method dvts:4\n/method best_of_n\n/help\nhi\n"
    )
    assert shown.endswith("two\n")
    assert said[:5] == [
        "error: there is no /rest: did you mean reset?",
        "error: /steps flat: known are folded, hidden, shown",
        f"error: /method is 'beam_serch': it must be one of {known}: did you mean 'beam_search'?",
        "error: /method is 'dvts:4': write dvts:WIDTHxSUCCESSORS in whole numbers from 1 to 65536, "
        "such as dvts:4x4",
        "error: best_of_n needs a reward model: start with --prm",
    ]
    assert "  /quit           leave; so does Ctrl-D" in said


def test_texts_of_several_lines_and_with_a_slash(scripted, talk):
    chat, _, _ = scripted
    talk('"""\none\n/two\n"""\n//etc/passwd?\n')
    assert [m["content"] for m in chat.messages if m["role"] == "user"] == [
        "one\n/two",
        "/etc/passwd?",
    ]


def test_a_search_prints_its_answer_at_the_end(scripted, talk):
    chat, printed, replies = scripted
    replies.reply = lambda request, text: (
        ANSWER if text.endswith("assistant\n\n") and "Conclusion" not in text else "Conclusion: [1]"
    )
    chat.options.steps = "hidden"
    talk("/method best_of_n_self_reward\nhi\n")
    assert "".join(printed) == "two\n"


def test_ctrl_c_at_the_prompt_leaves_the_second_time(scripted, monkeypatch, capsys):
    chat, _, _ = scripted

    class Interrupting:
        def readline(self):
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(sys, "stdin", Interrupting())
    with pytest.raises(Stopped):
        list(chat_command._texts(chat, is_terminal=False))
    assert capsys.readouterr().err.count("Ctrl-C again, Ctrl-D or /quit leaves") == 1
    chat.signals.go_on()


def read_until(terminal, wanted):
    """What a process prints on its terminal, up to a text."""
    shown = ""
    while wanted not in shown:
        assert select.select([terminal], [], [], 120)[0], shown
        shown += os.read(terminal, 4096).decode()
    return shown


def test_a_process_on_a_terminal():
    """The base of the pocket world answers, Ctrl-C is heeded, and Ctrl-D leaves."""
    ours, its = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND, "chat", "--model=pocket", "--context-tokens=64"],
        stdin=its, stdout=its, stderr=its, cwd=ROOT, start_new_session=True,
        env=os.environ | {"JAX_PLATFORMS": "cpu", "TERM": "xterm"},
    )  # fmt: skip
    os.close(its)
    read_until(ours, "loading pocket")
    read_until(ours, "> ")
    os.write(ours, b"what is 3 plus 4 ?\n")
    answer = read_until(ours, "\n> ")
    assert "the sum is" in answer
    # Sent again if nothing follows: readline overlooks a signal that comes just as it prints its
    # prompt, and heeds it with the next one.
    for _ in range(20):
        process.send_signal(signal.SIGINT)
        if select.select([ours], [], [], 6)[0]:
            break
    read_until(ours, "Ctrl-C again")
    # Typed again until it is heeded: the terminal drops what comes while its mode is changed.
    for _ in range(60):
        os.write(ours, b"\x04")
        with suppress(subprocess.TimeoutExpired):
            process.wait(1)
            break
    assert process.wait(1) == 0
    os.close(ours)
