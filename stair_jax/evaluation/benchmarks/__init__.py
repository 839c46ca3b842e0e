"""The benchmarks, by name."""

from stair_jax.evaluation.benchmark import Benchmark
from stair_jax.evaluation.benchmarks.behaviours import AdvBench, JailbreakBench
from stair_jax.evaluation.benchmarks.do_not_answer import DoNotAnswer, Stereotype
from stair_jax.evaluation.benchmarks.harmbench import HarmBench, HarmBenchTest
from stair_jax.evaluation.benchmarks.over_refusal import CoCoNot, OKTest, ORBench
from stair_jax.evaluation.benchmarks.strongreject import StrongReject
from stair_jax.evaluation.benchmarks.wildchat import WildChat
from stair_jax.evaluation.benchmarks.xstest import XSTestSafe, XSTestUnsafe

_KINDS: tuple[type[Benchmark], ...] = (
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
)

BENCHMARKS: dict[str, type[Benchmark]] = {kind.NAME: kind for kind in _KINDS}
