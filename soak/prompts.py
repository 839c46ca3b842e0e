"""Many prompts through what reads, shares out and queues them before a search.

All but those that cannot be searched come out, once each and in their order; time and memory grow
no faster than their number.
"""

import itertools
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from soak.result import Result
from soak.usage import Held, peak_memory
from stair_jax import pocket
from stair_jax.data.prompts import KINDS, Prompt, read_rows
from stair_jax.monitoring import Progress
from stair_jax.search.entries import DUPLICATE, Entries, Entry
from stair_jax.stages.search_parts import Parts
from stair_jax.storage import write_jsonl
from stair_jax.text.chat import prepare_tokenizer
from stair_jax.text.tokenizer import Tokenizer

_COLUMNS = ("prompt", "kind", "source")
_MAX_TOKENS = 64
_WORDS = ("tell", "me", "how", "to", "make", "the", "colour", "of", "lu", "ke", "?")
_FACTOR = 8  # between the two sizes whose time and memory are compared
_ALLOWED = 3.0  # times the factor; a busy machine alone makes it 2
_NOISE = {"s": 0.5, "mb": 50.0}  # under which nothing is concluded
_EVERY = {"empty prompt": 97, "prompt too long": 101, DUPLICATE: 103}  # one of so many


def run(size: int, seed: int, folder: Path) -> Result:
    """Queues an eighth of `size` prompts, then all of them; both are drawn from `seed`."""
    result = Result("prompts")
    tokenizer = prepare_tokenizer(Path(*pocket.__path__) / "base")
    few = _queue_all(result, tokenizer, max(1, size // _FACTOR), seed, folder / "few.jsonl")
    many = _queue_all(result, tokenizer, size, seed, folder / "many.jsonl")
    result.figures = {f"{name} of {size}": value for name, value in many.items()}
    result.figures["peak_mb of the process"] = peak_memory()
    for name, value in many.items():
        unit = name.rpartition("_")[2]
        if value > _NOISE[unit] and value > _ALLOWED * _FACTOR * max(few[name], 1e-9):
            what = f"{name} grows faster than the number of prompts"
            then = f"{few[name]:.3g}, then {value:.3g} of {_FACTOR} times as many"
            result.fail(what, seed, then, size)
    return result


def _queue_all(
    result: Result, tokenizer: Tokenizer, size: int, seed: int, path: Path
) -> dict[str, float]:
    """Queues prompts as a search does; seconds of each step, and MB that they hold."""
    rows = list(_draw(size, seed))
    write_jsonl(path, rows)
    taken: list[str] = []
    held, seconds = Held(2), {}
    held.look()
    prompts, seconds["read_s"] = _timed(lambda: _read(path))
    parts, seconds["share_out_s"] = _timed(lambda: Parts(path.parent, prompts))

    def queue() -> Entries:
        entries = Entries(parts.prompts, tokenizer, _MAX_TOKENS, parts.done)
        progress = Progress("prompts", size, "prompts")
        for entry in _drain(entries):
            taken.append(entry.prompt.id)
            progress.update(entry.place + 1)
        progress.close()
        return entries

    entries, seconds["queue_s"] = _timed(queue)
    held.look()
    memory = held.later(0.0)["memory_mb"]
    _check(result, rows, taken, entries, seed)
    result.counts["prompts"] += size
    return seconds | {"held_mb": max(0.0, float(memory[1] - memory[0]))}


def _read(path: Path) -> list[Prompt]:
    rows = read_rows(path, _COLUMNS)
    return [Prompt(row["id"], row["prompt"], row["kind"], row["source"]) for row in rows]


def _drain(entries: Entries) -> Iterator[Entry]:
    while entries.next is not None:
        yield entries.take()


def _draw(size: int, seed: int) -> Iterator[dict[str, str]]:
    """Rows of prompts, some of which cannot be searched."""
    rng = random.Random(seed)
    for number in range(size):
        text = " ".join(rng.choices(_WORDS, k=rng.randrange(3, 20)))
        reason = _reason(number)
        row = {"id": f"p{number}", "prompt": text, "kind": KINDS[number % 2], "source": "soak"}
        if reason == "empty prompt":
            row["prompt"] = " \n"
        elif reason == "prompt too long":
            row["prompt"] = " ".join(rng.choices(_WORDS, k=2 * _MAX_TOKENS))
        elif reason == DUPLICATE:
            row["id"] = f"p{number - 1}"
        yield row


def _reason(number: int) -> str | None:
    """Why the prompt of this number gets no tree."""
    reasons = (reason for reason, every in _EVERY.items() if number % every == every - 1)
    return next(itertools.islice(reasons, 1), None)


def _check(
    result: Result, rows: list[dict[str, str]], taken: list[str], entries: Entries, seed: int
) -> None:
    """Adds a failure where other prompts came out than should."""
    reasons = [_reason(number) for number in range(len(rows))]
    expected = [row["id"] for row, reason in zip(rows, reasons, strict=True) if reason is None]
    skipped = [
        (row["id"], reason) for row, reason in zip(rows, reasons, strict=True) if reason is not None
    ]
    result.counts["queued"] += len(taken)
    result.counts["left out"] += len(entries.skipped)
    if taken != expected:
        result.fail(
            "other prompts were queued than can be searched, or in another order",
            seed,
            size=len(rows),
        )
    if entries.skipped != skipped:
        result.fail("other prompts were left out than cannot be searched", seed, size=len(rows))


def _timed(function: Callable[[], Any]) -> tuple[Any, float]:
    """What it returns, and its seconds of the processor."""
    start = time.process_time()
    value = function()
    return value, time.process_time() - start
