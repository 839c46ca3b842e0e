"""The rollout engine: continuous batching over a paged KV cache with prefix sharing.

The host plans a round while the devices run the previous one: copies of partial pages, chunked
prefills, and a few decode steps in all slots. Results are read one round late, packed into one
array, so that neither host nor device waits for the other.
"""

import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import count
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from stair_jax.decoding import programs
from stair_jax.decoding.jobs import Job
from stair_jax.decoding.prefills import PrefillSizes
from stair_jax.decoding.requests import Completion, EngineStats, Handle, Request
from stair_jax.decoding.rows import NO_TOKEN
from stair_jax.decoding.shapes import EngineShapes
from stair_jax.decoding.shard import Chunk, Decoding, Shard
from stair_jax.errors import UserError
from stair_jax.models import serving
from stair_jax.models.config import ModelConfig
from stair_jax.models.paged_attention import get_paged_backend
from stair_jax.models.transformer import Params
from stair_jax.parallel.placement import Placement


@dataclass(frozen=True)
class _Round:
    """A decode call whose results have not been read.

    Attributes:
        results: [num_slots, 2 * num_steps + 8] int32, as `programs.decode` returns it.
        decoding: per shard, the jobs in slots; those of the lines are added by `_settle`.
        lines: per shard, the jobs that the device may have assigned to idle slots.
    """

    results: Any  # a jax.Array, whose stub lacks `is_ready`
    decoding: list[list[Decoding]]
    lines: list[list[Job]]


class Engine:
    """Samples and scores for many requests at once.

    The result of a request depends only on its tokens, sampling settings and key: not on its slot,
    on its neighbours, on the order of submission, or on the contents of the cache. (Up to rounding:
    the keys and values of a prompt come from another program than those of the same tokens when
    they were sampled.) Engines with equal model configs and shapes share their compiled programs.

    Attributes:
        stats: counters since the engine was created.
    """

    def __init__(
        self,
        config: ModelConfig,
        params: Params,
        shapes: EngineShapes | None = None,
        *,
        mesh: Mesh | None = None,
        consume: bool = False,
        **sizes: Any,
    ) -> None:
        """Creates an idle engine.

        Args:
            config: the model config.
            params: the parameters, as of `transformer.init_params`; on the mesh, if there is one.
            shapes: sizes and kinds of the device programs.
            mesh: the devices; None means the default device. `data` and `fsdp` split the slots and
                the cache, `tensor` splits the heads.
            consume: whether to delete `params` while they are converted, which leaves more memory
                to the cache.
            sizes: fields of `EngineShapes`, as an alternative to `shapes`.

        Raises:
            UserError: names a size that is not possible.
        """
        shapes = shapes or EngineShapes(**sizes)
        self.stats = EngineStats()
        self._config = config
        self._mesh = mesh
        self._placement = Placement(mesh)
        self._shapes = shapes.resolve(config, mesh)
        self._backend = self._shapes.attention
        self._programs = programs.get_programs(self._shapes.platform)
        self._served = self._serve(params, consume)
        # After the parameters: what they leave free decides how many pages there are.
        self._shapes = shapes = self._shapes.with_pages(config, mesh)
        self._handles: set[Handle] = set()
        sizes_of_shard = shapes.shard_sizes()
        self._shards = [
            Shard(sizes_of_shard, self._handles, self.stats) for _ in range(shapes.num_shards)
        ]
        with self._placement.use():
            self._state = programs.empty_state(
                config,
                self._backend,
                shapes.num_slots,
                shapes.num_shards * sizes_of_shard.num_pages,
                shapes.page_size,
                shapes.kv_dtype or config.dtype,
            )
        self._prefill_sizes = PrefillSizes(shapes.prefill_sizes)
        # The shard that a handle's children are sent to, because it has, or will have, its keys and
        # values.
        self._home: dict[Handle, Shard] = {}
        self._numbers = count()
        # Dispatched rounds that have not been read, oldest first.
        self._rounds: deque[_Round] = deque()
        self._pending = 0
        self._done: list[Completion] = []
        # Whether a row could not be sampled without branches, so that the next call needs them.
        self._stalled = False
        # When results were read last, for `EngineStats.starved_seconds`.
        self._seen = time.monotonic()

    @property
    def pending(self) -> int:
        """Number of requests whose completions `step` has not returned yet."""
        return self._pending

    @property
    def capacity(self) -> int:
        """Number of tokens whose keys and values the cache can hold."""
        sizes = self._shapes.shard_sizes()
        return len(self._shards) * (sizes.num_pages - 1) * sizes.page_size

    @property
    def free(self) -> int:
        """Number of tokens that fit into the cache, if all evictable prefixes are evicted."""
        return sum(shard.free_tokens for shard in self._shards)

    @property
    def max_length(self) -> int:
        """Maximum number of tokens per sequence, prompt and sampled tokens together."""
        return self._shapes.max_length

    def submit(self, requests: Iterable[Request]) -> None:
        """Queues requests.

        Raises:
            UserError: a token id is outside of the vocabulary.
            ValueError: a parent is not a handle of this engine, or has been released.
        """
        for request in requests:
            parent = request.parent
            if parent is not None and parent not in self._handles:
                raise ValueError(f"the parent of request {request.id!r} is not kept here")
            self._check_vocabulary(request.id, (*request.tokens, *request.score_ids))
            sequence = request.sequence
            room = self._shapes.max_length - len(sequence)
            self._pending += 1
            # Sampling needs room for at least one token, scoring for none.
            if room < (request.sampling is not None):
                self._done.append(Completion(request.id, finish="too_long"))
                continue
            limit = 1 if request.sampling is None else min(request.sampling.max_tokens, room)
            order = (request.priority, next(self._numbers))
            job = Job(sequence, order, parent, request=request, limit=limit)
            self._shard_of(parent).submit(job)

    def step(self) -> list[Completion]:
        """Dispatches one round.

        Returns:
            The completions that became known since the last call.
        """
        # What has arrived is read first: it frees slots and pages for the round that is planned
        # now.
        while self._rounds and self._rounds[0].results.is_ready():
            self._read()
        is_starved = not self._rounds
        dispatched = self._dispatch()
        if is_starved and dispatched:
            self.stats.starved_seconds += time.monotonic() - self._seen
        # Leaves the new round in flight, or none if there was nothing to dispatch.
        while len(self._rounds) > dispatched:
            self._read()
        self.stats.evicted = sum(shard.prefixes.evicted for shard in self._shards)
        done, self._done = self._done, []
        self._pending -= len(done)
        return done

    def keep(self, tokens: Iterable[int], parent: Handle | None = None) -> Handle:
        """Creates a handle of a sequence; nothing is computed until it is used.

        Args:
            tokens: token ids, appended to those of `parent`.
            parent: a handle of this engine.

        Raises:
            UserError: there are no tokens, or one is outside of the vocabulary.
            ValueError: the parent is not a handle of this engine.
        """
        if parent is not None and parent not in self._handles:
            raise ValueError("the parent of the handle is not kept here")
        own = tuple(tokens)
        self._check_vocabulary("keep", own)
        if not own and parent is None:
            raise UserError("a handle needs at least one token")
        handle = Handle((*parent.tokens, *own) if parent else own, parent)
        self._handles.add(handle)
        return handle

    def shorten(self, handle: Handle, num_tokens: int) -> Handle:
        """Replaces a handle by one of its first tokens.

        Args:
            handle: the handle, which is released.
            num_tokens: number of tokens to keep; at least 1, and at least those of its parent.

        Raises:
            ValueError: the handle is not kept here, or cannot be shortened to that length.
        """
        shortest = max(1, len(handle.parent.tokens) if handle.parent else 1)
        if handle not in self._handles or not shortest <= num_tokens <= len(handle.tokens):
            raise ValueError(f"no handle of {num_tokens} tokens can be made of this one")
        shorter = Handle(handle.tokens[:num_tokens], handle.parent)
        self._handles.remove(handle)
        self._handles.add(shorter)
        home = self._home.pop(handle, None)
        if home is not None:
            self._home[shorter] = home
        for shard in self._shards:
            shard.prefixes.shorten(handle, shorter, num_tokens)
        return shorter

    def release(self, handle: Handle) -> None:
        """Releases a handle. Requests already submitted with it still run; its children stay.

        Raises:
            ValueError: the handle is not kept here.
        """
        if handle not in self._handles:
            raise ValueError("the handle is not kept here")
        self._handles.remove(handle)
        self._home.pop(handle, None)
        for shard in self._shards:
            shard.prefixes.remove(handle)

    def set_params(self, params: Params, consume: bool = False) -> None:
        """Replaces the weights by others of the same config; handles stay valid.

        Their keys and values are dropped and computed again when they are used.

        Raises:
            ValueError: requests are pending, which would be sampled from two models.
        """
        if self.pending:
            raise ValueError("weights can be changed only while no request is pending")
        # A round that was dispatched before the last completion was known may be in flight.
        while self._rounds:
            self._read()
        for shard in self._shards:
            shard.forget()
        self._served = self._serve(params, consume)

    def _serve(self, params: Params, consume: bool) -> serving.Served:
        stacked = get_paged_backend(self._backend).stacked
        return serving.serve(
            self._config,
            params,
            weights=self._shapes.weights,
            stacked=stacked,
            consume=consume,
        )

    def _check_vocabulary(self, name: Any, ids: tuple[int, ...]) -> None:
        if ids and (min(ids) < 0 or max(ids) >= self._config.vocab_size):
            raise UserError(
                f"request {name!r} has a token outside of the model's vocabulary of "
                f"{self._config.vocab_size}: is this the tokenizer of the model?"
            )

    def _shard_of(self, parent: Handle | None) -> Shard:
        """The shard that holds a handle's sequences, or the least loaded one if none does yet."""
        shard = self._home.get(parent) if parent is not None else None
        if shard is None:
            shard = min(self._shards, key=lambda shard: shard.load)
            if parent is not None:
                self._home[parent] = shard
        return shard

    def _dispatch(self) -> bool:
        """Plans a round and dispatches its programs.

        Returns:
            Whether a decode call was dispatched, whose results have to be read.
        """
        for shard in self._shards:
            shard.begin()
        # All shards take part in every call, so its size is chosen for all of them together.
        calls = self._prefill_sizes.choose([shard.num_chunks for shard in self._shards])
        chunks = [[shard.take_chunks(num_rows) for shard in self._shards] for num_rows in calls]
        decoding = [shard.admit() for shard in self._shards]
        if any(shard.copies for shard in self._shards):
            self._run_copies()
        for num_rows, taken in zip(calls, chunks, strict=True):
            self._run_prefill(taken, num_rows)
        lines = [shard.line for shard in self._shards]
        # Copies and prefills return nothing to the host.
        if not any(decoding) and not any(lines):
            return False
        results = self._run_decode()
        # The transfer starts when the results exist, and `_read` finds them on the host.
        results.copy_to_host_async()
        self._rounds.append(_Round(results, decoding, lines))
        # No round is in flight before it, so it is already known which slots it finds idle.
        if len(self._rounds) == 1:
            self._settle()
        return True

    def _run_copies(self) -> None:
        size, num_pages = self._shapes.max_copies, self._shapes.num_pages
        pairs = np.zeros((2, len(self._shards), size), np.int32)
        pairs[1] = num_pages + np.arange(size)  # padding: distinct ids out of range, dropped
        for index, shard in enumerate(self._shards):
            for column, pair in enumerate(shard.copies):
                pairs[:, index, column] = pair
        source, target = self._placement.rows(tuple(pairs.reshape(2, -1)))
        with self._placement.use():
            self._state = self._programs.copy_pages(
                self._config, self._backend, num_pages, self._state, source, target
            )
        self.stats.calls += 1

    def _run_prefill(self, chunks: list[list[Chunk]], num_rows: int) -> None:
        shapes = self._shapes
        # Unused rows keep a length of 0: they are idle and write nothing.
        rows = len(self._shards) * num_rows
        tokens = np.zeros((rows, shapes.prefill_width), np.int32)
        spans = np.zeros((rows, 2), np.int32)
        table = np.zeros((rows, shapes.table_width), np.int32)
        for index, own in enumerate(chunks):
            for row, chunk in enumerate(own, index * num_rows):
                tokens[row, : len(chunk.tokens)] = chunk.tokens
                spans[row] = chunk.start, len(chunk.tokens)
                table[row, : len(chunk.job.pages)] = chunk.job.pages
        arrays = self._placement.rows((tokens, spans, table))
        with self._placement.use():
            self._state = self._programs.prefill(
                self._config, self._backend, self._served, self._state, *arrays
            )
        self.stats.calls += 1

    def _run_decode(self) -> jax.Array:
        shapes = self._shapes
        changes = np.concatenate([shard.take_changes() for shard in self._shards])
        # Concatenation copies: the shards change their tables while the transfer is under way.
        table = np.concatenate([shard.table for shard in self._shards])
        packed = zip(*(shard.packed_line() for shard in self._shards), strict=True)
        line, line_table = map(np.concatenate, packed)
        with self._placement.use():
            self._state, results = self._programs.decode(
                self._config,
                self._backend,
                shapes.steps_per_call,
                # A "quick" call left a row unsampled: this one has to be able to sample any row.
                "full" if self._stalled else shapes.way,
                self._served,
                self._state,
                *self._placement.rows((changes, table, line, line_table)),
            )
        self._stalled = False
        self.stats.calls += 1
        self.stats.slot_steps += shapes.num_slots * shapes.steps_per_call
        return results

    def _read(self) -> None:
        """Reads the results of the oldest round."""
        oldest = self._rounds.popleft()
        start = time.monotonic()
        results = np.asarray(oldest.results)
        self._seen = time.monotonic()
        self.stats.wait_seconds += self._seen - start
        num_steps = self._shapes.steps_per_call
        # Log-probabilities and scores were sent as bits; `view` needs contiguous rows.
        floats = np.ascontiguousarray(results[:, num_steps:]).view(np.float32)
        counts = np.sum(results[:, :num_steps] != NO_TOKEN, axis=1).tolist()
        self.stats.busy_steps += sum(counts)
        # As lists: thousands of rows per second with a few numbers each, for which indexing NumPy
        # arrays is slow.
        tokens, logps = results[:, :num_steps].tolist(), floats[:, :num_steps].tolist()
        slots = self._shapes.num_slots // len(self._shards)
        for index, (shard, decoding) in enumerate(zip(self._shards, oldest.decoding, strict=True)):
            for slot, job, run in decoding:
                # The sequence ended or was preempted in a round read before this one.
                if job.done or job.run != run:
                    continue
                row = index * slots + slot
                job.num_calls -= 1
                job.sampled += tokens[row][: counts[row]]
                job.logps += logps[row][: counts[row]]
                if job.finish is not None:
                    self._complete(shard, job, floats[row, num_steps:])
                # Unfinished but short of tokens: a "quick" call could not sample the row.
                elif counts[row] < num_steps:
                    self._stalled = True
        self._settle()

    def _settle(self) -> None:
        """Settles the lines of the oldest round, as the idle slots that it found are known now."""
        if self._rounds:
            oldest = self._rounds[0]
            for shard, decoding, line in zip(
                self._shards, oldest.decoding, oldest.lines, strict=True
            ):
                decoding += shard.settle(line)

    def _complete(self, shard: Shard, job: Job, scores: np.ndarray) -> None:
        request, finish = job.request, job.finish
        assert request is not None and finish is not None
        shard.leave(job)
        handle = None
        if request.keep:
            # A child of the request's parent, so that both can share pages and be evicted in order.
            handle = Handle((*job.tokens, *job.sampled), request.parent)
            self._handles.add(handle)
            self._home[handle] = shard
        shard.retire(job, handle)
        self.stats.generated += len(job.sampled)
        self._done.append(
            Completion(
                request.id,
                tokens=tuple(job.sampled),
                logps=tuple(job.logps),
                finish=finish,
                scores=tuple(scores[: len(request.score_ids)].tolist()),
                handle=handle,
            )
        )
