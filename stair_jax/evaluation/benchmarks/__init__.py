"""The benchmarks, by name."""

from stair_jax.evaluation.benchmark import Benchmark
from stair_jax.evaluation.benchmarks.advglue import AdvGlue
from stair_jax.evaluation.benchmarks.alpaca_eval import AlpacaEval
from stair_jax.evaluation.benchmarks.confaide import Confaide1, Confaide2a, Confaide2b
from stair_jax.evaluation.benchmarks.confaide_stories import Confaide3, Confaide4
from stair_jax.evaluation.benchmarks.gsm8k import Gsm8k
from stair_jax.evaluation.benchmarks.hhh import Hhh
from stair_jax.evaluation.benchmarks.hhh_ab import HhhAb
from stair_jax.evaluation.benchmarks.ifeval import IfEval
from stair_jax.evaluation.benchmarks.math500 import Math500
from stair_jax.evaluation.benchmarks.simpleqa import SimpleQa
from stair_jax.evaluation.benchmarks.truthfulqa import TruthfulQa

_KINDS: tuple[type[Benchmark], ...] = (
    Gsm8k,
    Math500,
    SimpleQa,
    AdvGlue,
    Hhh,
    HhhAb,
    Confaide1,
    Confaide2a,
    Confaide2b,
    Confaide3,
    Confaide4,
    TruthfulQa,
    AlpacaEval,
    IfEval,
)

BENCHMARKS: dict[str, type[Benchmark]] = {kind.NAME: kind for kind in _KINDS}
