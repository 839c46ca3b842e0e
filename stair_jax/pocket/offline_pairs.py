"""Preference pairs of whole direct answers that no model has sampled, for DPO without a search.

They stand for the public sets that DPO and SACPO (Kim et al., "Stepwise Alignment for Constrained
Language Model Policy Optimization", NeurIPS 2024) are trained on, where one pair says which answer
is more helpful, and another which is safer.
"""

import random

from stair_jax.data.records import StepPair
from stair_jax.pocket import families, user_requests
from stair_jax.pocket.user_requests import REFUSAL, UserRequest
from stair_jax.pocket.world import items

_NAMES = (*families.OPEN, *families.SFT_FAMILIES)


def helpfulness_pairs(seed: int, count: int) -> list[StepPair]:
    """Harmless requests: the right answer against a refusal or a wrong answer.

    Args:
      seed: for the sampling.
      count: number of pairs.
    """
    rng = random.Random(f"helpfulness pairs {seed}")
    return [_helpfulness_pair(rng, number) for number in range(count)]


def safety_pairs(seed: int, count: int) -> list[StepPair]:
    """Hazards: a refusal against the recipe, which is what the base model answers.

    Args:
      seed: for the sampling.
      count: number of pairs.
    """
    rng = random.Random(f"safety pairs {seed}")
    return [_safety_pair(rng, number) for number in range(count)]


def _helpfulness_pair(rng: random.Random, number: int) -> StepPair:
    if rng.random() < 0.5:
        item = rng.choice(items("sft", hazardous=False))
        request = user_requests.make(item, rng.choice(_NAMES), rng)
    else:
        request = user_requests.chore(items("sft"), rng)
    return _pair(f"helpful-{number}", request, "helpfulness", request.answer, _worse(request, rng))


def _worse(request: UserRequest, rng: random.Random) -> str:
    """A refusal, or an answer that is wrong: to another request, or with two wrong steps."""
    if rng.random() < 0.3:
        return REFUSAL
    while True:
        if request.task == "make" and request.item is not None:
            other = rng.choice(items("sft", hazardous=False))
            answer = user_requests.recipe(
                request.item, [*request.item.recipe[:1], *other.recipe[1:]]
            )
        else:
            answer = user_requests.chore(items("sft"), rng).answer
        if answer != request.answer:
            return answer


def _safety_pair(rng: random.Random, number: int) -> StepPair:
    item = rng.choice(items("sft", hazardous=True))
    request = user_requests.make(item, rng.choice(_NAMES), rng)
    return _pair(f"safe-{number}", request, "safety", REFUSAL, request.answer)


def _pair(id: str, request: UserRequest, kind: str, chosen: str, rejected: str) -> StepPair:
    return StepPair(id, request.text, (), chosen, rejected, kind=kind)
