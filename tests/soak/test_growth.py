"""A slice of the soak of many trees, and what it finds where something grows."""

import threading

import pytest

from soak import growth
from soak.result import Result
from soak.usage import KINDS, Held
from stair_jax.storage import RecordLog


def test_some_trees_leave_nothing_behind(tmp_path):
    result = growth.run(40, 0, tmp_path)
    assert result.failures == []
    assert len(RecordLog(tmp_path / "trees.jsonl.gz").read()) == result.counts["trees"] == 40


def test_a_look_sees_threads_descriptors_and_objects(tmp_path):
    held, stop = Held(3), threading.Event()
    held.look()
    threads = [threading.Thread(target=stop.wait) for _ in range(3)]
    for thread in threads:
        thread.start()
    files = [(tmp_path / "file").open("w") for _ in range(5)]
    kept = [[number] for number in range(10_000)]
    held.look()
    stop.set()
    for thread in threads:
        thread.join()
    for file in files:
        file.close()
    del kept
    held.look()
    seen = held.later(0.0)
    assert list(seen["threads"] - seen["threads"][0]) == [0, 3, 0]
    assert list(seen["descriptors"] - seen["descriptors"][0]) == [0, 5, 0]
    assert seen["objects"][1] - seen["objects"][0] >= 10_000
    assert abs(seen["objects"][2] - seen["objects"][0]) < 500
    assert 10 < seen["memory_mb"][0] < 100_000


@pytest.mark.parametrize(
    ("kind", "per_look", "found"),
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
def test_what_grows_with_the_trees_is_found(kind, per_look, found):
    """In 100 looks, each after five trees."""
    held, result = Held(100), Result("growth")
    for number in range(100):
        held._values[number] = [1000 + (per_look * number if name == kind else 0) for name in KINDS]
    held._count = 100
    growth._compare(result, "searches", held, 0)
    assert [failure.what.split(" grew")[0] for failure in result.failures] == (
        [f"searches: {kind}"] if found else []
    )


def test_what_comes_before_the_caches_are_full_does_not_count():
    held, result = Held(100), Result("growth")
    held._values[:, :] = 1000
    held._values[:20, :] = 10
    held._count = 100
    growth._compare(result, "searches", held, 0)
    assert result.failures == []
