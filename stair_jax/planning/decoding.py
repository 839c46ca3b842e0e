"""Programs of decoding: the engine's three, a reward model's scores, the rounds of the trees."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import numpy as np

from stair_jax.decoding import programs
from stair_jax.decoding.engine import FAN_OUT, score_width
from stair_jax.inference.scorers import PrmScorer, prm_scores
from stair_jax.models.config import ModelConfig
from stair_jax.planning import cost
from stair_jax.planning.abstract import (
    Place,
    abstract,
    abstract_params,
    on_place,
    rows_on,
    whole_on,
)
from stair_jax.planning.program import Program
from stair_jax.search import tree
from stair_jax.search.tree_data import Delivery, SearchConfig
from stair_jax.search.verdict import LABELS


@dataclass(frozen=True)
class EnginePlan:
    """An engine that need not exist, see `decoding.engine.Engine`.

    Attributes:
      config: of the model, laid out on the place.
      place: the mesh, or the one device.
      num_slots: as of the engine, and so the next three.
      max_length: prompts are planned at this length, too: it is the largest bucket.
      prefill_rows: see above.
      steps_per_call: see above.
    """

    config: ModelConfig
    place: Place
    num_slots: int
    max_length: int
    prefill_rows: int
    steps_per_call: int

    @property
    def params(self) -> Any:
        """Shapes of the weights."""
        return abstract_params(self.config, self.place)

    def slots(self, count: int, length: int) -> programs.Slots:
        """Shapes of `count` slots with room for `length` tokens."""
        shapes = jax.eval_shape(partial(programs.empty_slots, self.config, count, length))
        return on_place(shapes, programs.slot_axes(self.config, shapes), self.place)

    @property
    def resident(self) -> Any:
        """Shapes of what the engine holds all the time: weights and slots."""
        return self.params, self.slots(self.num_slots, self.max_length)

    def programs(self, scores: bool, beside: Any = ()) -> list[Program]:
        """Prefill of the longest prompts, decoding with a full cache, and perhaps scoring.

        Args:
          scores: whether the next token is scored as well (`judge.mode` "expected").
          beside: shapes of what is kept on the devices besides the engine.
        """
        planned = [self._prefill(beside), self._decode(beside)]
        return [*planned, self._score(beside)] if scores else planned

    def _prefill(self, beside: Any) -> Program:
        count, length = min(self.prefill_rows, self.num_slots), self.max_length
        size = FAN_OUT * count
        numbers = np.zeros(size, np.int32)
        rows = jax.eval_shape(partial(programs.empty_slots, self.config, size, 1)).rows
        params, written = self.params, self.slots(count, length).cache
        # The vocabulary head plays no part: it is there, but no argument of what is compiled.
        head = params.get("head", ())
        return Program(
            f"prefill: {count} x {length} tokens",
            programs.admit,
            (
                self.config,
                params,
                self.slots(self.num_slots, length),
                rows_on(self.place, np.zeros((count, length), np.int32)),
                *whole_on(self.place, (rows, numbers, numbers)),
            ),
            self.place,
            cost.forward_flops(self.config, cost.Rows(count, length)),
            cost.weights_traffic(self.config, params, head=False) + cost.local_bytes(written),
            (head, beside),
        )

    def _decode(self, beside: Any) -> Program:
        slots, steps = self.slots(self.num_slots, self.max_length), self.steps_per_call
        traffic = cost.weights_traffic(self.config, self.params) + cost.local_bytes(slots.cache)
        return Program(
            f"decode: {self.num_slots} slots x {steps} tokens, {self.max_length} of context",
            programs.decode,
            (self.config, steps, self.params, slots, whole_on(self.place, np.int32(0))),
            self.place,
            cost.decode_flops(self.config, self.num_slots, self.max_length, steps),
            steps * traffic,
            beside,
        )

    def _score(self, beside: Any) -> Program:
        count, length = min(self.prefill_rows, self.num_slots), self.max_length
        width = score_width(max(map(len, LABELS.values())))
        shapes = ((count, length), (count,), (count, width))
        arrays = rows_on(self.place, tuple(np.zeros(shape, np.int32) for shape in shapes))
        return Program(
            f"score: {count} x {length} tokens",
            programs.score,
            (self.config, self.params, *arrays),
            self.place,
            cost.forward_flops(self.config, cost.Rows(count, length, logits=1)),
            cost.weights_traffic(self.config, self.params),
            (beside, self.slots(self.num_slots, length)),
        )


def prm_score(
    config: ModelConfig, params: Any, scorer: PrmScorer, length: int, place: Place, beside: Any
) -> Program:
    """Scores of `length` tokens by a process reward model, at the scorer's shapes.

    Args:
      config: of the model.
      params: shapes of {"model": ..., "score": ...}.
      scorer: over them.
      length: tokens of the longest sequence.
      place: the devices.
      beside: shapes of what is kept there besides.
    """
    count, padded = scorer.rows, scorer.bucket(length)
    arrays = (np.zeros((count, padded), np.int32), np.zeros(count, np.int32))
    return Program(
        f"PRM score: {count} x {padded} tokens",
        prm_scores,
        (config, params, *rows_on(place, arrays)),
        place,
        cost.forward_flops(config, cost.Rows(count, padded)),
        cost.weights_traffic(config, params["model"], head=False),
        beside,
    )


def tree_round(config: SearchConfig, batch: int, device: jax.Device, beside: Any) -> Program:
    """A round of `batch` trees, on one device; it walks paths, and its cost is not bounded here.

    Args:
      config: of the search.
      batch: trees in flight.
      device: that holds the trees.
      beside: shapes of what the engine holds there.
    """
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), batch))
    shapes = jax.eval_shape(partial(tree.init, config), keys)
    trees = on_place(shapes, None, device)
    delivery = Delivery.empty(config, batch)
    return Program(
        f"tree round: {batch} trees of {config.num_nodes} nodes",
        tree.advance,
        (config, trees, abstract(delivery)),
        device,
        0,
        0,
        beside,
    )
