"""The examples run as they stand, and what they print is right."""

import ast
import itertools
import math
import re
import runpy
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "examples"
NUMBER = r"(-?\d+\.\d+)"


@pytest.fixture
def run(capsys):
    """`run(name)`: the names of an example after it has run, and what it has printed."""

    def run(name):
        names = runpy.run_path(str(FOLDER / f"{name}.py"), run_name="__main__")
        return names, capsys.readouterr().out

    return run


def test_a_gradient_step_lowers_each_loss(run):
    _, printed = run("losses")
    found = re.findall(rf"(\w+): loss {NUMBER} before the step, {NUMBER} after it", printed)
    losses = {name: (float(before), float(after)) for name, before, after in found}
    assert list(losses) == ["SFT", "DPO", "PRM"]
    assert all(after < before for before, after in losses.values())
    assert losses["DPO"][0] == pytest.approx(math.log(2), abs=1e-4)


def test_both_actors_find_what_brute_force_finds(run):
    names, printed = run("search_with_your_own_actor")
    found = re.findall(r"capacity (\d+): items \[(.*)\], weight (\d+), worth (\d+) ", printed)
    assert len(found) == len(names["CAPACITIES"])
    for capacity, items, weight, worth in found:
        taken = [int(item) for item in items.split(", ")]
        assert int(weight) == sum(names["WEIGHT"][item] for item in taken) <= int(capacity)
        assert int(worth) == sum(names["WORTH"][item] for item in taken)
        choices = itertools.product((0, 1), repeat=names["ITEMS"])
        assert int(worth) == max(
            sum(map(math.prod, zip(names["WORTH"], choice, strict=True)))
            for choice in choices
            if sum(map(math.prod, zip(names["WEIGHT"], choice, strict=True))) <= int(capacity)
        )
    assert printed.endswith("the actor in NumPy found the same paths\n")


def test_one_iteration_starts_at_the_reference_and_prefers_what_was_chosen(run):
    _, printed = run("one_iteration")
    sft = [float(loss) for loss in re.findall(rf"SFT step \d+: loss {NUMBER}", printed)]
    assert sft[1] < 0.1 * sft[0]
    assert len(re.findall(r"^tree \w+: \d+ nodes, mean reward", printed, re.MULTILINE)) == 4
    assert int(re.search(r"(\d+) preference pairs", printed).group(1)) > 0
    (before, still), (after, margin) = (
        map(float, pair) for pair in re.findall(rf"loss {NUMBER}, margin {NUMBER}", printed)
    )
    assert (before, still) == pytest.approx((math.log(2), 0), abs=1e-4)
    assert after < before and margin > 0


def test_one_iteration_takes_a_handful_of_imports():
    modules = set()
    for node in ast.walk(ast.parse((FOLDER / "one_iteration.py").read_text())):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            modules.add(node.module)
    assert {name for name in modules if name.startswith("stair_jax")} == {
        "stair_jax",
        "stair_jax.testing.tiny_models",
        "stair_jax.testing.tiny_tokenizers",
    }
