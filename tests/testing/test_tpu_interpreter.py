"""The mended interpreter reads as JAX defines it, and refuses an interpreter that has changed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax._src.pallas.mosaic.interpret import interpret_pallas_call, utils
from jax._src.state import indexing, types
from jax._src.state.discharge import transform_array

from stair_jax.testing import tpu_interpreter


@pytest.mark.parametrize("dtype", ["bfloat16", "float8_e4m3fn"])
def test_reads_through_transforms_are_those_of_jax(dtype):
    if reason := tpu_interpreter.problem():
        pytest.skip(reason)
    values = np.random.default_rng(0).standard_normal((2, 3, 16, 8)).astype(dtype)
    every_other = indexing.NDIndexer.from_indices_shape(
        (slice(1, None, 2), slice(None)), (values.size * values.itemsize // 4 // 8, 8)
    )
    transforms = (
        types.ReshapeTransform((values.size // 8, 8)),
        types.BitcastTransform(jnp.dtype("uint32")),
        every_other,
    )
    found = values
    for transform in transforms:
        found = tpu_interpreter._transformed(found, transform)
    assert found.dtype == np.uint32
    np.testing.assert_array_equal(found, transform_array(jnp.asarray(values), transforms))


@pytest.fixture
def anew():
    """Forgets what was checked before, and what the test checks."""
    tpu_interpreter._interpreter.cache_clear()
    yield
    tpu_interpreter._interpreter.cache_clear()


def assert_refused(reason):
    with pytest.raises(RuntimeError, match=reason), tpu_interpreter.tpu_interpreter():
        pass


def test_later_versions_of_jax_are_refused(monkeypatch, anew):
    monkeypatch.setattr(jax, "__version_info__", (0, 13, 0))
    assert not tpu_interpreter.problem()  # so that tests fail, and are not skipped
    assert_refused("outside of those known; adapt stair_jax.testing.tpu_interpreter")


def test_earlier_versions_of_jax_are_a_reason_to_skip(monkeypatch, anew):
    monkeypatch.setattr(jax, "__version_info__", (0, 10, 0))
    assert "has another interpreter" in tpu_interpreter.problem()
    assert_refused("outside of those known")


def test_an_interpreter_with_other_parameters_is_refused(monkeypatch, anew):
    monkeypatch.setattr(interpret_pallas_call, "swap", lambda token, buffer: None)
    assert_refused("`swap` takes token, buffer")


def test_an_interpreter_without_the_fault_is_refused(monkeypatch, anew):
    monkeypatch.setattr(utils, "to_range", lambda transforms: ())
    assert_refused("`to_range` accepts reshaped references")
