"""Tables over several seeds."""

from stair_jax import storage
from stair_jax.evaluation import seeds
from stair_jax.evaluation.benchmarks.pocket import Pocket
from stair_jax.evaluation.cells import Cell
from stair_jax.evaluation.costs import Cost
from stair_jax.evaluation.table import Column, RowKey, Table
from stair_jax.evaluation.writers import write_table


def _run(folder, value, well_formed):
    """A finished run whose table has the pocket world's columns, and others of the same names."""
    names = [metric.name for metric in Pocket.METRICS]
    columns = [Column("pocket", "none", name) for name in names]
    others = [Column(*where, "over_refusal") for where in (("xstest", "none"), ("pocket", "rot13"))]
    row = RowKey("sft", "greedy")
    cells = [Cell(value, metric=name) for name in names] + [Cell(0.125), Cell(0.125)]
    table = Table((row,), (*columns, *others), (tuple(cells),), (Cost(0),))
    (folder / "evaluate").mkdir(parents=True)
    write_table(table, folder / "evaluate")
    counts = {"prompts": 10, "refusals": 7, "leaks": 2, "non_answers": 1, "malformed": 3}
    group = counts | {"goodness_well_formed": well_formed}
    details = {"sft": {"pocket": {"hazards": {"plain": group}, "families": {}}, "other": {}}}
    storage.write_json(folder / "evaluate/details.json", details)
    return folder


def test_tables_hold_means_ranges_and_sums_of_the_pocket_world(tmp_path):
    runs = [_run(tmp_path / "a", 0.25, {"value": 1.0}), _run(tmp_path / "b", 0.75, None)]
    *_, metrics = seeds.metrics_table(runs).splitlines()
    assert metrics == f"| sft | {' | '.join(['0.500 (0.250-0.750)'] * 10)} |"
    *_, outcomes = seeds.outcomes_table(runs).splitlines()
    assert outcomes == "| sft | plain | 20 | 14 | 4 | 2 | 6 | 1.000 |"
