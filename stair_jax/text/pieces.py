"""Long texts cut into pieces whose token ids can be joined, so that pieces that recur are known.

A search encodes thousands of judge prompts that begin alike. Encoding a text of two thousand
characters takes about a millisecond, the same for a remembered piece next to nothing.
"""

import json
import re

from tokenizers import Tokenizer as Backend
from tokenizers.models import BPE
from tokenizers.normalizers import NFC

# A text is cut behind the first word that ends after so many characters.
LENGTH = 256

# The splits into words of GPT-2 (the one that ByteLevel has built in), Llama 3 and Qwen2. No word
# of theirs holds a letter and, right behind it, white space; and none depends on what stands before
# it. So words on both sides of such a place are the same if the sides are encoded apart.
_SPLITS = frozenset(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}" + digits + r"|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    for digits in ("", "{1,3}")
)
# ASCII alone: Unicode's letters and white space are other ones in other libraries.
_END_OF_WORD = re.compile(r"[A-Za-z](?=[ \n])")


def may_cut(backend: Backend) -> bool:
    """Whether the ids of a text are those of the pieces of `cut`, one after another."""
    model = backend.model
    if not isinstance(model, BPE) or model.dropout or backend.post_processor is not None:
        return False
    # NFC changes neither a letter before white space nor the white space, and joins nothing across.
    is_plain = backend.normalizer is None or isinstance(backend.normalizer, NFC)
    return is_plain and not backend.get_added_tokens_decoder() and _splits_words(backend)


def cut(text: str) -> list[str]:
    """The pieces of a text: `LENGTH` characters and the rest of a word each, but for the last one.

    Texts that begin alike have the same first pieces.
    """
    pieces, start = [], 0
    while (end := _END_OF_WORD.search(text, start + LENGTH)) is not None:
        pieces.append(text[start : end.end()])
        start = end.end()
    return [*pieces, text[start:]]


def _splits_words(backend: Backend) -> bool:
    """Whether the pre-tokenizer is one of those that `_SPLITS` describes."""
    if backend.pre_tokenizer is None:
        return False
    state = json.loads(backend.pre_tokenizer.__getstate__())
    *splits, last = state.get("pretokenizers", [state])
    if last.get("type") != "ByteLevel" or last["add_prefix_space"]:
        return False
    if last["use_regex"]:
        return not splits
    return len(splits) == 1 and (
        splits[0]["type"] == "Split"
        and splits[0]["pattern"].get("Regex") in _SPLITS
        and splits[0]["behavior"] == "Isolated"
        and not splits[0]["invert"]
    )
