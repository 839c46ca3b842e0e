"""The rollout engine: continuous batching over a paged KV cache with prefix sharing.

The host plans a round while the devices run the previous one: copies of partial pages, chunked
prefills, and a few decode steps in all slots. Results are read one round late, packed into one
array, so that neither host nor device waits for the other.
"""

import time
from collections import deque
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from stair_jax.decoding.chunked_prefill import PrefillSizes
from stair_jax.decoding.device_calls import DeviceCalls, pack_copies, pack_decode, pack_prefill
from stair_jax.decoding.engine_config import EngineConfig
from stair_jax.decoding.requests import Completion, EngineStats, Handle, Piece, Request, adapter_of
from stair_jax.decoding.scheduler import Scheduler
from stair_jax.decoding.sequence import SequenceState
from stair_jax.decoding.slot_table import DecodingSlot
from stair_jax.decoding.slots import NO_TOKEN
from stair_jax.errors import UserError
from stair_jax.models.config import ModelConfig
from stair_jax.models.serving.fused_adapters import Adapter
from stair_jax.models.transformer import Params


@dataclass(frozen=True)
class _Round:
    """A decode call whose results have not been read.

    Attributes:
        results: [num_slots, 2 * num_steps + 8] int32, as `programs.decode` returns it.
        decoding: per shard, the sequences in slots; those of the lines are added by `_settle`.
        lines: per shard, the sequences that the device may have assigned to idle slots.
    """

    results: Any  # a jax.Array, whose stub lacks `is_ready`
    decoding: list[list[DecodingSlot]]
    lines: list[list[SequenceState]]


class Engine:
    """Samples and scores for many requests at once.

    The result of a request depends only on its tokens, sampling settings and key: not on its slot,
    on its neighbours, on the order of submission, or on the contents of the cache. (Up to rounding:
    the keys and values of a prompt come from another program than those of the same tokens when
    they were sampled.) Engines with equal model configs and shapes share their compiled programs.

    An engine may serve several models over one base: the base itself, number 0, and models that
    have low-rank adapters (`models/lora.py`) beside its kernels. The root of each sequence says
    which; all that continues it is of the same model, and shares no keys and values with others.

    Attributes:
        stats: counters since the engine was created.
        adapter: the model of roots that name none: 1 if `params` have adapters, else 0.
        device: the calls of the device programs, with weights, cache and slots.
    """

    def __init__(
        self,
        config: ModelConfig,
        params: Params,
        engine_config: EngineConfig | None = None,
        *,
        adapters: Sequence[Adapter] = (),
        mesh: Mesh | None = None,
        consume: bool = False,
        **sizes: Any,
    ) -> None:
        """Creates an idle engine.

        Args:
            config: the model config. If it has `lora`, the adapters in `params` are number 1.
            params: the parameters, as of `transformer.init_params`; on the mesh, if there is one.
            engine_config: sizes and kinds of the device programs.
            adapters: of more models over the same base, the numbers that follow.
            mesh: the devices; None means the default device. `data` and `fsdp` split the slots and
                the cache, `tensor` splits the heads.
            consume: whether to delete `params` while they are converted, which leaves more memory
                to the cache.
            sizes: fields of `EngineConfig`, as an alternative to `engine_config`.

        Raises:
            UserError: names a size that is not possible.
        """
        self.stats = EngineStats()
        self._config = config
        self.device = DeviceCalls(
            config,
            params,
            engine_config or EngineConfig(**sizes),
            adapters=adapters,
            mesh=mesh,
            consume=consume,
        )
        self._engine_config = engine_config = self.device.engine_config
        self.adapter = int(config.lora is not None)
        self._adapter_of = partial(adapter_of, self.adapter, engine_config.num_adapters)
        self._handles: set[Handle] = set()
        self._shard_sizes = engine_config.shard_sizes()
        self._schedulers = [
            Scheduler(self._shard_sizes, self._handles, self.stats)
            for _ in range(engine_config.num_shards)
        ]
        self._prefill_sizes = PrefillSizes(engine_config.prefill_sizes)
        # The shard that a handle's children are sent to, because it has, or will have, its keys and
        # values.
        self._home: dict[Handle, Scheduler] = {}
        self._numbers = count()
        # Dispatched rounds that have not been read, oldest first.
        self._rounds: deque[_Round] = deque()
        self._pending = 0
        self._done: list[Completion] = []
        # By request id, the sequences of pending requests and their shards.
        self._running: dict[Hashable, tuple[Scheduler, SequenceState]] = {}
        self._streamed: list[Piece] = []
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
        sizes = self._engine_config
        return len(self._schedulers) * (sizes.num_pages - 1) * sizes.page_size

    @property
    def free(self) -> int:
        """Number of tokens that fit into the cache, if all evictable prefixes are evicted."""
        return sum(scheduler.free_tokens for scheduler in self._schedulers)

    @property
    def num_handles(self) -> int:
        """Number of handles that have not been released."""
        return len(self._handles)

    @property
    def max_length(self) -> int:
        """Maximum number of tokens per sequence, prompt and sampled tokens together."""
        return self._engine_config.max_length

    def submit(self, requests: Iterable[Request]) -> None:
        """Queues requests.

        Raises:
            UserError: a token id is outside of the vocabulary.
            ValueError: a parent is not a handle of this engine, or has been released; a request of
                the same id is pending; or as `adapter_of`.
        """
        for request in requests:
            parent = request.parent
            if parent is not None and parent not in self._handles:
                raise ValueError(
                    f"the parent of request {request.id!r} is not a handle of this engine, "
                    "or was released"
                )
            if request.id in self._running:
                raise ValueError(f"a request with the id {request.id!r} is pending")
            self._check_vocabulary(request.id, (*request.tokens, *request.score_ids))
            tokens, adapter = request.sequence, self._adapter_of(parent, request.adapter)
            room = self._engine_config.max_length - len(tokens)
            self._pending += 1
            # Sampling needs room for at least one token, scoring for none.
            if room < (request.sampling is not None):
                self._done.append(Completion(request.id, finish="too_long"))
                continue
            limit = 1 if request.sampling is None else min(request.sampling.max_tokens, room)
            order = (request.priority, next(self._numbers))
            sequence = SequenceState(tokens, order, parent, adapter, request=request, limit=limit)
            scheduler = self._scheduler_of(parent)
            scheduler.submit(sequence)
            self._running[request.id] = scheduler, sequence

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
        self.stats.evicted = sum(scheduler.prefix_cache.evicted for scheduler in self._schedulers)
        done, self._done = self._done, []
        self._pending -= len(done)
        return done

    def cancel(self, ids: Iterable[Hashable]) -> None:
        """Drops pending requests, which get no completion; their slots and pages come free.

        Args:
            ids: of requests; those that are not pending are ignored.
        """
        ids = set(ids)
        kept = [completion for completion in self._done if completion.id not in ids]
        self._pending -= len(self._done) - len(kept)
        self._done = kept
        dropped: dict[Scheduler, set[SequenceState]] = {}
        for id in ids:
            if id in self._running:
                scheduler, sequence = self._running.pop(id)
                dropped.setdefault(scheduler, set()).add(sequence)
                self._pending -= 1
        for scheduler, sequences in dropped.items():
            scheduler.cancel(sequences)

    def take_tokens(self) -> list[Piece]:
        """Returns what requests with `stream` sampled since the last call.

        A request's last tokens are here by the time that `step` returns its completion.
        """
        taken, self._streamed = self._streamed, []
        return taken

    def keep(
        self, tokens: Iterable[int], parent: Handle | None = None, adapter: int | None = None
    ) -> Handle:
        """Creates a handle of a sequence; nothing is computed until it is used.

        Args:
            tokens: token ids, appended to those of `parent`.
            parent: a handle of this engine.
            adapter: see `Request.adapter`.

        Raises:
            UserError: there are no tokens, or one is outside of the vocabulary.
            ValueError: the parent is not a handle of this engine; or as `adapter_of`.
        """
        if parent is not None and parent not in self._handles:
            raise ValueError("the parent is not a handle of this engine, or was released")
        own = tuple(tokens)
        self._check_vocabulary("keep", own)
        if not own and parent is None:
            raise UserError("a handle needs at least one token")
        adapter = self._adapter_of(parent, adapter)
        handle = Handle((*parent.tokens, *own) if parent else own, parent, adapter)
        self._handles.add(handle)
        return handle

    def shorten(self, handle: Handle, num_tokens: int) -> Handle:
        """Replaces a handle by one of its first tokens.

        Args:
            handle: the handle, which is released.
            num_tokens: number of tokens to keep; at least 1, and at least those of its parent.

        Raises:
            ValueError: not a handle of this engine, or released before, or it cannot be shortened
                to that length.
        """
        shortest = max(1, len(handle.parent.tokens) if handle.parent else 1)
        if handle not in self._handles or not shortest <= num_tokens <= len(handle.tokens):
            raise ValueError(f"no handle of {num_tokens} tokens can be made of this one")
        shorter = Handle(handle.tokens[:num_tokens], handle.parent, handle.adapter)
        self._handles.remove(handle)
        self._handles.add(shorter)
        home = self._home.pop(handle, None)
        if home is not None:
            self._home[shorter] = home
        for scheduler in self._schedulers:
            scheduler.prefix_cache.shorten(handle, shorter, num_tokens)
        return shorter

    def release(self, handle: Handle) -> None:
        """Releases a handle. Requests already submitted with it still run; its children stay.

        Raises:
            ValueError: not a handle of this engine, or released before.
        """
        if handle not in self._handles:
            raise ValueError("not a handle of this engine, or released before")
        self._handles.remove(handle)
        self._home.pop(handle, None)
        for scheduler in self._schedulers:
            scheduler.prefix_cache.remove(handle)

    def set_params(
        self, params: Params, consume: bool = False, adapters: Sequence[Adapter] = ()
    ) -> None:
        """Replaces the weights by others of the same config; handles stay valid.

        The arguments are those of `Engine`, with as many adapters. Keys and values of handles are
        dropped, and computed again when they are used.

        Raises:
            ValueError: requests are pending, which would be sampled from two models.
        """
        if self.pending:
            raise ValueError("weights can be changed only while no request is pending")
        # A round that was dispatched before the last completion was known may be in flight.
        while self._rounds:
            self._read()
        for scheduler in self._schedulers:
            scheduler.forget()
        self.device.set_params(params, adapters, consume)

    def _check_vocabulary(self, name: Any, ids: tuple[int, ...]) -> None:
        if ids and (min(ids) < 0 or max(ids) >= self._config.vocab_size):
            raise UserError(
                f"request {name!r} has a token outside of the model's vocabulary of "
                f"{self._config.vocab_size}: is this the tokenizer of the model?"
            )

    def _scheduler_of(self, parent: Handle | None) -> Scheduler:
        """The shard that holds a handle's sequences, or the least loaded one if none does yet."""
        scheduler = self._home.get(parent) if parent is not None else None
        if scheduler is None:
            scheduler = min(self._schedulers, key=lambda scheduler: scheduler.load)
            if parent is not None:
                self._home[parent] = scheduler
        return scheduler

    def _dispatch(self) -> bool:
        """Plans a round and dispatches its programs.

        Returns:
            Whether a decode call was dispatched, whose results have to be read.
        """
        for scheduler in self._schedulers:
            scheduler.begin()
        # All shards take part in every call, so its size is chosen for all of them together.
        calls = self._prefill_sizes.choose([scheduler.num_chunks for scheduler in self._schedulers])
        chunks = [
            [scheduler.take_chunks(num_rows) for scheduler in self._schedulers]
            for num_rows in calls
        ]
        decoding = [scheduler.admit() for scheduler in self._schedulers]
        copies = [scheduler.copies for scheduler in self._schedulers]
        if any(copies):
            self.device.copy_pages(*pack_copies(copies, self._engine_config))
            self.stats.calls += 1
        for num_rows, taken in zip(calls, chunks, strict=True):
            self.device.prefill(*pack_prefill(taken, num_rows, self._engine_config))
            self.stats.calls += 1
        lines = [scheduler.line for scheduler in self._schedulers]
        # Copies and prefills return nothing to the host.
        if not any(decoding) and not any(lines):
            return False
        results = self._decode(lines)
        # The transfer starts when the results exist, and `_read` finds them on the host.
        results.copy_to_host_async()
        self._rounds.append(_Round(results, decoding, lines))
        # No round is in flight before it, so it is already known which slots it finds idle.
        if len(self._rounds) == 1:
            self._settle()
        return True

    def _decode(self, lines: list[list[SequenceState]]) -> jax.Array:
        slots = [scheduler.slots for scheduler in self._schedulers]
        results = self.device.decode(
            *pack_decode(slots, lines, self._shard_sizes.lookahead),
            # A "quick" call left a row unsampled: this one has to be able to sample any row.
            mode="full" if self._stalled else self._engine_config.decode_mode,
        )
        self._stalled = False
        self.stats.calls += 1
        self.stats.slot_steps += self._engine_config.num_slots * self._engine_config.steps_per_call
        return results

    def _read(self) -> None:
        """Reads the results of the oldest round."""
        oldest = self._rounds.popleft()
        start = time.monotonic()
        results = np.asarray(oldest.results)
        self._seen = time.monotonic()
        self.stats.wait_seconds += self._seen - start
        num_steps = self._engine_config.steps_per_call
        # Log-probabilities and scores were sent as bits; `view` needs contiguous rows.
        floats = np.ascontiguousarray(results[:, num_steps:]).view(np.float32)
        counts = np.sum(results[:, :num_steps] != NO_TOKEN, axis=1).tolist()
        self.stats.busy_steps += sum(counts)
        # As lists: thousands of rows per second with a few numbers each, for which indexing NumPy
        # arrays is slow.
        tokens, logps = results[:, :num_steps].tolist(), floats[:, :num_steps].tolist()
        slots = self._engine_config.num_slots // len(self._schedulers)
        for index, (scheduler, decoding) in enumerate(
            zip(self._schedulers, oldest.decoding, strict=True)
        ):
            for slot, sequence, run in decoding:
                # The sequence ended or was preempted in a round read before this one.
                if sequence.done or sequence.run != run:
                    continue
                row = index * slots + slot
                count = counts[row]
                sequence.num_calls -= 1
                sequence.sampled += tokens[row][:count]
                sequence.logps += logps[row][:count]
                assert sequence.request is not None
                if sequence.request.stream and len(sequence.sampled) > sequence.num_streamed:
                    self._streamed.append(sequence.take_piece())
                if sequence.finish is not None:
                    self._complete(scheduler, sequence, floats[row, num_steps:])
                # Unfinished but short of tokens: a "quick" call could not sample the row.
                elif count < num_steps:
                    self._stalled = True
        self._settle()

    def _settle(self) -> None:
        """Settles the lines of the oldest round, as the idle slots that it found are known now."""
        if self._rounds:
            oldest = self._rounds[0]
            for scheduler, decoding, line in zip(
                self._schedulers, oldest.decoding, oldest.lines, strict=True
            ):
                decoding += scheduler.settle(line)

    def _complete(self, scheduler: Scheduler, sequence: SequenceState, scores: np.ndarray) -> None:
        request, finish = sequence.request, sequence.finish
        assert request is not None and finish is not None
        scheduler.leave(sequence)
        del self._running[request.id]
        handle = None
        if request.keep:
            # A child of the request's parent, so that both can share pages and be evicted in order.
            handle = Handle((*sequence.tokens, *sequence.sampled), request.parent, sequence.adapter)
            self._handles.add(handle)
            self._home[handle] = scheduler
        scheduler.retire(sequence, handle)
        self.stats.generated += len(sequence.sampled)
        self._done.append(
            Completion(
                request.id,
                tokens=tuple(sequence.sampled),
                logps=tuple(sequence.logps),
                finish=finish,
                scores=tuple(scores[: len(request.score_ids)].tolist()),
                handle=handle,
            )
        )
