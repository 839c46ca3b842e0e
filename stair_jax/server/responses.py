"""/v1/responses: one answer to a chat, in text; nothing is remembered."""

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from stair_jax.server.bodies import read_body
from stair_jax.server.prompts import encode_messages
from stair_jax.server.response_answers import ResponseAnswer
from stair_jax.server.response_bodies import ResponseBody
from stair_jax.server.searching import check_search, chosen_search
from stair_jax.server.serving import serving_of
from stair_jax.server.streaming import Streamed, attended

router = APIRouter()


@router.post("/v1/responses")
async def responses(request: Request) -> Response:
    """Answers a chat."""
    serving = serving_of(request)
    body = await read_body(request, ResponseBody)
    search = chosen_search(serving, serving.check_request(body), body.search)
    prompt = await serving.in_text_thread(encode_messages, serving.answerer, body.messages)
    if search is not None:
        check_search(search, body, prompt, serving)
    answer = ResponseAnswer(serving, body, prompt, search)
    if body.stream:
        return Streamed(answer.events())
    return JSONResponse(await attended(request.receive, answer.whole()))
