"""Settings and fixtures of all tests."""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import jax
import pytest
from hypothesis import HealthCheck, settings

# Devices for the tests of sharding; the others use the first one.
jax.config.update("jax_num_cpu_devices", 8)

settings.register_profile(
    "stair_jax",
    max_examples=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("stair_jax")

LLAMA3_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "<|start_header_id|>{{ message['role'] }}<|end_header_id|>\n\n"
    "{{ message['content'] | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
_CORPUS = (
    "The first step is an analysis of the problem.",
    "Title: Problem analysis. Final Answer: forty two.",
    "user assistant Reasoning_step Output begin_of_text eot_id",
)


@pytest.fixture(scope="session")
def chat_tokenizer():
    """A small byte-level BPE with the specials and the chat template of Llama 3, and the tags."""
    from tokenizers import Tokenizer as Backend
    from tokenizers import decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    from stair_jax.text.tokenizer import Tokenizer, add_tags

    specials = ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    backend = Backend(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=specials,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(_CORPUS, trainer)
    bos = specials[0]
    backend.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", special_tokens=[(bos, backend.token_to_id(bos))]
    )
    hf = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token=bos, eos_token="<|eot_id|>")
    hf.add_special_tokens({"additional_special_tokens": specials[1:3]})
    hf.chat_template = LLAMA3_TEMPLATE
    assert add_tags(hf) == 4
    return Tokenizer(hf)
