"""The end of a turn: the tokens that end an answer, from all the places that name one.

A checkpoint names them in up to four places that need not agree: its tokenizer, its
`generation_config.json`, its `config.json`, and its chat template, which writes one behind an
assistant's turn. All of them end an answer that is sampled. The one that the template writes closes
an answer that is trained on: it is what the next turn of a conversation would follow.
"""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stair_jax import storage
from stair_jax.adapter_folders import described
from stair_jax.errors import UserError
from stair_jax.monitoring import say
from stair_jax.text.chat_settings import ChatSettings
from stair_jax.text.rendering import ANSWER, USER, render_answer, split_control

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from stair_jax.text.tokenizer import Tokenizer

_GENERATION, _MODEL = "generation_config.json", "config.json"
_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")  # fields of generation_config.json


def stored_stop_ids(folder: Path, hf: "PreTrainedTokenizerFast") -> list[int]:
    """The `eos_token_id`s of a folder: those of `generation_config.json`, then of `config.json`.

    Of those in `config.json` alone, which may be a default of the architecture, only control tokens
    of the tokenizer count; the others are named in a line.

    Raises:
      UserError: they are not token ids.
    """
    ids = _stop_ids(described(folder, _GENERATION))
    known = set(hf.added_tokens_decoder)
    config = described(folder, _MODEL)
    for token in _stop_ids(config):
        if token in known:
            ids.append(token)
        elif token not in ids:
            say(
                f"{config}: eos_token_id {token} is no control token of the tokenizer: "
                "it ends no answer"
            )
    return list(dict.fromkeys(ids))


def template_end(
    hf: "PreTrainedTokenizerFast", chat: ChatSettings, known: Collection[int] = ()
) -> int | None:
    """The token that the chat template puts behind an assistant's turn; None if there is none.

    Only white space may stand between the answer and the token.

    Args:
      hf: the tokenizer, with its template.
      chat: how prompts are rendered.
      known: tokens that are known to end an answer. Another one does not count if the template
        opens an assistant's turn with it too.
    """
    around = render_answer(hf, chat) if hf.chat_template else None
    if around is None:
        return None
    pieces = list(split_control(hf, ANSWER.join(around)))
    place = next(i for i, piece in enumerate(pieces) if isinstance(piece, str) and ANSWER in piece)
    gap = str(pieces[place]).partition(ANSWER)[2]
    end = pieces[place + 1] if place + 1 < len(pieces) else None
    if gap.strip() or not isinstance(end, int):
        return None
    opening = [piece for piece in _behind_user(pieces[:place]) if isinstance(piece, int)]
    return end if end in known or end not in opening[-1:] else None


def after_answer(tokenizer: "Tokenizer") -> list[int]:
    """Token ids that the chat template puts behind an assistant's turn which is the last one.

    As transformers encodes a whole conversation; the end-of-sequence token, where the template has
    no place for such a turn.
    """
    around = render_answer(tokenizer.hf, tokenizer.chat) if tokenizer.hf.chat_template else None
    if around is None:
        return [tokenizer.eos_id]
    ids: list[int] = []
    for piece in split_control(tokenizer.hf, around[1]):
        ids += [piece] if isinstance(piece, int) else tokenizer.encode_text(piece)
    return ids


def _behind_user(pieces: list[int | str]) -> list[int | str]:
    places = [i for i, piece in enumerate(pieces) if isinstance(piece, str) and USER in piece]
    return pieces[places[-1] + 1 :] if places else pieces


def generation_fields(folder: Path) -> dict[str, Any]:
    """The fields of `generation_config.json` other than token ids, e.g. the temperature."""
    values = _values(described(folder, _GENERATION))
    return {name: value for name, value in values.items() if name not in _IDS}


def _stop_ids(path: Path) -> list[int]:
    stop = _values(path).get("eos_token_id")
    ids = [] if stop is None else stop if isinstance(stop, list) else [stop]
    if not all(type(token) is int and token >= 0 for token in ids):
        raise UserError(f"{path}: eos_token_id must be a token id or a list of them, not {stop!r}")
    return list(ids)


def _values(path: Path) -> Mapping[str, Any]:
    values = storage.read_json(path) if path.is_file() else {}
    if not isinstance(values, dict):
        raise UserError(f"{path} is damaged: it holds no JSON object")
    return values
