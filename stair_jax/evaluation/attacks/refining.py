"""The chat of an attacker that refines its prompts, for PAIR and TAP."""

from typing import NamedTuple

from stair_jax.decoding.requests import request_key
from stair_jax.evaluation.attacks.replies import read_object
from stair_jax.evaluation.attacks.wordings import BEGIN, feedback, refiner
from stair_jax.evaluation.case import Case
from stair_jax.evaluation.target import Message, Reply
from stair_jax.search.judging.fence import mark_of

_LONGEST_LABEL = 300  # characters


class Written(NamedTuple):
    """A prompt as the attacker wrote it, with what it says of it."""

    improvement: str
    prompt: str
    text: str

    @property
    def label(self) -> str:
        """What it says of it, for readers."""
        return self.improvement[:_LONGEST_LABEL]


class Turn(NamedTuple):
    """What the attacker wrote, and what it was told then."""

    written: str
    told: str


def read_written(text: str) -> Written | None:
    """A prompt out of an attacker's reply; None: there is none."""
    found = read_object(text, {"improvement": str, "prompt": str})
    if found is None:
        return None
    return Written(found["improvement"].strip(), found["prompt"].strip(), text)


def chat(case: Case, approach: str, turns: tuple[Turn, ...]) -> tuple[Message, ...]:
    """The attacker's chat, with the turns that are kept."""
    messages = [
        {"role": "system", "content": refiner(case.prompt, approach)},
        {"role": "user", "content": BEGIN},
    ]
    for turn in turns:
        messages += [
            {"role": "assistant", "content": turn.written},
            {"role": "user", "content": turn.told},
        ]
    return tuple(messages)


def turn_of(
    case: Case, written: Written, reply: Reply, rating: int | None, seed: int, key: str
) -> Turn:
    """What became of a prompt, for the attacker."""
    mark = mark_of(request_key(seed, key, "feedback"))
    return Turn(written.text, feedback(case.prompt, reply.final, rating, mark))
