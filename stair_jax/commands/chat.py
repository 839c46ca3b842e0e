"""Talks with a model in the terminal: several turns, streamed, with steps shown or folded."""

import argparse
import os
import signal
import sys
from collections.abc import Callable, Iterator

from stair_jax.commands.chat_session import Chat, ChatOptions
from stair_jax.commands.chat_view import STEPS
from stair_jax.commands.flags import Arguments
from stair_jax.commands.model_flags import (
    add_model_flags,
    read_model_settings,
    read_stdin,
    use_users_cache,
)
from stair_jax.commands.session import Session
from stair_jax.errors import UserError, did_you_mean
from stair_jax.inference.answers import Answered
from stair_jax.inference.methods import METHODS, parse_method
from stair_jax.monitoring import say
from stair_jax.run.answer_models import find_files
from stair_jax.run.answering import load_answerer
from stair_jax.stopping import Stopped

SUMMARY = "Talks with a model in the terminal: several turns, steps shown or folded, streamed."
_STEPS_PER_CALL = 4  # tokens between two looks: fewer would cost time, more would come in jerks
_QUOTES = '"""'
_HELP = f"""\
  /reset          begin anew
  /system TEXT    set the system turn; without TEXT: that of the model
  /steps HOW      {", ".join(STEPS)}: how reasoning steps are shown
  /method NAME    {", ".join(METHODS[:4])},
                  {", ".join(METHODS[4:])};
                  a search also with a size: best_of_n:16, beam_search:4x4, dvts:4x4
  /help           this list
  /quit           leave; so does Ctrl-D
Ctrl-C stops an answer, and a second one leaves. {_QUOTES} on a line of its own begins and ends a
text of several lines. // at its beginning stands for a / that is no command."""


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Flags of `stair-jax chat`."""
    parser.add_argument(
        "--steps", choices=STEPS, default="shown", help="how reasoning steps are shown"
    )
    parser.add_argument(
        "--history",
        choices=("final", "whole"),
        default="final",
        help="what later turns have of an earlier answer: its final answer, or its steps too",
    )
    add_model_flags(parser)


def execute(arguments: Arguments, session: Session) -> int:
    """Answers turn after turn until the user leaves; returns the exit status."""
    options, settings = arguments.options, read_model_settings(arguments)
    session.on_interrupt = "the chat is over"
    files, prm = find_files(options.model, options.prm, settings)
    is_terminal = sys.stdin.isatty() and sys.stdout.isatty()
    if is_terminal:
        say(f"loading {options.model}; /help lists the commands")
    use_users_cache()
    answerer = load_answerer(files, prm, settings, 1, _STEPS_PER_CALL)
    if not files.is_structured:
        say(f"{options.model} has no tags of steps: its answers are taken as they are")
    chat = Chat(
        answerer,
        ChatOptions(settings.method, options.steps, settings.system, options.history),
        session.signals,
        _write,
        has_colors=_has_colors(),
        shows_progress=sys.stderr.isatty() and is_terminal,
    )
    _talk(chat, _texts(chat, is_terminal))
    chat.reset()
    return 0


def _write(text: str) -> None:
    encoding = sys.stdout.encoding or "utf-8"
    print(text.encode(encoding, "backslashreplace").decode(encoding), end="", flush=True)


def _has_colors() -> bool:
    is_plain = "NO_COLOR" in os.environ or os.environ.get("TERM", "dumb") == "dumb"
    return sys.stdout.isatty() and not is_plain


def _talk(chat: Chat, texts: Iterator[str]) -> None:
    """Does what each text of the user says."""
    for text in texts:
        try:
            if text.startswith("/") and not text.startswith("//"):
                if not _obey(chat, text):
                    return
            elif text.strip():
                _ask(chat, text.removeprefix("/") if text.startswith("//") else text)
        except UserError as error:
            say(f"error: {error}")


def _ask(chat: Chat, text: str) -> None:
    answered = chat.ask(text)
    if answered is None:
        say("stopped: the chat goes on without this turn")
    else:
        _say_what_failed(chat, answered)


def _say_what_failed(chat: Chat, answered: Answered) -> None:
    settings, most = chat.answerer.settings, chat.answerer.max_length
    if answered.score is not None and chat.shows_progress:
        say(f"(score {answered.score:.3g}, {answered.generated_tokens} tokens sampled)")
    if answered.finish != "length":
        return
    if (tokens := answered.prompt_tokens + len(answered.tokens)) >= most:
        say(
            f"cut off: the chat has {tokens} tokens, and the context holds {most}: /reset begins "
            "anew, and --context-tokens allows more"
        )
    else:
        say(
            f"cut off at {len(answered.tokens)} tokens: --max-answer-tokens allows more than "
            f"{settings.max_answer_tokens}"
        )


def _obey(chat: Chat, line: str) -> bool:
    """Does what a command says; returns whether the chat goes on."""
    name, _, value = line[1:].strip().partition(" ")
    if name in ("quit", "exit"):
        return False
    commands: dict[str, Callable[[Chat, str], None]] = {
        "reset": lambda chat, value: chat.reset(),
        "system": _set_system,
        "steps": _set_steps,
        "method": _set_method,
        "help": lambda chat, value: say(_HELP),
    }
    if name not in commands:
        raise UserError(f"there is no /{name}: {did_you_mean(name, [*commands, 'quit'])}")
    commands[name](chat, value.strip())
    return True


def _set_system(chat: Chat, value: str) -> None:
    chat.options.system = value or None


def _set_steps(chat: Chat, value: str) -> None:
    if value not in STEPS:
        raise UserError(f"/steps {value}: {did_you_mean(value, STEPS)}")
    chat.options.steps = value


def _set_method(chat: Chat, value: str) -> None:
    parse_method(value, "/method")
    chat.answerer.check_method(value)
    chat.options.method = value


def _texts(chat: Chat, is_terminal: bool) -> Iterator[str]:
    """What the user says, text by text, until the input ends.

    Raises:
      Stopped: at a second Ctrl-C; the first one may have stopped an answer.
    """
    if is_terminal:
        import readline  # noqa: F401 - lines can be edited, and called back
    quoted: list[str] | None = None
    was_interrupted = False
    while True:
        try:
            line = _read_line(is_terminal, "> " if quoted is None else ". ")
        except EOFError:
            if is_terminal:
                print()  # the shell's own prompt begins a line
            return
        except Stopped as stopped:
            if was_interrupted or stopped.number != signal.SIGINT:
                raise
            chat.signals.go_on()
            was_interrupted, quoted = True, None
            say("\nCtrl-C again, Ctrl-D or /quit leaves")
            continue
        was_interrupted = False
        if line.strip() == _QUOTES:
            if quoted is None:
                quoted = []
                continue
            line, quoted = "\n".join(quoted), None
        elif quoted is not None:
            quoted.append(line)
            continue
        chat.was_stopped = False
        yield line
        was_interrupted = chat.was_stopped


def _read_line(is_terminal: bool, prompt: str) -> str:
    if is_terminal:
        return input(prompt)
    line = read_stdin(sys.stdin.readline)
    if not line:
        raise EOFError
    return line.rstrip("\n")
