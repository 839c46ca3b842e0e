"""A small run of the soak test of many trees, and the leaks that it finds."""

import json
import subprocess
import sys
from ast import literal_eval

import numpy as np
import pytest

from soak import growth
from soak.result import Result
from soak.usage import KINDS, UsageSamples
from stair_jax.record_log import RecordLog

_GROWTH = """
import json, sys
from pathlib import Path
from soak import growth

growth._TREES = 2
result = growth.run(16, 0, Path(sys.argv[1]))
print(json.dumps({"failures": [failure.what for failure in result.failures], **result.counts}))
"""


def test_trees_leak_nothing(tmp_path):
    """In a process of its own: what earlier tests leave behind grows and shrinks meanwhile."""
    command = [sys.executable, "-c", _GROWTH, str(tmp_path)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    assert json.loads(done.stdout) == {"failures": [], "trees": 16}
    assert len(RecordLog(tmp_path / "trees.jsonl.gz").read()) == 16


_SAMPLES = """
import os, sys, threading, time
from soak.usage import UsageSamples

samples, stop = UsageSamples(3), threading.Event()
before = os.listdir("/proc/self/task")
samples.take()
threads = [threading.Thread(target=stop.wait) for _ in range(3)]
for thread in threads:
    thread.start()
files = [open(f"{sys.argv[1]}/file{number}", "w") for number in range(5)]
kept = [[number] for number in range(10_000)]
samples.take()
stop.set()
for thread in threads:
    thread.join()
deadline = time.monotonic() + 30  # the system's thread ends a little after `join`
while os.listdir("/proc/self/task") != before and time.monotonic() < deadline:
    time.sleep(0.01)
for file in files:
    file.close()
del kept
samples.take()
print({name: values.tolist() for name, values in samples.after(0.0).items()})
"""


def test_a_sample_counts_threads_descriptors_and_objects(tmp_path):
    """In a process of its own, where no thread of an earlier test begins or ends meanwhile."""
    command = [sys.executable, "-c", _SAMPLES, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    seen = {name: np.array(values) for name, values in literal_eval(done.stdout).items()}
    assert (seen["threads"] - seen["threads"][0]).tolist() == [0, 3, 0]
    assert (seen["descriptors"] - seen["descriptors"][0]).tolist() == [0, 5, 0]
    assert seen["objects"][1] - seen["objects"][0] >= 10_000
    assert abs(seen["objects"][2] - seen["objects"][0]) < 500
    assert 10 < seen["memory_mb"][0] < 100_000


@pytest.mark.parametrize(
    ("kind", "per_sample", "found"),
    [
        ("objects", 40, True),
        ("objects", 0.1, False),
        ("threads", 1, True),
        ("descriptors", 0.05, True),
        ("memory_mb", 1.0, True),
        ("memory_mb", 0.1, False),
        (None, 0, False),
    ],
)
def test_growth_is_found(kind, per_sample, found):
    """In 100 samples, each after five trees."""
    samples, result = UsageSamples(100), Result("growth")
    for number in range(100):
        samples._values[number] = [
            1000 + (per_sample * number if name == kind else 0) for name in KINDS
        ]
    samples._taken = 100
    growth._compare(result, "searches", samples, 0)
    assert [failure.what.split(" grew")[0] for failure in result.failures] == (
        [f"searches: {kind}"] if found else []
    )


def test_growth_while_caches_fill_does_not_count():
    samples, result = UsageSamples(100), Result("growth")
    samples._values[:, :] = 1000
    samples._values[:20, :] = 10
    samples._taken = 100
    growth._compare(result, "searches", samples, 0)
    assert result.failures == []
