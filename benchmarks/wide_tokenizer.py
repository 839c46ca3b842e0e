"""A tokenizer with a word for each id of a vocabulary, for models of random weights."""

import itertools
import string

import numpy as np
from tokenizers import AddedToken, decoders, models, pre_tokenizers
from tokenizers import Tokenizer as Backend
from transformers import PreTrainedTokenizerFast

from stair_jax.testing.tiny_tokenizers import LLAMA3_TEMPLATE
from stair_jax.text.steps import TAGS
from stair_jax.text.tokenizer import Tokenizer, add_tags

_BEGIN, _END, _PAD = "<|begin_of_text|>", "<|eot_id|>", "<|pad|>"
_SPECIALS = (_BEGIN, _END, _PAD, "<|start_header_id|>", "<|end_header_id|>")


def wide_tokenizer(vocab_size: int) -> Tokenizer:
    """Byte-level, with the specials and the chat template of Llama 3, and the four tags.

    All ids are bytes, or a space and letters: as much work to decode as that of a real one.
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    others = len(alphabet) + len(_SPECIALS) + len(TAGS)
    words = [f"Ġ{word}" for word in itertools.islice(_words(), vocab_size - others)]
    vocabulary = {text: id for id, text in enumerate([*alphabet, *words])}
    backend = Backend(models.BPE(vocab=vocabulary, merges=[], ignore_merges=True))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(text, special=True) for text in _SPECIALS])
    hf = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token=_BEGIN, eos_token=_END, pad_token=_PAD
    )
    hf.chat_template = LLAMA3_TEMPLATE
    add_tags(hf)
    return Tokenizer(hf)


def random_words(tokenizer: Tokenizer, rng: np.random.Generator, count: int) -> str:
    """A text of so many tokens."""
    bytes_alone = len(pre_tokenizers.ByteLevel.alphabet())
    ids = rng.integers(bytes_alone, tokenizer.vocab_size - len(_SPECIALS) - len(TAGS), count)
    return tokenizer.decode(ids.tolist()).strip()


def _words() -> "itertools.chain[str]":
    """Words of two letters, then of three, and so on."""
    return itertools.chain.from_iterable(
        map("".join, itertools.product(string.ascii_lowercase, repeat=length))
        for length in itertools.count(2)
    )
