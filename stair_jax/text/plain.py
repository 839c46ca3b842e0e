"""A copy of a tokenizer without control tokens, for text from outside (prompt injection)."""

import json
from typing import TYPE_CHECKING, Any

from tokenizers import Tokenizer as Backend
from tokenizers.pre_tokenizers import ByteLevel

from stair_jax.errors import UserError

if TYPE_CHECKING:  # half a second: only where a tokenizer is loaded
    from transformers import PreTrainedTokenizerFast


_PARTS = ("pretokenizers", "normalizers")  # of a sequence of them

_NEVER = {0xC0, 0xC1, *range(0xF5, 0x100)}  # bytes that no text has in UTF-8
# Bytes that begin the characters of the rarest planes: private use, and nothing assigned so far.
_RARE = {
    0xF1: (0x40000, 0x7FFFF),
    0xF2: (0x80000, 0xBFFFF),
    0xF3: (0xC0000, 0xFFFFF),
    0xF4: (0x100000, 0x10FFFF),
}


def plain_backend(hf: "PreTrainedTokenizerFast") -> Backend:
    """The same tokenizer, but unable to produce an added or special token from text.

    The space that some tokenizers prepend only to the first word of a document is also disabled, as
    the texts are used inside of a prompt. ASCII characters and those of rare planes that a
    byte-level vocabulary lacks become U+FFFD, where transformers drops them: SmolLM2's lacks some
    control characters.

    Raises:
      UserError: a Unigram model, from which tokens cannot be removed by name; or a vocabulary that
        lacks characters, where nothing stands for those or a token does that begins or ends a text.
    """
    state = json.loads(hf.backend_tokenizer.to_str())
    model = state["model"]
    if not isinstance(model["vocab"], dict):
        raise UserError(
            f"the tokenizer is a {model['type']} model: only BPE, WordPiece and WordLevel are "
            "supported, whose control tokens can be told from text"
        )
    # Added tokens may also be entries of the vocabulary, and results of merges.
    control = {token["content"] for token in state["added_tokens"]} - {_unknown(hf, state)}
    for token in control:
        model["vocab"].pop(token, None)
    if "merges" in model:
        model["merges"] = [pair for pair in model["merges"] if not _makes(pair, control)]
    if state["pre_tokenizer"]:
        _without_first_space(state["pre_tokenizer"])
    state["added_tokens"] = []
    state["post_processor"] = None  # it would add BOS
    state["truncation"] = state["padding"] = None
    return Backend.from_str(json.dumps(state))


def _unknown(hf: "PreTrainedTokenizerFast", state: dict[str, Any]) -> str | None:
    """The token that stands for what the vocabulary lacks; None where it lacks nothing.

    Taken out of `state` in the latter case if it also begins or ends a text.
    """
    model = state["model"]
    unknown: str | None = model.get("unk_token")
    is_shared = unknown is not None and unknown in (hf.bos_token, hf.eos_token)
    if _writes_all(state):
        if is_shared:
            model["unk_token"] = None
        return None if is_shared else unknown
    if is_shared:
        raise UserError(
            f"the tokenizer's unknown token {unknown} also begins or ends a text: any character "
            "that the vocabulary lacks would be one; set unk_token in tokenizer.json to another"
        )
    if unknown is None or unknown not in model["vocab"]:
        raise UserError(
            "the tokenizer drops characters that its vocabulary lacks: it needs the 256 bytes, "
            "byte_fallback, or an unk_token in tokenizer.json"
        )
    return unknown


def _writes_all(state: dict[str, Any]) -> bool:
    """Whether a tokenizer can write any text, byte by byte.

    What few characters it lacks are replaced by a normalizer, which is put into `state`.
    """
    model = state["model"]
    if model["type"] != "BPE":
        return False
    if model["byte_fallback"]:
        needed = {f"<0x{byte:02X}>" for byte in range(256)}
    else:
        parts = [state["pre_tokenizer"] or {}, state["normalizer"] or {}]
        inner = [each for part in parts for name in _PARTS for each in part.get(name, ())]
        if "ByteLevel" not in [part.get("type") for part in (*parts, *inner)]:
            return False
        names = byte_names()
        lacking = {byte for byte, name in names.items() if name not in model["vocab"]} - _NEVER
        if not lacking <= {*range(0x80), *_RARE}:
            return False
        if lacking:
            _replace(lacking, state)
        return True
    return needed <= model["vocab"].keys()


def byte_names() -> dict[int, str]:
    """The character by which a byte-level vocabulary writes each byte: its own where it is seen.

    The others follow from U+0100 on, in their order (GPT-2's convention).
    """
    own = {chr(byte) for byte in range(0x100)} & set(ByteLevel.alphabet())
    others = [byte for byte in range(0x100) if chr(byte) not in own]
    return {ord(name): name for name in own} | {
        byte: chr(0x100 + number) for number, byte in enumerate(others)
    }


def _replace(lacking: set[int], state: dict[str, Any]) -> None:
    spans = [_RARE.get(byte, (byte, byte)) for byte in sorted(lacking)]
    inside = "".join(f"\\x{{{first:X}}}-\\x{{{last:X}}}" for first, last in spans)
    first = {"type": "Replace", "pattern": {"Regex": f"[{inside}]"}, "content": "\ufffd"}
    others = [] if state["normalizer"] is None else [state["normalizer"]]
    state["normalizer"] = {"type": "Sequence", "normalizers": [first, *others]}


def _makes(pair: str | list[str], control: set[str]) -> bool:
    """Whether a BPE merge uses or produces a control token."""
    left, right = pair.split(" ") if isinstance(pair, str) else pair
    return left in control or right in control or left + right in control


def _without_first_space(pre_tokenizer: dict[str, Any]) -> None:
    for part in pre_tokenizer.get("pretokenizers", [pre_tokenizer]):
        if part.get("prepend_scheme") == "first":
            part["prepend_scheme"] = "never"


def valid_unicode(text: str) -> str:
    """`text` with each lone surrogate, which UTF-8 cannot encode, replaced by U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text
