"""Tries the wordings of a judge's questions on labelled cases, and proposes the best."""

import argparse
import sys

from stair_jax.commands.flags import Arguments
from stair_jax.commands.session import Session
from stair_jax.errors import UserError

SUMMARY = "Asks a model in several wordings to judge labelled answers; proposes the best."
_MODES = ("expected", "generative")


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Flags of `stair-jax judge`."""
    parser.add_argument("action", nargs="?", choices=("check",), help="check: try the wordings")
    parser.add_argument(
        "model", nargs="?", metavar="MODEL", help="a folder, a hub id, or the folder of a stage"
    )
    parser.add_argument(
        "--cases",
        metavar="FILE",
        default="default",
        help="JSON lines {prompt, kind, answer, safety, helpfulness}; default: built-in cases",
    )
    parser.add_argument(
        "--modes",
        metavar="LIST",
        default=",".join(_MODES),
        help="expected (log-probs of the labels), generative, or both (the default)",
    )
    parser.add_argument(
        "--dtype", metavar="NAME", default="", help="bfloat16, float32; default: by the device"
    )
    parser.add_argument("--slots", metavar="N", type=int, default=32, help="replies side by side")
    parser.add_argument("--context", metavar="N", type=int, default=2048, help="tokens at most")
    parser.add_argument("--max-tokens", metavar="N", type=int, default=256, help="of a reply")


def execute(arguments: Arguments, session: Session) -> int:
    """Prints a table of wordings and the settings to use; returns the exit status."""
    options = arguments.options
    if options.action != "check" or not options.model:
        raise UserError("say what to check: stair-jax judge check MODEL")
    modes = tuple(dict.fromkeys(mode.strip() for mode in options.modes.split(",")))
    if unknown := [mode for mode in modes if mode not in _MODES]:
        raise UserError(f"--modes names {unknown[0]!r}: it may hold {', '.join(_MODES)}")
    import jax

    from stair_jax.run import judge_check
    from stair_jax.search.judging.probe_cases import read_cases

    cases = read_cases(options.cases)
    dtype = options.dtype or ("float32" if jax.default_backend() == "cpu" else "bfloat16")
    engine, tokenizer = judge_check.load_judge(options.model, dtype, options.slots, options.context)
    trials = []
    for trial in judge_check.try_wordings(engine, tokenizer, cases, modes, options.max_tokens):
        trials.append(trial)
        print(judge_check.format_trials([trial]).splitlines()[1], file=sys.stderr, flush=True)
    print(f"{options.model}: {len(cases)} labelled cases\n")
    print(judge_check.format_trials(trials))
    print("\n" + "\n".join(judge_check.propose(trials)))
    return 0
