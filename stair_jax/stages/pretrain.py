"""The pocket world's base model, trained from random parameters on its endless mixture."""

import itertools
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, overload

import jax
import numpy as np
from jax.sharding import Mesh

from stair_jax import storage
from stair_jax.data.packing import pack
from stair_jax.data.sequences import answer_example
from stair_jax.models import huggingface
from stair_jax.models.config import ModelConfig
from stair_jax.models.layout import fit_to_mesh
from stair_jax.models.transformer import init_params, logical_axes
from stair_jax.monitoring import Progress
from stair_jax.parallel.mesh import make_mesh
from stair_jax.planning.abstract import abstract_params
from stair_jax.planning.program import Program
from stair_jax.planning.training import train_step
from stair_jax.pocket.pretraining import examples
from stair_jax.pocket.tokenizer import train_tokenizer
from stair_jax.settings import read_settings
from stair_jax.stages.context import PlanContext, StageContext
from stair_jax.stages.runtime import Runtime
from stair_jax.text.tokenizer import Tokenizer
from stair_jax.training.batches import Batch
from stair_jax.training.loop import Run, train
from stair_jax.training.objectives import SftObjective
from stair_jax.training.optimizer import make_optimizer
from stair_jax.training.settings import TrainingSettings, check_rows, is_exported

INPUTS: tuple[str, ...] = ()
_CHUNK = 256  # examples that are packed together
_FIELDS = {
    "tokens": np.int16,
    "targets": np.int16,
    "positions": np.int16,
    "segment_ids": np.int8,
    "weights": np.int8,
}


@dataclass(frozen=True)
class PretrainSettings(TrainingSettings):
    """Settings of `pretrain`, besides those of all training.

    Attributes:
      vocab_size: at most so many tokens.
      hidden_size: as all below, see `ModelConfig`.
      intermediate_size: see above.
      num_layers: see above.
      num_heads: see above.
      num_kv_heads: see above.
      context: longest sequence of the finished model.
      num_shards: parts of the data, each made by one process.
      shard_size: examples a part.
      batch_size: rows of `max_length` tokens a step.
    """

    vocab_size: int = 900
    hidden_size: int = 192
    intermediate_size: int = 512
    num_layers: int = 4
    num_heads: int = 6
    num_kv_heads: int = 2
    context: int = 512
    num_shards: int = 28
    shard_size: int = 100_000
    batch_size: int = 64
    max_length: int = 256
    hf_dtype: str = "float16"


def run(context: StageContext) -> None:
    """Trains a tokenizer and a model, and writes `hf/`."""
    settings = read_settings(PretrainSettings, context.settings, context.name)
    if is_exported(context.folder):
        return
    tokenizer = Tokenizer(train_tokenizer(settings.vocab_size))
    runtime = Runtime.read(context.runtime)
    mesh = make_mesh(runtime.training_mesh)
    config = _configure(settings, tokenizer.vocab_size, mesh, runtime.vocab_multiple)
    batches = _RowBatches(_rows(context, settings), settings.batch_size)
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
        init_params(config, jax.random.key(context.seed)),
        logical_axes(config),
    )
    huggingface.save(context.folder / "hf", trained, config, tokenizer, dtype=settings.hf_dtype)


def programs(context: PlanContext) -> list[Program]:
    """The training step, with as many tokens as the tokenizer may have."""
    settings = read_settings(PretrainSettings, context.settings, context.name)
    runtime = Runtime.read(context.runtime)
    mesh = make_mesh(runtime.training_mesh, context.devices)
    config = _configure(settings, settings.vocab_size, mesh, runtime.vocab_multiple)
    rows = {
        name: np.zeros((settings.batch_size, settings.max_length), dtype)
        for name, dtype in _FIELDS.items()
    }
    step = train_step(
        "pretraining step",
        config,
        SftObjective(config, settings.logps_chunks),
        make_optimizer(settings, 1),
        abstract_params(config, mesh),
        logical_axes(config),
        _RowBatches(rows, settings.batch_size)[0],
        mesh,
    )
    return [step]


def planned_model(settings: Mapping[str, Any]) -> ModelConfig:
    """The model in `hf/`, with as many tokens as the tokenizer may have."""
    read = read_settings(PretrainSettings, settings, "pretrain")
    return _model(read, read.vocab_size)


def _model(settings: PretrainSettings, vocab_size: int) -> ModelConfig:
    return ModelConfig(
        vocab_size=vocab_size,
        hidden_size=settings.hidden_size,
        intermediate_size=settings.intermediate_size,
        num_hidden_layers=settings.num_layers,
        num_attention_heads=settings.num_heads,
        num_key_value_heads=settings.num_kv_heads,
        head_dim=settings.hidden_size // settings.num_heads,
        max_position_embeddings=settings.context,
        tie_word_embeddings=True,
        dtype=settings.dtype,
        param_dtype=settings.param_dtype,
        remat=settings.remat,
    )


def _configure(
    settings: PretrainSettings, vocab_size: int, mesh: Mesh, vocab_multiple: int
) -> ModelConfig:
    """The model in training, laid out on the mesh."""
    check_rows("batch_size", settings.batch_size, mesh)
    return fit_to_mesh(_model(settings, vocab_size), mesh, vocab_multiple)


class _RowBatches(Sequence[Batch]):
    """Batches of rows that are packed already; the rows left over at the end are left out."""

    def __init__(self, rows: dict[str, np.ndarray], batch_size: int):
        self._arrays, self._batch_size = rows, batch_size

    def __len__(self) -> int:
        return len(self._arrays["tokens"]) // self._batch_size

    @overload
    def __getitem__(self, index: int) -> Batch: ...
    @overload
    def __getitem__(self, index: slice) -> list[Batch]: ...
    def __getitem__(self, index: int | slice) -> Batch | list[Batch]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        if not 0 <= index < len(self):
            raise IndexError(index)
        part = slice(index * self._batch_size, (index + 1) * self._batch_size)
        micro = {name: rows[None, part].astype(np.int32) for name, rows in self._arrays.items()}
        micro["weights"] = micro["weights"].astype(np.float32)
        return Batch(
            {"count": np.int32(1), "micro": micro},
            (),
            (f"rows of batch {index}",),
            int((micro["segment_ids"] > 0).sum()),
        )


def _rows(context: StageContext, settings: PretrainSettings) -> dict[str, np.ndarray]:
    """All rows: each shard from a process of its own, kept on the disk for a run that goes on."""
    paths = [context.folder / "shards" / f"{index}.npz" for index in range(settings.num_shards)]
    missing = [(index, path) for index, path in enumerate(paths) if not path.exists()]
    done = len(paths) - len(missing)
    progress = Progress(f"{context.name} data", len(paths), "shards", done)
    # spawn: a fork of a process that runs JAX threads may hang
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
        make = partial(_make_shard, context.seed, settings)
        for count, _ in enumerate(pool.map(make, missing), start=done + 1):
            progress.update(count)
    progress.close()
    shards = [np.load(path) for path in paths]
    return {name: np.concatenate([shard[name] for shard in shards]) for name in _FIELDS}


def _make_shard(seed: int, settings: PretrainSettings, shard: tuple[int, Path]) -> None:
    """Writes the packed rows of a shard, its number and its path."""
    index, path = shard
    tokenizer = Tokenizer(train_tokenizer(settings.vocab_size))
    texts = itertools.islice(examples(f"pretrain {seed} {index}"), settings.shard_size)
    made = (
        answer_example(tokenizer, {"id": "", "prompt": text.prompt, "answer": text.answer})
        for text in texts
    )
    packed = []
    while chunk := list(itertools.islice(made, _CHUNK)):
        packed.append(pack(chunk, settings.max_length))
    arrays: dict[str, Any] = {
        name: np.concatenate([getattr(p, name) for p in packed]).astype(dtype)
        for name, dtype in _FIELDS.items()
    }
    with storage.atomic_file(path) as file:
        np.savez(file, **arrays)
