"""The arrays that device calls are sent, by hand, for two shards."""

import dataclasses

import numpy as np

from stair_jax.decoding.chunked_prefill import PrefillChunk
from stair_jax.decoding.device_calls import pack_copies, pack_decode, pack_prefill
from stair_jax.decoding.engine_config import EngineConfig
from stair_jax.decoding.requests import Request, Sampling
from stair_jax.decoding.sequence import SequenceState
from stair_jax.decoding.slot_table import SlotTable
from stair_jax.decoding.slots import unpack

SIZES = dataclasses.replace(
    EngineConfig(num_slots=4, max_length=12, page_size=4, prefill_width=5),
    num_shards=2,
    num_pages=20,
)


def sequence(number, tokens, pages, limit=1):
    request = Request(number, tokens, sampling=Sampling(max_tokens=limit))
    pages = np.array(pages, np.int32)
    return SequenceState(tokens, (0, number), None, request=request, limit=limit, pages=pages)


def test_copies_are_padded_with_distinct_targets_that_do_not_exist():
    source, target = pack_copies([[(3, 7), (3, 8)], [(5, 1)]], SIZES)
    np.testing.assert_array_equal(source, [3, 3, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0])
    rest = list(range(20, 28))  # num_pages + column
    np.testing.assert_array_equal(target, [7, 8, *rest[2:], 1, *rest[1:]])


def test_rows_of_a_prefill_stand_behind_those_of_the_shard_before():
    first, second = sequence(0, tuple(range(10, 18)), [4, 9]), sequence(1, (1, 2, 3), [6])
    chunks = [
        [PrefillChunk(first, 0, (10, 11, 12, 13, 14)), PrefillChunk(first, 5, (15, 16))],
        [PrefillChunk(second, 0, (1, 2))],
    ]
    tokens, spans, table = pack_prefill(chunks, 3, SIZES)
    idle = [0, 0, 0, 0, 0]
    np.testing.assert_array_equal(
        tokens, [[10, 11, 12, 13, 14], [15, 16, 0, 0, 0], idle, [1, 2, 0, 0, 0], idle, idle]
    )
    np.testing.assert_array_equal(spans, [[0, 5], [5, 2], [0, 0], [0, 2], [0, 0], [0, 0]])
    np.testing.assert_array_equal(
        table, [[4, 9, 0], [4, 9, 0], [0, 0, 0], [6, 0, 0], [0, 0, 0], [0, 0, 0]]
    )


def test_a_decode_call_has_the_changed_slots_once_and_the_lines():
    slots, lines = [SlotTable(2, 3), SlotTable(2, 3)], [[sequence(1, (5, 6), [8], limit=3)], []]
    slots[1].start(sequence(0, (1, 2, 3, 4), [2, 7], limit=9))
    changes, pages, line, line_pages = pack_decode(slots, lines, 2)
    replaced, rows = unpack(changes)
    np.testing.assert_array_equal(replaced, [False, False, True, False])
    np.testing.assert_array_equal(rows.remaining, [0, 0, 9, 0])
    np.testing.assert_array_equal(pages, [[0, 0, 0], [0, 0, 0], [2, 7, 0], [0, 0, 0]])
    replaced, rows = unpack(line)
    np.testing.assert_array_equal(replaced, [True, False, False, False])
    np.testing.assert_array_equal(rows.remaining, [3, 0, 0, 0])
    np.testing.assert_array_equal(line_pages, [[8, 0, 0], [0, 0, 0], [0, 0, 0], [0, 0, 0]])
    assert not pack_decode(slots, lines, 2)[0].any()  # each change is sent once
