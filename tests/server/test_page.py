"""The chat page as files over HTTP; tests/browser has it in a browser."""

import re

import pytest

pytest.importorskip("fastapi", reason="needs the extra serve: pip install stair_jax[serve]")

from fastapi import FastAPI
from fastapi.testclient import TestClient

from stair_jax.server.page import page_router


@pytest.fixture(scope="module")
def client():
    app = FastAPI()
    app.include_router(page_router())
    return TestClient(app)


def test_the_page_and_all_that_it_names_is_served_from_here(client):
    page = client.get("/")
    named = re.findall(r'(?:src|href)="([^"#]+)"', page.text)
    assert "page/main.js" in named
    while named:
        answer = client.get(f"/{named.pop()}")
        assert answer.status_code == 200
        imports = re.findall(r'^import .* from "\./(.+)";$', answer.text, re.MULTILINE)
        named += [f"page/{name}" for name in imports]


def test_the_policy_allows_nothing_inline_and_nothing_from_elsewhere(client):
    policy = client.get("/").headers["content-security-policy"]
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert rules.pop("default-src") == "'none'"
    assert set(rules.values()) == {"'self'", "'none'"}
    text = client.get("/").text
    assert not re.search(r"<style|<script(?![^>]*src=)| on\w+=| style=", text)


def test_types_are_named_so_that_no_browser_guesses(client):
    kinds = {"page.css": "text/css", "main.js": "text/javascript", "icon.svg": "image/svg+xml"}
    for name, kind in kinds.items():
        answer = client.get(f"/page/{name}")
        assert answer.headers["content-type"].startswith(kind)
        assert answer.headers["x-content-type-options"] == "nosniff"


def test_a_file_that_a_browser_has_is_not_sent_again(client):
    first = client.get("/page/main.js")
    again = client.get("/page/main.js", headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    other = client.get("/page/page.css", headers={"If-None-Match": first.headers["etag"]})
    assert other.status_code == 200


@pytest.mark.parametrize("name", ["__init__.py", "none.js", "..%2f__init__.py", "%2e%2e"])
def test_nothing_else_is_served(client, name):
    assert client.get(f"/page/{name}").status_code == 404
