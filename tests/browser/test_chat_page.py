"""The chat page in a real browser, against a server that says what the test wants."""

import json
import random
import threading

import pytest

pytest.importorskip("fastapi", reason="needs the extra serve: pip install stair_jax[serve]")

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, StreamingResponse

from stair_jax.server.page import page_router

USAGE = {
    "prompt_tokens": 7,
    "completion_tokens": 42,
    "total_tokens": 49,
    "completion_tokens_details": {"reasoning_tokens": 5, "kept_tokens": 9},
}
REASONING = "Title: Look\nIt is a sum.\n\nTitle: Add\nTwo and two."


class Server:
    """A server whose answers are scripted.

    Attributes:
      url: where it listens.
      bodies: of the requests for an answer, and keys the keys that came with them.
      deltas: of the next answers, each a dict; None waits until `gate` is set.
      last: fields of the choice that ends them.
      failure: (status, message, headers) in place of an answer.
      key: that it asks for; "": none.
      was_left: set when a client leaves before its answer is whole.
    """

    def __init__(self):
        self.bodies, self.keys = [], []
        self.deltas, self.last, self.failure, self.key = [], {}, None, ""
        self.names = ["tiny", "tiny:best-of-8"]
        self.gate, self.was_left = threading.Event(), threading.Event()
        self.is_ready = True
        app = FastAPI()
        app.include_router(page_router())
        app.get("/v1/models")(self._models)
        app.get("/health")(self._health)
        app.post("/v1/chat/completions")(self._chat)
        self._server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))
        self._thread = threading.Thread(target=self._server.run)
        self._thread.start()
        while not self._server.started:
            assert self._thread.is_alive()
            self._thread.join(0.01)
        port = self._server.servers[0].sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{port}/"

    def close(self):
        self.gate.set()
        self._server.should_exit = True
        self._thread.join()

    def _health(self):
        return JSONResponse({}, 200 if self.is_ready else 503)

    async def _models(self, request: Request):
        if not self.is_ready:
            return _error(503, "the model is being loaded")
        if self.key and request.headers.get("authorization") != f"Bearer {self.key}":
            return _error(401, "the API key is wrong")
        return {"object": "list", "data": [{"id": name} for name in self.names]}

    async def _chat(self, request: Request):
        self.bodies.append(await request.json())
        self.keys.append(request.headers.get("authorization"))
        if self.failure:
            status, message, headers = self.failure
            return _error(status, message, headers)
        return StreamingResponse(self._stream(request), media_type="text/event-stream")

    async def _stream(self, request):
        for delta in self.deltas:
            if delta is None:
                while not self.gate.wait(0.01):
                    if await request.is_disconnected():
                        self.was_left.set()
                        return
                continue
            yield _event({"choices": [{"index": 0, "delta": delta, "finish_reason": None}]})
        end = {"index": 0, "delta": {}, "finish_reason": "stop"} | self.last
        yield _event({"choices": [end]})
        yield _event({"choices": [], "usage": USAGE}) + ": still there\n\ndata: [DONE]\n\n"


def _event(chunk):
    return f"data: {json.dumps(chunk)}\n\n"


def _error(status, message, headers=None):
    return JSONResponse({"error": {"message": message}}, status, headers)


@pytest.fixture
def server():
    server = Server()
    yield server
    server.close()


@pytest.fixture
def chat(open_page, server):
    """The page, when it has its list of models."""
    opened = open_page(server.url)
    opened.page.wait_for_selector("#model:enabled")
    return opened


def ask(page, text="2 + 2?"):
    page.fill("#box", text)
    page.press("#box", "Enter")


def answered(page, text="2 + 2?"):
    """Asks, and gives back the last answer when it is whole."""
    ask(page, text)
    page.wait_for_selector("article.answer:last-of-type[aria-busy=false]")
    return page.locator("article.answer").last


def structured(content="4"):
    return [{"reasoning": REASONING[:30]}, {"reasoning": REASONING[30:]}, {"content": content}]


def test_an_answer_is_shown_with_its_steps_folded_and_what_it_cost(server, chat):
    server.deltas = structured()
    answer = answered(chat.page)
    assert answer.locator("summary").all_inner_texts() == ["Look", "Add"]
    assert answer.locator(".steps details[open]").count() == 0
    assert answer.locator(".content").inner_text() == "4"
    cost = answer.locator(".cost").inner_text()
    assert cost.startswith("7 tokens read · 42 written, 9 of them kept · ")
    answer.locator("summary").first.click()
    assert answer.locator(".steps details[open] .text").inner_text() == "It is a sum."


def test_a_chat_goes_on_with_the_final_answers_alone(server, chat):
    server.deltas = structured()
    answered(chat.page, "2 + 2?")
    answered(chat.page, "And 3?")
    assert server.bodies[1]["messages"] == [
        {"role": "user", "content": "2 + 2?"},
        {"role": "assistant", "content": "4"},
        {"role": "user", "content": "And 3?"},
    ]
    assert server.bodies[0]["stream_options"] == {"include_usage": True}
    assert "search" not in server.bodies[0] and "temperature" not in server.bodies[0]


def test_an_answer_is_shown_while_it_comes_and_escape_stops_it(server, chat):
    server.deltas = [*structured("so far"), None]
    ask(chat.page)
    chat.page.wait_for_selector("text=so far")
    assert chat.page.locator("#stop").is_visible()
    assert chat.page.locator("#send").is_disabled()
    chat.page.keyboard.press("Escape")
    chat.page.wait_for_selector(".note >> text=Stopped.")
    assert server.was_left.wait(5)
    assert not chat.page.locator("#stop").is_visible()


def test_a_new_chat_may_begin_while_an_answer_comes(server, chat):
    server.deltas, page = [*structured("so far"), None], chat.page
    ask(page)
    page.wait_for_selector("text=so far")
    page.keyboard.press("Alt+n")
    assert page.locator("article").count() == 0
    assert server.was_left.wait(5)
    page.wait_for_selector("#stop", state="hidden")
    server.deltas = structured()
    assert answered(page, "Anew").locator(".content").inner_text() == "4"
    assert server.bodies[1]["messages"] == [{"role": "user", "content": "Anew"}]


def test_an_answer_that_was_cut_off_says_so_and_is_left_out_of_what_follows(server, chat):
    server.deltas, server.last = structured()[:1], {"finish_reason": "length"}
    answer = answered(chat.page)
    assert "cut off" in answer.locator(".note").inner_text()
    assert "left out" in answer.locator(".note").inner_text()
    answered(chat.page, "Once more")
    assert server.bodies[1]["messages"] == [{"role": "user", "content": "Once more"}]


def test_a_search_shows_its_candidates_with_the_scores_of_their_steps(server, chat):
    def text(final):
        return (
            "<|Reasoning_step|>Title: Look\nIt is.\n<|/Reasoning_step|>\n\n"
            f"<|Output|>Final Answer: {final}<|/Output|>"
        )

    candidates = [
        {"text": text("5"), "score": 0.1, "step_scores": [0.5, 0.1]},
        {"text": text("4"), "score": 0.9, "step_scores": [0.5, 0.9]},
        {"text": text("6"), "score": None, "step_scores": [0.3, None]},
    ]
    search = {"candidates": candidates, "method": "best_of_n:8", "tokens": 42}
    server.deltas, server.last = structured(), {"search": search}
    chat.page.select_option("#model", "tiny:best-of-8")
    answer = answered(chat.page)
    assert server.bodies[0]["model"] == "tiny:best-of-8"
    assert server.bodies[0]["search"] == {"details": True}
    assert "3 candidates of best_of_n:8, 42 tokens" in answer.inner_text()
    answer.locator(".candidates > summary").click()
    rows = answer.locator("tbody tr")
    names = rows.locator("th").all_inner_texts()
    assert names == ["2, chosen", "1", "3"]
    assert rows.locator("td.number").all_inner_texts() == ["0.900", "0.100", "none"]
    best = rows.first.locator("li")
    assert best.all_inner_texts() == ["0.500", "0.900"]
    assert [best.nth(i).get_attribute("title") for i in (0, 1)] == ["Look", "Answer"]
    shares = [best.nth(i).evaluate("e => e.style.getPropertyValue('--share')") for i in (0, 1)]
    assert shares == ["50%", "100%"]
    assert rows.last.locator("li").all_inner_texts() == ["0.300", "none"]
    assert rows.first.locator("summary").inner_text() == "4"


def test_raw_answers_are_read_as_the_server_would(server, chat):
    raw = "<|Reasoning_step|>Title: Look\nA sum.\n<|/Reasoning_step|>\n\n<|Output|>Final Answer: 4"
    server.deltas = [{"content": raw[:40]}, {"content": raw[40:] + "<|/Output|>"}]
    answer = answered(chat.page)
    assert answer.locator(".steps summary").all_inner_texts() == ["Look"]
    assert answer.locator(".content").inner_text() == "4"


HOSTILE = (
    *("<img src=x onerror=alert(1)>", "<script>alert(2)</script>", "<svg/onload=alert(3)>", "</p>"),
    *("</details>", "</textarea>", "<!--", "]]>", "&lt;b&gt;", "&#60;i&#62;", "{{7*7}}", "${1}"),
    *(
        "javascript:alert(4)",
        "<iframe src=//example.com>",
        "<a href=//example.com>",
        "\x00",
        "\u202e",
    ),
    *(
        '" onclick="alert(5)',
        "' autofocus onfocus='alert(6)",
        "<base href=//example.com>",
        "<style>",
    ),
)


def hostile_strings(count):
    rng = random.Random(0)
    return ["".join(rng.choices(HOSTILE, k=rng.randint(1, 4))) for _ in range(count)]


def test_text_of_users_and_models_never_becomes_an_element(server, chat):
    hostile = "".join(HOSTILE)
    server.deltas = [{"reasoning": f"Title: {hostile}\n{hostile}"}, {"content": hostile}]
    candidates = [
        {
            "text": f"<|Reasoning_step|>Title: {text}\n{text}<|/Reasoning_step|><|Output|>{text}",
            "score": 0.5,
            "step_scores": [0.5, 0.5],
        }
        for text in hostile_strings(2000)
    ]
    server.last = {"search": {"candidates": candidates, "method": hostile, "tokens": 1}}
    server.names = [f"{hostile}:best-of-2"]
    chat.page.reload()
    chat.page.wait_for_selector("#model:enabled")
    answer = answered(chat.page, hostile)
    summary = answer.locator(".steps summary")
    assert summary.text_content() == answer.locator(".content").text_content() == hostile
    assert answer.locator("tbody tr").count() == 2000
    made = "[...document.querySelectorAll('main *')].map((e) => e.localName)"
    known = {"article", "p", "div", "button", "details", "summary", "span", "ol", "li"}
    tables = {"table", "thead", "tbody", "tr", "th", "td"}
    assert set(chat.page.evaluate(made)) <= known | tables
    assert all(url.startswith(server.url) for url in chat.requests)


def test_what_the_server_refuses_is_shown_in_its_own_words(server, chat):
    server.failure = (429, "the queue is full", {"Retry-After": "3"})
    answered(chat.page)
    problem = chat.page.locator("#problem")
    assert problem.inner_text() == "the queue is full; ask again in 3 s"
    server.failure, server.deltas = None, structured()
    chat.page.locator("button", has_text="Again").click()
    chat.page.wait_for_selector(".content >> text=4")
    assert chat.page.locator("article.answer").count() == 1
    assert not problem.is_visible()


def test_an_answer_that_breaks_off_with_an_error_says_so(server, chat):
    server.deltas = [{"content": "so far"}]
    server.last = {"delta": None, "finish_reason": None}
    server._stream = lambda request: _broken()
    answer = answered(chat.page)
    assert answer.locator(".note").inner_text() == "There is no answer."
    assert chat.page.locator("#problem").inner_text() == "the engine stopped"


async def _broken():
    yield _event({"choices": [{"delta": {"content": "so far"}}]})
    yield _event({"error": {"message": "the engine stopped"}})


def test_the_key_is_asked_for_and_kept_for_the_tab_alone(open_page, server):
    server.key, server.deltas = "secret", structured()
    page = open_page(server.url).page
    page.wait_for_selector("#settings[open]")
    assert page.evaluate("document.activeElement.name") == "key"
    page.keyboard.type("secret")
    page.keyboard.press("Escape")
    page.wait_for_selector("#model:enabled")
    answered(page)
    assert server.keys == ["Bearer secret"]
    assert "secret" not in page.evaluate("JSON.stringify(localStorage)")
    page.reload()
    page.wait_for_selector("#model:enabled")


def test_settings_that_are_set_go_into_the_request_and_are_kept(server, chat):
    server.deltas, page = structured(), chat.page
    page.keyboard.press("Alt+s")
    page.fill("[name=system]", "Be brief.")
    page.fill("[name=temperature]", "0.5")
    page.fill("[name=seed]", "0")
    page.select_option("[name=steps]", "open")
    page.click("text=Close")
    page.reload()
    page.wait_for_selector("#model:enabled")
    answer = answered(page)
    body = server.bodies[0]
    assert body["messages"][0] == {"role": "system", "content": "Be brief."}
    assert (body["temperature"], body["seed"]) == (0.5, 0)
    assert "top_p" not in body and "max_completion_tokens" not in body
    assert answer.locator(".steps details[open]").count() == 2


def test_the_page_is_worked_by_keys_alone(server, chat):
    server.deltas, page = structured(), chat.page
    assert page.evaluate("document.activeElement.id") == "box"
    page.keyboard.type("one")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("two")
    page.keyboard.press("Enter")
    page.wait_for_selector("article.answer[aria-busy=false]")
    assert server.bodies[0]["messages"][0]["content"] == "one\ntwo"
    page.locator(".steps summary").first.focus()
    page.keyboard.press("Enter")
    assert page.locator(".steps details[open]").count() == 1
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "box"
    page.keyboard.press("Alt+n")
    assert page.locator("article").count() == 0
    assert page.locator("#empty").is_visible()


def test_a_turn_can_be_written_anew(server, chat):
    server.deltas, page = structured(), chat.page
    answered(page, "first")
    answered(page, "second")
    page.locator(".asked button", has_text="Edit").first.click()
    assert page.locator("article").count() == 0
    assert page.input_value("#box") == "first"


def test_the_page_waits_for_a_server_that_is_not_ready(open_page, server):
    server.is_ready = False
    page = open_page(server.url).page
    page.wait_for_selector("text=Waiting for the server")
    assert page.locator("#send").is_disabled()
    server.is_ready = True
    page.wait_for_selector("#model:enabled")
    assert not page.locator("#problem").is_visible()


@pytest.mark.parametrize(("scheme", "chosen"), [("dark", "light"), ("light", "dark")])
def test_colours_are_those_of_the_system_until_others_are_chosen(open_page, server, scheme, chosen):
    page = open_page(server.url, color_scheme=scheme).page
    page.wait_for_selector("#model:enabled")
    brightness = "Math.max(...getComputedStyle(document.body).backgroundColor.match(/\\d+/g))"
    is_dark = {"dark": True, "light": False}
    assert (page.evaluate(brightness) < 100) == is_dark[scheme]
    page.keyboard.press("Alt+s")
    page.select_option("[name=theme]", chosen)
    assert (page.evaluate(brightness) < 100) == is_dark[chosen]


def test_a_narrow_page_does_not_scroll_sideways(open_page, server):
    server.deltas = [{"content": "x" * 500}]
    page = open_page(server.url, viewport={"width": 340, "height": 600}).page
    page.wait_for_selector("#model:enabled")
    answered(page, "y" * 300)
    assert page.evaluate("document.documentElement.scrollWidth") <= 340
