"""Chats of clients as token ids, and the random keys of their answers."""

from collections.abc import Sequence
from dataclasses import dataclass

from stair_jax.data.questions import Message, Question, with_system
from stair_jax.run.answering import Answerer
from stair_jax.server.errors import ApiError
from stair_jax.storage import fingerprint

_ID_LENGTH = 16  # hexadecimal digits of a hash


@dataclass(frozen=True)
class ChatPrompt:
    """A chat that is ready to be answered.

    Attributes:
      question: the chat without the beginning of its answer; its id is a hash of all.
      tokens: ids of all, up to where the model goes on.
      prefill: the beginning of the answer; "": there is none.
    """

    question: Question
    tokens: tuple[int, ...]
    prefill: str = ""


def encode_messages(answerer: Answerer, messages: Sequence[Message]) -> ChatPrompt:
    """A chat as token ids.

    A last message of the assistant is the beginning of the answer, which the model goes on with.

    Raises:
      UserError: the template of the model refuses the chat.
      ApiError: it is too long, or has nothing to be answered.
    """
    prompt = encode_turns(answerer, messages)
    check_length(prompt.tokens, answerer.max_length, "messages")
    return prompt


def encode_turns(answerer: Answerer, messages: Sequence[Message]) -> ChatPrompt:
    """As `encode_messages`, of chats of any length."""
    chat = list(messages)
    prefill = chat.pop()["content"] if chat and chat[-1]["role"] == "assistant" else ""
    if not any(message["role"] == "user" for message in chat):
        raise ApiError(400, "messages has nothing to answer: begin with a user's", "messages")
    whole = with_system(chat, answerer.settings.system)
    question = Question(fingerprint([whole, prefill])[:_ID_LENGTH], whole)
    tokens = answerer.encode(question)
    if prefill:
        tokens += tuple(answerer.files.tokenizer.encode_answer(prefill))
    return ChatPrompt(question, tokens, prefill)


def check_length(tokens: Sequence[int], most: int, param: str) -> None:
    """Raises an ApiError where a prompt leaves no room for an answer."""
    if len(tokens) >= most:
        raise ApiError(
            400,
            f"{param} has {len(tokens)} tokens, and the context holds {most} with the answer: "
            "shorten it, or start the server with a larger --context-tokens",
            param,
            "context_length_exceeded",
        )
