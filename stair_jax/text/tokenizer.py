"""Wrapper of Hugging Face tokenizers: the four tags, and safe encoding of text from outside."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokenizers import AddedToken

from stair_jax import storage
from stair_jax.adapter_folders import described
from stair_jax.errors import UserError
from stair_jax.text import pieces, steps
from stair_jax.text.chat_settings import ChatSettings
from stair_jax.text.endings import generation_fields, stored_stop_ids, template_end
from stair_jax.text.folder_files import check_files
from stair_jax.text.plain import plain_backend, valid_unicode

if TYPE_CHECKING:  # half a second: only where a tokenizer is loaded
    from transformers import PreTrainedTokenizerFast

_REMEMBERED = 8192  # pieces of texts whose ids are kept, about 2 kB each
MAX_STOP_IDS = 6  # the engine takes 8 stop tokens per request, two of which are closing tags
_PAD = "<|pad|>"
_PAD_CANDIDATES = (  # tokens that checkpoints reserve for padding, or that occur in no text
    "<|finetune_right_pad_id|>",
    "<|endoftext|>",
    "<|vision_pad|>",
    "<pad>",
    "<unk>",
    _PAD,
)


@dataclass(frozen=True)
class Tags:
    """Token ids of the four tags."""

    reasoning_open: int
    reasoning_close: int
    output_open: int
    output_close: int


def add_tags(hf: "PreTrainedTokenizerFast", stop_ids: Iterable[int] = ()) -> int:
    """Adds the four tags, where missing, and a padding token to a tokenizer, in place.

    The tags are added tokens but not special ones in the sense of Hugging Face, so that
    `decode(..., skip_special_tokens=True)` in transformers or vLLM keeps them visible.

    The padding token has to differ from the end-of-sequence token and the `stop_ids`: the
    tokenizer's own if it does, else a reserved one, else a new one. Transformers scores a sequence
    at its last token that is not padding, which must be the end of the answer.

    Returns:
      the number of tags that were added.
    """
    new = hf.add_tokens([AddedToken(tag, special=False, normalized=False) for tag in steps.TAGS])
    ends = {hf.eos_token_id, *stop_ids}
    if hf.pad_token_id is None or hf.pad_token_id in ends:
        known = hf.get_vocab()
        free = (name for name in _PAD_CANDIDATES if name in known and known[name] not in ends)
        hf.add_special_tokens({"pad_token": next(free, _PAD)})
    return new


class Tokenizer:
    """The tokenizer of a checkpoint as the rest of stair_jax uses it.

    Attributes:
      hf: the Hugging Face tokenizer.
      tags: token ids of the four tags.
      eos_id: end-of-sequence token.
      end_id: closes an answer in training data: the token that the chat template puts behind an
        assistant's turn, else the end-of-sequence token.
      stop_ids: all tokens that end an answer, `eos_id` first.
      pad_id: padding token.
      vocab_size: number of token ids, added tokens included.
      chat: how prompts are rendered.
      generation: fields of `generation_config.json` to export with the model.
    """

    def __init__(
        self,
        hf: "PreTrainedTokenizerFast",
        stop_ids: Sequence[int] = (),
        chat: ChatSettings | None = None,
        generation: Mapping[str, Any] | None = None,
    ):
        """Wraps `hf`, which must contain the four tags (`add_tags`).

        Args:
          hf: a fast tokenizer.
          stop_ids: tokens that end an answer, in addition to the end-of-sequence token and to the
            one that the chat template puts behind an assistant's turn.
          chat: how prompts are rendered.
          generation: fields of `generation_config.json`; kept for export only.

        Raises:
          UserError: a tag or the end-of-sequence token is missing, there are too many stop tokens,
            or the tokenizer cannot encode any text safely (`plain_backend`).
        """
        vocabulary = hf.get_vocab()
        missing = [tag for tag in steps.TAGS if tag not in vocabulary]
        if missing:
            raise UserError(f"the tokenizer lacks the tag {missing[0]}: start from a 'model' stage")
        if hf.eos_token_id is None:
            raise UserError(
                "the tokenizer has no end-of-sequence token: set eos_token in tokenizer_config.json"
            )
        self.hf = hf
        self.tags = Tags(*(vocabulary[tag] for tag in steps.TAGS))
        self.eos_id: int = hf.eos_token_id
        self.chat = chat or ChatSettings()
        end = template_end(hf, self.chat, {self.eos_id, *stop_ids})
        self.end_id: int = self.eos_id if end is None else end
        self._is_templates = end is not None
        self.stop_ids = tuple(dict.fromkeys([self.eos_id, *stop_ids, self.end_id]))
        if len(self.stop_ids) > MAX_STOP_IDS:
            raise UserError(
                f"{len(self.stop_ids)} tokens end an answer, but at most {MAX_STOP_IDS} may: "
                "shorten eos_token_id in generation_config.json or config.json"
            )
        self.pad_id: int = self.eos_id if hf.pad_token_id is None else hf.pad_token_id
        self.vocab_size = max(vocabulary.values()) + 1
        self.generation = dict(generation or {})
        self._plain = plain_backend(hf)  # for all text: tags are put between its ids by hand
        self._may_cut = pieces.may_cut(self._plain)
        self._piece_ids = lru_cache(maxsize=_REMEMBERED)(self._encode)
        self._tag_ids = dict(zip(steps.TAGS, astuple(self.tags), strict=True))
        # The tags stay visible even if a checkpoint declares them special.
        special = {token for token, added in hf.added_tokens_decoder.items() if added.special}
        self._hidden = (special | set(hf.all_special_ids)) - set(self._tag_ids.values())

    def __reduce__(self) -> tuple[Any, ...]:
        """How it is pickled: what it was made of."""
        return Tokenizer, (self.hf, self.stop_ids, self.chat, self.generation)

    @classmethod
    def load(cls, folder: str | Path) -> "Tokenizer":
        """Reads a Hugging Face folder, with all that it says about the end of an answer."""
        folder = Path(folder)
        hf = load_huggingface(folder)
        stop_ids = stored_stop_ids(folder, hf)
        return cls(hf, stop_ids, ChatSettings.load(folder), generation_fields(folder))

    def save(self, folder: str | Path) -> None:
        """Writes the tokenizer and its chat settings as a Hugging Face folder.

        Transformers 4 and vLLM can read it too, except for the chat settings: to serve the model
        with the same prompts, pass its system turn and template values, or put them into the
        template.
        """
        self.hf.save_pretrained(folder)
        _write_for_older_readers(Path(folder) / "tokenizer_config.json")
        self.chat.save(Path(folder))

    def describe_ends(self) -> str:
        """What ends an answer, for a line of the log."""
        names = [f"{self.hf.convert_ids_to_tokens(i)} ({i})" for i in (self.end_id, *self.stop_ids)]
        others = ", ".join(names[1 + n] for n, i in enumerate(self.stop_ids) if i != self.end_id)
        also = f"; {others} end a sampled answer too" if others else ""
        source = "chat template" if self._is_templates else "tokenizer"
        return f"answers are closed with {names[0]}, the {source}'s end of a turn{also}"

    def encode_text(self, text: str) -> list[int]:
        """Token ids of untrusted text, e.g. a user's prompt: tags and specials in it stay text.

        A lone surrogate is encoded as U+FFFD.
        """
        text = valid_unicode(text)
        if len(text) <= pieces.LENGTH or not self._may_cut:
            return list(self._encode(text))
        return [id for piece in pieces.cut(text) for id in self._piece_ids(piece)]

    def _encode(self, text: str) -> tuple[int, ...]:
        return tuple(self._plain.encode(text, add_special_tokens=False).ids)

    def encode_answer(self, text: str) -> list[int]:
        """Token ids of an answer: the four tags become tokens, everything else is plain text."""
        ids: list[int] = []
        position = 0
        for match in steps.TAG_PATTERN.finditer(text):
            ids += self.encode_text(text[position : match.start()])
            ids.append(self._tag_ids[match.group()])
            position = match.end()
        return ids + self.encode_text(text[position:])

    def decode(self, ids: Sequence[int]) -> str:
        """Text of token ids: tags are visible, other special tokens are left out."""
        # Filtered here, as `skip_special_tokens` would drop tags that a checkpoint made special.
        if not self._hidden.isdisjoint(ids):
            ids = [token for token in ids if token not in self._hidden]
        # As `self.hf.decode` without clean-up of spaces, which adds more than half to the time.
        return self.hf.backend_tokenizer.decode(ids, skip_special_tokens=False)


def load_huggingface(folder: Path) -> "PreTrainedTokenizerFast":
    """Reads a fast tokenizer from a folder, without running any code from it.

    Adapters without a tokenizer have that of their base.

    Truncation and padding inside of `tokenizer.json`, which would cut or fill any text that is
    encoded, are left out.

    Raises:
      UserError: there is no tokenizer.json, or it cannot be read.
    """
    folder = described(folder, "tokenizer.json").parent
    if folder.is_dir():
        check_files(folder)
    if not (folder / "tokenizer.json").is_file():
        raise UserError(
            f"{folder} has no tokenizer.json: name a Hugging Face folder with a fast tokenizer"
        )
    from transformers import PreTrainedTokenizerFast

    try:
        hf = PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # tokenizers raises plain Exception for a damaged file
        raise UserError(
            f"cannot read the tokenizer in {folder}: {error}".splitlines()[0]
        ) from error
    # Transformers looks for any unknown token by this one, and so for this one without end.
    if hf.unk_token is not None and hf.backend_tokenizer.token_to_id(str(hf.unk_token)) is None:
        raise UserError(
            f"the tokenizer in {folder} has no token {str(hf.unk_token)!r}, its unk_token: correct "
            "tokenizer_config.json"
        )
    hf.backend_tokenizer.no_truncation()
    hf.backend_tokenizer.no_padding()
    return hf


def _write_for_older_readers(path: Path) -> None:
    """Renames fields of transformers 5 to those of transformers 4, which 5 reads as well."""
    values = storage.read_json(path)
    values["tokenizer_class"] = "PreTrainedTokenizerFast"
    values.pop("backend", None)
    if "extra_special_tokens" in values:
        values["additional_special_tokens"] = values.pop("extra_special_tokens")
    storage.write_json(path, values)
