"""The data card of a build: `README.md`."""

from collections.abc import Mapping
from typing import Any

from stair_jax.data.study import harmless_words

_RESTRICTED = ("NC", "not stated")


def format_card(record: Mapping[str, Any]) -> str:
    """The card in Markdown, from what `data.json` says."""
    return "\n\n".join(
        (
            "# Data of a study of safety alignment",
            "Made by `stair-jax data study` out of public data sets, and prompts that come with "
            "the package; `data.json` has the sources "
            "with their revisions, hashes and licences, the rules, and what was left out and why; "
            "`left_out.jsonl` has each prompt that repeats one of a held-out set.",
            _files(record),
            _rules(record),
            _sources(record),
            _absent(record),
            _use(record),
        )
    )


def _files(record: Mapping[str, Any]) -> str:
    lines = ["## Files", "", "| file | rows |", "| --- | --- |"]
    lines += [f"| `{name}.jsonl` | {count} |" for name, count in record["rows"].items()]
    lines += ["", "`dev/` has the rows of `dev.jsonl` as benchmarks for `stair-jax evaluate`."]
    if any(path.startswith("bench/") for path in record["files"]):
        lines += ["`bench/` has the benchmarks' own files: `stair-jax evaluate --data=bench`."]
    return "\n".join(lines)


def _rules(record: Mapping[str, Any]) -> str:
    limits, sizes = record["thresholds"], record["sizes"]
    return (
        "## Rules\n\n"
        f"- Orders are by sha256 of seed {record['seed']} and id; ids are hashes of the prompts.\n"
        "- No prompt, by its normalised text, is in two of the files to train on, to tune on and "
        "to report; in a wrapper, its own text counts.\n"
        "- A training prompt is left out if it equals a prompt of a development or reported set, "
        f"if the Jaccard similarity of their content words is {limits['jaccard']:g} or more (with "
        f"{limits['min_words']} words at least), or if it has {limits['containment']:.0%} of the "
        f"content words of one that has {limits['min_contained']} at least. Problems of GSM8K's "
        "training split are compared by equality alone: it is the official split.\n"
        "- Development prompts are compared with the reported sets in the same way.\n"
        f'- Prompts of the source "{harmless_words.SOURCE}" were written for the package without '
        "looking at any set to tune on or to report, and are compared with all of these.\n"
        f"- SFT rows have at most {sizes['max_tokens']} tokens ({record['tokens']}), those of "
        f"`sft_contrast.jsonl` {sizes['contrast_tokens']}, without the chat template; each "
        "structured answer passes the strict parser.\n"
        "- Jailbreak wrappers are in `prompts2.jsonl` and `prompts3.jsonl` alone, around harmless "
        "prompts too; `goal` is the prompt in them. They are none of those that evaluation "
        "reports, but base64, rot13 and leetspeak are the same codes: say so beside figures under "
        "these attacks."
    )


def _sources(record: Mapping[str, Any]) -> str:
    lines = ["## Sources", "", "| set | role | licence | rows | revision | sha256 | page |"]
    lines.append("| --- | --- | --- | --- | --- | --- | --- |")
    for name, one in record["sources"].items():
        is_ours = one["place"] == harmless_words.PLACE
        origin = harmless_words.PLACE if is_ours else one["revision"] or "local copy"
        cells = (one["role"], one["licence"], one["rows"], origin)
        shown = " | ".join(map(str, cells))
        lines.append(f"| {name} | {shown} | `{one['sha256'][:12]}` | {one['page']} |")
    return "\n".join(lines)


def _absent(record: Mapping[str, Any]) -> str:
    if not record["absent"]:
        return "All sets were there."
    names = ", ".join(record["absent"])
    return f"Absent, and so neither used nor compared with: {names}."


def _use(record: Mapping[str, Any]) -> str:
    restricted = [
        name
        for name, one in record["sources"].items()
        if any(mark in one["licence"] for mark in _RESTRICTED)
    ]
    limits = (
        f" These forbid commercial use or state no licence: {', '.join(restricted)}."
        if restricted
        else ""
    )
    return (
        "## Use\n\n"
        "Train on `sft*.jsonl` and `prompts*.jsonl`; choose settings on `dev.jsonl` alone; report "
        "`eval/` and `bench/`, and look at them once a table. `judge_cases.jsonl` and "
        "`judge_labels/` measure judges: their XSTest prompts are reported ones, so never train "
        "on them.\n\n"
        "The rows hold requests for harm, offensive text, and answers of other models. Each row "
        f"keeps the licence of its set, which `source` names.{limits}\n"
    )
