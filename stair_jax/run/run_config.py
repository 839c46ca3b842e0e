"""A config as a run that is settled: overrides, defaults and all checks that need no device.

A config is read in this order: the file, the overrides of the command line, the defaults of each
kind of stage. What comes out is typed, complete and checked as a whole.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from ml_collections import ConfigDict
from ml_collections.config_dict import RequiredValueError

from stair_jax.errors import UserError, did_you_mean
from stair_jax.monitoring import say
from stair_jax.run.override import Override, apply_override
from stair_jax.run.runtime import Runtime
from stair_jax.run.stage import Stage
from stair_jax.run.stage_list import StageEntry, list_names, make_stage_list
from stair_jax.settings import (
    Settings,
    build,
    check_section,
    setting,
    type_hints,
)

Registry = Mapping[str, type[Stage]]
Sections = dict[str, Any]


@dataclass(frozen=True)
class Top(Settings):
    """The fields of a config that are about the run as a whole.

    Attributes:
      seed: of all that is random.
      stages: the stages in their order, each "kind" or "kind:name".
    """

    seed: int = setting(0, least=0, most=2**32 - 1)
    stages: tuple[str, ...] = ()


@dataclass(frozen=True)
class RunConfig:
    """A run whose settings are complete and fit together.

    Attributes:
      seed: of the run.
      stages: in their order.
      runtime: devices and sizes.
    """

    seed: int
    stages: tuple[StageEntry, ...]
    runtime: Runtime

    def effective(self) -> dict[str, Any]:
        """All settings of the run, defaults included; each stage under its own name."""
        return {
            "seed": self.seed,
            "stages": [entry.label for entry in self.stages],
            "runtime": self.runtime,
            **{entry.name: entry.stage.effective() for entry in self.stages},
        }


def read_config(
    config: ConfigDict | Mapping[str, Any], registry: Registry, overrides: Iterable[Override] = ()
) -> RunConfig:
    """The run that a config describes.

    Args:
      config: of a config file.
      registry: the kinds of stages by name.
      overrides: of the command line; a later one counts more.

    Raises:
      UserError: names the field of the config, or the flag, that cannot be.
    """
    sections = _plain(config)
    overrides = list(overrides)
    for override in (each for each in overrides if _head(each) in _top_fields()):
        apply_override(sections, type_hints(Top), override)
    top = _read_top(sections)
    names = {**list_names(top.stages, registry), **_names_of_file(config, registry)}
    classes = section_classes(registry)
    classes |= {name: registry[kind] for name, kind in names.items()}
    for override in (each for each in overrides if _head(each) not in _top_fields()):
        apply_override(sections, {**type_hints(Top), **classes}, override)
    _check_sections(sections, classes)
    _warn_of_unused(overrides, top.stages, registry)
    stages = make_stage_list(sections, top.stages, top.seed, registry)
    runtime = build(Runtime, sections.get("runtime") or {}, "config.runtime")
    return RunConfig(top.seed, tuple(stages), runtime)


def section_classes(registry: Registry) -> dict[str, type[Settings]]:
    """The settings of each section that a config can have, but those of single stages."""
    return {"runtime": Runtime, **registry}


def _plain(config: ConfigDict | Mapping[str, Any]) -> Sections:
    """The sections of a config as dicts of their own."""
    if not isinstance(config, ConfigDict):
        config = ConfigDict(dict(config))
    try:
        return config.copy_and_resolve_references().to_dict()
    except RequiredValueError as error:
        raise UserError(f"a field of the config has no value yet: {error}") from error


def _read_top(sections: Mapping[str, Any]) -> Top:
    given = {name: sections[name] for name in _top_fields() if name in sections}
    return build(Top, given, "config")


def _top_fields() -> tuple[str, ...]:
    return tuple(field.name for field in fields(Top))


def _names_of_file(config: Any, registry: Registry) -> dict[str, str]:
    """The stages that the file itself lists: an override of `stages` may have left some out."""
    try:
        return list_names(_read_top(_plain(config)).stages, registry)
    except UserError:
        return {}


def _head(override: Override) -> str:
    return override.field.partition(".")[0].partition("[")[0]


def _check_sections(sections: Mapping[str, Any], classes: Mapping[str, type]) -> None:
    """Checks names, types and ranges of all sections, also of those that no stage uses."""
    for name, section in sections.items():
        if name in _top_fields():
            continue
        if name not in classes:
            known = [*classes, *_top_fields()]
            raise UserError(
                f"config.{name} is about no kind of stage and no stage of the run: "
                f"{did_you_mean(name, known)}"
            )
        check_section(classes[name], {} if section is None else section, f"config.{name}")


def _warn_of_unused(
    overrides: Sequence[Override], stages: Sequence[str], registry: Registry
) -> None:
    """Says which overrides change nothing in this run."""
    names = list_names(stages, registry)
    used = {*names, *names.values(), *_top_fields(), "runtime"}
    for override in overrides:
        if _head(override) not in used:
            say(f"{override.flag}: this run has no stage that it is about")
