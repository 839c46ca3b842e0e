"""/v1/completions: texts that the model goes on with, and their log-probabilities."""

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from stair_jax.server.bodies import read_body
from stair_jax.server.completion_answers import CompletionAnswers
from stair_jax.server.completion_bodies import CompletionBody, encode_prompts
from stair_jax.server.errors import ApiError
from stair_jax.server.serving import serving_of
from stair_jax.server.streaming import Streamed, attended

router = APIRouter()


@router.post("/v1/completions")
async def completions(request: Request) -> Response:
    """Goes on with texts."""
    serving = serving_of(request)
    body = await read_body(request, CompletionBody)
    serving.check_request(body)
    if body.model != serving.name:
        raise ApiError(
            400,
            "a search answers chats: ask for it at /v1/chat/completions, or name the model alone",
            "model",
        )
    most, count = serving.settings.max_choices, len(body.prompts) * body.num_choices
    if count > most:
        raise ApiError(400, f"prompt and n ask for {count} texts: it may be {most}", "prompt")
    serving.check_room(count)
    prompts = await serving.in_text_thread(encode_prompts, serving.answerer, body)
    answers = CompletionAnswers(serving, body, prompts)
    if body.stream:
        return Streamed(answers.events())
    return JSONResponse(await attended(request.receive, answers.whole()))
