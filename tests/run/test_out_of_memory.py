"""Memory that ran out is one line that names the size and the settings to lower."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stair_jax.run.engines import DECODING_MEMORY
from stair_jax.run.out_of_memory import format_bytes, out_of_memory, what_to_lower
from stair_jax.run.runtime import Runtime
from stair_jax.settings import type_hints
from stair_jax.stages import STAGES


def caught(function):
    with pytest.raises(Exception) as error:
        jax.block_until_ready(function())
    return error.value


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (lambda: jnp.zeros(2**50, jnp.int8), "1 PiB could not be allocated"),
        (lambda: jax.jit(lambda: jnp.ones((2**25, 2**25)) + 1)(), "4 PiB could not be allocated"),
        (lambda: np.zeros(2**50), "8 PiB could not be allocated"),
        (lambda: np.zeros((2**40, 2**40)), "an array would be larger than any memory"),
        (lambda: np.zeros(2**63), "an array would be larger than any memory"),
    ],
)
def test_what_jax_and_numpy_raise_is_known_with_its_size(function, said):
    assert out_of_memory(caught(function)) == f"out of memory: {said}"


def test_an_error_of_python_itself_names_no_size():
    assert out_of_memory(caught(lambda: [0] * 2**60)) == "out of memory"


class JaxRuntimeError(RuntimeError):
    """As devices that are not here raise it."""


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 25769803776 bytes.", "24 GiB"),
        (
            "RESOURCE_EXHAUSTED: Failed to allocate request for 4.00GiB (4294967296B) on device "
            "ordinal 0",
            "4 GiB",
        ),
        (
            "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory "
            "space hbm. Used 19.50G of 15.75G hbm.",
            "19.5 GiB",
        ),
    ],
)
def test_sizes_of_accelerators_are_read(text, size):
    assert out_of_memory(JaxRuntimeError(text)) == f"out of memory: {size} could not be allocated"


@pytest.mark.parametrize(
    "error",
    [
        JaxRuntimeError("INTERNAL: 8 bytes"),
        ValueError("8 bytes"),
        RuntimeError("RESOURCE_EXHAUSTED"),
    ],
)
def test_other_errors_are_none_of_memory(error):
    assert out_of_memory(error) == ""


def test_the_advice_names_fields_of_stage_and_runtime_with_their_values():
    settings = SimpleNamespace(context_tokens=8192)
    assert what_to_lower(settings, "search1", Runtime(slots=64), DECODING_MEMORY) == (
        "lower config.runtime.slots (64) or config.runtime.cache_tokens (0) or "
        "config.search1.context_tokens (8192), or use more devices"
    )
    assert what_to_lower(settings, "files", Runtime(), ()) == "use a machine with more memory"


@pytest.mark.parametrize("kind", STAGES)
def test_the_fields_that_stages_name_exist(kind):
    for name in STAGES[kind].MEMORY:
        room, _, field = name.rpartition(".")
        assert field in type_hints(Runtime if room else STAGES[kind]), name


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0 bytes"), (1023, "1023 bytes"), (1536, "1.5 KiB"), (5 * 2**40, "5 TiB")],
)
def test_bytes_have_four_digits_and_a_unit(number, text):
    assert format_bytes(number) == text
