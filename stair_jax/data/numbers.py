"""Numbers, whole numbers and flags out of data files, in whichever form these hold them.

The one reader of numbers of all data readers: what is no finite number is no score.
"""

import math
import re
from decimal import Decimal
from numbers import Real
from typing import Any

_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_FLAGS = {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False}


def read_number(value: Any) -> float | None:
    """A finite number, also from text such as that of a CSV file.

    Returns:
      the number; None for NaN, infinities, None, "", "N/A", any other text, and True and False.
    """
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        value = value.strip()
        if not _NUMBER.fullmatch(value):  # float() would also take "nan", "inf" and "1_0"
            return None
    elif not isinstance(value, Real | Decimal):
        return None
    try:
        number = float(value)
    except (OverflowError, ValueError):  # a whole number above all floats, a signalling NaN
        return None
    return number if math.isfinite(number) else None


def read_whole(value: Any) -> int | None:
    """A whole number, also as 1.0 or "1.0", which tools that know missing values write for 1."""
    number = read_number(value)
    return int(number) if number is not None and number.is_integer() else None


def read_flag(value: Any) -> bool | None:
    """True or False, also as 1, 0, "true" or "False"; None for anything else."""
    return _FLAGS.get(str(value).strip().lower())
