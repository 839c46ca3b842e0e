"""Hostile Hugging Face folders: each is refused with a one-line error, or loaded correctly.

No code of a folder may run and no file outside of it may be read. Loading may not hang, exhaust the
memory or raise an exception other than a `UserError`. A folder that is loaded has the parameters of
the original.
"""

import random
import shutil
from collections.abc import Callable, Collection
from contextlib import ExitStack
from pathlib import Path

from soak.edits import MARKER, OUTSIDE
from soak.hostile import ATTACKS, KINDS, Attack, draw_attack
from soak.loader import Loaded, Loader
from soak.result import Result
from stair_jax import pocket
from stair_jax.monitoring import Progress

_MEGABYTES = 1000  # that loading may allocate; the model has 7
_BASE = Path(*pocket.__path__) / "base"


def run(
    size: int,
    seed: int,
    folder: Path,
    kinds: Collection[str] = KINDS,
    load: Callable[[Path], Loaded] | None = None,
) -> Result:
    """Attacks the loader with folders `seed` to `seed` + `size` - 1.

    The first `len(ATTACKS)` of all folders are fixed, the others are random with their number as
    the seed.

    Args:
        size: number of folders.
        seed: number of the first folder.
        folder: for copies of the checkpoint.
        kinds: of attacks; others are skipped.
        load: replaces the separate process with limits of time and memory.
    """
    result = Result("checkpoints")
    with ExitStack() as stack:
        load = load or stack.enter_context(Loader()).load
        shutil.copy(_BASE / "model.safetensors", folder / OUTSIDE)
        intact = load(_BASE)
        assert intact.outcome == "loaded", intact
        progress = Progress("checkpoints", size, "folders")
        for number in range(seed, seed + size):
            attack = (
                ATTACKS[number] if number < len(ATTACKS) else draw_attack(random.Random(number))
            )
            if attack.kind in kinds:
                for what in _attack(result, attack, folder, load, intact):
                    result.fail(f"{attack.kind}: {what}", number, attack.name)
            progress.update(number - seed + 1, failures=len(result.failures))
        progress.close()
    return result


def _attack(
    result: Result, attack: Attack, folder: Path, load: Callable[[Path], Loaded], intact: Loaded
) -> list[str]:
    """Loads an attacked copy; returns the problems found."""
    copy = folder / "copy"
    shutil.copytree(_BASE, copy)
    attack.edit(copy)
    loaded = load(copy)
    result.counts[f"{attack.kind} {loaded.outcome}"] += 1
    problems = _problems(attack, loaded, intact)
    if (folder / MARKER).exists():
        problems.append("code of the checkpoint ran")
        (folder / MARKER).unlink()
    shutil.rmtree(copy)
    return problems


def _problems(attack: Attack, loaded: Loaded, intact: Loaded) -> list[str]:
    found = []
    if loaded.megabytes > _MEGABYTES:
        found.append(f"allocated more than {_MEGABYTES} MB")
    if loaded.outcome == "refused":
        lines = loaded.text.strip().splitlines()
        if len(lines) != 1:
            found.append(f"was refused in {len(lines)} lines: {lines[:2]}")
    elif loaded.outcome != "loaded":
        found.append(f"{loaded.outcome}: {loaded.text[:150]}")
    elif attack.must_refuse:
        found.append("was loaded, and must be refused")
    elif loaded.text != intact.text:
        found.append("was loaded with other parameters")
    return found
