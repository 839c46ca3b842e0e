"""Runs the whole study on one host: its jobs side by side, then its tables."""

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from stair_jax.commands import study_pack, study_tables
from stair_jax.commands.flags import Arguments, listed
from stair_jax.commands.session import Session
from stair_jax.errors import UserError
from stair_jax.monitoring import duration, say
from stair_jax.recipes.study import choice
from stair_jax.recipes.study.jobs import Study, study_jobs
from stair_jax.recipes.study.real import DATA
from stair_jax.run import job_list, job_places
from stair_jax.run.job_list import Job, Jobs
from stair_jax.run.job_process import finished_seconds
from stair_jax.run.job_queue import JobQueue, Outcome
from stair_jax.run.lock import locked

SUMMARY = "Runs the study, several runs at a time; the same command again goes on where it stopped."
_LOGS = "logs"
_PROGRAM = (sys.executable, "-u", "-m", "stair_jax.launch")


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Flags of `stair-jax study`."""

    def add(flag: str, metavar: str, text: str, **more: object) -> None:
        parser.add_argument(flag, metavar=metavar, help=text, **more)  # type: ignore[arg-type]

    add("--workdir", "DIR", "folder of all runs of the study")
    add("--data", "DIR", f"what `stair-jax data study` made; default {DATA}", default=DATA)
    add("--model", "MODEL", "hub id or folder of the base, `,full` to train all parameters")
    add("--seeds", "LIST", "of the arms on real models; default 0,1,2", default="0,1,2")
    add("--pocket-seeds", "LIST", "of the pocket world; default 0,1,2,3,4", default="0,1,2,3,4")
    repeated = {"action": "append", "default": []}
    add("--parts", "LIST", "of the study, and what they need; default all: see --list", **repeated)
    add("--only", "JOB", "these jobs, and what they need; * for any text", **repeated)
    add("--gpus", "N", "how many GPUs; default: all that are found, 0 for CPUs", type=int)
    add("--per-gpu", "N", "jobs that share a GPU; default 4", type=int, default=4)
    add(
        "--memory",
        "SHARE",
        "of a GPU that these take together; default .84",
        type=float,
        default=0.84,
    )
    add("--cpu-jobs", "N", "jobs on CPUs at a time; default 2", type=int, default=2)
    add("--minutes", "M", "stop after so long, and start nothing that would not end", type=float)
    for flag, text in (
        ("--list", "print the jobs and their commands, and end"),
        ("--tables", "make the tables of what is there alone"),
        ("--choose", "choose the variant of our recipe by the dev tables that are there alone"),
    ):
        parser.add_argument(flag, action="store_true", help=text)
    add("--into", "PATH", "a page FILE.md, or the folder of both; default: the --workdir")
    study_pack.add_flags(parser)


def execute(arguments: Arguments, session: Session) -> int:
    """Runs what is not done, and makes the tables; returns the exit status."""
    options = arguments.options
    study = _study(arguments)
    pages = study_tables.page_files(options.into, study.workdir)
    if options.choose:
        made = choice.make_choice(study.workdir, study.seeds)
        chosen = f"{made['variant']}/{made['policy']}"
        print(f"{chosen} of {len(made['figures']) - 1}: {made['rule']}")
        return 0
    if options.pack:
        study_pack.execute(options, study.workdir)
        return 0
    if options.tables:
        study_tables.make_tables(pages, study.workdir)
        return 0
    jobs = job_list.chosen(study_jobs(study), listed(options.parts), listed(options.only))
    logs = study.workdir / _LOGS
    if options.list:
        print(format_jobs(jobs, logs))
        return 0
    places = _places(options, jobs)
    _check_data(study, jobs)
    session.on_interrupt = "the same command goes on where it stopped"
    with locked(study.workdir):
        seconds = None if options.minutes is None else 60 * options.minutes
        outcome = JobQueue(jobs, places, _PROGRAM, logs, seconds=seconds).run()
        study_tables.make_tables(pages, study.workdir)
    say(summary(outcome, logs))
    return 1 if outcome.failed else 0


def format_jobs(jobs: Jobs, logs: Path) -> str:
    """The jobs in the order in which they would be started alone, a line each."""
    width = max(map(len, jobs))
    lines = []
    for name in job_list.in_order(jobs):
        job = jobs[name]
        state = "done" if finished_seconds(job, logs) is not None else duration(job.seconds)
        words = shlex.join(["stair-jax", *_known_words(job)])
        lines.append(f"{name:<{width}}  {job.part:<16}  {job.place}  {state:<12}  {words}")
    return "\n".join(lines)


def _known_words(job: Job) -> Sequence[str]:
    """The words of a job, with the late ones as soon as they are known."""
    try:
        return job.all_words()
    except UserError:
        return job.words


def summary(outcome: Outcome, logs: Path) -> str:
    """How the study went: what failed, with the last line of its log, and what is left."""
    lines = [
        f"{name} failed: {reason} ({logs / name}.log)" for name, reason in outcome.failed.items()
    ]
    if outcome.skipped:
        lines.append(f"skipped, as they need one that failed: {len(outcome.skipped)}")
    if outcome.left:
        lines.append(f"left, to be run by the same command: {len(outcome.left)}")
    return "\n".join([*lines, f"jobs that are done: {len(outcome.done)}"])


def _study(arguments: Arguments) -> Study:
    """The study that the flags describe.

    Raises:
      UserError: a flag is missing, or is no list of seeds.
    """
    options = arguments.options
    if not options.workdir:
        raise UserError("--workdir is missing: name the folder of the study, e.g. runs/study")
    return Study(
        Path(options.workdir),
        options.data,
        options.model or "",
        _seeds("--seeds", options.seeds),
        _seeds("--pocket-seeds", options.pocket_seeds),
        [
            f"--config.{each.field}={'True' if each.text is None else each.text}"
            for each in arguments.overrides
        ],
    )


def _seeds(flag: str, text: str) -> list[int]:
    seeds = listed([text])
    if not seeds or not all(seed.isdecimal() for seed in seeds) or len(set(seeds)) < len(seeds):
        raise UserError(f"{flag}={text}: write different seeds with commas, e.g. 0,1,2")
    return [int(seed) for seed in seeds]


def _places(options: argparse.Namespace, jobs: Jobs) -> list[job_places.Place]:
    """Where the jobs run.

    Raises:
      UserError: a flag has a value that cannot be.
    """
    for flag, is_good, what in (
        ("--per-gpu", options.per_gpu >= 1, "at least 1"),
        ("--cpu-jobs", options.cpu_jobs >= 1, "at least 1"),
        ("--memory", 0 < options.memory <= 1, "above 0 and at most 1"),
        ("--gpus", options.gpus is None or options.gpus >= 0, "at least 0"),
        ("--minutes", options.minutes is None or options.minutes > 0, "above 0"),
    ):
        if not is_good:
            raise UserError(f"{flag} must be {what}")
    gpus = job_places.choose_gpus(job_places.find_gpus(), options.gpus)
    has_pocket = any(job.part.startswith("pocket") for job in jobs.values())
    cores = _cores() if has_pocket or not gpus else ()  # the only long ones on CPUs
    places = job_places.make_places(gpus, options.per_gpu, options.memory, options.cpu_jobs, cores)
    devices = dict.fromkeys(place.device for place in places)
    say(f"{len(places)} jobs at a time on {', '.join(devices)}")
    if gpus and options.per_gpu > 1 and job_places.take_turns(os.environ):
        say(
            "the jobs of a GPU take turns on it: with NVIDIA's MPS they run side by side; "
            "`nvidia-cuda-mps-control -d` starts it"
        )
    return places


def _cores() -> Sequence[int]:
    """The cores that this process may use."""
    if sys.platform == "linux":
        return sorted(os.sched_getaffinity(0))
    return range(os.cpu_count() or 1)


def _check_data(study: Study, jobs: Jobs) -> None:
    """Refuses to start runs whose data are not there.

    Raises:
      UserError: real models are to be trained, and the folder holds no data of the study.
    """
    is_real = any(f"{seed}/sft" in jobs for seed in study.seeds)
    if is_real and not (Path(study.data) / "sft.jsonl").is_file():
        raise UserError(
            f"--data={study.data} holds no sft.jsonl: make it by stair-jax data study "
            f"--out={study.data}, or leave real models out: --parts=pocket,pocket_ablations"
        )
