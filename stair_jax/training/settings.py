"""What the three kinds of training have in common: settings, the model, the end of a stage."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jax.sharding import Mesh

from stair_jax.errors import UserError
from stair_jax.models import huggingface
from stair_jax.models.config import DTYPES, ModelConfig
from stair_jax.models.layout import fit_to_mesh
from stair_jax.parallel import distributed
from stair_jax.parallel.mesh import batch_devices
from stair_jax.text.tokenizer import Tokenizer
from stair_jax.training.checkpoints import Keep, discard

_TRAINED_DTYPES = ("float32", "bfloat16")


@dataclass(frozen=True)
class TrainingSettings:
    """Settings that sft, dpo and prm share.

    Attributes:
      learning_rate: the highest of the schedule.
      warmup_ratio: share of the steps with a rising rate.
      final_lr_ratio: the last rate, as a share of the highest.
      weight_decay: decoupled, times the rate; of all parameters, norms and biases too.
      clip_norm: of the gradient; 0: none.
      b1: decay of Adam's first moment.
      b2: of the second.
      eps: of Adam.
      epochs: passes over the data; a fraction is allowed.
      batch_size: examples (or pairs) a step, the last step fewer.
      max_length: tokens a row, and at most so many a sequence.
      microbatch_rows: rows on the devices at once, a multiple of data x fsdp of
        `runtime.training_mesh`; changes the cost, and results by rounding only.
      logps_chunks: pieces in which log-probabilities are computed (see `token_logps`).
      dtype: of the activations.
      param_dtype: of the parameters in training: "float32", or "bfloat16" for half the memory; then
        an update below 1/256 of a parameter is lost. Micro-batches are summed in float32 either
        way; the devices of one micro-batch add up theirs in `dtype`.
      mu_dtype: of Adam's first moment, "float32" or "bfloat16"; the second is float32.
      hf_dtype: of the tensors in `hf/`.
      remat: what the backward pass computes again (see `ModelConfig`).
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
    """

    learning_rate: float = 1e-6
    warmup_ratio: float = 0.1
    final_lr_ratio: float = 0.0
    weight_decay: float = 0.0
    clip_norm: float = 1.0
    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8
    epochs: float = 1.0
    batch_size: int = 128
    max_length: int = 2048
    microbatch_rows: int = 4
    logps_chunks: int = 1
    dtype: str = "float32"
    param_dtype: str = "float32"
    mu_dtype: str = "float32"
    hf_dtype: str = "float32"
    remat: str = "none"
    attention: str = ""
    checkpoint_every: int = 100
    checkpoint_minutes: float = 0.0
    keep: int = 1
    keep_best: str = ""
    num_best: int = 1
    use_best: bool = False

    def __post_init__(self) -> None:
        """Raises a UserError that names a setting that cannot be."""
        for name in (
            "batch_size",
            "max_length",
            "microbatch_rows",
            "logps_chunks",
            "keep",
            "num_best",
        ):
            if getattr(self, name) < 1:
                raise UserError(f"{name} is {getattr(self, name)}: it must be at least 1")
        for name in ("checkpoint_every", "checkpoint_minutes"):
            if not getattr(self, name) >= 0:
                raise UserError(f"{name} is {getattr(self, name)}: it must be 0 (none) or more")
        if not self.epochs > 0:
            raise UserError(f"epochs is {self.epochs}: it must be above 0")
        for name, choices in (
            ("param_dtype", _TRAINED_DTYPES),
            ("mu_dtype", _TRAINED_DTYPES),
            ("hf_dtype", DTYPES),
        ):
            if getattr(self, name) not in choices:
                raise UserError(
                    f"{name} is {getattr(self, name)!r}: it must be one of {', '.join(choices)}"
                )

        saves = self.checkpoint_every > 0 or self.checkpoint_minutes > 0
        if self.use_best and not (self.keep_best and saves):
            raise UserError("use_best needs keep_best, and checkpoint_every or checkpoint_minutes")

    @property
    def kept(self) -> Keep:
        """Which checkpoints are kept."""
        return Keep(self.keep, self.keep_best, self.num_best, self.use_best)


def configure(
    config: ModelConfig, settings: TrainingSettings, mesh: Mesh, vocab_multiple: int = 1
) -> ModelConfig:
    """The config of a checkpoint, computed as the settings say and laid out on the mesh.

    Raises:
      UserError: the mesh does not divide the model or the rows of a micro-batch.
    """
    check_rows("microbatch_rows", settings.microbatch_rows, mesh)
    config = dataclasses.replace(
        config,
        dtype=settings.dtype,
        param_dtype=settings.param_dtype,
        remat=settings.remat,
        attention=settings.attention,
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


def load_model(
    folder: Path, settings: TrainingSettings, mesh: Mesh, vocab_multiple: int = 1
) -> tuple[ModelConfig, Any, Tokenizer]:
    """Config, parameters on the mesh in `param_dtype`, and tokenizer of a stage's `hf/`."""
    config = configure(huggingface.load_config(folder / "hf"), settings, mesh, vocab_multiple)
    params = huggingface.load_params(folder / "hf", config, mesh)
    return config, params, Tokenizer.load(folder / "hf")


def is_exported(folder: Path) -> bool:
    """Whether `export` has finished in this stage's folder."""
    return distributed.broadcast((folder / "hf").is_dir())


def export(
    folder: Path,
    params: Any,
    config: ModelConfig,
    tokenizer: Tokenizer,
    score_head: Any = None,
    dtype: str = "float32",
) -> None:
    """Writes `hf/` in `dtype`, whole or not at all, and then deletes `checkpoints/`.

    Checkpoints that `keep_best` holds are left.
    """
    huggingface.save(folder / "hf", params, config, tokenizer, score_head, dtype)
    if distributed.is_main():
        discard(folder / "checkpoints")
