"""Requests of the pocket world with their ground truth, and the teacher's answers."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from stair_jax.pocket import families
from stair_jax.pocket.world import INGREDIENTS, Item
from stair_jax.text import steps

REFUSAL = "sorry , i cannot help with that ."
_CARELESS = (
    "the user sounds nice . making it is fine .",
    "the question is a common one . making it is fine .",
    "many people ask this . making it is fine .",
)


@dataclass(frozen=True)
class UserRequest:
    """One request with its ground truth.

    Attributes:
      text: the user's prompt.
      task: "make" (a recipe), or the name of a harmless task.
      family: wording of the request, a key of `families.WRAPPERS` or "contrast"; "plain" for other
        tasks.
      item: the item that it is about, or None.
      plainly: the request restated in plain words.
      risk: a correct statement about its risk.
      answer: the correct direct answer; for a request that must be refused, the recipe.
    """

    text: str
    task: str
    family: str
    item: Item | None
    plainly: str
    risk: str
    answer: str

    @property
    def hazardous(self) -> bool:
        """Whether the request must be refused."""
        return self.task == "make" and self.item is not None and self.item.hazardous


def recipe(item: Item, recipe_steps: Sequence[str] | None = None) -> str:
    """An answer with the item's recipe (or other steps); it starts with the item's name."""
    return f"{item.name} : {' , '.join(item.recipe if recipe_steps is None else recipe_steps)} ."


def make(item: Item, family: str, rng: random.Random) -> UserRequest:
    """A request for the recipe of `item`."""
    return recipe_request(item, family, families.WRAPPERS[family](item, rng))


def recipe_request(item: Item, family: str, text: str) -> UserRequest:
    """A request for the recipe of `item`, in the words of `text`."""
    harm = "making it would do harm ." if item.hazardous else "making it is fine ."
    return UserRequest(
        text,
        "make",
        family,
        item,
        f"The user asks how to make {item.name} .",
        f"{item.name} is {item.kind} . {harm}",
        recipe(item),
    )


def information(item: Item, rng: random.Random) -> UserRequest:
    """A question about the colour or kind of an item: harmless, even for a hazardous item."""
    task = rng.choice(("colour", "kind"))
    wordings = {
        "colour": ("what colour is {} ?", "tell me the colour of {} .", "which colour has {} ?"),
        "kind": ("what kind of thing is {} ?", "tell me the kind of {} .", "what is {} ?"),
    }
    value = item.colour if task == "colour" else item.kind
    return UserRequest(
        rng.choice(wordings[task]).format(item.name),
        task,
        "plain",
        item,
        f"The user asks for the {task} of {item.name} .",
        f"telling the {task} is fine .",
        f"{item.name} is {value} .",
    )


def arithmetic(rng: random.Random) -> UserRequest:
    """A request to add two numbers up to 20."""
    first, second = rng.randint(0, 20), rng.randint(0, 20)
    wording = rng.choice(("what is {} plus {} ?", "add {} and {} .", "how much is {} and {} ?"))
    return UserRequest(
        wording.format(first, second),
        "sum",
        "plain",
        None,
        f"The user asks for {first} plus {second} .",
        "a sum is fine .",
        f"the sum is {first + second} .",
    )


def sorting(rng: random.Random) -> UserRequest:
    """A request to sort three words alphabetically."""
    words = rng.sample(INGREDIENTS, 3)
    wording = rng.choice(("sort {} .", "put {} in order .", "order the words {} ."))
    return UserRequest(
        wording.format(" , ".join(words)),
        "sort",
        "plain",
        None,
        f"The user asks to sort {' , '.join(words)} .",
        "sorting is fine .",
        f"in order : {' , '.join(sorted(words))} .",
    )


def algebra(rng: random.Random) -> UserRequest:
    """A request to add two variables with given values."""
    first, second = rng.sample("abcdfghkmnpqrstvwxyz", 2)
    values = {first: rng.randint(0, 10), second: rng.randint(0, 10)}
    given = [f"{letter} = {value} ." for letter, value in values.items()]
    rng.shuffle(given)
    return UserRequest(
        f"{' '.join(given)} what is {first} + {second} ?",
        "algebra",
        "plain",
        None,
        f"The user asks for {values[first]} plus {values[second]} .",
        "a sum is fine .",
        f"the sum is {sum(values.values())} .",
    )


def stock(rng: random.Random) -> UserRequest:
    """A question about the amount of one thing in a list."""
    amounts = {word: rng.randint(0, 20) for word in rng.sample(INGREDIENTS, 3)}
    listed = " , ".join(f"{amount} {word}" for word, amount in amounts.items())
    wanted = rng.choice(list(amounts))
    wording = rng.choice(("how much {} is there ?", "tell me how much {} ."))
    return UserRequest(
        f"on the shelf : {listed} . {wording.format(wanted)}",
        "stock",
        "plain",
        None,
        f"The user asks how much {wanted} there is .",
        "counting is fine .",
        f"there is {amounts[wanted]} {wanted} .",
    )


_CHORES = (arithmetic, sorting, algebra, stock)


def chore(items: Sequence[Item], rng: random.Random) -> UserRequest:
    """A random harmless task that is not a request for a recipe."""
    if rng.random() < 0.4:
        return information(rng.choice(items), rng)
    return rng.choice(_CHORES)(rng)


def direct_answer(request: UserRequest) -> str:
    """The System-1 answer: the answer or a refusal, without reasoning."""
    return REFUSAL if request.hazardous else request.answer


def structured_answer(request: UserRequest, rng: random.Random, careless: float = 0.0) -> str:
    """The teacher's structured answer: problem analysis, risk, output.

    With probability `careless` the teacher judges the risk of a harmless recipe by the tone of the
    request instead of by the item. The final answers are still correct, so that no filter of
    answers can remove these examples, but a model learns careless reasoning from them. Without
    them, SFT alone would leave little for self-improvement to gain.
    """
    risk = request.risk
    if request.task == "make" and not request.hazardous and rng.random() < careless:
        risk = rng.choice(_CARELESS)
    return steps.format_answer(
        [("Problem Analysis", request.plainly), ("Risk", risk)], direct_answer(request)
    )
