"""How fast the project was measured to be, and what is assumed where it was not.

Each rate names where it is from: a row of docs/benchmarks.md or docs/models.md, or a paper. On
other hardware rates are scaled by the peaks and bandwidths of `parallel/chips.py`.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from stair_jax.parallel.chips import Chip
from stair_jax.planning.figures import Basis
from stair_jax.settings import Settings, setting

_GIGA, _TERA = 1e9, 1e12
MEASURED_ON = Chip("H200", 141 * _GIGA, 989 * _TERA, 4800 * _GIGA)  # by its data sheet


@dataclass(frozen=True)
class Rate:
    """A rate, and where it is from.

    Attributes:
      value: in the unit that its name says.
      basis: measured or assumed.
      source: in words.
      unit: in words.
    """

    value: float
    basis: Basis
    source: str
    unit: str = ""

    @property
    def text(self) -> str:
        """In words."""
        return f"{self.value:g} {self.unit} ({self.basis.name.lower()}: {self.source})"


_OF_PEAK, _ITERATIONS = "of the peak", "iterations/s"
_FAST = Rate(
    0.561,
    Basis.MEASURED,
    "SFT step, 8 layers of 8B, 8 x 2,048 tokens, remat attention_mlp, one H200, 2026-11-29",
    _OF_PEAK,
)
_FULL = Rate(
    0.485,
    Basis.MEASURED,
    "SFT step, 8 layers of 8B, bfloat16 parameters, remat full, one H200, 2026-11-30",
    _OF_PEAK,
)
_BETWEEN = "between those of attention_mlp and full"
# Model FLOPs utilization of training, by remat policy: of what has to be done, without what remat
# computes again.
MFU: Mapping[str, Rate] = {
    "none": _FAST,
    "attention_mlp": _FAST,
    "full": _FULL,
    "dots": Rate(0.52, Basis.ASSUMED, _BETWEEN, _OF_PEAK),
    "attention": Rate(0.52, Basis.ASSUMED, _BETWEEN, _OF_PEAK),
    "offload": Rate(0.4, Basis.ASSUMED, "below that of full: layers wait for the host", _OF_PEAK),
}
_FAST_LORA = Rate(
    0.521,
    Basis.MEASURED,
    "SFT step, 8 layers of 8B, adapters of rank 64, attention_mlp, one H200, 2026-11-30",
    _OF_PEAK,
)
# The same of adapters, whose FLOPs are two thirds: the frozen kernels need no gradients.
LORA_MFU: Mapping[str, Rate] = {
    "none": _FAST_LORA,
    "attention_mlp": _FAST_LORA,
    "full": Rate(
        0.426,
        Basis.MEASURED,
        "SFT step, 8 layers of 8B, adapters of rank 64, remat full, one H200, 2026-11-30",
        _OF_PEAK,
    ),
    "dots": Rate(0.47, Basis.ASSUMED, _BETWEEN, _OF_PEAK),
    "attention": Rate(0.47, Basis.ASSUMED, _BETWEEN, _OF_PEAK),
    "offload": Rate(0.35, Basis.ASSUMED, "below that of full: layers wait for the host", _OF_PEAK),
}
# Iterations/s of a search-shaped workload on one H200 with 8B shapes, by weights of the engine.
SEARCH: Mapping[str, Rate] = {
    "none": Rate(22.0, Basis.MEASURED, "8B, bf16, 512 slots, one H200, 2026-11-29", _ITERATIONS),
    "fp8": Rate(29.3, Basis.MEASURED, "8B, fp8, 512 slots, one H200, 2026-11-29", _ITERATIONS),
    "int8": Rate(29.3, Basis.ASSUMED, "as with fp8 weights", _ITERATIONS),
}
SEARCH_MODEL = "meta-llama/Llama-3.1-8B-Instruct"
SEARCH_SLOTS = 512
# Of n devices that search side by side, as a share of n times one of them.
SEARCH_TOGETHER = Rate(0.95, Basis.MEASURED, "39.6 iterations/s on two H200, 20.8 on one of them")

# Bytes/s of folders of weights.
EXPORT = Rate(16.06 * _GIGA / 65, Basis.MEASURED, "export of 16.06 GB in bfloat16, one H200")
IMPORT = Rate(16.06 * _GIGA / 42, Basis.MEASURED, "import of the same")

# Bytes of host memory. At most 7.7 GB were seen in an import whose largest tensor has 1.05 GB.
LOAD_COPIES = Rate(1.3, Basis.MEASURED, "bar of docs/models.md; .4 to .57 were measured")
PROCESS = Rate(6.3 * _GIGA, Basis.MEASURED, "import of 8B in bfloat16, one H200, without a tensor")
TOKEN = Rate(10.0, Basis.ASSUMED, "text of a row in memory, a token")


@dataclass(frozen=True)
class Amounts(Settings):
    """How much there is to do, where the config does not say it.

    Attributes:
      rows: SFT examples (the paper has just under 20k).
      row_tokens: of an SFT example, prompt and answer.
      prompts: of each search (the paper has 5k of safety and 5k of helpfulness an iteration).
      pairs: preference pairs of a search tree, for DPO and for the PRM each (the paper has 70k
        pairs of 30k trees for its PRM).
      path_tokens: of a pair, what its sides share: prompt and path.
      step_tokens: of each of its sides.
      iteration_tokens: sampled in an iteration of a search: steps, a rollout, a judgement (those of
        the workload in docs/benchmarks.md).
    """

    rows: int = setting(20_000, least=1)
    row_tokens: int = setting(600, least=1)
    prompts: int = setting(10_000, least=1)
    pairs: float = setting(2.3, above=0)
    path_tokens: int = setting(360, least=1)
    step_tokens: int = setting(120, least=1)
    iteration_tokens: int = setting(880, least=1)


# The same workload: tokens of an iteration that are prefilled, and the mean context of a slot.
PREFILLED_SHARE = 500 / 880  # of the sampled tokens: judgements on fresh text
MEAN_CONTEXT = 600
