"""Text samples of the stages that train: answers of the model, pairs with what it says of them.

Which rows are shown depends on the number of the sample alone, so that a run that was interrupted
shows the same ones; held-out rows come first, where there are any.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import jax
import numpy as np
from jax.sharding import Mesh

from stair_jax.data.examples import start_ids
from stair_jax.data.records import PathPair, SftRow, StepPair
from stair_jax.models import flops
from stair_jax.models.config import ModelConfig
from stair_jax.models.transformer import Params
from stair_jax.planning import cost
from stair_jax.planning.abstract import abstract
from stair_jax.planning.program import Program
from stair_jax.samples import Sample
from stair_jax.stages.training_stage import Setup
from stair_jax.text.chat import encode_prompt
from stair_jax.text.tokenizer import Tokenizer
from stair_jax.training.answers import continue_greedily, greedy_answers, num_rows
from stair_jax.training.batch_sharding import batch_shardings
from stair_jax.training.batches import Group

COUNT = 2  # answers at a time
_MOST = 64  # rows that take turns
_LONGEST = 512  # tokens of a prompt and its answer


def answer_length(max_length: int) -> int:
    """Tokens of a row in which an answer is sampled."""
    return min(max_length, _LONGEST)


def answer_program(setup: Setup, params: Params, length: int) -> Program:
    """The program that samples answers, as shapes; its FLOPs are those of `length` / 2 tokens."""
    config, mesh = setup.config, setup.mesh
    rows = num_rows(mesh, COUNT)
    arrays = {
        "tokens": np.zeros((rows, length), np.int32),
        "lengths": np.zeros(rows, np.int32),
        "stop": np.zeros(1, np.int32),
    }
    shapes = jax.tree.map(abstract, arrays, batch_shardings(arrays, mesh))
    count = length // 2
    return Program(
        f"sampled answers: {rows} x {length} tokens",
        continue_greedily,
        (config, params, shapes["tokens"], shapes["lengths"], shapes["stop"]),
        mesh,
        count * flops.forward_flops(config, flops.RowShape(rows, length, logits=1)),
        count * cost.weights_traffic(config, params),
    )


@dataclass(frozen=True)
class AnswerSamples:
    """Greedy answers to prompts of an SFT file, beside the file's own.

    Attributes:
      rows: the prompts that take turns, at least one.
      prompts: token ids of each.
      config: of the model.
      tokenizer: of the model.
      length: most tokens of prompt and answer together.
      mesh: the devices.
    """

    rows: Sequence[SftRow]
    prompts: Sequence[Sequence[int]]
    config: ModelConfig
    tokenizer: Tokenizer
    length: int
    mesh: Mesh

    def __call__(self, number: int, params: Params) -> list[Sample]:
        """Sample `number`: the next prompts."""
        count = min(COUNT, len(self.rows))
        chosen = [(number * count + place) % len(self.rows) for place in range(count)]
        answers = greedy_answers(
            self.config,
            params,
            [self.prompts[index] for index in chosen],
            self.length,
            self.tokenizer.stop_ids,
            self.mesh,
        )
        return [
            Sample(
                "answer",
                {
                    "prompt": self.rows[index].prompt,
                    **_start_of(self.rows[index]),
                    "answer": self.tokenizer.decode(answer),
                    "reference": self.rows[index].answer,
                },
                {"tokens": len(answer)},
            )
            for index, answer in zip(chosen, answers, strict=True)
        ]


def _start_of(row: SftRow) -> dict[str, str]:
    """What the answer is made to begin with, where it is made to."""
    return {"start": "".join(row.start)} if row.start else {}


def short_prompts(
    rows: Sequence[SftRow], tokenizer: Tokenizer, length: int
) -> tuple[list[SftRow], list[list[int]]]:
    """Of the first rows those whose prompts and starts leave half of `length` for an answer."""
    encoded = [
        (row, [*encode_prompt(tokenizer, row.prompt), *start_ids(tokenizer, row)])
        for row in rows[:_MOST]
    ]
    kept = [(row, ids) for row, ids in encoded if len(ids) <= length // 2]
    return [row for row, _ in kept], [ids for _, ids in kept]


@dataclass(frozen=True)
class PairSamples:
    """Pairs of which one is shown at a time, with both sides and what the model says of them.

    Attributes:
      rows: the pairs that take turns, at least one.
      groups: the same as sequences.
      describe: (row, group, the two values of the model) -> sample.
      measure: (group, row, parameters) -> two values of the model, such as log-probabilities.
    """

    rows: Sequence[StepPair] | Sequence[PathPair]
    groups: Sequence[Group]
    describe: Callable[..., Sample]
    measure: Callable[..., np.ndarray]

    def __call__(self, number: int, params: Params) -> list[Sample]:
        """Sample `number`: the next pair."""
        index = number % min(_MOST, len(self.rows))
        row, group = self.rows[index], self.groups[index]
        return [self.describe(row, group, self.measure(group, row, params))]


def step_sample(
    beta: float, is_mean: bool, row: StepPair, group: Group, logps: np.ndarray
) -> Sample:
    """A DPO pair: the implicit rewards of both steps, and the values that the search gave them.

    Args:
      beta: of the DPO loss.
      is_mean: whether its log-ratios are means over the tokens of a step, and not sums.
      row: the pair.
      group: the pair with its log-probabilities under the reference.
      logps: `[2]`, those under the policy.
    """
    reference = group.values["ref_chosen"], group.values["ref_rejected"]
    chosen, rejected = (
        beta * (float(new) - old) / (max(example.num_counted, 1) if is_mean else 1)
        for example, new, old in zip(group.examples, logps, reference, strict=True)
    )
    return Sample(
        "pair",
        {
            "prompt": row.prompt,
            "path": "".join(row.path),
            "chosen": row.chosen,
            "rejected": row.rejected,
        },
        {
            "chosen_reward": chosen,
            "rejected_reward": rejected,
            "margin": chosen - rejected,
            "chosen_value": row.chosen_value,
            "rejected_value": row.rejected_value,
        },
    )


def path_sample(row: PathPair, group: Group, scores: np.ndarray) -> Sample:
    """A PRM pair: the scores `[2]` of both paths, and the values that the search gave them."""
    chosen, rejected = map(float, scores)
    return Sample(
        "pair",
        {
            "prompt": row.prompt,
            "chosen": "".join(row.chosen_path),
            "rejected": "".join(row.rejected_path),
        },
        {
            "chosen_score": chosen,
            "rejected_score": rejected,
            "margin": chosen - rejected,
            "chosen_value": row.chosen_value,
            "rejected_value": row.rejected_value,
        },
    )
