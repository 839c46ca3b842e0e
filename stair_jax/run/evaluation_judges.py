"""The judges of an evaluation, loaded: checkpoints on the devices, an endpoint, or a rule."""

import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax

from stair_jax.decoding.driver import Driver
from stair_jax.decoding.no_engine import NoEngine
from stair_jax.decoding.task import Service
from stair_jax.endpoints.service import EndpointService
from stair_jax.errors import UserError
from stair_jax.evaluation.judges.classifier import ClassifierJudge
from stair_jax.evaluation.judges.endpoint import EndpointJudge
from stair_jax.evaluation.judges.judge import Judge
from stair_jax.evaluation.judges.local import LocalJudge
from stair_jax.evaluation.judges.rules import RuleJudge
from stair_jax.evaluation.judges.settings import JudgeSettings, JudgeSpec, Kind
from stair_jax.inference.classifier import load_classifier
from stair_jax.models import huggingface
from stair_jax.parallel.processes import collectives
from stair_jax.run.engines import EngineSettings, lay_out_engine, start_engine
from stair_jax.run.model_folders import find_model
from stair_jax.run.runtime import Runtime
from stair_jax.run.source_hashes import SourceHashes
from stair_jax.settings import require
from stair_jax.storage import read_json
from stair_jax.text.chat import prepare_tokenizer

# Where the context is not set: longer ones cost memory that few judgements need.
_MOST_CONTEXT = {"cpu": 4096, "accelerator": 16384}
_BUCKET = 256  # shortest length that sequences of a classifier are padded to
_CLASSIFIER = "ForSequenceClassification"  # end of the name of its architecture


@dataclass(frozen=True)
class LoadedJudge:
    """A judge, and the services that its requests go to.

    Attributes:
      judge: who is asked.
      services: for a driver, by the name that its requests give; empty: it asks nothing.
      slots: of its engine; 0: it has none.
    """

    judge: Judge
    services: Mapping[str, Service] = field(default_factory=dict)
    slots: int = 0

    def driver(self) -> Driver:
        """A driver of this judge alone."""
        return Driver(NoEngine(), self.services)


def check_judge(spec: JudgeSpec, settings: JudgeSettings) -> JudgeSpec:
    """Checks all that can be checked of a judge before weights are read.

    Args:
      spec: who judges.
      settings: how it is asked.

    Returns:
      the same, with "classifier" as the kind of a checkpoint that is one.

    Raises:
      UserError: the model, a file of the settings, or an endpoint's cap or key is not there.
    """
    if spec.kind == "rule":
        RuleJudge(settings.rule_phrases)
    elif spec.kind == "endpoint":
        settings.endpoint.check("endpoint")
        EndpointJudge(settings)
    else:
        folder = find_model(spec.name, weights=False)
        huggingface.load_config(folder)
        spec = _with_kind(spec, folder)
        tokenizer = prepare_tokenizer(folder)
        if spec.kind == "model":
            LocalJudge(str(spec), tokenizer, settings)
    return spec


@contextmanager
def load_judge(
    spec: JudgeSpec,
    settings: JudgeSettings,
    workdir: Path,
    runtime: Runtime | None = None,
    dtype: str = "",
    service: str = "judge",
    beside: Any = (),
    expected: int | None = None,
) -> Iterator[LoadedJudge]:
    """A judge that can be asked while the context is open.

    Args:
      spec: who judges.
      settings: how it is asked.
      workdir: of the evaluation: an endpoint's replies are kept there, and hashes of checkpoints.
      runtime: sizes of an engine; None: what fits.
      dtype: of a checkpoint's weights and activations; empty: float32 on CPUs, bfloat16 on
        accelerators.
      service: name of its service, for drivers that serve others too.
      beside: shapes of what is on the devices already.
      expected: number of all judgements to come, for what is said before the first call of an
        endpoint.

    Raises:
      UserError: as `check_judge`; or the model does not fit.
    """
    if spec.kind == "rule":
        yield LoadedJudge(RuleJudge(settings.rule_phrases))
    elif spec.kind == "endpoint":
        require(
            collectives.num_processes() == 1,
            "an endpoint judges in an evaluation of one process, as it alone can keep to the cap: "
            "start one process, or name another judge",
        )
        ledger = workdir / "judge_replies.jsonl.gz"
        with EndpointService(settings.endpoint, ledger, expected) as endpoint:
            yield LoadedJudge(EndpointJudge(settings, service), {service: endpoint})
    else:
        found = find_checkpoint_judge(spec, settings, workdir, service)
        yield found.load(runtime or Runtime(), dtype, beside)


@dataclass(frozen=True)
class CheckpointJudge:
    """A judge of a checkpoint, without its weights; can be pickled.

    Attributes:
      spec: who judges, with the kind of its checkpoint.
      settings: how it is asked.
      folder: of the checkpoint.
      judge: made of these, also where files of the user's say how it is asked.
      service: name that its requests give.
    """

    spec: JudgeSpec
    settings: JudgeSettings
    folder: Path
    judge: LocalJudge | ClassifierJudge
    service: str = "judge"

    def load(self, runtime: Runtime, dtype: str = "", beside: Any = ()) -> LoadedJudge:
        """With its weights on the devices of this process; see `load_judge`.

        Raises:
          UserError: the model does not fit.
        """
        kind = "cpu" if jax.local_devices()[0].platform == "cpu" else "accelerator"
        dtype = dtype or ("float32" if kind == "cpu" else "bfloat16")
        config, settings = huggingface.load_config(self.folder), self.settings
        context = settings.context_tokens or min(config.context_tokens, _MOST_CONTEXT[kind])
        own = EngineSettings(context, dtype)
        if settings.mode == "expected":  # a judgement is one step: more would be waited for in vain
            runtime = dataclasses.replace(runtime, steps_per_call=1)
        layout = lay_out_engine(config, own, runtime, beside=beside)
        if isinstance(self.judge, ClassifierJudge):
            buckets = (min(_BUCKET, context),)
            classifier = load_classifier(self.folder, dtype, buckets=buckets, mesh=layout.mesh)
            (classifying,) = classifier.services.values()
            return LoadedJudge(self.judge.with_longest(context), {self.service: classifying})
        engine = start_engine(self.folder, own, layout)
        return LoadedJudge(self.judge, {self.service: engine}, layout.runtime.slots)


def find_checkpoint_judge(
    spec: JudgeSpec, settings: JudgeSettings, workdir: Path, service: str = "judge"
) -> CheckpointJudge:
    """The judge of a checkpoint, and what identifies this; see `load_judge`.

    Raises:
      UserError: as `check_judge`.
    """
    folder = find_model(spec.name)
    spec, tokenizer = _with_kind(spec, folder), prepare_tokenizer(folder)
    checkpoint = ""
    if collectives.is_main():  # one process hashes it, and writes the cache of the hashes
        checkpoint = SourceHashes(workdir).of_checkpoint(_source(spec.name, folder))
    checkpoint = collectives.broadcast(checkpoint)
    judge: LocalJudge | ClassifierJudge
    if spec.kind == "classifier":
        labels = huggingface.load_labels(folder)
        judge = ClassifierJudge(
            str(spec), tokenizer, labels, settings, service, checkpoint=checkpoint
        )
    else:
        judge = LocalJudge(str(spec), tokenizer, settings, service, checkpoint)
    return CheckpointJudge(spec, settings, folder, judge, service)


def _with_kind(spec: JudgeSpec, folder: Path) -> JudgeSpec:
    """The judge with the kind of its checkpoint.

    Raises:
      UserError: another kind was asked for.
    """
    # As its config says: the weights may not be here yet.
    architectures = read_json(folder / "config.json").get("architectures") or [""]
    kind: Kind = "classifier" if str(architectures[0]).endswith(_CLASSIFIER) else "model"
    if spec.is_explicit and spec.kind != kind:
        has = "a head of labels" if kind == "classifier" else "no head of labels"
        raise UserError(f"the judge {spec} has {has}: write {kind}:{spec.name}")
    return dataclasses.replace(spec, kind=kind)


def _source(name: str, folder: Path) -> str:
    """What the content of a checkpoint is identified by: the id of the hub, or the folder."""
    return str(folder) if Path(name).expanduser().exists() or name == "pocket" else name
