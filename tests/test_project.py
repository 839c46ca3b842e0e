"""The files around the package say the same thing."""

import ast
import configparser
import importlib
import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import stair_jax

NAMES = {
    "absl-py": "absl",
    "inspect-ai": "inspect_ai",
    "lm-eval": "lm_eval",
    "ml-collections": "ml_collections",
    "orbax-checkpoint": "orbax",
    "prometheus-client": "prometheus_client",
}
ROOT = Path(stair_jax.__file__).parents[1]
SETUP = configparser.ConfigParser()
SETUP.read(ROOT / "setup.cfg")


def requirements(text):
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    return {item.name: item.specifier for item in map(Requirement, filter(None, lines))}


def test_pinned_requirements_are_those_of_the_package_and_in_their_ranges():
    ranges = requirements(SETUP["options"]["install_requires"])
    pins = requirements((ROOT / "requirements.txt").read_text())
    assert set(pins) == set(ranges)
    for name, pin in pins.items():
        (exact,) = pin
        assert exact.operator == "=="
        assert exact.version in ranges[name], name


def test_every_requirement_has_an_upper_bound():
    sections = [SETUP["options"]["install_requires"], *SETUP["options.extras_require"].values()]
    for section in sections:
        for name, specifier in requirements(section).items():
            assert {item.operator for item in specifier} & {"<", "=="}, name


# Rooms that need an extra, with what its packages bring.
ROOMS = {
    "adapters": ("eval", {"tqdm"}),
    "cluster": ("ray", set()),
    "server": ("serve", {"pydantic", "starlette"}),
}


def test_the_package_imports_only_what_it_requires():
    """Rooms that little else imports, also what their extra brings."""
    required = declared(SETUP["options"]["install_requires"])
    for path in (ROOT / "stair_jax").rglob("*.py"):
        room = path.relative_to(ROOT / "stair_jax").parts[0]
        extra, brought = ROOMS.get(room, ("", set()))
        allowed = required | brought
        if extra:
            allowed |= declared(SETUP["options.extras_require"][extra])
        for node in ast.walk(ast.parse(path.read_text())):
            modules = [node.module] if isinstance(node, ast.ImportFrom) else []
            modules += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            used = {module.partition(".")[0] for module in modules}
            assert not used - allowed - sys.stdlib_module_names, path
            for other in ROOMS.keys() - {"cluster"}:  # which imports Ray when it is called
                is_user = room == other or (other, path.name) == ("server", "serve.py")
                assert is_user or not any(m.startswith(f"stair_jax.{other}") for m in modules), path


def declared(text):
    """Names of the modules of requirements."""
    names = {NAMES.get(name, name) for name in requirements(text)}
    return names | {"stair_jax", "tensorflow"}  # seqio brings TensorFlow, at the version it needs


def test_the_console_script_exists():
    script = SETUP["options.entry_points"]["console_scripts"].strip()
    name, target = re.fullmatch(r"(\S+) = (\S+)", script).groups()
    module, function = target.split(":")
    assert name == "stair-jax"
    assert callable(getattr(importlib.import_module(module), function))


@pytest.mark.parametrize("script", ["launch/quickstart.sh", "launch/test.sh", ".ci/run"])
def test_scripts_can_be_run(script):
    path = ROOT / script
    assert path.stat().st_mode & stat.S_IXUSR
    subprocess.run(["bash", "-n", path], check=True)


def test_an_old_python_is_refused_in_one_line(tmp_path):
    """Each Python on the path claims to be too old."""
    for name in ("python3", "python3.11", "python3.12", "python3.13"):
        fake = tmp_path / name
        fake.write_text('#!/bin/sh\n[ "$1" = --version ] && echo Python 3.9.1 && exit 0\nexit 1\n')
        fake.chmod(0o755)
    result = subprocess.run(
        ["/bin/bash", "-c", "source launch/environment.sh; find_python"],
        cwd=ROOT,
        env=os.environ | {"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 2
    assert result.stderr.splitlines() == [
        "stair_jax: error: needs Python 3.11, 3.12 or 3.13; python3 here is Python 3.9.1: "
        "install one of them"
    ]


def test_a_newer_python_is_found_where_python3_is_old(tmp_path):
    for name, status in (("python3", 1), ("python3.13", 127), ("python3.12", 0)):
        (tmp_path / name).write_text(f"#!/bin/sh\nexit {status}\n")
        (tmp_path / name).chmod(0o755)
    result = subprocess.run(
        ["/bin/bash", "-c", "source launch/environment.sh; find_python"],
        cwd=ROOT,
        env=os.environ | {"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert (result.returncode, result.stdout) == (0, "python3.12\n")
