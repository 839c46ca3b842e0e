"""What stages that train or decode need besides the memory of the devices, for a plan."""

import math
from typing import TYPE_CHECKING

import jax
import numpy as np
from jax.sharding import Mesh

from stair_jax.models.config import ModelConfig
from stair_jax.planning import hours, rates
from stair_jax.planning.cost import host_bytes, local_bytes
from stair_jax.planning.figures import Figure, largest
from stair_jax.planning.needs import Needs, Work, process_host
from stair_jax.run.context import PlanContext
from stair_jax.run.engines import PlannedEngine
from stair_jax.run.meshes import itemsize_of, model_shapes, num_parameters
from stair_jax.run.stage import Stage

if TYPE_CHECKING:
    from stair_jax.stages.training_stage import TrainingStage


def training_needs(stage: "TrainingStage", context: PlanContext, work: Work) -> Needs:
    """Of a stage that trains: the step at the measured MFU, the weights read and written."""
    model = stage.start_model(context)
    setup = stage.lay_out(model, context.runtime, context.devices)
    data = stage.data_size(work)
    host = load_host(setup.config, stage.param_dtype)
    processes = len({device.process_index for device in context.devices})
    if stage.saves:  # a copy of the state, while it is written beside the steps
        host = largest(host, Figure(stage.state_bytes(model) / processes))
    *_, away = stage.abstract_state(setup)
    pinned = (host_bytes(away) + local_bytes(away)) * setup.mesh.size / processes
    host += process_host() + Figure(pinned)
    if data is None:
        return Needs(*_disk(stage, model), host, None, work=stage.amount())
    seconds = hours.training(setup.config, work.chip, setup.mesh.size, data)
    if seconds is not None:
        written = hours.exporting(stage.model_bytes(model), work.chip)
        seconds += loading(model, stage.param_dtype, work) + written
    text = Figure(rates.TOKEN.value * data.length, rates.TOKEN.basis)
    rate = hours.training_rate(setup.config)
    return Needs(
        *_disk(stage, model), host + data.unique * text, seconds, work=data.text, rate=rate
    )


def _disk(stage: "TrainingStage", model: ModelConfig) -> tuple[Figure, Figure]:
    return Figure(stage.disk_bytes(model)), Figure(stage.kept_bytes(model))


def copy_needs(stage: Stage, model: ModelConfig, dtype: str, work: Work) -> Needs:
    """Of a stage that reads a model and writes it in `dtype`."""
    host = process_host() + load_host(model, dtype)
    written = hours.exporting(num_parameters(model) * itemsize_of(dtype), work.chip)
    seconds = loading(model, dtype, work) + written
    disk, kept = stage.disk_bytes(model), stage.kept_bytes(model)
    return Needs(Figure(disk), Figure(kept), host, seconds, work=stage.amount())


def decoding_needs(engine: PlannedEngine, iterations: Figure, dtype: str, work: Work) -> Needs:
    """Host memory and time of a search.

    Args:
      engine: that searches.
      iterations: of all trees together.
      dtype: of the weights.
      work: of the run.
    """
    sizes, mesh = engine.engine_config, engine.place
    tokens = sizes.num_pages * sizes.page_size  # of a part, whose slots share them
    tensor = mesh.shape["tensor"] if isinstance(mesh, Mesh) else 1
    decoder = hours.Decoder(
        engine.config,
        max(1, min(sizes.num_slots // sizes.num_shards, tokens // rates.MEAN_CONTEXT)),
        sizes.num_shards,
        tensor,
        sizes.weights,
        np.dtype(jax.numpy.dtype(sizes.kv_dtype)).itemsize,
    )
    seconds = hours.search(decoder, work.chip, iterations, work.amounts.iteration_tokens)
    if seconds is not None:
        seconds += loading(engine.config, dtype, work)
    host = process_host() + load_host(engine.config, dtype)
    return Needs(host=host, seconds=seconds, rate=rates.SEARCH[sizes.weights])


def load_host(model: ModelConfig, dtype: str) -> Figure:
    """Host memory that an import takes beside what the devices keep."""
    # A tensor is read as it is stored: that of one layer, of the layers that are stacked here.
    shapes = model_shapes(model)
    others = {name: tree for name, tree in shapes.items() if name != "layers"}
    sizes = [math.prod(leaf.shape[1:]) for leaf in jax.tree.leaves(shapes["layers"])]
    sizes += [math.prod(leaf.shape) for leaf in jax.tree.leaves(others)]
    size = max(sizes) * itemsize_of(dtype)
    return Figure(rates.LOAD_COPIES.value * size, rates.LOAD_COPIES.basis)


def loading(model: ModelConfig, dtype: str, work: Work) -> Figure:
    """Seconds to read a model."""
    return hours.loading(num_parameters(model) * itemsize_of(dtype), work.chip)
