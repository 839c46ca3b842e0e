"""What a stage needs besides the memory of the devices: disk, host memory, time."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from stair_jax.parallel.chips import Chip
from stair_jax.planning import rates
from stair_jax.planning.figures import NOTHING, Basis, Figure, total_of
from stair_jax.planning.rates import Amounts


@dataclass(frozen=True)
class Work:
    """What the stages of a run have to do.

    Attributes:
      chip: of each device.
      amounts: where the config does not say them.
      rows: of the files of earlier stages, by stage and file, as far as they are known.
    """

    chip: Chip
    amounts: Amounts
    rows: Mapping[str, Mapping[str, Figure]] = field(default_factory=dict)

    def rows_of(self, stage: str, file: str, otherwise: float) -> Figure:
        """Rows of a file of an earlier stage."""
        known = self.rows.get(stage, {}).get(file)
        return known or Figure(otherwise, Basis.ASSUMED)


@dataclass(frozen=True)
class Needs:
    """What one stage needs.

    Attributes:
      disk: bytes in its folder, at most.
      kept: bytes that stay there.
      host: bytes of host memory of each process, at most.
      seconds: None: not known.
      rows: of the files that it hands on, where these decide how much later stages have to do.
      work: what it does, in words.
      rate: on which its time rests.
    """

    disk: Figure = NOTHING
    kept: Figure = NOTHING
    host: Figure = NOTHING
    seconds: Figure | None = NOTHING
    rows: Mapping[str, Figure] = field(default_factory=dict)
    work: str = ""
    rate: rates.Rate | None = None


def plain_needs(disk: float, kept: float, work: str = "") -> Needs:
    """What a stage needs that only handles files: its time is no matter beside that of others."""
    return Needs(Figure(disk), Figure(kept), process_host(), work=work)


def process_host() -> Figure:
    """Host memory of a process with JAX, in bytes."""
    return Figure(rates.PROCESS.value, rates.PROCESS.basis)


@dataclass(frozen=True)
class DataSize:
    """What a stage trains on.

    Attributes:
      count: sequences (or groups of them that are laid out together), in all epochs.
      unique: of these, how many differ.
      length: mean tokens of one.
      scored: mean number of its tokens whose logits are needed.
      passes: forward passes over each of the unique ones besides.
      text: in words.
    """

    count: Figure
    unique: Figure
    length: float
    scored: float
    passes: float
    text: str


@dataclass(frozen=True)
class Totals:
    """What a whole recipe needs.

    Attributes:
      disk: bytes of the working folder at its peak.
      fullest: the stage in which that is.
      kept: bytes of it at the end.
      host: bytes of host memory of each process, at most.
      seconds: of all stages whose time is known.
      unknown: the other stages.
    """

    disk: Figure
    fullest: str
    kept: Figure
    host: Figure
    seconds: Figure
    unknown: tuple[str, ...]


def total(needs: Mapping[str, Needs]) -> Totals:
    """The sum over the stages of a recipe, in their order."""
    kept, disk, fullest = NOTHING, NOTHING, ""
    for name, each in needs.items():
        now = kept + each.disk
        if now.value > disk.value:
            disk, fullest = now, name
        kept += each.kept
    return Totals(
        disk,
        fullest,
        kept,
        max((each.host for each in needs.values()), key=lambda figure: figure.value),
        total_of(each.seconds for each in needs.values() if each.seconds is not None),
        tuple(name for name, each in needs.items() if each.seconds is None),
    )
