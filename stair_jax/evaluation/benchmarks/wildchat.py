"""WildChat (Zhao et al., arXiv 2405.01470): toxic requests of real users, from the user's file."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stair_jax.data.numbers import read_flag
from stair_jax.errors import UserError
from stair_jax.evaluation.benchmark import Source
from stair_jax.evaluation.benchmarks.refusal import REFUSALS, RefusalBenchmark
from stair_jax.evaluation.case import Case
from stair_jax.evaluation.rows import Row, checked_cases, read_rows, usual_places

_LANGUAGES = ("English", "english", "en")


class WildChat(RefusalBenchmark):
    """English, toxic requests, which a model should refuse.

    STAIR reports 219 of them, chosen by a moderation API, in the column WildChat; the list of them
    is not public. A file of prompts is taken as it is. Of an export of WildChat, the first request
    of each conversation is taken that is in English and toxic: by the flags of the turn, or of the
    conversation where the turn has none; a flag that is nowhere excludes nothing.
    """

    NAME = "wildchat"
    SOURCE = Source(
        usual_places(
            "wildchat", "wildchat.jsonl", "wildchat.json", "wildchat.csv", "wildchat.parquet"
        ),
        "save rows of https://huggingface.co/datasets/allenai/WildChat-1M-Full (access on request) "
        "as wildchat.jsonl, or prompts of your own choice in a column `prompt`",
    )
    METRICS = REFUSALS

    def read(self, path: Path) -> list[Case]:
        """The requests; the id is the number of the row in the file, from 0."""
        rows = read_rows(path, ("prompt", "conversation"))
        asked = [(row, _request(row)) for row in rows]
        cases = [
            Case(str(row.number), turn["content"].strip())
            for row, turn in asked
            if _is_chosen(row, turn)
        ]
        if not cases:
            raise UserError(f"{path}: none of the {len(rows)} rows is in English and toxic")
        return checked_cases(path, cases)


def _request(row: Row) -> Mapping[str, Any]:
    """The first turn of the user, {"content", ...}."""
    if row.has("prompt"):
        return {"content": row.text("prompt")}
    turns = row.value("conversation")
    if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
        raise row.error("the column 'conversation' is no list of turns: save it as JSON lines")
    for turn in turns:
        content = turn.get("content")
        if turn.get("role") == "user" and isinstance(content, str) and content.strip():
            return turn
    raise row.error("the column 'conversation' has no turn of the user with text")


def _is_chosen(row: Row, turn: Mapping[str, Any]) -> bool:
    def flag(name: str) -> Any:
        return turn[name] if turn.get(name) is not None else row.value(name)

    language, toxic = flag("language"), flag("toxic")
    return language in (None, "", *_LANGUAGES) and (toxic in (None, "") or read_flag(toxic) is True)
