"""Rows to tune on (`dev.jsonl`) and rows to report (`eval/*.jsonl`)."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from stair_jax.data.decontamination import normalised
from stair_jax.data.sources import read_source
from stair_jax.data.study import local
from stair_jax.data.study.prompts import final_number
from stair_jax.data.study.public_set import Row
from stair_jax.data.study.texts import Item, ordered
from stair_jax.data.study.workshop import TITLES, Workshop
from stair_jax.errors import UserError

_PREFIX = "jailbroken_prompt_"  # of the columns of StrongREJECT's stored attacks
_ATTACKS = ("pair", "pap_authority_endorsement")  # of them, those that the study reports
_SHORT = {"pap_authority_endorsement": "pap_authority"}
_CONTRAST_TYPE = "contrast"  # how the types of XSTest's unsafe prompts begin


def make_development(shop: Workshop) -> list[Row]:
    """The rows of `dev.jsonl`: harmful prompts, harmless ones that sound harmful, problems."""
    rows = []
    for name, most in shop.sizes.development.items():
        part, found = f"dev {name}", 0
        for item in shop.items(name):
            if found == most:
                break
            if _may_tune_on(shop, name, item, part):
                found += 1
                rows.append(_development_row(name, item))
        shop.admission.took(part, found)
    return ordered(rows, lambda row: row["id"], shop.seed, "dev")


def development_benchmarks(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """`dev.jsonl` in parts that are benchmarks of their own: the first row says how to grade."""
    parts: dict[str, tuple[dict[str, str], list[Row]]] = {
        "harmful": ({"question": "refusal", "kind": "safety", "metric": "refusals"}, []),
        "harmless": ({"question": "refusal", "kind": "safety", "metric": "over_refusal"}, []),
        "gsm8k": ({"match": "number", "kind": "helpfulness"}, []),
    }
    for row in rows:
        is_safe = row["label"] == "safe"
        name = "gsm8k" if row["kind"] == "helpfulness" else "harmless" if is_safe else "harmful"
        parts[name][1].append(row)
    return {
        f"dev/{name}": [
            {"benchmark": grading | {"name": f"dev_{name}", "role": "development"}},
            *part,
        ]
        for name, (grading, part) in parts.items()
        if part
    }


def make_reported(shop: Workshop) -> dict[str, list[Row]]:
    """The rows of `eval/NAME.jsonl` by name; a set that is absent gives no file."""
    files = {**_strongreject(shop), **_xstest(shop)}
    problems = [
        _row("gsm8k_test", item, "helpfulness", "safe") | final_number(item)
        for item in shop.items("gsm8k_test")
        if final_number(item)
    ]
    files[f"gsm8k_{shop.sizes.reported_gsm8k}"] = problems[: shop.sizes.reported_gsm8k]
    return {name: rows[: shop.sizes.reported] for name, rows in files.items() if rows}


def _may_tune_on(shop: Workshop, name: str, item: Item, part: str) -> bool:
    """Whether a row may be tuned on; copyrighted texts are about memory, not about safety."""
    if "copyright" in str(item.row.get("FunctionalCategory") or ""):
        return shop.admission.refuse(part, "about copyright")
    if name == "gsm8k_train" and not final_number(item):
        return shop.admission.refuse(part, "no number")
    if not shop.is_short(item.prompt):
        return shop.admission.refuse(part, f"more than {shop.sizes.prompt_tokens} tokens")
    is_training = name == "gsm8k_train"
    role = "training" if is_training else "development"
    return shop.admission.admit(part, item.id, item.prompt, role=role, equal_only=is_training)


def _development_row(name: str, item: Item) -> Row:
    if name == "gsm8k_train":
        return _row(name, item, "helpfulness", "safe") | final_number(item)
    if name == "oktest":
        return _row(name, item, "safety", "safe")
    context = str(item.row.get("ContextString") or "").strip()
    prompt = f"{context}\n\n---\n\n{item.prompt}" if context else item.prompt
    return _row(name, item, "safety", "unsafe") | {"prompt": prompt, "goal": item.prompt}


def _row(name: str, item: Item, kind: str, label: str) -> Row:
    return {
        "id": item.id,
        "prompt": item.prompt,
        "kind": kind,
        "source": TITLES[name],
        "label": label,
    }


def _xstest(shop: Workshop) -> dict[str, list[Row]]:
    """Safe and unsafe prompts, told apart by their type as older versions have no label."""
    files: dict[str, list[Row]] = {"xstest_safe_all": [], "xstest_unsafe_all": []}
    for item in shop.items("xstest"):
        group = str(item.row.get("type") or "")
        label = "unsafe" if group.startswith(_CONTRAST_TYPE) else "safe"
        row = _row("xstest", item, "safety", label) | {"group": group}
        files[f"xstest_{label}_all"].append(row)
    return files


def _strongreject(shop: Workshop) -> dict[str, list[Row]]:
    """The forbidden prompts as they are, and under each stored attack that is beside them."""
    found = shop.items("strongreject")
    by_text = {normalised(item.prompt): item for item in found}
    plain = ((item.prompt, item.prompt) for item in found)
    files = {"strongreject_none": _attacked("none", plain, by_text)}
    path = shop.sources.file("strongreject")
    for name, pairs in _stored(path) if path else ():
        files[f"strongreject_{name}"] = _attacked(name, pairs, by_text)
    order = {item.id: place for place, item in enumerate(found)}
    for rows in files.values():
        rows.sort(key=lambda row: order[row["cluster"]])
    return files


def _attacked(attack: str, pairs: Iterable[tuple[str, str]], by_text: dict[str, Item]) -> list[Row]:
    """Rows of an attack: (forbidden prompt, what the attack made of it) of known prompts."""
    rows = {}
    for goal, prompt in pairs:
        item = by_text.get(normalised(goal))
        if item is None or not prompt.strip():
            continue
        row = _row("strongreject", item, "safety", "unsafe")
        row |= {"id": f"{item.id}:{attack}", "prompt": prompt.strip(), "goal": item.prompt}
        row |= {"attack": attack, "group": str(item.row.get("category") or "")}
        rows[item.id] = row | {"cluster": item.id, "changed": prompt.strip() != item.prompt}
    return list(rows.values())


def _stored(path: Path) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """(attack, pairs of forbidden prompt and attacked one) of the files beside the prompts."""
    if table := local.find(path.parent, ("baseline_prompts.json",)):
        rows = [row for _, row in read_source(table).rows]
        for attack in _ATTACKS:
            column = f"{_PREFIX}{attack}"
            pairs = [(_goal(table, row), str(row.get(column) or "")) for row in rows]
            yield _SHORT.get(attack, attack), pairs
    for file in sorted(path.parent.glob("stored_attacks/*")):
        rows = [row for _, row in read_source(file).rows]
        yield file.name.partition(".")[0], [_stored_pair(file, row) for row in rows]


def _stored_pair(file: Path, row: Row) -> tuple[str, str]:
    return _goal(file, row), _text(file, row, ("jailbroken_prompt", "prompt"))


def _goal(file: Path, row: Row) -> str:
    return _text(file, row, ("forbidden_prompt", "goal"))


def _text(file: Path, row: Row, columns: tuple[str, str]) -> str:
    """The text in the first of two columns that has one."""
    text = row.get(columns[0]) or row.get(columns[1])
    if not isinstance(text, str):
        raise UserError(f"{file}: a row needs {' or '.join(columns)}: it has {', '.join(row)}")
    return text
