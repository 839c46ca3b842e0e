"""The flags by which `answer` and `chat` name and load a model."""

import argparse
from collections.abc import Callable

from stair_jax.commands.flags import Arguments
from stair_jax.commands.settings_flags import add_settings_flags, read_settings
from stair_jax.errors import UserError
from stair_jax.run.answer_models import AnswerSettings
from stair_jax.run.compilation_cache import use_compilation_cache, users_cache


def add_model_flags(parser: argparse.ArgumentParser) -> None:
    """Flags of the model, and of how it is asked."""
    parser.add_argument(
        "--model",
        metavar="NAME",
        default="",
        help="a Hugging Face folder, a hub id, a stage of a run (runs/pocket/iter3), or pocket",
    )
    parser.add_argument(
        "--prm",
        metavar="NAME",
        default="",
        help="the reward model that guides a search; as --model",
    )
    add_settings_flags(parser, AnswerSettings)
    parser.epilog = (
        "The judge and the reward of self-reward have flags too, such as --judge.mode=expected and "
        "--reward.c2=2: `stair-jax --help=search` explains their fields."
    )


def read_model_settings(arguments: Arguments) -> AnswerSettings:
    """The settings that the flags give.

    Raises:
      UserError: a flag has a value that cannot be, or fields of a config are set.
    """
    arguments.refuse_overrides()
    return read_settings(arguments.options, AnswerSettings)


def use_users_cache() -> None:
    """Keeps compiled programs for the next start."""
    use_compilation_cache(users_cache())


def read_stdin(read: Callable[[], str]) -> str:
    """What a function reads of stdin.

    Raises:
      UserError: it is not text.
    """
    try:
        return read()
    except UnicodeDecodeError as error:
        raise UserError(f"stdin is not {error.encoding} text at byte {error.start}") from error
