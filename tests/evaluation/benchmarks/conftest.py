"""Small files of benchmarks, written by the tests; the real ones where the user has them."""

import csv
import os
from pathlib import Path

import pytest


@pytest.fixture
def table(tmp_path):
    """A function of a name, a header and rows that writes them as CSV and returns the path."""

    def write(name, header, *rows):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([header, *rows])
        return path

    return write


@pytest.fixture(scope="session")
def real_data():
    """The folder with the users' own copies of the public benchmarks."""
    folder = os.environ.get("EVALUATION_DATA")
    if not folder:
        pytest.skip("EVALUATION_DATA names no folder with the benchmarks' own files")
    return Path(folder)
