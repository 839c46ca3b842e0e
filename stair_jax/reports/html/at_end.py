"""The report that a run writes when it is done, which never fails the run."""

from pathlib import Path

from stair_jax.errors import UserError, system_error
from stair_jax.monitoring import say
from stair_jax.reports.html.build import REPORT_FILE, write_report
from stair_jax.run.stage_records import COMPLETE_FILE
from stair_jax.run.workdir import CONFIG_FILE, stage_labels
from stair_jax.stopping import heed


def report_at_end(workdir: Path) -> None:
    """Writes the report of a run, unless it is there already, and says where it is.

    What goes wrong with it is said in one line: the run itself is done.
    """
    try:
        path = workdir / REPORT_FILE
        if not _is_newest(path):
            say("writing the report of the run")
            write_report([workdir])
        say(f"report: {path} (open it in a browser)")
    except Exception as error:
        heed()  # what a library made of a signal's exception is no fault of the report
        text = str(error) if isinstance(error, UserError) else system_error(error)
        reason = " ".join((text or f"{type(error).__name__}: {error}").split())
        say(f"the run is done, but its report could not be written: {reason}")


def _is_newest(path: Path) -> bool:
    """Whether a report was written after all records of its run."""
    if not path.is_file():
        return False
    workdir = path.parent
    names = [label.rpartition(":")[2] for label in stage_labels(workdir)]
    records = [workdir / CONFIG_FILE, *(workdir / name / COMPLETE_FILE for name in names)]
    times = [record.stat().st_mtime_ns for record in records if record.is_file()]
    return path.stat().st_mtime_ns > max(times)
