"""Searches by the real command on workers of a Ray cluster of this machine."""

import pytest

from soak import workers
from soak.command import Command

pytest.importorskip("ray", reason="Ray is not installed")
pytestmark = [pytest.mark.distributed, pytest.mark.slow]

OVERRIDES = workers.OVERRIDES | {
    "stages": ("pocket:data", "model:base", "search:search1"),
    "search1.model": "base",
}


def test_a_worker_that_is_killed_loses_no_tree(tmp_path, monkeypatch):
    monkeypatch.setattr(workers, "_LONGEST_DELAY", 0.1)
    result = workers.run(1, 0, tmp_path, OVERRIDES, trees=12)
    assert result.failures == []
    assert result.counts["workers killed"] == 1


@pytest.mark.parametrize(
    ("flag", "said"),
    [
        ("--cluster=two", "it must be local:N"),
        ("--cluster=ray://127.0.0.1:1", "RAY_AUTH_MODE=token"),
    ],
)
def test_a_wrong_cluster_is_one_line_before_anything_is_written(tmp_path, flag, said):
    command = Command.of_config("configs/pocket.py", tmp_path / "compiled", {})
    command = Command((*command.arguments, flag), tmp_path / "compiled")
    with command.start(tmp_path / "run") as started:
        assert started.wait(240) == [2]
        (line,) = [text for text in started.output().splitlines() if "stair_jax:" in text]
    assert said in line and not (tmp_path / "run").exists()
