"""Prints a script that completes the command line in bash or zsh."""

import argparse

from stair_jax.commands import VERBS
from stair_jax.commands.flags import Arguments, make_parser
from stair_jax.commands.help import verb_module
from stair_jax.commands.session import Session
from stair_jax.recipes import RECIPES
from stair_jax.run.run_config import section_classes
from stair_jax.settings import describe
from stair_jax.stages import STAGES

SUMMARY = "Prints a completion script: source <(stair-jax completion bash)."
_SCRIPT = """\
{prelude}_stair_jax() {{
  local word="${{COMP_WORDS[COMP_CWORD]}}" previous="${{COMP_WORDS[COMP_CWORD-1]}}"
  if [[ "$previous" == "=" && "${{COMP_WORDS[COMP_CWORD-2]}}" == "--config" ]] ||
    [[ "$previous" == "--config" ]]; then
    COMPREPLY=($(compgen -f -W "{recipes}" -- "${{word#=}}"))
    return
  fi
  COMPREPLY=($(compgen -W "{words}" -- "$word"))
  [[ ${{#COMPREPLY[@]}} -eq 1 && "${{COMPREPLY[0]}}" == *= ]] && compopt -o nospace
}}
complete -o default -F _stair_jax stair-jax
"""


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Flags of `stair-jax completion`."""
    parser.add_argument("shell", choices=("bash", "zsh"), nargs="?", default="bash")


def execute(arguments: Arguments, session: Session) -> int:
    """Prints the script; returns the exit status."""
    is_zsh = arguments.options.shell == "zsh"
    prelude = "autoload -U +X bashcompinit && bashcompinit\n" if is_zsh else ""
    print(
        _SCRIPT.format(prelude=prelude, words=" ".join(words()), recipes=" ".join(RECIPES)), end=""
    )
    return 0


def words() -> list[str]:
    """The verbs, the flags of all of them, and every field of a config."""
    flags: dict[str, None] = {}
    for verb in VERBS:
        module = verb_module(verb)
        for action in make_parser(verb, module.SUMMARY, module.add_flags)._actions:
            ending = "" if action.nargs == 0 else "="
            flags |= {f"{flag}{ending}": None for flag in action.option_strings}
    sections = section_classes(STAGES)
    fields = [
        f"--config.{section}.{field.name}="
        for section, cls in sections.items()
        for field in describe(cls)
    ]
    topics = [f"--help={section}" for section in sections]
    return [*VERBS, *flags, "--help", *topics, "--config.seed=", "--config.stages=", *fields]
