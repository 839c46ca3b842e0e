"""`adapter_config.json` of an adapter folder, as PEFT writes it: read, refused by name, written."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from stair_jax.adapter_folders import CONFIG_FILE
from stair_jax.errors import UserError
from stair_jax.models.config_values import count, flag, number, shown
from stair_jax.models.huggingface.adapter_rows import Tokens, named_tokens, read_tokens
from stair_jax.models.lora import Lora
from stair_jax.storage import read_json

MOST_RANK = 2**12
_MOST_ALPHA = 2**20
# Heads that PEFT trains beside the adapters of a sequence classifier, by the names that it tries.
_HEADS = {"score", "classifier"}
_TASKS = (None, "CAUSAL_LM", "SEQ_CLS")
# Ways to draw new adapters that leave the base as it is; the others change it when they are loaded.
_NEUTRAL_INITS = (True, False, None, "gaussian", "orthogonal", "eva")
# Fields that say nothing of what the adapters do, or that are read below.
_KNOWN = {
    "alpha_pattern",
    "auto_mapping",
    "base_model_name_or_path",
    "bias",
    "corda_config",
    "ensure_weight_tying",
    "eva_config",
    "exclude_modules",
    "fan_in_fan_out",  # of layers with transposed weights, which none of our families has
    "inference_mode",
    "init_lora_weights",
    "layers_pattern",
    "layers_to_transform",
    "loftq_config",
    "lora_alpha",
    "lora_dropout",
    "lora_ga_config",
    "megatron_core",
    "modules_to_save",
    "peft_type",
    "peft_version",
    "qalora_group_size",
    "r",
    "rank_pattern",
    "revision",
    "runtime_config",
    "target_modules",
    "task_type",
    "trainable_token_indices",
    "use_rslora",
}
_ABOUT = {
    "use_dora": "DoRA normalises the merged kernels",
    "lora_bias": "biases of adapters",
    "layer_replication": "layers of the base are repeated",
    "target_parameters": "adapters of parameters that are no linear layers",
    "alora_invocation_tokens": "adapters that act behind certain tokens alone",
}
_PLAIN = re.compile(r"\^?[\w.]+")
_LAYER = re.compile(r"model\.layers\.(\d{1,9})\.(.+)")


@dataclass(frozen=True)
class AdapterConfig:
    """What is needed of `adapter_config.json`.

    Attributes:
        path: of the file.
        rank: of the adapters that `ranks` does not name.
        alpha: of those that `alphas` does not name.
        is_rslora: products are multiplied by alpha / sqrt(rank) in place of alpha / rank.
        targets: ends of the names of modules that have adapters; None: a pattern names them.
        excluded: ends of the names of modules that have none nevertheless.
        layers: those that have adapters; None: all.
        ranks: of some modules, by the end of their names.
        alphas: likewise.
        dropout: that of the inputs of the adapters in training.
        tokens: those with rows of their own, see `adapter_rows.py`.
    """

    path: Path
    rank: int
    alpha: float
    is_rslora: bool = False
    targets: tuple[str, ...] | None = None
    excluded: tuple[str, ...] = ()
    layers: frozenset[int] | None = None
    ranks: Mapping[str, int] = field(default_factory=dict)
    alphas: Mapping[str, float] = field(default_factory=dict)
    dropout: float = 0.0
    tokens: Tokens = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path) -> "AdapterConfig":
        """Reads the file of a folder.

        Raises:
            UserError: it is missing or damaged, or asks for something that is not supported.
        """
        path = folder / CONFIG_FILE
        values = read_json(path)
        if not isinstance(values, dict):
            raise UserError(f"{path} is damaged: it holds no JSON object")
        _refuse(path, values)
        values = {"use_rslora": False, "lora_dropout": 0.0, **values}
        where = str(path)
        for name in ("r", "lora_alpha"):
            if name not in values:
                raise UserError(f"{path} lacks {name}")
        ranks, alphas = (_pattern(path, values, f"{of}_pattern") for of in ("rank", "alpha"))
        alpha = partial(number, least=-_MOST_ALPHA, most=_MOST_ALPHA, where=where)
        return cls(
            path=path,
            rank=count(values, "r", MOST_RANK, where),
            alpha=alpha(values, "lora_alpha"),
            is_rslora=flag(values, "use_rslora", where),
            targets=_targets(path, values),
            excluded=_names(path, values, "exclude_modules") or (),
            layers=_layers(path, values),
            ranks={name: count(ranks, name, MOST_RANK, where) for name in ranks},
            alphas={name: alpha(alphas, name) for name in alphas},
            dropout=number(values, "lora_dropout", least=0, most=1, where=where),
            tokens=read_tokens(path, values),
        )

    def wants(self, module: str) -> bool:
        """Whether a module, such as model.layers.0.mlp.down_proj, has to have an adapter."""
        if self.targets is None or any(_is_end(name, module) for name in self.excluded):
            return False
        layer = _LAYER.fullmatch(module)
        if self.layers is not None and (layer is None or int(layer[1]) not in self.layers):
            return False
        return any(_is_end(name, module) for name in self.targets)

    def rank_of(self, module: str) -> int:
        """The rank of a module's adapter."""
        return int(_by_end(self.ranks, module, self.rank))

    def scale_of(self, module: str) -> float:
        """What the product of the halves of a module's adapter is multiplied by."""
        return self._scale(self.rank_of(module), _by_end(self.alphas, module, self.alpha))

    @property
    def scale(self) -> float:
        """That of the modules that no pattern names."""
        return self._scale(self.rank, self.alpha)

    def _scale(self, rank: int, alpha: float) -> float:
        return alpha / (rank**0.5 if self.is_rslora else rank)


def config_values(
    lora: Lora,
    base: Path,
    joined: Mapping[str, int],
    targets: Sequence[str],
    tables: Sequence[str],
    is_scoring: bool,
) -> dict[str, Any]:
    """The content of `adapter_config.json`.

    Args:
        lora: the adapters.
        base: the folder of their base.
        joined: modules of several kernels, and how many of these have adapters.
        targets: last parts of the names of the modules with adapters.
        tables: those in which tokens have rows of their own.
        is_scoring: whether a scalar head stands beside them.
    """
    alpha, is_rslora = _alpha(lora)
    growth = (lambda number: number**0.5) if is_rslora else float
    return {
        "peft_type": "LORA",
        "task_type": "SEQ_CLS" if is_scoring else "CAUSAL_LM",
        "base_model_name_or_path": str(base.absolute()),
        "inference_mode": True,
        "r": lora.rank,
        "lora_alpha": alpha,
        "use_rslora": is_rslora,
        "target_modules": sorted(targets),
        "rank_pattern": {name: number * lora.rank for name, number in joined.items()},
        "alpha_pattern": {name: growth(number) * alpha for name, number in joined.items()},
        "modules_to_save": ["score"] if is_scoring else None,
        "trainable_token_indices": named_tokens(lora, tables),
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "init_lora_weights": True,
        "layers_to_transform": None,
        "layers_pattern": None,
        "use_dora": False,
    }


def _alpha(lora: Lora) -> tuple[float, bool]:
    """(lora_alpha, use_rslora) for a scale; whole numbers where these can say it."""
    for root, is_rslora in ((lora.rank, False), (lora.rank**0.5, True)):
        alpha = lora.scale * root
        if math.isclose(alpha, round(alpha), rel_tol=1e-12) and round(alpha) / root == lora.scale:
            return round(alpha), is_rslora
    alpha = lora.scale * lora.rank
    # One that gives the scale back to the last bit, as far as there is one.
    near = (alpha, math.nextafter(alpha, math.inf), math.nextafter(alpha, -math.inf))
    return next((each for each in near if each / lora.rank == lora.scale), alpha), False


def _refuse(path: Path, values: Mapping[str, Any]) -> None:
    """Raises a UserError for adapters that would compute something else than is read of them."""
    if values.get("peft_type") != "LORA":
        raise UserError(
            f"{path} is of peft_type {shown(values.get('peft_type'))}: adapters of LORA alone are "
            "supported"
        )
    for name, choices in (
        ("bias", (None, "none")),
        ("task_type", _TASKS),
        ("init_lora_weights", _NEUTRAL_INITS),
        ("revision", (None, "main")),
    ):
        value = values.get(name)
        if value not in choices:
            raise UserError(
                f"{name} {shown(value)} in {path} is not supported: merge the adapters with peft's "
                "merge_and_unload(), and name the result"
            )
    saved = values.get("modules_to_save") or []
    saved = saved if isinstance(saved, list) else [saved]
    others = [name for name in saved if not isinstance(name, str) or name not in _HEADS]
    if others:
        raise UserError(
            f"modules_to_save in {path} has {shown(others[0])}: beside adapters only a head score "
            "is read; merge them with peft's merge_and_unload(), and name the result"
        )
    for name, value in values.items():
        if name not in _KNOWN and value not in (None, False, 0, "", [], {}):
            about = f" ({_ABOUT[name]})" if name in _ABOUT else ""
            raise UserError(
                f"{shown(name)} in {path} is not supported{about}: merge the adapters with peft's "
                "merge_and_unload(), and name the result"
            )


def _targets(path: Path, values: Mapping[str, Any]) -> tuple[str, ...] | None:
    is_pattern = isinstance(values.get("exclude_modules"), str)
    return None if is_pattern else _names(path, values, "target_modules")


def _names(path: Path, values: Mapping[str, Any], field: str) -> tuple[str, ...] | None:
    """A list of module names; None for a text, which is a pattern, and for nothing."""
    names = values.get(field)
    if names is None or isinstance(names, str):
        return None
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        raise UserError(f"{field} in {path} must be a list of module names, not {shown(names)}")
    return tuple(names)


def _layers(path: Path, values: Mapping[str, Any]) -> frozenset[int] | None:
    layers, pattern = values.get("layers_to_transform"), values.get("layers_pattern")
    if pattern and pattern not in ("layers", ["layers"]):
        raise UserError(
            f"layers_pattern {shown(pattern)} in {path} is not supported: the layers of a model "
            "here are named layers"
        )
    if layers is None or layers == []:
        return None
    layers = layers if isinstance(layers, list) else [layers]
    if not all(type(layer) is int and layer >= 0 for layer in layers):
        raise UserError(f"layers_to_transform in {path} must be a list of layers: {shown(layers)}")
    return frozenset(layers)


def _pattern(path: Path, values: Mapping[str, Any], field: str) -> Mapping[str, Any]:
    pattern = values.get(field) or {}
    if not isinstance(pattern, dict):
        raise UserError(f"{field} in {path} must be an object, not {shown(pattern)}")
    for name in pattern:
        if not _PLAIN.fullmatch(name):
            raise UserError(
                f"{field} in {path} has {shown(name)}, a pattern: name the modules one by one"
            )
    return pattern


def _by_end(values: Mapping[str, Any], module: str, default: Any) -> Any:
    """The value of the first name that is that of the module, or its end; as PEFT looks it up."""
    for name, value in values.items():
        if module == name[1:] if name.startswith("^") else _is_end(name, module):
            return value
    return default


def _is_end(name: str, module: str) -> bool:
    return module == name or module.endswith(f".{name}")
