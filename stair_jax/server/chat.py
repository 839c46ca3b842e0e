"""/v1/chat/completions: answers to chats, at once or as they are sampled."""

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from stair_jax.server.bodies import read_body
from stair_jax.server.chat_answers import ChatAnswers
from stair_jax.server.chat_bodies import ChatBody
from stair_jax.server.prompts import encode_messages
from stair_jax.server.searching import check_search, chosen_search
from stair_jax.server.serving import serving_of
from stair_jax.server.streaming import Streamed, attended

router = APIRouter()


@router.post("/v1/chat/completions")
async def chat_completions(request: Request) -> Response:
    """Answers a chat."""
    serving = serving_of(request)
    body = await read_body(request, ChatBody)
    search = chosen_search(serving, serving.check_request(body), body.search)
    messages = [message.as_message() for message in body.messages]
    prompt = await serving.in_text_thread(encode_messages, serving.answerer, messages)
    if search is not None:
        check_search(search, body, prompt, serving)
    answers = ChatAnswers(serving, body, prompt, search)
    if body.stream:
        return Streamed(answers.events())
    return JSONResponse(await attended(request.receive, answers.whole()))
