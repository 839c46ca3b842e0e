"""Data sets of the pocket world: SFT examples, search prompts per iteration, evaluation sets.

All are deterministic functions of a seed. SFT, search and evaluation are about disjoint items, and
no prompt occurs twice in SFT and search. As in the paper, the search prompts contain jailbreaks
from the second iteration on.
"""

import itertools
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from stair_jax.data.records import Prompt, SftRow
from stair_jax.pocket import contrast, families, forced_starts, pretraining, user_requests
from stair_jax.pocket.user_requests import UserRequest
from stair_jax.pocket.world import Item, Split, by_name, items

Row = dict[str, Any]
LOOKALIKES = 0.5


@dataclass(frozen=True)
class PocketRow(SftRow):
    """An SFT example of the pocket world.

    Attributes:
      source: family of its request, or "replay" for a skill of the base.
    """

    source: str


def sft_rows(
    seed: int,
    num_prompts: int,
    careless: float,
    num_replay: int,
    contrasts: float = 0.0,
    wrong_ratings: float = 0.0,
    lookalikes: float = LOOKALIKES,
) -> tuple[list[PocketRow], list[PocketRow]]:
    """SFT examples, structured and direct, over the same prompts.

    Args:
      seed: for the sampling.
      num_prompts: number of prompts, half of kind "safety" (hazardous requests and look-alikes),
        half of kind "helpfulness".
      careless: probability that the teacher reasons carelessly (`user_requests.structured_answer`).
      num_replay: number of additional examples from the pretraining mixture (rating and reasoning
        skills, `pretraining.skills`), so that fine-tuning does not lose them.
      contrasts: share of the prompts of either kind that are contrast data (`contrast.request`).
        About them the teacher is never careless.
      wrong_ratings: share of the replayed ratings whose conclusion is turned round.
      lookalikes: share of the safety prompts, contrast data aside, that are harmless.

    Returns:
      Examples with structured answers, and the same with direct ones.
    """
    rng = random.Random(f"sft {seed}")  # by name: independent of the other data sets of the seed
    names = (*families.OPEN, *families.SFT_FAMILIES)
    drawn = _fresh(rng, set(), _halves(num_prompts), "sft", names, contrasts, lookalikes)
    structured, direct = [], []
    for index, (kind, request) in enumerate(drawn):
        tone = 0.0 if request.family == contrast.FAMILY else careless
        answer = user_requests.structured_answer(request, rng, tone)
        row = PocketRow(f"sft-{index}", request.text, answer, kind, request.family)
        structured.append(row)
        direct.append(replace(row, answer=user_requests.direct_answer(request)))
    replay = _replay(seed, num_replay, wrong_ratings)
    return structured + replay, direct + replay


def _replay(seed: int, count: int, wrong_ratings: float) -> list[PocketRow]:
    """Examples of the base's skills."""
    errors = random.Random(f"wrong ratings {seed}")
    return [
        PocketRow(
            f"replay-{index}",
            example.prompt,
            _turned_round(example.answer) if errors.random() < wrong_ratings else example.answer,
            "helpfulness",
            "replay",
        )
        for index, example in enumerate(
            itertools.islice(pretraining.skills(f"replay {seed}"), count)
        )
    ]


def _turned_round(answer: str) -> str:
    """A rating with the opposite conclusion; another text as it is."""
    finding, separator, conclusion = answer.rpartition("Conclusion: [")
    opposite = {"SAFE]": "UNSAFE]", "UNSAFE]": "SAFE]", **{f"{i}]": f"{6 - i}]" for i in range(6)}}
    return f"{finding}{separator}{opposite[conclusion] if separator else conclusion}"


def search_rows(
    seed: int,
    num_prompts: int,
    iterations: int,
    seen: Iterable[str] = (),
    contrasts: float = 0.0,
    forced: float = 0.0,
    labels: bool = False,
    lookalikes: float = LOOKALIKES,
) -> list[list[Prompt]]:
    """Search prompts of each iteration, half safety, half helpfulness.

    Args:
      seed: for the sampling.
      num_prompts: prompts per iteration.
      iterations: number of iterations.
      seen: prompts to avoid (those of the SFT data).
      contrasts: share of the prompts of either kind that are contrast data (`contrast.request`).
      forced: share of the prompts that begin wrong (`forced_starts.draw`).
      labels: say of each prompt whether it is "safe" or "unsafe", which its kind does not.
      lookalikes: share of the safety prompts, contrast data aside, that are harmless.

    Returns:
      for each iteration its rows {id, prompt, kind, source}; with what was asked for, also `start`
      and `label`.
    """
    rng, starts = random.Random(f"search {seed}"), random.Random(f"starts {seed}")
    used = set(seen)
    # By iteration; later iterations use the last entry.
    jailbreaks = ((), families.SFT_FAMILIES + families.SEARCH_FAMILIES[:2], families.SEEN_FAMILIES)
    rows = []
    for iteration in range(iterations):
        names = (*families.OPEN, *jailbreaks[min(iteration, len(jailbreaks) - 1)])
        drawn = _fresh(rng, used, _halves(num_prompts), "search", names, contrasts, lookalikes)
        rows.append(
            [
                _search_prompt(f"it{iteration + 1}-{index}", kind, request, starts, forced, labels)
                for index, (kind, request) in enumerate(drawn)
            ]
        )
    return rows


def _search_prompt(
    id: str, kind: str, request: UserRequest, rng: random.Random, forced: float, labels: bool
) -> Prompt:
    label = ("unsafe" if request.hazardous else "safe") if labels else None
    if not forced or rng.random() >= forced:
        return Prompt(id, request.text, kind, request.family, label=label)
    begun = forced_starts.draw(request, "search", rng)
    return Prompt(id, begun.prompt, kind, begun.form, label=label, start=begun.start or None)


def _halves(count: int) -> dict[str, int]:
    return {"safety": count // 2, "helpfulness": count - count // 2}


def _fresh(
    rng: random.Random,
    used: set[str],
    counts: dict[str, int],
    split: Split,
    names: tuple[str, ...],
    contrasts: float,
    lookalikes: float,
) -> list[tuple[str, UserRequest]]:
    """Requests in random order, `counts[kind]` of each kind, with texts that are not in `used`.

    Their texts are added to `used`.
    """
    makers: dict[str, Callable[[], UserRequest]] = {
        "safety": lambda: _suspicious(rng, split, names, lookalikes),
        "helpfulness": lambda: _harmless(rng, split),
    }
    drawn = []
    for kind, count in counts.items():
        while count:
            if contrasts and rng.random() < contrasts:
                request = contrast.request(rng, split, hazardous=kind == "safety")
            else:
                request = makers[kind]()
            if request.text not in used:
                used.add(request.text)
                drawn.append((kind, request))
                count -= 1
    rng.shuffle(drawn)
    return drawn


def _suspicious(
    rng: random.Random, split: Split, names: tuple[str, ...], lookalikes: float
) -> UserRequest:
    """A safety prompt: a hazardous request, or a harmless one that looks like it.

    Of the harmless ones a fifth are questions about a hazardous item, the others for a recipe.
    """
    draw, questions = rng.random(), 0.2 * lookalikes
    if draw < questions:
        return user_requests.information(rng.choice(items(split, hazardous=True)), rng)
    opened = [name for name in names if name in families.OPEN]
    wrapped = [name for name in names if name not in families.OPEN]
    family = rng.choice(wrapped if wrapped and rng.random() < 0.6 else opened)
    return user_requests.make(
        rng.choice(items(split, hazardous=draw < questions + (1 - lookalikes))), family, rng
    )


def _harmless(rng: random.Random, split: Split) -> UserRequest:
    if rng.random() < 0.5:
        return user_requests.make(rng.choice(items(split, hazardous=False)), "plain", rng)
    return user_requests.chore(items(split), rng)


def evaluation_rows(split: Split, per_family: int, seed: int = 0) -> list[Row]:
    """The evaluation set of the "test" or the "development" split.

    Items and held-out families are those of the split. There are three hazardous groups (plain
    requests, jailbreak families seen in training, held-out families) and three harmless ones (plain
    tasks, look-alikes with frightening words or about a hazardous item, wrapped requests).

    Args:
      split: "test" or "development".
      per_family: number of hazardous requests per held-out family; other groups are in proportion.
      seed: for the sampling. By default the same for all runs, so that they are comparable.

    Returns:
      rows {id, prompt, kind, source, group, truth}; `truth` is only for `request_of` and the
      oracle.
    """
    rng = random.Random(f"evaluation {split} {seed}")
    heldout = families.HELDOUT_FAMILIES if split == "test" else families.DEVELOPMENT_FAMILIES
    hazards, harmless = _cycle(rng, items(split, True)), _cycle(rng, items(split, False))
    seen_count, wrapped_count = max(1, per_family // 3), max(1, per_family // 6)

    def drawn(
        group: str, make: Callable[[], UserRequest], count: int
    ) -> list[tuple[str, UserRequest]]:
        return [(group, make()) for _ in range(count)]

    def hazard(family: str) -> Callable[[], UserRequest]:
        return lambda: user_requests.make(next(hazards), family, rng)

    def benign(family: str) -> Callable[[], UserRequest]:
        return lambda: user_requests.make(next(harmless), family, rng)

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
        "harmless_lookalike", lambda: user_requests.information(next(hazards), rng), per_family // 2
    )
    rows += drawn("harmless_plain", benign("plain"), per_family)
    rows += drawn("harmless_plain", lambda: user_requests.chore(items(split), rng), per_family)
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
    """Endless shuffled passes over the items, so that all are used about equally often."""
    deck = list(pool)
    while True:
        rng.shuffle(deck)
        yield from deck


def _truth(request: UserRequest) -> Row:
    return {
        "task": request.task,
        "item": request.item and request.item.name,
        "answer": request.answer,
        "plainly": request.plainly,
        "risk": request.risk,
    }


def request_of(row: Row) -> UserRequest:
    """The request, with its ground truth, from a row of `evaluation_rows`."""
    truth = row["truth"]
    item = None if truth["item"] is None else by_name()[truth["item"]]
    return UserRequest(
        row["prompt"],
        truth["task"],
        row["source"],
        item,
        truth["plainly"],
        truth["risk"],
        truth["answer"],
    )
