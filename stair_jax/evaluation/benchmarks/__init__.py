"""The benchmarks, by name."""

from stair_jax.evaluation.benchmark import Benchmark

_KINDS: tuple[type[Benchmark], ...] = ()

BENCHMARKS: dict[str, type[Benchmark]] = {kind.NAME: kind for kind in _KINDS}
