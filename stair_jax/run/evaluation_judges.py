"""The judges of an evaluation, loaded: checkpoints on the devices, an endpoint, or a rule."""

import dataclasses
from collections.abc import Hashable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax

from stair_jax.decoding.driver import Driver
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
    """

    judge: Judge
    services: Mapping[str, Service] = field(default_factory=dict)

    def driver(self) -> Driver:
        """A driver of this judge alone."""
        return Driver(_NoEngine(), self.services)


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
        yield _load_checkpoint(spec, settings, workdir, runtime, dtype, service, beside)


def _load_checkpoint(
    spec: JudgeSpec,
    settings: JudgeSettings,
    workdir: Path,
    runtime: Runtime | None,
    dtype: str,
    service: str,
    beside: Any,
) -> LoadedJudge:
    folder = find_model(spec.name)
    spec = _with_kind(spec, folder)
    config, tokenizer = huggingface.load_config(folder), prepare_tokenizer(folder)
    kind = "cpu" if jax.local_devices()[0].platform == "cpu" else "accelerator"
    dtype = dtype or ("float32" if kind == "cpu" else "bfloat16")
    context = settings.context_tokens or min(config.context_tokens, _MOST_CONTEXT[kind])
    own = EngineSettings(context, dtype)
    runtime = runtime or Runtime()
    if settings.mode == "expected":  # a judgement is one step: more would be waited for in vain
        runtime = dataclasses.replace(runtime, steps_per_call=1)
    layout = lay_out_engine(config, own, runtime, beside=beside)
    checkpoint = ""
    if collectives.is_main():  # one process hashes it, and writes the cache of the hashes
        checkpoint = SourceHashes(workdir).of_checkpoint(_source(spec.name, folder))
    checkpoint = collectives.broadcast(checkpoint)
    if spec.kind == "classifier":
        classifier = load_classifier(
            folder, dtype, buckets=(min(_BUCKET, context),), mesh=layout.mesh
        )
        judge: Judge = ClassifierJudge(
            str(spec), tokenizer, classifier.labels, settings, service, context, checkpoint
        )
        (classifying,) = classifier.services.values()
        return LoadedJudge(judge, {service: classifying})
    judge = LocalJudge(str(spec), tokenizer, settings, service, checkpoint)
    return LoadedJudge(judge, {service: start_engine(folder, own, layout)})


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


class _NoEngine:
    """The engine of a driver whose tasks ask none."""

    pending = 0

    def submit(self, requests: Iterable[Any]) -> None:
        """Never called with a request."""
        assert not list(requests)

    def step(self) -> list[Any]:
        """Nothing."""
        return []

    def cancel(self, ids: Iterable[Hashable]) -> None:
        """Nothing."""
