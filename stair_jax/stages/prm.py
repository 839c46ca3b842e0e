"""Process reward model: the policy with a scalar head, trained on pairs (STAIR section 6)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from stair_jax.data.pairs import PATH_FIELDS, encode_pairs, path_examples, read_pairs
from stair_jax.data.sequences import Row, describe
from stair_jax.data.tasks import Reader, check_mixing, draw
from stair_jax.errors import UserError
from stair_jax.models.config import ModelConfig
from stair_jax.models.heads import init_score_head
from stair_jax.models.transformer import Params, logical_axes
from stair_jax.monitoring import say
from stair_jax.parallel.mesh import local_rows, make_mesh
from stair_jax.planning.abstract import abstract_prm
from stair_jax.planning.program import Program
from stair_jax.planning.training import ANY_EXAMPLE, forward_pass, train_step
from stair_jax.settings import read_settings
from stair_jax.stages.context import PlanContext, StageContext
from stair_jax.stages.runtime import Runtime
from stair_jax.storage import write_json
from stair_jax.training.batches import Batches, Group
from stair_jax.training.evaluate import for_each_group, sequence_scores
from stair_jax.training.loop import Run, train
from stair_jax.training.objectives import PrmObjective
from stair_jax.training.optimizer import make_optimizer
from stair_jax.training.settings import (
    TrainingSettings,
    configure,
    export,
    is_exported,
    load_model,
)

INPUTS = ("model", "preferences")


@dataclass(frozen=True)
class PrmSettings(TrainingSettings):
    """Settings of `prm`, besides those of all training.

    Attributes:
      model: the stage whose `hf/` gets a scalar head.
      preferences: the stages that hold `file`; the pairs of all are taken.
      file: JSON lines, the PRM pairs of docs/architecture.md.
      held_out: share of the prompts whose pairs are kept for `validation.json`.
      rates: relative rate of each kind of pair, {"safety": ..., "helpfulness": ...}; None: whole
        passes over the pairs. With rates, an epoch is as many draws as there are pairs.
      reader: of the rates, "seqio" or "datasets" (which needs no TensorFlow).
    """

    model: str = ""
    preferences: str | tuple[str, ...] = ()
    file: str = "prm.jsonl"
    held_out: float = 0.05
    rates: Mapping[str, float] | None = None
    reader: Reader = "seqio"
    batch_size: int = 256
    learning_rate: float = 5e-6

    def __post_init__(self) -> None:
        """Raises a UserError that names a setting that cannot be."""
        super().__post_init__()
        if not 0 <= self.held_out < 1:
            raise UserError(f"held_out is {self.held_out}: it must be at least 0 and below 1")
        check_mixing(self.rates, self.reader)


def run(context: StageContext) -> None:
    """Trains the scores on the pairs, and writes `hf/` and `validation.json`."""
    settings = read_settings(PrmSettings, context.settings, context.name)
    if is_exported(context.folder):
        return
    runtime = Runtime.read(context.runtime)
    mesh = make_mesh(runtime.training_mesh)
    config, params, tokenizer = load_model(
        context.input("model"), settings, mesh, runtime.vocab_multiple
    )
    folders = context.input_list("preferences")
    rows = [row for folder in folders for row in read_pairs(folder / settings.file, PATH_FIELDS)]
    kept, pairs = encode_pairs(rows, path_examples, tokenizer, settings.max_length)
    groups = [Group(str(row["id"]), pair) for row, pair in zip(kept, pairs, strict=True)]
    held = held_out_prompts(kept, settings.held_out, context.seed)
    training = [group for row, group in zip(kept, groups, strict=True) if row["prompt"] not in held]
    validation = [group for row, group in zip(kept, groups, strict=True) if row["prompt"] in held]
    if not training:
        raise UserError(
            f"{len(rows)} pairs in {settings.file}, none to train on within max_length "
            f"{settings.max_length}: lower prm.v0 of the preferences stage, or search more prompts"
        )
    say(
        f"{context.name}: {len(training)} pairs, {len(validation)} of {len(held)} prompts held "
        f"out, {len(rows) - len(groups)} above max_length left out"
    )
    say(f"{context.name}: first chosen path between ⟦...⟧: {describe(tokenizer, pairs[0][0])!r}")
    order = draw(
        [row for row in kept if row["prompt"] not in held],
        settings.rates,
        max(1, round(settings.epochs * len(training))),
        context.seed,
        settings.reader,
        settings.file,
    )
    part = local_rows(mesh, settings.microbatch_rows)
    batches = _batches([training[index] for index in order], settings, part, len(training))
    say(f"{context.name}: {batches.fill()}")
    axes = prm_axes(config)
    params = {name: params[name] for name in axes["model"]}
    head = init_score_head(config, jax.random.key(context.seed))
    trained = train(
        Run(
            name=context.name,
            folder=context.folder,
            objective=PrmObjective(config),
            optimizer=make_optimizer(settings, len(batches)),
            batches=batches,
            mesh=mesh,
            checkpoint_every=settings.checkpoint_every,
            checkpoint_minutes=settings.checkpoint_minutes,
            keep=settings.kept,
            shown=("loss", "accuracy"),
        ),
        {"model": params, "score": head},
        axes,
    )
    _validate(context, settings, config, trained, validation, len(held), mesh)
    export(context.folder, trained["model"], config, tokenizer, trained["score"], settings.hf_dtype)


def programs(context: PlanContext) -> list[Program]:
    """The training step, and the scores of the held-out pairs."""
    settings = read_settings(PrmSettings, context.settings, context.name)
    runtime = Runtime.read(context.runtime)
    mesh = make_mesh(runtime.training_mesh, context.devices)
    config = configure(context.model("model"), settings, mesh, runtime.vocab_multiple)
    axes = prm_axes(config)
    params = abstract_prm(config, axes, mesh)
    batch = _batches([Group("", (ANY_EXAMPLE, ANY_EXAMPLE))], settings)[0]
    step = train_step(
        "PRM step",
        config,
        PrmObjective(config),
        make_optimizer(settings, 1),
        params,
        axes,
        batch,
        mesh,
        head=False,
    )
    validation = forward_pass(
        "PRM validation",
        config,
        sequence_scores,
        (config, params),
        params["model"],
        batch,
        mesh,
        head=False,
    )
    return [step, validation] if settings.held_out else [step]


def prm_axes(config: ModelConfig) -> Params:
    """Logical axes of {"model": ..., "score": ...}; an untied vocabulary head plays no part."""
    model = {name: axes for name, axes in logical_axes(config).items() if name != "head"}
    return {"model": model, "score": {"kernel": PartitionSpec("embed")}}


def held_out_prompts(rows: Sequence[Row], share: float, seed: int) -> set[str]:
    """A random `share` of the prompts (rounded down); the same for the same rows and seed."""
    prompts = sorted({row["prompt"] for row in rows})
    order = np.random.default_rng(seed).permutation(len(prompts))
    return {prompts[index] for index in order[: int(share * len(prompts))]}


def _batches(
    groups: Sequence[Group],
    settings: PrmSettings,
    part: slice | None = None,
    pass_size: int | None = None,
) -> Batches:
    return Batches(
        groups,
        settings.batch_size,
        settings.max_length,
        settings.microbatch_rows,
        part,
        pass_size,
    )


def _validate(
    context: StageContext,
    settings: PrmSettings,
    config: ModelConfig,
    params: Any,
    groups: Sequence[Group],
    num_prompts: int,
    mesh: Mesh,
) -> None:
    """Writes how often the chosen path of a held-out prompt has the higher score."""
    accuracy = None
    if groups:
        function = partial(sequence_scores, config, params)
        part = local_rows(mesh, settings.microbatch_rows)
        scores = for_each_group(function, _batches(groups, settings, part), mesh)
        accuracy = float(np.mean(scores[:, 0] > scores[:, 1]))
        say(f"{context.name}: accuracy {accuracy:.3f} on {len(groups)} held-out pairs")
    write_json(
        context.folder / "validation.json",
        {"pairs": len(groups), "prompts": num_prompts, "accuracy": accuracy},
    )
