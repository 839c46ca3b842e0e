"""What stages have in common that deal their work to the workers of a cluster.

The process of the run, the driver, has the items and writes the results; a worker has the models.
It neither reads nor writes anything else: what else it needs is sent to it.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Generic, Self, TypeVar

from stair_jax.adapter_folders import is_adapter_folder, local_base
from stair_jax.cluster.address import read_address
from stair_jax.cluster.carried import AbsentFolders
from stair_jax.cluster.dealer import Dealer
from stair_jax.cluster.ray_pool import RayPool
from stair_jax.cluster.work import Order, Report, Worker
from stair_jax.cluster.work_queue import WorkQueue
from stair_jax.cluster.worker_process import MakeWorker
from stair_jax.decoding.item_tasks import Made, RunItems
from stair_jax.errors import UserError
from stair_jax.run.compilation_cache import cache_folder, use_compilation_cache
from stair_jax.run.context import StageContext
from stair_jax.run.out_of_memory import out_of_memory, what_to_lower
from stair_jax.run.stage import Stage
from stair_jax.storage import fingerprint_folder

S = TypeVar("S", bound=Stage)
_BASE_OF = "the base of "  # in front of the name of adapters


@dataclass(frozen=True)
class DealtStage(Generic[S]):
    """A stage as its workers see it; can be pickled.

    Attributes:
      stage: its settings; those that name models which no stage makes hold their folders.
      context: of the stage.
      models: Hugging Face folders of the models that a worker reads, by the field of the stage that
        names each, or by a name that no field has; also of the bases of adapters.
      fingerprints: of these, as the driver sees them.
      programs: folder of compiled programs; None: none are kept.
    """

    stage: S
    context: StageContext
    models: Mapping[str, Path]
    fingerprints: Mapping[str, str]
    programs: Path | None

    @classmethod
    def of(cls, stage: S, context: StageContext, models: Mapping[str, Path]) -> "DealtStage[S]":
        """With folders that do not depend on where a process was started, and with fingerprints.

        Args:
          stage: its settings.
          context: of the stage.
          models: see `models` of the class.
        """
        # The folder itself may be a link; its name and that of its stage belong together.
        models = {name: each.parent.resolve() / each.name for name, each in models.items()}
        models |= {_BASE_OF + name: base for name, base in _bases(models).items()}
        known = {folder: fingerprint_folder(folder) for folder in set(models.values())}
        fingerprints = {name: known[folder] for name, folder in models.items()}
        inputs = {
            name: folders.resolve()
            if isinstance(folders, Path)
            else [each.resolve() for each in folders]
            for name, folders in context.inputs.items()
        }
        everywhere = replace(context, folder=context.folder.resolve(), inputs=inputs)
        return cls(stage, everywhere, models, fingerprints, cache_folder()).moved({})

    def moved(self, places: Mapping[Path, Path]) -> "DealtStage[S]":
        """The same with models in other places."""
        models = {name: places.get(folder, folder) for name, folder in self.models.items()}
        inputs = {
            name: models[name].parent if name in models else folder
            for name, folder in self.context.inputs.items()
        }
        names = {info.name for info in fields(self.stage)} - inputs.keys()
        named = {name: str(folder) for name, folder in models.items() if name in names}
        return replace(
            self,
            stage=replace(self.stage, **named),
            context=replace(self.context, inputs=inputs),
            models=models,
        )

    def enter(self) -> None:
        """In a worker: checks that it sees the very models that the driver sees.

        Raises:
          AbsentFolders: it does not see all of them.
          UserError: it sees another one.
        """
        folders = {folder: self.fingerprints[name] for name, folder in self.models.items()}
        absent = {folder: None for folder in folders if not folder.is_dir()}
        for name, folder in self.models.items():  # adapters go where their base goes
            if self.models.get(_BASE_OF + name) in absent:
                absent[folder] = None
        if absent:
            raise AbsentFolders(list(absent))
        for folder, seen_by_driver in folders.items():
            if fingerprint_folder(folder) != seen_by_driver:
                raise UserError(f"{folder} holds another model than on the machine of the driver")
        if self.programs is not None:
            use_compilation_cache(self.programs)


def _bases(models: Mapping[str, Path]) -> dict[str, Path]:
    """The bases of those that are adapters, as far as they are on this machine."""
    found = {name: local_base(each) for name, each in models.items() if is_adapter_folder(each)}
    return {name: base for name, base in found.items() if base is not None}


@dataclass(frozen=True)
class MakeStageWorker(ABC, Generic[S]):
    """Makes a worker of a stage, in the process of the worker: a `MakeWorker`.

    Attributes:
      seen: the stage.
    """

    seen: DealtStage[S]

    def __call__(self) -> Worker:
        """Checks the models, and loads them."""
        self.seen.enter()
        with _advising(self.seen):
            return _AdvisingWorker(self.load(self.seen.stage, self.seen.context), self.seen)

    def moved(self, places: Mapping[Path, Path]) -> Self:
        """The same with models in other places."""
        return replace(self, seen=self.seen.moved(places))

    @abstractmethod
    def load(self, stage: S, context: StageContext) -> Worker:
        """Loads what the worker needs, which ends with its process.

        Args:
          stage: that of `seen`.
          context: likewise.
        """


class _AdvisingWorker:
    """A worker that says what to lower where its memory runs out: a `cluster.work.Worker`."""

    def __init__(self, worker: Worker, seen: DealtStage[Any]):
        self._worker, self._seen = worker, seen

    def exchange(self, order: Order, seconds: float) -> Report:
        with _advising(self._seen):
            return self._worker.exchange(order, seconds)


@contextmanager
def _advising(seen: DealtStage[Any]) -> Iterator[None]:
    """Raises a UserError in place of what means that memory ran out, as a stage does by itself."""
    try:
        yield
    except Exception as error:
        if not (text := out_of_memory(error)):
            raise
        stage, context = seen.stage, seen.context
        advice = what_to_lower(stage, context.name, context.runtime, stage.MEMORY)
        raise UserError(f"{text}: {advice}") from error


@contextmanager
def hire(
    context: StageContext,
    make: MakeWorker,
    on_totals: Callable[[str, Any], None] = lambda worker, totals: None,
) -> Iterator[Dealer]:
    """Deals to the workers of `runtime.cluster` while the context is open.

    Args:
      context: of the stage.
      make: makes a worker.
      on_totals: see `Dealer`.
    """
    with RayPool(read_address(context.runtime.cluster), make) as pool:
        yield Dealer(pool, on_totals)


def run_there(dealer: Dealer, size: Callable[[Any], float], shared: Any = None) -> RunItems:
    """Who runs the tasks of items in workers, each a `TaskWorker`.

    Args:
      dealer: of the workers; each of its items has a key of its own, also those of other calls.
      size: of an item: how long it may take, in any unit.
      shared: what all items need.
    """

    def run(items: Iterable[tuple[Hashable, Any]]) -> Iterator[list[Made]]:
        queue = WorkQueue(items, lambda pair: pair[0], lambda pair: size(pair[1]))
        for dealt in dealer.deal(queue, shared):
            yield [each.result for each in dealt]

    return run
