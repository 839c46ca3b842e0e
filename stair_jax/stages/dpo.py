"""Step-level direct preference optimization (DPO), with an SFT term on the chosen side.

Pairs with an empty path and whole answers on both sides give plain DPO on full trajectories.
"""

import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal

import numpy as np

from stair_jax.data.examples import describe
from stair_jax.data.held_out import check_amount, split_held_out
from stair_jax.data.mixtures import Reader, check_mixing, draw
from stair_jax.data.packing import Example
from stair_jax.data.pairs import (
    Pair,
    SftOn,
    describe_left_out,
    encode_pairs,
    step_examples,
)
from stair_jax.data.records import KINDS, StepPair
from stair_jax.data.shuffling import TOGETHER, group_keys, prompt_of
from stair_jax.errors import UserError
from stair_jax.models.config import ModelConfig
from stair_jax.models.transformer import Params
from stair_jax.monitoring import say
from stair_jax.planning.abstract import abstract_params
from stair_jax.planning.figures import total_of
from stair_jax.planning.needs import DataSize, Work
from stair_jax.planning.program import Program
from stair_jax.planning.training import ANY_EXAMPLE, forward_pass
from stair_jax.run.context import StageContext
from stair_jax.run.stage import Artifact, names_of, stage_input
from stair_jax.search.pair_outcomes import read_regrets
from stair_jax.settings import setting
from stair_jax.stages.dpo_data import adapted, balanced, check_values, read_step_pairs
from stair_jax.stages.observed_stage import ObservedStage
from stair_jax.stages.training_samples import PairSamples, step_sample
from stair_jax.stages.training_stage import Setup, TrainingData
from stair_jax.storage import fingerprint, fingerprint_folder
from stair_jax.text.tokenizer import Tokenizer
from stair_jax.training.batches import Batch, Batches, Group
from stair_jax.training.forward_pass import cached, for_each_group, sequence_logps
from stair_jax.training.objectives import DpoObjective
from stair_jax.training.pair_loss import VALUE_GAP, PairLossSettings
from stair_jax.training.trie_batches import TrieBatches

# How far step 0 may be from a loss of ln 2 and a margin of 0, by the dtype of the activations:
# the reference comes from another program, which rounds in another order.
_TOLERANCE = {"float32": 1e-3, "bfloat16": 5e-2, "float16": 1e-2}
_ANY_PAIR = StepPair("", "", (), "", "")


@dataclass(frozen=True)
class Dpo(ObservedStage, PairLossSettings):
    """Settings of `dpo`, beside those of all training, of what is observed, and of its loss.

    Attributes:
      model: the stage whose `hf/` is trained; it is the reference too.
      preferences: the stage that holds `file`, or several; the pairs of all are taken.
      file: JSON lines, the preference pairs of docs/architecture.md.
      kinds: of the pairs that are trained on, "safety" or "helpfulness"; empty: all pairs.
      beta: of the DPO loss.
      sft_weight: of the SFT loss on the chosen side: for each pair the mean over its tokens.
      sft_on: these are the tokens of the chosen "step", or of the whole chosen "answer": the path
        and the step.
      layout: "tree": what the pairs of one prompt in one batch begin with alike (prompt, path,
        steps that are chosen in one pair and path of another) goes through the model once; the
        log-probabilities are those of separate sequences but for rounding. "pairs": each side of
        each pair is a sequence of its own.
      row_length: tokens per row, in which several sequences or trees lie one after another; 0:
        `max_length`. A pair whose two sides do not fit into one row together is laid out as two
        sequences, and the pairs of a prompt that do not as several trees: with the layout "tree",
        longer rows share more, at the same `microbatch_rows` for more memory.
      together: what the shuffle keeps together. "pairs": nothing, so that a batch is a random
        draw of pairs. "siblings": the pairs of one prompt and path, so that they share a step.
        "prompts": all pairs of a prompt. A group that does not fit into what is left of a batch is
        cut: each step has `batch_size` pairs, and each pair comes once in each epoch whatever is
        kept together, so the gradients of an epoch add up to the same. But pairs of one prompt pull
        in directions that are alike: a step sees fewer prompts, and its gradient has the noise of
        a smaller batch, of as few as one prompt where its pairs fill the batch; a larger
        `batch_size` makes up for it.
      rates: relative rate of each kind of pair, {"safety": ..., "helpfulness": ...}; None: whole
        passes over the pairs. With rates, an epoch is as many draws as there are pairs.
      balance: "outcome": rates are of what pairs teach, {"refuse": ..., "comply": ..., "neither":
        ...}, by the share of refusals behind their sides; with `rates` None as many pairs teach to
        refuse as to comply. "none": rates are of kinds.
      adaptive_rates: exponent a: the rate of a kind is its rate in `rates`, or 1, times its mean
        regret to the power of a. The regret of a tree is the reward of its best answer less the
        value of its root, what the policy still loses (`regret.json` of `preferences`); 0: off.
      reader: of the rates, "seqio" or "datasets" (which needs no TensorFlow).
      held_out: pairs that are not trained on, and whose loss is measured: a share of the prompts
        below 1, or a number of pairs from 1; 0: none. All pairs of a prompt go together. A hash of
        the prompts chooses them, so that they stay the same when pairs are added.
    """

    STEP: ClassVar[str] = "DPO step"
    SHOWN: ClassVar[tuple[str, ...]] = ("loss", "margin", "accuracy")

    model: str = stage_input(Artifact.MODEL)
    preferences: str | tuple[str, ...] = stage_input(Artifact.STEP_PAIRS, file="file")
    file: str = "dpo.jsonl"
    kinds: tuple[str, ...] = setting((), choices=KINDS, absent=())
    beta: float = setting(0.1, above=0)
    sft_weight: float = setting(0.2, least=0)
    sft_on: SftOn = "step"
    layout: Literal["tree", "pairs"] = setting("tree", cost=True)
    row_length: int = setting(0, least=0, most=2**24, cost=True)
    together: str = setting("siblings", choices=tuple(TOGETHER))
    rates: Mapping[str, float] | None = None
    balance: Literal["none", "outcome"] = setting("none", absent="none")
    adaptive_rates: float = setting(0.0, least=0, most=8, absent=0.0)
    reader: Reader = "seqio"
    held_out: float = setting(0.0, least=0, most=2**24, absent=0.0)

    def __post_init__(self) -> None:
        """Raises a UserError that names a setting that cannot be."""
        super().__post_init__()
        check_amount(self.held_out)
        check_mixing(self.rates, self.reader, "kind" if self.balance == "none" else self.balance)
        if self.adaptive_rates and self.balance != "none":
            raise UserError(
                "adaptive_rates are rates of kinds, balance 'outcome' has those of what pairs "
                "teach: set adaptive_rates to 0, or balance to 'none'"
            )
        if self.row_length and self.row_length < self.max_length:
            raise UserError(
                f"row_length is {self.row_length}: it must be at least max_length "
                f"{self.max_length}, or 0, which means max_length"
            )
        if self.row_sequences and self.layout == "tree":
            raise UserError(
                f"row_sequences is {self.row_sequences}, and rows of trees are not split by it: "
                "set layout to 'pairs', or leave it out"
            )

    @property
    def least_rows(self) -> int:
        """Both sides of a pair, unless a row of a trie holds them."""
        return 1 if self.layout == "tree" and self.row_tokens >= 2 * self.max_length else 2

    @property
    def row_tokens(self) -> int:
        """Tokens of a row of a micro-batch."""
        return self.row_length or self.max_length

    def objective(self, config: ModelConfig) -> DpoObjective:
        """The DPO loss of a pair of steps, and the SFT loss of the chosen side."""
        terms = PairLossSettings(
            **{info.name: getattr(self, info.name) for info in dataclasses.fields(PairLossSettings)}
        )
        return DpoObjective(
            config, self.beta, self.sft_weight, self.logps_chunks, self.sft_on, terms
        )

    def read_data(
        self, context: StageContext, setup: Setup, params: Params, tokenizer: Tokenizer
    ) -> TrainingData:
        """The pairs with their reference log-probs, in the order of training."""
        paths = [folder / self.file for folder in context.input_list("preferences")]
        rows = read_step_pairs(context.name, paths, self.kinds, setup.config.vocab_size)
        counts: Counter[str] = Counter()
        encode = partial(step_examples, sft_on=self.sft_on)
        kept, pairs = encode_pairs(rows, encode, tokenizer, self.max_length, counts)
        if not pairs:
            raise UserError(
                f"{' and '.join(map(str, paths))}: {len(rows)} pairs, none to train on within "
                f"max_length {self.max_length} ({describe_left_out(counts)}): "
                "lower the thresholds of the preferences stage (stair-jax show says what others "
                "would give), or search more prompts"
            )
        say(f"{context.name}: {len(pairs)} pairs, {describe_left_out(counts)}")
        first = describe(tokenizer, pairs[0][0])
        say(f"{context.name}: first chosen step between ⟦...⟧: {first!r}")
        reference = _reference(context, self, setup, params, kept, pairs)
        if self.value_margin:
            check_values(context.name, self.value_margin, kept)
        groups = [
            Group(row.id, pair, self._values(row, float(chosen), float(rejected)))
            for row, pair, (chosen, rejected) in zip(kept, pairs, reference, strict=True)
        ]
        split = split_held_out([row.prompt for row in kept], self.held_out)
        rows, groups_of = [kept[i] for i in split.training], [groups[i] for i in split.training]
        order = training_order(rows, self, context.seed, *self._rates(context, rows))
        batches = lay_out(
            [groups_of[index] for index in order],
            [rows[index] for index in order],
            self,
            setup.part,
            len(rows),
        )
        evaluated = None
        shown = rows, groups_of
        if split.held_out:
            say(f"{context.name}: {len(split.held_out)} pairs held out, {len(rows)} to train on")
            shown = [kept[i] for i in split.held_out], [groups[i] for i in split.held_out]
            evaluated = lay_out(shown[1], shown[0], self, setup.part)
        return TrainingData(
            batches,
            partial(check_first_step, tolerance=_TOLERANCE[self.dtype]),
            evaluated,
            PairSamples(
                *shown, partial(step_sample, self.beta, self.length_normalize), self._measure(setup)
            ),
        )

    def _rates(
        self, context: StageContext, rows: Sequence[StepPair]
    ) -> tuple[Mapping[str, float] | None, Sequence[str] | None]:
        """The rates at which pairs are drawn, and what of each pair they name (None: its kind)."""
        if self.balance == "outcome":
            labels, rates = balanced(context.name, rows, self.rates)
            return rates, labels
        if self.adaptive_rates:
            regrets = read_regrets(context.input_list("preferences"))
            return adapted(context.name, rows, self.rates, self.adaptive_rates, regrets), None
        return self.rates, None

    def _values(self, row: StepPair, chosen: float, rejected: float) -> dict[str, float]:
        """What the loss is told of a pair beside its sequences: log-probs under the reference."""
        values = {"ref_chosen": chosen, "ref_rejected": rejected}
        return values | ({VALUE_GAP: row.value_gap or 0.0} if self.value_margin else {})

    def _measure(self, setup: Setup) -> Callable[[Group, StepPair, Params], np.ndarray]:
        """Log-probabilities `[2]` of both steps of a pair, by the program of the reference."""

        def measure(group: Group, row: StepPair, params: Params) -> np.ndarray:
            batches = lay_out(
                [Group(group.id, group.examples)], [row], _without_sft(self), setup.part
            )
            function = partial(sequence_logps, setup.config, self.logps_chunks, params)
            return for_each_group(function, batches, setup.mesh)[0]

        return measure

    def any_batch(self, setup: Setup) -> Batch:
        """A batch of one pair, of the shapes that training has."""
        values = self._values(_ANY_PAIR, 0.0, 0.0)
        return lay_out([Group("", (ANY_EXAMPLE, ANY_EXAMPLE), values)], [_ANY_PAIR], self)[0]

    def data_size(self, work: Work) -> DataSize:
        """The pairs of all epochs, and the pass of the reference over each once."""
        amounts = work.amounts
        each = amounts.prompts * amounts.pairs
        pairs = total_of(work.rows_of(name, self.file, each) for name in names_of(self.preferences))
        path, step = amounts.path_tokens, amounts.step_tokens
        length = path + 2 * step if self.layout == "tree" else 2 * (path + step)
        text = f"{pairs.text} pairs x {self.epochs:g} epochs"
        return DataSize(pairs * self.epochs, pairs, length, 2.0 * step, 1.0, text)

    def forward_programs(self, setup: Setup) -> list[Program]:
        """The pass of the reference, and the loss of held-out pairs."""
        params = abstract_params(setup.config, setup.mesh)
        pair = Group("", (ANY_EXAMPLE, ANY_EXAMPLE))
        batch = lay_out([pair], [_ANY_PAIR], _without_sft(self))[0]
        reference = forward_pass(
            "DPO reference",
            setup.config,
            sequence_logps,
            (setup.config, self.logps_chunks, params),
            params,
            batch,
            setup.mesh,
        )
        return [reference, *([self.evaluation_program(setup)] if self.held_out else [])]


def training_order(
    rows: Sequence[StepPair],
    settings: Dpo,
    seed: int,
    rates: Mapping[str, float] | None = None,
    labels: Sequence[str] | None = None,
) -> list[int]:
    """Numbers of the pairs in the order in which training takes them; see `draw`."""
    num_pairs = max(1, round(settings.epochs * len(rows)))
    keys = group_keys(rows, settings.together)
    return draw(rows, rates, num_pairs, seed, settings.reader, settings.file, keys, labels)


def lay_out(
    groups: Sequence[Group],
    rows: Sequence[StepPair],
    settings: Dpo,
    part: slice | None = None,
    pass_size: int | None = None,
) -> Batches:
    """Batches of pairs in the order given, in the layout of the settings.

    Args:
      groups: (chosen, rejected) of each pair.
      rows: the pairs themselves, for their prompts.
      settings: sizes and layout.
      part: rows of a micro-batch that are made here; None: all.
      pass_size: pairs of one epoch; None: all of them.
    """
    size, length = settings.batch_size, settings.row_length or settings.max_length
    whole = settings.sft_on == "answer"
    if settings.layout == "pairs":
        most = settings.row_sequences
        return Batches(groups, size, length, settings.microbatch_rows, part, pass_size, whole, most)
    return TrieBatches(
        groups,
        [prompt_of(row) for row in rows],
        size,
        length,
        settings.microbatch_rows,
        settings.max_length,
        part,
        pass_size,
        whole,
    )


def check_first_step(step: int, values: Mapping[str, float], tolerance: float) -> None:
    """Checks that the policy still is the reference at step 0: loss ln 2, margin 0.

    Where an offset is added to the margin, `loss_at_reference` says which loss that is.

    Raises:
      RuntimeError: it is not; the reference is of another model or of other data.
    """
    if step > 0:
        return
    wanted = values.get("loss_at_reference", math.log(2))
    off = max(abs(values["dpo_loss"] - wanted), abs(values["margin"]))
    if not off <= tolerance:
        raise RuntimeError(
            f"step 0 of DPO has the loss {values['dpo_loss']:.6f} (not {wanted:.6f}) and the "
            f"margin {values['margin']:.6f} (not 0): the reference is not the model in training"
        )


def _identity(example: Example) -> tuple[list[int], int]:
    return list(example.tokens), example.num_counted


def _base_weights(settings: Dpo) -> dict[str, str]:
    """What tells references of quantized bases apart; nothing of a plain one."""
    kind = settings.lora.base_weights
    return {} if kind == "none" else {"base_weights": kind}


def _without_sft(settings: Dpo) -> Dpo:
    """The settings of the reference pass, which has no SFT term."""
    return dataclasses.replace(settings, sft_on="step")


def _reference(
    context: StageContext,
    settings: Dpo,
    setup: Setup,
    params: Params,
    rows: Sequence[StepPair],
    pairs: Sequence[Pair],
) -> np.ndarray:
    """Log-probabilities `[pairs, 2]` of the chosen and rejected steps under the input model."""
    key = fingerprint(
        {
            "model": fingerprint_folder(context.input("model") / "hf"),
            "dtype": settings.dtype,
            "data": [[_identity(example) for example in pair] for pair in pairs],
            **_base_weights(settings),
        }
    )

    def compute() -> np.ndarray:
        order = list(range(len(pairs)))
        if settings.layout == "tree":
            first: dict[Hashable, int] = {}
            order.sort(key=lambda index: first.setdefault(prompt_of(rows[index]), index))
        batches = lay_out(
            [Group("", pairs[index]) for index in order],
            [rows[index] for index in order],
            _without_sft(settings),
            setup.part,
        )
        function = partial(sequence_logps, setup.config, settings.logps_chunks, params)
        return for_each_group(function, batches, setup.mesh)[np.argsort(order)]

    return cached(context.folder / "reference.npz", key, compute)
