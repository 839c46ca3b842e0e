"""The benchmarks, by name."""

from stair_jax.evaluation.benchmark import Benchmark
from stair_jax.evaluation.benchmarks.advglue import AdvGlue
from stair_jax.evaluation.benchmarks.alpaca_eval import AlpacaEval
from stair_jax.evaluation.benchmarks.behaviours import AdvBench, JailbreakBench
from stair_jax.evaluation.benchmarks.confaide import Confaide1, Confaide2a, Confaide2b
from stair_jax.evaluation.benchmarks.confaide_stories import Confaide3, Confaide4
from stair_jax.evaluation.benchmarks.do_not_answer import DoNotAnswer, Stereotype
from stair_jax.evaluation.benchmarks.gsm8k import Gsm8k
from stair_jax.evaluation.benchmarks.harmbench import HarmBench, HarmBenchTest
from stair_jax.evaluation.benchmarks.hhh import Hhh
from stair_jax.evaluation.benchmarks.hhh_ab import HhhAb
from stair_jax.evaluation.benchmarks.ifeval import IfEval
from stair_jax.evaluation.benchmarks.math500 import Math500
from stair_jax.evaluation.benchmarks.over_refusal import CoCoNot, OKTest, ORBench
from stair_jax.evaluation.benchmarks.pocket import Pocket
from stair_jax.evaluation.benchmarks.simpleqa import SimpleQa
from stair_jax.evaluation.benchmarks.strongreject import StrongReject
from stair_jax.evaluation.benchmarks.truthfulqa import TruthfulQa
from stair_jax.evaluation.benchmarks.wildchat import WildChat
from stair_jax.evaluation.benchmarks.xstest import XSTestSafe, XSTestUnsafe

_KINDS: tuple[type[Benchmark], ...] = (
    Pocket,
    StrongReject,
    XSTestSafe,
    XSTestUnsafe,
    WildChat,
    DoNotAnswer,
    Stereotype,
    HarmBench,
    HarmBenchTest,
    JailbreakBench,
    AdvBench,
    OKTest,
    CoCoNot,
    ORBench,
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
