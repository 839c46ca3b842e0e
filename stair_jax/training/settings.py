"""What the three kinds of training have in common: settings, the model, the end of a stage."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jax.sharding import Mesh

from stair_jax.errors import UserError
from stair_jax.models import huggingface
from stair_jax.models.attention.backends import BACKENDS
from stair_jax.models.config import DTYPES, REMAT_POLICIES, ModelConfig
from stair_jax.models.layout import fit_to_mesh
from stair_jax.parallel.mesh import batch_devices
from stair_jax.parallel.processes import collectives
from stair_jax.settings import setting
from stair_jax.text.tokenizer import Tokenizer
from stair_jax.training.keep import Keep, discard
from stair_jax.training.lora_settings import NO_LORA, LoraSettings
from stair_jax.training.optimizer import OptimizerSettings

_TRAINED_DTYPES = ("float32", "bfloat16")


@dataclass(frozen=True)
class TrainingSettings(OptimizerSettings):
    """Settings that all training shares, beside those of `OptimizerSettings`.

    Attributes:
      epochs: passes over the data; a fraction is allowed.
      batch_size: examples (or pairs) per step, the last step fewer.
      max_length: tokens per row, and at most so many per sequence.
      microbatch_rows: rows on the devices at once (gradient accumulation makes a batch of several
        micro-batches), a multiple of data x fsdp of `runtime.training_mesh`; 0: two for each part.
      logps_chunks: pieces in which log-probabilities are computed (see `token_logps`).
      dtype: of the activations.
      param_dtype: of the parameters in training: "float32", or "bfloat16" for half the memory; then
        an update below 1/512 of a parameter is lost, unless `rounding` keeps it. Micro-batches are
        summed in `accumulate_dtype`; the devices of one micro-batch add up theirs in `dtype`.
      hf_dtype: of the tensors in `hf/`.
      remat: what the backward pass computes again (see `ModelConfig`).
      unroll: compile the layers one after the other, and not as one loop: steps copy less, and
        compilation takes longer by the number of layers.
      row_sequences: most sequences that are packed into a row, which is what the attention kernel
        of GPUs has to be ready for; 0: one for 64 tokens.
      attention: "cudnn" (GPUs, bfloat16), "splash" (TPUs), "xla" (all); "": by platform and dtype.
      checkpoint_every: steps between checkpoints; 0: none by their number. Where there are any, the
        state is saved at SIGTERM too. A save goes on beside the steps behind it, and meanwhile
        holds a copy of the state in the memory of the host.
      checkpoint_minutes: between checkpoints, in addition; 0: none by the clock.
      keep: how many of the newest checkpoints are kept.
      keep_best: metric of the training steps, such as "loss" or "accuracy", by which checkpoints
        are kept too; "": none. They stay in `checkpoints/` when the stage is finished. Of a name
        that ends in "loss" or "norm" the lowest value is the best, else the highest.
      num_best: how many of the best are kept.
      use_best: whether `hf/` is made of the best of these checkpoints and not of the last state.
      keep_state: whether the last training state stays in `checkpoints/` when the stage is
        finished, so that it can be lengthened (`--lengthen=STAGE`, with more `epochs`).
      lora: low-rank adapters in place of all parameters, see `LoraSettings`.
    """

    epochs: float = setting(1.0, above=0, most=1e6)
    batch_size: int = setting(128, least=1, most=2**24)
    max_length: int = setting(2048, least=1, most=2**24)
    microbatch_rows: int = setting(4, least=0, most=2**20, cost=True)
    logps_chunks: int = setting(1, least=1, most=2**20, cost=True)
    dtype: str = setting("float32", choices=DTYPES)
    param_dtype: str = setting("float32", choices=_TRAINED_DTYPES)
    hf_dtype: str = setting("float32", choices=DTYPES)
    remat: str = setting("none", choices=REMAT_POLICIES, cost=True)
    unroll: bool = setting(False, cost=True)
    row_sequences: int = setting(0, least=0, most=2**20, cost=True)
    attention: str = setting("", choices=("", *sorted(BACKENDS)), cost=True)
    checkpoint_every: int = setting(100, least=0, cost=True)
    checkpoint_minutes: float = setting(0.0, least=0, cost=True)
    keep: int = setting(1, least=1, cost=True)
    keep_best: str = setting("", cost=True)
    num_best: int = setting(1, least=1, cost=True)
    use_best: bool = False
    keep_state: bool = setting(False, cost=True)
    lora: LoraSettings = setting(LoraSettings, absent=NO_LORA)

    def __post_init__(self) -> None:
        """Raises a UserError that names a setting that cannot be."""
        super().__post_init__()
        if self.use_best and not (self.keep_best and self.saves):
            raise UserError("use_best needs keep_best, and checkpoint_every or checkpoint_minutes")
        if self.keep_state and not self.saves:
            raise UserError("keep_state needs checkpoint_every or checkpoint_minutes")
        self.lora.check()
        self._check_rounding()

    def _check_rounding(self) -> None:
        if self.rounding == "nearest":
            return
        if self.lora.rank:
            raise UserError(
                f"rounding is {self.rounding!r}, and adapters are float32 parameters, which need "
                "none: leave rounding out, or set lora.rank to 0"
            )
        if self.param_dtype != "bfloat16":
            raise UserError(
                f"rounding is {self.rounding!r}, which is for bfloat16 parameters: set param_dtype "
                "to 'bfloat16', or leave rounding out"
            )

    @property
    def saves(self) -> bool:
        """Whether there are checkpoints at all."""
        return self.checkpoint_every > 0 or self.checkpoint_minutes > 0

    @property
    def kept(self) -> Keep:
        """Which checkpoints are kept."""
        return Keep(self.keep, self.keep_best, self.num_best, self.use_best)

    def rows_on(self, mesh: Mesh) -> int:
        """Rows of a micro-batch on a mesh.

        Raises:
          UserError: the mesh cannot split as many as are set.
        """
        rows = self.microbatch_rows or 2 * batch_devices(mesh)
        check_rows("microbatch_rows", rows, mesh)
        return rows


def configure(
    config: ModelConfig, settings: TrainingSettings, mesh: Mesh, vocab_multiple: int = 1
) -> ModelConfig:
    """The config of a checkpoint, computed as the settings say and laid out on the mesh.

    Raises:
      UserError: the mesh does not divide the model, or its adapters are not those of the settings.
    """
    config = dataclasses.replace(
        config,
        dtype=settings.dtype,
        param_dtype=settings.param_dtype,
        remat=settings.remat,
        unroll=settings.unroll,
        row_sequences=settings.row_sequences,
        attention=settings.attention,
        lora=settings.lora.adapters_on(config.lora, config.vocab_size),
        base_weights=settings.lora.base_weights,
    )
    return fit_to_mesh(config, mesh, vocab_multiple)


def check_rows(field: str, rows: int, mesh: Mesh) -> None:
    """Raises a UserError that names `field` unless the mesh can split so many rows."""
    parts = batch_devices(mesh)
    if rows % parts:
        raise UserError(
            f"{field} is {rows}: it must be a multiple of {parts}, data x fsdp of "
            "runtime.training_mesh"
        )


def is_exported(folder: Path) -> bool:
    """Whether `export` has finished in this stage's folder."""
    return collectives.broadcast((folder / "hf").is_dir())


def export(
    folder: Path,
    params: Any,
    config: ModelConfig,
    tokenizer: Tokenizer,
    score_head: Any = None,
    dtype: str = "float32",
    keep_state: bool = False,
    base: Path | None = None,
) -> None:
    """Writes `hf/` in `dtype`, whole or not at all, and then deletes `checkpoints/`.

    With a `base`, the folder of the model that training started from, `hf/` holds adapters alone;
    else they are merged. Checkpoints that `keep_best` holds are left, and all with `keep_state`.
    """
    hf = folder / "hf"
    if base is None:
        huggingface.save(hf, params, config, tokenizer, score_head, dtype)
    else:
        huggingface.save_adapter(hf, params, config, tokenizer, base, score_head, dtype)
    if collectives.is_main() and not keep_state:
        discard(folder / "checkpoints")
