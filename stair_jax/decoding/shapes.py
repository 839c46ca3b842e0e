"""Sizes and kinds of an engine's programs, and how much of a device's memory its cache takes."""

import dataclasses
from dataclasses import dataclass
from functools import partial

import jax
from jax.sharding import Mesh

from stair_jax.decoding import programs
from stair_jax.decoding.shard import Sizes
from stair_jax.errors import UserError
from stair_jax.models.config import ModelConfig
from stair_jax.models.paged_attention import default_paged_backend, get_paged_backend
from stair_jax.parallel.mesh import batch_devices

# Of an accelerator's memory, for what is not counted one by one.
_SPARE_BYTES = 1 << 30
# Arrays of the size of all logits, or of the widest results of a layer, that are there at a time.
_TEMPORARIES = 6

# More than so many contexts for each slot are of no use.
_MOST_CONTEXTS = 32


@dataclass(frozen=True)
class EngineShapes:
    """Sizes and kinds of an engine's programs; they change its cost, and its results by rounding.

    Attributes:
        num_slots: sequences that decode side by side, in all shards together.
        max_length: tokens of a sequence at most, prompt and samples together.
        page_size: tokens of a page of the cache.
        cache_tokens: that the cache holds, in all shards together; 0: what fits into the memory
            of the devices, or on CPUs twice what the slots may need.
        prefill_rows: rows of a prefill at most, in all shards together.
        prefill_width: tokens of such a row.
        steps_per_call: tokens that a slot may sample before the host looks at the results.
        attention: backend of attention, see `models/paged_attention.py`; "": by platform.
        weights: "none", or 8 bits for the layers: "fp8" (GPUs), "int8" (TPUs).
        kv_dtype: of keys and values in the cache; "": that of the model; "int8", "float8_e4m3fn".
        num_shards: parts that slots and cache are split into; found out by `resolve`.
        platform: of the devices; found out alike.
        num_pages: of a shard, with the one that is nobody's; found out by `with_pages`.
    """

    num_slots: int = 64
    max_length: int = 256
    page_size: int = 16
    cache_tokens: int = 0
    prefill_rows: int = 8
    prefill_width: int = 32
    steps_per_call: int = 8
    attention: str = ""
    weights: str = "none"
    kv_dtype: str = ""
    num_shards: int = 1
    num_pages: int = 0
    platform: str = ""

    def __post_init__(self) -> None:
        """Raises a UserError that names a size that is not positive."""
        for name in (
            "num_slots",
            "max_length",
            "page_size",
            "prefill_rows",
            "prefill_width",
            "steps_per_call",
        ):
            if getattr(self, name) < 1:
                raise UserError(f"{name} of an engine is {getattr(self, name)}: it must be >= 1")

    @property
    def table_width(self) -> int:
        """Pages of a sequence at most."""
        return -(-self.max_length // self.page_size)

    @property
    def max_copies(self) -> int:
        """Pages that are copied in one round, in each shard."""
        return max(8, self.num_slots // self.num_shards)

    @property
    def on_cpu(self) -> bool:
        """Whether the devices are CPUs."""
        return self.platform == "cpu"

    @property
    def way(self) -> programs.Way:
        """How a decode call goes if nothing speaks against it."""
        if self.on_cpu:
            return "stopping"
        return "full" if self.platform == "tpu" else "quick"

    @property
    def prefill_sizes(self) -> tuple[int, ...]:
        """Rows of the prefills of a shard, from many to few.

        On a CPU there is one: a product of another size may round otherwise, and which one is
        chosen depends on the company.
        """
        rows = self.prefill_rows // self.num_shards
        return (rows,) if self.on_cpu or rows < 4 else (rows, rows // 2, rows // 4)

    def resolve(self, config: ModelConfig, place: Mesh | jax.Device | None) -> "EngineShapes":
        """The same with what follows from the place: shards, platform, backend of attention.

        Raises:
            UserError: slots or rows of a prefill cannot be split over the mesh.
        """
        device = _devices(place)[0]
        kv_dtype = self.kv_dtype or config.dtype
        shards = batch_devices(place) if isinstance(place, Mesh) else 1
        for name in ("num_slots", "prefill_rows"):
            if getattr(self, name) % shards:
                raise UserError(
                    f"{name} of an engine is {getattr(self, name)}: it must be a multiple of "
                    f"{shards}, data x fsdp of the mesh"
                )
        return dataclasses.replace(
            self,
            num_shards=shards,
            platform=device.platform,
            attention=self.attention
            or default_paged_backend(device.platform, config.dtype, kv_dtype),
            kv_dtype=kv_dtype,
        )

    def with_pages(
        self, config: ModelConfig, place: Mesh | jax.Device | None, free_bytes: int | None = None
    ) -> "EngineShapes":
        """The same with the number of pages.

        Args:
            config: of the model.
            place: the devices.
            free_bytes: of a device, beside the weights; None: as the devices say.

        Raises:
            UserError: the cache is too small for the longest sequence, or does not fit.
        """
        tokens = self._shard_tokens(config, place, free_bytes)
        # One page is nobody's, one more is needed while a partial page is copied.
        num_pages, least = tokens // self.page_size + 1, self.table_width + 2
        if num_pages < least:
            raise UserError(
                f"the cache holds {max(0, num_pages - 2) * self.page_size} tokens of a device's "
                f"slots, fewer than the {self.max_length} of one sequence: "
                f"{self._what_would_fit(config, place, free_bytes, least)}"
            )
        return dataclasses.replace(self, num_pages=num_pages)

    def _what_would_fit(
        self,
        config: ModelConfig,
        place: Mesh | jax.Device | None,
        free_bytes: int | None,
        least: int,
    ) -> str:
        """Advice for a cache of too few pages: `least` of them are needed, nobody's among them."""
        needed = (least - 1) * self.page_size  # tokens
        free_bytes = _free_bytes(place) if free_bytes is None else free_bytes
        if self.cache_tokens or self.on_cpu or free_bytes is None:
            return (
                f"raise runtime.cache_tokens to {self.num_shards * needed} or more,"
                " or lower context_tokens"
            )
        # Of all sizes only the slots' logits are worth giving up.
        cache = needed * self.token_bytes(config, place)
        one = dataclasses.replace(self, num_slots=self.num_shards)._temporary_bytes(config)
        each = _TEMPORARIES * 4 * config.padded_vocab_size
        slots = int((free_bytes - cache - one) // each) + 1
        if slots < 1:
            return (
                "not even one slot fits beside the weights: use more devices "
                "(tensor of runtime.decoding_mesh), or lower context_tokens"
            )
        return f"lower runtime.slots to {slots * self.num_shards}, which would fit"

    def _shard_tokens(
        self, config: ModelConfig, place: Mesh | jax.Device | None, free_bytes: int | None
    ) -> int:
        """Tokens of a shard's cache: those that were asked for, or as many as fit."""
        asked, slots = self.cache_tokens // self.num_shards, self.num_slots // self.num_shards
        if not asked and self.on_cpu:
            return 2 * slots * self.max_length
        if asked and (self.on_cpu or free_bytes is not None):
            return asked
        free_bytes = _free_bytes(place) if free_bytes is None else free_bytes
        if free_bytes is None:
            if not asked:
                raise UserError(
                    "this device does not say how much memory it has: set runtime.cache_tokens"
                )
            return asked
        token = self.token_bytes(config, place)
        most = free_bytes // token
        if asked > most:
            raise UserError(
                f"a cache of {self.cache_tokens} tokens does not fit beside the weights: lower "
                f"runtime.cache_tokens below {self.num_shards * most}, or set it to 0"
            )
        fitting = max(0, free_bytes - self._temporary_bytes(config)) // token
        return asked or min(fitting, _MOST_CONTEXTS * slots * self.max_length)

    def token_bytes(self, config: ModelConfig, place: Mesh | jax.Device | None) -> int:
        """Bytes of a token's keys and values on one device, as the backend keeps them."""
        empty = partial(get_paged_backend(self.attention).empty, config, 1, self.page_size, 1)
        page = jax.eval_shape(partial(empty, self.kv_dtype))
        size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(page))
        if isinstance(place, Mesh) and config.shard_kv_heads:
            size //= place.shape["tensor"]
        return config.num_hidden_layers * size // self.page_size

    def _temporary_bytes(self, config: ModelConfig) -> int:
        logits = 4 * self.num_slots // self.num_shards * config.padded_vocab_size
        tokens = self.prefill_rows // self.num_shards * self.prefill_width
        return _SPARE_BYTES + _TEMPORARIES * (logits + 4 * tokens * config.intermediate_size)

    def shard_sizes(self) -> Sizes:
        """The sizes of one shard."""
        slots = self.num_slots // self.num_shards
        return Sizes(
            num_slots=slots,
            num_pages=self.num_pages,
            page_size=self.page_size,
            table_width=self.table_width,
            chunk=self.prefill_width,
            num_steps=self.steps_per_call,
            lookahead=max(self.prefill_rows // self.num_shards, slots // 8),
            max_copies=self.max_copies,
        )


def _devices(place: Mesh | jax.Device | None) -> list[jax.Device]:
    if isinstance(place, Mesh):
        return list(place.devices.flat)
    return [jax.local_devices()[0] if place is None else place]


def _free_bytes(place: Mesh | jax.Device | None) -> int | None:
    """What is free in one piece of each accelerator's memory; None: they do not say, or are CPUs.

    Weights that were converted leave gaps behind, into which the arrays of the cache may not fit;
    and what a program needs for a while it needs in one piece.
    """
    found = []
    for device in _devices(place):
        statistics = device.memory_stats() or {}
        if device.platform == "cpu" or "bytes_limit" not in statistics:
            return None
        limit, used = statistics["bytes_limit"], statistics["bytes_in_use"]
        # A pool that does not hold all memory yet can grow.
        pool = statistics.get("pool_bytes", limit)
        largest = statistics.get("largest_free_block_bytes", limit) + limit - pool
        found.append(min(limit - used, largest))
    return min(found)
