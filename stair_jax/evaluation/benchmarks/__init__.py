"""The benchmarks, by name; users' own in files, and those that their programs register."""

from pathlib import Path

from stair_jax.errors import UserError, did_you_mean
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
from stair_jax.evaluation.benchmarks.own import own_benchmark
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

_FILES = (".jsonl", ".json", ".csv", ".tsv", ".parquet", ".gz")


def register(kind: type[Benchmark]) -> type[Benchmark]:
    """Adds a benchmark of the user's to `BENCHMARKS`; also a decorator of its class.

    Nothing is imported from data or by the name of a file: the user's program calls this.

    Raises:
      UserError: another benchmark has the name, or the class is not complete.
    """
    name = getattr(kind, "NAME", "")
    for attribute in ("NAME", "SOURCE", "METRICS"):
        if not getattr(kind, attribute, None):
            raise UserError(f"the benchmark {name or kind.__name__} has no {attribute}")
    if BENCHMARKS.get(name, kind) is not kind:
        raise UserError(f"there is a benchmark {name!r} already: choose another NAME")
    BENCHMARKS[name] = kind
    return kind


def is_own_file(name: str) -> bool:
    """Whether a name is that of a file of the user's, such as "my.jsonl" or "my.jsonl@text"."""
    return name.endswith(_FILES) or name.rpartition("@")[0].endswith(_FILES)


def unknown_benchmark(name: str) -> UserError:
    """An error about a name that is none of a benchmark, nor of a file, to be raised."""
    if Path(name).suffix == ".py":
        return UserError(
            f"{name}: Python files are not run; import it in a program of yours that calls "
            "stair_jax.evaluation.benchmarks.register"
        )
    return UserError(f"there is no benchmark {name!r}: {did_you_mean(name, BENCHMARKS)}")


def get_benchmark(name: str) -> Benchmark:
    """The benchmark of a name, or in a file of the user's (see `own.own_benchmark`).

    Raises:
      UserError: there is none.
    """
    if name in BENCHMARKS:
        return BENCHMARKS[name]()
    if is_own_file(name):
        kind = own_benchmark(name)
        if kind.NAME in BENCHMARKS:
            raise UserError(f"{name}: there is a benchmark {kind.NAME!r} already: rename yours")
        return kind()
    raise unknown_benchmark(name)
