"""A small run of the soak test of many trees, and the leaks that it finds."""

import gc
import os
import threading
import time

import pytest

from soak import growth
from soak.result import Result
from soak.usage import KINDS, UsageSamples
from stair_jax.record_log import RecordLog


def test_trees_leak_nothing(monkeypatch, tmp_path):
    monkeypatch.setattr(growth, "_TREES", 2)
    result = growth.run(16, 0, tmp_path)
    assert result.failures == []
    assert len(RecordLog(tmp_path / "trees.jsonl.gz").read()) == result.counts["trees"] == 16


def wait_for_threads_to_end():
    """Those of earlier tests in this process, which may just be ending: half a second of none."""
    gc.collect()  # which a sample does too: pools in circles end their threads then
    alike = 0
    while alike < 5:
        before = os.listdir("/proc/self/task")
        time.sleep(0.1)
        alike = alike + 1 if os.listdir("/proc/self/task") == before else 0


def test_a_sample_counts_threads_descriptors_and_objects(tmp_path):
    samples, stop = UsageSamples(3), threading.Event()
    wait_for_threads_to_end()
    samples.take()
    threads = [threading.Thread(target=stop.wait) for _ in range(3)]
    for thread in threads:
        thread.start()
    files = [(tmp_path / "file").open("w") for _ in range(5)]
    kept = [[number] for number in range(10_000)]
    samples.take()
    stop.set()
    for thread in threads:
        thread.join()
    for file in files:
        file.close()
    del kept
    samples.take()
    seen = samples.after(0.0)
    assert list(seen["threads"] - seen["threads"][0]) == [0, 3, 0]
    assert list(seen["descriptors"] - seen["descriptors"][0]) == [0, 5, 0]
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
