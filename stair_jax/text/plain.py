"""A copy of a tokenizer without control tokens, for text from outside (prompt injection)."""

import json
from typing import TYPE_CHECKING, Any

from tokenizers import Tokenizer as Backend

from stair_jax.errors import UserError

if TYPE_CHECKING:  # half a second: only where a tokenizer is loaded
    from transformers import PreTrainedTokenizerFast


def plain_backend(hf: "PreTrainedTokenizerFast") -> Backend:
    """The same tokenizer, but unable to produce an added or special token from text.

    The space that some tokenizers prepend only to the first word of a document is also disabled, as
    the texts are used inside of a prompt.

    Raises:
      UserError: a Unigram model, from which tokens cannot be removed by name.
    """
    state = json.loads(hf.backend_tokenizer.to_str())
    model = state["model"]
    if not isinstance(model["vocab"], dict):
        raise UserError(
            f"the tokenizer is a {model['type']} model: only BPE, WordPiece and WordLevel are "
            "supported, whose control tokens can be told from text"
        )
    # Added tokens may also be entries of the vocabulary, and results of merges.
    control = {token["content"] for token in state["added_tokens"]} - {model.get("unk_token")}
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
