"""What ran out of memory, in one line: the size that was asked for, and what to lower."""

import re
from collections.abc import Sequence
from typing import Any

_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
_BYTES = re.compile(r"(\d+) ?(?:bytes?|B)\b")  # "allocating 103079219200 bytes", "(4294967296B)"
_SIZE = re.compile(r"(\d+(?:\.\d*)?) ?([KMGTPE])i?B?\b")  # "256. TiB", "Used 20.00G of"
# What JAX raises on a device that is full; its class differs between versions.
_JAX = ("JaxRuntimeError", "XlaRuntimeError")
_EXHAUSTED = "RESOURCE_EXHAUSTED"
# A ValueError of numpy, for arrays larger than what can be addressed.
_NUMPY = ("array is too big", "Maximum allowed dimension exceeded")


def out_of_memory(error: BaseException) -> str:
    """What was asked for, where an error means that memory ran out; empty: it means another thing.

    Args:
      error: of Python, numpy, or JAX on any device.
    """
    text = str(error)
    if isinstance(error, ValueError) and text.startswith(_NUMPY):
        return "out of memory: an array would be larger than any memory"
    is_full = type(error).__name__ in _JAX and _EXHAUSTED in text
    if not (is_full or isinstance(error, MemoryError)):
        return ""
    number = _size(text)
    asked = f": {format_bytes(number)} could not be allocated" if number else ""
    return f"out of memory{asked}"


def what_to_lower(settings: Any, section: str, runtime: Any, names: Sequence[str]) -> str:
    """The settings that take memory, with their values, as a piece of advice.

    Args:
      settings: of a stage.
      section: its name in the config.
      runtime: of the run.
      names: of fields of the stage, or of `runtime` behind "runtime.".
    """
    shown = []
    for name in names:
        room, _, field = name.rpartition(".")
        value = getattr(runtime if room else settings, field)
        where = f"config.{name}" if room else f"config.{section}.{name}"
        shown.append(f"{where} ({value})")
    if not shown:
        return "use a machine with more memory"
    return f"lower {' or '.join(shown)}, or use more devices"


def format_bytes(number: float) -> str:
    """A number of bytes with up to four digits and a unit."""
    power = 0
    while number >= 1024 and power < len(_UNITS) - 1:
        number, power = number / 1024, power + 1
    return f"{number:.4g} {_UNITS[power]}"


def _size(text: str) -> float:
    """The bytes that an error message names; 0: none."""
    if match := _BYTES.search(text):
        return float(match[1])
    if match := _SIZE.search(text):
        return float(match[1]) * 1024 ** ("KMGTPE".index(match[2]) + 1)
    return 0.0
