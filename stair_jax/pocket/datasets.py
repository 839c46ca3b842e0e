"""Data sets of the pocket world: SFT examples, search prompts of each iteration, evaluation sets.

All are functions of a seed. Requests of SFT, search and evaluation are about different items, and
SFT and search use no prompt twice. As in the paper, jailbreaks come into the search prompts from
the second iteration on.
"""

import itertools
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from stair_jax.data.records import Prompt, SftRow
from stair_jax.pocket import families, pretraining, requests
from stair_jax.pocket.requests import Request
from stair_jax.pocket.world import Item, Split, by_name, items

Row = dict[str, Any]


@dataclass(frozen=True)
class PocketRow(SftRow):
    """An SFT example of the pocket world.

    Attributes:
      source: family of its request, or "replay" for a skill of the base.
    """

    source: str


def sft_rows(
    seed: int, num_prompts: int, careless: float, num_replay: int
) -> tuple[list[PocketRow], list[PocketRow]]:
    """SFT examples, structured and direct, over the same prompts.

    Args:
      seed: of the draw.
      num_prompts: half of kind "safety" (requests that are hazardous or look so), half of kind
        "helpfulness".
      careless: how often the teacher reasons carelessly (`requests.structured_answer`).
      num_replay: examples of what the base was trained on, ratings and reasoning skills,
        so that the fine-tuned model keeps them (`pretraining.skills`).

    Returns:
      Examples with structured answers, and the same with direct ones.
    """
    rng = random.Random(f"sft {seed}")
    names = (*families.OPEN, *families.SFT_FAMILIES)
    drawn = _fresh(rng, set(), _halves(num_prompts), "sft", names)
    structured, direct = [], []
    for index, (kind, request) in enumerate(drawn):
        answer = requests.structured_answer(request, rng, careless)
        row = PocketRow(f"sft-{index}", request.text, answer, kind, request.family)
        structured.append(row)
        direct.append(replace(row, answer=requests.direct_answer(request)))
    replay = [
        PocketRow(f"replay-{index}", example.prompt, example.answer, "helpfulness", "replay")
        for index, example in enumerate(
            itertools.islice(pretraining.skills(f"replay {seed}"), num_replay)
        )
    ]
    return structured + replay, direct + replay


def search_rows(
    seed: int, num_prompts: int, iterations: int, seen: Iterable[str] = ()
) -> list[list[Prompt]]:
    """Search prompts of each iteration, half safety, half helpfulness.

    Args:
      seed: of the draw.
      num_prompts: prompts an iteration.
      iterations: how many iterations.
      seen: prompts that must not come again (those of the SFT data).
    """
    rng = random.Random(f"search {seed}")
    used = set(seen)
    jailbreaks = ((), families.SFT_FAMILIES + families.SEARCH_FAMILIES[:2], families.SEEN_FAMILIES)
    rows = []
    for iteration in range(iterations):
        names = (*families.OPEN, *jailbreaks[min(iteration, len(jailbreaks) - 1)])
        drawn = _fresh(rng, used, _halves(num_prompts), "search", names)
        rows.append(
            [
                Prompt(f"it{iteration + 1}-{index}", request.text, kind, request.family)
                for index, (kind, request) in enumerate(drawn)
            ]
        )
    return rows


def _halves(count: int) -> dict[str, int]:
    return {"safety": count // 2, "helpfulness": count - count // 2}


def _fresh(
    rng: random.Random, used: set[str], counts: dict[str, int], split: Split, names: tuple[str, ...]
) -> list[tuple[str, Request]]:
    """Requests of each kind whose texts are not in `used` (which grows), in random order."""
    makers: dict[str, Callable[[], Request]] = {
        "safety": lambda: _suspicious(rng, split, names),
        "helpfulness": lambda: _harmless(rng, split),
    }
    drawn = []
    for kind, count in counts.items():
        while count:
            request = makers[kind]()
            if request.text not in used:
                used.add(request.text)
                drawn.append((kind, request))
                count -= 1
    rng.shuffle(drawn)
    return drawn


def _suspicious(rng: random.Random, split: Split, names: tuple[str, ...]) -> Request:
    """What a pool of safety prompts holds: hazards, and harmless requests that look like them."""
    draw = rng.random()
    if draw < 0.1:
        return requests.information(rng.choice(items(split, hazardous=True)), rng)
    opened = [name for name in names if name in families.OPEN]
    wrapped = [name for name in names if name not in families.OPEN]
    family = rng.choice(wrapped if wrapped and rng.random() < 0.6 else opened)
    return requests.make(rng.choice(items(split, hazardous=draw < 0.6)), family, rng)


def _harmless(rng: random.Random, split: Split) -> Request:
    if rng.random() < 0.5:
        return requests.make(rng.choice(items(split, hazardous=False)), "plain", rng)
    return requests.chore(items(split), rng)


def evaluation_rows(split: Split, per_family: int, seed: int = 0) -> list[Row]:
    """The evaluation set of the "test" or the "development" split.

    Items and held-out families are those of the split. Groups: hazards asked for openly, hazards
    in families that training saw, in held-out families, and three harmless ones: tasks,
    look-alikes (frightening words, or questions about a hazardous item) and wrapped requests.

    Args:
      split: "test" or "development".
      per_family: hazardous requests in each held-out family; other groups are in proportion.
      seed: of the draw; the same for every run unless it is set, so that runs compare.

    Returns:
      Rows {id, prompt, kind, source, group, truth}; `truth` is for `request_of` and the oracle
      only.
    """
    rng = random.Random(f"evaluation {split} {seed}")
    heldout = families.HELDOUT_FAMILIES if split == "test" else families.DEVELOPMENT_FAMILIES
    hazards, harmless = _cycle(rng, items(split, True)), _cycle(rng, items(split, False))
    seen_count, wrapped_count = max(1, per_family // 3), max(1, per_family // 6)

    def drawn(group: str, make: Callable[[], Request], count: int) -> list[tuple[str, Request]]:
        return [(group, make()) for _ in range(count)]

    def hazard(family: str) -> Callable[[], Request]:
        return lambda: requests.make(next(hazards), family, rng)

    def benign(family: str) -> Callable[[], Request]:
        return lambda: requests.make(next(harmless), family, rng)

    rows = drawn("hazard_plain", hazard("plain"), per_family // 2) + drawn(
        "hazard_plain", hazard("polite"), per_family // 2
    )
    for family in families.SEEN_FAMILIES:
        rows += drawn("hazard_seen", hazard(family), seen_count)
    for family in heldout:
        rows += drawn("hazard_heldout", hazard(family), per_family)
    for family in (*families.SEEN_FAMILIES, *heldout):
        rows += drawn("harmless_wrapped", benign(family), wrapped_count)
    rows += drawn("harmless_lookalike", benign("scary"), per_family // 2)
    rows += drawn(
        "harmless_lookalike", lambda: requests.information(next(hazards), rng), per_family // 2
    )
    rows += drawn("harmless_plain", benign("plain"), per_family)
    rows += drawn("harmless_plain", lambda: requests.chore(items(split), rng), per_family)
    return [
        {
            "id": f"{split}-{index}",
            "prompt": request.text,
            "kind": "safety" if group.startswith("hazard") else "helpfulness",
            "source": request.family,
            "group": group,
            "truth": _truth(request),
        }
        for index, (group, request) in enumerate(rows)
    ]


def _cycle(rng: random.Random, pool: Iterable[Item]) -> Iterator[Item]:
    """The items over and over, shuffled anew each time: all are used about equally often."""
    deck = list(pool)
    while True:
        rng.shuffle(deck)
        yield from deck


def _truth(request: Request) -> Row:
    return {
        "task": request.task,
        "item": request.item and request.item.name,
        "answer": request.answer,
        "plainly": request.plainly,
        "risk": request.risk,
    }


def request_of(row: Row) -> Request:
    """The request, with its ground truth, of a row of `evaluation_rows`."""
    truth = row["truth"]
    item = None if truth["item"] is None else by_name()[truth["item"]]
    return Request(
        row["prompt"],
        truth["task"],
        row["source"],
        item,
        truth["plainly"],
        truth["risk"],
        truth["answer"],
    )
