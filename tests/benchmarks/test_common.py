"""What is compiled before something is measured."""

import argparse

from benchmarks import common
from stair_jax.decoding.engine_config import EngineConfig
from stair_jax.testing.device_programs import noted_prefills


def test_warming_up_runs_the_prefills_of_all_sizes(monkeypatch):
    monkeypatch.setattr(EngineConfig, "prefill_sizes", (4, 2, 1))
    parser = argparse.ArgumentParser()
    common.add_model_flags(parser)
    flags = parser.parse_args(["--tiny", "--prefill-rows", "4", "--prefill-width", "16"])
    engine = common.make_engine(common.random_model(flags), flags, 8, 32)
    with noted_prefills(engine) as calls:
        common.warm_up(engine)
    rows = [spans[:, 1].tolist() for _, spans, _ in calls]  # tokens of each row
    assert rows == [[16] * 4, [16] * 2, [16]]
