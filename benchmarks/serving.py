"""The server beside the engine that it stands on: tokens/s of many streams over HTTP.

    python -m benchmarks.serving [--streams 256] [--answers 4] [--profile 30]
    python -m benchmarks.serving --model Qwen/Qwen2.5-0.5B-Instruct --steps-per-call 8
    python -m benchmarks.serving --tiny                    # seconds, on a CPU

Weights are random; prompts are random words, and each answer may have a drawn number of tokens,
half to three halves of --tokens. As many streams as --streams ask at the same time, each anew when
it is answered. The client is a process of its own (serving_client.py), on the same machine. Lines:

    engine  the same prompts and lengths through Engine.step, so many requests at once
    server  the same over HTTP, each answer a stream: `ratio` to the tokens/s of `engine`,
            `step_share` of the time within Engine.step, `tokens_a_piece`, milliseconds to the first
            text and between two pieces (median, 95th percentile), and the shares of a core that the
            event loop and the client take

--repeats takes turns, and the last line, `serving`, has the median ratio. --profile N prints the N
functions in which the event loop spends its time.
"""

import argparse
import gc
import json
import statistics
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import Lines, add_model_flags, make_engine, random_model, warm_up
from benchmarks.sampling_profile import SamplingProfile
from benchmarks.wide_tokenizer import random_words, wide_tokenizer
from stair_jax.data.questions import Question
from stair_jax.decoding.engine import Engine
from stair_jax.decoding.requests import Request, Sampling, request_key
from stair_jax.inference.candidates import end_ids
from stair_jax.run.answer_models import AnswerSettings, ModelFiles
from stair_jax.run.answering import Answerer
from stair_jax.server.listening import address_of, bind, listen
from stair_jax.server.serving import Serving
from stair_jax.server.settings import ServerSettings

_SAMPLING: dict[str, Any] = {"temperature": 1.2, "top_k": 50, "top_p": 0.9}


@dataclass(frozen=True)
class Asked:
    """A chat, and how long its answer may be.

    Attributes:
      text: what the user says.
      max_tokens: of the answer.
    """

    text: str
    max_tokens: int


def main() -> None:
    """Prints the figures as they are found."""
    flags = _read_flags()
    lines = Lines(vars(flags))
    answerer = make_answerer(flags)
    warm_up(answerer.engine)
    asked = draw(answerer, flags)
    few = asked[: 2 * flags.streams]
    run_engine(answerer, few, flags.streams)  # compiles what is left
    ratios = []
    for _ in range(flags.repeats):
        engine = lines("engine", **run_engine(answerer, asked, flags.streams))
        gc.collect()
        server = run_server(answerer, asked, flags)
        ratios.append(server["tokens_per_s"] / engine["tokens_per_s"])
        lines("server", **server, ratio=ratios[-1])
    lines("serving", ratio=statistics.median(ratios), of=len(ratios))


def _read_flags() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_model_flags(parser)
    parser.add_argument("--streams", type=int, default=256, help="and slots of the engine")
    parser.add_argument("--answers", type=int, default=4, help="of each stream, in the mean")
    parser.add_argument("--prompt-tokens", type=int, default=200)
    parser.add_argument("--tokens", type=int, default=300, help="of an answer, in the mean")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--profile", type=int, default=0, help="functions to print; 0: none")
    if parser.parse_args().tiny:
        parser.set_defaults(streams=16, prompt_tokens=20, tokens=60, repeats=1)
    return parser.parse_args()


def make_answerer(flags: argparse.Namespace) -> Answerer:
    """An engine with random weights, and a tokenizer whose words are its vocabulary."""
    model = random_model(flags)
    room = flags.prompt_tokens + 2 * flags.tokens + 64
    engine = make_engine(model, flags, flags.streams, room)
    tokenizer = wide_tokenizer(model.config.vocab_size)
    files = ModelFiles("random", Path(), model.config, tokenizer, is_structured=True)
    return Answerer(engine, files, AnswerSettings(method="sample"), None)


def draw(answerer: Answerer, flags: argparse.Namespace) -> list[Asked]:
    """The chats, the same in each process."""
    rng, mean = np.random.default_rng(0), flags.tokens
    limits = rng.integers(mean // 2, mean + mean // 2 + 1, flags.streams * flags.answers)
    tokenizer = answerer.files.tokenizer
    return [Asked(random_words(tokenizer, rng, flags.prompt_tokens), int(n)) for n in limits]


def run_engine(answerer: Answerer, asked: list[Asked], streams: int) -> dict[str, Any]:
    """Figures of the engine alone, which decodes so many answers at once."""
    stop_ids = end_ids(answerer.files.tokenizer)
    waiting: deque[Request] = deque()
    for number, one in enumerate(asked):
        question = Question(str(number), ({"role": "user", "content": one.text},))
        sampling = Sampling(**_SAMPLING, max_tokens=one.max_tokens, stop_ids=stop_ids)
        tokens, key = answerer.encode(question), request_key(0, number)
        waiting.append(Request(number, tokens, sampling=sampling, key=key))
    engine, count = answerer.engine, 0
    start = time.perf_counter()
    engine.submit([waiting.popleft() for _ in range(min(streams, len(waiting)))])
    while engine.pending:
        finished = engine.step()
        count += sum(len(completion.tokens) for completion in finished)
        engine.submit([waiting.popleft() for _ in range(min(len(finished), len(waiting)))])
    seconds = time.perf_counter() - start
    return {"answers": len(asked), "tokens": count, "tokens_per_s": count / seconds}


def run_server(answerer: Answerer, asked: list[Asked], flags: argparse.Namespace) -> dict[str, Any]:
    """Figures of the server, which runs in this thread until the client has its answers."""
    settings = ServerSettings(port=0)
    serving = Serving(answerer, settings)
    bodies = [_body(serving.name, number, one) for number, one in enumerate(asked)]
    with bind(settings) as bound, timed_steps(answerer.engine) as steps:
        command = [sys.executable, "-m", "benchmarks.serving_client"]
        address = address_of(bound).removeprefix("http://")
        found: list[str] = []
        bound.listen()
        client = threading.Thread(
            target=_run_client, args=([*command, address, str(flags.streams)], bodies, found)
        )
        client.start()
        threading.Thread(target=_drain_after, args=(client, serving)).start()
        cpu_start = time.thread_time()
        with SamplingProfile(flags.profile):
            listen(serving, None, bound)
        loop_cpu = time.thread_time() - cpu_start
    if not found:
        raise SystemExit("the client has failed: see above")
    figures = json.loads(found[0])
    seconds, pieces = figures.pop("seconds"), figures.pop("pieces")
    return {
        **figures,
        "answers": len(asked),
        "tokens_per_s": figures["tokens"] / seconds,
        "tokens_a_piece": figures["tokens"] / max(pieces, 1),
        "step_share": sum(steps) / seconds,
        "loop_cpu_share": loop_cpu / seconds,
    }


def _body(model: str, seed: int, asked: Asked) -> str:
    fields = {
        "model": model,
        "messages": [{"role": "user", "content": asked.text}],
        "max_tokens": asked.max_tokens,
        "seed": seed,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    return json.dumps(fields | _SAMPLING)


def _run_client(command: list[str], bodies: list[str], found: list[str]) -> None:
    text = "\n".join(bodies)
    run = subprocess.run(command, input=text, stdout=subprocess.PIPE, text=True, check=False)
    if run.returncode == 0:
        found.append(run.stdout)


def _drain_after(client: threading.Thread, serving: Serving) -> None:
    client.join()
    serving.is_draining = True


@contextmanager
def timed_steps(engine: Engine) -> Iterator[list[float]]:
    """Within, the seconds of each call of `Engine.step` are noted."""
    seconds: list[float] = []
    step = engine.step

    def timed() -> Any:
        start = time.perf_counter()
        try:
            return step()
        finally:
            seconds.append(time.perf_counter() - start)

    engine.step = timed  # type: ignore[method-assign]
    try:
        yield seconds
    finally:
        del engine.step  # the method of the class is seen again


if __name__ == "__main__":
    main()
