"""Hugging Face tokenizers with the four tags; text never becomes control tokens."""

import json
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

from tokenizers import AddedToken
from tokenizers import Tokenizer as Backend
from transformers import PreTrainedTokenizerFast

from stair_jax import storage
from stair_jax.errors import UserError
from stair_jax.text import steps


@dataclass(frozen=True)
class Tags:
    """Token ids of the four tags."""

    reasoning_open: int
    reasoning_close: int
    output_open: int
    output_close: int


def add_tags(hf: PreTrainedTokenizerFast) -> int:
    """Adds the four tags to a tokenizer where they are missing; returns how many were new.

    They are not special tokens in the sense of Hugging Face, so that
    `decode(..., skip_special_tokens=True)` in transformers or vLLM leaves them visible.
    """
    return hf.add_tokens([AddedToken(tag, special=False, normalized=False) for tag in steps.TAGS])


class Tokenizer:
    """A checkpoint's tokenizer as the rest of stair_jax sees it."""

    def __init__(self, hf: PreTrainedTokenizerFast, stop_ids: Sequence[int] = ()):
        """Wraps `hf`, which must hold the four tags (`add_tags`)."""
        vocabulary = hf.get_vocab()
        missing = [tag for tag in steps.TAGS if tag not in vocabulary]
        if missing:
            raise UserError(
                f"the tokenizer lacks the tag {missing[0]}: start from an 'model' stage"
            )
        if hf.eos_token_id is None:
            raise UserError(
                "the tokenizer has no end-of-sequence token: set eos_token in tokenizer_config.json"
            )
        self.hf = hf
        self.tags = Tags(*(vocabulary[tag] for tag in steps.TAGS))
        self.eos_id: int = hf.eos_token_id
        self.stop_ids = tuple(dict.fromkeys([self.eos_id, *stop_ids]))
        self.pad_id: int = self.eos_id if hf.pad_token_id is None else hf.pad_token_id
        self.vocab_size = max(vocabulary.values()) + 1
        self._plain = _without_added_tokens(hf)
        self._tag_ids = dict(zip(steps.TAGS, astuple(self.tags), strict=True))
        self._hidden = frozenset(hf.all_special_ids) - frozenset(self._tag_ids.values())

    @classmethod
    def load(cls, folder: str | Path) -> "Tokenizer":
        """Reads a Hugging Face folder; further stop ids come from `generation_config.json`."""
        folder = Path(folder)
        return cls(load_huggingface(folder), generation_stop_ids(folder))

    def save(self, folder: str | Path) -> None:
        """Writes the tokenizer as a Hugging Face folder."""
        self.hf.save_pretrained(folder)

    def encode_text(self, text: str) -> list[int]:
        """Ids of text that is not ours (a user's prompt): tags and specials in it stay text."""
        return self._plain.encode(text, add_special_tokens=False).ids

    def encode_answer(self, text: str) -> list[int]:
        """Ids of an answer (ours or a model's): the four tags become tokens, all else is text."""
        ids: list[int] = []
        position = 0
        for match in steps.TAG_PATTERN.finditer(text):
            ids += self.encode_text(text[position : match.start()])
            ids.append(self._tag_ids[match.group()])
            position = match.end()
        return ids + self.encode_text(text[position:])

    def decode(self, ids: Sequence[int]) -> str:
        """Text of `ids`: the tags are visible, other special tokens are left out."""
        shown = [token for token in ids if token not in self._hidden]
        return str(
            self.hf.decode(shown, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        )


def load_huggingface(folder: Path) -> PreTrainedTokenizerFast:
    """Reads a fast tokenizer from a folder, without running code that comes with it."""
    if not (folder / "tokenizer.json").is_file():
        raise UserError(
            f"{folder} has no tokenizer.json: name a Hugging Face folder with a fast tokenizer"
        )
    try:
        return PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # tokenizers raises bare Exception for a damaged file
        raise UserError(
            f"cannot read the tokenizer in {folder}: {error}".splitlines()[0]
        ) from error


def generation_stop_ids(folder: Path) -> list[int]:
    """The end-of-sequence ids of `generation_config.json`, if there is one."""
    path = folder / "generation_config.json"
    if not path.is_file():
        return []
    stop = storage.read_json(path).get("eos_token_id")
    if stop is None:
        return []
    return [stop] if isinstance(stop, int) else list(stop)


def _without_added_tokens(hf: PreTrainedTokenizerFast) -> Backend:
    """The same tokenizer, unable to produce an added or special token from text."""
    state = json.loads(hf.backend_tokenizer.to_str())
    vocabulary = state["model"]["vocab"]
    if isinstance(vocabulary, dict):  # a trained tokenizer may hold its specials here as well
        for token in {token["content"] for token in state["added_tokens"]}:
            if token != state["model"].get("unk_token"):
                vocabulary.pop(token, None)
    state["added_tokens"] = []
    state["post_processor"] = None
    state["truncation"] = state["padding"] = None
    return Backend.from_str(json.dumps(state))
