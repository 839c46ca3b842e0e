"""Commands that depend on each other: what each needs, and which are to go first."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal

from stair_jax.errors import UserError, did_you_mean

Kind = Literal["gpu", "cpu"]


@dataclass(frozen=True)
class Job:
    """A command of a list.

    Attributes:
      name: without spaces; also of its log, `/` makes folders.
      words: of the command line, behind `stair-jax`.
      product: a file that is there when the job is done.
      part: the group that it belongs to.
      after: jobs that have to be done before.
      behind: jobs that have to have ended before, done or not.
      enough: of some of these jobs, a file of theirs that is enough: once it is there, they may
        still run.
      place: what it runs on.
      seconds: about how long it takes, beside others; for the order and for estimates alone.
      rank: jobs of a lower one go first.
      late: further words, which are known once all that it waits for has ended.
    """

    name: str
    words: Sequence[str]
    product: Path
    part: str = ""
    after: Sequence[str] = ()
    behind: Sequence[str] = ()
    enough: Mapping[str, Path] = field(default_factory=dict)
    place: Kind = "gpu"
    seconds: float = 60.0
    rank: int = 0
    late: Callable[[], Sequence[str]] = field(default=tuple, compare=False)

    @property
    def waits_for(self) -> tuple[str, ...]:
        """The jobs that have to have ended before."""
        return (*self.after, *self.behind)

    def has_enough(self, other: str) -> bool:
        """Whether what it needs of a job that it waits for is there already."""
        return other in self.enough and self.enough[other].exists()

    def all_words(self) -> list[str]:
        """The words with the late ones.

        Raises:
          UserError: what these depend on is not there yet.
        """
        return [*self.words, *self.late()]


Jobs = dict[str, Job]  # each behind those that it waits for


def by_name(jobs: Iterable[Job]) -> dict[str, Job]:
    """The jobs by name; each stands behind those that it waits for."""
    found: dict[str, Job] = {}
    for job in jobs:
        assert job.name not in found, f"two jobs have the name {job.name}"
        missing = set(job.waits_for) - found.keys()
        assert not missing, f"{job.name} waits for {missing}, which no job before it is"
        found[job.name] = job
    return found


def chosen(jobs: Jobs, parts: Collection[str] = (), patterns: Sequence[str] = ()) -> Jobs:
    """The jobs of some parts whose names fit a pattern, with all that they wait for.

    Args:
      jobs: as `by_name` gives them.
      parts: their names; empty: all.
      patterns: of names, `*` for any text; empty: all.

    Raises:
      UserError: there is no such part, or a pattern fits no job of the parts.
    """
    known = dict.fromkeys(job.part for job in jobs.values())
    for part in parts:
        if part not in known:
            raise UserError(f"--parts={part}: there is no such part: {did_you_mean(part, known)}")
    names = [name for name, job in jobs.items() if not parts or job.part in parts]
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise UserError(f"--only={pattern}: no job has such a name; --list prints the jobs")
    if patterns:
        names = [name for name in names if any(fnmatchcase(name, p) for p in patterns)]
    return _with_needs(jobs, names)


def _with_needs(jobs: Jobs, names: Iterable[str]) -> Jobs:
    wanted = set(names)
    for name in reversed(jobs):  # whoever waits stands behind
        if name in wanted:
            wanted |= set(jobs[name].waits_for)
    return {name: job for name, job in jobs.items() if name in wanted}


def path_seconds(jobs: Jobs, seconds: Mapping[str, float] | None = None) -> dict[str, float]:
    """Of each job, the seconds of the longest chain that begins with it: its critical path.

    Args:
      jobs: as `by_name` gives them; those that are left out take no time.
      seconds: of each; None: as the jobs say.
    """
    longest: dict[str, float] = {}
    follows = _followers(jobs)
    for name in reversed(jobs):
        behind = (longest[other] for other in follows[name])
        own = jobs[name].seconds if seconds is None else seconds[name]
        longest[name] = own + max(behind, default=0.0)
    return longest


def in_order(jobs: Jobs) -> list[str]:
    """The names, those first that should be started first.

    A job has the lowest rank of all that wait for it. Of equal ranks the longest critical path
    goes first (Graham's list scheduling).
    """
    ranks: dict[str, int] = {}
    follows = _followers(jobs)
    for name in reversed(jobs):
        ranks[name] = min([jobs[name].rank, *(ranks[other] for other in follows[name])])
    longest = path_seconds(jobs)
    return sorted(jobs, key=lambda name: (ranks[name], -longest[name]))


def _followers(jobs: Jobs) -> dict[str, list[str]]:
    """The jobs that wait for each."""
    follows: dict[str, list[str]] = {name: [] for name in jobs}
    for name, job in jobs.items():
        for other in job.waits_for:
            if other in follows:
                follows[other].append(name)
    return follows
