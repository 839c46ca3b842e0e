"""The work of the stage `evaluate`: targets and judges one after another, then the table."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from stair_jax import storage
from stair_jax.evaluation.asking import AskedSet
from stair_jax.evaluation.attacks.stored import Stored
from stair_jax.evaluation.calibration import Calibration, calibrate
from stair_jax.evaluation.case import Answer
from stair_jax.evaluation.file_names import slug
from stair_jax.evaluation.judges.judge import Material
from stair_jax.evaluation.judges.settings import JudgeSpec
from stair_jax.evaluation.labelled import Labelled, read_labelled
from stair_jax.evaluation.report import Verdicts, results_of, write_report
from stair_jax.evaluation.runner import (
    Judged,
    answer_keys,
    key_of,
    make_answers,
    make_verdicts,
    read_verdicts,
    to_judge,
)
from stair_jax.evaluation.shards import Shards
from stair_jax.evaluation.speed import Speed, side_by_side
from stair_jax.evaluation.table import RowKey, row_label
from stair_jax.inference.methods import is_search
from stair_jax.monitoring import SPEED_FILE, Progress, say
from stair_jax.parallel.processes import collectives
from stair_jax.run.context import StageContext
from stair_jax.run.model_folders import find_model
from stair_jax.stages.evaluate_cluster import TargetsOfWorkers
from stair_jax.stages.evaluate_targets import Answers, Targets

if TYPE_CHECKING:
    from stair_jax.stages.evaluate import Evaluate


class Model(NamedTuple):
    """A model of the table and all its methods.

    Attributes:
      name: in the table.
      folder: of its files; None: it is behind the endpoint.
      methods: how it answers, one row each.
    """

    name: str
    folder: Path | None
    methods: tuple[str, ...]


@dataclass(frozen=True)
class AnswersInWork:
    """Answers of a row of the table that are not all there.

    Attributes:
      method: how the model answers.
      sets: that it is asked.
      shards: of the answers.
      progress: of them.
    """

    method: str
    sets: Sequence[AskedSet]
    shards: Shards
    progress: Progress

    def left(self, scored: bool) -> list[AskedSet]:
        """The sets of which answers are left, those by log-likelihoods or the others."""
        keys = set(self.shards.open)
        return [
            asked
            for asked in self.sets
            if asked.is_scored == scored and not keys.isdisjoint(answer_keys([asked]))
        ]


class Evaluation:
    """One evaluation in its folder; what is there is not made again."""

    def __init__(self, stage: "Evaluate", context: StageContext, sets: Sequence[AskedSet]):
        """Looks at nothing yet."""
        self._stage, self._context, self._sets = stage, context, sets
        self._folder = context.folder
        self._targets = (TargetsOfWorkers if context.runtime.cluster else Targets)(stage, context)

    def run(self) -> None:
        """Answers, verdicts, and the files of the report."""
        self._say_coverage()
        speeds = [line for model in self._models() for line in self._answer(model)]
        answers = {row: self._read_answers(row) for row in self._stage.rows}
        has_questions = any(asked.benchmark.QUESTION for asked in self._sets)
        graders = map(JudgeSpec.parse, self._stage.graders if has_questions else ())
        verdicts = [self._verdicts(spec, answers) for spec in graders]
        if collectives.is_main():
            results = list(results_of(self._sets, answers, verdicts))
            write_report(self._folder, results, self._sets, self._stage.test_time)
        for line in speeds:
            say(f"{self._context.name}: {line}")

    def _say_coverage(self) -> None:
        """Says for how many cases there are stored prompts of attacks."""
        for asked in self._sets:
            if isinstance(asked.attack, Stored):
                covered = asked.attack.coverage(asked.cases)
                say(f"{self._context.name}: {asked.benchmark.NAME}:{covered}")

    def _models(self) -> list[Model]:
        """The models of the table, each once."""
        methods: dict[str, list[str]] = {}
        for row in self._stage.rows:
            methods.setdefault(row.model, []).append(row.method)
        folders = self._folders()
        return [Model(name, folders.get(name), tuple(own)) for name, own in methods.items()]

    def _folders(self) -> dict[str, Path]:
        """Hugging Face folders by the model's name; a model behind an endpoint has none."""
        from stair_jax.stages.evaluate import model_name

        stage, context = self._stage, self._context
        found = {folder.name: folder / "hf" for folder in context.input_list("models")}
        for field in ("prompted", "searched"):
            if name := getattr(stage, field):
                found[name] = context.input(field) / "hf"
        elsewhere = (*stage.checkpoints, stage.prompted_checkpoint, stage.searched_checkpoint)
        for checkpoint in filter(None, elsewhere):
            found[model_name(checkpoint)] = find_model(checkpoint)
        return found

    # Answers

    def _answer(self, model: Model) -> list[str]:
        """Makes the answers of a model by all its methods; returns a line a row on its speed."""
        shards = {
            method: self._shards(RowKey(model.name, method), self._sets_of(model, method))
            for method in model.methods
        }
        open_methods = collectives.broadcast(
            [m for m in model.methods if not shards[m].is_finished()]
        )
        parts = [
            AnswersInWork(
                method,
                self._sets_of(model, method),
                shards[method],
                self._progress(RowKey(model.name, method), shards[method]),
            )
            for method in open_methods
        ]
        speeds: dict[tuple[str, str], Speed] = {}  # by method and kind of what was made
        for part in parts:
            if part.left(scored=True):
                speeds[part.method, "likelihoods"] = self._answer_scored(model, part)
        written = [part for part in parts if part.left(scored=False)]
        for method, speed in self._answer_written(model, written).items():
            speeds[method, "answers"] = speed
        for part in parts:
            part.progress.close()
            part.shards.finish()
        return [
            self._write_speed(RowKey(model.name, method), kind, speed)
            for (method, kind), speed in speeds.items()
        ]

    def _answer_scored(self, model: Model, part: "AnswersInWork") -> Speed:
        """Log-likelihoods of given answers, by weights that are gone when this returns."""
        assert model.folder is not None
        sets = part.left(scored=True)
        with ExitStack() as stack:
            opened = self._targets.likelihoods(model.name, model.folder, sets, stack)
            return self._make(opened, model, part, sets)

    def _answer_written(self, model: Model, parts: Sequence["AnswersInWork"]) -> dict[str, Speed]:
        """Answers that the model writes, by all its methods over one engine; speeds by method."""
        if not parts:
            return {}
        with ExitStack() as stack:
            sets = [asked for part in parts for asked in part.left(scored=False)]
            methods = [part.method for part in parts]
            opened = self._targets.answers(model.name, model.folder, methods, sets, stack)
            return {
                part.method: self._make(opened, model, part, part.left(scored=False))
                for part in parts
            }

    @staticmethod
    def _make(
        opened: Answers, model: Model, part: "AnswersInWork", sets: Sequence[AskedSet]
    ) -> Speed:
        row, answering = RowKey(model.name, part.method), opened.answering(part.method)
        return make_answers(answering, row, sets, part.shards, part.progress)

    def _sets_of(self, model: Model, method: str) -> list[AskedSet]:
        """What a row is asked: likelihoods do not depend on the method.

        Attacks of a suite that no search can be under are left out of its rows.
        """
        return [
            asked
            for asked in self._sets
            if not asked.is_scored or (method == "greedy" and model.folder is not None)
            if model.folder is not None or not self._needs_weights(asked)
            if not (is_search(method) and asked.attack.sets_sampling)
        ]

    @staticmethod
    def _needs_weights(asked: AskedSet) -> bool:
        """Whether an endpoint cannot be asked it."""
        return bool(asked.attack.NEEDS & {"prefill", "likelihoods", "weights"})

    def _shards(self, row: RowKey, sets: Sequence[AskedSet]) -> Shards:
        return Shards(self._answers_path(row), answer_keys(sets))

    def _answers_path(self, row: RowKey) -> Path:
        return self._folder / "answers" / f"{slug(row.model)}.{slug(row.method)}.jsonl"

    def _read_answers(self, row: RowKey) -> list[Answer]:
        return [Answer.from_dict(each) for each in storage.read_jsonl(self._answers_path(row))]

    def _progress(self, row: RowKey, shards: Shards) -> Progress:
        left = len(shards.left())
        return Progress(
            f"{self._context.name}: {row_label(row)}",
            left,
            "cases",
            silent=not collectives.is_main(),
        )

    def _write_speed(self, row: RowKey, kind: str, own: Speed) -> str:
        """Writes the speed of all processes together; returns it as a line."""
        found = collectives.gather(f"the speed of {row}", own.values(), collectives.PATIENCE)
        speed = side_by_side([Speed(**values) for values in found])
        if collectives.is_main():
            values = {"model": row.model, "method": row.method, "kind": kind} | speed.to_dict()
            with open(self._folder / SPEED_FILE, "ab") as file:
                file.write(storage.json_line(values))
        return f"{row_label(row)}: {kind}: {speed}"

    # Verdicts

    def _verdicts(self, spec: JudgeSpec, answers: Mapping[RowKey, Sequence[Answer]]) -> Verdicts:
        """What a judge says of all answers, and of the labelled ones."""
        stage, name = self._stage, str(spec)
        labelled = {q: read_labelled(Path(file).expanduser()) for q, file in stage.labelled.items()}
        about = self._folder / "verdicts" / f"{slug(name)}.json"
        path = about.with_suffix(".jsonl")
        if not collectives.broadcast(Shards(path, ()).is_finished()):
            self._judge(spec, answers, labelled, path, about)
        known = storage.read_json(about)
        found = read_verdicts(storage.read_jsonl(path))
        return Verdicts(
            known["judge"],
            known["identity"],
            frozenset(known["questions"]),
            found,
            _calibrations(known, labelled, found, stage.labelled),
        )

    def _judge(
        self,
        spec: JudgeSpec,
        answers: Mapping[RowKey, Sequence[Answer]],
        labelled: Mapping[str, Sequence[Labelled]],
        path: Path,
        about: Path,
    ) -> None:
        benchmarks = {asked.benchmark.NAME: asked.benchmark for asked in self._sets}
        cases = {
            (asked.benchmark.NAME, case.id): case for asked in self._sets for case in asked.cases
        }
        with ExitStack() as stack:
            judge, judging = self._targets.judge(spec, stack)
            given = (answer for of_row in answers.values() for answer in of_row)
            judged = to_judge(given, benchmarks, cases, judge.can)
            judged += [each for q, rows in labelled.items() for each in _to_compare(q, rows)]
            questions = sorted({each.question for each in judged if judge.can(each.question)})
            judged = [each for each in judged if each.question in questions]
            if collectives.is_main():  # first: when the verdicts are there, all is there
                row = {"judge": judge.name, "identity": judge.identity(), "questions": questions}
                storage.write_json(about, row)
            shards = Shards(path, [each.key for each in judged])
            progress = Progress(
                f"{self._context.name}: judge {judge.name}",
                len(shards.left()),
                "verdicts",
                silent=not collectives.is_main(),
            )
            make_verdicts(judging, judged, shards, progress)
            progress.close()
            shards.finish()
        collectives.barrier(f"the judge {spec}", collectives.PATIENCE)


def _to_compare(question: str, rows: Sequence[Labelled]) -> Iterator[Judged]:
    for row in rows:
        yield Judged(_labelled_key(question, row), question, Material(row.prompt, row.answer))


def _labelled_key(question: str, row: Labelled) -> str:
    return key_of("labelled", question, row.id)


def _calibrations(
    known: Mapping[str, Any],
    labelled: Mapping[str, Sequence[Labelled]],
    found: Mapping[str, Any],
    files: Mapping[str, str],
) -> dict[str, Calibration]:
    """The judge against the labelled rows of each question that it can answer."""
    calibrations = {}
    for question, rows in labelled.items():
        if question not in known["questions"]:
            say(f"{known['judge']} cannot answer {question}, and is not compared with its labels")
            continue
        verdicts = [found[_labelled_key(question, row)].label for row in rows]
        labels = [row.label for row in rows]
        source = Path(files[question]).name
        clusters = [row.prompt for row in rows]
        calibrations[question] = calibrate(verdicts, labels, clusters, known["judge"], source)
    return calibrations
