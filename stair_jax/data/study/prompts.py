"""Prompts of the searches: three files, disjoint, harmful and harmless, plain and wrapped."""

from collections.abc import Iterable, Iterator, Mapping

from stair_jax.data.study import harmless_words, reasoning
from stair_jax.data.study.public_set import Row
from stair_jax.data.study.texts import Item, ordered
from stair_jax.data.study.workshop import CONTRAST, TITLES, Workshop
from stair_jax.data.study.wrappers import BY_ITERATION, WRAPPERS

FILES = tuple(BY_ITERATION)
_HARMFUL = ("advbench", "refusal_direction", "safety_tuned_llamas")
_LEAST_WORDS = 4  # of a harmless prompt: of fewer, nobody knows what is asked


def make_prompts(shop: Workshop) -> dict[int, list[Row]]:
    """The rows of `prompts1.jsonl` to `prompts3.jsonl`, by their number."""
    harmful = _shared_out(shop, _HARMFUL, shop.sizes.harmful)
    borderline = {
        CONTRAST: _borderline(shop, CONTRAST, shop.contrast(), shop.sizes.borderline),
        harmless_words.SOURCE: _borderline(
            shop,
            harmless_words.SOURCE,
            harmless_words.harmless_words(shop.seed),
            shop.sizes.harmless_words,
        ),
    }
    harmless = {
        name: _take(shop, _plain(shop, name), f"prompts {name}", most * len(FILES))
        for name, most in shop.sizes.harmless.items()
    }
    files = {}
    for number in FILES:
        rows = _wrapped_share(shop, number, harmful[number])
        rows += [
            _row(item, "helpfulness", source)
            for source, found in borderline.items()
            for item in found[number - 1 :: len(FILES)]
        ]
        rows += _harmless(shop, number, harmless)
        files[number] = ordered(rows, lambda row: row["id"], shop.seed, "prompts", number)
    return files


def final_number(item: Item) -> dict[str, str]:
    """The column `reference` of a problem of GSM8K; none for others."""
    answer = item.row.get("answer")
    number = reasoning.solution(answer) if isinstance(answer, str) else None
    return {} if number is None else {"reference": number}


def _shared_out(
    shop: Workshop, names: Iterable[str], most: int
) -> dict[int, list[tuple[str, Item]]]:
    """Harmful prompts for each file: of each set as many for any, until there are enough."""
    files: dict[int, list[tuple[str, Item]]] = {number: [] for number in FILES}
    for name in names:
        room = sum(most - len(rows) for rows in files.values())
        found = _take(shop, _short(shop, name), f"prompts {name}", room)
        for item in found:
            min(files.values(), key=len).append((name, item))
    return files


def _borderline(shop: Workshop, source: str, items: Iterable[Item], most: int) -> list[Item]:
    """Harmless prompts that sound harmful, for all files together."""
    short = (item for item in items if shop.is_short(item.prompt))
    return _take(shop, short, f"prompts {source}", most * len(FILES))


def _short(shop: Workshop, name: str) -> Iterator[Item]:
    """Prompts of a set that are short enough, and stand alone."""
    for item in shop.items(name):
        if shop.is_short(item.prompt) and not str(item.row.get("input") or "").strip():
            yield item


def _plain(shop: Workshop, name: str) -> Iterator[Item]:
    """Harmless prompts of a set."""
    for item in _short(shop, name):
        is_safe = name == "gsm8k_train" or not reasoning.RISKY.search(item.prompt)
        if is_safe and len(item.prompt.split()) >= _LEAST_WORDS:
            yield item


def _take(shop: Workshop, items: Iterable[Item], part: str, most: int) -> list[Item]:
    """The first prompts that are admitted."""
    found: list[Item] = []
    for item in items:
        if len(found) == most:
            break
        if shop.admission.admit(part, item.id, item.prompt, equal_only="gsm8k" in part):
            found.append(item)
    shop.admission.took(part, len(found))
    return found


def _wrapped_share(shop: Workshop, number: int, items: list[tuple[str, Item]]) -> list[Row]:
    """Harmful prompts, of which a share is in wrappers from the second file on."""
    families = BY_ITERATION[number]
    mixed = ordered(items, lambda pair: pair[1].id, shop.seed, "wrapped", number)
    count = round(len(mixed) * shop.sizes.wrapped) if families else 0
    return [
        _wrapped(item, families[place % len(families)], "safety", TITLES[name])
        if place < count
        else _row(item, "safety", TITLES[name])
        for place, (name, item) in enumerate(mixed)
    ]


def _harmless(shop: Workshop, number: int, items: Mapping[str, list[Item]]) -> list[Row]:
    """Harmless prompts; of the first set, some are in the wrappers that harmful ones are in."""
    families, rows = BY_ITERATION[number], []
    count = shop.sizes.wrapped_harmless if families else 0
    for name, found in items.items():
        for place, item in enumerate(found[number - 1 :: len(FILES)]):
            if place < count:
                family = families[place % len(families)]
                row = _wrapped(item, family, "helpfulness", TITLES[name])
            else:
                row = _row(item, "helpfulness", TITLES[name])
            rows.append(row | final_number(item))
        count = 0 if found else count
    return rows


def _row(item: Item, kind: str, source: str) -> Row:
    return {"id": item.id, "prompt": item.prompt, "kind": kind, "source": source}


def _wrapped(item: Item, family: str, kind: str, source: str) -> Row:
    return {
        "id": f"{item.id}+{family}",
        "prompt": WRAPPERS[family](item.prompt),
        "kind": kind,
        "source": f"{source}+{family}",
        "goal": item.prompt,
    }
