"""The byte tokenizer and the scripted engine of the search tests, with a check of its handles."""

import importlib.util
import pathlib

import pytest

_PATH = pathlib.Path(__file__).parents[1] / "search" / "conftest.py"
_SPEC = importlib.util.spec_from_file_location("search_fixtures", _PATH)
_MODULE = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(_MODULE)

tokenizer = _MODULE.tokenizer


@pytest.fixture
def make_engine(tokenizer):
    """Factory of scripted engines; at the end of a test no handle may be left unreleased."""
    made = []

    def make(**options):
        made.append(_MODULE.ScriptedEngine(tokenizer, **options))
        return made[-1]

    yield make
    assert not any(engine.handles for engine in made)
