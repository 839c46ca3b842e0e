"""Answers that are sampled: how a request says so, and the tasks that do it."""

from collections.abc import Sequence

from stair_jax.decoding.requests import Handle, Sampling, request_key
from stair_jax.inference.candidates import end_ids
from stair_jax.inference.greedy import SampleAnswer, greedy_sampling
from stair_jax.run.answering import Answerer
from stair_jax.run.answering_thread import Make
from stair_jax.server.bodies import SamplingFields
from stair_jax.server.serving import Serving, new_seed


def sampling_of(body: SamplingFields, max_tokens: int | None, serving: Serving) -> Sampling:
    """How the tokens of a request are sampled.

    A request that says nothing of it has the server's settings, and one that says something the
    API's defaults for the rest: temperature 1, all tokens.

    Args:
      body: of the request.
      max_tokens: of an answer; None: that of the server.
      serving: the model.
    """
    defaults, tokenizer = serving.defaults, serving.tokenizer
    most = serving.most_tokens(max_tokens)
    if body.says_nothing_of_sampling:
        if defaults.method == "greedy":
            return greedy_sampling(tokenizer, most)
        return defaults.sampling(most, end_ids(tokenizer))
    if body.temperature == 0:
        return greedy_sampling(tokenizer, most)
    return Sampling(
        temperature=1.0 if body.temperature is None else body.temperature,
        top_k=max(0, body.top_k or 0),
        top_p=1.0 if body.top_p is None else body.top_p,
        max_tokens=most,
        stop_ids=end_ids(tokenizer),
    )


def sampled_choices(
    tokens: Sequence[int], sampling: Sampling, name: str, seed: int | None, count: int
) -> list[Make]:
    """Tasks of so many answers to one prompt, which is computed once for all of them.

    Args:
      tokens: of the prompt.
      sampling: of each answer.
      name: of the prompt, a part of the random keys.
      seed: of the request; None: a random one.
      count: answers.
    """
    drawn = new_seed(seed)
    keys = [request_key(drawn, name, number) for number in range(count)]
    if count == 1:
        return [lambda answerer: SampleAnswer(tokens, sampling, keys[0])]
    shared = _SharedPrompt(tokens)
    return [
        lambda answerer, key=key: _SharingAnswer(answerer, shared, sampling, key)  # type: ignore[misc]
        for key in keys
    ]


class _SharedPrompt:
    """A prompt that is kept in the engine's cache while any of its answers is under way."""

    def __init__(self, tokens: Sequence[int]):
        self._tokens = tokens
        self._handle: Handle | None = None
        self._users = 0

    def take(self, answerer: Answerer) -> Handle:
        self._handle = self._handle or answerer.engine.keep(self._tokens)
        self._users += 1
        return self._handle

    def give_back(self, answerer: Answerer) -> None:
        self._users -= 1
        if not self._users and self._handle is not None:
            answerer.engine.release(self._handle)
            self._handle = None


class _SharingAnswer(SampleAnswer):
    """An answer that gives its prompt back at its end."""

    def __init__(
        self,
        answerer: Answerer,
        shared: _SharedPrompt,
        sampling: Sampling,
        key: tuple[int, int],
    ):
        super().__init__((), sampling, key, parent=shared.take(answerer))
        self._answerer, self._shared = answerer, shared

    def close(self) -> None:
        self._shared.give_back(self._answerer)
