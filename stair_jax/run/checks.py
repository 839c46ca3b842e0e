"""What is checked of a run before its first stage, beside the settings themselves."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

import jax

from stair_jax.adapter_folders import is_adapter_folder, recorded_place
from stair_jax.cluster.address import check, read_address
from stair_jax.errors import UserError
from stair_jax.models.config import ModelConfig
from stair_jax.models.huggingface import adapter_base, load_config
from stair_jax.parallel.processes import collectives
from stair_jax.run.context import PlanContext
from stair_jax.run.devices import devices_of_worker
from stair_jax.run.run_config import RunConfig
from stair_jax.run.runtime import Runtime
from stair_jax.run.stage import Artifact, names_of
from stair_jax.run.stage_list import StageEntry
from stair_jax.run.workdir import is_complete

Models = Mapping[str, ModelConfig]
_WITH_MODEL = {Artifact.MODEL, Artifact.REWARD_MODEL}


def check_environment(config: RunConfig, workdir: Path, redone: Collection[str] = ()) -> None:
    """Checks the files and folders that stages still to be done need of the user.

    Args:
      config: of the run.
      workdir: of the run; may not be there yet.
      redone: finished stages that are to be done anew.

    Raises:
      UserError: names the stage and what it lacks.
    """
    is_dealt = bool(config.runtime.cluster)
    if is_dealt:
        _check_cluster(config)
    for entry in config.stages:
        if entry.name in redone or not is_complete(workdir, entry.name):
            try:
                entry.stage.check_environment(workdir / entry.name)
                if is_dealt:
                    entry.stage.check_cluster()
            except UserError as error:
                raise UserError(f"stage {entry.name}: {error}") from error


def _check_cluster(config: RunConfig) -> None:
    """Checks that there can be workers."""
    if collectives.num_processes() > 1:
        raise UserError(
            "--cluster is of a run of one process, which deals its work to workers: leave out the "
            "flags of several processes"
        )
    check(read_address(config.runtime.cluster))


def check_devices(config: RunConfig, workdir: Path, redone: Collection[str] = ()) -> Models:
    """Checks that models, meshes and sizes of stages still to be done fit the devices.

    Args:
      config: of the run.
      workdir: of the run; may not be there yet.
      redone: finished stages that are to be done anew.

    Returns:
      the model of each stage that has one, for those up to the last that is not finished.

    Raises:
      UserError: names the stage and what does not fit.
    """

    def check(entry: StageEntry, earlier: Earlier) -> None:
        entry.stage.check_devices(earlier.context(entry, config.runtime))

    return _models(config, workdir, redone, check)


def planned_models(config: RunConfig, workdir: Path, redone: Collection[str] = ()) -> Models:
    """As `check_devices`, for a process whose devices are none of the run's: they do not matter."""
    return _models(config, workdir, redone, lambda entry, earlier: None)


def _models(
    config: RunConfig,
    workdir: Path,
    redone: Collection[str],
    check: "Callable[[StageEntry, Earlier], None]",
) -> Models:
    """The models of the stages; `check` is called with each one that is still to be done."""

    def is_done(entry: StageEntry) -> bool:
        return entry.name not in redone and is_complete(workdir, entry.name)

    if all(map(is_done, config.stages)):
        return {}
    earlier = Earlier()
    for entry in config.stages:
        try:
            if is_done(entry):
                model = finished_model(entry, workdir, earlier.inputs(entry))
            else:
                model = entry.stage.planned_model(earlier.inputs(entry))
                check(entry, earlier)
        except UserError as error:
            raise UserError(f"stage {entry.name}: {error}") from error
        earlier.add(entry, model)
    return earlier.models


@dataclass
class Earlier:
    """What the stages before one hand on to it, where nothing is run.

    Attributes:
      models: by name of the stage.
      bases: of stages that make adapters, the stages of their bases.
    """

    models: dict[str, ModelConfig] = field(default_factory=dict)
    bases: dict[str, str] = field(default_factory=dict)

    def inputs(self, entry: StageEntry) -> dict[str, tuple[ModelConfig, ...]]:
        """See `input_models`."""
        return input_models(entry, self.models)

    def context(
        self, entry: StageEntry, runtime: Runtime, devices: Sequence[jax.Device] | None = None
    ) -> PlanContext:
        """See `plan_context`."""
        return plan_context(entry, runtime, self.models, devices, self.bases)

    def planned_model(self, entry: StageEntry) -> ModelConfig | None:
        """The model that a stage will hand on.

        Raises:
          UserError: it cannot be known; names the stage.
        """
        try:
            return entry.stage.planned_model(self.inputs(entry))
        except UserError as error:
            raise UserError(f"stage {entry.name}: {error}") from error

    def add(self, entry: StageEntry, model: ModelConfig | None) -> None:
        """One more stage, and the model that it hands on, if any."""
        if model is not None:
            self.models[entry.name] = model
        self.bases |= base_of(entry, self.bases)


def check_bases(entries: Sequence[StageEntry], left: Sequence[StageEntry], workdir: Path) -> None:
    """Checks that adapters which are still to be read have their base, as it was.

    A base that this run makes is not looked at.

    Args:
      entries: the stages.
      left: those that are not finished.
      workdir: of the run.

    Raises:
      UserError: names the stage of the adapters.
    """
    made = [(workdir / entry.name).resolve() for entry in left]
    finished = {entry.name for entry in entries} - {entry.name for entry in left}
    for name in dict.fromkeys(name for entry in left for name in entry.input_names):
        hf = workdir / name / "hf"
        if name not in finished or not is_adapter_folder(hf):
            continue
        place = recorded_place(hf) or hf
        if not any(place.is_relative_to(folder) for folder in made):
            try:
                adapter_base(hf)
            except UserError as error:
                raise UserError(f"stage {name}: {error}") from error


def plan_context(
    entry: StageEntry,
    runtime: Runtime,
    models: Models,
    devices: Sequence[jax.Device] | None = None,
    bases: Mapping[str, str] = MappingProxyType({}),
) -> PlanContext:
    """What a stage is planned with.

    Args:
      entry: the stage.
      runtime: of the config.
      models: of the stages before it, by name.
      devices: to plan for; None: those of this run.
      bases: of the stages before it that make adapters, the stages of their bases.
    """
    everywhere = jax.devices() if devices is None else devices
    here = jax.local_devices() if devices is None else devices
    if devices is None and runtime.cluster and entry.stage.DEALS:
        here = devices_of_worker(here)
    named = entry.stage.inputs().items()
    own = {field: bases[name] for field, name in named if isinstance(name, str) and name in bases}
    return PlanContext(entry.name, runtime, everywhere, here, input_models(entry, models), own)


def base_of(entry: StageEntry, bases: Mapping[str, str]) -> dict[str, str]:
    """The stage of the base of what a stage makes, by its name; empty: it makes no adapters.

    Args:
      entry: the stage.
      bases: of the stages before it.
    """
    field = entry.stage.planned_base()
    if not field:
        return {}
    name = getattr(entry.stage, field)
    return {entry.name: bases.get(name, name)}


def input_models(entry: StageEntry, models: Models) -> dict[str, tuple[ModelConfig, ...]]:
    """For each field that names earlier stages, the models that these hand on."""
    return {
        field: tuple(models[name] for name in names_of(names) if name in models)
        for field, names in entry.stage.inputs().items()
    }


def finished_model(
    entry: StageEntry, workdir: Path, inputs: Mapping[str, tuple[ModelConfig, ...]]
) -> ModelConfig | None:
    """The model in the folder of a finished stage.

    Args:
      entry: the stage.
      workdir: of the run.
      inputs: as `input_models` gives them.
    """
    folder = workdir / entry.name / "hf"
    if _WITH_MODEL & set(entry.stage.makes().values()) and folder.is_dir():
        return load_config(folder)
    return entry.stage.planned_model(inputs)
