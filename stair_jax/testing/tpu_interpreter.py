"""JAX's interpreter of Pallas TPU kernels, on a CPU, without two of its faults.

It simulates the memories of a TPU and the copies between them: what is read before it was written
is NaN, a copy is only done once the kernel waits for it, and what is out of bounds is an error. JAX
0.10 to 0.12 have two faults in it that stop the ragged paged attention kernel, which
`tpu_interpreter` mends for as long as it is entered:

- a read of a reference that is reshaped or bitcast ("ReshapeTransform has no attribute indices");
- a masked write, whose bounds of all axes are checked on the first one.
"""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from itertools import takewhile
from types import ModuleType
from typing import Any
from unittest import mock

import jax
import numpy as np
from jax._src.state import indexing, types

# Earlier interpreters have no tokens; later ones nobody has looked at.
_FIRST, _BEYOND = (0, 10, 1), (0, 13)
_PLACE = ("token", "device_id", "local_core_id", "memory_space", "buffer_id", "transforms")
_PARAMETERS = {"get": _PLACE, "swap": (*_PLACE, "val", "mask")}


def problem() -> str:
    """Why the interpreter cannot be mended with the JAX that is installed, or ""."""
    if jax.__version_info__ >= _FIRST:
        return ""
    return f"jax {jax.__version__} has another interpreter of TPU kernels than 0.10.1 and later"


@contextmanager
def tpu_interpreter(**params: Any) -> Iterator[None]:
    """Pallas kernels that this thread traces are interpreted as on a TPU, in NumPy.

    Args:
      params: of `jax.experimental.pallas.tpu.InterpretParams`.

    Raises:
      RuntimeError: JAX's interpreter is not the one that was mended here.
    """
    # Imported here, as it takes half a second.
    from jax.experimental.pallas import tpu

    module = _interpreter()
    get, swap = _mended()
    with (
        mock.patch.multiple(module, get=get, swap=swap),
        tpu.force_tpu_interpret_mode(tpu.InterpretParams(**params)),
    ):
        try:
            yield
        finally:
            tpu.reset_tpu_interpret_mode_state()  # what a kernel that failed has left


@cache
def _interpreter() -> ModuleType:
    """The module of the interpreter, after a check that it is one that `_mended` was made for."""
    from jax._src.pallas.mosaic.interpret import interpret_pallas_call as module
    from jax._src.pallas.mosaic.interpret import utils

    changed = f"jax {jax.__version__} has changed its interpreter of TPU kernels: "
    advice = f"; adapt {__name__}, or remove it if tests/models/paged pass without it"
    if problem() or jax.__version_info__ >= _BEYOND:
        raise RuntimeError(f"{changed}its version is outside of those known{advice}")
    for name, expected in _PARAMETERS.items():
        function = inspect.unwrap(getattr(module, name))
        found = tuple(inspect.signature(function).parameters)[: len(expected)]
        if found != expected:
            raise RuntimeError(f"{changed}`{name}` takes {', '.join(found)}{advice}")
    try:
        utils.to_range((types.ReshapeTransform((1,)),))
    except AttributeError:
        return module
    raise RuntimeError(f"{changed}`to_range` accepts reshaped references{advice}")


@cache
def _mended() -> tuple[Any, Any]:
    """`get` and `swap` of the interpreter without their faults.

    They run in callbacks, so in NumPy: JAX's own `state.discharge.transform_array` would wait for
    the devices that wait for the callback.
    """
    module = _interpreter()
    old_get, old_swap = (inspect.unwrap(getattr(module, name)) for name in _PARAMETERS)

    def get(*args: Any, **kwargs: Any) -> tuple[Any, np.ndarray]:
        *place, transforms = args[: len(_PLACE)]
        plain = tuple(takewhile(lambda x: isinstance(x, indexing.NDIndexer), transforms))
        token, values = old_get(*place, plain, *args[len(_PLACE) :], **kwargs)
        for transform in jax.tree.map(int, transforms[len(plain) :]):
            values = _transformed(values, transform)
        return token, values

    def swap(*args: Any, **kwargs: Any) -> tuple[Any, np.ndarray]:
        *place, value, mask = args
        if mask is None:
            return old_swap(*args, **kwargs)
        value, mask = np.asarray(value), np.asarray(mask)
        _, before = get(*place, **kwargs)
        token, _ = old_swap(*place, np.where(mask, value, before), None, **kwargs)
        return token, np.where(mask, before, value)

    return module.fail_on_exception(get), module.fail_on_exception(swap)


def _transformed(values: np.ndarray, transform: Any) -> np.ndarray:
    """What a reference to these values shows through one transform."""
    match transform:
        case types.ReshapeTransform():
            return values.reshape(transform.shape)
        case types.BitcastTransform():
            return _bitcast(values, np.dtype(transform.dtype))
        case indexing.NDIndexer():
            return values[tuple(map(_as_slice, transform.indices))]
    raise NotImplementedError(f"cannot read through {transform}")


def _bitcast(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Packs neighbours on the second last axis into one wider number, the first one lowest."""
    packed = dtype.itemsize // values.dtype.itemsize
    *leading, rows, lanes = values.shape
    groups = values.reshape(*leading, rows // packed, packed, lanes).swapaxes(-1, -2)
    return np.ascontiguousarray(groups).view(dtype)[..., 0]


def _as_slice(index: Any) -> int | slice:
    if isinstance(index, int):
        return index
    return slice(index.start, index.start + index.size * index.stride, index.stride)
