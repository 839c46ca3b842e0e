"""Stages whose work is dealt to workers."""

import pytest

from stair_jax.run import workers
from stair_jax.testing.local_pool import LocalPool


@pytest.fixture
def pools(monkeypatch):
    """Has stages deal to workers in this process; the pools that they made."""
    made = []

    class Pool(LocalPool):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            made.append(self)

    monkeypatch.setattr(workers, "RayPool", Pool)
    return made
