"""A config as a list of stages, checked as far as can be before anything runs."""

import importlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from ml_collections import ConfigDict
from ml_collections.config_dict import RequiredValueError

from stair_jax import stages, storage
from stair_jax.errors import UserError, did_you_mean
from stair_jax.monitoring import say

_NO_SECTIONS = ("stages", "seed", "runtime")  # fields of a config that are not about one stage
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")

Inputs = Mapping[str, str | tuple[str, ...]]  # field -> the earlier stages that it names


@dataclass(frozen=True)
class Stage:
    """One stage as the config asks for it.

    Attributes:
      kind: its module in `stair_jax.stages`.
      name: its name in the run, and of its folder.
      settings: `config[kind]` updated with `config[name]`.
      own_fields: dotted names of the settings that `config[name]` sets.
      seed: the seed of the run.
      inputs: for each field in `module.INPUTS` that is not empty, the stages that it names.
      input_fingerprints: by name of the stage.
      module: what runs it.
    """

    kind: str
    name: str
    settings: Mapping[str, Any]
    own_fields: frozenset[str]
    seed: int
    inputs: Inputs
    input_fingerprints: Mapping[str, str]
    module: ModuleType

    @property
    def input_names(self) -> list[str]:
        """The stages whose artifacts it reads."""
        return names_of(self.inputs)

    @property
    def identity(self) -> dict[str, Any]:
        """What the artifact of the stage depends on, in JSON's types."""
        return {
            "kind": self.kind,
            "name": self.name,
            "seed": self.seed,
            "settings": storage.plain(self.settings, keep_nonfinite=True),
            "inputs": dict(self.input_fingerprints),
        }

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the artifact that the stage makes."""
        return storage.fingerprint(self.identity)


def make_graph(config: ConfigDict) -> list[Stage]:
    """The stages of a config, in their order.

    Raises:
      UserError: an unknown kind, a name used twice, a field that the kind does not have, an input
        that is not an earlier stage.
    """
    seed = config.get("seed", 0)
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise UserError(f"config.seed is {seed!r}: it has to be a whole number")
    try:
        sections = config.copy_and_resolve_references().to_dict()
    except RequiredValueError as error:
        raise UserError(f"a field of the config has no value yet: {error}") from error
    entries = _entries(sections.get("stages"))
    _warn_of_unused_sections(sections, [name for _, name in entries])
    settings = [_settings(sections, kind, name) for kind, name in entries]
    graph: list[Stage] = []
    for (kind, name), (fields, own_fields) in zip(entries, settings, strict=True):
        module = importlib.import_module(f"{stages.__name__}.{kind}")
        made = {stage.name: stage.fingerprint for stage in graph}
        later = [other for _, other in entries[len(graph) :]]
        inputs = _inputs(module.INPUTS, fields, kind, name, list(made), later)
        used = {other: made[other] for other in names_of(inputs)}
        graph.append(Stage(kind, name, fields, own_fields, seed, inputs, used, module))
    return graph


def names_of(inputs: Inputs) -> list[str]:
    """The names of all stages in `inputs`."""
    return [
        name for names in inputs.values() for name in ([names] if isinstance(names, str) else names)
    ]


def leaves(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The fields of a nested mapping by their dotted names."""
    found: dict[str, Any] = {}
    for field, item in value.items():
        if isinstance(item, Mapping) and item:
            found |= leaves(item, f"{prefix}{field}.")
        else:
            found[f"{prefix}{field}"] = item
    return found


def _entries(listed: Any) -> list[tuple[str, str]]:
    """(kind, name) of each stage."""
    if not isinstance(listed, list | tuple) or not listed:
        raise UserError("config.stages has to be a tuple of 'kind:name' with at least one stage")
    entries: list[tuple[str, str]] = []
    for entry in listed:
        kind, _, name = str(entry).partition(":")
        name = name or kind
        if kind not in stages.KINDS:
            hint = did_you_mean(kind, stages.KINDS)
            raise UserError(f"config.stages: there is no kind of stage {kind!r}: {hint}")
        if not _NAME.fullmatch(name):
            raise UserError(f"config.stages: {name!r} cannot be the name of a folder")
        if name in [earlier for _, earlier in entries]:
            raise UserError(
                f"config.stages lists the stage {name!r} twice: give each its own name, "
                f"for example '{kind}:{name}2'"
            )
        if name in _NO_SECTIONS or (name != kind and name in stages.KINDS):
            raise UserError(f"config.stages: {name!r} means something else: choose another name")
        entries.append((kind, name))
    return entries


def _warn_of_unused_sections(sections: Iterable[str], names: Sequence[str]) -> None:
    for section in sorted(set(sections) - {*_NO_SECTIONS, *stages.KINDS, *names}):
        say(f"config.{section} is about none of the stages of this run")


def _settings(
    sections: Mapping[str, Any], kind: str, name: str
) -> tuple[dict[str, Any], frozenset[str]]:
    """`config[kind]` updated with `config[name]`, and the dotted names of what was updated."""
    base = sections.get(kind) or {}
    own = (sections.get(name) or {}) if name != kind else {}
    for section, fields in ((kind, base), (name, own)):
        if not isinstance(fields, dict):
            raise UserError(f"config.{section} has to be a section with fields, not {fields!r}")
    return _updated(base, own, f"config.{name}"), frozenset(leaves(own))


def _updated(base: dict[str, Any], own: dict[str, Any], where: str) -> dict[str, Any]:
    result = dict(base)
    for field, value in own.items():
        if field not in base:
            hint = did_you_mean(field, base)
            raise UserError(f"{where}.{field} is not a field of this kind of stage: {hint}")
        if isinstance(base[field], dict) and isinstance(value, dict):
            value = _updated(base[field], value, f"{where}.{field}")
        result[field] = value
    return result


def _inputs(
    fields: Sequence[str],
    settings: Mapping[str, Any],
    kind: str,
    name: str,
    earlier: Sequence[str],
    later: Sequence[str],
) -> dict[str, str | tuple[str, ...]]:
    """The stages that the settings name in `fields`."""
    inputs: dict[str, str | tuple[str, ...]] = {}
    for field in fields:
        if field not in settings:
            raise UserError(f"config.{kind} lacks the field {field}, which names an earlier stage")
        value = settings[field]
        named = tuple(value) if isinstance(value, list | tuple) else (value,) if value else ()
        for other in named:
            if other in earlier:
                continue
            where = f"{field} of the stage {name} (config.{name}.{field})"
            if other in later:
                raise UserError(f"{where} names {other!r}, which does not come before it")
            hint = did_you_mean(str(other), earlier)
            raise UserError(f"{where} names {other!r}, which is no earlier stage: {hint}")
        if named:
            inputs[field] = named if isinstance(value, list | tuple) else str(value)
    return inputs
