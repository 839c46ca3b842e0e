"""The shape of a decoder, read from and written to a Hugging Face `config.json`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stair_jax.errors import UserError

DTYPES = ("float32", "bfloat16", "float16")
REMAT_POLICIES = ("none", "full", "dots")

# Options of a Llama config.json that change the function, with the only values implemented here.
_FIXED_OPTIONS: Mapping[str, Any] = {
    "hidden_act": "silu",
    "attention_bias": False,
    "mlp_bias": False,
    "attention_dropout": 0.0,
    "partial_rotary_factor": 1.0,
    "quantization_config": None,
}
_REQUIRED = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
)


@dataclass(frozen=True)
class ModelConfig:
    """A Llama decoder. Fields of the architecture have their Hugging Face names.

    The last four fields say how it is computed. `dtype` is that of the activations and of the
    cache, `param_dtype` that of the parameters; norms, softmax and rotary angles are float32
    always. `remat` is what the scanned layers recompute in the backward pass: "none", "full"
    (all but the input of each layer) or "dots" (all but the results of matrix products).
    `attention` names a backend of `attention.py`.
    """

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    max_position_embeddings: int = 2048
    rope_theta: float = 10000.0
    rms_norm_eps: float = 1e-6
    tie_word_embeddings: bool = False
    initializer_range: float = 0.02
    dtype: str = "float32"
    param_dtype: str = "float32"
    remat: str = "none"
    attention: str = "xla"

    def __post_init__(self) -> None:
        """Raises a UserError that names the first field that cannot be."""
        for name in (*_REQUIRED, "num_key_value_heads", "head_dim", "max_position_embeddings"):
            _require_positive_int(name, getattr(self, name))
        if self.num_attention_heads % self.num_key_value_heads:
            raise UserError(
                f"num_attention_heads {self.num_attention_heads} must be a multiple of "
                f"num_key_value_heads {self.num_key_value_heads}"
            )
        if self.head_dim % 2:
            raise UserError(f"head_dim {self.head_dim} must be even for the rotary embedding")
        for name, choices in (
            ("dtype", DTYPES),
            ("param_dtype", DTYPES),
            ("remat", REMAT_POLICIES),
        ):
            if getattr(self, name) not in choices:
                raise UserError(
                    f"{name} {getattr(self, name)!r} is unknown: choose one of {', '.join(choices)}"
                )

    @classmethod
    def from_huggingface(cls, values: Mapping[str, Any]) -> "ModelConfig":
        """Reads the content of a `config.json`.

        Raises:
            UserError: names a field that is missing, or an option that is not implemented.
        """
        if values.get("model_type") != "llama":
            raise UserError(f"model_type {values.get('model_type')!r} is not supported: use llama")
        for name in _REQUIRED:
            if values.get(name) is None:
                raise UserError(f"the model's config.json lacks {name}")
        for name, supported in _FIXED_OPTIONS.items():
            value = values.get(name)
            if value is not None and value != supported:
                raise UserError(f"{name} {value!r} in the model's config.json is not supported")
        heads = values["num_attention_heads"]
        _require_positive_int("num_attention_heads", heads)
        _require_positive_int("hidden_size", values["hidden_size"])
        return cls(
            **{name: values[name] for name in _REQUIRED},
            num_key_value_heads=_given(values, "num_key_value_heads", heads),
            head_dim=_given(values, "head_dim", values["hidden_size"] // heads),
            max_position_embeddings=_given(values, "max_position_embeddings", 2048),
            rope_theta=_rope_theta(values),
            rms_norm_eps=_given(values, "rms_norm_eps", 1e-6),
            tie_word_embeddings=_given(values, "tie_word_embeddings", False),
            initializer_range=_given(values, "initializer_range", 0.02),
        )

    def to_huggingface(self) -> dict[str, Any]:
        """The content of a `config.json` without token ids and without the dtype of the weights."""
        return {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            **{name: getattr(self, name) for name in _REQUIRED},
            "num_key_value_heads": self.num_key_value_heads,
            "head_dim": self.head_dim,
            "max_position_embeddings": self.max_position_embeddings,
            # Transformers 5 reads rope_parameters; transformers 4 and vLLM read rope_theta.
            "rope_theta": self.rope_theta,
            "rope_parameters": {"rope_theta": self.rope_theta, "rope_type": "default"},
            "rms_norm_eps": self.rms_norm_eps,
            "tie_word_embeddings": self.tie_word_embeddings,
            "initializer_range": self.initializer_range,
            "hidden_act": "silu",
            "attention_bias": False,
            "mlp_bias": False,
            "attention_dropout": 0.0,
        }


def _given(values: Mapping[str, Any], name: str, default: Any) -> Any:
    """The value of a field, or the default where it is absent or null."""
    return default if values.get(name) is None else values[name]


def _rope_theta(values: Mapping[str, Any]) -> float:
    """The base of the rotary frequencies; refuses every kind of rope scaling."""
    for name in ("rope_scaling", "rope_parameters"):
        rope = values.get(name) or {}
        kind = rope.get("rope_type", rope.get("type", "default"))
        if kind != "default":
            raise UserError(f"{name} of type {kind!r} in the model's config.json is not supported")
    parameters = values.get("rope_parameters") or {}
    return float(_given(parameters, "rope_theta", _given(values, "rope_theta", 10000.0)))


def _require_positive_int(name: str, value: Any) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise UserError(f"{name} must be a positive whole number, not {value!r}")
