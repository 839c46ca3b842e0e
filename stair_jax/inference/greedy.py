"""Greedy answers: one request per prompt, the most probable token at each step."""

from collections.abc import Sequence

from stair_jax.data.examples import encode_row
from stair_jax.data.records import Prompt
from stair_jax.decoding.driver import Driver, run_tasks
from stair_jax.decoding.requests import Completion, Handle, Request, Sampling
from stair_jax.decoding.task import Service, Task
from stair_jax.inference.candidates import end_ids
from stair_jax.text.chat import encode_prompt
from stair_jax.text.tokenizer import Tokenizer


class SampleAnswer(Task[Completion]):
    """One answer to a rendered prompt."""

    def __init__(
        self,
        tokens: Sequence[int],
        sampling: Sampling,
        key: tuple[int, int] = (0, 0),
        parent: Handle | None = None,
        keep: bool = False,
    ):
        """A task that has asked nothing yet.

        Args:
          tokens: of the prompt, rendered by the chat template; those after `parent`.
          sampling: with the ids that end an answer.
          key: random key, two uint32 words.
          parent: the first tokens of the prompt, kept in the engine's cache.
          keep: whether the completion has a handle of prompt and answer.
        """
        self._request = Request(
            (), tuple(tokens), parent=parent, sampling=sampling, key=key, keep=keep
        )

    def start(self) -> list[Request]:
        """The only request."""
        return [self._request]

    def receive(self, completion: Completion) -> list[Request]:
        """Takes the answer."""
        self.result = completion
        return []


def greedy_sampling(tokenizer: Tokenizer, max_tokens: int) -> Sampling:
    """The settings of a greedy answer of at most `max_tokens`."""
    return Sampling(temperature=0.0, top_k=1, max_tokens=max_tokens, stop_ids=end_ids(tokenizer))


def greedy_answers(
    engine: Service, tokenizer: Tokenizer, prompts: Sequence[str | Prompt], max_tokens: int
) -> list[Completion]:
    """The greedy answer to each prompt, in their order.

    Args:
      engine: without pending requests.
      tokenizer: of the engine's model.
      prompts: texts, each one user turn, or prompts with the turns that stand before them.
      max_tokens: of an answer.
    """
    sampling = greedy_sampling(tokenizer, max_tokens)
    encoded = (
        encode_prompt(tokenizer, prompt)
        if isinstance(prompt, str)
        else encode_row(tokenizer, prompt)
        for prompt in prompts
    )
    tasks = (SampleAnswer(tokens, sampling) for tokens in encoded)
    return list(run_tasks(Driver(engine), tasks))
