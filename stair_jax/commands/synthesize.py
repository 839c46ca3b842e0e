"""Has a teacher write SFT examples: one command, from a file of prompts to `sft.jsonl`."""

import argparse
from pathlib import Path
from typing import Any

from stair_jax.commands.cluster_flag import add_cluster_flag, with_cluster
from stair_jax.commands.endpoint_flags import SPENT, add_endpoint_flags, endpoint_values
from stair_jax.commands.flags import Arguments, listed
from stair_jax.commands.running import add_redo_flags, run_stages
from stair_jax.commands.session import Session
from stair_jax.data.records import KINDS
from stair_jax.errors import UserError
from stair_jax.synthesis.templates import TEMPLATES, find_template, shows_answer

SUMMARY = "Has a teacher, an endpoint or a local model, write SFT examples; goes on where it was."
_REPLIES = "replies"  # folder of what endpoints replied
_MAX_TOKENS, _CONTEXT = 2048, 4096
# Of a local model, as in the paper's search. Without a limit, or with one above 64, a GPU waits for
# the host at each step (decoding/sampling/sample.py).
_TOP_K = 50
_TEACHER, _JUDGE = "teacher", "judge"  # stages of local models


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Flags of `stair-jax synthesize`."""

    def add(flag: str, metavar: str, text: str, **more: Any) -> None:
        parser.add_argument(flag, metavar=metavar, help=text, **{"default": "", **more})

    many: dict[str, Any] = {"action": "append", "default": []}
    add("--prompts", "FILE", "what `files` reads: a file or hub data set; may be repeated", **many)
    add("--teacher", "NAME", "the address of an endpoint, or a local model: a folder or hub id")
    add("--model", "NAME", "of the model at the endpoint")
    add_endpoint_flags(parser)
    names = ", ".join(TEMPLATES)
    add("--template", "TEXT", f"{names}, or a text with {{prompt}}", default="steps")
    add("--candidates", "N", "answers to a prompt; the best is kept", type=int, default=1)
    add("--judge", "NAME", "endpoint, rule, or a local model; default: the teacher")
    add("--judge-endpoint", "URL", "address of the judge; default: the teacher's")
    add("--judge-model", "NAME", "of the model there; default: the teacher's")
    add("--kind", "KIND", f"of rows that do not say it: {' or '.join(KINDS)}")
    add("--limit", "N", "prompts; 0: all", type=int, default=0)
    add("--max-tokens", "N", "of an answer", type=int, default=_MAX_TOKENS)
    add("--out", "DIR", "folder of the results")
    parser.add_argument("--show-config", action="store_true", help="print all settings, and end")
    add_redo_flags(parser)
    add_cluster_flag(parser)
    parser.epilog = (
        "The judge rule tells refusals of safety prompts, and leaves others out. A judge behind an "
        "endpoint has the limits of the teacher, for itself. All other settings are those of the "
        "stage: --config.synthesize.FIELD=VALUE (--help=synthesize lists them)."
    )


def execute(arguments: Arguments, session: Session) -> int:
    """Writes what is not written yet; returns the exit status."""
    run_stages(_config(arguments.options), with_cluster(arguments), session)
    return 0


def _config(options: argparse.Namespace) -> dict[str, Any]:
    """The stages `files`, `synthesize`, and `model` for each local model, with their settings."""
    if not options.prompts or not options.teacher:
        lacking = "teacher" if options.prompts else "prompts"
        raise UserError(f"--{lacking} is missing: see --help=synthesize")
    if options.kind not in ("", *KINDS):
        raise UserError(f"--kind={options.kind}: it must be {' or '.join(KINDS)}")
    models = _local_models(options)
    # Rows with answers keep these as SFT examples alone.
    has_answers = shows_answer(options.template)
    sources = tuple(listed(options.prompts))
    read: dict[str, Any] = {"sft": sources} if has_answers else {"prompts": (sources,)}
    return {
        "stages": ("files", *(f"model:{name}" for name in models), "synthesize"),
        "files": read | ({"kinds": {"*": options.kind}} if options.kind else {}),
        **{name: {"init": folder, "dtype": ""} for name, folder in models.items()},
        "synthesize": {
            "model": next(iter(models), ""),
            "prompts": "files",
            "file": "sft.jsonl" if has_answers else "prompts1.jsonl",
            "num_prompts": options.limit,
            "template": options.template,
            "default_policies": "{policy}" in find_template(options.template),
            "num_candidates": options.candidates,
            "repair": True,
            "replies_folder": str(Path(options.out) / _REPLIES),  # --redo leaves it alone
            **_teacher(options),
            **_judge(options),
        },
    }


def _local_models(options: argparse.Namespace) -> dict[str, str]:
    """Folders or hub ids of the models that are loaded, by the name of their stage."""
    if not _is_taught(options):
        return {_TEACHER: options.teacher}
    return {} if options.judge in ("", "endpoint", "rule") else {_JUDGE: options.judge}


def _teacher(options: argparse.Namespace) -> dict[str, Any]:
    """Who writes, and how long answers may be."""
    if not _is_taught(options):
        if options.model:
            raise UserError("--model is of an endpoint: name its address with --teacher")
        most = options.max_tokens
        context = max(_CONTEXT, 2 * most)
        return {"top_k": _TOP_K, "max_answer_tokens": most, "context_tokens": context}
    return {
        "teacher_endpoint": _endpoint(options, options.teacher, options.model, "--model")
        | {"sampling": {"max_tokens": options.max_tokens}},
    }


def _judge(options: argparse.Namespace) -> dict[str, Any]:
    """Who judges; by rule safety prompts alone can be."""
    is_taught, name = _is_taught(options), options.judge
    if name == "endpoint" or (is_taught and not name):
        url, model = options.judge_endpoint, options.judge_model
        if is_taught:
            url, model = url or options.teacher, model or options.model
        asked = _endpoint(options, url, model, "--judge-model")
        return {"judge": {"source": "endpoint", "endpoint": asked}}
    if options.judge_endpoint or options.judge_model:
        raise UserError("--judge-endpoint and --judge-model go with --judge=endpoint")
    limited = any(getattr(options, limit) is not None for limit in SPENT)
    if not is_taught and (limited or options.key_variable or options.batch):
        raise UserError(
            "key, --batch, limits and prices are of an endpoint, and none is asked: leave them out"
        )
    if name == "rule":
        return {
            "kinds": ("safety",),
            "judge": {"source": "rule:safety", "helpfulness_prompts": ()},
        }
    if name and not is_taught:
        return {"judge": {"source": "model"}, "judge_checkpoint": name}
    return {"judge": {"source": "policy"}}


def _endpoint(options: argparse.Namespace, url: str, model: str, flag: str) -> dict[str, Any]:
    """Settings of an endpoint."""
    if not url or not model:
        lacking = flag if url else "--judge-endpoint"
        raise UserError(f"{lacking} is missing: an endpoint needs its address and a model's name")
    return endpoint_values(options, url, model)


def _is_taught(options: argparse.Namespace) -> bool:
    """Whether an endpoint writes."""
    return bool(options.teacher.startswith(("http://", "https://")))
