"""The blocks that the page is tested with are those of the schema."""

from types import NoneType
from typing import Any, get_args, get_origin, get_type_hints, is_typeddict

import pytest

from stair_jax.reports.html import schema
from stair_jax.reports.html.schema_cases import Case, CaseList
from stair_jax.reports.html.schema_tables import Evaluation
from stair_jax.reports.html.schema_trees import Pair, PairList, Search, Tree, TreeList

KINDS = {
    "head": schema.Head, "stages/0": list[schema.Stage], "curves/0": list[schema.Curve],
    "evaluations/0": list[Evaluation], "searches/0": list[Search], "trees/0": TreeList,
    "trees/0/0": list[Tree], "pairs/0": PairList, "pairs/0/0": list[Pair],
    "cases/0": list[CaseList], "cases/0/0": list[Case], "both": schema.Both,
}  # fmt: skip


def check(value, kind, where):
    """Asserts that a value is of a kind, whatever is in it too."""
    arguments = get_args(kind)
    if is_typeddict(kind):
        hints = get_type_hints(kind)
        assert set(value) == set(hints), where
        for key, hint in hints.items():
            check(value[key], hint, f"{where}.{key}")
    elif get_origin(kind) in (list, dict):
        assert isinstance(value, get_origin(kind)), where
        for one in value.values() if isinstance(value, dict) else value:
            check(one, arguments[-1], where)
    elif NoneType in arguments:
        (other,) = set(arguments) - {NoneType}
        assert value is None or check(value, other, where) is None
    elif kind is not Any:
        assert isinstance(value, int | float if kind is float else kind), where


@pytest.mark.parametrize("name", KINDS)
def test_a_block_is_as_the_schema_says(made, name):
    check(made.report(runs=2)[name], KINDS[name], name)


def test_all_blocks_are_tested(made):
    blocks = made.report(runs=2)
    assert {name.replace("/1", "/0", 1) for name in blocks} == set(KINDS)
