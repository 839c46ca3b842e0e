"""Every number of every setting of the package is finite and has a range."""

import dataclasses
import math
from typing import Any, get_args

import pytest

from stair_jax.errors import UserError
from stair_jax.run.run_config import Top, section_classes
from stair_jax.settings import (
    check_section,
    describe,
    mapping_values,
    nested_settings,
    rule_of,
    type_alternatives,
    type_hints,
)
from stair_jax.settings_rules import LARGEST_REAL, LARGEST_WHOLE, Rule
from stair_jax.stages import STAGES

SECTIONS = {"config": Top, **section_classes(STAGES)}


def fields_of(cls, path=()):
    """(path, type, rule) of each field, those of nested settings included."""
    for info in dataclasses.fields(cls):
        hint = type_hints(cls)[info.name]
        if nested := nested_settings(hint):
            yield from fields_of(nested, (*path, info.name))
        else:
            yield (*path, info.name), hint, rule_of(info)


def holders(hint):
    """How values of a field are made of one number: itself, in a tuple, or below a name."""
    for part in type_alternatives(hint):
        if part in (int, float, Any):
            yield lambda number: number
        elif (values := mapping_values(part)) is not None:
            yield from (lambda number, f=hold: {"a": f(number)} for hold in holders(values))
        elif get_args(part):
            inner = [item for item in get_args(part) if isinstance(item, type)]
            yield from (lambda number, f=hold: (f(number),) for i in inner for hold in holders(i))


NUMBERS = [
    (section, path, hold, rule, int in type_alternatives(hint))
    for section, cls in SECTIONS.items()
    for path, hint, rule in fields_of(cls)
    for hold in holders(hint)
]


def refusal(section, path, value):
    """What is said of a config that sets one field, or empty."""
    for name in reversed(path):
        value = {name: value}
    try:
        check_section(SECTIONS[section], value, section)
    except UserError as error:
        assert "\n" not in str(error)
        return str(error)
    return ""


def test_the_walk_reaches_fields_of_all_forms():
    paths = {(section, ".".join(path)) for section, path, *_ in NUMBERS}
    assert {
        ("config", "seed"),
        ("search", "judge.temperature"),
        ("preferences", "v1"),
        ("preferences", "prm.min_visits"),
        ("runtime", "training_mesh.fsdp"),
        ("search", "judge.malformed"),
        ("dpo", "rates"),
        ("model", "template_values"),
    } <= paths
    numeric = {
        (section, field.name)
        for section, cls in SECTIONS.items()
        for field in describe(cls)
        if " number" in field.type
    }
    assert numeric <= paths and len(numeric) > 100


@pytest.mark.parametrize("section", SECTIONS)
def test_no_field_takes_a_number_that_is_not_finite(section):
    for _, path, hold, *_ in (row for row in NUMBERS if row[0] == section):
        for number in (math.nan, math.inf, -math.inf):
            said = refusal(section, path, hold(number))
            assert (path[-1] in said and "finite" in said) or "whole number" in said, (path, said)


@pytest.mark.parametrize("section", SECTIONS)
def test_no_field_takes_a_number_without_bounds(section):
    for _, path, hold, _, whole in (row for row in NUMBERS if row[0] == section):
        largest = LARGEST_WHOLE + 1 if whole else 2 * LARGEST_REAL
        for number in (largest, -largest, 2**63 - 1, -(2**63 - 1)):
            said = refusal(section, path, hold(number if whole else float(number)))
            assert path[-1] in said and "must be" in said, (path, number)


def test_every_count_has_a_least_value():
    """A negative count would be taken for none, for all, or for an index from the end."""
    for section, path, _, rule, whole in NUMBERS:
        if whole:
            assert rule.least is not None or rule.above is not None, (section, path)


@pytest.mark.parametrize("number", [5e-324, -1e-40, 1e13, -1e13, 2.0**1000])
def test_reals_are_those_that_float32_can_compute_with(number):
    assert "in size" in Rule().refusal(number)
    assert not Rule().refusal(0.0) and not Rule().refusal(-1e12) and not Rule().refusal(1e-30)


def test_a_stated_bound_counts_more_than_the_general_one():
    assert Rule(most=2**50).refusal(2**50) == ""
    assert Rule(most=2**50).refusal(2**50 + 1) == f"at most {2**50}"
    assert Rule(least=0).refusal(2**41) == f"at most {2**40} in size"
    assert Rule(least=0).refusal(-1) == "at least 0"
