"""A small run of the soak test of a stage with a teacher, and the faults that it finds."""

import json

import pytest

from soak import synthesis
from soak.payments import CONCURRENCY
from stair_jax.endpoints.chat import Usage, identity
from stair_jax.endpoints.ledger import Ledger, reply_record
from stair_jax.endpoints.replies import Reply
from stair_jax.testing.fake_endpoint import FakeEndpoint


@pytest.mark.slow
def test_a_stage_that_is_killed_ends_with_the_same_files_and_pays_once(tmp_path):
    pytest.importorskip("openai", "3.0", reason="openai, of the extra endpoints, is not installed")
    result = synthesis.run(1, 0, tmp_path, 8)
    assert result.failures == []
    assert result.counts["kills"] == 1 and result.counts["calls"] >= 2 * 8


@pytest.fixture
def run(tmp_path):
    """A stage that was killed before call 3, with the first reply in the ledger; all is right."""
    attacked = synthesis.Stage(FakeEndpoint(), tmp_path / "stage", 6, tmp_path, {})
    bodies = [{"messages": [], "seed": number} for number in range(6)]
    ledger = Ledger(tmp_path / "replies")
    first = identity(bodies[0], attacked.endpoint.base_url, 0)
    ledger.append([reply_record(first, Reply("a", "stop"), Usage(), 0.0)])
    attacked.endpoint.calls = bodies[:3] + bodies[1:]
    attacked.endpoint.paid.update(json.dumps(body, sort_keys=True) for body in bodies)
    attacked.kept.append((3, ledger))
    attacked.folder.mkdir()
    for name in synthesis.FILES:
        (attacked.folder / name).write_text("right")
    attacked.expected = attacked.made()
    return attacked


def test_a_run_as_it_should_be_has_no_problem(run):
    assert run.problems() == []


def test_each_fault_is_found(run):
    (run.folder / "sft.jsonl").write_text("wrong")
    run.endpoint.calls = [*run.endpoint.calls, run.endpoint.calls[0]]
    run.endpoint.paid.update(dict.fromkeys(run.endpoint.paid, CONCURRENCY))
    assert run.problems() == [
        "sft.jsonl differ from those of an undisturbed stage",
        "a reply that was on the disk was asked for again",
        "more was paid twice than was in flight",
    ]
