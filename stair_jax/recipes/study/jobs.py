"""The study as a list of jobs: which run needs which, and what it takes over from where.

Each job is a command of `stair-jax` whose working folder, below that of the study, is its name. The
seconds are rough: on an H200 that five jobs share, with a model of 0.5B (docs/study.md).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from stair_jax import recipes
from stair_jax.recipes.study.arms import OURS
from stair_jax.recipes.study.choice import CHOICE_FILE, chosen_overrides
from stair_jax.recipes.study.real import CONTRAST, DATA, ITERATIONS, SFT, SYSTEM1
from stair_jax.recipes.study.sweeps import POLICIES, rate_cells
from stair_jax.run.job_list import Job, Jobs, by_name
from stair_jax.run.stage_records import COMPLETE_FILE
from stair_jax.run.sweep_grid import SEED

# In the order in which they are wanted.
PARTS = ("arms", "dev", "judges", "baselines", "sweeps", "pocket", "pocket_ablations")
CHOICE = "choice"
_PLAIN = "plain"  # the cell of `rates` that changes nothing
_ABLATION_SEEDS = 3  # of the pocket world's ablations
_CACHE = ".jax_cache"
_PRODUCT = "table.json"  # of the evaluation that ends each run
# Seconds of a job that trains and asks; of one that searches before; of another iteration's run; of
# all iterations.
_TRAINING, _SEARCH, _ITERATION, _CHAIN = 80.0, 250.0, 280.0, 750.0
_ARM_SECONDS = {
    **dict.fromkeys(("base", "sft", "system1", "contrast"), 230.0),
    "offline": 300.0,
    "self_rewarding": 400.0,
    "deliberative": 300.0,
    "trees": 150.0,
    "steps": 150.0,
    "test_time": 500.0,
}


@dataclass(frozen=True)
class Study:
    """What a study is of, and where it is.

    Attributes:
      workdir: of all its runs.
      data: folder that `stair-jax data study` has made.
      model: argument of the recipes: a hub id or folder, with `,full` behind for all parameters.
      seeds: of the arms on real models; the first one is that of baselines and sweeps.
      pocket_seeds: of the arms in the pocket world.
      overrides: further flags of each run.
    """

    workdir: Path
    data: str = DATA
    model: str = ""
    seeds: Sequence[int] = (0, 1, 2)
    pocket_seeds: Sequence[int] = (0, 1, 2, 3, 4)
    overrides: Sequence[str] = ()


def study_jobs(study: Study) -> Jobs:
    """All jobs of a study; each stands behind those that it waits for."""
    makers = (_first, _iterations, _candidates, _ours, _judges, _baselines, _sweeps, _pocket)
    jobs = by_name(job for make in makers for job in make(study))
    return {name: replace(job, rank=_rank(study, job)) for name, job in jobs.items()}


def _rank(study: Study, job: Job) -> int:
    """The arms of one seed after the other, then the other parts."""
    if job.part == PARTS[0]:
        return list(study.seeds).index(int(job.name.partition("/")[0]))
    return len(study.seeds) + PARTS.index(job.part)


def _first(study: Study) -> Iterator[Job]:
    """The base, whose greedy answers no seed changes, and the runs of SFT."""
    first = study.seeds[0]
    yield _run(study, f"{first}/base", "arms", "study_base", first)
    for seed in study.seeds:
        for arm in ("contrast", "sft", "system1"):
            yield _run(study, f"{seed}/{arm}", "arms", f"study_{arm}", seed)


def _iterations(study: Study) -> Iterator[Job]:
    """The paper's recipe: each run takes over the iterations before."""
    for seed in study.seeds:
        before = {f"{seed}/sft": SFT}
        for number in range(1, ITERATIONS + 1):
            name = f"{seed}/iter{number}"
            yield _run(study, name, "arms", f"study_iter{number}", seed, before, _ITERATION)
            before = {name: f"iter{number}"}


def _candidates(study: Study) -> Iterator[Job]:
    """Variants of our recipe, and the choice among them and their policies."""
    names = []
    vary = f"--vary={SEED}={','.join(map(str, study.seeds))}"
    for seed in study.seeds:
        sweep = _Sweep("rates", "study_rates", seed, "dev", vary=(vary,), tail=f"_{SEED}-{seed}")
        first = f"rates/{_PLAIN}{sweep.tail}"  # whose first trees the others have too
        for cell in rate_cells():
            same = {} if cell == _PLAIN else {first: f"{OURS[0]}1"}
            job = sweep.cell(study, cell, {f"{seed}/contrast": CONTRAST, **same}, _CHAIN)
            names.append(job.name)
            yield job
    seeds = ",".join(map(str, study.seeds))
    words = ("study", "--choose", f"--workdir={study.workdir}", f"--seeds={seeds}")
    yield Job(
        CHOICE,
        words,
        study.workdir / CHOICE_FILE,
        "dev",
        after=[f"{study.seeds[0]}/base"],
        behind=names,
        seconds=5.0,  # at a place of GPUs: those on CPUs may be taken for half an hour
    )


def _ours(study: Study) -> Iterator[Job]:
    """Our recipe by the variant that was chosen: all of its policies, which are there already."""
    late = partial(chosen_overrides, study.workdir)
    for seed in study.seeds:
        start = {f"{seed}/contrast": CONTRAST}
        for policy in POLICIES:
            name, recipe = f"{seed}/{policy}", f"study_{policy}"
            job = _run(study, name, "arms", recipe, seed, start, _TRAINING, [CHOICE])
            words = (*job.words, f"--reuse={study.workdir / 'rates'}")
            yield replace(job, words=words, late=late)


def _judges(study: Study) -> Iterator[Job]:
    first = study.seeds[0]
    sweep = _Sweep("judges", "study_judges", first, "judges")
    for cell in recipes.get_sweep("study_judges") or {}:
        same = {f"{first}/iter1": "iter1"} if cell == "policy" else {}
        start = "base" if cell == "policy_replay" else SFT  # the former has an SFT of its own
        yield sweep.cell(study, cell, {f"{first}/sft": start, **same}, _SEARCH)


def _baselines(study: Study) -> Iterator[Job]:
    first = study.seeds[0]
    last = f"iter{ITERATIONS}"
    for arm, before, stage in (
        ("trees", "iter1", "search1"),
        ("offline", "system1", SYSTEM1),
        ("self_rewarding", "system1", SYSTEM1),
        ("deliberative", "sft", SFT),
        ("test_time", last, last),
    ):
        name, sources = f"{first}/{arm}", {f"{first}/{before}": stage}
        yield _run(study, name, "baselines", f"study_{arm}", first, sources)


def _sweeps(study: Study) -> Iterator[Job]:
    """Ablations of one seed. What a cell shares with another is made by one of the two."""
    first = study.seeds[0]
    trained = ("malformed_too", "no_length_control", "no_balance", "adaptive_rates")
    same: Mapping[str, Mapping[str, str]] = {  # as what another job makes, up to a stage
        "parts/ours": {f"rates/{_PLAIN}_{SEED}-{first}": "ours1"},
        **{f"parts/{cell}": {"parts/ours": "our_search1"} for cell in trained},
        "rewards/s": {"judges/rule_base": "iter1"},
        "sizes/n_32": {"rewards/s": "iter1"},
        "iterations/k_1": {"rewards/s": "iter1"},
        "iterations/k_2": {"iterations/k_1": "iter1"},
        "iterations/k_3": {"iterations/k_2": "iter2"},
        "iterations/epochs_3": {"iterations/k_1": "pairs1"},
        "iterations/at_once": {"iterations/k_1": "search1"},
    }
    for name in ("parts", "rewards", "sizes", "iterations", "shares"):
        sweep = _Sweep(name, f"study_{name}", first, "sweeps")
        for cell in recipes.get_sweep(f"study_{name}") or {}:
            shared = same.get(f"{name}/{cell}", {})
            searches = name != "shares" and (not shared or name == "iterations")
            sources = {**_start(name, cell, first), **shared}
            yield sweep.cell(study, cell, sources, _SEARCH if searches else _TRAINING)
    sources = {f"{first}/sft": SFT, "rewards/s": "pairs1"}
    yield _run(study, f"{first}/steps", "sweeps", "study_steps", first, sources)


def _start(sweep: str, cell: str, seed: int) -> dict[str, str]:
    """The model that a cell of a sweep goes on from, and the job that has it."""
    if sweep == "shares" or cell == "no_contrast_rows":  # these have an SFT of their own
        return {f"{seed}/sft": "base"}
    return {f"{seed}/contrast": CONTRAST} if sweep == "parts" else {f"{seed}/sft": SFT}


def _pocket(study: Study) -> Iterator[Job]:
    """The same questions in the world with ground truth, on CPUs."""
    for recipe, folder, seconds in (
        ("study_pocket", "pocket_study", 3500.0),
        ("study_pocket_narrow", "pocket_narrow", 600.0),
    ):
        for seed in study.pocket_seeds:
            job = _run(study, f"{folder}/{SEED}{seed}", "pocket", recipe, seed, seconds=seconds)
            yield _on_cpu(job)
    for seed in study.pocket_seeds[:_ABLATION_SEEDS]:
        for kind in ("ablations", "parts"):
            name, recipe = f"pocket_{kind}/{SEED}{seed}", f"study_pocket_{kind}"
            sweep = _Sweep(name, recipe, seed, "pocket_ablations")
            for cell in recipes.get_sweep(recipe) or {}:
                sources = {f"pocket_study/{SEED}{seed}": ""}
                yield _on_cpu(sweep.cell(study, cell, sources, 360.0))


def _on_cpu(job: Job) -> Job:
    """A job of the pocket world; the reader without TensorFlow leaves room for others."""
    words = (*job.words, *(f"--config.{kind}.reader=datasets" for kind in ("sft", "dpo", "prm")))
    return replace(job, place="cpu", words=words)


@dataclass(frozen=True)
class _Sweep:
    """Cells of a recipe, a job each.

    Attributes:
      folder: below that of the study.
      recipe: its name.
      seed: of all cells, unless it is varied.
      part: of the study.
      vary: flags that vary more.
      tail: what these add to the name of a cell.
    """

    folder: str
    recipe: str
    seed: int
    part: str
    vary: Sequence[str] = ()
    tail: str = ""

    def cell(self, study: Study, cell: str, sources: Mapping[str, str], seconds: float) -> Job:
        """The job of a cell, which takes over what it can from the sources.

        Of another cell of the sweep it takes what is there also where that cell has failed, say for
        want of pairs.

        Args:
          study: of the job.
          cell: of the sweep.
          sources: jobs, and the stage of each that it waits for; "": for all of it.
          seconds: about how long it takes.
        """
        name = f"{cell}{self.tail}"
        cells = [each for each in sources if each.startswith(f"{self.folder}/")]
        runs = [each for each in sources if each not in cells]
        words = (
            "sweep",
            *_what(study, self.recipe),
            f"--workdir={study.workdir / self.folder}",
            f"--only={name}",
            *self.vary,
            *([] if self.vary else [f"--config.seed={self.seed}"]),
            *_taken(study, runs),
            *_more(study, self.recipe),
        )
        product = study.workdir / self.folder / name / _last_stage(self.recipe) / _PRODUCT
        enough = _stages(study, sources)
        job = Job(f"{self.folder}/{name}", words, product, self.part, runs, cells, enough)
        return replace(job, seconds=seconds)


def _run(
    study: Study,
    name: str,
    part: str,
    recipe: str,
    seed: int,
    sources: Mapping[str, str] = MappingProxyType({}),
    seconds: float | None = None,
    after: Sequence[str] = (),
) -> Job:
    """A run of its own, which takes over what it can from the sources (see `_Sweep.cell`)."""
    words = (
        "run",
        *_what(study, recipe),
        f"--workdir={study.workdir / name}",
        f"--config.seed={seed}",
        *_taken(study, list(sources)),
        *_more(study, recipe),
    )
    product = study.workdir / name / _last_stage(recipe) / _PRODUCT
    about = _ARM_SECONDS[name.rpartition("/")[2]] if seconds is None else seconds
    enough = _stages(study, sources)
    return Job(name, words, product, part, (*sources, *after), enough=enough, seconds=about)


def _stages(study: Study, sources: Mapping[str, str]) -> dict[str, Path]:
    """The records of the stages that are waited for."""
    return {
        name: study.workdir / name / stage / COMPLETE_FILE
        for name, stage in sources.items()
        if stage
    }


def _what(study: Study, recipe: str) -> tuple[str, ...]:
    is_real = not recipe.startswith("study_pocket")
    return (f"--config={recipe}" + (f":{study.model}" if is_real and study.model else ""),)


def _taken(study: Study, sources: Sequence[str]) -> list[str]:
    return [f"--reuse={study.workdir / name}" for name in sources]


def _more(study: Study, recipe: str) -> list[str]:
    """Where data and compiled programs are, and what the user sets."""
    cache = f"--config.runtime.compilation_cache={study.workdir / _CACHE}"
    return [*_moved_data(recipe, study.data), cache, *study.overrides]


def _moved_data(recipe: str, folder: str) -> list[str]:
    """Flags by which a recipe finds the study's data in another folder."""
    folder = folder.rstrip("/")
    if folder == DATA:
        return []
    return [
        f"--config.{name}={_moved(value, folder)}"
        for name, value in _fields(recipe).items()
        if DATA in str(value)
    ]


def _moved(value: Any, folder: str) -> Any:
    """A value, or several, with another folder in front."""
    if isinstance(value, str):
        return folder + value.removeprefix(DATA) if value.startswith(DATA) else value
    if isinstance(value, Mapping):
        return {name: _moved(one, folder) for name, one in value.items()}
    return tuple(_moved(one, folder) for one in value)


@cache
def _fields(recipe: str) -> dict[str, Any]:
    """All that a recipe sets."""
    return _leaves(recipes.get_config(recipe).to_dict())


def _leaves(values: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Values by dotted name."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping) and name != "labelled":
            found |= _leaves(value, f"{before}{name}.")
        else:
            found[before + name] = value
    return found


def _last_stage(recipe: str) -> str:
    """The name of the stage that ends a run."""
    return str(_fields(recipe)["stages"][-1]).rpartition(":")[2]
