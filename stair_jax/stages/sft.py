"""Supervised fine-tuning on prompts with answers (STAIR section 1)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from stair_jax.data.encoded import Encoded
from stair_jax.data.packing import Example
from stair_jax.data.prompts import read_rows
from stair_jax.data.sequences import Row, answer_example, describe
from stair_jax.data.tasks import Reader, read_mixture
from stair_jax.errors import UserError
from stair_jax.models.transformer import logical_axes
from stair_jax.monitoring import say
from stair_jax.parallel.mesh import local_rows, make_mesh
from stair_jax.planning.abstract import abstract_params
from stair_jax.planning.program import Program
from stair_jax.planning.training import ANY_EXAMPLE, train_step
from stair_jax.settings import read_settings
from stair_jax.stages.context import PlanContext, StageContext
from stair_jax.stages.runtime import Runtime
from stair_jax.text.steps import FormatError, parse
from stair_jax.text.tokenizer import Tokenizer
from stair_jax.training.batches import Batches, Group
from stair_jax.training.loop import Run, train
from stair_jax.training.objectives import SftObjective
from stair_jax.training.optimizer import make_optimizer
from stair_jax.training.settings import (
    TrainingSettings,
    configure,
    export,
    is_exported,
    load_model,
)

INPUTS = ("model", "data")
_COLUMNS = ("id", "prompt", "answer", "kind")


@dataclass(frozen=True)
class SftSettings(TrainingSettings):
    """Settings of `sft`, besides those of all training.

    Attributes:
      model: the stage whose `hf/` is trained.
      data: the stage that holds `file`.
      file: JSON lines {id, prompt, answer, kind}.
      rates: relative rate of each kind, {"safety": ..., "helpfulness": ...}; None: whole passes
        over the file as it is. With rates, an epoch is as many draws as the file has lines.
      reader: "seqio" or "datasets" (which needs no TensorFlow).
      answer_format: "structured" refuses an answer that breaks the grammar; "plain" takes any.
      overlong: what to do with more than `max_length` tokens: "drop", or "truncate" the end.
    """

    model: str = ""
    data: str = ""
    file: str = "sft.jsonl"
    rates: Mapping[str, float] | None = None
    reader: Reader = "seqio"
    answer_format: str = "structured"
    overlong: Literal["drop", "truncate"] = "drop"
    learning_rate: float = 5e-6
    epochs: float = 3.0

    def __post_init__(self) -> None:
        """Raises a UserError that names a setting that cannot be."""
        super().__post_init__()
        for name, choices in (
            ("reader", ("seqio", "datasets")),
            ("answer_format", ("structured", "plain")),
            ("overlong", ("drop", "truncate")),
        ):
            if getattr(self, name) not in choices:
                raise UserError(
                    f"{name} {getattr(self, name)!r} is unknown: use {' or '.join(choices)}"
                )


def run(context: StageContext) -> None:
    """Trains the model on the answers, and writes `hf/`."""
    settings = read_settings(SftSettings, context.settings, context.name)
    if is_exported(context.folder):
        return
    runtime = Runtime.read(context.runtime)
    mesh = make_mesh(runtime.training_mesh)
    config, params, tokenizer = load_model(
        context.input("model"), settings, mesh, runtime.vocab_multiple
    )
    rows = _rows(context, settings)
    examples = _examples(context, settings, rows, tokenizer)
    batches = _batches(examples, settings, local_rows(mesh, settings.microbatch_rows))
    say(f"{context.name}: {batches.fill()}")
    say(f"{context.name}: first answer between ⟦...⟧: {describe(tokenizer, examples[0])!r}")
    trained = train(
        Run(
            name=context.name,
            folder=context.folder,
            objective=SftObjective(config, settings.logps_chunks),
            optimizer=make_optimizer(settings, len(batches)),
            batches=batches,
            mesh=mesh,
            checkpoint_every=settings.checkpoint_every,
            checkpoint_minutes=settings.checkpoint_minutes,
            keep=settings.kept,
        ),
        params,
        logical_axes(config),
    )
    export(context.folder, trained, config, tokenizer, dtype=settings.hf_dtype)


def programs(context: PlanContext) -> list[Program]:
    """The training step."""
    settings = read_settings(SftSettings, context.settings, context.name)
    runtime = Runtime.read(context.runtime)
    mesh = make_mesh(runtime.training_mesh, context.devices)
    config = configure(context.model("model"), settings, mesh, runtime.vocab_multiple)
    step = train_step(
        "SFT step",
        config,
        SftObjective(config, settings.logps_chunks),
        make_optimizer(settings, 1),
        abstract_params(config, mesh),
        logical_axes(config),
        _batches([ANY_EXAMPLE], settings)[0],
        mesh,
    )
    return [step]


def _batches(
    examples: Sequence[Example], settings: SftSettings, part: slice | None = None
) -> Batches:
    return Batches(
        [Group(str(example.id), (example,)) for example in examples],
        settings.batch_size,
        settings.max_length,
        settings.microbatch_rows,
        part,
        pass_size=round(len(examples) / settings.epochs),
    )


def _examples(
    context: StageContext, settings: SftSettings, rows: Sequence[Row], tokenizer: Tokenizer
) -> list[Example]:
    """The rows as sequences of at most `max_length` tokens; each row is tokenised once."""
    unique = {row["id"]: row for row in rows}
    places = {name: place for place, name in enumerate(unique)}
    draws = np.array([places[row["id"]] for row in rows])
    encoded = Encoded(list(unique.values()), lambda row: (answer_example(tokenizer, row),), 1)
    long = encoded.lengths[draws, 0] > settings.max_length
    if settings.overlong == "truncate":
        encoded = encoded.truncated(settings.max_length)
    else:
        draws = draws[~long]
    if long.any():
        verb = "truncated" if settings.overlong == "truncate" else "dropped"
        say(f"{context.name}: {long.sum()} of {len(rows)} examples above max_length, {verb}")
    return [encoded[place][0] for place in draws.tolist()]


def _rows(context: StageContext, settings: SftSettings) -> Sequence[Row]:
    """The examples of all epochs, in the order of training."""
    path = context.input("data") / settings.file
    rows = read_rows(path, _COLUMNS)
    if settings.answer_format == "structured":
        for number, row in enumerate(rows, start=1):
            try:
                parse(row["answer"])
            except FormatError as error:
                raise UserError(
                    f"{path}, line {number}: {error}; or set answer_format='plain'"
                ) from error
    num_examples = max(1, round(settings.epochs * len(rows)))
    return read_mixture(path, settings.rates, num_examples, context.seed, settings.reader)
