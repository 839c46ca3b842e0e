"""The tree kernel against mctx and plain Python, all with a scripted actor, in one run.

    python -m benchmarks.tree_kernel [--trees 128,1024] [--iterations 200] [--platform cpu]

A tree makes `--iterations` iterations with 4 children and depth 7. The actor is a hash: our kernel
and the plain-Python search get 4 terminal flags an expansion and a reward an evaluation from it,
mctx (`muzero_policy`, 4 actions, max_depth 7, as many simulations) prior logits and a value.
Compilation is not counted; a figure is the median of the repeats. The plain-Python search is that
of stair_jax/testing/reference_search.py. Without mctx its lines and the ratios to it are left out.
"""

import argparse
import functools
import importlib.util
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.common import median_seconds, report
from stair_jax.search import kernel
from stair_jax.testing.reference_search import ReferenceSearch

CHILDREN, DEPTH = 4, 7


def hashed(*numbers: Any) -> jax.Array:
    """A u32 hash of unsigned numbers."""
    word = jnp.uint32(0)
    for number in numbers:
        word = (word ^ jnp.asarray(number).astype(jnp.uint32)) * jnp.uint32(0x45D9F3B)
        word ^= word >> 16
    return word


def unit_value(word: jax.Array) -> jax.Array:
    """In [-1, 1), from a u32."""
    return (word >> 8).astype(jnp.float32) / 2**23 - 1


def expand(seed: jax.Array, tree: kernel.Trees, node: jax.Array) -> kernel.Expansion:
    """Four children of which one in eight is terminal."""
    words = hashed(seed, node, jnp.arange(CHILDREN))
    return kernel.Expansion(jnp.int32(CHILDREN), words % 8 == 0, jnp.ones(CHILDREN))


def evaluate(seed: jax.Array, tree: kernel.Trees, node: jax.Array) -> jax.Array:
    """A fresh reward in [-1, 1) on each visit."""
    return unit_value(hashed(seed, node, tree.visits[node]))


class PythonActor:
    """The same kind of actor for the plain-Python search."""

    def expand(self, node: Any) -> list[tuple[bool, float]]:
        """Four children of which one in eight is terminal."""
        return [((node.index * 4 + i) * 73244475 >> 16 & 7 == 0, 1.0) for i in range(CHILDREN)]

    def reward(self, node: Any) -> float:
        """A fresh reward in [-1, 1) on each visit."""
        return ((node.index + node.visits * 131) * 73244475 & 0xFFFFFF) / 2**23 - 1


def kernel_rate(
    batch: int, iterations: int, tie_break: str = "random", final_visits: bool = False
) -> float:
    """Iterations/s of all trees; visits after the budget are timed, but are no iterations."""
    config = kernel.SearchConfig(iterations, CHILDREN, DEPTH, tie_break=tie_break)
    actor, seeds = kernel.TracedActor(expand, evaluate), jnp.arange(batch, dtype=jnp.uint32)
    keys = jax.random.split(jax.random.key(0), batch)
    seconds = median_seconds(
        lambda trees: kernel.search(config, actor, trees, seeds, final_visits=final_visits),
        prepare=lambda: kernel.init(config, keys),
    )
    return batch * iterations / seconds


def mctx_rate(mctx: ModuleType, batch: int, iterations: int) -> float:
    """Simulations/s of all trees."""

    def recurrent(params, key, action, embedding):
        del params, key
        words = hashed(embedding[:, None], action[:, None], jnp.arange(CHILDREN))
        output = mctx.RecurrentFnOutput(
            reward=jnp.zeros(batch),
            discount=jnp.ones(batch),
            prior_logits=unit_value(words),
            value=unit_value(words[:, 0]),
        )
        return output, words[:, 0]

    @jax.jit
    def run(key):
        root = mctx.RootFnOutput(
            prior_logits=jnp.zeros((batch, CHILDREN)),
            value=jnp.zeros(batch),
            embedding=jnp.arange(batch, dtype=jnp.uint32),
        )
        policy = functools.partial(mctx.muzero_policy, num_simulations=iterations, max_depth=DEPTH)
        return policy(params=(), rng_key=key, root=root, recurrent_fn=recurrent)

    return batch * iterations / median_seconds(run, prepare=lambda: jax.random.key(0), repeats=3)


def python_rate(iterations: int, trees: int = 8) -> float:
    """Iterations/s of the plain-Python search, one tree after the other."""

    def run(_):
        for _ in range(trees):
            ReferenceSearch(PythonActor(), iterations, CHILDREN, DEPTH).run()

    return trees * iterations / median_seconds(run, repeats=3)


def round_milliseconds(batch: int, iterations: int) -> float:
    """Time of one scheduling round of the host's interface, the selection read back."""
    config = kernel.SearchConfig(iterations, CHILDREN, DEPTH)
    trees = kernel.init(config, jax.random.split(jax.random.key(0), batch))
    rounds = 40

    def run(trees):
        delivery = kernel.Delivery.empty(config, batch)
        for _ in range(rounds):
            trees, selection = kernel.advance(config, trees, delivery)
            needs = jax.device_get(selection).need[:, 0]
            delivery = kernel.Delivery.empty(config, batch)
            delivery.expanded[:] = needs == kernel.Need.EXPAND
            delivery.expansion.num_children[:] = CHILDREN
            delivery.rewarded[:] = needs != kernel.Need.EXPAND
        return trees

    return 1e3 / rounds * median_seconds(run, prepare=lambda: jax.tree.map(jnp.copy, trees))


def compare(batch: int, iterations: int, mctx: ModuleType | None, python: float) -> None:
    """The kernel's figures of a batch, beside those of mctx and plain Python."""
    rate = kernel_rate(batch, iterations)
    floor = 1.5 if jax.default_backend() == "cpu" else 1.0
    name, unit = f"tree_kernel_{batch}", "iterations/s"
    if mctx is None:
        report(name, rate, unit)
    else:
        peer = (f"mctx_{batch}", mctx_rate(mctx, batch, iterations))
        report(*peer, "simulations/s")
        report(name, rate, unit, ratio_to=peer, floor=floor)
    report(f"{name}_to_python", rate, unit, ratio_to=("plain_python", python))
    report(f"{name}_first_tie", kernel_rate(batch, iterations, "first"), unit)
    report(f"{name}_final_visits", kernel_rate(batch, iterations, final_visits=True), unit)
    report(f"{name}_round", round_milliseconds(batch, iterations), "ms")


def scale(iterations: int) -> None:
    """Cost of an iteration of all trees against the number of trees and of nodes."""
    for batch in (1, 16, 128, 1024, 4096):
        microseconds = 1e6 * batch / kernel_rate(batch, iterations)
        report(f"tree_kernel_iteration_of_{batch}_trees", microseconds, "us")
    for count in (50, 200, 800):
        nodes = kernel.SearchConfig(count, CHILDREN).num_nodes
        microseconds = 1e6 * 128 / kernel_rate(128, count)
        report(f"tree_kernel_iteration_of_128_trees_{nodes}_nodes", microseconds, "us")


def main() -> None:
    """Prints all figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trees", default="128,1024", help="batches, comma-separated")
    parser.add_argument("--iterations", type=int, default=200)
    parser.add_argument("--platform", help="of JAX: cpu, cuda, tpu; default: the best there is")
    flags = parser.parse_args()
    if flags.platform:
        jax.config.update("jax_platforms", flags.platform)
    python = python_rate(flags.iterations)
    report("plain_python", python, "iterations/s")
    mctx = importlib.import_module("mctx") if importlib.util.find_spec("mctx") else None
    for batch in map(int, flags.trees.split(",")):
        compare(batch, flags.iterations, mctx, python)
    scale(flags.iterations)


if __name__ == "__main__":
    main()
