"""/v1/score: what the reward model gives to an answer, step by step."""

import itertools
import time
import uuid
from collections.abc import Sequence
from typing import Any, NamedTuple

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from pydantic import Field, model_validator

from stair_jax.data.questions import Message
from stair_jax.inference.step_scores import StepScore, StepScores
from stair_jax.run.answering import Answerer
from stair_jax.run.answering_thread import Make
from stair_jax.server.bodies import Body, Choices, Items, read_body
from stair_jax.server.chat_bodies import ChatMessage
from stair_jax.server.errors import ApiError
from stair_jax.server.prompts import check_length, encode_messages
from stair_jax.server.searching import finite
from stair_jax.server.serving import Serving, serving_of
from stair_jax.server.streaming import attended
from stair_jax.text.scoring import encode_scored
from stair_jax.text.steps import split_steps
from stair_jax.text.tokenizer import Tokenizer

router = APIRouter()


class ScoreBody(Body):
    """Answers to be scored.

    Attributes:
      model: the model that is served; its reward model scores.
      messages: a chat that ends with the user's turn, or with the answer of the assistant.
      prompt: in place of a chat, what the user says.
      answer: one, or several; not where the chat ends with one. Tags in it are tags.
      priority: requests with a lower one go first.
    """

    model: str
    messages: Items[ChatMessage] | None = Field(None, min_length=1)
    prompt: str | None = None
    answer: str | Choices[str] | None = None
    priority: int = Field(0, ge=-(2**20), le=2**20)

    @model_validator(mode="after")
    def _check(self) -> "ScoreBody":
        if (self.prompt is None) == (self.messages is None):
            raise ValueError("give either messages, a chat, or prompt, what a user says")
        ends = self.messages is not None and self.messages[-1].role == "assistant"
        if ends == (self.answer is not None) or self.answer == []:
            raise ValueError("give one or several texts in answer, or end messages with one")
        return self

    @property
    def chat(self) -> list[Message]:
        """The turns before the answers."""
        if self.prompt is not None:
            return [{"role": "user", "content": self.prompt}]
        turns = [message.as_message() for message in self.messages or ()]
        return turns[:-1] if turns[-1]["role"] == "assistant" else turns

    @property
    def answers(self) -> list[str]:
        """The texts that are scored."""
        if self.answer is None:
            return [(self.messages or [])[-1].as_message()["content"]]
        return [self.answer] if isinstance(self.answer, str) else self.answer


class Scored(NamedTuple):
    """Token ids that are scored."""

    prompt: tuple[int, ...]
    answers: list[tuple[int, ...]]


@router.post("/v1/score")
async def score(request: Request) -> JSONResponse:
    """Scores of answers, a score a step."""
    serving = serving_of(request)
    body = await read_body(request, ScoreBody)
    serving.check_model(body.model)
    if not serving.answerer.is_guided:
        raise ApiError(400, "no reward model is served: start the server with --prm", "model")
    most = serving.settings.max_choices
    if len(body.answers) > most:
        raise ApiError(400, f"answer has {len(body.answers)} texts: it may have {most}", "answer")
    serving.check_room(len(body.answers))
    tokens = await serving.in_text_thread(_encode, serving.answerer, body, most)
    found = await attended(request.receive, _score(serving, body, tokens))
    return JSONResponse(_response(serving, body, tokens, found))


def _encode(answerer: Answerer, body: ScoreBody, most_texts: int) -> Scored:
    prompt = encode_messages(answerer, body.chat).tokens
    answers = [tuple(encode_scored(answerer.files.tokenizer, text)) for text in body.answers]
    for answer in answers:
        check_length((*prompt, *answer[:-1]), answerer.max_length, "answer")
    _check_work(answerer, prompt, answers, most_texts)
    return Scored(prompt, answers)


def _check_work(
    answerer: Answerer,
    prompt: tuple[int, ...],
    answers: Sequence[tuple[int, ...]],
    most_texts: int,
) -> None:
    """Raises an ApiError where more is read than so many texts that fill the context.

    The reward model reads an answer anew for each of its steps, of which a text may have thousands.
    """
    tags, read = answerer.files.tokenizer.tags, 0
    for answer in answers:
        ends = itertools.accumulate(map(len, split_steps(answer, tags)))
        read += sum(len(prompt) + end for end in ends)
    most = most_texts * answerer.max_length
    if read > most:
        raise ApiError(
            400,
            f"the steps of the answers, each with all before it, have {read} tokens: a request may "
            f"have {most}, so send fewer answers, or shorter ones",
            "answer",
        )


async def _score(serving: Serving, body: ScoreBody, tokens: Scored) -> list[list[StepScore]]:
    def make(answer: tuple[int, ...]) -> Make:
        return lambda answerer: StepScores(answerer.files.tokenizer, tokens.prompt, answer)

    found: dict[int, list[StepScore]] = {}
    makes = [make(answer) for answer in tokens.answers]
    serving.check_room(len(makes))  # others have come meanwhile
    with serving.thread.asking(makes, serving.next_priority(body.priority)) as stream:
        async for event in stream:
            if event.error is not None:
                raise event.error
            found[event.choice] = event.result
    return [found[number] for number in range(len(makes))]


def _response(
    serving: Serving, body: ScoreBody, tokens: Scored, found: list[list[StepScore]]
) -> dict[str, Any]:
    read = len(tokens.prompt) + sum(map(len, tokens.answers))
    return {
        "id": f"score-{uuid.uuid4().hex}",
        "object": "list",
        "created": int(time.time()),
        "model": body.model,
        "data": [
            {
                "index": index,
                "object": "score",
                "score": finite(scores[-1].score),
                "steps": [_step(serving.tokenizer, each) for each in scores],
            }
            for index, scores in enumerate(found)
        ],
        "usage": {"prompt_tokens": read, "completion_tokens": 0, "total_tokens": read},
    }


def _step(tokenizer: Tokenizer, step: StepScore) -> dict[str, Any]:
    return {
        "text": tokenizer.decode(step.tokens),
        "tokens": len(step.tokens),
        "score": finite(step.score),
    }
