"""The chat page in a real browser, against the server itself, over a tiny model."""

import threading

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

MOST = 30  # tokens of an answer


@pytest.fixture(scope="module")
def answerer(tmp_path_factory, chat_tokenizer):
    folder = tmp_path_factory.mktemp("served") / "hf"
    shape = {"num_hidden_layers": 1, "max_position_embeddings": 512}
    config, params = tiny_model(chat_tokenizer.vocab_size, **shape)
    huggingface.save(folder, params, config, chat_tokenizer)
    settings = AnswerSettings(method="sample", max_answer_tokens=MOST, slots=2, temperature=1.0)
    files, _ = find_files(str(folder), "", settings)
    return load_answerer(files, None, settings, 2, steps=4)


@pytest.fixture
def served(answerer):
    """Address of a server that asks for the key "secret"."""
    settings = ServerSettings(port=0, served_name="tiny")
    with bind(settings) as bound:
        app = make_app(Serving(answerer, settings), Keys(["secret"]))
        config = uvicorn.Config(app, log_level="error")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
        thread.start()
        yield address_of(bound)
        server.should_exit = True
        thread.join()


def test_the_page_talks_to_the_server_that_it_comes_from(served, open_page):
    opened = open_page(served)
    page = opened.page
    page.wait_for_selector("#settings[open]")
    page.keyboard.type("secret")
    page.keyboard.press("Enter")
    page.wait_for_selector("#model:enabled")
    assert page.locator("#model option").first.inner_text() == "tiny"
    for count, text in enumerate(("hello", "and again"), start=1):
        page.fill("#box", text)
        page.press("#box", "Enter")
        whole = page.locator("article.answer[aria-busy=false] .cost", has_text="written")
        whole.nth(count - 1).wait_for()
    assert page.locator("#problem").is_hidden()
    assert f"{MOST} written" in page.locator(".cost").last.inner_text()
    assert all(url.startswith(served) for url in opened.requests)
