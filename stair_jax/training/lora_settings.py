"""Settings of low-rank adapters (LoRA), as a section of each stage that trains."""

from dataclasses import dataclass
from typing import Literal

from stair_jax.models.lora import KERNELS, Lora
from stair_jax.settings import Settings, setting


@dataclass(frozen=True)
class LoraSettings(Settings):
    """LoRA (arXiv 2106.09685): adapters are trained, and the model that a stage starts from is not.

    Attributes:
      rank: of the adapters; 0: no adapters, all parameters are trained. A stage that starts from a
        model with adapters goes on with these, unless `stack` is set.
      alpha: the product of an adapter's halves is multiplied by alpha / rank; 0: 2 * rank.
      targets: the kernels of each layer that have adapters.
      rslora: multiply by alpha / sqrt(rank) (rsLoRA, arXiv 2312.03732).
      stack: of a model that has adapters: keep them frozen and train new ones beside them.
      base_weights: how kernels of the frozen base are held while adapters are trained: "none": in
        `param_dtype`; "nf4" (QLoRA, arXiv 2305.14314), "int8" or "fp8": in blocks with a scale
        each.
      save: "adapter": `hf/` holds the adapters and says which model they belong to; "merged": the
        whole model, with the adapters added to its kernels.
    """

    rank: int = setting(0, least=0, most=2**12)
    alpha: float = setting(0.0, least=0)
    targets: tuple[str, ...] = setting(tuple(KERNELS), choices=tuple(KERNELS))
    rslora: bool = False
    stack: bool = False
    base_weights: Literal["none", "nf4", "int8", "fp8"] = "none"
    save: Literal["adapter", "merged"] = "adapter"

    @property
    def adapters(self) -> Lora | None:
        """The adapters that these settings make; None: there are none."""
        if not self.rank:
            return None
        alpha = self.alpha or 2.0 * self.rank
        scale = alpha / (self.rank**0.5 if self.rslora else self.rank)
        return Lora(self.rank, scale, tuple(name for name in KERNELS if name in self.targets))


NO_LORA = LoraSettings()
