"""How much of an accelerator's memory the cache gets."""

import dataclasses
import re
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stair_jax.decoding.engine_config import EngineConfig
from stair_jax.errors import UserError
from stair_jax.models.config import ModelConfig

CONFIG = ModelConfig(61, 32, 48, 2, 4, 2, 8)
GIB = 2**30
LIMIT = {"bytes_limit": 8 * GIB, "bytes_in_use": 2 * GIB}


def device(**statistics):
    return SimpleNamespace(
        platform="gpu", device_kind="some chip", memory_stats=lambda: statistics or None
    )


def cache_bytes(place, **sizes):
    engine_config = EngineConfig(num_slots=1024, max_length=4096, attention="gather", **sizes)
    engine_config = engine_config.resolve(CONFIG, place).with_pages(CONFIG, place)
    return (
        engine_config.num_pages * engine_config.page_size * engine_config.token_bytes(CONFIG, place)
    )


@pytest.mark.parametrize(
    ("statistics", "room"),
    [
        (LIMIT, 6 * GIB),
        (LIMIT | {"pool_bytes": 8 * GIB, "largest_free_block_bytes": 5 * GIB}, 5 * GIB),
        (LIMIT | {"pool_bytes": 3 * GIB, "largest_free_block_bytes": GIB // 2}, 5.5 * GIB),
    ],
)
def test_a_cache_fills_the_largest_piece_of_memory_but_for_a_spare_part(statistics, room):
    assert room - 1.2 * GIB < cache_bytes(device(**statistics)) < room - GIB


def test_a_cache_that_was_asked_for_must_fit():
    place = device(**LIMIT)
    token = EngineConfig(attention="gather", kv_dtype="float32").token_bytes(CONFIG, place)
    fitting = 6 * GIB // token
    assert cache_bytes(place, cache_tokens=fitting) // GIB == 6
    with pytest.raises(UserError, match=rf"lower runtime\.cache_tokens below {fitting}, or"):
        cache_bytes(place, cache_tokens=fitting + 1)


def test_a_device_that_does_not_say_is_asked_for_nothing():
    assert cache_bytes(device(), cache_tokens=8192) > 0
    with pytest.raises(UserError, match=r"set runtime\.cache_tokens"):
        cache_bytes(device())


@pytest.mark.parametrize("shards", [1, 4])
@given(free=st.integers(int(1.2 * GIB), 4 * GIB), page_size=st.sampled_from([1, 16, 128]))
def test_the_slots_that_are_named_fit_and_one_more_does_not(shards, free, page_size):
    """Slots take memory for their logits; what is left holds the longest sequence or does not."""

    def with_slots(slots):
        engine_config = EngineConfig(slots, 100_000, page_size, prefill_rows=4, attention="gather")
        engine_config = dataclasses.replace(
            engine_config.resolve(CONFIG, device()), num_shards=shards
        )
        return engine_config.with_pages(CONFIG, device(), free)

    with pytest.raises(UserError, match=r"fewer than the 100000 of one sequence") as refusal:
        with_slots(2**24)
    slots = int(re.search(r"lower runtime\.slots to (\d+), which would fit", str(refusal.value))[1])
    assert with_slots(slots).num_pages > 100_000 // page_size
    with pytest.raises(UserError, match=rf"lower runtime\.slots to {slots}, which would fit"):
        with_slots(slots + shards)


def test_where_no_slot_fits_more_devices_are_advised():
    with pytest.raises(UserError, match="not even one slot fits beside the weights"):
        cache_bytes(device(bytes_limit=2 * GIB, bytes_in_use=GIB))


def test_a_context_beyond_the_sliding_window_is_refused():
    windowed = dataclasses.replace(CONFIG, model_type="mistral", sliding_window=48)
    EngineConfig(max_length=48).resolve(windowed, device())
    with pytest.raises(UserError, match=r"sliding_window 48 .* lower context_tokens to 48"):
        EngineConfig(max_length=49).resolve(windowed, device())


@pytest.mark.parametrize("max_length", [40, 48, 49])
def test_a_cache_that_was_set_too_small_is_told_what_it_needs(max_length):
    engine_config = EngineConfig(
        num_slots=2, max_length=max_length, attention="gather", cache_tokens=16
    )
    engine_config = engine_config.resolve(CONFIG, device())
    with pytest.raises(UserError, match=r"raise runtime\.cache_tokens") as refusal:
        engine_config.with_pages(CONFIG, device())
    tokens = int(re.search(r"cache_tokens to (\d+) or more", str(refusal.value))[1])
    dataclasses.replace(engine_config, cache_tokens=tokens).with_pages(CONFIG, device())
    with pytest.raises(UserError, match=rf"cache_tokens to {tokens} or more"):
        dataclasses.replace(engine_config, cache_tokens=tokens - 1).with_pages(CONFIG, device())
