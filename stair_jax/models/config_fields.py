"""Which fields of a `config.json` are read, which may be ignored, and which have one right value.

A field that is in none of these lists is refused: a model that is computed almost correctly is
worse than one that does not load.
"""

from collections.abc import Collection, Mapping
from typing import Any

from stair_jax.errors import UserError
from stair_jax.models.config_values import CONFIG, flag, shown

READ = {
    "model_type",
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "max_position_embeddings",
    "rms_norm_eps",
    "tie_word_embeddings",
    "initializer_range",
    # By rope_fields.py.
    "rope_theta",
    "rope_scaling",
    "rope_parameters",
    "original_max_position_embeddings",
    # Below: every layer must attend to the whole context, or to a window where families have one.
    "layer_types",
    "sliding_window",
    "use_sliding_window",
    "max_window_layers",
}

# Families in which `sliding_window` is that of all layers, whatever other fields say.
WINDOWED = ("mistral", "phi3")
# What Phi-3's published configs say: that code became that of transformers, and is ours too.
_PHI3_CODE = {
    "AutoConfig": "configuration_phi3.Phi3Config",
    "AutoModelForCausalLM": "modeling_phi3.Phi3ForCausalLM",
}

# Of Gemma: GELU by its tanh approximation.
GELU = "gelu_pytorch_tanh"

# Fields with which the function is another one, and the values that are supported.
_SUPPORTED: Mapping[str, Collection[Any]] = {
    # Two names of x * sigmoid(x); see `_right_values` for Gemma.
    "hidden_act": ("silu", "swish"),
    "hidden_activation": ("silu", "swish"),
    # Transformers 5 masks nothing where it is false.
    "is_causal": (True,),
    "is_encoder_decoder": (False,),
    "add_cross_attention": (False,),
    "attention_bias": (False,),
    "mlp_bias": (False,),
    # Dropout acts in training only, and there is none here: a checkpoint that asks for it would be
    # trained otherwise than it says.
    "attention_dropout": (0.0,),
    "hidden_dropout": (0.0,),
    "attn_pdrop": (0.0,),
    "embd_pdrop": (0.0,),
    "resid_pdrop": (0.0,),
    "partial_rotary_factor": (1.0,),
    "rotary_pct": (1.0,),
    "rope_interleaved": (False,),
    "use_mrope": (False,),
    "use_bidirectional_attention": (False,),
    "is_llama_config": (True,),
    "pruned_heads": ({},),
}

# Fields that do not change what is computed from the tensors.
_IGNORED = {
    # Names and versions.
    *(
        "architectures",
        "transformers_version",
        "_name_or_path",
        "name_or_path",
        "_model_name_or_path",
        "_commit_hash",
    ),
    *("tokenizer_class", "transformers.js_config", "unsloth_fixed", "unsloth_version"),
    # How the weights are stored, and the program that runs them: the dtype is that of the tensors.
    *("torch_dtype", "dtype", "use_bfloat16", "torchscript", "tf_legacy_loss", "use_cache"),
    *("_attn_implementation", "_attn_implementation_autoset", "attn_implementation"),
    *("_experts_implementation", "_flash_attn_2_enabled", "use_flash_attention", "use_flash_attn"),
    # Splits the same product into parts.
    *("pretraining_tp", "chunk_size_feed_forward"),
    *("gradient_checkpointing", "use_gradient_checkpointing"),
    # What a call returns.
    *("return_dict", "use_return_dict", "output_hidden_states", "output_attentions"),
    *("output_scores", "return_dict_in_generate", "num_logits_to_keep", "logits_to_keep"),
    # For Llama and Qwen without effect: `is_causal` decides.
    *("is_decoder", "tie_encoder_decoder", "cross_attention_hidden_size"),
    # Labels and tasks of heads. The number of labels is checked in the scalar head's shape.
    *("id2label", "label2id", "num_labels", "problem_type", "finetuning_task", "prefix"),
    *("task_specific_params", "loss_type", "ignore_index"),
    # Lengths of a tokenizer.
    *("model_max_length", "max_sequence_length", "tokenizer_model_max_length"),
    "tokenizer_padding_side",
    # Sampling, which the settings of a stage decide.
    *("max_length", "min_length", "max_new_tokens", "min_new_tokens", "do_sample"),
    *("early_stopping", "num_beams", "num_beam_groups", "diversity_penalty", "temperature"),
    *("top_k", "top_p", "min_p", "typical_p", "repetition_penalty", "length_penalty"),
    *("no_repeat_ngram_size", "encoder_no_repeat_ngram_size", "encoder_repetition_penalty"),
    *("bad_words_ids", "num_return_sequences", "remove_invalid_values", "suppress_tokens"),
    *("begin_suppress_tokens", "exponential_decay_length_penalty", "epsilon_cutoff"),
    *("eta_cutoff", "num_assistant_tokens", "num_assistant_tokens_schedule"),
    *("assistant_confidence_threshold", "assistant_lookbehind", "target_lookbehind"),
}
# Token ids are those of the tokenizer and of generation_config.json.
_IGNORED_ENDS = ("_token_id", "_token_ids")


def check_fields(values: Mapping[str, Any]) -> None:
    """Checks every field of a `config.json`; a null counts as an absent field.

    Args:
        values: the fields, with the defaults of the model's family.

    Raises:
        UserError: names the first field that is unknown or has a value that is not supported.
    """
    for name, value in values.items():
        if value is None or name in READ or name in _IGNORED or name.endswith(_IGNORED_ENDS):
            continue
        if name == "auto_map" and values["model_type"] == "phi3" and value == _PHI3_CODE:
            continue
        if name not in _SUPPORTED:
            raise UserError(_about_unknown(name, value))
        # Transformers gives Qwen2 its biases whatever this field says.
        is_unread = name == "attention_bias" and values["model_type"] == "qwen2"
        supported = _right_values(values, name)
        if not is_unread and not any(_same(value, right) for right in supported):
            right = " or ".join(repr(each) for each in supported)
            raise UserError(
                f"{name} {shown(value)} in {CONFIG} is not supported: it must be {right}"
            )
    _check_windows(values)


def _right_values(values: Mapping[str, Any], name: str) -> Collection[Any]:
    """The values of a field with which the function is that of the family."""
    if values["model_type"] != "gemma" or name not in ("hidden_act", "hidden_activation"):
        return _SUPPORTED[name]
    # Where `hidden_activation` says which GELU it is, `hidden_act` is a leftover; without it,
    # versions of transformers differ in what they take "gelu" for.
    is_leftover = name == "hidden_act" and values.get("hidden_activation") is not None
    return (GELU, "gelu") if is_leftover else (GELU,)


def _about_unknown(name: str, value: Any) -> str:
    field = f"{shown(name)[1:-1]} {shown(value)} in {CONFIG}"
    if name == "quantization_config":
        return f"{field} is not supported: name the checkpoint that is not quantised"
    if name == "auto_map":
        return (
            f"{field} names code of the checkpoint, which is never run: if its tensors are those "
            "of a plain model of its model_type, remove the field"
        )
    return (
        f"{field} is not known: remove the field if the model computes the same without it, "
        "else the model is not supported"
    )


def _same(value: Any, right: Any) -> bool:
    """Equality of JSON values, in which 0 is not false and 0.0 is 0."""
    if isinstance(value, bool) or isinstance(right, bool):
        return value is right
    return bool(value == right)


def _check_windows(values: Mapping[str, Any]) -> None:
    """Checks that no layer attends to a window only; `WINDOWED` families keep theirs."""
    num_layers = values["num_hidden_layers"]
    layer_types = values.get("layer_types")
    if layer_types is not None:
        if not isinstance(layer_types, list) or len(layer_types) != num_layers:
            raise UserError(
                f"layer_types in {CONFIG} must list the type of each of the {num_layers} layers, "
                f"not {shown(layer_types)}"
            )
        for kind in layer_types:
            if kind != "full_attention":
                raise UserError(f"layer_types with {shown(kind)} in {CONFIG} is not supported")
    for name in ("sliding_window", "max_window_layers"):
        value = values.get(name)
        is_whole = isinstance(value, int) and not isinstance(value, bool) and value >= 0
        if value is not None and not is_whole:
            raise UserError(f"{name} in {CONFIG} must be a whole number, not {shown(value)}")
    if values["model_type"] in WINDOWED:
        return
    is_llama = values["model_type"] == "llama"
    window = values.get("sliding_window", 4096)
    if values.get("use_sliding_window") is not None:
        is_used = flag(values, "use_sliding_window")
    else:
        # Llama's class ignores a window, but who wrote it did not.
        is_used = is_llama and values.get("sliding_window") is not None
    first = values.get("max_window_layers")
    first = 0 if is_llama else 28 if first is None else first
    if is_used and window is not None and first < num_layers:
        raise UserError(
            f"sliding_window {window} in {CONFIG} is not supported: every layer must attend to the "
            "whole context (use_sliding_window false)"
        )
