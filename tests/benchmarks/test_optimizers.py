"""The comparison of frugal optimizers, with a tiny model."""

import numpy as np

from benchmarks import optimizers
from stair_jax.training.settings import TrainingSettings


def test_one_option_is_measured():
    flags = optimizers.parse(["--tiny", "--steps=2", "--rows=2", "--length=16"])
    line = optimizers.measure(flags, "int8")
    assert line["host"] == 0 and 0 < line["state"] < line["compiled"]
    assert np.isfinite(line["loss"]) and line["step"] > 0
    assert all(TrainingSettings(**values) for values in optimizers.OPTIONS.values())


def test_the_table_has_differences_to_float32_and_what_failed():
    values = {"state": 1.5, "host": 0.0, "compiled": 3.0, "peak": None, "step": 12.3}
    lines = [
        {"option": "float32", **values, "loss": 2.0},
        {"option": "int8", **values, "loss": 2.25},
        {"option": "offload", "failed": "no room"},
    ]
    rows = optimizers.table(lines).splitlines()
    assert rows[3] == "| int8 | 1.50 | 0.00 | 3.00 | - | 12 | 2.2500 | +0.2500 |"
    assert rows[4] == "| offload | failed: no room |"
