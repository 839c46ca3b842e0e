"""What stages that train or decode need besides the memory of the devices, for a plan."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from stair_jax.models.config import ModelConfig
from stair_jax.parallel.mesh import batch_devices
from stair_jax.planning import hours, rates
from stair_jax.planning.figures import Basis, Figure, largest
from stair_jax.planning.needs import Needs, Work
from stair_jax.run.context import PlanContext
from stair_jax.run.engines import PlannedEngine, plan_engine
from stair_jax.run.meshes import checkpoint_bytes, num_parameters

if TYPE_CHECKING:
    from stair_jax.stages.search import Search
    from stair_jax.stages.training_stage import TrainingStage


def training_needs(stage: "TrainingStage", context: PlanContext, work: Work) -> Needs:
    """Of a stage that trains: the step at the measured MFU, the weights read and written."""
    model = stage.start_model(context)
    setup = stage.lay_out(model, context.runtime, context.devices)
    data = stage.data_size(work)
    seconds = None
    if data is not None:
        seconds = hours.training(setup.config, work.chip, setup.mesh.size, data)
    if seconds is not None:
        written = hours.exporting(stage.model_bytes(model), work.chip)
        seconds = seconds + hours.loading(_stored_bytes(model), work.chip) + written
    copies = Figure(stage.state_bytes(setup) / num_processes(context.devices))
    if not stage.saves:
        copies = Figure(0.0)
    host = process_host() + largest(copies, load_host(setup.config, stage.param_dtype))
    if data is not None:
        host += data.unique * (data.length * rates.TOKEN.value)
    return Needs(
        Figure(stage.disk_bytes(model)),
        Figure(stage.kept_bytes(model)),
        host,
        seconds,
        work=stage.amount() if data is None else data.text,
    )
