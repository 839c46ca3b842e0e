"""The flag `--cluster` of the verbs that run stages."""

import argparse
from dataclasses import replace

from stair_jax.commands.flags import Arguments
from stair_jax.run.override import Override


def add_cluster_flag(parser: argparse.ArgumentParser) -> None:
    """Adds the flag."""
    parser.add_argument(
        "--cluster",
        metavar="WORKERS",
        help="deal the work of stages that search, evaluate or synthesize to workers, and train on "
        "their machines: local:N, or ray://HOST:PORT, the head of a Ray cluster (docs/clusters.md)",
    )


def with_cluster(arguments: Arguments) -> Arguments:
    """The arguments with the field of the config that the flag sets."""
    workers = arguments.options.cluster
    if workers is None:
        return arguments
    override = Override("runtime.cluster", workers, "--cluster")
    return replace(arguments, overrides=(*arguments.overrides, override))
