"""How long a stage took, start by start, on which devices: a hidden file in its folder.

It is no part of what the stage makes: a stage that is copied without it is the same stage.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import jax

from stair_jax import storage
from stair_jax.errors import UserError
from stair_jax.parallel import compile_clock

TIMES_FILE = ".times.jsonl"


@dataclass(frozen=True)
class StageTime:
    """One start of a stage, up to its end or to where it was stopped.

    Attributes:
      seconds: by the wall clock.
      compile_seconds: of these, spent on compiling.
      device: kind of the devices, as JAX names it, or whose they are.
      devices: of all processes; 0: those of workers, which came and went.
    """

    seconds: float
    compile_seconds: float
    device: str
    devices: int


@contextmanager
def timed(folder: Path, workers: str = "") -> Iterator[None]:
    """Context of a stage's work, whose time is added to the file; a killed process adds none.

    Args:
      folder: of the stage.
      workers: the cluster that works; "": this process does, and those that go in step with it.
    """
    began, compiled = time.monotonic(), compile_clock.compile_seconds()
    try:
        yield
    finally:
        devices = jax.devices()
        row = StageTime(
            round(time.monotonic() - began, 3),
            round(compile_clock.compile_seconds() - compiled, 3),
            f"workers of {workers}" if workers else devices[0].device_kind,
            0 if workers else len(devices),
        )
        with suppress(OSError), open(folder / TIMES_FILE, "ab") as file:
            file.write(storage.json_line(asdict(row)))


def read_times(folder: Path) -> list[StageTime]:
    """All starts of a stage; none where an older version made it.

    Raises:
      UserError: the file is damaged.
    """
    path = folder / TIMES_FILE
    if not path.is_file():
        return []
    try:
        return [StageTime(**row) for row in storage.read_jsonl(path)]
    except TypeError as error:
        raise UserError(f"{path} is damaged: {error}: delete it, and the times are lost") from error
