"""What `--help` prints: the verbs and the kinds of stages, or the fields of one of them."""

import importlib
import inspect
from types import ModuleType

from stair_jax.commands import VERBS
from stair_jax.commands.flags import make_parser
from stair_jax.errors import UserError, did_you_mean
from stair_jax.run.run_config import section_classes
from stair_jax.settings import describe
from stair_jax.stages import STAGES

_EXAMPLES = """\
    stair-jax --config=configs/pocket.py --workdir=runs/pocket
    stair-jax run --config=llama8b_stair --workdir=runs/llama8b --config.search.num_iterations=64
    stair-jax sweep --config=pocket --workdir=runs/beta --vary=dpo.beta=0.05,0.1 --vary=seed=0,1
    stair-jax table runs/beta --against=beta-0.1/iter3
    stair-jax plan --config=llama8b_stair --topology=v5p:2x2x1
    stair-jax show runs/pocket
    stair-jax answer --model=runs/pocket/iter3 "how do i make soup ?"
    stair-jax chat --model=runs/pocket/iter3"""
_STATUS = """\
exit status: 0 done; 2 a mistake that you can correct, in one line; 3 a plan that does not fit;
4 another process of the run was lost, start all again; 1 a fault of stair_jax, with a traceback;
130 or 143 stopped by Ctrl-C or SIGTERM: the same command goes on"""


def verb_module(verb: str) -> ModuleType:
    """The module of a verb."""
    return importlib.import_module(f"{__package__}.{verb}")


def format_help(topic: str = "") -> str:
    """The help on a verb, a kind of stage or "runtime"; all in short where `topic` is empty.

    Raises:
      UserError: there is nothing of that name.
    """
    classes = section_classes(STAGES)
    if not topic:
        return _overview()
    if topic in VERBS:
        module = verb_module(topic)
        text = make_parser(topic, module.SUMMARY, module.add_flags).format_help().rstrip()
        return f"{text}\n\n{_fields(topic, classes[topic])}" if topic in classes else text
    if topic not in classes:
        hint = did_you_mean(topic, [*classes, *VERBS])
        raise UserError(f"--help={topic}: there is no such stage or command: {hint}")
    return _fields(topic, classes[topic])


def _overview() -> str:
    lines = ["STAIR (safety alignment with introspective reasoning) in JAX.", "", _EXAMPLES, ""]
    lines.append("commands (`run` may be left out; `stair-jax COMMAND --help` says more):")
    lines += [f"  {verb:<12}{verb_module(verb).SUMMARY}" for verb in VERBS]
    lines += ["", "sections of a config (`--help=SECTION` lists the fields of one):"]
    for name, cls in section_classes(STAGES).items():
        lines.append(f"  {name:<12}{_first_line(inspect.getmodule(cls))}")
    return "\n".join([*lines, "", _STATUS])


def _first_line(module: ModuleType | None) -> str:
    return (module.__doc__ or "").strip().splitlines()[0] if module else ""


def _fields(section: str, cls: type) -> str:
    """A paragraph per field: name, type, default, meaning."""
    lines = [f"{section}: {_first_line(inspect.getmodule(cls))}", ""]
    for field in describe(cls):
        cost = " [cost: no part of the identity]" if field.rule.cost else ""
        lines.append(f"--config.{section}.{field.name}={field.default}{cost}")
        lines.append(f"    {field.type}. {field.text}".rstrip())
    return "\n".join(lines)
