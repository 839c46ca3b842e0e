"""A run that is interrupted twice ends with the bytes of an undisturbed run.

This is the soak test `kills` with chosen instead of random moments.
"""

import re
import signal

import pytest

from soak import kills
from soak.compare import tree_ids
from soak.restarts import Moment

pytestmark = [pytest.mark.distributed, pytest.mark.slow]

NUM_TREES = 4
FEWER = {"pocket.num_search": NUM_TREES, "dpo.checkpoint_every": 2}  # enough to be in the middle of


def has_some_trees(run):
    """Whether a tree is on disk; others are then in progress."""
    return bool(tree_ids(run.workdir))


def saved_steps(folder):
    """Steps of the complete checkpoints."""
    return [int(path.name) for path in folder.glob("checkpoints/*") if path.name.isdigit()]


def has_checkpoint(run):
    """Whether DPO has saved a checkpoint; after SIGTERM it saves another one."""
    return bool(saved_steps(run.workdir / "iter1"))


def lost_steps(workdir):
    """Problems with the checkpoint that DPO saves after SIGTERM."""
    lines = (workdir / "iter1/metrics.jsonl").read_bytes().count(b"\n")
    saved = max(saved_steps(workdir / "iter1"))
    return [] if saved == lines else [f"{lines} steps were done and {saved} saved"]


def check_goes_on(name, said):
    """Checks that the stage was interrupted in the middle, and resumed there."""
    match = re.search(rf"^{name}: resuming at (\d+) of (\d+) ", said, re.MULTILINE)
    assert match, f"{name} was not interrupted in the middle:\n{said}"
    done, total = map(int, match.groups())
    assert 0 < done < total, f"{name} was interrupted at {done} of {total}, too late for a test"


def test_a_killed_and_resumed_run_gives_the_same_bytes(tmp_path):
    """SIGKILL in the middle of the search, SIGTERM in that of DPO; test_loop.py kills training."""
    moments = [
        Moment(signal.SIGKILL, has_some_trees, "at the first tree"),
        Moment(signal.SIGTERM, has_checkpoint, "at a checkpoint of DPO", check=lost_steps),
    ]
    overrides = {
        name: value for name, value in kills.OVERRIDES.items() if not name.startswith("evaluate.")
    }
    overrides |= FEWER
    overrides["stages"] = tuple(stage for stage in overrides["stages"] if stage != "evaluate")
    early = ("data", "base", "sft")  # the interrupted runs begin after these
    result = kills.run(2, 0, tmp_path, moments, overrides, copied=early)
    said = [(tmp_path / f"run0.start{start}.0.log").read_text() for start in range(3)]
    assert result.failures == [], said
    assert result.counts["SIGKILL"] == result.counts["in search1"] == 1
    assert result.counts["SIGTERM"] == result.counts["in iter1"] == 1
    check_goes_on("search1", said[1])
    check_goes_on("iter1", said[2])
    assert len(tree_ids(tmp_path / "undisturbed")) == NUM_TREES
