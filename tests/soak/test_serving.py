"""A small run of the soak test of the server, and the faults that it finds."""

import random

import pytest

from soak import serving
from soak.serving_bodies import draw_request
from stair_jax.server import sampled
from stair_jax.server.serving import Serving


@pytest.fixture(scope="module")
def answerer(tmp_path_factory):
    return serving.make_answerer(tmp_path_factory.mktemp("served"))


@pytest.fixture(autouse=True)
def loaded_once(answerer, monkeypatch):
    monkeypatch.setattr(serving, "make_answerer", lambda folder: answerer)


def test_no_request_fails_and_no_page_is_lost(tmp_path):
    result = serving.run(200, 0, tmp_path)
    assert result.failures == []
    assert result.counts["clients that left"] == 2 and result.counts["2xx"] > 20
    assert sum(result.counts.values()) == 202


def test_requests_are_drawn_again_by_their_seed():
    drawn = [draw_request(random.Random(seed)) for seed in range(300)]
    assert drawn == [draw_request(random.Random(seed)) for seed in range(300)]
    assert len({request.path for request in drawn}) == 6 and len(set(drawn)) > 270


def test_a_status_of_500_is_found(monkeypatch, tmp_path):
    monkeypatch.setattr(Serving, "check_room", lambda *arguments: 1 // 0)
    result = serving.run(40, 0, tmp_path)
    assert any("status 500" in failure.what for failure in result.failures)
    assert "--size 1 --seed" in result.failures[0].reproduce


def test_lost_pages_are_found(answerer, monkeypatch, tmp_path):
    taken = []
    give_back = sampled._SharedPrompt.give_back
    monkeypatch.setattr(
        sampled._SharedPrompt, "give_back", lambda shared, model: taken.append((shared, model))
    )
    result = serving.run(300, 0, tmp_path)
    assert any("are not released" in failure.what for failure in result.failures)
    for shared, model in taken:
        give_back(shared, model)
    assert not answerer.engine.num_handles


def test_refusals_of_another_form_are_found(monkeypatch, tmp_path):
    assert not serving._is_error('{"detail": "x"}') and not serving._is_error("no")
    monkeypatch.setattr(serving, "_is_error", lambda text: False)
    result = serving.run(20, 0, tmp_path)
    assert any("OpenAI's form" in failure.what for failure in result.failures)
