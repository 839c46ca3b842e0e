"""The work of the stage `evaluate`: targets and judges one after another, then the table."""

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from stair_jax import storage
from stair_jax.decoding.driver import Driver
from stair_jax.decoding.task import Service
from stair_jax.endpoints.service import EndpointService
from stair_jax.errors import UserError
from stair_jax.evaluation.asking import AskedSet
from stair_jax.evaluation.attacks.attack import Means
from stair_jax.evaluation.calibration import Calibration, calibrate
from stair_jax.evaluation.case import Answer
from stair_jax.evaluation.endpoint_target import EndpointTarget
from stair_jax.evaluation.judges.judge import Material
from stair_jax.evaluation.judges.settings import JudgeSpec
from stair_jax.evaluation.labelled import Labelled, read_labelled
from stair_jax.evaluation.local_target import ChatEncoder, LocalTarget
from stair_jax.evaluation.report import Verdicts, results_of, row_label, write_report
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
from stair_jax.evaluation.table import RowKey
from stair_jax.evaluation.target import Target
from stair_jax.inference.answers import SELF_REWARD, Answering, is_search
from stair_jax.inference.likelihood import LikelihoodScorer, LikelihoodService
from stair_jax.inference.scorers import PrmScorer, SelfReward
from stair_jax.inference.scoring import Scorer
from stair_jax.models import huggingface
from stair_jax.monitoring import Progress, say
from stair_jax.parallel.processes import collectives
from stair_jax.run.context import StageContext
from stair_jax.run.engines import lay_out_engine, lay_out_judge, plan_laid_out, start_engine
from stair_jax.run.evaluation_judges import load_judge
from stair_jax.run.model_folders import find_model
from stair_jax.search.judging.judges import Judge
from stair_jax.text.chat import prepare_tokenizer
from stair_jax.text.steps import TAGS
from stair_jax.text.tokenizer import load_huggingface

if TYPE_CHECKING:
    from stair_jax.stages.evaluate import Evaluate

ATTACKER_SERVICE = "attacker"
_LEDGER = "answers_replies.jsonl.gz"
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")


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


class Evaluation:
    """One evaluation in its folder; what is there is not made again."""

    def __init__(self, stage: "Evaluate", context: StageContext, sets: Sequence[AskedSet]):
        """Looks at nothing yet."""
        self._stage, self._context, self._sets = stage, context, sets
        self._folder = context.folder

    def run(self) -> None:
        """Answers, verdicts, and the files of the report."""
        for model in self._models():
            self._answer(model)
        answers = {row: self._read_answers(row) for row in self._stage.rows}
        has_questions = any(asked.benchmark.QUESTION for asked in self._sets)
        graders = map(JudgeSpec.parse, self._stage.graders if has_questions else ())
        verdicts = [self._verdicts(spec, answers) for spec in graders]
        if collectives.is_main():
            results = list(results_of(self._sets, answers, verdicts))
            write_report(self._folder, results, self._sets)

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

    def _answer(self, model: Model) -> None:
        """Makes the answers of a model by all its methods."""
        shards = {
            method: self._shards(RowKey(model.name, method), self._sets_of(model, method))
            for method in model.methods
        }
        open_methods = collectives.broadcast(
            [m for m in model.methods if not shards[m].is_finished]
        )
        if not open_methods:
            return
        progress = {m: self._progress(RowKey(model.name, m), shards[m]) for m in open_methods}
        scored = [asked for asked in self._sets if asked.is_scored]
        if scored and model.folder and "greedy" in open_methods:
            with self._likelihoods(model) as (target, driver):
                means = Means(target, seed=self._context.seed)
                make_answers(driver, scored, means, shards["greedy"], progress["greedy"])
        with ExitStack() as stack:
            target, attacker, driver = self._open(model, open_methods, stack)
            for method in open_methods:
                sets = [a for a in self._sets_of(model, method) if not a.is_scored]
                means = Means(target, attacker or target, None, method, self._context.seed)
                start = time.monotonic()
                make_answers(driver, sets, means, shards[method], progress[method])
                self._write_speed(model.name, method, progress[method], time.monotonic() - start)
        for method in open_methods:
            progress[method].close()
            shards[method].finish()

    def _sets_of(self, model: Model, method: str) -> list[AskedSet]:
        """What a row is asked: likelihoods do not depend on the method."""
        return [
            asked
            for asked in self._sets
            if not asked.is_scored or (method == "greedy" and model.folder is not None)
            if model.folder is not None or not self._needs_weights(asked)
        ]

    @staticmethod
    def _needs_weights(asked: AskedSet) -> bool:
        """Whether an endpoint cannot be asked it."""
        return bool(asked.attack.NEEDS & {"prefill", "likelihoods", "weights"})

    def _shards(self, row: RowKey, sets: Sequence[AskedSet]) -> Shards:
        return Shards(self._answers_path(row), answer_keys(sets))

    def _answers_path(self, row: RowKey) -> Path:
        return self._folder / "answers" / f"{slug(row.model)}.{row.method}.jsonl"

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

    def _write_speed(self, model: str, method: str, progress: Progress, seconds: float) -> None:
        """What the clock says is no part of the table."""
        if not collectives.is_main():
            return
        row = {
            "model": model,
            "method": method,
            "cases": progress.done,
            "seconds": round(seconds, 3),
        }
        with open(self._folder / "speed.jsonl", "ab") as file:
            file.write(storage.json_line(row))

    # Targets

    @contextmanager
    def _likelihoods(self, model: Model) -> Iterator[tuple[Target, Driver]]:
        """A target that has log-likelihoods alone: its weights are laid out for whole sequences."""
        assert model.folder is not None
        layout = lay_out_engine(
            huggingface.load_config(model.folder), self._stage.engine, self._context.runtime
        )
        params = huggingface.load_params(model.folder, layout.config, layout.mesh)
        scorer = LikelihoodScorer(layout.config, params, mesh=layout.mesh)
        service = LikelihoodService(scorer)
        target = LocalTarget(model.name, _encoder(model.folder), None, likelihood_service="")
        yield target, Driver(service)

    def _open(
        self, model: Model, methods: Sequence[str], stack: ExitStack
    ) -> tuple[Target, Target | None, Driver]:
        """The target of a model, its attacker, and the driver that serves both."""
        stage, context = self._stage, self._context
        if model.folder is None:
            if collectives.num_processes() > 1:
                raise UserError(
                    "an endpoint is evaluated by a run of one process, as it alone can keep to "
                    "the cap: start one process"
                )
            service = EndpointService(stage.endpoint, self._folder / _LEDGER, where="endpoint")
            stack.enter_context(service)
            sampling = stage.endpoint.sampling
            endpoint = EndpointTarget(model.name, sampling, stage.prompt_template)
            return endpoint, None, Driver(service)
        config = huggingface.load_config(model.folder)
        services: dict[str, Service] = {}
        beside: Any = ()
        attacker: Target | None = None
        # All before the engine, whose cache takes the memory that is left.
        if stage.attacker:
            attacker, services[ATTACKER_SERVICE], beside = self._attacker(config)
        prm = self._prm() if any(_is_guided(method) for method in methods) else None
        judges = None
        if any(method.endswith(SELF_REWARD) for method in methods):
            judges = stack.enter_context(closing(stage.load_judges(context, config, stage.engine)))
            services |= judges.services
            beside = (beside, judges.beside)
        layout = lay_out_engine(config, stage.engine, context.runtime, beside=beside)
        engine = start_engine(model.folder, stage.engine, layout)
        encoder = _encoder(model.folder)
        scorers: dict[str, Scorer] = {}
        for method in filter(is_search, methods):
            if prm and _is_guided(method):
                scorers[method] = prm
                services |= prm.services
            elif judges:
                judge = Judge(encoder.tokenizer, stage.judge, judges.sources)
                scorers[method] = SelfReward(
                    engine, judge, stage.reward, stage.test_time, context.seed, judges.services
                )
        answering = {
            is_search: Answering(
                engine, encoder.tokenizer, settings, context.seed, engine.max_length
            )
            for is_search, settings in ((True, stage.test_time), (False, stage.greedy_settings))
        }
        target = LocalTarget(
            model.name, encoder, answering, scorers, prompt_template=stage.prompt_template
        )
        return target, attacker, Driver(engine, services)

    def _attacker(self, policy: Any) -> tuple[Target, Service, Any]:
        """A model that writes prompts, beside the one that is attacked."""
        stage, runtime = self._stage, self._context.runtime
        folder = find_model(stage.attacker)
        config = huggingface.load_config(folder)
        layout = lay_out_judge(config, stage.engine, policy, stage.engine, runtime)
        import jax

        planned = plan_laid_out(layout, stage.engine, jax.local_devices())
        engine = start_engine(folder, stage.engine, layout)
        encoder = _encoder(folder)
        answering = Answering(
            engine, encoder.tokenizer, stage.greedy_settings, self._context.seed, engine.max_length
        )
        target = LocalTarget(stage.attacker, encoder, {False: answering}, service=ATTACKER_SERVICE)
        return target, engine, planned.resident

    def _prm(self) -> PrmScorer:
        stage, context = self._stage, self._context
        named = stage.prm_checkpoint
        folder = find_model(named) if named else context.input("prm") / "hf"
        layout = lay_out_engine(huggingface.load_config(folder), stage.engine, context.runtime)
        params = {
            "model": huggingface.load_params(folder, layout.config, layout.mesh),
            "score": huggingface.load_score_head(folder, layout.mesh),
        }
        return PrmScorer(layout.config, params, buckets=stage.prm_buckets, mesh=layout.mesh)

    # Verdicts

    def _verdicts(self, spec: JudgeSpec, answers: Mapping[RowKey, Sequence[Answer]]) -> Verdicts:
        """What a judge says of all answers, and of the labelled ones."""
        stage, name = self._stage, str(spec)
        benchmarks = {asked.benchmark.NAME: asked.benchmark for asked in self._sets}
        cases = {
            (asked.benchmark.NAME, case.id): case for asked in self._sets for case in asked.cases
        }
        judged = to_judge((a for own in answers.values() for a in own), benchmarks, cases)
        labelled = {q: read_labelled(Path(file)) for q, file in stage.labelled.items()}
        judged += [each for q, rows in labelled.items() for each in _to_compare(q, rows)]
        about = self._folder / "verdicts" / f"{slug(name)}.json"
        path = about.with_suffix(".jsonl")
        is_made = collectives.broadcast(path.exists() and about.exists())
        if not is_made:
            self._judge(spec, judged, path, about)
        known = storage.read_json(about)
        found = read_verdicts(storage.read_jsonl(path))
        return Verdicts(
            known["judge"],
            known["identity"],
            frozenset(known["questions"]),
            found,
            _calibrations(known, labelled, found, stage.labelled),
        )

    def _judge(self, spec: JudgeSpec, judged: Sequence[Judged], path: Path, about: Path) -> None:
        stage, context = self._stage, self._context
        own = load_judge(spec, stage.grading, self._folder, context.runtime, stage.dtype_used)
        with own as loaded:
            judge = loaded.judge
            questions = sorted({each.question for each in judged if judge.can(each.question)})
            judged = [each for each in judged if each.question in questions]
            shards = Shards(path, [each.key for each in judged])
            progress = Progress(
                f"{context.name}: judge {judge.name}",
                len(shards.left()),
                "verdicts",
                silent=not collectives.is_main(),
            )
            make_verdicts(loaded.driver(), judge, judged, shards, progress)
            progress.close()
            shards.finish()
            if collectives.is_main():
                row = {"judge": judge.name, "identity": judge.identity(), "questions": questions}
                storage.write_json(about, row)
        collectives.barrier(f"the judge {spec}", collectives.PATIENCE)


def slug(name: str) -> str:
    """A name as a file has it; names that differ stay so."""
    safe = _UNSAFE.sub("_", name).strip(".") or "_"
    return safe if safe == name else f"{safe}.{storage.fingerprint(name)[:6]}"


def _is_guided(method: str) -> bool:
    """Whether a reward model guides a method."""
    return is_search(method) and not method.endswith(SELF_REWARD)


def _encoder(folder: Path) -> ChatEncoder:
    is_structured = set(TAGS) <= load_huggingface(folder).get_vocab().keys()
    return ChatEncoder(prepare_tokenizer(folder), is_structured)


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
