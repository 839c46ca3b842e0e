"""Process reward model (PRM): the policy with a scalar head, trained on pairs (Bradley-Terry)."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import jax
import numpy as np
from jax.sharding import PartitionSpec

from stair_jax.data.examples import describe
from stair_jax.data.mixtures import Reader, check_mixing, draw
from stair_jax.data.pairs import (
    check_token_ids,
    describe_left_out,
    encode_pairs,
    path_examples,
    read_pairs,
)
from stair_jax.data.records import PathPair, Record
from stair_jax.errors import UserError
from stair_jax.models.config import ModelConfig
from stair_jax.models.heads import init_score_head
from stair_jax.models.lora import ROWS
from stair_jax.models.transformer import Params, logical_axes
from stair_jax.monitoring import say
from stair_jax.planning.abstract import abstract_prm
from stair_jax.planning.figures import total_of
from stair_jax.planning.needs import DataSize, Work
from stair_jax.planning.program import Program
from stair_jax.planning.training import ANY_EXAMPLE, forward_pass
from stair_jax.run.context import StageContext
from stair_jax.run.stage import Artifact, names_of, stage_input
from stair_jax.settings import setting
from stair_jax.stages.observed_stage import ObservedStage
from stair_jax.stages.training_samples import PairSamples, path_sample
from stair_jax.stages.training_stage import Setup, TrainingData
from stair_jax.storage import write_json
from stair_jax.text.tokenizer import Tokenizer
from stair_jax.training.batches import Batch, Batches, Group
from stair_jax.training.forward_pass import for_each_group, sequence_scores
from stair_jax.training.objectives import PrmObjective


@dataclass(frozen=True)
class HeldOut:
    """Pairs of the prompts that are kept for validation, and the number of these prompts."""

    groups: Sequence[Group]
    num_prompts: int


@dataclass(frozen=True)
class Prm(ObservedStage):
    """Settings of `prm`, beside those of all training and of what is observed.

    Attributes:
      model: the stage whose `hf/` gets a scalar head.
      preferences: the stages that hold `file`; the pairs of all are taken.
      file: JSON lines, the PRM pairs of docs/architecture.md.
      held_out: share of the prompts whose pairs are kept for `validation.json`, and for "eval/loss"
        and so on if `eval_every` is set; drawn by the seed.
      rates: relative rate of each kind of pair, {"safety": ..., "helpfulness": ...}; None: whole
        passes over the pairs. With rates, an epoch is as many draws as there are pairs.
      reader: of the rates, "seqio" or "datasets" (which needs no TensorFlow).
    """

    # 2: where pairs are texts, an output block ends an answer without an end token, as in samples;
    # the chat template of `hf/` ends an answer there too.
    VERSION: ClassVar[int] = 2
    STEP: ClassVar[str] = "PRM step"
    SHOWN: ClassVar[tuple[str, ...]] = ("loss", "accuracy")
    LOGITS: ClassVar[bool] = False

    model: str = stage_input(Artifact.MODEL)
    preferences: str | tuple[str, ...] = stage_input(Artifact.PATH_PAIRS, file="file", many=True)
    file: str = "prm.jsonl"
    held_out: float = setting(0.05, least=0, below=1)
    rates: Mapping[str, float] | None = None
    reader: Reader = "seqio"
    batch_size: int = setting(256, least=1, most=2**24)
    learning_rate: float = setting(5e-6, above=0)

    def __post_init__(self) -> None:
        """Raises a UserError that names a setting that cannot be."""
        super().__post_init__()
        check_mixing(self.rates, self.reader)

    @property
    def least_rows(self) -> int:
        """Both sides of a pair."""
        return 2

    def objective(self, config: ModelConfig) -> PrmObjective:
        """The Bradley-Terry loss of a pair of paths."""
        return PrmObjective(config)

    def axes(self, config: ModelConfig) -> Params:
        """Those of the model without its vocabulary head, and of the scalar head."""
        return prm_axes(config)

    def trainable(self, params: Params, config: ModelConfig, seed: int) -> Params:
        """The model without its vocabulary head, and a fresh scalar head."""
        model = {name: params[name] for name in prm_axes(config)["model"]}
        return {"model": model, "score": init_score_head(config, jax.random.key(seed))}

    def abstract_trainable(self, setup: Setup) -> Params:
        """Shapes of the same."""
        return abstract_prm(setup.config, prm_axes(setup.config), setup.mesh)

    def read_data(
        self, context: StageContext, setup: Setup, params: Params, tokenizer: Tokenizer
    ) -> TrainingData:
        """The pairs in the order of training, and those that are held out."""
        folders = context.input_list("preferences")
        rows: list[PathPair] = []
        for path in (folder / self.file for folder in folders):
            read = read_pairs(path, PathPair)
            check_token_ids(read, setup.config.vocab_size, path)
            rows += read
        counts: Counter[str] = Counter()
        kept, pairs = encode_pairs(rows, path_examples, tokenizer, self.max_length, counts)
        groups = [Group(row.id, pair) for row, pair in zip(kept, pairs, strict=True)]
        held = held_out_prompts(kept, self.held_out, context.seed)
        numbers = [index for index, row in enumerate(kept) if row.prompt not in held]
        training = [groups[index] for index in numbers]
        validation = [groups[i] for i, row in enumerate(kept) if row.prompt in held]
        if not training:
            raise UserError(
                f"{len(rows)} pairs in {self.file}, none to train on within max_length "
                f"{self.max_length} ({describe_left_out(counts)}): lower prm.v0 of the "
                "preferences stage, or search more prompts"
            )
        say(
            f"{context.name}: {len(training)} pairs, {len(validation)} of {len(held)} prompts held "
            f"out, {describe_left_out(counts)}"
        )
        first = describe(tokenizer, pairs[0][0])
        say(f"{context.name}: first chosen path between ⟦...⟧: {first!r}")
        order = draw(
            [kept[index] for index in numbers],
            self.rates,
            max(1, round(self.epochs * len(training))),
            context.seed,
            self.reader,
            self.file,
        )
        ordered = [training[index] for index in order]
        batches = self._batches(ordered, setup.part, len(training))
        evaluated = None
        if self.eval_every and validation:
            evaluated = self._batches(validation, setup.part)
        shown = [i for i, row in enumerate(kept) if row.prompt in held] or numbers
        sample = PairSamples(
            [kept[i] for i in shown], [groups[i] for i in shown], path_sample, self._measure(setup)
        )
        return TrainingData(
            batches, held_out=evaluated, sample=sample, aside=HeldOut(validation, len(held))
        )

    def _measure(self, setup: Setup) -> Callable[[Group, PathPair, Params], np.ndarray]:
        """Scores `[2]` of both paths of a pair."""

        def measure(group: Group, row: PathPair, params: Params) -> np.ndarray:
            function = partial(sequence_scores, setup.config, params)
            return for_each_group(function, self._batches([group], setup.part), setup.mesh)[0]

        return measure

    def any_batch(self, setup: Setup) -> Batch:
        """A batch of one pair, of the shapes that training has."""
        return self._batches([Group("", (ANY_EXAMPLE, ANY_EXAMPLE))])[0]

    def data_size(self, work: Work) -> DataSize:
        """The pairs of all epochs, both sides in full."""
        amounts = work.amounts
        each = amounts.prompts * amounts.pairs
        pairs = total_of(work.rows_of(name, self.file, each) for name in names_of(self.preferences))
        length = 2.0 * (amounts.path_tokens + amounts.step_tokens)
        text = f"{pairs.text} pairs x {self.epochs:g} epochs"
        return DataSize(pairs * self.epochs, pairs, length, 0.0, 0.0, text)

    def forward_programs(self, setup: Setup) -> list[Program]:
        """The scores of the held-out pairs, and their loss."""
        if not self.held_out and not self.samples_every:
            return []
        params = self.abstract_trainable(setup)
        validation = forward_pass(
            "PRM validation",
            setup.config,
            sequence_scores,
            (setup.config, params),
            params["model"],
            self.any_batch(setup),
            setup.mesh,
            head=False,
        )
        return [validation, *([self.evaluation_program(setup)] if self.eval_every else [])]

    def makes(self) -> Mapping[str, Artifact]:
        """A reward model."""
        return {"hf": Artifact.REWARD_MODEL}

    def finish(
        self,
        context: StageContext,
        setup: Setup,
        trained: Params,
        tokenizer: Tokenizer,
        data: TrainingData,
    ) -> None:
        """Writes `validation.json` and `hf/`."""
        self._validate(context, setup, trained, data.aside)
        self.export(context.folder, setup, trained["model"], tokenizer, trained["score"])

    def _validate(
        self, context: StageContext, setup: Setup, params: Params, held_out: HeldOut
    ) -> None:
        """Writes how often the chosen path of a held-out prompt has the higher score."""
        accuracy = None
        if held_out.groups:
            function = partial(sequence_scores, setup.config, params)
            batches = self._batches(held_out.groups, setup.part)
            scores = for_each_group(function, batches, setup.mesh)
            scores = np.where(np.isfinite(scores), scores, -np.inf)  # no score is the lowest
            accuracy = float(np.mean(scores[:, 0] > scores[:, 1]))
            pairs = f"{len(held_out.groups)} held-out pairs"
            say(f"{context.name}: accuracy {accuracy:.3f} on {pairs}")
        write_json(
            context.folder / "validation.json",
            {
                "pairs": len(held_out.groups),
                "prompts": held_out.num_prompts,
                "accuracy": accuracy,
            },
        )

    def _batches(
        self, groups: Sequence[Group], part: slice | None = None, pass_size: int | None = None
    ) -> Batches:
        return Batches(
            groups,
            self.batch_size,
            self.max_length,
            self.microbatch_rows,
            part,
            pass_size,
            row_sequences=self.row_sequences,
        )


def prm_axes(config: ModelConfig) -> Params:
    """Logical axes of {"model": ..., "score": ...}; an untied vocabulary head plays no part."""
    unused = ("head", "head" + ROWS)
    model = {name: axes for name, axes in logical_axes(config).items() if name not in unused}
    return {"model": model, "score": {"kernel": PartitionSpec("embed")}}


def held_out_prompts(rows: Sequence[Record], share: float, seed: int) -> set[str]:
    """A random `share` of the prompts (rounded down); the same for the same rows and seed."""
    prompts = sorted({row.prompt for row in rows})
    order = np.random.default_rng(seed).permutation(len(prompts))
    return {prompts[index] for index in order[: int(share * len(prompts))]}
