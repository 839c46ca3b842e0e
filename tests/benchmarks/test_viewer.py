"""The tree that the viewer is measured with is one that a report could have."""

from typing import get_type_hints

from benchmarks.viewer import random_tree, write_tree
from stair_jax.reports.html.schema_trees import Nodes, Tree


def test_a_random_tree_is_of_the_schema_and_its_visits_add_up():
    tree = random_tree(500)
    nodes = tree["nodes"]
    assert set(tree) == set(get_type_hints(Tree))
    assert set(nodes) == set(get_type_hints(Nodes))
    assert {len(column) for column in nodes.values()} == {500}
    below = [1] * 500
    for node, parent in enumerate(nodes["parent"]):
        assert parent < node
        if node:
            below[parent] += nodes["visits"][node]
    assert nodes["visits"] == below
    assert tree == random_tree(500) != random_tree(500, seed=1)


def test_its_report_is_one_file_with_the_tree_in_it(tmp_path):
    write_tree(tmp_path / "report.html", random_tree(20))
    text = (tmp_path / "report.html").read_text()
    assert text.count('id="data:') == 3
    assert "default-src 'none'" in text
