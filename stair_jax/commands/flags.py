"""The one way in which the verbs read their flags, and overrides of a config."""

import argparse
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NoReturn

from stair_jax.addresses import require_local
from stair_jax.errors import UserError, did_you_mean
from stair_jax.run.override import Override

_OVERRIDE = re.compile(
    r"--?(?P<no>no)?config\.(?P<field>[^=]+)(?P<equals>=)?(?P<text>.*)", re.DOTALL
)
_NEGATIVE = re.compile(r"-[\d.]")


@dataclass(frozen=True)
class Arguments:
    """What a command line says.

    Attributes:
      options: the flags of the verb.
      overrides: each `--config.FIELD=VALUE`, in order.
    """

    options: argparse.Namespace
    overrides: tuple[Override, ...]

    def refuse_overrides(self) -> None:
        """For a verb without a config.

        Raises:
          UserError: fields of a config are set.
        """
        if self.overrides:
            raise UserError(
                f"{self.overrides[0].flag} is a field of a run's config, which this command does "
                "not have"
            )


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, and leaves the exit to the launcher."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (--help shows the usage)")


def make_parser(
    verb: str, summary: str, add_flags: Callable[[argparse.ArgumentParser], None]
) -> argparse.ArgumentParser:
    """The parser of a verb's flags."""
    parser = _Parser(
        prog=f"stair-jax {verb}", description=summary, allow_abbrev=False, add_help=False
    )
    add_flags(parser)
    return parser


def read_arguments(parser: argparse.ArgumentParser, argv: Sequence[str]) -> Arguments:
    """Reads a command line, without the names of the program and the verb.

    Raises:
      UserError: a flag is unknown, lacks its value, or has one that cannot be.
    """
    overrides, rest = take_overrides(argv)
    options, unknown = parser.parse_known_intermixed_args(rest)
    for name, value in vars(options).items():
        if isinstance(value, str):
            require_local(value, f"--{name}")
    for word in unknown:
        name = word.partition("=")[0]
        known = [flag for action in parser._actions for flag in action.option_strings]
        if not name.startswith("-"):
            raise UserError(
                f"{word!r} is not a flag: a flag begins with --, and overrides look like "
                "--config.seed=1"
            )
        raise UserError(f"{parser.prog} has no flag {name}: {did_you_mean(name, known)}")
    return Arguments(options, tuple(overrides))


def take_overrides(argv: Sequence[str]) -> tuple[list[Override], list[str]]:
    """The overrides of a command line, and the rest of it.

    A value follows `=`, or stands as the next word; a flag of True or False needs none, and
    `--noconfig.FIELD` means False.
    """
    overrides: list[Override] = []
    rest: list[str] = []
    words = list(argv)
    while words:
        word = words.pop(0)
        match = _OVERRIDE.fullmatch(word)
        if match is None:
            rest.append(word)
            continue
        text: str | None = match["text"] if match["equals"] else None
        if text is None and match["no"]:
            text = "False"
        elif text is None and words and _is_value(words[0]):
            text = words.pop(0)
        overrides.append(Override(match["field"], text, word))
    return overrides, rest


def _is_value(word: str) -> bool:
    return not word.startswith("-") or bool(_NEGATIVE.match(word))


def listed(values: Sequence[str]) -> list[str]:
    """The entries of flags that may be repeated, and may hold several with commas."""
    return [part.strip() for value in values for part in value.split(",") if part.strip()]
