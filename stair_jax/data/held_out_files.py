"""The prompts of files that nothing may be trained on, whatever their columns are called."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stair_jax.data.sources import check_source, ending, is_saved, read_source
from stair_jax.data.tables import ARROW, PARQUET
from stair_jax.data.text_files import read_text
from stair_jax.errors import UserError
from stair_jax.text.plain import valid_unicode

# Names of columns that hold what a model is asked, in lower case.
_COLUMNS = (
    *("prompt", "goal", "question", "instruction", "behavior", "behaviour", "problem", "query"),
    *("forbidden_prompt", "final_query", "jailbreak_query", "redteam_query", "jailbroken_prompt"),
    *("messages", "conversations", "input"),
)
_GOALS = ("goal", "redteam_query")
_ENDINGS = (".json", ".jsonl", ".csv", ".tsv", PARQUET, *ARROW, ".txt")
_ASKING = ("user", "human")


@dataclass
class HeldOutFiles:
    """Prompts of evaluation files.

    Attributes:
      texts: (name of the file, prompt) of all of them, in the order of the files.
      counts: how many prompts each file gave, by its name.
      without: files of a folder that gave none, with the reason.
    """

    texts: list[tuple[str, str]] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    without: dict[str, str] = field(default_factory=dict)


def read_held_out(paths: Sequence[str], own: Sequence[str] = ()) -> HeldOutFiles:
    """Reads the prompts of files, of the data files in folders, and of data sets of the hub.

    Args:
      paths: of what is held out.
      own: sources that are compared with them: in a folder, these are passed over.

    Raises:
      UserError: a path does not exist; or a file that is named cannot be read or has no prompts.
    """
    found = HeldOutFiles()
    skipped = {Path(path).expanduser().resolve() for path in own}
    for path in paths:
        folder = Path(path).expanduser()
        if not folder.is_dir() or is_saved(folder):
            check_source(path)
            _add(found, path, path)
            if path in found.without:
                raise UserError(f"--against={path}: {found.without[path]}")
            continue
        files = [file for file in sorted(folder.rglob("*")) if _is_data(file)]
        for file in files:
            if file.resolve() not in skipped:
                _add(found, file.relative_to(folder).as_posix(), file)
        if not files:
            raise UserError(f"--against={path}: the folder has no file of data in it")
    return found


def prompts_of(row: Mapping[str, Any]) -> Iterator[str]:
    """All that a model is asked in a row: the prompt, and the goal inside of it; turns of users."""
    columns = {name.lower(): value for name, value in row.items()}
    joined = _with_input(columns)
    for name in _COLUMNS:
        value = joined if name == "instruction" and joined else columns.get(name)
        if isinstance(value, str) and value.strip() and not (name == "input" and joined):
            yield value
        elif isinstance(value, list):
            yield from _asked(value)
    for name, value in columns.items():
        if name.startswith("jailbroken_prompt_") and isinstance(value, str) and value.strip():
            yield value


def goal_of(row: Mapping[str, Any]) -> str:
    """What a prompt in a wrapper or an attack is about; "": the row does not say."""
    return next((row[name] for name in _GOALS if isinstance(row.get(name), str)), "")


def _with_input(columns: Mapping[str, Any]) -> str:
    """Instruction and input of Alpaca, one below the other; "": there is no instruction."""
    text, given = columns.get("instruction"), columns.get("input")
    if not isinstance(text, str):
        return ""
    return f"{text}\n\n{given}" if isinstance(given, str) and given.strip() else text


def _asked(messages: Sequence[Any]) -> Iterator[str]:
    for message in messages:
        if isinstance(message, Mapping) and message.get("role", message.get("from")) in _ASKING:
            text = message.get("content", message.get("value"))
            if isinstance(text, str) and text.strip():
                yield text


def _add(found: HeldOutFiles, name: str, path: str | Path) -> None:
    try:
        texts = [text for row in _rows(path) for text in prompts_of(row)]
    except UserError as error:
        found.without[name] = str(error)
        return
    if not texts:
        found.without[name] = "no column of it is known to hold prompts"
        return
    found.counts[name] = found.counts.get(name, 0) + len(texts)  # two folders may have a name
    found.texts += [(name, text) for text in texts]


def _rows(path: str | Path) -> Iterator[Mapping[str, Any]]:
    """The rows of a source; of a text file, a row each line."""
    if ending(Path(path)) == ".txt":
        lines = read_text(Path(path)).removeprefix("\ufeff").split("\n")
        yield from ({"prompt": valid_unicode(line)} for line in lines)
        return
    found = read_source(path)
    if not found.rows and found.unreadable:
        place, reason = found.unreadable[0]
        raise UserError(f"{place}: {reason}")
    yield from (row for _, row in found.rows)


def _is_data(path: Path) -> bool:
    return path.is_file() and ending(path) in _ENDINGS
