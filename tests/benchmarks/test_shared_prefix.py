"""What decode calls read, counted by hand."""

from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks.roofline import Ceilings
from benchmarks.shared_prefix import Reads, merge_seconds
from benchmarks.sharing import shared_sizes
from stair_jax.decoding.requests import EngineStats
from stair_jax.decoding.slots import _STARTS, NO_TOKEN, WIDTH
from stair_jax.errors import UserError
from stair_jax.models.config import ModelConfig


def rows(count, **columns):
    packed = np.zeros((count, WIDTH), np.int32)
    for name, values in columns.items():
        packed[: len(values), _STARTS[name]] = values
    return packed


def test_reads_of_two_calls():
    """Slots 0 and 1 share two pages of 4 tokens, slot 2 is alone; then slot 1 gets another."""
    sizes = SimpleNamespace(num_slots=3, page_size=4)
    engine = SimpleNamespace(device=SimpleNamespace(engine_config=sizes), stats=EngineStats())
    reads = Reads(engine, (2, 3))
    sampled = iter([[2, 1, 2], [2, 2, 0]])

    def program(*arguments):
        results = np.full((3, 2 * 2 + 8), NO_TOKEN, np.int32)
        for row, count in zip(results, next(sampled), strict=True):
            row[:count] = 7
        return None, results

    table = np.array([[1, 2, 3], [1, 2, 4], [5, 0, 0]], np.int32)
    changes = rows(3, replace=[1, 1, 1], position=[8, 9, 2], remaining=[9, 1, 2])
    start = [None, None, 2, "quick", None, None]
    reads(program, *start, changes, table, rows(1), np.zeros((1, 3), np.int32))
    # 9 + 10 and 10 and 3 + 4 tokens; the group reads 8 in each of two steps, for 3 sampled tokens.
    assert (reads.sampled, reads.seen) == (5, 9 + 10 + 10 + 3 + 4)
    assert reads.saved == {2: 8 * (3 - 2), 3: 0} and reads.grouped == {2: 3, 3: 0}
    assert reads.seen - reads.distinct == 8  # in the one step in which both are there

    line = rows(1, replace=[1], position=[3], remaining=[5])
    reads(program, *start, rows(3), table, line, np.array([[6, 0, 0]], np.int32))
    # Slot 1 is the first that is idle: of its group only slot 0 is left, which saves nothing.
    assert (reads.sampled, reads.seen) == (9, 36 + 11 + 12 + 4 + 5)
    assert reads.saved == {2: 8, 3: 0} and reads.calls == 2


def test_what_merging_moves():
    """8,192 bytes a row: twice for each of 4 slots, four times for each of 4 stacked ones."""
    config = ModelConfig(40, 32, 48, 2, 32, 8, 128)
    launches = 2 * 4 * 2e-6
    seconds = merge_seconds(config, 4, 4, Ceilings(1e9, 1e12))
    assert seconds == pytest.approx(2 * 8192 * (2 * 4 + 4 * 4) / 1e9 + launches)
    wider = merge_seconds(config, 4, 2, Ceilings(1e9, 1e12))
    assert wider == pytest.approx(2 * 8192 * (2 * 4 + 4 * 8) / 1e9 + launches)


def test_values_of_the_flag():
    assert shared_sizes(SimpleNamespace(share_prefixes="")) == [0]
    assert shared_sizes(SimpleNamespace(share_prefixes="0,4")) == [0, 4]
    with pytest.raises(UserError, match="such as 0,4"):
        shared_sizes(SimpleNamespace(share_prefixes="on"))
