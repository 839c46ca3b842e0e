"""The stages of a config in their order, built, and checked against each other."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stair_jax import storage
from stair_jax.errors import UserError, did_you_mean
from stair_jax.run.stage import Input, Stage, names_of
from stair_jax.settings import build

RESERVED = ("stages", "seed", "runtime")  # fields of a config that are about no single stage
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")


@dataclass(frozen=True)
class StageEntry:
    """One stage of a run.

    Attributes:
      kind: its key in the registry.
      name: its name in the run, and of its folder.
      stage: its settings, with the methods that do its work.
      own_fields: dotted names of the settings that the config sets for this stage alone.
      seed: the seed of the run.
    """

    kind: str
    name: str
    stage: Stage
    own_fields: frozenset[str]
    seed: int

    @property
    def label(self) -> str:
        """As it stands in `config.stages`."""
        return self.kind if self.kind == self.name else f"{self.kind}:{self.name}"

    @property
    def input_names(self) -> list[str]:
        """The stages whose artifacts it reads, each once."""
        named = self.stage.inputs().values()
        return list(dict.fromkeys(name for each in named for name in names_of(each)))

    def identity(
        self, inputs: Mapping[str, str], sources: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        """What the artifact depends on, in JSON's types.

        Args:
          inputs: fingerprints of the artifacts that it reads, by name of their stage.
          sources: fingerprints of the user's files that it reads, see `source_hashes.py`.
        """
        given = {"sources": dict(sources)} if sources else {}
        return {
            "kind": self.kind,
            "name": self.name,
            "version": self.stage.VERSION,
            "seed": self.seed,
            "settings": storage.plain(self.stage.identity(), keep_nonfinite=True),
            "inputs": {name: inputs[name] for name in self.input_names},
            **given,
        }


def list_names(stages: Sequence[str], registry: Mapping[str, type[Stage]]) -> dict[str, str]:
    """The kind of each stage by its name, in order.

    Raises:
      UserError: an unknown kind, a name used twice or that cannot be.
    """
    if not stages:
        raise UserError("config.stages has to be a tuple of 'kind:name' with at least one stage")
    names: dict[str, str] = {}
    for entry in stages:
        kind, _, name = entry.partition(":")
        name = name or kind
        if kind not in registry:
            hint = did_you_mean(kind, registry)
            raise UserError(f"config.stages: there is no kind of stage {kind!r}: {hint}")
        if not _NAME.fullmatch(name):
            raise UserError(f"config.stages: {name[:120]!r} cannot be the name of a folder")
        if name in names:
            raise UserError(
                f"config.stages lists the stage {name!r} twice: give each its own name, "
                f"for example '{kind}:{name}2'"
            )
        if name in RESERVED or (name != kind and name in registry):
            raise UserError(f"config.stages: {name!r} means something else: choose another name")
        names[name] = kind
    return names


def make_stage_list(
    sections: Mapping[str, Any],
    stages: Sequence[str],
    seed: int,
    registry: Mapping[str, type[Stage]],
) -> list[StageEntry]:
    """The stages, each of `sections[kind]` updated with `sections[name]`.

    Raises:
      UserError: settings that do not go together; an input that is not an earlier stage, makes
        something else, or lacks the file.
    """
    entries: list[StageEntry] = []
    names = list_names(stages, registry)
    for name, kind in names.items():
        base = sections.get(kind) or {}
        own = (sections.get(name) or {}) if name != kind else {}
        stage = build(registry[kind], _updated(base, own), f"config.{name}")
        entry = StageEntry(kind, name, stage, frozenset(leaves(own)), seed)
        later = list(names)[len(entries) :]
        _check_inputs(entry, {earlier.name: earlier for earlier in entries}, later)
        entries.append(entry)
    return entries


def leaves(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The fields of a nested mapping by their dotted names."""
    found: dict[str, Any] = {}
    for field, item in value.items():
        if isinstance(item, Mapping) and item:
            found |= leaves(item, f"{prefix}{field}.")
        else:
            found[f"{prefix}{field}"] = item
    return found


def _updated(base: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(base)
    for field, value in own.items():
        if isinstance(result.get(field), Mapping) and isinstance(value, Mapping):
            value = _updated(result[field], value)
        result[field] = value
    return result


def _check_inputs(
    entry: StageEntry, earlier: Mapping[str, StageEntry], later: Sequence[str]
) -> None:
    for field, needed in entry.stage.input_fields().items():
        value = getattr(entry.stage, field)
        where = f"config.{entry.name}.{field}"
        if not value and needed.required:
            raise UserError(
                f"{where} is empty: name an earlier stage that makes {_artifacts(needed)}"
            )
        for name in (value,) if isinstance(value, str) and value else value:
            if name in later:
                raise UserError(f"{where} names {name!r}, which does not come before it")
            if name not in earlier:
                hint = did_you_mean(name, earlier)
                raise UserError(f"{where} names {name!r}, which is no earlier stage: {hint}")
            _check_artifact(entry, field, needed, earlier[name], earlier)


def _check_artifact(
    entry: StageEntry,
    field: str,
    needed: Input,
    source: StageEntry,
    earlier: Mapping[str, StageEntry],
) -> None:
    """Checks that a stage makes what another one wants of it."""
    made = source.stage.makes()
    fitting = [file for file, artifact in made.items() if artifact in needed.artifacts]
    where = f"config.{entry.name}.{field}"
    if not fitting:
        others = [
            name
            for name, other in earlier.items()
            if set(other.stage.makes().values()) & needed.artifacts
        ]
        hint = f": name {' or '.join(others)}" if others else ""
        raise UserError(
            f"{where} names {source.name!r}, a stage of the kind {source.kind}, which does not "
            f"make {_artifacts(needed)}{hint}"
        )
    named = getattr(entry.stage, needed.file) if needed.file else ()
    for wanted in names_of(named):
        if wanted not in fitting:
            raise UserError(
                f"config.{entry.name}.{needed.file} is {wanted!r}, and {_artifacts(needed)} of the "
                f"stage {source.name} are in {', '.join(fitting)}"
            )


def _artifacts(needed: Input) -> str:
    return " or ".join(sorted(needed.artifacts))
