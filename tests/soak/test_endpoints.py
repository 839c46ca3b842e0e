"""A small run of the soak test of an endpoint's client, and the faults that it finds."""

import json

import pytest

from soak import batches, endpoints
from soak.endpoint_client import requests, settings
from soak.payments import CONCURRENCY
from stair_jax.endpoints.chat import Usage, identity, request_body
from stair_jax.endpoints.ledger import Ledger, reply_record
from stair_jax.endpoints.replies import Reply
from stair_jax.testing.fake_endpoint import FakeEndpoint

COUNT = 30


def test_a_client_that_is_killed_ends_with_the_right_results_and_pays_once(tmp_path):
    pytest.importorskip("openai", "3.0", reason="openai, of the extra endpoints, is not installed")
    result = endpoints.run(1, 0, tmp_path, COUNT)
    assert result.failures == []
    assert result.counts["kills"] == 1 and result.counts["calls"] >= COUNT


def test_a_client_of_batches_that_is_killed_pays_nothing_twice(tmp_path):
    pytest.importorskip("openai", "3.0", reason="openai, of the extra endpoints, is not installed")
    result = batches.run(1, 0, tmp_path, COUNT)
    assert result.failures == []
    assert result.counts["kills"] == 1 and result.counts["paid twice"] == 0


@pytest.fixture
def run(tmp_path):
    """A run that was killed before call 3, with the first request in the ledger; all is right."""
    attacked = endpoints.Client(FakeEndpoint(), tmp_path, COUNT)
    own = settings(attacked.endpoint.base_url)
    bodies = [request_body(one, own) for one in requests(COUNT)]
    ledger = Ledger(tmp_path / attacked.LEDGER)
    first = identity(bodies[0], own.endpoint, 0)
    ledger.append([reply_record(first, Reply("a", "stop"), Usage(), 0.0)])
    attacked.endpoint.calls = bodies[:3] + bodies[1:]
    attacked.endpoint.paid.update(json.dumps(body, sort_keys=True) for body in bodies)
    attacked.kept.append((3, ledger))
    (tmp_path / endpoints.RESULTS).write_text(attacked.expected())
    return attacked


def test_a_run_as_it_should_be_has_no_problem(run):
    assert run.problems() == [] and run.paid_twice == 0


def test_what_is_asked_again_though_it_was_kept_is_found(run):
    run.endpoint.calls.append(run.endpoint.calls[0])
    assert run.problems() == ["a reply that was on the disk was asked for again"]


def test_more_than_what_was_in_flight_is_found(run):
    for body in list(run.endpoint.paid)[:CONCURRENCY]:
        run.endpoint.paid[body] += 1
    assert run.problems() == []
    run.endpoint.paid[body] += 1
    assert run.problems() == ["more was paid twice than was in flight"]


def test_other_results_are_found(run):
    path = run.folder / endpoints.RESULTS
    path.write_text(path.read_text().replace("a", "b", 1))
    assert run.problems() == ["the results are not the endpoint's replies to the requests"]
