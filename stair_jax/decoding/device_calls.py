"""The device calls of an engine: what each of them is sent, and what they change on the devices.

The engine says what a round holds in terms of sequences. The `pack_` functions turn that into the
arrays that the device programs take, the rows of all shards one behind the other. `DeviceCalls` has
what stays on the devices, weights, cache and slots, and runs the programs on it, in the order in
which it is called. No call waits for its program.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from stair_jax.decoding import programs
from stair_jax.decoding.chunked_prefill import PrefillChunk
from stair_jax.decoding.engine_config import EngineConfig, free_memory
from stair_jax.decoding.sequence import SequenceState
from stair_jax.decoding.slot_table import SlotTable
from stair_jax.models.config import ModelConfig
from stair_jax.models.paged.backends import get_paged_backend
from stair_jax.models.serving.fused_adapters import Adapter, fuse_model
from stair_jax.models.transformer import Params
from stair_jax.parallel.placement import Placement


class DeviceCalls:
    """Weights, cache and slots of an engine, and the programs that use them.

    Attributes:
        config: of the model.
        placement: of what the programs are given.
        engine_config: the sizes, with all that follows from devices and model filled in.
        params: the weights, as the programs take them.
        state: cache and slots; donated to each program and replaced by what it returns.
        programs: the jitted programs. Others of the same arguments may take their place.
    """

    def __init__(
        self,
        config: ModelConfig,
        params: Params,
        engine_config: EngineConfig,
        *,
        adapters: Sequence[Adapter],
        mesh: Mesh | None,
        consume: bool,
    ) -> None:
        """Converts the weights and allocates an empty cache. The arguments are those of `Engine`.

        Raises:
            UserError: names a size that is not possible.
        """
        self.config = config
        self.placement, self._mesh = Placement(mesh), mesh
        count = len(adapters) + (config.lora is not None)
        self.engine_config = replace(engine_config, num_adapters=count).resolve(config, mesh)
        self._backend = self.engine_config.attention
        self.programs = programs.get_programs(self.engine_config.platform)
        self.set_params(params, adapters, consume)
        # After the parameters: what they leave free decides how many pages there are.
        self.engine_config = sizes = self.engine_config.with_pages(config, mesh)
        with self.placement.use():
            self.state = programs.empty_state(
                config,
                self._backend,
                sizes.num_slots,
                sizes.num_shards * sizes.num_pages,
                sizes.page_size,
                sizes.kv_dtype or config.dtype,
                sizes.num_adapters > 0,
            )

    def set_params(self, params: Params, adapters: Sequence[Adapter], consume: bool) -> None:
        """Replaces the weights by others of the same config."""
        self.params = fuse_model(
            self.config,
            params,
            adapters,
            weights=self.engine_config.weights,
            stacked=get_paged_backend(self._backend).stacked,
            consume=consume,
        )

    def warm_up(self) -> None:
        """Compiles all programs, by calls in which every row is idle; for an engine that is."""
        sizes, shard = self.engine_config, self.engine_config.shard_sizes()
        nothing: list[list[Any]] = [[] for _ in range(sizes.num_shards)]
        self.copy_pages(*pack_copies(nothing, sizes))
        for num_rows in sizes.prefill_sizes:
            self.prefill(*pack_prefill(nothing, num_rows, sizes))
        slots = [SlotTable(shard.num_slots, shard.table_width) for _ in nothing]
        modes: set[programs.DecodeMode] = {"full", sizes.decode_mode}
        for mode in sorted(modes):
            packed = pack_decode(slots, nothing, shard.lookahead)
            jax.block_until_ready(self.decode(*packed, mode=mode))

    @property
    def free_bytes(self) -> int | None:
        """Memory that is free on each device, see `engine_config.free_memory`."""
        return free_memory(self._mesh)

    def copy_pages(self, source: np.ndarray, target: np.ndarray) -> None:
        """Copies pages; the arguments are what `pack_copies` returns."""
        rows = self.placement.rows((source, target))
        with self.placement.use():
            self.state = self.programs.copy_pages(
                self.config, self._backend, self.engine_config.num_pages, self.state, *rows
            )

    def prefill(self, tokens: np.ndarray, spans: np.ndarray, table: np.ndarray) -> None:
        """Prefills rows; the arguments are what `pack_prefill` returns."""
        rows = self.placement.rows((tokens, spans, table))
        with self.placement.use():
            self.state = self.programs.prefill(
                self.config, self._backend, self.params, self.state, *rows
            )

    def decode(
        self,
        changes: np.ndarray,
        table: np.ndarray,
        line: np.ndarray,
        line_table: np.ndarray,
        *,
        mode: programs.DecodeMode,
    ) -> jax.Array:
        """Decodes in all slots.

        Args:
            changes: this and the other arrays are what `pack_decode` returns.
            table: see there.
            line: see there.
            line_table: see there.
            mode: how the call runs.

        Returns:
            [num_slots, 2 * num_steps + 8] int32, as of `programs.decode`.
        """
        rows = self.placement.rows((changes, table, line, line_table))
        with self.placement.use():
            self.state, results = self.programs.decode(
                self.config,
                self._backend,
                self.engine_config.steps_per_call,
                mode,
                self.params,
                self.state,
                *rows,
            )
        return results


def pack_copies(
    copies: Sequence[list[tuple[int, int]]], engine_config: EngineConfig
) -> tuple[np.ndarray, np.ndarray]:
    """Packs the page copies of a round.

    Args:
        copies: (source, target) page ids of each shard, at most `max_copies` of them.
        engine_config: the sizes.

    Returns:
        [num_shards * max_copies] int32 sources, and likewise targets.
    """
    size, num_pages = engine_config.max_copies, engine_config.num_pages
    pairs = np.zeros((2, len(copies), size), np.int32)
    pairs[1] = num_pages + np.arange(size)  # padding: distinct ids out of range, dropped
    for index, own in enumerate(copies):
        for column, pair in enumerate(own):
            pairs[:, index, column] = pair
    return pairs[0].ravel(), pairs[1].ravel()


def pack_prefill(
    chunks: Sequence[list[PrefillChunk]], num_rows: int, engine_config: EngineConfig
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Packs a prefill call.

    Args:
        chunks: the rows of each shard, at most `num_rows` of them.
        num_rows: rows per shard of the call.
        engine_config: the sizes.

    Returns:
        of N = num_shards * num_rows rows: [N, prefill_width] int32 token ids, [N, 2] int32
        (position of the first token, number of tokens; with adapters [N, 3], the row's adapter),
        [N, table_width] int32 page ids.
    """
    # Unused rows keep a length of 0: they are idle and write nothing.
    rows = len(chunks) * num_rows
    tokens = np.zeros((rows, engine_config.prefill_width), np.int32)
    spans = np.zeros((rows, engine_config.span_width), np.int32)
    table = np.zeros((rows, engine_config.table_width), np.int32)
    for index, own in enumerate(chunks):
        for row, chunk in enumerate(own, index * num_rows):
            tokens[row, : len(chunk.tokens)] = chunk.tokens
            # As many as the row is wide.
            spans[row] = (chunk.start, len(chunk.tokens), chunk.sequence.adapter)[: spans.shape[1]]
            table[row, : len(chunk.sequence.pages)] = chunk.sequence.pages
    return tokens, spans, table


def pack_decode(
    slots: Sequence[SlotTable], lines: Sequence[list[SequenceState]], lookahead: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Packs a decode call, and takes the changes of the slots that the devices have not received.

    Args:
        slots: of each shard, its slots.
        lines: of each shard, the sequences that take over idle slots, in order.
        lookahead: rows per shard of the lines.

    Returns:
        [num_slots, WIDTH] int32 slot updates (`decoding/slots.py`), [num_slots, table_width] int32
        page ids; and of the lines, with num_shards * lookahead rows, the same two.
    """
    changes = np.concatenate([table.take_changes() for table in slots])
    # Concatenation copies: the shards change their tables while the transfer is under way.
    pages = np.concatenate([table.pages for table in slots])
    packed: Any = (
        table.pack_line(line, lookahead) for table, line in zip(slots, lines, strict=True)
    )
    line_rows, line_pages = map(np.concatenate, zip(*packed, strict=True))
    return changes, pages, line_rows, line_pages
