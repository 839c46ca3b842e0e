"""What is compiled before something is measured."""

import argparse

import numpy as np

from benchmarks import common
from stair_jax.decoding.engine_config import EngineConfig


def test_warming_up_runs_the_prefills_of_all_sizes(monkeypatch):
    monkeypatch.setattr(EngineConfig, "prefill_sizes", (4, 2, 1))
    parser = argparse.ArgumentParser()
    common.add_model_flags(parser)
    flags = parser.parse_args(["--tiny", "--prefill-rows", "4", "--prefill-width", "16"])
    engine = common.make_engine(common.random_model(flags), flags, 8, 32)
    prefill, rows = engine._programs.prefill, []

    def noted(*arguments):
        rows.append(np.asarray(arguments[5])[:, 1].tolist())  # tokens of each row
        return prefill(*arguments)

    engine._programs = engine._programs._replace(prefill=noted)
    common.warm_up(engine)
    assert rows == [[16] * 4, [16] * 2, [16]]
