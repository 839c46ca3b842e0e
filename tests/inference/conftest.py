"""The byte tokenizer and the scripted engine of the search tests."""

import importlib.util
import pathlib

_PATH = pathlib.Path(__file__).parents[1] / "search" / "conftest.py"
_SPEC = importlib.util.spec_from_file_location("search_fixtures", _PATH)
_MODULE = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(_MODULE)

tokenizer = _MODULE.tokenizer
make_engine = _MODULE.make_engine
