"""Engine config: sizes and kinds of its programs, and the share of memory that the cache gets."""

import dataclasses
from dataclasses import dataclass
from functools import partial

import jax
from jax.sharding import Mesh

from stair_jax.decoding import programs
from stair_jax.errors import UserError
from stair_jax.models.config import ModelConfig
from stair_jax.models.paged.backends import default_paged_backend, get_paged_backend
from stair_jax.parallel.mesh import batch_devices

# Memory of an accelerator that is set aside for all that is not counted separately.
_SPARE_BYTES = 1 << 30
# Number of temporaries that are assumed to be alive at once, each as large as all logits, or as the
# widest activations of a prefill, in float32.
_TEMPORARIES = 6

# A cache of more full-length contexts per slot than this is of no use.
_MOST_CONTEXTS = 32


@dataclass(frozen=True)
class ShardSizes:
    """Sizes of one shard.

    Attributes:
        num_slots: sequences that decode side by side (batch lanes).
        num_pages: pages in the pool, including the reserved page 0.
        page_size: tokens per page.
        table_width: maximum number of pages per sequence.
        chunk: tokens per row of a prefill.
        num_steps: decode steps per round.
        lookahead: sequences that may be prefilled before a slot is free for them; also the maximum
            length of `Scheduler.line`.
        max_copies: maximum number of page copies per round.
        may_stall: whether a decode call may leave rows unsampled that have tokens left.
    """

    num_slots: int
    num_pages: int
    page_size: int
    table_width: int
    chunk: int
    num_steps: int
    lookahead: int
    max_copies: int
    may_stall: bool = False


@dataclass(frozen=True)
class EngineConfig:
    """Sizes and kinds of an engine's programs. They affect cost, and results only by rounding.

    Attributes:
        num_slots: sequences that decode side by side, in all shards together.
        max_length: maximum number of tokens per sequence, prompt and sampled tokens together.
        page_size: tokens per page of the cache.
        cache_tokens: tokens that the cache holds, in all shards together; 0 means as many as fit
            into the devices' memory, and on CPUs twice what the slots can use.
        prefill_rows: maximum number of rows per prefill call, in all shards together.
        prefill_width: tokens per row of a prefill.
        steps_per_call: decode steps per call, between which the host sees no results.
        attention: attention backend, see `models/paged/backends.py`; "" means the default of the
            platform.
        weights: "none", or 8-bit kernels for the layers: "fp8" (GPUs), "int8" (TPUs).
        kv_dtype: dtype of keys and values in the cache: "int8", "float8_e4m3fn", or that of the
            model, which "" stands for.
        num_adapters: models with adapters over the base; set by the engine.
        num_shards: data-parallel parts of slots and cache; set by `resolve`.
        platform: platform of the devices; set by `resolve`.
        num_pages: pages per shard, including the reserved page 0; set by `with_pages`.
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
    num_adapters: int = 0
    num_shards: int = 1
    num_pages: int = 0
    platform: str = ""

    def __post_init__(self) -> None:
        """Checks the sizes.

        Raises:
            UserError: names a size that is not positive.
        """
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
        """Maximum number of pages per sequence."""
        return -(-self.max_length // self.page_size)

    @property
    def span_width(self) -> int:
        """Numbers that say where a row of a prefill belongs, see `programs.prefill`."""
        return 3 if self.num_adapters else 2

    @property
    def max_copies(self) -> int:
        """Maximum number of page copies per round and shard."""
        return max(8, self.num_slots // self.num_shards)

    @property
    def on_cpu(self) -> bool:
        """Whether the devices are CPUs."""
        return self.platform == "cpu"

    @property
    def decode_mode(self) -> programs.DecodeMode:
        """How a decode call runs by default, see `programs.DecodeMode`."""
        if self.on_cpu:
            return "stopping"
        return "full" if self.platform == "tpu" else "quick"

    @property
    def prefill_sizes(self) -> tuple[int, ...]:
        """Rows per shard of the prefill programs, in descending order.

        On a CPU there is only one: a matrix product of another size may round differently, and
        which size is chosen depends on what else is running.
        """
        rows = self.prefill_rows // self.num_shards
        return (rows,) if self.on_cpu or rows < 4 else (rows, rows // 2, rows // 4)

    def resolve(self, config: ModelConfig, place: Mesh | jax.Device | None) -> "EngineConfig":
        """Fills in what follows from the devices: number of shards, platform, attention backend.

        Args:
            config: the model config.
            place: a mesh or a device; None means the default device.

        Raises:
            UserError: slots or prefill rows cannot be split evenly over the mesh, or sequences can
                be longer than the model's sliding window.
        """
        config.check_length(self.max_length, "the context", "context_tokens")
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
    ) -> "EngineConfig":
        """Fills in the number of pages.

        Args:
            config: the model config.
            place: a mesh or a device; None means the default device.
            free_bytes: memory per device that is free beside the weights; None means as reported by
                the devices.

        Raises:
            UserError: the cache is too small for one sequence of maximum length, or does not fit.
        """
        tokens = self._shard_tokens(config, place, free_bytes)
        # Page 0 is reserved, and a copied partial page coexists with its source for a while.
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
        free_bytes = free_memory(place) if free_bytes is None else free_bytes
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
        """Tokens of a shard's cache: as requested, or as many as fit."""
        asked, slots = self.cache_tokens // self.num_shards, self.num_slots // self.num_shards
        if not asked and self.on_cpu:
            return 2 * slots * self.max_length
        if asked and (self.on_cpu or free_bytes is not None):
            return asked
        free_bytes = free_memory(place) if free_bytes is None else free_bytes
        if free_bytes is None:
            if not asked:
                raise UserError("this device does not report its memory: set runtime.cache_tokens")
            return asked
        token = self.token_bytes(config, place)
        # An explicit size may use what is set aside for temporaries otherwise.
        most = free_bytes // token
        if asked > most:
            raise UserError(
                f"a cache of {self.cache_tokens} tokens does not fit beside the weights: lower "
                f"runtime.cache_tokens below {self.num_shards * most}, or set it to 0"
            )
        fitting = max(0, free_bytes - self._temporary_bytes(config)) // token
        return asked or min(fitting, _MOST_CONTEXTS * slots * self.max_length)

    def token_bytes(self, config: ModelConfig, place: Mesh | jax.Device | None) -> int:
        """Bytes per device of one token's keys and values in all layers.

        The pages are built by the backend, as shapes only, since their layout is its own.
        """
        empty = partial(get_paged_backend(self.attention).empty, config, 1, self.page_size, 1)
        page = jax.eval_shape(partial(empty, self.kv_dtype))
        size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(page))
        # KV heads are split over the tensor axis, or whole on each of its devices.
        if isinstance(place, Mesh) and config.shard_kv_heads:
            size //= place.shape["tensor"]
        return config.num_hidden_layers * size // self.page_size

    def _temporary_bytes(self, config: ModelConfig) -> int:
        """Bytes per device that the programs need beside weights and cache, as an estimate."""
        logits = 4 * self.num_slots // self.num_shards * config.padded_vocab_size
        tokens = self.prefill_rows // self.num_shards * self.prefill_width
        return _SPARE_BYTES + _TEMPORARIES * (logits + 4 * tokens * config.intermediate_size)

    def shard_sizes(self) -> ShardSizes:
        """The sizes of one shard, for its scheduler."""
        slots = self.num_slots // self.num_shards
        return ShardSizes(
            num_slots=slots,
            num_pages=self.num_pages,
            page_size=self.page_size,
            table_width=self.table_width,
            chunk=self.prefill_width,
            num_steps=self.steps_per_call,
            lookahead=max(self.prefill_rows // self.num_shards, slots // 8),
            max_copies=self.max_copies,
            may_stall=self.decode_mode == "quick",
        )


def _devices(place: Mesh | jax.Device | None) -> list[jax.Device]:
    if isinstance(place, Mesh):
        return list(place.devices.flat)
    return [jax.local_devices()[0] if place is None else place]


def free_memory(place: Mesh | jax.Device | None) -> int | None:
    """Largest free block of memory, in bytes, that every accelerator has.

    Blocks count, not sums: converting the weights leaves gaps that an array of the cache may not
    fit into, and the temporaries of a program are one block too.

    Returns:
        None for CPUs, and for devices that do not report their memory.
    """
    found = []
    for device in _devices(place):
        statistics = device.memory_stats() or {}
        if device.platform == "cpu" or "bytes_limit" not in statistics:
            return None
        limit, used = statistics["bytes_limit"], statistics["bytes_in_use"]
        # The allocator's pool can grow to the limit if it does not hold all memory yet.
        pool = statistics.get("pool_bytes", limit)
        largest = statistics.get("largest_free_block_bytes", limit) + limit - pool
        found.append(min(limit - used, largest))
    return min(found)
