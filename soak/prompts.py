"""Many prompts: read, split among processes and queued as at the start of a search.

Every prompt that can be searched comes out once, in order. Time and memory grow no faster than the
number of prompts.
"""

import itertools
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from soak.result import Result
from soak.usage import UsageSamples, peak_memory
from stair_jax import pocket
from stair_jax.data.records import KINDS, Prompt
from stair_jax.data.row_file import RowFile
from stair_jax.monitoring import Progress
from stair_jax.search.prompt_queue import DUPLICATE, PromptQueue, QueuedPrompt
from stair_jax.stages.search_parts import RecordShards
from stair_jax.storage import write_jsonl
from stair_jax.text.chat import prepare_tokenizer
from stair_jax.text.tokenizer import Tokenizer

_MAX_TOKENS = 64
_WORDS = ("tell", "me", "how", "to", "make", "the", "colour", "of", "lu", "ke", "?")
_FACTOR = 8  # ratio of the two sizes that are compared
_ALLOWED = 3.0  # times the factor; on a busy machine it can be 2
_NOISE = {"s": 0.5, "mb": 50.0}  # smaller values prove nothing
_EVERY = {"empty prompt": 97, "prompt too long": 101, DUPLICATE: 103}  # one in so many prompts


def run(size: int, seed: int, folder: Path) -> Result:
    """Queues an eighth of `size` prompts, then all of them; the prompts depend on `seed`."""
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
    """Queues prompts as a search does; returns CPU seconds of each step and memory in MB."""
    rows = list(_draw(size, seed))
    write_jsonl(path, rows)
    taken: list[str] = []
    samples, seconds = UsageSamples(2), {}
    samples.take()
    prompts, seconds["read_s"] = _timed(lambda: RowFile(path, Prompt, unique_ids=False))
    parts, seconds["split_s"] = _timed(lambda: RecordShards(path.parent, prompts))

    def queue() -> PromptQueue:
        entries = PromptQueue(parts.prompts, tokenizer, _MAX_TOKENS, parts.done)
        progress = Progress("prompts", size, "prompts")
        for entry in _drain(entries):
            taken.append(entry.prompt.id)
            progress.update(entry.place + 1)
        progress.close()
        return entries

    entries, seconds["queue_s"] = _timed(queue)
    samples.take()
    memory = samples.after(0.0)["memory_mb"]
    _check(result, rows, taken, entries, seed)
    result.counts["prompts"] += size
    return seconds | {"held_mb": max(0.0, float(memory[1] - memory[0]))}


def _drain(entries: PromptQueue) -> Iterator[QueuedPrompt]:
    while entries.next is not None:
        entry = entries.take()
        assert entry is not None
        yield entry


def _draw(size: int, seed: int) -> Iterator[dict[str, str]]:
    """Rows of prompts; some cannot be searched."""
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
    """Why the prompt with this number cannot be searched; None if it can."""
    reasons = (reason for reason, every in _EVERY.items() if number % every == every - 1)
    return next(itertools.islice(reasons, 1), None)


def _check(
    result: Result, rows: list[dict[str, str]], taken: list[str], entries: PromptQueue, seed: int
) -> None:
    """Adds a failure if the wrong prompts were queued or skipped."""
    reasons = [_reason(number) for number in range(len(rows))]
    expected = [row["id"] for row, reason in zip(rows, reasons, strict=True) if reason is None]
    skipped = [
        (row["id"], reason) for row, reason in zip(rows, reasons, strict=True) if reason is not None
    ]
    result.counts["queued"] += len(taken)
    result.counts["skipped"] += len(entries.skipped)
    if taken != expected:
        result.fail(
            "the queued prompts are not those that can be searched, in order",
            seed,
            size=len(rows),
        )
    if entries.skipped != skipped:
        result.fail(
            "the skipped prompts are not those that cannot be searched", seed, size=len(rows)
        )


def _timed(function: Callable[[], Any]) -> tuple[Any, float]:
    """The result of the function, and its CPU time in seconds."""
    start = time.process_time()
    value = function()
    return value, time.process_time() - start
