"""Searches by the name of a model, and by the field of a body."""

import pytest

from stair_jax.errors import UserError
from stair_jax.inference.candidates import TestTimeSettings
from stair_jax.inference.methods import Method, parse_method
from stair_jax.server.search_names import (
    Search,
    SearchFields,
    UnknownModelError,
    choose_search,
    model_names,
    read_model,
    suffix_of,
)
from stair_jax.settings import build

SETTINGS = TestTimeSettings(n=8, width=2, successors=4, max_depth=7)


def fields(**values):
    return build(SearchFields, values, "search")


def chosen(model, **values):
    found = choose_search(read_model(model, "m"), fields(**values), SETTINGS)
    return None if found is None else (str(found.method), found.max_depth, found.details)


@pytest.mark.parametrize(
    ("suffix", "method"),
    [
        ("best-of-8", "best_of_n:8"),
        ("beam-2x4", "beam_search:2x4"),
        ("dvts-3x5", "dvts:3x5"),
        ("best-of-16-self-reward", "best_of_n_self_reward:16"),
        ("beam-2x4-self-reward", "beam_search_self_reward:2x4"),
    ],
)
def test_a_suffix_is_a_search(suffix, method):
    assert read_model(f"m:{suffix}", "m") == parse_method(method)
    assert suffix_of(parse_method(method)) == suffix


def test_the_name_alone_is_no_search():
    assert read_model("org/m:v2", "org/m:v2") is None
    assert chosen("m") is None


def test_a_name_may_have_a_colon_itself():
    assert read_model("m:v2:best-of-4", "m:v2") == Method("best_of_n", (4,))


@pytest.mark.parametrize(
    "model",
    ["", "n", "m:", "m:best", "m:best-of-", "m:best-of-0", "m:best-of-2x2", "m:beam-4", "m:beam-2x",
     "m:best-of-99999", "m:best-of-8-self", "m:best-of-8:best-of-8", "n:best-of-8", "m:beam-٢x2"],
)  # fmt: skip
def test_another_name_is_unknown(model):
    with pytest.raises(UnknownModelError, match="'m:best-of-8'"):
        read_model(model, "m")


def test_what_is_listed_is_what_can_be_asked():
    listed = list(model_names("m", SETTINGS, is_guided=True, is_structured=True))
    assert listed == [
        "m",
        "m:best-of-8",
        "m:beam-2x4",
        "m:dvts-2x4",
        "m:best-of-8-self-reward",
        "m:beam-2x4-self-reward",
        "m:dvts-2x4-self-reward",
    ]
    assert all(read_model(name, "m") for name in listed[1:])
    assert list(model_names("m", SETTINGS, is_guided=False, is_structured=False)) == ["m"]


def test_a_body_asks_for_a_search_too():
    assert chosen("m", method="best_of_n") == ("best_of_n:8", 7, False)
    assert chosen("m", method="beam_search:3x2", max_depth=2) == ("beam_search:3x2", 2, False)
    assert chosen("m", method="dvts", width=3) == ("dvts:3x4", 7, False)
    assert chosen("m", method="best_of_n_self_reward", n=2)[0] == "best_of_n_self_reward:2"


def test_a_body_says_more_of_the_search_in_the_name():
    assert chosen("m:beam-2x2", details=True) == ("beam_search:2x2", 7, True)
    assert chosen("m:beam-2x2", max_depth=3, width=2) == ("beam_search:2x2", 3, False)
    assert chosen("m:best-of-4", method="best_of_n") == ("best_of_n:4", 7, False)
    assert chosen("m:best-of-4", method="best_of_n:4", n=4) == ("best_of_n:4", 7, False)


@pytest.mark.parametrize(
    ("model", "values"),
    [
        ("m:best-of-4", {"method": "beam_search"}),
        ("m:best-of-4", {"method": "best_of_n:8"}),
        ("m:best-of-4", {"method": "best_of_n_self_reward"}),
        ("m:best-of-4", {"n": 8}),
        ("m", {"method": "best_of_n:4", "n": 8}),
        ("m:best-of-4", {"width": 2}),
        ("m", {"method": "dvts", "n": 2}),
        ("m", {"method": "best_of_n", "max_depth": 2}),
        ("m", {"details": True}),
        ("m", {"n": 4}),
        ("m", {"method": "greedy"}),
        ("m", {"method": "best_of"}),
        ("m", {"methods": "best_of_n"}),
        ("m", {"method": "best_of_n", "n": 0}),
    ],
)
def test_what_cannot_be_is_refused(model, values):
    with pytest.raises(UserError):
        chosen(model, **values)


def test_settings_of_an_answer_are_those_of_its_search():
    from stair_jax.run.answer_models import AnswerSettings

    search = Search(Method("beam_search", (2, 3)), 5)
    settings = search.settings(AnswerSettings(temperature=0.3))
    assert (settings.method, settings.max_depth) == ("beam_search:2x3", 5)
    assert settings.temperature == 0.3
