"""Settings of low-rank adapters (LoRA), as a section of each stage that trains."""

import dataclasses
from dataclasses import dataclass
from typing import Literal

from stair_jax.errors import UserError
from stair_jax.models.lora import KERNELS, Lora
from stair_jax.settings import Settings, setting
from stair_jax.text.steps import TAGS

_DEFAULT_SCALE = 2.0


@dataclass(frozen=True)
class LoraSettings(Settings):
    """LoRA (arXiv 2106.09685): adapters are trained, and the model that a stage starts from is not.

    There is no dropout: with it the policy of DPO would not be its reference at step 0, and the
    paper's training has none.

    Attributes:
      rank: of the adapters; 0: no adapters, all parameters are trained. A stage that starts from a
        model with adapters goes on with these, unless `stack` is set.
      alpha: the product of an adapter's halves is multiplied by alpha / rank; 0: by 2, whatever
        the rank.
      targets: the kernels of each layer that have adapters.
      rslora: multiply by alpha / sqrt(rank) (rsLoRA, arXiv 2312.03732).
      stack: of a model that has adapters: keep them frozen and train new ones beside them.
      base_weights: how kernels of the frozen base are held while adapters are trained: "none": in
        `param_dtype`; "nf4" (QLoRA, arXiv 2305.14314), "int8" or "fp8": in blocks with a scale
        each.
      train_tags: train the rows of the four tags in embedding and head too, which a base model has
        never seen. Once a model has such rows, the stages behind it need this too.
      save: "adapter": `hf/` holds the adapters and says which model they belong to; "merged": the
        whole model, with the adapters added to its kernels.
    """

    rank: int = setting(0, least=0, most=2**12)
    alpha: float = setting(0.0, least=0)
    targets: tuple[str, ...] = setting(tuple(KERNELS), choices=tuple(KERNELS))
    rslora: bool = False
    stack: bool = False
    train_tags: bool = False
    base_weights: Literal["none", "nf4", "int8", "fp8"] = "none"
    save: Literal["adapter", "merged"] = "adapter"

    def check(self) -> None:
        """Raises a UserError that names settings that do not go together.

        Not as soon as there is a section: those of a kind and of a stage complete each other.
        """
        if self.rank and not self.targets:
            raise UserError("lora.targets is empty: name kernels, or leave it out for all")
        given = [info.name for info in dataclasses.fields(self) if _differs(self, info)]
        if given and not self.rank:
            raise UserError(
                f"lora.rank is 0, which means no adapters, and lora.{given[0]} is set: set "
                f"lora.rank, or leave lora.{given[0]} out"
            )
        if self.base_weights != "none" and self.save == "merged":
            raise UserError(
                f"lora.save is 'merged', and adapters cannot be added to a base in "
                f"{self.base_weights}: set lora.save to 'adapter', or lora.base_weights to 'none'"
            )

    @property
    def adapters(self) -> Lora | None:
        """The adapters that these settings make; None: there are none."""
        if not self.rank:
            return None
        scale = self.alpha / (self.rank**0.5 if self.rslora else self.rank) or _DEFAULT_SCALE
        return Lora(self.rank, scale, tuple(name for name in KERNELS if name in self.targets))

    def adapters_on(self, before: Lora | None, vocab_size: int) -> Lora | None:
        """The adapters in a model that training starts from one with the adapters `before`.

        Args:
          before: None: there are none.
          vocab_size: of the model. Where the rows of tags are trained for the first time, its last
            tokens stand for the tags, on which no shape depends.

        Raises:
          UserError: training can neither go on with those nor put its own beside them.
        """
        own = self.adapters
        if own is None:
            return None
        tokens = tuple(range(vocab_size - len(TAGS), vocab_size)) if self.train_tags else ()
        if before is None:
            return dataclasses.replace(own, token_ids=tokens)
        if before.token_ids and not self.train_tags:
            raise UserError("the model has rows of its own for the tags: set lora.train_tags")
        if own.targets != before.targets:
            raise UserError(
                f"the model has adapters on {', '.join(before.targets)}, and lora.targets are "
                f"{', '.join(own.targets)}: set lora.targets to the same"
            )
        if self.stack:
            rank = before.rank + own.rank
        elif (own.rank, own.scale) == (before.rank, before.scale):
            rank = own.rank
        else:
            raise UserError(
                f"the model has adapters of rank {before.rank} and scale {before.scale:g}, and "
                f"lora.rank, alpha and rslora give {own.rank} and {own.scale:g}: set the same to "
                "go on with them, lora.stack to train new ones beside them, or lora.rank=0 to "
                "train all of the model"
            )
        return dataclasses.replace(own, rank=rank, token_ids=before.token_ids or tokens)


def _differs(settings: LoraSettings, info: "dataclasses.Field[object]") -> bool:
    return bool(getattr(settings, info.name) != info.default)


NO_LORA = LoraSettings()
