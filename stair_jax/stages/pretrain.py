"""The pocket world's base model, trained from random parameters on its endless mixture."""

import itertools
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, ClassVar, overload

import jax
import numpy as np
from jax.sharding import Mesh

from stair_jax import storage
from stair_jax.data.examples import answer_example
from stair_jax.data.packing import pack
from stair_jax.data.records import SftRow
from stair_jax.errors import UserError
from stair_jax.models.config import DTYPES, ModelConfig
from stair_jax.models.transformer import Params, init_params
from stair_jax.monitoring import Progress
from stair_jax.pocket.pocket_tokenizer import train_tokenizer
from stair_jax.pocket.pretraining import examples
from stair_jax.run.context import PlanContext, StageContext
from stair_jax.run.savings import Harm, Saving
from stair_jax.settings import setting
from stair_jax.stages.training_stage import Setup, TrainingData, TrainingStage
from stair_jax.stopping import heed
from stair_jax.text.tokenizer import Tokenizer
from stair_jax.training.batches import Batch
from stair_jax.training.objectives import SftObjective
from stair_jax.training.settings import check_rows

_CHUNK = 256  # examples that are packed together
_FIELDS = {
    "tokens": np.int16,
    "targets": np.int16,
    "positions": np.int16,
    "segment_ids": np.int8,
    "weights": np.int8,
}


@dataclass(frozen=True)
class Pretrain(TrainingStage):
    """Settings of `pretrain`, beside those of all training.

    Attributes:
      vocab_size: at most so many tokens.
      hidden_size: as all below, see `ModelConfig`.
      intermediate_size: see above.
      num_layers: see above.
      num_heads: see above.
      num_kv_heads: see above.
      context: longest sequence of the finished model.
      num_shards: parts of the data, each made by one process.
      shard_size: examples per part.
      batch_size: rows of `max_length` tokens per step.
    """

    STEP: ClassVar[str] = "pretraining step"
    LENGTH: ClassVar[str] = ""
    MEMORY: ClassVar[tuple[str, ...]] = ("batch_size", "max_length")

    vocab_size: int = setting(900, least=300, most=2**15 - 1)
    hidden_size: int = setting(192, least=1, most=2**16)
    intermediate_size: int = setting(512, least=1, most=2**18)
    num_layers: int = setting(4, least=1, most=1000)
    num_heads: int = setting(6, least=1, most=1000)
    num_kv_heads: int = setting(2, least=1, most=1000)
    context: int = setting(512, least=1, most=2**24)
    num_shards: int = setting(28, least=1, most=2**16)
    shard_size: int = setting(100_000, least=1, most=2**30)
    batch_size: int = setting(64, least=1, most=2**20)
    max_length: int = setting(256, least=1, most=2**15 - 1)
    hf_dtype: str = setting("float16", choices=DTYPES)

    def __post_init__(self) -> None:
        """Raises a UserError that names a setting that cannot be."""
        super().__post_init__()
        if self.lora.rank:
            raise UserError(
                f"lora.rank is {self.lora.rank}: pretraining starts from random parameters, beside "
                "which adapters learn little: leave it out"
            )
        if self.row_sequences:
            raise UserError(
                f"row_sequences is {self.row_sequences}: the rows of pretraining are packed once, "
                "whatever trains on them: leave it out"
            )

    @property
    def split_rows(self) -> int:
        """Those of a batch, see `rows_on`."""
        return self.batch_size

    def objective(self, config: ModelConfig) -> SftObjective:
        """Cross entropy of the answers' tokens."""
        return SftObjective(config, self.logps_chunks)

    def load(self, context: StageContext) -> tuple[Setup, Params, Tokenizer]:
        """A fresh tokenizer and a model of random parameters."""
        tokenizer = Tokenizer(train_tokenizer(self.vocab_size))
        setup = self.lay_out(_model(self, tokenizer.vocab_size), context.runtime)
        return setup, init_params(setup.config, jax.random.key(context.seed)), tokenizer

    def rows_on(self, mesh: Mesh) -> int:
        """A whole batch at once: there is no gradient accumulation."""
        check_rows("batch_size", self.batch_size, mesh)
        return self.batch_size

    def read_data(
        self, context: StageContext, setup: Setup, params: Params, tokenizer: Tokenizer
    ) -> TrainingData:
        """Rows that are packed by processes of their own."""
        return TrainingData(_RowBatches(_rows(context, self), self.batch_size))

    def any_batch(self, setup: Setup) -> Batch:
        """A batch of zeros, of the shapes that training has."""
        shape = (self.batch_size, self.max_length)
        rows = {name: np.zeros(shape, dtype) for name, dtype in _FIELDS.items()}
        return _RowBatches(rows, self.batch_size)[0]

    def start_model(self, context: PlanContext) -> ModelConfig:
        """The model, with as many tokens as the tokenizer may have."""
        return _model(self, self.vocab_size)

    def savings(self, context: PlanContext) -> Sequence[Saving]:
        """As usual, but no adapters: there is no model to leave as it is."""
        return [saving for saving in super().savings(context) if saving.harm < Harm.ADAPTERS]

    def planned_model(self, inputs: Mapping[str, tuple[ModelConfig, ...]]) -> ModelConfig:
        """The same."""
        return _model(self, self.vocab_size)

    def amount(self) -> str:
        """Examples and batch size."""
        return f"{self.num_shards * self.shard_size} examples, batches of {self.batch_size} rows"


def _model(settings: Pretrain, vocab_size: int) -> ModelConfig:
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


def _rows(context: StageContext, settings: Pretrain) -> dict[str, np.ndarray]:
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
            heed()
    progress.close()
    shards = [np.load(path) for path in paths]
    return {name: np.concatenate([shard[name] for shard in shards]) for name in _FIELDS}


def _make_shard(seed: int, settings: Pretrain, shard: tuple[int, Path]) -> None:
    """Writes the packed rows of a shard, its number and its path."""
    index, path = shard
    tokenizer = Tokenizer(train_tokenizer(settings.vocab_size))
    texts = itertools.islice(examples(f"pretrain {seed} {index}"), settings.shard_size)
    made = (
        answer_example(tokenizer, SftRow("", text.prompt, text.answer, "helpfulness"))
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
