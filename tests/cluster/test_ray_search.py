"""Searches by the real command on workers of a Ray cluster of this machine, and what follows."""

import pytest

from soak import workers
from soak.command import Command

pytest.importorskip("ray", reason="Ray is not installed")
pytestmark = [pytest.mark.distributed, pytest.mark.slow]

OVERRIDES = workers.OVERRIDES | {
    "stages": ("pocket:data", "model:base", "search:search1", "sft"),
    "search1.model": "base",
    "sft.epochs": 0.2,  # 4 steps
}


TRAINED = ("sft/metrics.jsonl", "sft/hf/model.safetensors")


def test_a_worker_that_is_killed_loses_no_tree(tmp_path, monkeypatch):
    """The model that is trained behind the search is that of a run of one process, to the byte."""
    monkeypatch.setattr(workers, "_LONGEST_DELAY", 0.1)
    result = workers.run(1, 0, tmp_path, OVERRIDES, trees=12)
    assert result.failures == []
    assert result.counts["workers killed"] == 1
    for name in TRAINED:
        alone, dealt = (tmp_path / run / name for run in ("undisturbed", "run0"))
        assert alone.read_bytes() == dealt.read_bytes(), name


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
