"""The chat page in a real browser, against the server itself, over a tiny model."""

import threading

import jax
import pytest

pytest.importorskip("fastapi", reason="needs the extra serve: pip install stair_jax[serve]")

import uvicorn

from stair_jax.models import huggingface
from stair_jax.run.answer_models import AnswerSettings, find_files
from stair_jax.run.answering import load_answerer
from stair_jax.server.app import make_app
from stair_jax.server.keys import Keys
from stair_jax.server.listening import address_of, bind
from stair_jax.server.serving import Serving
from stair_jax.server.settings import ServerSettings
from stair_jax.testing.tiny_models import tiny_model
from stair_jax.testing.tiny_tokenizers import word_tokenizer

MOST = 30  # tokens of an answer
KEY = "a key of this test"


@pytest.fixture(scope="module")
def answerer(tmp_path_factory):
    """A random model of 18 words, so that it samples tags often, and a reward model."""
    folder = tmp_path_factory.mktemp("served")
    tokenizer = word_tokenizer()
    shape = {"num_hidden_layers": 1, "max_position_embeddings": 256, "initializer_range": 0.02}
    config, params = tiny_model(tokenizer.vocab_size, **shape)
    huggingface.save(folder / "hf", params, config, tokenizer)
    head = {"kernel": jax.random.normal(jax.random.key(1), (config.hidden_size,))}
    huggingface.save(folder / "prm", params, config, tokenizer, head)
    settings = AnswerSettings(
        method="sample", max_answer_tokens=MOST, max_step_tokens=10, slots=2, temperature=1.0, n=2
    )
    files, prm = find_files(str(folder / "hf"), str(folder / "prm"), settings)
    return load_answerer(files, prm, settings, 2, steps=4)


@pytest.fixture
def served(answerer):
    """Address of a server that asks for a key."""
    settings = ServerSettings(port=0, served_name="tiny")
    with bind(settings) as bound:
        app = make_app(Serving(answerer, settings), Keys([KEY]))
        server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
        thread.start()
        yield address_of(bound)
        server.should_exit = True
        thread.join()


@pytest.fixture
def opened(served, open_page):
    """The page, when its key is accepted."""
    opened = open_page(served)
    opened.page.wait_for_selector("#settings[open]")
    opened.page.keyboard.type(KEY)
    opened.page.keyboard.press("Enter")
    opened.page.wait_for_selector("#model:enabled")
    return opened


def ask(page, text):
    """The next answer, when it is whole."""
    count = page.locator("article.answer").count()
    page.fill("#box", text)
    page.press("#box", "Enter")
    answer = page.locator("article.answer").nth(count)
    answer.locator(".cost", has_text="written").wait_for()
    assert page.locator("#problem").is_hidden()
    return answer


def test_the_page_talks_to_the_server_that_it_comes_from(served, opened):
    page = opened.page
    assert page.locator("#model option").first.inner_text() == "tiny"
    for text in ("rate 1", "rate 2"):
        answer = ask(page, text)
        assert "written" in answer.locator(".cost").inner_text()
    assert all(url.startswith(served) for url in opened.requests)


def test_a_search_of_the_server_shows_the_scores_of_the_steps(opened):
    page = opened.page
    page.select_option("#model", "tiny:best-of-2")
    answer = ask(page, "rate 1")
    answer.locator(".candidates > summary").click()
    rows = answer.locator("tbody tr")
    assert rows.count() == 2
    assert "chosen" in rows.first.locator("th").inner_text()
    assert float(rows.first.locator("td.number").inner_text()) >= -1e6
    assert rows.locator("li").count() >= 2
    assert "of them kept" in answer.locator(".cost").inner_text()
