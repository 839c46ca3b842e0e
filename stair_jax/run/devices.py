"""Whose devices are whose in a run whose work is done on the machines of a cluster."""

from collections.abc import Sequence

import jax


def leave_accelerators() -> None:
    """Has JAX use the CPU in this process alone, so that accelerators are left to others.

    To be called before JAX looks at its devices. The processes that this one starts do not inherit
    it, as a variable of the environment would be.
    """
    jax.config.update("jax_platforms", "cpu")
    assert jax.default_backend() == "cpu", "JAX has looked at its devices before"


def devices_of_worker(devices: Sequence[jax.Device]) -> Sequence[jax.Device]:
    """The devices of a worker: of a machine's GPUs a single one, otherwise all of the machine."""
    return devices[:1] if devices[0].platform == "gpu" else devices
