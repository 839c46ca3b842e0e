"""Tables over several seeds."""

from stair_jax import storage
from stair_jax.evaluation import seeds
from stair_jax.evaluation.pocket_benchmark import METRICS


def _run(folder, value, well_formed):
    row = {name: {"value": value, "low": 0.0, "high": 1.0} for name in METRICS}
    storage.write_json(folder / "evaluate/table.json", [{"model": "sft", **row}])
    counts = {"prompts": 10, "refusals": 7, "leaks": 2, "non_answers": 1, "malformed": 3}
    group = counts | {"goodness_well_formed": well_formed}
    storage.write_json(folder / "evaluate/details.json", {"sft": {"hazards": {"plain": group}}})
    return folder


def test_tables_hold_means_ranges_and_sums(tmp_path):
    runs = [_run(tmp_path / "a", 0.25, {"value": 1.0}), _run(tmp_path / "b", 0.75, None)]
    *_, metrics = seeds.metrics_table(runs).splitlines()
    assert metrics.startswith("| sft | 0.500 (0.250-0.750) |")
    *_, outcomes = seeds.outcomes_table(runs).splitlines()
    assert outcomes == "| sft | plain | 20 | 14 | 4 | 2 | 6 | 1.000 |"
