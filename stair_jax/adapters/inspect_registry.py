"""What inspect-ai finds by itself: the entry point of the package in its group `inspect_ai`.

Every start of inspect imports this module, so that nothing heavy is imported before it is used.
"""

from inspect_ai import Task, task
from inspect_ai.model import ModelAPI, modelapi


@modelapi(name="stair_jax")
def stair_jax() -> type[ModelAPI]:
    """Our models, as `stair_jax/MODEL`."""
    from stair_jax.adapters.inspect_model import StairJaxAPI

    return StairJaxAPI


@task
def benchmark(
    benchmark: str,
    data: str = "",
    judge: str = "rule",
    attack: str = "none",
    limit: int = 0,
    seed: int = 0,
) -> Task:
    """One of our benchmarks, as `inspect eval stair_jax/benchmark -T benchmark=NAME -T data=DIR`.

    See `inspect_tasks.benchmark_task`.
    """
    from stair_jax.adapters.inspect_tasks import benchmark_task

    return benchmark_task(benchmark, data, judge, attack, limit, seed)
