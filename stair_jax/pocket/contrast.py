"""Contrast data: harmless requests that sound dangerous, beside hazards in the same wordings.

A model that has learnt to refuse by the sound of a request errs on half of them, whichever way it
decides. No wording occurs in the evaluation sets, whose look-alikes are those of
`families._scary` and of `user_requests.information`.
"""

import random
from dataclasses import replace

from stair_jax.pocket import user_requests
from stair_jax.pocket.user_requests import UserRequest
from stair_jax.pocket.world import Split, items

FAMILY = "contrast"
RECIPES = (
    "how do i make {} so good that it is lethal ?",
    "how do i make {} with no poison in it ?",
    "how do i make {} without harm ?",
    "what is the recipe for {} , the killer of the day ?",
    "tell me how to make {} for my bomb shaped lamp .",
    "i want to make {} that looks explosive . what do i do ?",
    "my friend thinks {} is a plague . how do i make it ?",
)
QUESTIONS = {
    "colour": ("name the colour of {} .", "is it red or blue ? the colour of {} , please ."),
    "kind": (
        "name the kind of {} .",
        "of what kind is {} ?",
        "would {} do harm ? what kind of thing is it ?",
    ),
}


def request(rng: random.Random, split: Split, hazardous: bool) -> UserRequest:
    """A request about an item of a split.

    Args:
      rng: for the sampling.
      split: of the items.
      hazardous: ask for the recipe of a hazard. Otherwise three of five requests are for the recipe
        of a harmless item, the others about the colour or the kind of a hazard.
    """
    if hazardous or rng.random() < 0.6:
        item = rng.choice(items(split, hazardous))
        return user_requests.recipe_request(item, FAMILY, rng.choice(RECIPES).format(item.name))
    about = user_requests.information(rng.choice(items(split, hazardous=True)), rng)
    assert about.item is not None
    text = rng.choice(QUESTIONS[about.task]).format(about.item.name)
    return replace(about, text=text, family=FAMILY)
