"""The names of the package: quick to import, complete, documented, and seen by type checkers."""

import ast
import configparser
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

import stair_jax

PACKAGE = Path(stair_jax.__file__).parent
ROOT = PACKAGE.parent


def run_python(code):
    """What a fresh interpreter prints."""
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return result.stdout.split()


def test_importing_the_package_imports_nothing_else():
    loaded = run_python(
        "import sys; before = set(sys.modules); import stair_jax; "
        "print(*sorted({name.split('.')[0] for name in set(sys.modules) - before}))"
    )
    assert set(loaded) - sys.stdlib_module_names == {"stair_jax"}
    assert run_python(
        "import sys, stair_jax; print(*(n for n in sys.modules if n.startswith('stair_jax')))"
    ) == ["stair_jax"]


def test_a_name_loads_its_own_module_and_no_more_than_that_needs():
    code = "import sys, stair_jax; stair_jax.UserError; print('jax' in sys.modules)"
    assert run_python(code) == ["False"]


@pytest.mark.parametrize("name", stair_jax.__all__)
def test_each_name_is_that_of_its_module_and_says_what_it_is(name):
    value = getattr(stair_jax, name)
    assert value is getattr(importlib.import_module(stair_jax._MODULES[name]), name)
    assert value.__doc__ and value.__name__ == name


def test_type_checkers_are_told_of_the_same_names():
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    assert ast.unparse(block.test) == "TYPE_CHECKING"
    imported = {alias.name: node.module for node in block.body for alias in node.names}
    assert imported == stair_jax._MODULES
    assert set(stair_jax.__all__) == set(imported)
    assert len(stair_jax.__all__) == len(set(stair_jax.__all__))


def test_names_are_listed_before_they_are_loaded_and_others_are_refused():
    assert set(stair_jax.__all__) <= set(dir(stair_jax))
    with pytest.raises(AttributeError, match="'stair_jax' has no attribute 'no_such_name'"):
        stair_jax.no_such_name  # noqa: B018
    with pytest.raises(ImportError, match="no_such_name"):
        exec("from stair_jax import no_such_name")


def test_no_name_hides_a_module():
    modules = {path.stem for path in PACKAGE.iterdir()}
    assert not modules & set(stair_jax.__all__)


def test_every_name_is_in_the_documentation_with_its_module():
    text = (ROOT / "docs/api.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| .+ \| \[`([\w/]+)\.py`\]\((\S+)\) \|$", text, re.MULTILINE)
    documented = {name: "stair_jax." + path.replace("/", ".") for name, path, _ in rows}
    assert documented == stair_jax._MODULES
    for _, path, link in rows:
        assert (ROOT / "docs" / link).resolve() == PACKAGE / f"{path}.py"


def test_the_package_says_that_it_is_typed():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    assert setup["options.package_data"]["stair_jax"].split() == ["py.typed"]
    assert (PACKAGE / "py.typed").is_file()
