"""A browser for the tests of pages: Debian's chromium-headless-shell, driven by playwright."""

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

# Of Debian first; then whatever else may be there. All of them understand the same protocol.
BROWSERS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")


@dataclass
class Opened:
    """A page in a browser context of its own, and what was seen of it.

    Attributes:
      page: of playwright's synchronous API.
      requests: addresses that it has asked for so far, its own first.
      errors: exceptions that no script has caught, and what the content security policy refused;
        the test fails where there are any left at its end.
    """

    page: Any
    requests: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def browser():
    """A browser without a window; the test is skipped where there is none.

    Of a module, as tests of asyncio cannot run in a thread where it is open.
    """
    reason = "playwright is not installed: pip install stair_jax[dev]"
    api = pytest.importorskip("playwright.sync_api", reason=reason)
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip("no browser is installed: apt-get install chromium-headless-shell")
    with api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path)
        yield started
        started.close()


@pytest.fixture
def open_page(browser):
    """`open_page(where, **options)`: an `Opened` page at an address, or of a file.

    The options are those of `browser.new_context`, such as color_scheme="dark" or viewport.
    """
    contexts, all_opened = [], []

    def open_page(where: str | Path, **options: Any) -> Opened:
        context = browser.new_context(**options)
        contexts.append(context)
        context.set_default_timeout(10_000)  # ms: machines of tests are busy
        opened = Opened(context.new_page())
        all_opened.append(opened)
        _watch(opened)
        opened.page.goto(where.resolve().as_uri() if isinstance(where, Path) else where)
        return opened

    yield open_page
    for context in contexts:
        context.close()
    errors = [error for opened in all_opened for error in opened.errors]
    assert not errors, errors


def _watch(opened: Opened) -> None:
    def on_console(message: Any) -> None:
        if "Content Security Policy" in message.text:
            opened.errors.append(message.text)

    opened.page.on("console", on_console)
    opened.page.on("pageerror", lambda error: opened.errors.append(str(error)))
    opened.page.on("request", lambda request: opened.requests.append(request.url))
