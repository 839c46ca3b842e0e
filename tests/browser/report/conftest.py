"""Reports of small runs, opened in a browser from their files."""

import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest


@pytest.fixture(scope="session")
def made():
    """What `blocks.py` defines: the blocks of a small report, and the page of them."""
    return SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("blocks.py"))))


@pytest.fixture
def open_report(made, open_page, tmp_path):
    """`open_report(place, blocks, **options)`: the `Opened` page of a report at a place."""

    def open_report(place="/", blocks=None, **options):
        path = made.write_page(tmp_path / "report.html", blocks or made.report())
        opened = open_page(path, **options)
        opened.page.wait_for_selector("#bar nav a")
        _show(opened.page, place)
        return opened

    return open_report


@pytest.fixture
def show():
    """Goes to a place of the page and waits until it is there."""
    return _show


def _show(page, place):
    page.evaluate(
        """(place) => new Promise((done) => {
          const before = performance.getEntriesByName("page shown").length;
          const look = () => {
            const now = performance.getEntriesByName("page shown").length;
            now > before ? done() : setTimeout(look, 5);
          };
          if (location.hash === `#${place}`) return done();
          location.hash = place;
          look();
        })""",
        place,
    )
