"""Settings: one declaration gives the check, the reading from text, and the help."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stair_jax.errors import UserError
from stair_jax.settings import Settings, build, check_section, describe, setting, values_of
from stair_jax.settings_text import parse_text


@dataclass(frozen=True)
class Inner(Settings):
    """Within.

    Attributes:
      size: how large,
        in two lines.
    """

    size: int = setting(1, least=1)


@dataclass(frozen=True)
class Outer(Settings):
    """All kinds of fields.

    Attributes:
      rate: a rate.
      mode: a mode.
      names: texts.
      inner: see `Inner`.
      maybe: a number or none.
      weights: by name.
      either: a word or a number.
      sources: one or several.
    """

    rate: float = setting(0.5, above=0, most=1)
    mode: Literal["fast", "exact"] = "fast"
    names: tuple[str, ...] = setting((), choices=("a", "b"))
    inner: Inner = setting(Inner)
    maybe: int | None = None
    weights: Mapping[str, float] | None = None
    either: Literal["missing"] | float = "missing"
    sources: str | tuple[str, ...] = setting("", cost=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rate == 1 and self.mode == "exact":
            raise UserError("rate 1 is not exact")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"rate": 0}, "config.x.rate is 0: it must be above 0 and at most 1"),
        ({"rate": "0.5"}, "config.x.rate is '0.5': it must be a finite number above 0 and at mos"),
        ({"rate": True}, "config.x.rate is True"),
        ({"rate": float("nan")}, "config.x.rate is nan: it must be a finite number"),
        ({"rate": 10**400}, "000: it must be a finite number"),
        (
            {"inner": {"size": 2**63}},
            "config.x.inner.size is 9223372036854775808: it must be a who",
        ),
        ({"inner": {"size": 10**5000}}, "size is a number of too many digits: it must be a whole"),
        ({"mode": "fsat"}, "must be one of 'fast', 'exact': did you mean 'fast'?"),
        ({"names": "a"}, "config.x.names is 'a': it must be a tuple, each one of 'a', 'b'"),
        ({"names": ("a", "c")}, "config.x.names is 'c': it must be one of 'a', 'b'"),
        ({"names": ("a", 1)}, "config.x.names[1] is 1"),
        ({"inner": {"size": 1.5}}, "config.x.inner.size is 1.5: it must be a whole number"),
        ({"inner": {"siez": 1}}, "config.x.inner has no field 'siez': did you mean size?"),
        ({"inner": 3}, "config.x.inner is 3: it must be a section with fields"),
        ({"maybe": "1"}, "config.x.maybe is '1': it must be a whole number or None"),
        ({"weights": {"a": "x"}}, "config.x.weights.a is 'x': it must be a finite number"),
        ({"weights": [1]}, "config.x.weights is [1]: it must be a mapping from names"),
        ({"either": "mising"}, "must be one of 'missing': did you mean 'missing'?"),
        ({"rate": 1, "mode": "exact"}, "config.x: rate 1 is not exact"),
    ],
)
def test_a_value_that_cannot_be_is_named_with_its_place(values, said):
    with pytest.raises(UserError) as caught:
        build(Outer, values, "config.x")
    assert said in str(caught.value)


def test_values_get_the_type_of_their_field():
    made = build(Outer, {"rate": 1, "names": ["a"], "inner": {"size": 2}, "either": 3}, "x")
    assert made == Outer(rate=1.0, names=("a",), inner=Inner(2), either=3.0)
    assert isinstance(made.rate, float) and isinstance(made.either, float)
    assert Outer(sources=["a", "b"]).sources == ("a", "b")
    with pytest.raises(UserError, match=r"^rate is 2: it must be above 0 and at most 1"):
        Outer(rate=2)


def test_a_section_that_another_one_completes_is_checked_by_itself():
    assert check_section(Outer, {"rate": 1, "mode": "exact"}, "x") == {"rate": 1.0, "mode": "exact"}


def test_values_of_the_fields_that_are_kept():
    values = values_of(Outer(), keep=lambda info, value: info.name in ("rate", "inner", "size"))
    assert values == {"rate": 0.5, "inner": {"size": 1}}


def test_the_help_has_every_field_with_type_range_default_and_text():
    found = {field.name: field for field in describe(Outer)}
    assert list(found) == [
        "rate", "mode", "names", "inner.size", "maybe", "weights", "either", "sources",
    ]  # fmt: skip
    assert found["inner.size"].text == "how large, in two lines."
    assert (found["rate"].type, found["rate"].default) == (
        "a finite number above 0 and at most 1", "0.5",
    )  # fmt: skip
    assert found["sources"].rule.cost and not found["rate"].rule.cost


@pytest.mark.parametrize(
    ("hint", "text", "value"),
    [
        (str, "None", "None"),
        (str | None, "None", None),
        (int | None, "12", 12),
        (bool, "TRUE", True),
        (float, "1e-4", 1e-4),
        (tuple[str, ...], "a, b", ("a", "b")),
        (tuple[str, ...], "('a',)", ("a",)),
        (tuple[float, ...], "[1, 2.5]", (1.0, 2.5)),
        (str | tuple[str, ...], "a,b", "a,b"),
        (str | tuple[str, ...], "('a', 'b')", ("a", "b")),
        (tuple[str | tuple[str, ...], ...], "(('a', 'b'), 'c')", (("a", "b"), "c")),
        (Mapping[str, float], '{"a": 1}', {"a": 1.0}),
        (Literal["missing"] | float, "-1", -1.0),
        (Literal["missing"] | float, "missing", "missing"),
        (Any, "{'a': [1]}", {"a": [1]}),
        (Any, "plain words", "plain words"),
    ],
)
def test_text_is_read_as_the_type_of_the_field(hint, text, value):
    assert parse_text(text, hint, "x") == value


@pytest.mark.parametrize(
    ("hint", "text"),
    [
        (int, "1.0"), (int, "1e3"), (float, "inf"), (float, "one"), (bool, "maybe"),
        (tuple[float, ...], "a"), (str | tuple[str, ...], "('a', 1)"), (Inner, "1"),
        (Mapping[str, float], "[1]"), (Literal["a", "b"], "c"), (tuple[str, ...], "(" * 50_000),
    ],
)  # fmt: skip
def test_text_that_means_no_value_is_refused_in_one_line(hint, text):
    with pytest.raises(UserError, match="it must be"):
        parse_text(text, hint, "x")


@given(st.one_of(st.integers(), st.floats(allow_nan=False, allow_infinity=False)))
def test_numbers_survive_their_text(number):
    assert parse_text(repr(number), type(number), "x") == number


@given(st.lists(st.text(max_size=5), max_size=4), st.dictionaries(st.text(max_size=5), st.floats(
    allow_nan=False, allow_infinity=False), max_size=3))  # fmt: skip
def test_tuples_and_mappings_survive_their_text(names, weights):
    assert parse_text(repr(tuple(names)), tuple[str, ...], "x") == tuple(names)
    assert parse_text(repr(weights), Mapping[str, float], "x") == weights


@given(st.text(max_size=40))
def test_any_text_is_a_value_or_one_line(text):
    for info in fields(Outer):
        try:
            Outer(**{info.name: text})
        except UserError as error:
            assert str(error)
