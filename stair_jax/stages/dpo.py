"""Step-level direct preference optimization (STAIR section 5).

Pairs with an empty path and whole answers on both sides give plain DPO on full trajectories.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from jax.sharding import Mesh

from stair_jax.data.packing import Example
from stair_jax.data.pairs import STEP_FIELDS, Pair, encode_pairs, read_pairs, step_examples
from stair_jax.data.sequences import describe
from stair_jax.data.tasks import shuffled_passes
from stair_jax.errors import UserError
from stair_jax.models.config import ModelConfig
from stair_jax.models.transformer import logical_axes
from stair_jax.monitoring import say
from stair_jax.parallel.mesh import make_mesh
from stair_jax.planning.abstract import abstract_params
from stair_jax.planning.program import Program
from stair_jax.planning.training import ANY_EXAMPLE, forward_pass, train_step
from stair_jax.settings import read_settings
from stair_jax.stages.context import PlanContext, StageContext
from stair_jax.stages.runtime import Runtime
from stair_jax.storage import fingerprint, fingerprint_folder
from stair_jax.training.batches import Batches, Group
from stair_jax.training.evaluate import cached, for_each_group, sequence_logps
from stair_jax.training.loop import Run, train
from stair_jax.training.objectives import DpoObjective
from stair_jax.training.optimizer import make_optimizer
from stair_jax.training.settings import (
    TrainingSettings,
    configure,
    export,
    is_exported,
    load_model,
)

INPUTS = ("model", "preferences")

# How far step 0 may be from a loss of ln 2 and a margin of 0, by the dtype of the activations:
# the reference comes from another program, which rounds in another order.
_TOLERANCE = {"float32": 1e-3, "bfloat16": 5e-2}


@dataclass(frozen=True)
class DpoSettings(TrainingSettings):
    """Settings of `dpo`, besides those of all training.

    Attributes:
      model: the stage whose `hf/` is trained; it is the reference too.
      preferences: the stage that holds `file`.
      file: JSON lines, the preference pairs of docs/architecture.md.
      beta: of the DPO loss.
      sft_weight: of the SFT loss on the chosen step: for each pair the mean over its tokens.
    """

    model: str = ""
    preferences: str = ""
    file: str = "dpo.jsonl"
    beta: float = 0.1
    sft_weight: float = 0.2

    def __post_init__(self) -> None:
        """Raises a UserError that names a setting that cannot be."""
        super().__post_init__()
        if not self.beta > 0 or not self.sft_weight >= 0:
            raise UserError(
                f"beta {self.beta} must be above 0, sft_weight {self.sft_weight} not below"
            )


def run(context: StageContext) -> None:
    """Trains the model on the pairs, and writes `hf/`."""
    settings = read_settings(DpoSettings, context.settings, context.name)
    if is_exported(context.folder):
        return
    runtime = Runtime.read(context.runtime)
    mesh = make_mesh(runtime.training_mesh)
    config, params, tokenizer = load_model(
        context.input("model"), settings, mesh, runtime.vocab_multiple
    )
    path = context.input("preferences") / settings.file
    rows = read_pairs(path, STEP_FIELDS)
    kept, pairs = encode_pairs(rows, step_examples, tokenizer, settings.max_length)
    if not pairs:
        raise UserError(
            f"{path} has {len(rows)} pairs, none within max_length {settings.max_length}: "
            "lower the thresholds of the preferences stage, or search more prompts"
        )
    say(f"{context.name}: {len(pairs)} pairs, {len(rows) - len(pairs)} above max_length left out")
    say(f"{context.name}: first chosen step between ⟦...⟧: {describe(tokenizer, pairs[0][0])!r}")
    reference = _reference(context, settings, config, params, pairs, mesh)
    groups = [
        Group(str(row["id"]), pair, {"ref_chosen": float(chosen), "ref_rejected": float(rejected)})
        for row, pair, (chosen, rejected) in zip(kept, pairs, reference, strict=True)
    ]
    num_pairs = max(1, round(settings.epochs * len(groups)))
    order = shuffled_passes(len(groups), num_pairs, context.seed)
    batches = _batches([groups[index] for index in order], settings)
    trained = train(
        Run(
            name=context.name,
            folder=context.folder,
            objective=_objective(config, settings),
            optimizer=make_optimizer(settings, len(batches)),
            batches=batches,
            mesh=mesh,
            checkpoint_every=settings.checkpoint_every,
            shown=("loss", "margin", "accuracy"),
        ),
        params,
        logical_axes(config),
        inspect=partial(check_first_step, tolerance=_TOLERANCE[settings.dtype]),
    )
    export(context.folder, trained, config, tokenizer, dtype=settings.hf_dtype)


def programs(context: PlanContext) -> list[Program]:
    """The pass of the reference, and the training step."""
    settings = read_settings(DpoSettings, context.settings, context.name)
    runtime = Runtime.read(context.runtime)
    mesh = make_mesh(runtime.training_mesh, context.devices)
    config = configure(context.model("model"), settings, mesh, runtime.vocab_multiple)
    params = abstract_params(config, mesh)
    pair = (ANY_EXAMPLE, ANY_EXAMPLE)
    group = Group("", pair, {"ref_chosen": 0.0, "ref_rejected": 0.0})
    return [
        forward_pass(
            "DPO reference",
            config,
            sequence_logps,
            (config, settings.logps_chunks, params),
            params,
            _batches([Group("", pair)], settings)[0],
            mesh,
        ),
        train_step(
            "DPO step",
            config,
            _objective(config, settings),
            make_optimizer(settings, 1),
            params,
            logical_axes(config),
            _batches([group], settings)[0],
            mesh,
        ),
    ]


def check_first_step(step: int, values: Mapping[str, float], tolerance: float) -> None:
    """Checks that the policy still is the reference at step 0: loss ln 2, margin 0.

    Raises:
      RuntimeError: it is not; the reference is of another model or of other data.
    """
    if step > 0:
        return
    off = max(abs(values["dpo_loss"] - math.log(2)), abs(values["margin"]))
    if not off <= tolerance:
        raise RuntimeError(
            f"step 0 of DPO has the loss {values['dpo_loss']:.6f} (not ln 2) and the margin "
            f"{values['margin']:.6f} (not 0): the reference is not the model in training"
        )


def _objective(config: ModelConfig, settings: DpoSettings) -> DpoObjective:
    return DpoObjective(config, settings.beta, settings.sft_weight, settings.logps_chunks)


def _batches(groups: Sequence[Group], settings: DpoSettings) -> Batches:
    return Batches(groups, settings.batch_size, settings.max_length, settings.microbatch_rows)


def _reference(
    context: StageContext,
    settings: DpoSettings,
    config: ModelConfig,
    params: Any,
    pairs: Sequence[Pair],
    mesh: Mesh,
) -> np.ndarray:
    """Log-probabilities `[pairs, 2]` of the chosen and rejected steps under the input model."""
    key = fingerprint(
        {
            "model": fingerprint_folder(context.input("model") / "hf"),
            "dtype": settings.dtype,
            "data": [[_identity(example) for example in pair] for pair in pairs],
        }
    )

    def compute() -> np.ndarray:
        batches = _batches([Group("", pair) for pair in pairs], settings)
        function = partial(sequence_logps, config, settings.logps_chunks, params)
        return for_each_group(function, batches, mesh)

    return cached(context.folder / "reference.npz", key, compute)


def _identity(example: Example) -> tuple[list[int], int]:
    return list(example.tokens), sum(example.loss_mask)
