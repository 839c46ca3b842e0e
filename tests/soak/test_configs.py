"""A slice of the soak of command lines, and what it finds where something does not hold."""

import sys

import pytest

from soak import configs
from stair_jax import launch


@pytest.fixture(autouse=True)
def no_cache_of_programs(monkeypatch, tmp_path):
    """Commands of this process do not set JAX's own cache for the tests after these."""
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "compiled"))


def test_fuzzed_commands_are_refused_in_one_line_or_taken_by_rule(tmp_path):
    result = configs.run(400, 0, tmp_path)
    assert result.failures == []
    assert sum(result.counts.values()) == 400
    for kind in ("override", "name", "file", "words"):
        assert result.counts[f"{kind} refused"] > 50, kind


def says(*lines, status=2):
    """A command that says these lines and ends."""

    def main(argv):
        if "--show-config" in argv and len(argv) == 3:
            return real(argv)
        print(*lines, sep="\n", file=sys.stderr)
        return status

    real = launch.main
    return main


def raises(error):
    """A command that ends in an error."""

    def main(argv):
        if "--show-config" in argv and len(argv) == 3 and "pocket" in argv[1]:
            return real(argv)
        raise error

    real = launch.main
    return main


@pytest.mark.parametrize(
    ("main", "said"),
    [
        (says("stair_jax: error: first", "second"), "was not refused in one line"),
        (says("something else"), "was not refused in one line"),
        (says("stair_jax: error: "), "was not refused in one line"),
        (says("stair_jax: error: it is so", status=1), "ended with 1, not with 0 or 2"),
        (raises(ValueError("no")), "ended with 'ValueError: no', not with 0 or 2"),
        (raises(SystemExit(2)), "ended with 'SystemExit: 2', not with 0 or 2"),
    ],
)
def test_an_end_that_is_not_in_order_is_found(monkeypatch, tmp_path, main, said):
    monkeypatch.setattr(launch, "main", main)
    result = configs.run(1, 0, tmp_path)  # of an override
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
def test_a_number_that_is_taken_must_be_one_and_be_shown(text, shown, problems):
    command = configs._Command([], "sft.epochs", text)
    ended = configs._Ended(0, f"config.seed = 0\nconfig.sft.epochs = {shown}\n", "")
    assert len(configs._problems(command, ended)) == problems
