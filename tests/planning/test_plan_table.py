import jax
import pytest

from stair_jax.parallel.chips import GIB, Chip
from stair_jax.planning.plan_table import Planned, format_failures, format_plan
from stair_jax.planning.program import Compiled, Footprint, Program
from stair_jax.planning.topology import Topology

CHIP = Chip("x", memory=16 * GIB, flops=100e12, bandwidth=1000e9)


def planned(name, arguments, flops=0, traffic=0, chip=CHIP, beside=0):
    program = Program(name, None, (), jax.devices()[0], flops, traffic)
    footprint = Footprint(arguments, 2 * GIB, GIB // 2, 0, beside)
    return Planned(program, ("a", "b"), chip, Compiled(footprint, "", 1.0))


def test_bounds_on_the_time():
    step = planned("step", 8 * GIB, flops=4e12, traffic=5e9)
    assert step.flops_seconds == pytest.approx(0.04)
    assert step.bytes_seconds == pytest.approx(0.005)
    for unknown in (
        planned("step", 8 * GIB, flops=4e12, traffic=5e9, chip=Chip("cpu", 16 * GIB)),
        planned("tree", 8 * GIB),  # without a cost estimate
    ):
        assert unknown.flops_seconds is None and unknown.bytes_seconds is None


def test_what_fits_is_decided_with_all_that_is_there():
    assert planned("step", 13 * GIB).fits
    assert not planned("step", 14 * GIB).fits
    assert not planned("step", 13 * GIB, beside=GIB).fits


def test_the_table():
    refused = Compiled(None, "the compiler needs 20.0G of 15.75G", 1.0)
    program = Program("large", None, (), jax.devices()[0], 0, 0)
    plan = [
        planned("step", 8 * GIB, flops=4e12, traffic=5e9),
        planned("tree", 15 * GIB),
        Planned(program, ("c",), CHIP, refused),
    ]
    text = format_plan(Topology("v9:1x1", CHIP, jax.devices()[:1]), plan)
    lines = text.splitlines()
    assert lines[0] == "v9:1x1: 1 x x of 16.00 GiB"
    step, tree, large = (line.split() for line in lines[3:6])
    assert step[:8] == ["step", "1", "8.00", "2.00", "0.50", "0.00", "10.50", "65.6%"]
    assert step[8:] == ["4", "40", "ms", "5", "ms", "fits", "a,", "b"]
    assert tree[8:11] == ["-", "-", "-"] and "DOES NOT FIT" in lines[4]
    assert large[2:8] == ["-"] * 6
    assert format_failures(plan).splitlines() == [
        "does not fit: tree (a, b): 17.50 of 16.00 GiB",
        "does not fit: large (c): the compiler needs 20.0G of 15.75G",
    ]
