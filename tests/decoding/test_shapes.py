"""How much of an accelerator's memory the cache gets."""

from types import SimpleNamespace

import pytest

from stair_jax.decoding.shapes import EngineShapes
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
    shapes = EngineShapes(num_slots=1024, max_length=4096, attention="gather", **sizes)
    shapes = shapes.resolve(CONFIG, place).with_pages(CONFIG, place)
    return shapes.num_pages * shapes.page_size * shapes.token_bytes(CONFIG, place)


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
    token = EngineShapes(attention="gather", kv_dtype="float32").token_bytes(CONFIG, place)
    fitting = 6 * GIB // token
    assert cache_bytes(place, cache_tokens=fitting) // GIB == 6
    with pytest.raises(UserError, match=rf"lower runtime\.cache_tokens below {fitting}, or"):
        cache_bytes(place, cache_tokens=fitting + 1)


def test_a_device_that_does_not_say_is_asked_for_nothing():
    assert cache_bytes(device(), cache_tokens=8192) > 0
    with pytest.raises(UserError, match=r"set runtime\.cache_tokens"):
        cache_bytes(device())
