"""Model config: the architecture, read from and written to a Hugging Face `config.json`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stair_jax.errors import UserError
from stair_jax.models.base_quantization import BASE_WEIGHTS
from stair_jax.models.config_fields import GELU, WINDOWED, check_fields
from stair_jax.models.config_values import CONFIG, count, flag, number, shown
from stair_jax.models.lora import Lora
from stair_jax.models.rope_fields import read_rope
from stair_jax.models.rotary import RopeScaling

DTYPES = ("float32", "bfloat16", "float16")
REMAT_POLICIES = ("none", "full", "dots", "attention", "attention_mlp", "offload")

# Defaults of transformers for fields that a config.json lacks, by model type.
_DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "llama": {"max_position_embeddings": 2048},
    "qwen2": {"max_position_embeddings": 32768, "num_key_value_heads": 32},
    "qwen3": {"max_position_embeddings": 32768, "num_key_value_heads": 32, "head_dim": 128},
    "mistral": {
        "max_position_embeddings": 131072,
        "num_key_value_heads": 8,
        "sliding_window": 4096,
    },
    "phi3": {"max_position_embeddings": 4096, "rms_norm_eps": 1e-5},
    "gemma": {
        "max_position_embeddings": 8192,
        "num_key_value_heads": 16,
        "head_dim": 256,
        "tie_word_embeddings": True,
    },
}
MODEL_TYPES = tuple(_DEFAULTS)
# What is missing for families that one could take for supported ones.
_TWO_ROPES = (
    "its layers are of two kinds, with rotary bases and windows of their own (layer_types, "
    "rope_local_base_freq, sliding_window), and it has norms behind attention and MLP"
)
_EXPERTS = "its MLP is a mixture of experts"
_ENCODER = "it is an encoder, whose attention is not causal"
_MISSING: Mapping[str, str] = {
    "gemma2": (
        "its logits, in attention too, are soft-capped (attn_logit_softcapping, "
        "final_logit_softcapping), and it has norms behind attention and MLP"
    ),
    "gemma3": _TWO_ROPES,
    "gemma3_text": _TWO_ROPES,
    "mixtral": _EXPERTS,
    "qwen2_moe": _EXPERTS,
    "qwen3_moe": _EXPERTS,
    "phimoe": _EXPERTS,
    "bert": _ENCODER,
    "roberta": _ENCODER,
    "deberta-v2": _ENCODER,
    "distilbert": _ENCODER,
    "modernbert": _ENCODER,
}

_REQUIRED = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
)
# Sizes far beyond any model: a larger one is a damaged or hostile file.
_LARGEST: Mapping[str, int] = {
    "vocab_size": 2**24,
    "hidden_size": 2**20,
    "intermediate_size": 2**22,
    "num_hidden_layers": 2**12,
    "num_attention_heads": 2**14,
    "num_key_value_heads": 2**14,
    "head_dim": 2**14,
    "max_position_embeddings": 2**31 - 1,
    "vocab_multiple": 2**24,
}


@dataclass(frozen=True)
class ModelConfig:
    """A decoder of the Llama, Qwen2, Qwen3, Mistral, Phi-3 or Gemma family.

    Fields of the architecture have their Hugging Face names; `model_type` is "llama", "qwen2"
    (biases on queries, keys and values), "qwen3" (norms on queries and keys), "mistral" (Llama
    with a sliding window), "phi3" (that, with joined tensors in the files) or "gemma" (GELU, a
    scaled embedding, norms that add one to their scales). The config is hashable and is a static
    argument of jitted functions.

    `sliding_window` is the number of tokens, itself included, that a token attends to in every
    layer; None: all before it. Attention here is always to the whole context, so that longer
    sequences are refused (`check_length`).

    Computation:

    - `dtype` is that of the activations, `param_dtype` that of the parameters. Norms, softmax and
      rotary angles are always float32.
    - `attention` is a backend of `attention/backends.py` for whole sequences: "xla" (all
      platforms), "cudnn" (GPUs, 16-bit dtypes), "splash" (TPUs), or "" for the fastest one of the
      platform.
    - `remat` is what the scanned layers recompute in the backward pass:

        - none: nothing; everything is saved.
        - full: all but the input of each layer, which is the least that can be saved.
        - dots: all but products with weights; so attention is recomputed.
        - attention: the products of the MLP and after attention; queries, keys, values and the
          result of attention are saved.
        - attention_mlp: only what is cheap (norms, activations); no product and no attention.
        - offload: as full, with the inputs of the layers in host memory.

    - `unroll`: the layers are compiled one after the other, and not as one loop. What is saved for
      the backward pass is then used where it is; a loop copies it into arrays of all layers, and
      out of them again. Compilation takes longer by the number of layers.
    - `row_sequences`: most sequences that a row of a batch holds; 0: as many as
      `attention/cudnn.most_segments` allows. The backward pass of cuDNN's attention takes time and
      memory for each that there may be. With one there are no segments at all.

    Layout on a mesh:

    - `vocab_size` is the true number of tokens. Embedding and head have rows up to a multiple of
      `vocab_multiple`; the rows beyond are zeros and stand for no token.
    - `shard_kv_heads`: False keeps all key and value heads on each device.

    `lora` says which kernels have adapters beside them (`lora.py`); None: there are none.
    `base_weights` says in which of `BASE_WEIGHTS` the kernels of the layers are held while they are
    frozen (`base_quantization.py`); "none": in `param_dtype`.
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
    unroll: bool = False
    row_sequences: int = 0
    attention: str = ""
    model_type: str = "llama"
    rope_scaling: RopeScaling | None = None
    sliding_window: int | None = None
    vocab_multiple: int = 1
    shard_kv_heads: bool = True
    lora: Lora | None = None
    base_weights: str = "none"

    def __post_init__(self) -> None:
        """Checks the fields.

        Raises:
            UserError: names the first field that is not valid.
        """
        for name, most in _LARGEST.items():
            count(vars(self), name, most)
        for name in ("rms_norm_eps", "initializer_range"):
            number(vars(self), name, least=0, most=1)
        number(vars(self), "rope_theta", above=1)
        flag(vars(self), "tie_word_embeddings")
        if self.sliding_window is not None:
            count(vars(self), "sliding_window", _LARGEST["max_position_embeddings"])
        if self.num_attention_heads % self.num_key_value_heads:
            raise UserError(
                f"num_attention_heads {self.num_attention_heads} must be a multiple of "
                f"num_key_value_heads {self.num_key_value_heads}"
            )
        if self.head_dim % 2:
            raise UserError(f"head_dim {self.head_dim} must be even for the rotary embedding")
        if self.base_weights == "nf4" and (self.hidden_size % 2 or self.intermediate_size % 2):
            raise UserError(
                f"hidden_size {self.hidden_size} and intermediate_size {self.intermediate_size} "
                "must be even for base_weights 'nf4', which packs two weights into a byte"
            )
        for name, choices in (
            ("dtype", DTYPES),
            ("param_dtype", DTYPES),
            ("remat", REMAT_POLICIES),
            ("model_type", MODEL_TYPES),
            ("base_weights", BASE_WEIGHTS),
        ):
            if getattr(self, name) not in choices:
                raise UserError(
                    f"{name} {getattr(self, name)!r} is unknown: choose one of {', '.join(choices)}"
                )

    @property
    def qkv_bias(self) -> bool:
        """Whether the projections to queries, keys and values have biases."""
        return self.model_type == "qwen2"

    @property
    def qk_norm(self) -> bool:
        """Whether each head of queries and keys is normalised before the rotary embedding."""
        return self.model_type == "qwen3"

    @property
    def has_gelu(self) -> bool:
        """Whether the MLP's activation is GELU, by its tanh approximation, in place of SiLU."""
        return self.model_type == "gemma"

    @property
    def embedding_scale(self) -> float:
        """What the rows of the embedding are multiplied by before the first layer."""
        return self.hidden_size**0.5 if self.model_type == "gemma" else 1.0

    @property
    def norm_offset(self) -> float:
        """What norms add to their scales."""
        return 1.0 if self.model_type == "gemma" else 0.0

    @property
    def has_joined_tensors(self) -> bool:
        """Whether checkpoints hold queries, keys and values in one tensor, and gate and up too."""
        return self.model_type == "phi3"

    def check_length(self, length: int, what: str, remedy: str) -> None:
        """Refuses sequences of which layers with a sliding window would see a part only.

        Args:
            length: most tokens of a sequence.
            what: of what the length is, for the message.
            remedy: what to lower, for the message.

        Raises:
            UserError: the length is more than the sliding window.
        """
        window = self.sliding_window
        if window is not None and length > window:
            raise UserError(
                f"{what} has {length} tokens, more than the sliding_window {window} of the model, "
                f"and attention to a window is not supported: lower {remedy} to {window} or less"
            )

    def padded_length(self, length: int, bucket: int) -> int:
        """Length to pad a sequence to, where `bucket` (>= length) would do for any other model.

        Raises:
            UserError: the sequence is longer than the sliding window.
        """
        self.check_length(length, "a sequence to score", "its length")
        return min(bucket, self.sliding_window or bucket)

    @property
    def context_tokens(self) -> int:
        """Longest sequence that the model was made for, and that is computed exactly here."""
        return min(self.max_position_embeddings, self.sliding_window or 2**31 - 1)

    @property
    def padded_vocab_size(self) -> int:
        """Number of rows of embedding and head."""
        return -(-self.vocab_size // self.vocab_multiple) * self.vocab_multiple

    @property
    def causal_architecture(self) -> str:
        """Name of the transformers class with a vocabulary head."""
        return f"{self.model_type.capitalize()}ForCausalLM"

    @property
    def scoring_architecture(self) -> str:
        """Name of the transformers class with a scalar head."""
        return f"{self.model_type.capitalize()}ForSequenceClassification"

    @classmethod
    def from_huggingface(cls, values: Mapping[str, Any]) -> "ModelConfig":
        """Reads the content of a `config.json`, as written by transformers 4 or 5.

        Raises:
            UserError: names a field that is missing, or an option that is not supported.
        """
        model_type = values.get("model_type")
        if not isinstance(model_type, str) or model_type not in _DEFAULTS:
            raise UserError(_about_family(model_type))
        values = {**_DEFAULTS[model_type], **values}
        for name in _REQUIRED:
            if values.get(name) is None:
                raise UserError(f"the model's config.json lacks {name}")
        for name in ("num_attention_heads", "hidden_size", "num_hidden_layers"):
            count(values, name, _LARGEST[name])
        check_fields(values)
        rope = read_rope(values)
        return cls(
            **{name: values[name] for name in _REQUIRED},
            model_type=model_type,
            num_key_value_heads=_given(
                values, "num_key_value_heads", values["num_attention_heads"]
            ),
            head_dim=_head_dim(values),
            max_position_embeddings=values["max_position_embeddings"],
            rope_theta=rope.theta,
            rope_scaling=rope.scaling,
            sliding_window=values.get("sliding_window") if model_type in WINDOWED else None,
            rms_norm_eps=_given(values, "rms_norm_eps", 1e-6),
            tie_word_embeddings=_given(values, "tie_word_embeddings", False),
            initializer_range=_given(values, "initializer_range", 0.02),
        )

    def to_huggingface(self) -> dict[str, Any]:
        """The content of a `config.json`, without token ids and the dtype of the weights."""
        scaling = None if self.rope_scaling is None else self.rope_scaling.to_huggingface()
        values: dict[str, Any] = {
            "architectures": [self.causal_architecture],
            "model_type": self.model_type,
            **{name: getattr(self, name) for name in _REQUIRED},
            "num_key_value_heads": self.num_key_value_heads,
            "head_dim": self.head_dim,
            "max_position_embeddings": self.max_position_embeddings,
            # Transformers 5 reads rope_parameters; transformers 4 and vLLM read the other two.
            "rope_theta": self.rope_theta,
            "rope_scaling": scaling,
            "rope_parameters": {"rope_type": "default", "rope_theta": self.rope_theta}
            | (scaling or {}),
            "rms_norm_eps": self.rms_norm_eps,
            "tie_word_embeddings": self.tie_word_embeddings,
            "initializer_range": self.initializer_range,
            "hidden_act": "silu",
            "attention_dropout": 0.0,
        }
        if self.has_gelu:
            # Versions of transformers differ in which one they read.
            values |= {name: GELU for name in ("hidden_act", "hidden_activation")}
        if not self.qkv_bias:
            values["attention_bias"] = False
        if self.model_type == "llama":
            values["mlp_bias"] = False
        elif self.model_type in WINDOWED:
            values["sliding_window"] = self.sliding_window
        elif self.model_type != "gemma":
            values["use_sliding_window"] = False
        return values


def _about_family(model_type: Any) -> str:
    supported = f"choose one of {', '.join(MODEL_TYPES)}"
    missing = _MISSING.get(model_type) if isinstance(model_type, str) else None
    reason = f" ({missing})" if missing else ""
    return f"model_type {shown(model_type)} is not supported{reason}: {supported}"


def _given(values: Mapping[str, Any], name: str, default: Any) -> Any:
    """The value of a field, or the default if it is absent or null."""
    return default if values.get(name) is None else values[name]


def _head_dim(values: Mapping[str, Any]) -> int:
    """Size of a head: by default the hidden size is split among the heads."""
    width, heads = values["hidden_size"], values["num_attention_heads"]
    if values.get("head_dim") is None and width % heads:
        raise UserError(
            f"hidden_size {width} in {CONFIG} is no multiple of num_attention_heads {heads}, and "
            "there is no head_dim"
        )
    return _given(values, "head_dim", width // heads)
