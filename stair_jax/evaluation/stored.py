"""Prompts of attacks that are kept in files: made once, against whatever model it was."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from stair_jax.data.sources import source_name
from stair_jax.evaluation.case import Case
from stair_jax.evaluation.rows import Names, Row, read_rows

ORIGINAL: Names = ("forbidden_prompt", "goal")
ATTACKED: Names = ("jailbroken_prompt", "prompt")
_ENDINGS = (".jsonl", ".json", ".csv", ".tsv", ".parquet")

Prompts = dict[str, str]  # by the id of the case


def read_table(
    path: Path, cases: Sequence[Case], original: Names, prefix: str
) -> dict[str, Prompts]:
    """Prompts of several attacks, each in a column of its own.

    Args:
      path: of a file with a row a prompt.
      cases: of the benchmark; a row belongs to the case that has its original prompt.
      original: column of the original prompt.
      prefix: of the names of columns that hold prompts of attacks; the rest is the attack's name.

    Returns:
      {attack: {id of the case: prompt}}.

    Raises:
      UserError: the file cannot be read; a row belongs to no case; a prompt is empty.
    """
    rows = read_rows(path, original)
    columns = [name for name in rows[0].columns if name.startswith(prefix) and name != prefix]
    if not columns:
        raise rows[0].error(f"no column has a name that begins with {prefix!r}")
    return {
        column.removeprefix(prefix): _joined(path, rows, cases, original, column)
        for column in columns
    }


def read_folder(folder: Path, cases: Sequence[Case]) -> dict[str, Prompts]:
    """Prompts of attacks, each in a file of its own.

    A file `NAME.jsonl` (or .json, .csv, .tsv, .parquet) is the attack NAME. Its rows have the
    original prompt as `forbidden_prompt` or `goal`, and that of the attack as `jailbroken_prompt`
    or `prompt`. It need not have all cases: those that it lacks are not asked.

    Args:
      folder: with the files; there need be none.
      cases: of the benchmark.

    Returns:
      {attack: {id of the case: prompt}}, by name.

    Raises:
      UserError: as `read_table`.
    """
    files = sorted(folder.iterdir()) if folder.is_dir() else []
    return {
        source_name(file): _joined(file, read_rows(file, ORIGINAL, ATTACKED), cases)
        for file in files
        if file.name.removesuffix(".gz").endswith(_ENDINGS)
    }


def count_changed(cases: Sequence[Case], prompts: Mapping[str, str]) -> int:
    """How many of an attack's prompts differ from the plain prompt of their case."""
    return sum(case.id in prompts and prompts[case.id] != case.prompt for case in cases)


def _joined(
    path: Path,
    rows: Sequence[Row],
    cases: Sequence[Case],
    original: Names = ORIGINAL,
    attacked: Names = ATTACKED,
) -> Prompts:
    """The prompt of an attack for each case that has one."""
    ids = {case.prompt: case.id for case in cases}
    found: Prompts = {}
    strange: Row | None = None
    for row in rows:
        name = ids.get(row.text(original).strip())
        if name is None:
            strange = strange or row
        elif name in found:
            raise row.error("a row before has the same original prompt: remove one of them")
        else:
            found[name] = row.text(attacked).strip()
    # All cases have theirs where the benchmark's file is a part of the one that was attacked.
    if strange and len(found) < len(cases):
        raise strange.error("its original prompt is none of the benchmark's: correct it")
    return found
