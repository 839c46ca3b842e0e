"""/tokenize and /detokenize: texts and chats as token ids, and back, in the form of vLLM."""

from typing import Any

from fastapi import APIRouter, Request
from pydantic import Field, model_validator

from stair_jax.data.questions import with_system
from stair_jax.run.answering import Answerer
from stair_jax.server.bodies import Body, read_body
from stair_jax.server.chat_bodies import ChatMessage
from stair_jax.server.errors import ApiError
from stair_jax.server.logprobs import token_text
from stair_jax.server.prompts import encode_turns
from stair_jax.server.serving import serving_of
from stair_jax.text.conversations import encode_chat
from stair_jax.text.tokenizer import Tokenizer

router = APIRouter()


class TokenizeBody(Body):
    """A text or a chat.

    Attributes:
      model: of the model that is served.
      prompt: a text; what has the form of a tag or control token in it stays text.
      messages: a chat, in place of a text.
      add_special_tokens: whether a text begins with what the tokenizer puts before all texts.
      add_generation_prompt: whether the header of an answer follows a chat.
      continue_final_message: whether the last turn of a chat is left open.
      return_token_strs: whether the text of each token is wanted too.
    """

    model: str | None = None
    prompt: str | None = None
    messages: list[ChatMessage] | None = Field(None, min_length=1)
    add_special_tokens: bool = True
    add_generation_prompt: bool = True
    continue_final_message: bool = False
    return_token_strs: bool | None = None

    @model_validator(mode="after")
    def _check(self) -> "TokenizeBody":
        if (self.prompt is None) == (self.messages is None):
            raise ValueError("give either prompt, a text, or messages, a chat")
        return self


class DetokenizeBody(Body):
    """Token ids.

    Attributes:
      model: of the model that is served.
      tokens: their ids.
    """

    model: str | None = None
    tokens: list[int]


@router.post("/tokenize")
async def tokenize(request: Request) -> dict[str, Any]:
    """Token ids of a text or of a chat."""
    serving = serving_of(request)
    body = await read_body(request, TokenizeBody)
    serving.check_model(body.model)
    ids = await serving.in_text_thread(_encode, serving.answerer, body)
    strings = [token_text(serving.tokenizer, id) for id in ids] if body.return_token_strs else None
    return {
        "count": len(ids),
        "max_model_len": serving.max_length,
        "tokens": ids,
        "token_strs": strings,
    }


@router.post("/detokenize")
async def detokenize(request: Request) -> dict[str, str]:
    """The text of token ids, special ones included."""
    serving = serving_of(request)
    body = await read_body(request, DetokenizeBody)
    serving.check_model(body.model)
    check_ids(body.tokens, serving.tokenizer, "tokens")
    return {"prompt": await serving.in_text_thread(plain_text, serving.tokenizer, body.tokens)}


def encode_plain(tokenizer: Tokenizer, text: str, add_special_tokens: bool = True) -> list[int]:
    """Token ids of a text that no template stands around; tags and control tokens stay text."""
    return [*(_before(tokenizer) if add_special_tokens else ()), *tokenizer.encode_text(text)]


def plain_text(tokenizer: Tokenizer, ids: list[int]) -> str:
    """The text of token ids, special ones included."""
    return str(tokenizer.hf.backend_tokenizer.decode(ids, skip_special_tokens=False))


def check_ids(ids: list[int], tokenizer: Tokenizer, param: str) -> None:
    """Raises an ApiError where a token id is none of the model's."""
    if ids and not (min(ids) >= 0 and max(ids) < tokenizer.vocab_size):
        wrong = next(id for id in ids if not 0 <= id < tokenizer.vocab_size)
        raise ApiError(
            400, f"{param} has the id {wrong}: it may be up to {tokenizer.vocab_size - 1}", param
        )


def _before(tokenizer: Tokenizer) -> list[int]:
    """What the tokenizer puts before a text: a token that begins it, or nothing."""
    bos = tokenizer.hf.bos_token_id
    return [bos] if bos is not None and bos in tokenizer.hf.encode("")[:1] else []


def _encode(answerer: Answerer, body: TokenizeBody) -> list[int]:
    tokenizer = answerer.files.tokenizer
    if body.prompt is not None:
        return encode_plain(tokenizer, body.prompt, body.add_special_tokens)
    messages = [message.as_message() for message in body.messages or ()]
    is_begun = messages[-1]["role"] == "assistant"
    if body.continue_final_message == is_begun and (is_begun or body.add_generation_prompt):
        return list(encode_turns(answerer, messages).tokens)  # as the chat is answered
    turns = with_system(messages, answerer.settings.system)
    return encode_chat(tokenizer, turns, body.add_generation_prompt, body.continue_final_message)
