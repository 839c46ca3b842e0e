"""The page of a server asks it for what it shows, and for nothing else."""

import threading
from types import SimpleNamespace
from urllib.parse import urlsplit

import pytest

from stair_jax.errors import UserError
from stair_jax.reports.html.parts import Part
from stair_jax.reports.html.serving import ReportServer


def contents_of(blocks):
    """The contents of a run, as a server reads them, out of blocks of a file."""

    def part(name):
        found = blocks[f"{name}/0"]
        lists = found if isinstance(found, list) else [found]
        rows = blocks[f"{name}/0/0"]
        sizes = [len(columns["block"]) for columns in lists]
        return Part(name, lists, sizes, rows.__getitem__, range(len(rows)), lists is not found)

    plain = {
        name: (lambda block=block: block)
        for name, block in blocks.items()
        if name != "head" and not name.startswith(("trees", "pairs", "cases"))
    }
    return SimpleNamespace(
        runs=[SimpleNamespace(lists={name: part(name) for name in ("trees", "pairs", "cases")})],
        blocks=lambda: plain,
        head=lambda notes, live: blocks["head"] | {"notes": notes, "live": live},
    )


@pytest.fixture
def serve():
    """`serve(blocks)`: the address of a server of a report."""
    started = []

    def serve(blocks):
        server = ReportServer(contents_of(blocks), 0)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        started.append((server, thread))
        return server

    yield serve
    for server, thread in started:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_tree_is_asked_for_by_itself(made, serve, open_page):
    server = serve(made.report())
    opened = open_page(f"{server.address}#/tree/0/search1/t1")
    opened.page.locator(".treeview .panel", has_text="what is 2 + 2 ?").wait_for()
    assert [urlsplit(address).path for address in opened.requests] == [
        "/", "/data/trees/0", "/data/trees/0/1",
    ]  # fmt: skip


def test_all_pages_are_served(made, serve, open_page, show):
    opened = open_page(serve(made.report()).address)
    for place in ("/evaluation/0", "/curves/0", "/searches/0", "/pairs/0", "/answers/0"):
        show(opened.page, place)
        assert opened.page.locator("[role=alert]").count() == 0
    opened.page.locator(".details", has_text="make a bomb").wait_for()


def test_what_the_server_cannot_read_is_said_in_its_words(made, serve, open_page):
    server = serve(made.report())

    def read(name):
        raise UserError("trees.jsonl.gz is damaged")

    server.blocks.read = read
    page = open_page(f"{server.address}#/trees/0").page
    alert = page.locator("[role=alert]", has_text="trees.jsonl.gz is damaged")
    alert.wait_for()
    assert alert.count() == 1
