"""Asks a model: answers one prompt, or a file of prompts and chats, as JSON lines."""

import argparse
import sys
import time
from collections.abc import Sequence

from stair_jax.commands.answer_file import AnswerFile, make_identity, make_row
from stair_jax.commands.flags import Arguments
from stair_jax.commands.model_flags import (
    add_model_flags,
    read_model_settings,
    read_stdin,
    use_users_cache,
)
from stair_jax.commands.session import Session
from stair_jax.data.questions import Question, make_question, read_questions
from stair_jax.errors import UserError
from stair_jax.inference.answers import Answered
from stair_jax.monitoring import Progress, say
from stair_jax.run.answer_models import AnswerSettings, ModelFiles, find_files
from stair_jax.run.answering import load_answerer

SUMMARY = "Asks a model: answers to prompts and chats as JSON lines; test-time search on request."
_LONG_SECONDS = 5  # progress is told of what takes longer, also where stderr is no terminal


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Flags of `stair-jax answer`."""
    parser.add_argument("prompt", nargs="?", metavar="PROMPT", help="a prompt; -: that of stdin")
    parser.add_argument(
        "--prompts",
        metavar="FILE",
        help="prompts or chats: JSON lines, JSON, CSV, Parquet or a data set (columns prompt, "
        "messages, ...), or .txt with one a line",
    )
    parser.add_argument(
        "--out", metavar="FILE", default="", help="of the answers; the same command goes on with it"
    )
    add_model_flags(parser)


def execute(arguments: Arguments, session: Session) -> int:
    """Answers what has no answer yet; returns the exit status."""
    options, settings = arguments.options, read_model_settings(arguments)
    session.on_interrupt = "the rest is not answered"
    questions = _questions(options.prompt, options.prompts, settings.system)
    identity = make_identity(options.model, options.prm, settings)
    file = AnswerFile(options.out, identity)
    left = file.left(questions)
    if len(left) < len(questions):
        say(f"answer: {len(questions) - len(left)} of {len(questions)} prompts have their answers")
    files, prm = find_files(options.model, options.prm, settings)
    if not left:
        return 0
    if options.out:
        session.on_interrupt = "the same command goes on where it stopped"
    if sys.stderr.isatty():
        say(f"answer: loading {options.model}")
    with file:
        use_users_cache()
        answerer = load_answerer(files, prm, settings, len(left))
        start, progress = time.monotonic(), Progress("answer", len(left), "prompts")
        answers = []
        for question, answered in zip(left, answerer.run(left), strict=True):
            file.write(make_row(question, answered, identity))
            answers.append(answered)
            progress.update(len(answers))
        if sys.stderr.isatty() or time.monotonic() - start > _LONG_SECONDS:
            progress.close()
    _say_what_failed(answers, answerer.max_length, settings, files)
    return 0


def _questions(prompt: str | None, source: str | None, system: str | None) -> list[Question]:
    if (prompt is None) == (source is None):
        raise UserError("give either a PROMPT (- for stdin) or --prompts=FILE")
    if source is not None:
        return read_questions(source, system)
    text = read_stdin(sys.stdin.read) if prompt == "-" else str(prompt)
    if not text.strip():
        raise UserError("the prompt is empty")
    return [make_question(text, system=system)]


def _say_what_failed(
    answers: Sequence[Answered], max_length: int, settings: AnswerSettings, files: ModelFiles
) -> None:
    """Lines on stderr about answers that are not what was asked for."""
    too_long = [answer.prompt_tokens for answer in answers if answer.finish == "too_long"]
    if too_long:
        say(
            f"answer: {len(too_long)} of {len(answers)} prompts are too long for the context of "
            f"{max_length} tokens (the longest has {max(too_long)}): raise --context-tokens"
        )
    if cut := sum(answer.finish == "length" for answer in answers):
        say(
            f"answer: {cut} of {len(answers)} answers were cut off, at {settings.max_answer_tokens}"
            f" tokens or where the context of {max_length} tokens is full: raise "
            "--max-answer-tokens or --context-tokens"
        )
    if unscored := sum(answer.unscored for answer in answers):
        say(f"answer: {unscored} candidates had no score, and ranked last")
    if not files.is_structured:
        say(f"answer: {files.name} has no tags of steps: its answers are taken as they are")
