"""Supervised fine-tuning (SFT) on prompts with structured answers: cross entropy of the answer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from stair_jax.data.examples import answer_example, describe
from stair_jax.data.held_out import check_amount, split_held_out
from stair_jax.data.mixtures import RatesBy, Reader, check_mixing, mix, mix_in
from stair_jax.data.packing import Example
from stair_jax.data.prompts import read_rows
from stair_jax.data.records import SftRow
from stair_jax.data.tokenized import TokenizedRows
from stair_jax.errors import UserError
from stair_jax.models.config import ModelConfig
from stair_jax.models.transformer import Params
from stair_jax.monitoring import say
from stair_jax.planning.figures import total_of
from stair_jax.planning.needs import DataSize, Work
from stair_jax.planning.program import Program
from stair_jax.planning.training import ANY_EXAMPLE
from stair_jax.run.context import StageContext
from stair_jax.run.stage import Artifact, names_of, stage_input
from stair_jax.search.judging.replay import judgement_examples
from stair_jax.settings import setting
from stair_jax.stages.observed_stage import ObservedStage
from stair_jax.stages.training_samples import (
    AnswerSamples,
    answer_length,
    answer_program,
    short_prompts,
)
from stair_jax.stages.training_stage import Setup, TrainingData
from stair_jax.text.steps import FormatError, breaks_output, parse
from stair_jax.text.tokenizer import Tokenizer
from stair_jax.training.batches import Batch, Batches, Group
from stair_jax.training.objectives import SftObjective

_JUDGEMENTS = "judgements"


@dataclass(frozen=True)
class Sft(ObservedStage):
    """Settings of `sft`, beside those of all training and of what is observed.

    Attributes:
      model: the stage whose `hf/` is trained.
      data: the stage that holds `file`, or several; the rows of all are taken.
      file: JSON lines {id, prompt, answer, kind, source?}, or several such files of each stage.
      rates: relative rate of each kind, {"safety": ..., "helpfulness": ...}; None: whole passes
        over the file as it is. With rates, an epoch is as many draws as the file has lines.
      rates_by: what the rates name: each "kind", or each "source", as in {"CoCoNot contrast": 1,
        "*": 4}, where "*" stands for all sources that are not named. The source of a row is in its
        column of that name; of one that has none it is its stage, or its file (without the ending)
        where `file` names several.
      reader: "seqio" or "datasets" (which needs no TensorFlow).
      answer_format: "structured" refuses an answer that breaks the grammar; "plain" takes any but
        one with a second output block or with text behind its output block.
      overlong: what to do with more than `max_length` tokens: "drop", or "truncate" the end.
      replay: examples of another skill that are mixed in, so that it is not lost: "judgements", the
        examples of the package of how answers are judged, in the wordings "verdict" and "rating"
        (`judge.safety_template`, `judge.helpfulness_template`) and with structured replies; or a
        file of `data` (of the first of several stages) with the columns of `file`, whose answers
        may have any form; empty: none.
      replay_share: of these among all examples.
      held_out: rows that are not trained on, and whose loss is measured: a share of the prompts
        below 1, or a number of rows from 1; 0: none. All rows of a prompt go together. A hash of
        the prompts chooses them, so that they stay the same when rows are added.
    """

    STEP: ClassVar[str] = "SFT step"

    model: str = stage_input(Artifact.MODEL)
    data: str | tuple[str, ...] = stage_input(Artifact.SFT_ROWS, file="file")
    file: str | tuple[str, ...] = "sft.jsonl"
    rates: Mapping[str, float] | None = None
    rates_by: RatesBy = setting("kind", absent="kind")
    reader: Reader = "seqio"
    answer_format: Literal["structured", "plain"] = "structured"
    overlong: Literal["drop", "truncate"] = "drop"
    learning_rate: float = setting(5e-6, above=0)
    epochs: float = setting(3.0, above=0, most=1e6)
    replay: str = ""
    replay_share: float = setting(0.1, above=0, below=1)
    held_out: float = setting(0.0, least=0, most=2**24, absent=0.0)

    def __post_init__(self) -> None:
        """Raises a UserError that names a setting that cannot be."""
        super().__post_init__()
        check_amount(self.held_out)
        check_mixing(self.rates, self.reader, self.rates_by)
        if self.rates_by != "kind" and self.rates is None:
            raise UserError(f"rates_by is {self.rates_by!r}, and there are no rates: set rates")
        if not self.file:
            raise UserError("file is empty: name a file of examples")

    def objective(self, config: ModelConfig) -> SftObjective:
        """Cross entropy of the answers' tokens."""
        return SftObjective(config, self.logps_chunks)

    def read_data(
        self, context: StageContext, setup: Setup, params: Params, tokenizer: Tokenizer
    ) -> TrainingData:
        """The answers of all epochs, packed."""
        rows, held_out = _read_rows(context, self)
        examples = _encode(context.name, self, self._draw(context, rows), tokenizer, "training")
        batches = self._batches(examples, setup.part)
        say(f"{context.name}: {tokenizer.describe_ends()}")
        say(f"{context.name}: first answer between ⟦...⟧: {describe(tokenizer, examples[0])!r}")
        evaluated = None
        if held_out:
            others = _encode(context.name, self, held_out, tokenizer, "held-out")
            say(f"{context.name}: {len(others)} examples held out, {len(rows)} to train on")
            evaluated = self._batches(others, setup.part)
        sample = self._samples(context, setup, tokenizer, held_out or rows)
        return TrainingData(batches, held_out=evaluated, sample=sample)

    def forward_programs(self, setup: Setup) -> list[Program]:
        """The loss of held-out rows, and the sampled answers."""
        programs = [self.evaluation_program(setup)] if self.held_out else []
        if self.samples_every:
            length = answer_length(self.max_length)
            programs.append(answer_program(setup, self.abstract_trainable(setup), length))
        return programs

    def data_size(self, work: Work) -> DataSize:
        """The rows of all epochs; each is a sequence, of which a share is held out."""
        rows = total_of(
            work.rows_of(name, file, work.amounts.rows)
            for name in names_of(self.data)
            for file in names_of(self.file)
        )
        length = float(min(work.amounts.row_tokens, self.max_length))
        text = f"{rows.text} rows x {self.epochs:g} epochs"
        return DataSize(rows * self.epochs, rows, length, length, 0.0, text)

    def _draw(self, context: StageContext, rows: Sequence[SftRow]) -> list[SftRow]:
        """The examples of all epochs, in the order of training."""
        count = max(1, round(self.epochs * len(rows)))
        where = " and ".join(map(str, _paths(context, self)))
        drawn = mix(rows, self.rates, count, context.seed, self.reader, where, self.rates_by)
        if not self.replay:
            return drawn
        replayed = _read_replay(context, self)
        share = f"{self.replay_share:.1%} of all"
        say(f"{context.name}: {len(replayed)} examples of {self.replay} are mixed in, {share}")
        return mix_in(drawn, replayed, self.replay_share, context.seed)

    def _samples(
        self,
        context: StageContext,
        setup: Setup,
        tokenizer: Tokenizer,
        rows: Sequence[SftRow],
    ) -> AnswerSamples | None:
        if not self.samples_every:
            return None
        length = answer_length(self.max_length)
        short, prompts = short_prompts(rows, tokenizer, length)
        if not short:
            say(f"{context.name}: no samples: no prompt has at most {length // 2} tokens")
            return None
        return AnswerSamples(short, prompts, setup.config, tokenizer, length, setup.mesh)

    def any_batch(self, setup: Setup) -> Batch:
        """A batch of one sequence, of the shapes that training has."""
        return self._batches([ANY_EXAMPLE])[0]

    def _batches(self, examples: Sequence[Example], part: slice | None = None) -> Batches:
        return Batches(
            [Group(str(example.id), (example,)) for example in examples],
            self.batch_size,
            self.max_length,
            self.microbatch_rows,
            part,
            pass_size=round(len(examples) / self.epochs),
            row_sequences=self.row_sequences,
        )


def _encode(
    name: str, settings: Sft, rows: Sequence[SftRow], tokenizer: Tokenizer, what: str
) -> list[Example]:
    """The rows as sequences of at most `max_length` tokens; each row is tokenised once.

    Messages call them `what`: "training" or "held-out" examples.
    """
    noun = "examples" if what == "training" else f"{what} examples"
    unique = {row.id: row for row in rows}
    places = {name: place for place, name in enumerate(unique)}
    draws = np.array([places[row.id] for row in rows])
    encoded = TokenizedRows(
        list(unique.values()),
        lambda row: (answer_example(tokenizer, row),),
        1,
        ends=tokenizer.stop_ids,
    )
    long = encoded.lengths[draws, 0] > settings.max_length
    if settings.overlong == "truncate":
        encoded = encoded.truncated(settings.max_length)
    else:
        draws = draws[~long]
    if long.any():
        verb = "truncated" if settings.overlong == "truncate" else "dropped"
        say(f"{name}: {long.sum()} of {len(rows)} {noun} above max_length, {verb}")
    # Nothing can be learned from an answer that is empty, or of which the prompt leaves no token.
    empty = encoded.weighted[draws, 0] < 1
    draws = draws[~empty]
    if empty.any():
        say(f"{name}: {empty.sum()} of {len(rows)} {noun} without an answer, dropped")
    if not draws.size:
        raise UserError(
            f"there are no {what} examples: of {len(rows)}, {long.sum()} are above max_length "
            f"{settings.max_length}, and {empty.sum()} have no token of an answer"
        )
    return [encoded[place][0] for place in draws.tolist()]


def _paths(context: StageContext, settings: Sft) -> list[Path]:
    folders = context.input_list("data")
    return [folder / file for folder in folders for file in names_of(settings.file)]


def _read_rows(context: StageContext, settings: Sft) -> tuple[list[SftRow], list[SftRow]]:
    """The rows of the files: those to train on, and those that are held out."""
    paths, rows = _paths(context, settings), []
    for path in paths:
        read = _read_file(path, settings)
        if settings.rates_by == "source":
            name = path.parent.name if isinstance(settings.file, str) else path.stem
            read = [replace(row, source=row.source or name) for row in read]
        if len(paths) > 1:  # each file has ids of its own
            say(f"{context.name}: {len(read)} examples in {path}")
            read = [replace(row, id=f"{path.parent.name}/{path.stem}:{row.id}") for row in read]
        rows += read
    split = split_held_out([row.prompt for row in rows], settings.held_out)
    return [rows[i] for i in split.training], [rows[i] for i in split.held_out]


def _read_file(path: Path, settings: Sft) -> list[SftRow]:
    rows = read_rows(path, SftRow)
    if settings.answer_format == "structured":
        for number, row in enumerate(rows, start=1):
            try:
                parse(row.whole_answer)
            except FormatError as error:
                raise UserError(
                    f"{path}, line {number}: {error}; or set answer_format='plain'"
                ) from error
    _check_output(rows, path)
    return rows


def _read_replay(context: StageContext, settings: Sft) -> list[SftRow]:
    """The examples that are mixed in, under ids of their own."""
    if settings.replay == _JUDGEMENTS:
        rows = judgement_examples(context.seed)
    else:
        path = context.input_list("data")[0] / settings.replay
        rows = read_rows(path, SftRow)
        _check_output(rows, path)
    return [replace(row, id=f"replay:{row.id}") for row in rows]


def _check_output(rows: Sequence[SftRow], path: Path) -> None:
    for number, row in enumerate(rows, start=1):
        if breaks_output(row.whole_answer):
            raise UserError(
                f"{path}, line {number}: the answer must end with its only output block"
            )
