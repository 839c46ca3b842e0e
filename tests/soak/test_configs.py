"""A small run of the soak test of command lines, and the faults that it finds."""

import sys

import pytest

from soak import configs
from stair_jax import launch


@pytest.fixture(autouse=True)
def no_cache_of_programs(monkeypatch, tmp_path):
    """Keeps the commands from setting the compilation cache of this process."""
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "compiled"))


def test_fuzzed_commands_are_accepted_or_refused_with_one_line(tmp_path):
    result = configs.run(400, 0, tmp_path)
    assert result.failures == []
    assert sum(result.counts.values()) == 400
    for kind in ("override", "name", "file", "words"):
        assert result.counts[f"{kind} refused"] > 50, kind


def says(*lines, status=2):
    """A command that prints these lines and exits."""

    def main(argv):
        if "--show-config" in argv and len(argv) == 3:
            return real(argv)
        print(*lines, sep="\n", file=sys.stderr)
        return status

    real = launch.main
    return main


def raises(error):
    """A command that raises an error."""

    def main(argv):
        if "--show-config" in argv and len(argv) == 3 and "pocket" in argv[1]:
            return real(argv)
        raise error

    real = launch.main
    return main


@pytest.mark.parametrize(
    ("main", "said"),
    [
        (says("stair_jax: error: first", "second"), "printed more than one line, or no error"),
        (says("something else"), "printed more than one line, or no error"),
        (says("stair_jax: error: "), "printed more than one line, or no error"),
        (says("stair_jax: error: it is so", status=1), "exited with 1, not with 0 or 2"),
        (raises(ValueError("no")), "exited with 'ValueError: no', not with 0 or 2"),
        (raises(SystemExit(2)), "exited with 'SystemExit: 2', not with 0 or 2"),
    ],
)
def test_a_wrong_exit_is_found(monkeypatch, tmp_path, main, said):
    monkeypatch.setattr(launch, "main", main)
    result = configs.run(1, 0, tmp_path)  # an override
    assert len(result.failures) == 1 and said in result.failures[0].what


@pytest.mark.parametrize(
    ("text", "shown", "problems"),
    [
        ("0.5", "0.5", 0),
        ("5e-1", "0.5", 0),
        ("None", "None", 0),
        ("0.5", "0.25", 1),
        ("nan", "nan", 1),
        ("many", "'many'", 1),
        ("1e400", "inf", 1),
    ],
)
def test_an_accepted_number_is_finite_and_shown(text, shown, problems):
    command = configs._Command([], "sft.epochs", text)
    ended = configs._Ended(0, f"config.seed = 0\nconfig.sft.epochs = {shown}\n", "")
    assert len(configs._problems(command, ended)) == problems
