"""Configs of public checkpoints by hub id, so that plans need no download.

They are the published `config.json` without fields that do not describe the architecture.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple


class KnownModel(NamedTuple):
    """A public checkpoint.

    Attributes:
        config: content of its `config.json`.
        num_tokens: number of token ids of its tokenizer, added tokens included. The embedding may
            have more rows, as in the Qwen family.
    """

    config: Mapping[str, Any]
    num_tokens: int


def _llama3(
    hidden_size: int,
    intermediate_size: int,
    num_hidden_layers: int,
    num_attention_heads: int,
    factor: float = 8.0,
    **others: Any,
) -> KnownModel:
    """A model of the Llama 3.1 family: eight KV heads and 128 Ki positions."""
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": 128256,
        "hidden_size": hidden_size,
        "intermediate_size": intermediate_size,
        "num_hidden_layers": num_hidden_layers,
        "num_attention_heads": num_attention_heads,
        "num_key_value_heads": 8,
        "max_position_embeddings": 131072,
        "rope_theta": 500000.0,
        "rope_scaling": {
            "rope_type": "llama3",
            "factor": factor,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        },
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": False,
        "attention_bias": False,
        "mlp_bias": False,
        "bos_token_id": 128000,
        "eos_token_id": [128001, 128008, 128009],
        "torch_dtype": "bfloat16",
    }
    return KnownModel(config | others, num_tokens=128256)


def _qwen(
    model_type: str,
    hidden_size: int,
    intermediate_size: int,
    num_hidden_layers: int,
    num_attention_heads: int,
    num_key_value_heads: int,
    vocab_size: int,
    num_tokens: int,
    **others: Any,
) -> KnownModel:
    """A Qwen2 or Qwen3 model; its config has sliding-window fields, which are switched off."""
    config = {
        "architectures": [f"{model_type.capitalize()}ForCausalLM"],
        "model_type": model_type,
        "vocab_size": vocab_size,
        "hidden_size": hidden_size,
        "intermediate_size": intermediate_size,
        "num_hidden_layers": num_hidden_layers,
        "num_attention_heads": num_attention_heads,
        "num_key_value_heads": num_key_value_heads,
        "max_position_embeddings": 32768,
        "rope_theta": 1000000.0,
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": False,
        "use_sliding_window": False,
        "max_window_layers": num_hidden_layers,
        "bos_token_id": 151643,
        "eos_token_id": 151645,
        "torch_dtype": "bfloat16",
    }
    return KnownModel(config | others, num_tokens)


# Of the published config without sampling fields; v0.3 has no sliding window, v0.1 has one of 4096.
_MISTRAL_7B: dict[str, Any] = {
    "architectures": ["MistralForCausalLM"],
    "model_type": "mistral",
    "vocab_size": 32768,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 32768,
    "rope_theta": 1000000.0,
    "rms_norm_eps": 1e-5,
    "sliding_window": None,
    "attention_dropout": 0.0,
    "tie_word_embeddings": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "torch_dtype": "bfloat16",
}
_QWEN2_7B = ("qwen2", 3584, 18944, 28, 28, 4, 152064)
_QWEN3: dict[str, Any] = {
    "head_dim": 128,
    "attention_bias": False,
    "max_position_embeddings": 40960,
    "rope_scaling": None,
    "sliding_window": None,
}
_PHI3_MINI: dict[str, Any] = {
    "architectures": ["Phi3ForCausalLM"],
    "model_type": "phi3",
    "vocab_size": 32064,
    "hidden_size": 3072,
    "intermediate_size": 8192,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "max_position_embeddings": 4096,
    "original_max_position_embeddings": 4096,
    "rope_theta": 10000.0,
    "rope_scaling": None,
    "rms_norm_eps": 1e-5,
    "sliding_window": 2047,
    "attention_dropout": 0.0,
    "embd_pdrop": 0.0,
    "resid_pdrop": 0.0,
    "tie_word_embeddings": False,
    "bos_token_id": 1,
    "eos_token_id": 32000,
    "torch_dtype": "bfloat16",
}
_GEMMA_2B: dict[str, Any] = {
    "architectures": ["GemmaForCausalLM"],
    "model_type": "gemma",
    "vocab_size": 256000,
    "hidden_size": 2048,
    "intermediate_size": 16384,
    "num_hidden_layers": 18,
    "num_attention_heads": 8,
    "num_key_value_heads": 1,
    "head_dim": 256,
    "max_position_embeddings": 8192,
    "rope_theta": 10000.0,
    "rope_scaling": None,
    "rms_norm_eps": 1e-6,
    "hidden_act": "gelu",
    "hidden_activation": "gelu_pytorch_tanh",
    "attention_bias": False,
    "attention_dropout": 0.0,
    "tie_word_embeddings": True,
    "bos_token_id": 2,
    "eos_token_id": 1,
    "pad_token_id": 0,
    "torch_dtype": "bfloat16",
}
# attn_factor cancels YaRN's factor 0.1 ln(4) + 1: angles are scaled, magnitudes are not.
_R1_YARN: dict[str, Any] = {
    "rope_type": "yarn",
    "factor": 4.0,
    "original_max_position_embeddings": 32768,
    "attn_factor": 0.8782488562869419,
}

KNOWN: dict[str, KnownModel] = {
    "meta-llama/Llama-3.1-8B-Instruct": _llama3(4096, 14336, 32, 32),
    "meta-llama/Llama-3.2-1B-Instruct": _llama3(
        2048, 8192, 16, 32, factor=32.0, head_dim=64, tie_word_embeddings=True
    ),
    "meta-llama/Llama-3.3-70B-Instruct": _llama3(8192, 28672, 80, 64, head_dim=128),
    "Qwen/Qwen2-7B-Instruct": _qwen(*_QWEN2_7B, num_tokens=151646, sliding_window=131072),
    "Qwen/Qwen2.5-7B-Instruct": _qwen(*_QWEN2_7B, num_tokens=151665, sliding_window=131072),
    "Qwen/Qwen2.5-0.5B-Instruct": _qwen(
        *("qwen2", 896, 4864, 24, 14, 2, 151936),
        num_tokens=151665,
        tie_word_embeddings=True,
        sliding_window=32768,
        max_window_layers=21,
    ),
    "Qwen/Qwen3-8B": _qwen(*("qwen3", 4096, 12288, 36, 32, 8, 151936), num_tokens=151669, **_QWEN3),
    "Qwen/Qwen3-0.6B": _qwen(
        *("qwen3", 1024, 3072, 28, 16, 8, 151936),
        num_tokens=151669,
        **_QWEN3 | {"tie_word_embeddings": True},
    ),
    "mistralai/Mistral-7B-Instruct-v0.3": KnownModel(_MISTRAL_7B, num_tokens=32768),
    "microsoft/Phi-3-mini-4k-instruct": KnownModel(_PHI3_MINI, num_tokens=32011),
    "google/gemma-2b-it": KnownModel(_GEMMA_2B, num_tokens=256000),
    "deepseek-ai/DeepSeek-R1-Distill-Llama-8B": _llama3(4096, 14336, 32, 32, eos_token_id=128001),
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B": _qwen(
        *_QWEN2_7B,
        num_tokens=151665,
        max_position_embeddings=131072,
        rope_theta=10000.0,
        sliding_window=4096,
        bos_token_id=151646,
        eos_token_id=151643,
    ),
    "deepseek-ai/DeepSeek-R1-0528-Qwen3-8B": _qwen(
        *("qwen3", 4096, 12288, 36, 32, 8, 151936),
        num_tokens=151671,
        **_QWEN3 | {"max_position_embeddings": 131072, "rope_scaling": _R1_YARN},
    ),
}
