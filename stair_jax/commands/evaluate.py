"""Evaluates models on benchmarks and attacks: one command, one table."""

import argparse
from typing import Any

from stair_jax.commands.cluster_flag import add_cluster_flag, with_cluster
from stair_jax.commands.flags import Arguments, listed
from stair_jax.commands.running import add_redo_flags, run_stages
from stair_jax.commands.session import Session
from stair_jax.errors import UserError
from stair_jax.evaluation.suites import SUITES

SUMMARY = "Evaluates models on benchmarks, under attacks, with judges; goes on where it stopped."
_GREEDY, _PROMPTED = "greedy", "prompted"
_MAX_TOKENS, _CONTEXT = 2048, 4096


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Flags of `stair-jax evaluate`."""

    def add(flag: str, metavar: str, text: str, **more: Any) -> None:
        parser.add_argument(flag, metavar=metavar, help=text, **more)

    many: dict[str, Any] = {"action": "append", "default": []}
    add(
        "--model",
        "NAME",
        "a folder, a hub id, a stage of a run, or pocket; may be repeated",
        **many,
    )
    add("--suite", "NAME", f"of benchmarks: {', '.join(SUITES)}", default="")
    add("--benchmarks", "LIST", "BENCHMARK or BENCHMARK:ATTACK, with commas between them", **many)
    add("--data", "DIR", "folder of the benchmarks' files", default="")
    add("--judge", "NAME", "who grades: rule, endpoint, or a model; may be repeated", **many)
    add("--labelled", "QUESTION=FILE", "answers with labels by humans, to compare judges", **many)
    add(
        "--method",
        "NAME",
        "greedy, prompted, or a search, such as best_of_n, beam_search:4x4, dvts:4x4, "
        "best_of_n_self_reward:16; of one model; may be repeated",
        **many,
    )
    add("--prm", "NAME", "the reward model that guides a search", default="")
    add(
        "--attacker", "NAME", "who writes prompts of attacks; default: the model itself", default=""
    )
    add("--limit", "N", "cases of each benchmark; 0: all", type=int, default=0)
    add("--max-tokens", "N", "of an answer", type=int, default=_MAX_TOKENS)
    add("--out", "DIR", "folder of answers, verdicts and table", default="")
    parser.add_argument("--show-config", action="store_true", help="print all settings, and end")
    add_redo_flags(parser)
    add_cluster_flag(parser)
    parser.epilog = (
        "All other settings are those of the stage: --config.evaluate.FIELD=VALUE, such as "
        "--config.evaluate.endpoint.model=NAME for a model behind an endpoint (--help=evaluate "
        "lists them)."
    )


def execute(arguments: Arguments, session: Session) -> int:
    """Evaluates what is not evaluated yet; returns the exit status."""
    values = {"stages": ("evaluate",), "evaluate": _settings(arguments.options)}
    run_stages(values, with_cluster(arguments), session)
    return 0


def _settings(options: argparse.Namespace) -> dict[str, Any]:
    """The section of the stage."""
    methods = listed(options.method) or [_GREEDY]
    searches = [method for method in methods if method not in (_GREEDY, _PROMPTED)]
    models = options.model
    if len(models) != 1 and methods != [_GREEDY]:
        raise UserError("--method goes with one --model: evaluate others by a call of their own")
    if options.prm and not searches:
        raise UserError("--prm guides a search: name one with --method, such as best_of_n")
    return {
        "files": options.data,
        "suite": options.suite,
        "benchmarks": tuple(listed(options.benchmarks)),
        "limit": options.limit,
        "checkpoints": tuple(models) if _GREEDY in methods else (),
        "prompted_checkpoint": models[0] if _PROMPTED in methods else "",
        "searched_checkpoint": models[0] if searches else "",
        "methods": tuple(searches),
        "prm_checkpoint": options.prm,
        "attacker": options.attacker,
        "labelled": _labelled(options.labelled),
        "max_tokens": options.max_tokens,
        "context_tokens": max(_CONTEXT, 2 * options.max_tokens),
        "test_time": {"max_answer_tokens": options.max_tokens},
        "dtype": "",
        **({"graders": tuple(listed(options.judge))} if options.judge else {}),
    }


def _labelled(values: list[str]) -> dict[str, str]:
    files = {}
    for value in values:
        question, equals, file = value.partition("=")
        if not equals or not file:
            raise UserError(f"--labelled={value}: write QUESTION=FILE, e.g. refusal=labels.csv")
        files[question] = file
    return files
