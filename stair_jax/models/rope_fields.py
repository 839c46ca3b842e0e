"""Rotary embedding in a `config.json`: one reader of base and scaling, for all spellings.

Transformers 4 has the base in `rope_theta` and the scaling in the table `rope_scaling`;
transformers 5 has both in the table `rope_parameters`, which models with layers of several types
split into one table for each type. Either table may hold its own base.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from stair_jax.errors import UserError
from stair_jax.models.config_values import CONFIG, count, number, shown
from stair_jax.models.rotary import SCALINGS, RopeScaling, yarn_attention_factor

_DEFAULT_THETA = 10000.0  # of transformers, for all families
_MOST_THETA = 1e15  # far above all known models; powers of it are finite in float32
_MOST_LENGTH = 2**31 - 1  # positions are int32
_MOST_FACTOR = 1e6
_LENGTH = "original_max_position_embeddings"
_TABLES = ("rope_scaling", "rope_parameters")
_NO_TABLE: tuple[Any, ...] = (None, {})
_FULL = "full_attention"
_SHARED_KEYS = {"rope_type", "type", "rope_theta", "partial_rotary_factor"}
# Keys that a table of each kind may have beside the shared ones.
_KEYS: Mapping[str, set[str]] = {
    "default": set(),
    "llama3": {"factor", _LENGTH, "low_freq_factor", "high_freq_factor"},
    "yarn": {
        *("factor", _LENGTH, "attention_factor", "attn_factor"),
        *("beta_fast", "beta_slow", "truncate"),
    },
}
_NEEDED: Mapping[str, tuple[str, ...]] = {
    "default": (),
    "llama3": ("factor", "high_freq_factor", "low_freq_factor"),
    "yarn": ("factor",),
}


class Rope(NamedTuple):
    """The rotary embedding of a model.

    Attributes:
        theta: base of the frequencies.
        scaling: for longer contexts, or None.
    """

    theta: float
    scaling: RopeScaling | None


def read_rope(values: Mapping[str, Any]) -> Rope:
    """Reads base and scaling from the content of a `config.json`.

    A base inside a table takes precedence over `rope_theta` beside it, as in transformers 5. Where
    both tables are given they must say the same: transformers 4 and 5 would read different ones.
    Of a table by types of layers the part of "full_attention" counts, the type of all layers here.
    `attn_factor` multiplies YaRN's own factor 0.1 ln(factor) + 1, as in vLLM and in the authors'
    code; `attention_factor` replaces it.

    Raises:
        UserError: names a kind, a key or a value that is not supported, or a key that is missing.
    """
    found = {
        name: _read_table(values, name) for name in _TABLES if values.get(name) not in _NO_TABLE
    }
    ropes = list(found.values())
    if not ropes:
        return Rope(_theta({}, "", values), None)
    if len(ropes) == 2 and not _agree(*ropes):
        raise UserError(
            f"rope_scaling and rope_parameters in {CONFIG} contradict each other "
            f"({ropes[0]} and {ropes[1]}): remove the wrong one"
        )
    return ropes[0]


def _read_table(values: Mapping[str, Any], name: str) -> Rope:
    table, where = _table(values[name], name)
    kind = table.get("rope_type", table.get("type", "default"))
    if table.get("type", kind) != kind:
        raise UserError(
            f"{where} has rope_type {shown(kind)}, but type {shown(table['type'])}: remove one"
        )
    if values.get("model_type") == "phi3" and kind != "default":
        raise UserError(
            f"{name} of type {shown(kind)} in {CONFIG} is not supported: Phi-3's scaling "
            "(longrope) has a factor for each frequency, in one list for short and one for long "
            "sequences; name the variant without it, such as Phi-3-mini-4k"
        )
    if not isinstance(kind, str) or kind not in _KEYS:
        raise UserError(
            f"{name} of type {shown(kind)} in {CONFIG} is not supported: "
            f"only {', '.join(SCALINGS)} are"
        )
    for key in sorted(set(table) - _SHARED_KEYS - _KEYS[kind]):
        raise UserError(f"{key} {shown(table[key])} in {where} is not supported for {kind!r}")
    for key in ("partial_rotary_factor", "truncate"):
        if key in table and table[key] != 1:
            raise UserError(f"{key} {shown(table[key])} in {where} is not supported")
    for key in _NEEDED[kind]:
        if key not in table:
            raise UserError(f"{name} of type {kind!r} in {CONFIG} lacks {key}")
    theta = _theta(table, where, values)
    return Rope(theta, None if kind == "default" else _scaling(kind, table, where, values))


def _table(value: Any, name: str) -> tuple[dict[str, Any], str]:
    """The table of all layers, without nulls, and its place."""
    where = f"{name} in {CONFIG}"
    if not isinstance(value, Mapping):
        raise UserError(f"{where} must be an object, not {shown(value)}")
    if _FULL not in value and not any(isinstance(part, Mapping) for part in value.values()):
        return {key: item for key, item in value.items() if item is not None}, where
    for key, part in value.items():
        if part is not None and not isinstance(part, Mapping):
            raise UserError(f"{key} {shown(part)} in {where} stands beside tables by type of layer")
    if value.get(_FULL) is None:
        raise UserError(f"{where} has no table for {_FULL}, the type of all layers")
    part = {key: item for key, item in value[_FULL].items() if item is not None}
    return part, f"{name}.{_FULL} in {CONFIG}"


def _theta(table: Mapping[str, Any], where: str, values: Mapping[str, Any]) -> float:
    # Powers of a base of 1 are all equal, and YaRN divides by its logarithm.
    if "rope_theta" in table:
        return number(table, "rope_theta", above=1, most=_MOST_THETA, where=where)
    if values.get("rope_theta") is not None:
        return number(values, "rope_theta", above=1, most=_MOST_THETA)
    return _DEFAULT_THETA


def _scaling(
    kind: str, table: Mapping[str, Any], where: str, values: Mapping[str, Any]
) -> RopeScaling:
    read: dict[str, Any] = {
        key: number(table, key, above=0, most=_MOST_FACTOR, where=where)
        for key in _KEYS[kind] - {_LENGTH, "truncate"}
        if key in table
    }
    if _LENGTH in table:
        length = count(table, _LENGTH, _MOST_LENGTH, where)
    else:
        length = count(values, "max_position_embeddings", _MOST_LENGTH)
    beside = values.get(_LENGTH)
    # Versions of transformers differ in which one they read.
    if beside is not None and count(values, _LENGTH, _MOST_LENGTH) != length:
        raise UserError(
            f"{_LENGTH} {beside} in {CONFIG} is not that of its rope scaling, {length}: "
            "say it in the rope scaling only"
        )
    if kind == "yarn":
        own = yarn_attention_factor(max(read["factor"], 1.0)) * read.pop("attn_factor", 1.0)
        read.setdefault("attention_factor", own)
    return RopeScaling(kind, original_max_position_embeddings=length, **read)


def _agree(first: Rope, second: Rope) -> bool:
    """Whether two readings are equal but for rounding."""
    if (first.scaling is None) != (second.scaling is None):
        return False
    one, other = (
        {"theta": rope.theta} | ({} if rope.scaling is None else vars(rope.scaling))
        for rope in (first, second)
    )
    return all(
        value == other[name] or (name != "kind" and math.isclose(value, other[name]))
        for name, value in one.items()
    )
