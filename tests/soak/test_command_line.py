"""The command line of the soak tests: list, output, exit status."""

import importlib
import inspect
import re
import tempfile
from pathlib import Path

import pytest

import soak as soak_package
from soak.__main__ import SOAKS, main
from soak.result import Result

ROOT = Path(soak_package.__file__).parents[1]


@pytest.fixture
def one_soak(monkeypatch, tmp_path):
    """A function that sets the number of failures of `prompts`, and returns its list of calls."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    calls = []

    def set_failures(count):
        def run(size, seed, folder):
            calls.append((size, seed))
            result = Result("prompts")
            result.counts["tried"] += size
            (folder / "left.txt").write_text("")
            for number in range(count):
                result.fail("it broke", seed + number, "with a detail")
            return result

        monkeypatch.setattr(importlib.import_module("soak.prompts"), "run", run)
        return calls

    return set_failures


def test_without_a_name_all_soak_tests_are_listed_with_their_sizes(capsys):
    assert main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(SOAKS)
    for line, soak in zip(lines, SOAKS.values(), strict=True):
        assert f"--size {soak.size}" in line and soak.checks in line


@pytest.mark.parametrize("name", SOAKS)
def test_each_soak_test_is_a_function_of_size_seed_and_folder(name):
    run = importlib.import_module(f"soak.{name}").run
    parameters = list(inspect.signature(run).parameters.values())
    assert [parameter.name for parameter in parameters[:3]] == ["size", "seed", "folder"]
    assert all(parameter.default is not inspect.Parameter.empty for parameter in parameters[3:])


def test_without_failures_the_status_is_0(one_soak, capsys, tmp_path):
    calls = one_soak(0)
    assert main(["prompts", "--size", "7", "--seed", "3"]) == 0
    assert calls == [(7, 3)]
    assert "prompts: tried 7\nprompts: 0 failures\n" in capsys.readouterr().out


def test_after_a_failure_the_status_is_1_and_the_output_says_how_to_reproduce_it(one_soak, capsys):
    one_soak(2)
    assert main(["prompts", "--seed", "5"]) == 1
    out = capsys.readouterr().out
    assert "FAILED 2 times: it broke" in out
    assert "reproduce: bash launch/soak.sh prompts --size 1 --seed 5 (with a detail)" in out
    folder = re.search(r"files in (\S+)", out).group(1)
    assert (Path(folder) / "left.txt").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["promtps"], "there is no soak test 'promtps': did you mean prompts?"),
        (["prompts", "--size", "0"], "--size must be at least 1"),
        (["prompts", "--seed", "-1"], "--seed at least 0"),
        (["prompts", "--size", "many"], "invalid int value: 'many'"),
    ],
)
def test_a_mistake_in_the_command_line_is_named(words, said, capsys):
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    assert said in capsys.readouterr().err.splitlines()[-1]


def test_the_documentation_has_a_dated_row_for_each_soak_test():
    text = (ROOT / "docs/reliability.md").read_text()
    for name in SOAKS:
        assert re.search(rf"^\| `{name}` \|.*20\d\d-\d\d-\d\d", text, re.MULTILINE), name
        assert f"bash launch/soak.sh {name}" in text
