"""Settings of an endpoint: what must be given, and that no secret is shown or kept."""

import pytest

from stair_jax.endpoints.settings import ChatSampling, EndpointSettings
from stair_jax.errors import UserError
from stair_jax.settings import build

GIVEN = {"base_url": "https://api.example.org/v1", "model": "judge"}
PRICES = {"input_price": 0.5, "output_price": 2.0}


def refusal(**values):
    with pytest.raises(UserError) as caught:
        EndpointSettings(**values).check("config.judge.endpoint")
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"model": "judge", "max_requests": 1}, r"config.judge.endpoint.base_url is empty"),
        ({"base_url": "http://a/v1", "max_requests": 1}, r"config.judge.endpoint.model is empty"),
        (GIVEN, "has no cap: set max_requests, or input_price, output_price and budget"),
        (GIVEN | PRICES, "has no cap"),
        (GIVEN | {"budget": 1.0}, "budget needs"),
        (GIVEN | {"budget": 1.0, "input_price": 1.0}, "budget needs"),
        (GIVEN | {"max_requests": 1, "base_url": "api.example.org"}, "must be an address"),
        (GIVEN | {"max_requests": 1, "base_url": "http://a/v1?x=1"}, "must be an address"),
        (GIVEN | {"max_requests": 1, "base_url": "http://a:port/"}, "no address"),
        (GIVEN | {"base_url": "http://a/v1/chat/completions"}, "before /chat/completions"),
        (GIVEN | {"extra_body": {"n": 2, "stream": True}}, "extra_body holds n, stream"),
        (GIVEN | {"extra_body": {"f": object()}}, "extra_body cannot be sent"),
    ],
)
def test_what_is_missing_or_wrong_is_named(values, said):
    assert said in refusal(**values)


@pytest.mark.parametrize("cap", [{"max_requests": 1}, PRICES | {"budget": 1.0}])
def test_one_cap_is_enough(cap):
    settings = EndpointSettings(**GIVEN, **cap)
    assert settings.check("endpoint") is None
    assert "max_requests" in refusal(**GIVEN)


def test_a_key_in_place_of_a_name_is_not_shown():
    said = refusal(**GIVEN, max_requests=1, key_variable="sk-secret123")
    assert "secret" not in said and "name of an environment variable" in said
    said = refusal(**GIVEN | {"base_url": "https://user:secret@a/v1"}, max_requests=1)
    assert "secret" not in said and "key_variable" in said


def test_the_key_comes_from_the_environment_and_must_fit_a_header(monkeypatch):
    settings = EndpointSettings(**GIVEN, max_requests=1, key_variable="SOME_KEY")
    monkeypatch.delenv("SOME_KEY", raising=False)
    with pytest.raises(UserError, match="SOME_KEY is not set"):
        settings.check("endpoint")
    monkeypatch.setenv("SOME_KEY", " sk-1 \n")
    settings.check("endpoint")
    assert settings.read_key() == "sk-1"
    assert "sk-1" not in repr(settings)
    monkeypatch.setenv("SOME_KEY", "sk-1\r\nX: y")
    with pytest.raises(UserError, match="holds no key") as caught:
        settings.read_key()
    assert "sk-1" not in str(caught.value)


def test_a_section_of_a_config_becomes_settings():
    section = GIVEN | {"sampling": {"temperature": 0, "stop": ["\n"]}, "concurrency": 4}
    settings = build(EndpointSettings, section, "config.judge.endpoint")
    assert settings.sampling == ChatSampling(temperature=0.0, stop=("\n",))
    with pytest.raises(UserError, match=r"concurrency is 0: it must be at least 1"):
        build(EndpointSettings, {"concurrency": 0}, "config.judge.endpoint")


def test_prices_are_of_a_million_tokens():
    assert EndpointSettings(**PRICES).cost(3_000_000, 500_000) == 2.5
    assert EndpointSettings().cost(3_000_000, 500_000) == 0.0
