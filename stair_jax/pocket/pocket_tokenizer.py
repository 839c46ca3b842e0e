"""The tokenizer of the pocket world: byte-level BPE trained on its text, as a Hugging Face one."""

import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from stair_jax.pocket import pretraining, world
from stair_jax.text.tokenizer import add_tags

if TYPE_CHECKING:  # half a second: only where a tokenizer is made
    from transformers import PreTrainedTokenizerFast

BOS, END, PAD, UNKNOWN = "<|bos|>", "<|end|>", "<|pad|>", "<|unk|>"
USER, ASSISTANT = "<|user|>", "<|assistant|>"
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] | trim }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
_CORPUS_SIZE = 40_000  # examples: enough for every word of the world to occur often


def train_tokenizer(vocab_size: int) -> "PreTrainedTokenizerFast":
    """Trains the tokenizer, and adds the four tags on top of `vocab_size`."""
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE(unk_token=UNKNOWN))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[PAD, BOS, END, UNKNOWN, USER, ASSISTANT],
        show_progress=False,
    )
    backend.train_from_iterator(_corpus(), trainer)
    hf = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=BOS,
        eos_token=END,
        pad_token=PAD,
        unk_token=UNKNOWN,
        clean_up_tokenization_spaces=False,
    )
    hf.add_special_tokens({"additional_special_tokens": [USER, ASSISTANT]})
    hf.chat_template = CHAT_TEMPLATE
    add_tags(hf)
    return hf


def _corpus() -> Iterator[str]:
    """Texts of pretraining examples, and all names, so that every syllable becomes a token."""
    for example in itertools.islice(pretraining.examples(seed=0), _CORPUS_SIZE):
        yield example.prompt
        yield example.answer
    yield from (f" {item.name}" for item in world.catalogue())
