"""The base class of stages: a stage is its settings, with methods that do its work.

A kind of stage is a frozen dataclass in `stair_jax/stages/KIND.py`, entered in `STAGES` of
`stair_jax/stages/__init__.py`:

    @dataclass(frozen=True)
    class Count(Stage):
        '''Counts the prompts of an earlier stage.'''  # and, under Attributes, each field

        data: str = stage_input(Artifact.PROMPTS, file="file")
        file: str = "prompts1.jsonl"
        limit: int = setting(0, least=0)

        def run(self, context: StageContext) -> None:
            ...

Everything else follows from the fields: they are checked before anything runs, can be set on the
command line, appear in `--help=count`, and identify the artifact. A field that a kind gains later
stands in no older record: it then counts as `setting(..., absent=VALUE)`, the value that means what
the kind did before, or as the default where no such value is named. A field that has its `absent`
value is no part of the identity either, so that fingerprints stay what they were.
"""

import dataclasses
import enum
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from stair_jax.run.context import PlanContext, StageContext
from stair_jax.settings import UNSET, Settings, rule_of, setting, values_of

if TYPE_CHECKING:  # their modules import what takes long, and a stage without them can be checked
    from stair_jax.models.config import ModelConfig
    from stair_jax.planning.needs import Needs, Work
    from stair_jax.planning.program import Program
    from stair_jax.run.savings import Saving

_INPUT = "input"


class Artifact(enum.StrEnum):
    """What a later stage can read from the folder of an earlier one."""

    MODEL = "a language model"
    REWARD_MODEL = "a reward model"
    SFT_ROWS = "SFT examples"
    PROMPTS = "prompts"
    TREES = "search trees"
    STEP_PAIRS = "step pairs for DPO"
    PATH_PAIRS = "path pairs for the PRM"
    EVALUATION = "evaluation rows"


@dataclass(frozen=True)
class Input:
    """What a field that names earlier stages needs of them.

    Attributes:
      artifacts: each named stage makes one of these.
      file: the field that holds the file's name in their folders; empty: there is none.
      required: the field must not be empty.
    """

    artifacts: frozenset[Artifact]
    file: str = ""
    required: bool = True


def stage_input(
    *artifacts: Artifact, file: str = "", required: bool = True, many: bool = False
) -> Any:
    """A field that names an earlier stage, or several of them (`many`).

    Args:
      *artifacts: what it has to make, one of these.
      file: the field of this stage that names the file to read in its folder.
      required: whether the field must not be empty.
      many: the default is the empty tuple instead of the empty text.
    """
    about = Input(frozenset(artifacts), file, required)
    return setting(() if many else "", metadata={_INPUT: about})


def names_of(value: str | Sequence[str]) -> Sequence[str]:
    """The names that a field holds: one, or several."""
    return (value,) if isinstance(value, str) else value


@dataclass(frozen=True)
class Stage(Settings, ABC):
    """A stage of a run; its fields are its settings.

    Class attributes:
      VERSION: raised when the same settings come to mean another artifact: what an older version
        made is then refused by name.
      PROCESSES: "all", or "first": the first process of a run works while the others wait.
      LENGTH: the field that says how long the stage works; empty: it cannot be lengthened.
      MEMORY: the fields to lower where memory runs out; those of `runtime` behind "runtime.".
      KEEPS: whether a start goes on with what an earlier one made of its `sources`, which may then
        not change in between. Otherwise it reads them from the start again.
      DEALS: whether it deals its work to the workers of `runtime.cluster`. If not, and if all
        processes of a run have part in it, their machines run it (`on_hosts.py`).
    """

    VERSION: ClassVar[int] = 1
    PROCESSES: ClassVar[Literal["all", "first"]] = "all"
    LENGTH: ClassVar[str] = ""
    MEMORY: ClassVar[tuple[str, ...]] = ()
    KEEPS: ClassVar[bool] = False
    DEALS: ClassVar[bool] = False

    @abstractmethod
    def run(self, context: StageContext) -> None:
        """Does the work in `context.folder`, going on from partial work that is there."""

    def makes(self) -> Mapping[str, Artifact]:
        """What later stages find in the folder, by name of the file or folder there."""
        return {}

    def sources(self) -> Mapping[str, Sequence[Path] | str]:
        """The user's own files that the artifact is made of, as far as they are there.

        Returns:
          for each source, by the name that messages give it, its files; or a text that identifies
          its content, such as a commit. A finished stage is refused when one has another content.
        """
        return {}

    def check_environment(self, folder: Path) -> None:
        """Checks files and folders of the user's that the stage will need, without a device.

        Args:
          folder: of the stage, which may not be there yet.

        Raises:
          UserError: something is missing or cannot be used.
        """

    def check_devices(self, context: PlanContext) -> None:
        """Checks that models, meshes and sizes fit the devices, without weights or compilation.

        Raises:
          UserError: something does not fit; says what would.
        """

    def check_cluster(self) -> None:
        """Of a stage that `DEALS`, checks that its settings let workers do its work.

        Raises:
          UserError: they do not.
        """

    def programs(self, context: PlanContext) -> "list[Program]":
        """The jitted steps of the stage as shapes, for a plan."""
        return []

    def savings(self, context: PlanContext) -> "Sequence[Saving]":
        """Changes that make the stage need less memory of the devices, the least harmful first."""
        return ()

    def needs(self, context: PlanContext, work: "Work") -> "Needs":
        """Disk, host memory and time of the stage, for a plan of the whole recipe."""
        from stair_jax.planning.needs import plain_needs

        models = {field: tuple(found) for field, found in context.models.items()}
        model = self.planned_model(models)
        return plain_needs(self.disk_bytes(model), self.kept_bytes(model), self.amount())

    def planned_model(
        self, inputs: "Mapping[str, tuple[ModelConfig, ...]]"
    ) -> "ModelConfig | None":
        """The model in the folder, for a plan: by default that of the stage's `model`."""
        return next(iter(inputs.get("model", ())), None)

    def planned_base(self) -> str:
        """The field that names the stage whose model this stage makes adapters for, if it does."""
        return ""

    def check_lengthening(self, folder: Path) -> None:
        """Raises a UserError unless the folder of the finished stage lets it go on."""

    def reopen(self, folder: Path) -> None:
        """Makes the finished stage one that was interrupted at its end; may come twice."""

    def summary(self, folder: Path) -> str:
        """What the run says of the finished stage, such as a table; empty: nothing."""
        return ""

    def disk_bytes(self, model: "ModelConfig | None") -> int:
        """About how much the stage has on the disk at most; `model` is what it works on, if known.

        That is while it runs; `kept_bytes` is what stays when it is finished.
        """
        return self.model_bytes(model)

    def kept_bytes(self, model: "ModelConfig | None") -> int:
        """About how much stays when the stage is finished: by default all of it."""
        return self.disk_bytes(model)

    def model_bytes(self, model: "ModelConfig | None") -> int:
        """Size of the weights in `hf/`; 0: it makes no model, or one of unknown size."""
        return 0

    def amount(self) -> str:
        """How much work there is in words, as far as the settings say it; empty: they do not."""
        return ""

    @classmethod
    def input_fields(cls) -> dict[str, Input]:
        """The fields that name earlier stages."""
        return {
            info.name: info.metadata[_INPUT]
            for info in dataclasses.fields(cls)
            if _INPUT in info.metadata
        }

    def inputs(self) -> dict[str, str | tuple[str, ...]]:
        """For each of these fields that is not empty, the stages that it names."""
        found = {field: getattr(self, field) for field in self.input_fields()}
        return {field: names for field, names in found.items() if names}

    def cost_fields(self) -> Iterable[str]:
        """Names of the fields that change time and memory alone, and results by rounding only."""
        return [info.name for info in dataclasses.fields(self) if rule_of(info).cost]

    def identity(self) -> dict[str, Any]:
        """The effective settings that the artifact depends on.

        Fields that are as they were before they existed (`absent`) are none of them: so artifacts
        keep their fingerprints when a kind gains such a field.
        """
        cost = set(self.cost_fields())

        def keep(info: "dataclasses.Field[Any]", value: Any) -> bool:
            rule = rule_of(info)
            is_new = rule.absent is UNSET or value != rule.absent
            return is_new and (not rule.cost or info.name not in cost)

        values = values_of(self, keep)
        return {name: value for name, value in values.items() if name not in cost}

    def effective(self) -> dict[str, Any]:
        """All settings, defaults included."""
        return values_of(self, keep=lambda info, value: True)
