"""Continuous batching: requests come and go in the slots of one batch on the device."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jax.sharding import Mesh
from numpy.typing import DTypeLike

from stair_jax.decoding import programs
from stair_jax.decoding.requests import (
    MAX_STOP_IDS,
    Completion,
    EngineStats,
    Finish,
    Handle,
    Request,
    Sampling,
)
from stair_jax.decoding.sampling import SamplingRows
from stair_jax.decoding.scheduler import Queue, Waiting, make_buckets
from stair_jax.errors import UserError
from stair_jax.models.config import ModelConfig
from stair_jax.models.transformer import Params
from stair_jax.parallel.placement import Placement

# Slots that one prefill may fill for each of its prompts: the children of a node share theirs.
FAN_OUT = 4
_MIN_SCORE_WIDTH = 8


@dataclass
class _Running:
    """What the host knows about a slot in use."""

    request: Request
    sampling: Sampling
    sequence: tuple[int, ...]
    limit: int
    tokens: list[int] = field(default_factory=list)
    logps: list[float] = field(default_factory=list)


class Engine:
    """Samples and scores for many requests at once.

    A request's result depends on its tokens, sampling and key only: not on its slot, on what runs
    beside it, or on the order of submission. Engines of one config and one set of shapes share
    their compiled programs. This engine keeps no cache of a handle: a child is prefilled again.

    Args:
        config: of the model.
        params: of the model; on the mesh, if there is one.
        num_slots: sequences that decode side by side; they and `prefill_rows` are split over the
            data axes of the mesh.
        max_length: tokens of a sequence at most, prompt and samples together.
        prefill_rows: prompts of one prefill.
        buckets: padded lengths of prompts; `max_length` is always one of them.
        steps_per_call: tokens a slot may sample before the host looks at the results.
        mesh: of the devices; None: the default device.
    """

    def __init__(
        self,
        config: ModelConfig,
        params: Params,
        *,
        num_slots: int = 64,
        max_length: int = 256,
        prefill_rows: int = 8,
        buckets: Sequence[int] | None = None,
        steps_per_call: int = 8,
        mesh: Mesh | None = None,
    ) -> None:
        """Raises a UserError when a size is not positive."""
        sizes = (num_slots, max_length, prefill_rows, steps_per_call)
        if min(sizes) < 1:
            raise UserError(
                "num_slots, max_length, prefill_rows and steps_per_call must be at least 1, "
                f"not {', '.join(map(str, sizes))}"
            )
        self.stats = EngineStats()
        self._config = config
        self._params = params
        self._num_slots = num_slots
        self._max_length = max_length
        # More than the slots could never be admitted together.
        self._prefill_rows = min(prefill_rows, num_slots)
        self._steps_per_call = steps_per_call
        self._placement = Placement(mesh)
        with self._placement.use():
            self._slots = programs.empty_slots(config, num_slots, max_length)
        self._free = list(range(num_slots))
        self._running: dict[int, _Running] = {}
        lengths = make_buckets(buckets, max_length)
        self._to_admit = Queue(lengths)
        self._to_score = Queue(lengths)
        self._done: list[Completion] = []
        self._handles: set[Handle] = set()

    @property
    def pending(self) -> int:
        """Requests whose completions `step` has not returned yet."""
        return len(self._to_admit) + len(self._to_score) + len(self._running) + len(self._done)

    def submit(self, requests: Iterable[Request]) -> None:
        """Takes requests over.

        Raises:
            UserError: when a token is outside of the vocabulary.
            ValueError: when a parent is not a handle of this engine, or has been released.
        """
        for request in requests:
            if request.parent is not None and request.parent not in self._handles:
                raise ValueError(f"the parent of request {request.id!r} is not kept here")
            sequence = request.sequence
            self._check_vocabulary(request, sequence)
            if len(sequence) + (request.sampling is not None) > self._max_length:
                self._done.append(Completion(request.id, finish="too_long"))
            elif request.sampling is None:
                self._to_score.push(request, sequence, sequence)
            else:
                self._to_admit.push(request, sequence, sequence[:-1])

    def step(self) -> list[Completion]:
        """Fills free slots, decodes for a few tokens, and returns what has been completed."""
        self._score_batches()
        # While all slots are busy, a few free ones wait for company in their prefill.
        while self._to_admit and len(self._free) >= min(self._prefill_rows, len(self._to_admit)):
            self._admit_batch()
        if self._running:
            self._decode()
        done, self._done = self._done, []
        return done

    def release(self, handle: Handle) -> None:
        """Gives a handle back; requests made with it before still run.

        Raises:
            ValueError: when it is not kept here.
        """
        if handle not in self._handles:
            raise ValueError("the handle is not kept here")
        self._handles.remove(handle)

    def set_params(self, params: Params) -> None:
        """Puts other weights of the same config in place; handles stay good.

        Raises:
            ValueError: when requests are pending, as they would be sampled from two models.
        """
        if self.pending:
            raise ValueError("weights can be changed only while no request is pending")
        self._params = params

    def _check_vocabulary(self, request: Request, sequence: tuple[int, ...]) -> None:
        ids = (*sequence, *request.score_ids)
        if min(ids) < 0 or max(ids) >= self._config.vocab_size:
            raise UserError(
                f"request {request.id!r} has a token outside of the model's vocabulary of "
                f"{self._config.vocab_size}: is this the tokenizer of the model?"
            )

    def _score_batches(self) -> None:
        """Scores every full batch; the rest too, unless all slots are busy anyway."""
        while self._to_score:
            bucket = self._to_score.longest
            if self._to_admit and self._to_score.size(bucket) < self._prefill_rows:
                return
            self._score(bucket, self._to_score.take(bucket, self._prefill_rows, self._prefill_rows))

    def _score(self, bucket: int, batch: list[Waiting]) -> None:
        requests = [waiting.request for waiting in batch]
        width = score_width(max(len(request.score_ids) for request in requests))
        prompts = self._pad([waiting.prompt for waiting in batch], bucket)
        ids = self._pad([request.score_ids for request in requests], width)
        last = np.zeros(self._prefill_rows, np.int32)
        last[: len(batch)] = [len(waiting.prompt) - 1 for waiting in batch]
        rows = self._placement.rows((prompts, last, ids))
        with self._placement.use():
            scores = np.asarray(programs.score(self._config, self._params, *rows))
        self.stats.calls += 1
        for request, waiting, row in zip(requests, batch, scores, strict=False):
            self.stats.prefilled += len(waiting.prompt)
            handle = self._keep(request, waiting.sequence)
            values = tuple(row[: len(request.score_ids)].tolist())
            self._done.append(Completion(request.id, finish="scored", scores=values, handle=handle))

    def _admit_batch(self) -> None:
        """Prefills the bucket of the oldest request and puts its sequences into free slots."""
        bucket = self._to_admit.oldest
        num_rows = min(FAN_OUT * self._prefill_rows, len(self._free))
        batch = self._to_admit.take(bucket, self._prefill_rows, num_rows)
        distinct = dict.fromkeys(waiting.prompt for waiting in batch)
        prompts = {prompt: index for index, prompt in enumerate(distinct)}
        size = FAN_OUT * self._prefill_rows
        source, target = np.zeros(size, np.int32), np.full(size, self._num_slots, np.int32)
        started = [self._start(waiting) for waiting in batch]
        for index, running in enumerate(started):
            slot = self._free.pop()
            self._running[slot] = running
            source[index], target[index] = prompts[batch[index].prompt], slot
        padded = self._placement.rows(self._pad(list(prompts), bucket))
        whole = self._placement.whole((_make_rows(started, size), source, target))
        with self._placement.use():
            self._slots = programs.admit(self._config, self._params, self._slots, padded, *whole)
        self.stats.calls += 1
        self.stats.prefilled += sum(len(prompt) + 1 for prompt in prompts)

    def _start(self, waiting: Waiting) -> _Running:
        sampling = waiting.request.sampling
        assert sampling is not None
        limit = min(sampling.max_tokens, self._max_length - len(waiting.sequence))
        return _Running(waiting.request, sampling, waiting.sequence, limit)

    def _decode(self) -> None:
        enough = max(0, self._num_slots - self._prefill_rows) if self._to_admit else 0
        whole = self._placement.whole(np.int32(enough))
        with self._placement.use():
            self._slots, packed = programs.decode(
                self._config, self._steps_per_call, self._params, self._slots, whole
            )
        self.stats.calls += 1
        tokens, bits = np.split(np.asarray(packed), 2, axis=1)
        logps = np.ascontiguousarray(bits).view(np.float32)
        counts = np.sum(tokens != programs.NO_TOKEN, axis=1)
        for slot, running in list(self._running.items()):
            running.tokens += tokens[slot, : counts[slot]].tolist()
            running.logps += logps[slot, : counts[slot]].tolist()
            finish = _finish(running)
            if finish is not None:
                self._complete(slot, finish)
        self.stats.generated += int(counts.sum())

    def _complete(self, slot: int, finish: Finish) -> None:
        running = self._running.pop(slot)
        self._free.append(slot)
        request, tokens = running.request, tuple(running.tokens)
        handle = self._keep(request, running.sequence + tokens)
        logps = tuple(running.logps)
        self._done.append(Completion(request.id, tokens, logps, finish, handle=handle))

    def _keep(self, request: Request, sequence: tuple[int, ...]) -> Handle | None:
        if not request.keep:
            return None
        handle = Handle(sequence)
        self._handles.add(handle)
        return handle

    def _pad(self, rows: Sequence[tuple[int, ...]], length: int) -> np.ndarray:
        """[prefill_rows, length] int32, zeros where a row has no token."""
        padded = np.zeros((self._prefill_rows, length), np.int32)
        for index, row in enumerate(rows):
            padded[index, : len(row)] = row
        return padded


def _finish(running: _Running) -> Finish | None:
    if running.tokens[-1] in running.sampling.stop_ids:
        return "stop"
    return "length" if len(running.tokens) == running.limit else None


def score_width(needed: int) -> int:
    """Powers of two, so that there are few programs."""
    return max(_MIN_SCORE_WIDTH, 1 << (needed - 1).bit_length())


def _make_rows(sequences: Sequence[_Running], size: int) -> programs.Rows:
    """Rows on the host, filled up with zeros to `size`."""

    def column(values: Iterable[Any], dtype: DTypeLike) -> Any:
        given = np.array([*values], dtype)
        filled = np.zeros((size, *given.shape[1:]), dtype)
        filled[: len(given)] = given
        return filled

    settings = [running.sampling for running in sequences]
    return programs.Rows(
        token=column((running.sequence[-1] for running in sequences), np.int32),
        position=column((len(running.sequence) - 1 for running in sequences), np.int32),
        remaining=column((running.limit for running in sequences), np.int32),
        alive=column((True for _ in sequences), np.bool_),
        stop_ids=column((_pad_stop_ids(setting.stop_ids) for setting in settings), np.int32),
        sampling=SamplingRows(
            temperature=column((setting.temperature for setting in settings), np.float32),
            top_k=column((setting.top_k for setting in settings), np.int32),
            top_p=column((setting.top_p for setting in settings), np.float32),
            keys=column((running.request.key for running in sequences), np.uint32),
        ),
    )


def _pad_stop_ids(ids: tuple[int, ...]) -> tuple[int, ...]:
    return ids + (programs.NO_TOKEN,) * (MAX_STOP_IDS - len(ids))
