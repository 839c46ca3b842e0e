"""Serves a model over HTTP, by the API of OpenAI."""

import argparse
import importlib
from dataclasses import dataclass
from typing import Any

from stair_jax.commands.flags import Arguments
from stair_jax.commands.model_flags import use_users_cache
from stair_jax.commands.session import Session
from stair_jax.commands.settings_flags import add_settings_flags, read_settings
from stair_jax.errors import UserError
from stair_jax.monitoring import say
from stair_jax.run.answer_models import AnswerSettings, find_files
from stair_jax.run.answering import load_answerer
from stair_jax.run.override import Override, apply_override
from stair_jax.run.runtime import Runtime
from stair_jax.server.settings import ServerSettings
from stair_jax.settings import setting

SUMMARY = "Serves a model by OpenAI's API: chats, texts, test-time search, scores, a web page."
_SIDE_BY_SIDE = 2**16  # answers: as many as there are slots
_PACKAGES = ("fastapi", "uvicorn", "prometheus_client")


@dataclass(frozen=True)
class ServedSettings(AnswerSettings):
    """How a model is loaded, and asked where a request does not say.

    Attributes:
      method: of requests that say nothing of sampling: "sample" or "greedy". Clients choose a
        search by the name of the model.
    """

    method: str = setting("sample", choices=("sample", "greedy"))


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Flags of `stair-jax serve`."""
    parser.add_argument(
        "model",
        metavar="MODEL",
        help="a Hugging Face folder, a hub id, a stage of a run (runs/pocket/iter3), or pocket",
    )
    parser.add_argument(
        "--prm",
        metavar="NAME",
        default="",
        help="the reward model that guides searches and scores steps; named as MODEL",
    )
    add_settings_flags(parser, ServerSettings)
    add_settings_flags(parser, ServedSettings)
    parser.epilog = (
        "Fields of config.runtime are set as in a run, such as --config.runtime.decoding_mesh.data="
        "4: `stair-jax --help=runtime` explains them. docs/serving.md shows how clients ask."
    )


def execute(arguments: Arguments, session: Session) -> int:
    """Serves until a signal comes; returns the exit status."""
    options = arguments.options
    session.on_interrupt = "not all requests were finished"
    server = read_settings(options, ServerSettings)
    # Requests may ask for any method.
    settings = AnswerSettings(**vars(read_settings(options, ServedSettings)))
    runtime = _runtime_fields(arguments.overrides)
    _check_packages()
    from stair_jax.server.keys import read_keys
    from stair_jax.server.listening import address_of, bind, listen
    from stair_jax.server.serving import Serving

    keys = read_keys(server.api_key_file)
    files, prm = find_files(options.model, options.prm, settings)
    with bind(server) as bound:
        say(f"serve: loading {options.model}")
        use_users_cache()
        answerer = load_answerer(files, prm, settings, _SIDE_BY_SIDE, runtime_fields=runtime)
        say("serve: compiling")
        answerer.warm_up()
        serving = Serving(answerer, server)
        guard = "" if keys else "; no API key is needed"
        ready = f"serve: {serving.name} is ready at {address_of(bound)}/v1{guard}"
        number = listen(serving, keys, bound, lambda: say(ready))
    if number:
        session.signals.number = number
        return session.end_by_signal()
    say("serve: ended")
    return 0


def _check_packages() -> None:
    for name in _PACKAGES:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise UserError(
                f"serve needs the package {name}: pip install 'stair_jax[serve]', or in a clone "
                "pip install -e '.[serve]'"
            ) from error


def _runtime_fields(overrides: tuple[Override, ...]) -> dict[str, Any]:
    """Fields of the runtime that the command line sets."""
    sections: dict[str, Any] = {}
    for override in overrides:
        apply_override(sections, {"runtime": Runtime}, override)
    fields: dict[str, Any] = sections.get("runtime", {})
    return fields
