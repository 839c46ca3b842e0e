"""Search trees from outside, ours or those of the paper's released code, as an artifact."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from stair_jax.data.records import Prompt
from stair_jax.data.schema import Kinds
from stair_jax.errors import UserError
from stair_jax.search.released_files import from_released, question_of, read_tree_file
from stair_jax.search.tree_records import TreeRecord, write_trees
from stair_jax.storage import fingerprint

SOURCE = "STAIR-trees"  # of a tree whose prompt is not known
_ID_LENGTH = 16  # hexadecimal digits of a hash


def check_tree_files(sources: Sequence[str]) -> None:
    """Raises a UserError unless each source is a file: the hub has no data sets of trees."""
    for source in sources:
        if not Path(source).expanduser().is_file():
            raise UserError(f"files.trees: there is no file {source}")


def copy_trees(
    target: Path, sources: Sequence[str], prompts: Sequence[Prompt], kinds: Mapping[str, str]
) -> tuple[int, int]:
    """Writes the trees of all sources as `trees.jsonl.gz`, in their order.

    Args:
      target: the file to write.
      sources: files, see `read_tree_file`.
      prompts: where id, kind and source of a released tree come from, by its question.
      kinds: of the trees whose prompt is not among these: that of "STAIR-trees", or of "*".

    Returns:
      (trees written, trees left out because the same tree came before).

    Raises:
      UserError: a tree cannot be read, its kind is unknown, or there is none.
    """
    known = {prompt.prompt: prompt for prompt in reversed(prompts)}  # the first of equal ones
    written: dict[str, int] = {}
    seen: set[str] = set()
    repeated = 0

    def records() -> Iterator[TreeRecord]:
        nonlocal repeated
        for source in sources:
            for data, where in read_tree_file(Path(source).expanduser()):
                content = fingerprint(data)
                if content in seen:
                    repeated += 1
                    continue
                seen.add(content)
                record = _read(data, where, known, kinds)
                number = written[record.id] = written.get(record.id, 0) + 1
                # Pairs are named after their trees: two trees of one prompt need two names.
                yield record if number == 1 else _renamed(record, number)

    write_trees(target, records())
    if not written:
        raise UserError(f"{', '.join(sources)}: there is no tree in it")
    return sum(written.values()), repeated


def _read(
    data: Mapping[str, Any], where: str, known: Mapping[str, Prompt], kinds: Mapping[str, str]
) -> TreeRecord:
    if "nodes" in data:
        return TreeRecord.from_dict(data, where)
    question = question_of(data, where)
    prompt = known.get(question)
    if prompt is None:
        unknown: set[str] = set()
        kind = Kinds(kinds, unknown)(SOURCE)
        if unknown:
            raise UserError(
                f"{where}: the kind of its prompt {question[:60]!r} is unknown: name the prompts "
                'of the trees in files.prompts, or set files.kinds, e.g. {"*": "safety"}'
            )
        prompt = Prompt(f"{SOURCE}:{fingerprint(question)[:_ID_LENGTH]}", question, kind, SOURCE)
    return from_released(data, prompt, where)


def _renamed(record: TreeRecord, number: int) -> TreeRecord:
    return replace(record, id=f"{record.id}#{number}")
