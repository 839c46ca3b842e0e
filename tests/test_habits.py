"""Hooks, workflow, extras and changelog agree with the test command, setup.cfg and the version."""

import configparser
import os
import pkgutil
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

import stair_jax

ROOT = Path(stair_jax.__file__).parents[1]
SETUP = configparser.ConfigParser()
SETUP.read(ROOT / "setup.cfg")
CLASSIFIERS = SETUP["metadata"]["classifiers"]
PYTHONS = re.findall(r"^Programming Language :: Python :: (3\.\d+)$", CLASSIFIERS, re.MULTILINE)

HOOKS_FILE = ROOT / ".pre-commit-config.yaml"
REPOSITORIES = yaml.safe_load(HOOKS_FILE.read_text())["repos"]
HOOKS = [hook for repository in REPOSITORIES for hook in repository["hooks"]]
RUN_MODULE = ".venv/bin/python -m "


def extra(name):
    """The requirements of an extra."""
    lines = SETUP["options.extras_require"][name].splitlines()
    return {str(Requirement(line)) for line in lines if line and not line.startswith("#")}


def test_hooks_and_the_test_command_run_the_same_checks():
    """With the same flags, by the same Python."""
    script = (ROOT / "launch/test.sh").read_text()
    assert f'{RUN_MODULE}"$@"' in script
    checks = re.findall(r"^ *check (?!pytest )(.+)$", script, re.MULTILINE)
    assert len(checks) == 3
    commands = [hook["entry"].removeprefix(RUN_MODULE) for hook in HOOKS]
    assert [line for line in commands if not line.startswith("pre_commit_hooks.")] == checks


def test_hooks_use_the_tools_of_the_development_environment():
    assert [repository["repo"] for repository in REPOSITORIES] == ["local"]
    for hook in HOOKS:
        assert hook["language"] == "unsupported"  # pre-commit makes no environment for it
        assert hook["entry"].startswith(RUN_MODULE), hook["id"]


CLEAN = '"""A package."""\n\nNUMBER: int = 1\n'
MISTAKES = {
    "ruff-check": ("stair_jax/__init__.py", CLEAN.replace("\n\n", "\n\nimport os\n\n")),
    "ruff-format": ("stair_jax/__init__.py", CLEAN.replace("int = 1", "int  = 1")),
    "mypy": ("stair_jax/__init__.py", CLEAN.replace("1", '"one"')),
    "end-of-file-fixer": ("notes.md", "No newline"),
    "trailing-whitespace": ("notes.md", "A space \n"),
    "check-added-large-files": ("data.bin", "x" * 501 * 1024),
}


@pytest.fixture(scope="module")
def small_repository(tmp_path_factory):
    """A repository with our configuration and few other files, and a function that runs hooks."""
    folder = tmp_path_factory.mktemp("repository")
    for name in (HOOKS_FILE.name, "pyproject.toml"):
        shutil.copy(ROOT / name, folder)
    (folder / ".venv").symlink_to(sys.prefix)
    (folder / ".gitignore").write_text(".venv\n.*_cache/\n")
    checked = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["mypy"]["files"]
    for package in checked:
        (folder / package).mkdir(parents=True)
        (folder / package / "__init__.py").write_text(CLEAN)
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    environment["PRE_COMMIT_HOME"] = str(tmp_path_factory.mktemp("pre-commit"))

    def run(*command):
        return subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, check=False
        )

    def run_hooks(*ids):
        assert run("git", "add", "--all").returncode == 0
        return run(sys.executable, "-m", "pre_commit", "run", "--all-files", *ids)

    assert run("git", "init", "--quiet").returncode == 0
    return folder, run_hooks


def test_hooks_pass_where_there_is_no_mistake(small_repository):
    _, run_hooks = small_repository
    result = run_hooks()
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.count("Passed") == len(HOOKS)


@pytest.mark.parametrize("hook", [hook["id"] for hook in HOOKS])
def test_each_hook_finds_a_mistake(small_repository, hook):
    folder, run_hooks = small_repository
    name, text = MISTAKES[hook]
    (folder / name).write_text(text)
    result = run_hooks(hook)
    (folder / name).write_text(CLEAN)
    assert result.returncode == 1, result.stdout + result.stderr
    assert f"- hook id: {hook}" in result.stdout


def test_the_workflow_runs_the_test_command_on_each_python_of_the_classifiers():
    workflow = yaml.safe_load((ROOT / ".github/workflows/test.yml").read_text())
    job = workflow["jobs"]["test"]
    assert job["strategy"]["matrix"]["python-version"] == PYTHONS
    assert [step["run"] for step in job["steps"] if "run" in step] == ["bash launch/test.sh"]
    (python,) = (step["with"] for step in job["steps"] if "setup-python" in step.get("uses", ""))
    assert python["python-version"] == "${{ matrix.python-version }}"
    assert python["cache"] == "pip"
    for path in python["cache-dependency-path"].split():
        assert (ROOT / path).is_file(), path


def test_the_classifiers_name_each_python_that_can_install_the_package():
    accepted = SpecifierSet(SETUP["options"]["python_requires"])
    assert [f"3.{minor}" for minor in range(30) if f"3.{minor}.0" in accepted] == PYTHONS


@pytest.mark.parametrize("name", ["docs", "endpoints", "eval", "serve"])
def test_the_extra_dev_includes_others(name):
    assert extra(name)
    assert extra(name) <= extra("dev")


def test_the_changelog_has_unreleased_changes_then_releases_with_this_version_first():
    text = (ROOT / "CHANGELOG.md").read_text()
    first, *releases = re.findall(r"^## (.+)$", text, re.MULTILINE)
    assert first == "[Unreleased]"
    found = [re.fullmatch(r"\[([\d.]+)\] - (\d{4}-\d\d-\d\d)", line) for line in releases]
    assert all(found), releases
    versions, dates = zip(*(release.groups() for release in found), strict=True)
    assert versions[0] == stair_jax.__version__
    assert list(versions) == sorted(set(versions), key=Version, reverse=True)
    assert list(dates) == sorted(dates, reverse=True)


def test_the_changelog_uses_the_headings_of_keep_a_changelog():
    headings = re.findall(r"^### (.+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings
    assert set(headings) <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def test_the_contributing_guide_names_files_and_modules_that_exist():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    modules = re.findall(r"`(stair_jax(?:\.\w+)+)`", text)
    assert modules
    for name in modules:
        pkgutil.resolve_name(name)
    paths = re.findall(r"`((?:tests|benchmarks|launch|docs)/[\w/.]*)`", text)
    assert paths
    for path in paths:
        assert (ROOT / path).exists() or path == "tests/stages/test_margin.py", path
