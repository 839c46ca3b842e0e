"""Data: `check` says what a file is, `split` shares prompts out, `study` builds a study's.

`filter` keeps what a judge keeps, `export` writes rows for other trainers.
"""

import argparse
from types import ModuleType

from stair_jax.commands import data_check, data_export, data_filter, data_split, data_study
from stair_jax.commands.flags import Arguments
from stair_jax.commands.session import Session
from stair_jax.errors import UserError

SUMMARY = (
    "Data files: check, filter, split, build a study's (study), write for other trainers (export)."
)

# An action is a module with SHARED, the flags that it has of those below, add_flags for those of
# its own, and execute(options, session).
ACTIONS: dict[str, ModuleType] = {
    "check": data_check,
    "filter": data_filter,
    "split": data_split,
    "study": data_study,
    "export": data_export,
}


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Flags of `stair-jax data`."""
    parser.add_argument("action", nargs="?", choices=tuple(ACTIONS), help="what to do")
    parser.add_argument(
        "files", nargs="*", metavar="FILE", help="a file, a folder or a hub id; export: or a run"
    )
    _add_shared(parser)
    for name, module in ACTIONS.items():
        module.add_flags(parser.add_argument_group(f"data {name}"))


def execute(arguments: Arguments, session: Session) -> int:
    """Does what the action says; returns the exit status."""
    options = arguments.options
    if options.action is None:
        raise UserError(f"say what to do: stair-jax data {', data '.join(ACTIONS)}")
    _check_flags(options)
    status: int = ACTIONS[options.action].execute(options, session)
    return status


def _add_shared(parser: argparse._ActionsContainer) -> None:
    parser.add_argument("--out", metavar="DIR", help="the folder to build; new, empty or a build")
    parser.add_argument(
        "--tokenizer", metavar="DIR", help="count tokens with this model's, not by an estimate"
    )
    parser.add_argument("--seed", metavar="N", type=int, default=0, help="of all orders")
    parser.add_argument(
        "--against",
        metavar="PATH",
        action="append",
        default=[],
        help="a file of held-out prompts, or a folder of such files; may be repeated",
    )


def _check_flags(options: argparse.Namespace) -> None:
    """Raises a UserError for a flag that another action has."""
    module = ACTIONS[options.action]
    own = argparse.ArgumentParser(add_help=False)
    module.add_flags(own)
    known = {"action", *module.SHARED, *(action.dest for action in own._actions)}
    every = argparse.ArgumentParser(add_help=False)
    add_flags(every)
    for name, value in vars(options).items():
        if name not in known and value != every.get_default(name) and value != []:
            flag = f"--{name.replace('_', '-')}" if name != "files" else repr(value[0])
            raise UserError(f"stair-jax data {options.action} takes no {flag}")
