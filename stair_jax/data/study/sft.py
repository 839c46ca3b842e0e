"""Examples for SFT with reasoning blocks, and the same ones with final answers alone."""

from collections.abc import Sequence

from stair_jax.data.study import reasoning
from stair_jax.data.study.public_set import Row
from stair_jax.data.study.reasoning import Block
from stair_jax.data.study.texts import Item, ordered, sentences
from stair_jax.data.study.workshop import CONTRAST, TITLES, Workshop, answer_of
from stair_jax.text import steps

# Sets that give rows to other files too: SFT takes at most half of what there is.
_SHARED = ("gsm8k_train", "alpaca_gpt4", "safety_tuned_llamas")
Parts = tuple[list[Block], str]  # reasoning blocks and final answer


def make_sft(shop: Workshop) -> list[Row]:
    """The rows of `sft.jsonl`: answers for safety and for helpfulness, mixed."""
    rows = [
        row
        for kind, wanted in (("safety", shop.sizes.safe), ("helpfulness", shop.sizes.helpful))
        for name, most in wanted.items()
        for row in _examples(shop, name, kind, most)
    ]
    return ordered(rows, lambda row: row["id"], shop.seed, "sft")


def make_contrast(shop: Workshop) -> list[Row]:
    """The rows of `sft_contrast.jsonl`: answers to harmless prompts that sound harmful.

    Prompts with answers that are too long stay for the searches.
    """
    found: list[Row] = []
    items = shop.contrast()
    wanted = min(shop.sizes.contrast, len(items) // 2)
    for item in items:
        if len(found) == wanted:
            break
        answer = str(item.row.get("chosen") or item.row.get("response") or "").strip()
        if shop.sizes.contrast_opening:
            answer = _opening(answer)
        topic = str(item.row.get("subcategory") or "").strip()
        blocks = reasoning.contrast_blocks(item.prompt, topic, answer)
        most = shop.sizes.contrast_tokens
        row = _row(shop, item, (blocks, answer), "helpfulness", CONTRAST, most)
        if row and shop.admission.admit("sft_contrast", item.id, item.prompt):
            shop.admission.took("sft_contrast")
            found.append(row)
    return found


def without_reasoning(rows: Sequence[Row]) -> list[Row]:
    """The rows of `sft_direct.jsonl`: those of `sft.jsonl` with their final answers alone."""
    return [row | {"answer": steps.parse(row["answer"]).final} for row in rows]


def _opening(answer: str) -> str:
    """The first sentence of an answer; "": it only introduces what comes behind it."""
    first = sentences(answer.partition("\n")[0])[:1]
    return next((text for text in first if text.endswith((".", "!"))), "")


def _examples(shop: Workshop, name: str, kind: str, most: int) -> list[Row]:
    part = f"sft {name}"
    found: list[Row] = []
    items = shop.items(name, with_input=True)
    wanted = min(most, len(items) // 2) if name in _SHARED else most
    for item in items:
        if len(found) == wanted:
            break
        parts = _parts(name, item)
        if parts is None:
            shop.admission.refuse(part, _WHY_NONE[name])
            continue
        row = _row(shop, item, parts, kind, TITLES[name], shop.sizes.max_tokens)
        if row is None:
            shop.admission.refuse(part, f"more than {shop.sizes.max_tokens} tokens, or a tag in it")
        elif shop.admission.admit(part, item.id, item.prompt, equal_only=name == "gsm8k_train"):
            shop.admission.took(part)
            found.append(row)
    return found


_WHY_NONE = {
    "star1": "no trace, or no answer",
    "safety_tuned_llamas": "no answer",
    "gsm8k_train": f"more than {reasoning.MOST_CALCULATIONS} lines, or no number",
    **dict.fromkeys(("alpaca", "alpaca_gpt4", "dolly"), "no answer, or a word of risk"),
}


def _parts(name: str, item: Item) -> Parts | None:
    """Reasoning and final answer of a row; None: it is left out."""
    row = item.row
    if name == "star1":
        return reasoning.trace_blocks(str(row.get("response") or ""))
    if name == "gsm8k_train":
        return reasoning.calculation_blocks(item.prompt, str(row.get("answer") or ""))
    answer = answer_of(row)
    if not answer:
        return None
    if name == "safety_tuned_llamas":
        return reasoning.careful_blocks(item.prompt), answer
    if reasoning.RISKY.search(item.prompt) or reasoning.RISKY.search(answer):
        return None
    return reasoning.helpful_blocks(str(row.get("instruction") or ""), row, answer), answer


def _row(
    shop: Workshop, item: Item, parts: Parts, kind: str, source: str, max_tokens: int
) -> Row | None:
    """A row that the strict parser takes and that is not too long; None: there is none.

    Of a trace, the last paragraphs between the first and the last one are left out, until the row
    is short enough.
    """
    blocks, final = parts
    if not final or any(steps.TAG_PATTERN.search(text) for pair in blocks for text in pair):
        return None
    if steps.TAG_PATTERN.search(final):
        return None
    while True:
        answer = steps.format_answer(reasoning.joined(blocks), final)
        if shop.count(item.prompt, answer) <= max_tokens:
            break
        checks = [number for number, (title, _) in enumerate(blocks) if title == reasoning.RISK]
        if len(checks) < 2:
            return None
        blocks = [block for number, block in enumerate(blocks) if number != checks[-1]]
    if not steps.is_well_formed(answer):
        return None
    return {"id": item.id, "prompt": item.prompt, "answer": answer, "kind": kind, "source": source}
