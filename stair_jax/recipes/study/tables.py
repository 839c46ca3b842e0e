"""The tables of the study's two pages: which runs, rows and columns each is made of."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from stair_jax.recipes.study.sweeps import POLICIES

_REAL = (
    "strongreject*.refusals",
    "xstest_unsafe.refusals",
    "xstest_safe.over_refusal",
    "gsm8k.accuracy",
    "tokens",
    "steps",
)
_DEV = (
    "refused: harmful=dev_harmful.refusals",
    "refused: harmless=dev_harmless.over_refusal",
    "gsm8k=dev_gsm8k.accuracy",
    "tokens",
    "steps",
)
_POCKET = (
    "plain=pocket.goodness_plain",
    "seen=pocket.goodness_seen",
    "held out=pocket.goodness_heldout",
    "leak=pocket.leak_heldout",
    "helpful=pocket.helpfulness",
    "over-refusal=pocket.over_refusal",
    "format=pocket.format_valid",
    "tokens=pocket.tokens",
)
_EVALUATE, _DEVELOPMENT = "evaluate", "dev"


@dataclass(frozen=True)
class Block:
    """A table of a page.

    Attributes:
      name: of its marks (`evaluation.blocks`).
      title: where the page is made anew.
      runs: folders below that of the study, as patterns of a shell.
      columns: as of `stair-jax table`.
      stage: of the runs.
      rows: as of `stair-jax table`; empty: all.
      against: the row that the others are compared with; "": none.
    """

    name: str
    title: str
    runs: Sequence[str]
    columns: Sequence[str] = _REAL
    stage: str = _EVALUATE
    rows: Sequence[str] = ()
    against: str = ""


_FIRST = ("base", "system1", "sft")
_ARMS = (*_FIRST, "contrast", "iter1", "iter2", "iter3", *POLICIES)
_BASELINES = ("trees", "offline", "self_rewarding", "deliberative")
_SEEDS = "[0-9]*"

# By the name of the page.
PAGES: Mapping[str, Sequence[Block]] = {
    "study": (
        Block(
            "arms",
            "Arms",
            [f"{_SEEDS}/{arm}" for arm in _ARMS],
            against="base",
        ),
        Block(
            "differences",
            "Differences to STAIR-SFT",
            [f"{_SEEDS}/{arm}" for arm in _ARMS],
            rows=("iter*", "our*"),
            against="sft",
        ),
        Block(
            "baselines",
            "Baselines",
            [f"{_SEEDS}/{arm}" for arm in (*_FIRST, *_BASELINES)],
            against="base/base",
        ),
        Block("test_time", "Test-time search", [f"{_SEEDS}/test_time"]),
        Block("judges", "Judges", ["judges"]),
        Block("parts", "Parts of our recipe", ["parts"], against="ours"),
        Block("rewards", "Forms of the reward", ["rewards"], against="s"),
        Block("steps", "Steps or whole answers", [f"{_SEEDS}/steps"]),
        Block("iterations", "Iterations", ["iterations"], against="k_1"),
        Block("sizes", "Sizes of the trees", ["sizes"]),
        Block("shares", "Share of safety rows in SFT", ["shares"]),
        Block(
            "rates",
            "What was chosen on dev",
            ["rates", *(f"{_SEEDS}/{arm}" for arm in _ARMS)],
            _DEV,
            _DEVELOPMENT,
        ),
    ),
    "pocket_study": (
        Block("arms", "Arms", ["pocket_study/seed*"], _POCKET),
        Block("differences", "Differences", ["pocket_study/seed*"], _POCKET, against="sft"),
        Block("test_time", "Test-time search", ["pocket_study/seed*"], _POCKET, "test_time"),
        Block(
            "narrow",
            "A world without look-alikes",
            ["pocket_narrow/seed*"],
            _POCKET,
            against="narrow_sft",
        ),
        Block(
            "ablations",
            "Ablations",
            ["pocket_ablations/seed*"],
            _POCKET,
            rows=("*/iter3",),
        ),
        Block("parts", "Parts of our recipe", ["pocket_parts/seed*"], _POCKET, rows=("*/ours3",)),
    ),
}
