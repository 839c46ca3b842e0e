"""Bodies of text completions: texts or token ids to go on with, or to score."""

from dataclasses import dataclass
from typing import ClassVar

from pydantic import Field

from stair_jax.inference.prompt_logps import MOST_TOP
from stair_jax.run.answering import Answerer
from stair_jax.server.bodies import Choices, Items, SamplingFields
from stair_jax.server.errors import ApiError
from stair_jax.server.prompts import check_length
from stair_jax.server.tokenizing import check_ids, encode_plain, plain_text
from stair_jax.storage import fingerprint

_DEFAULT_TOKENS = 16  # of the API
_ID_LENGTH = 16  # hexadecimal digits of a hash


class CompletionBody(SamplingFields):
    """The body of a request for completions.

    Attributes:
      prompt: a text or its token ids, or several of either. What has the form of a tag or control
        token in a text stays text: send token ids where it should be one.
      max_tokens: of a completion; 0: the prompt alone is scored, with `echo`.
      echo: whether the text begins with the prompt, and the log-probabilities with those of it.
      logprobs: how many of the likeliest tokens are told in the place of each; None: and no
        log-probabilities at all.
      add_special_tokens: whether a text begins with what the tokenizer puts before all texts.
    """

    NEUTRAL: ClassVar = {
        "best_of": lambda value: value is None or value == 1,
        "suffix": lambda value: value in (None, ""),
    }
    prompt: str | Choices[str] | Items[int] | Choices[Items[int]]
    max_tokens: int | None = Field(None, ge=0, le=2**62)
    echo: bool | None = None
    logprobs: int | None = Field(None, ge=0, le=MOST_TOP)
    add_special_tokens: bool = True

    @property
    def most_tokens(self) -> int:
        """Of a completion."""
        return _DEFAULT_TOKENS if self.max_tokens is None else self.max_tokens

    @property
    def prompts(self) -> list[str | list[int]]:
        """Each prompt."""
        given = self.prompt
        if isinstance(given, str) or (given and isinstance(given[0], int)):
            return [given]  # type: ignore[list-item]
        return list(given)  # type: ignore[arg-type]


@dataclass(frozen=True)
class TextPrompt:
    """A text that is ready to be gone on with.

    Attributes:
      text: of the prompt.
      tokens: its ids.
      name: a hash of these, a part of the random keys.
    """

    text: str
    tokens: tuple[int, ...]
    name: str


def encode_prompts(answerer: Answerer, body: CompletionBody) -> list[TextPrompt]:
    """The prompts of a body as token ids.

    Raises:
      ApiError: one of them is empty, too long, or has an id that is no token.
    """
    prompts = [_encode(answerer, prompt, body) for prompt in body.prompts]
    if not prompts:
        raise ApiError(400, "prompt is an empty list", "prompt")
    return prompts


def _encode(answerer: Answerer, prompt: str | list[int], body: CompletionBody) -> TextPrompt:
    tokenizer = answerer.files.tokenizer
    if isinstance(prompt, str):
        text, ids = prompt, encode_plain(tokenizer, prompt, body.add_special_tokens)
    else:
        check_ids(prompt, tokenizer, "prompt")
        text, ids = plain_text(tokenizer, prompt), prompt
    if not ids:
        raise ApiError(400, "prompt is empty: it needs at least one token", "prompt")
    # The last token of a text that is only scored is never read.
    check_length(ids if body.most_tokens else ids[:-1], answerer.max_length, "prompt")
    return TextPrompt(text, tuple(ids), fingerprint(ids)[:_ID_LENGTH])
