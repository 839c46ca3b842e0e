"""Inference programs of a plan: the rollout engine's, PRM scoring, and the tree search round."""

from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from stair_jax.decoding import programs
from stair_jax.decoding.engine_config import EngineConfig
from stair_jax.decoding.slots import WIDTH
from stair_jax.inference.scorers import PrmScorer, prm_scores
from stair_jax.models import flops
from stair_jax.models.config import ModelConfig
from stair_jax.models.paged.backends import get_paged_backend
from stair_jax.models.serving.fused_adapters import fuse_model
from stair_jax.models.serving.fused_params import fused_axes
from stair_jax.models.transformer import init_params
from stair_jax.parallel.chips import device_chip
from stair_jax.planning import cost
from stair_jax.planning.abstract import Place, abstract, on_place, rows_on, traced_for
from stair_jax.planning.program import Program
from stair_jax.search import kernel
from stair_jax.search.tree import Delivery, SearchConfig


@dataclass(frozen=True)
class EnginePlan:
    """Abstract counterpart of `decoding.engine.Engine`: shapes instead of arrays.

    Attributes:
      config: of the model, fitted to the place.
      place: a mesh or a single device.
      engine_config: sizes of the engine, resolved by `plan_engine_config`.
    """

    config: ModelConfig
    place: Place
    engine_config: EngineConfig

    @cached_property
    def fused_params(self) -> Any:
        """The weights, as shapes."""
        return abstract_fused_params(self.config, self.engine_config, self.place)

    @cached_property
    def state(self) -> programs.State:
        """Slots and KV cache, as shapes."""
        sizes = self.engine_config
        pages = sizes.num_shards * sizes.num_pages
        with traced_for(self.place):
            shapes = jax.eval_shape(
                partial(
                    programs.empty_state,
                    self.config,
                    sizes.attention,
                    sizes.num_slots,
                    pages,
                    sizes.page_size,
                    sizes.kv_dtype,
                    sizes.num_adapters > 0,
                )
            )
        return on_place(shapes, programs.state_axes(self.config, shapes), self.place)

    @property
    def resident(self) -> Any:
        """Everything that the engine keeps on the devices, as shapes: weights, slots, cache."""
        return self.fused_params, self.state

    def programs(self, beside: Any = ()) -> list[Program]:
        """The worst case of each device program: page copies, the largest prefill, full decoding.

        Args:
          beside: shapes of other arrays that are on the devices at the same time.
        """
        return [self._copy(beside), self._prefill(beside), self._decode(beside)]

    def _copy(self, beside: Any) -> Program:
        sizes = self.engine_config
        count = sizes.num_shards * sizes.max_copies
        numbers = np.zeros(count, np.int32)
        page = sizes.token_bytes(self.config, self.place) * sizes.page_size
        return Program(
            f"copy: {count} pages of {sizes.page_size} tokens",
            programs.get_programs(sizes.platform).copy_pages,
            (
                self.config,
                sizes.attention,
                sizes.num_pages,
                self.state,
                *rows_on(self.place, (numbers, numbers)),
            ),
            self.place,
            0,
            2 * sizes.max_copies * page,  # read and written
            (self.fused_params, beside),
        )

    def _prefill(self, beside: Any) -> Program:
        sizes = self.engine_config
        count, length = sizes.num_shards * sizes.prefill_sizes[0], sizes.prefill_width
        arrays = tuple(
            np.zeros((count, width), np.int32)
            for width in (length, sizes.span_width, sizes.table_width)
        )
        written = count * length * sizes.token_bytes(self.config, self.place)
        weights = cost.fused_traffic(self.config, self.fused_params, head=False)
        return Program(
            f"prefill: {count} x {length} tokens",
            programs.get_programs(sizes.platform).prefill,
            (
                self.config,
                sizes.attention,
                self.fused_params,
                self.state,
                *rows_on(self.place, arrays),
            ),
            self.place,
            flops.forward_flops(self.config, flops.RowShape(count, length)),
            weights + written // sizes.num_shards,  # keys and values of this device's rows
            beside,
        )

    def _decode(self, beside: Any) -> Program:
        sizes, steps = self.engine_config, self.engine_config.steps_per_call
        line = sizes.num_shards * sizes.shard_sizes().lookahead
        arrays = tuple(
            np.zeros((count, width), np.int32)
            for count in (sizes.num_slots, line)
            for width in (WIDTH, sizes.table_width)
        )
        slots = sizes.num_slots // sizes.num_shards
        cache = slots * sizes.max_length * sizes.token_bytes(self.config, self.place)
        return Program(
            f"decode: {sizes.num_slots} slots x {steps} tokens, {sizes.max_length} of context",
            programs.get_programs(sizes.platform).decode,
            (
                self.config,
                sizes.attention,
                steps,
                sizes.decode_mode,
                self.fused_params,
                self.state,
                *rows_on(self.place, arrays),
            ),
            self.place,
            flops.decode_flops(self.config, sizes.num_slots, sizes.max_length, steps),
            steps
            * (cost.fused_traffic(self.config, self.fused_params) + cache),  # all of it per step
            beside,
        )


def plan_engine_config(
    config: ModelConfig,
    engine_config: EngineConfig,
    place: Place,
    beside: Any = (),
    memory: float | None = None,
) -> EngineConfig:
    """Resolves the sizes of an engine as it would do itself on such devices.

    Args:
      config: of the model.
      engine_config: sizes as configured.
      place: the devices.
      beside: shapes of arrays that are on the devices before the engine is made; the cache gets the
        memory that they and the weights leave.
      memory: bytes per device; None: that of the data sheet.

    Raises:
      UserError: the sizes cannot be split over the mesh, or the cache would be too small.
    """
    count = int(config.lora is not None)
    engine_config = replace(engine_config, num_adapters=count).resolve(config, place)
    device = place.devices.flat[0] if isinstance(place, Mesh) else place
    fused = abstract_fused_params(config, engine_config, place)
    memory = device_chip(device).memory if memory is None else memory
    free = memory - cost.local_bytes((fused, beside))
    return engine_config.with_pages(config, place, int(min(free, 2**60)))  # `free` may be inf


def abstract_fused_params(config: ModelConfig, engine_config: EngineConfig, place: Place) -> Any:
    """The weights of an engine (fused, perhaps quantized), as shapes."""
    stacked = get_paged_backend(engine_config.attention).stacked
    params = jax.eval_shape(partial(init_params, config), jax.random.key(0))
    fused = jax.eval_shape(
        partial(fuse_model, config, weights=engine_config.weights, stacked=stacked), params
    )
    return on_place(fused, fused_axes(config, fused), place)


def prm_score(
    config: ModelConfig, params: Any, scorer: PrmScorer, length: int, place: Place, beside: Any
) -> Program:
    """PRM scoring of sequences of up to `length` tokens, at the scorer's shapes.

    Args:
      config: of the model.
      params: {"model": ..., "score": ...}, as shapes.
      scorer: a scorer with these parameters.
      length: tokens of the longest sequence.
      place: the devices.
      beside: shapes of other arrays that are there at the same time.
    """
    count, padded = scorer.rows, scorer.bucket(length)
    arrays = (np.zeros((count, padded), np.int32), np.zeros(count, np.int32))
    return Program(
        f"PRM score: {count} x {padded} tokens",
        prm_scores,
        (config, params, *rows_on(place, arrays)),
        place,
        flops.forward_flops(config, flops.RowShape(count, padded)),
        cost.weights_traffic(config, params["model"], head=False),
        beside,
    )


def tree_round(config: SearchConfig, batch: int, device: jax.Device, beside: Any) -> Program:
    """One round of the tree search for `batch` trees, on one device.

    Only its memory is of interest: it has no matrix products, and its traffic is not estimated.

    Args:
      config: of the search.
      batch: number of tree slots.
      device: that holds the trees.
      beside: shapes of what the engine keeps there.
    """
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), batch))
    shapes = jax.eval_shape(partial(kernel.init, config), keys)
    trees = on_place(shapes, None, device)
    delivery = Delivery.empty(config, batch)
    return Program(
        f"tree round: {batch} trees of {config.num_nodes} nodes",
        kernel.advance,
        (config, trees, abstract(delivery)),
        device,
        0,
        0,
        beside,
    )
