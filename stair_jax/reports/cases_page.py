"""The page of `stair-jax cases`: how cases were chosen, the cases, and search trees."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from stair_jax.errors import UserError
from stair_jax.reports.asked_cases import AskedCases
from stair_jax.reports.case_pages import case_block, withheld_table
from stair_jax.reports.choosing import CHANGES, RULE, CasesSettings, ShownCase, choose
from stair_jax.reports.markup import inline, table
from stair_jax.reports.records import RunRecords
from stair_jax.reports.shown_cases import chosen_columns, joined_cases, read_columns
from stair_jax.reports.tree_outline import tree_block
from stair_jax.reports.trees import TREES_RULE, ChosenTrees, choose_trees

_HARMLESS = (
    "Only prompts that are known to be harmless are shown: those of sets of safe prompts and of "
    "exercises, rows that their file labels as safe, and requests of the pocket world that harm "
    "nobody, none of them under an attack. Of other cases only the id, the category and the "
    "verdicts are shown, and no trees of prompts for safety."
)


def cases_page(runs: Sequence[RunRecords], settings: CasesSettings, harmless: bool) -> str:
    """The page, in Markdown.

    Args:
      runs: of which evaluations and searches are read.
      settings: of the page.
      harmless: whether texts of prompts that are not known to be harmless are withheld.

    Raises:
      UserError: the runs have neither evaluations nor searches, or what is named is not there.
    """
    every, asked = read_columns(runs, settings.files)
    columns = chosen_columns(every, settings.models)
    cases = joined_cases(columns, asked, settings, harmless)
    trees = choose_trees(runs, settings.trees, harmless)
    if not every and not trees.total:
        shown = ", ".join(str(run.folder) for run in runs)
        raise UserError(f"{shown}: there is neither a finished evaluation nor a finished search")
    parts = ["# Cases", _sources(runs)]
    if harmless:
        parts.append(_HARMLESS)
    if every:
        open_cases = [case for case in cases if case.is_harmless or not harmless]
        withheld = [case for case in cases if harmless and not case.is_harmless]
        chosen = choose(open_cases, settings.number)
        parts += [
            "## How the cases were chosen",
            RULE,
            _counts(open_cases, chosen),
            _missing(asked),
        ]
        parts += _cases(chosen, list(columns), settings.length)
        parts += _withheld(withheld, list(columns), settings.number)
    if trees.total and settings.trees:
        parts += _trees(trees, settings, harmless)
    return "\n\n".join(filter(None, parts)) + "\n"


def _sources(runs: Sequence[RunRecords]) -> str:
    names = ", ".join(inline(run.name) for run in runs)
    return f"<p>Made by <code>stair-jax cases</code> of the records of {names}.</p>"


def _counts(cases: Sequence[ShownCase], chosen: Sequence[ShownCase]) -> str:
    """How many cases there are of each set and change, and how many of them are shown."""
    total = Counter((case.set_name, case.change) for case in cases)
    shown = Counter((case.set_name, case.change) for case in chosen)
    rows = [
        [
            inline(name),
            *(f"{shown[name, change]} of {total[name, change]}" for change in CHANGES),
        ]
        for name in dict.fromkeys(case.set_name for case in cases)
    ]
    return table(rows, ["set", *CHANGES])


def _missing(asked: Mapping[str, AskedCases]) -> str:
    lines = [
        f"<p>Prompts of {inline(name)} are not shown: {each.missing} (<code>--files</code>).</p>"
        for name, each in asked.items()
        if each.missing
    ]
    return "\n".join(lines)


def _cases(chosen: Sequence[ShownCase], columns: Sequence[str], length: int) -> list[str]:
    parts = []
    for number, case in enumerate(chosen, start=1):
        if number == 1 or case.change != chosen[number - 2].change:
            parts.append(f"## {case.change.capitalize()}")
        parts += [f"### Case {number}", case_block(case, columns, length)]
    return parts


def _withheld(cases: Sequence[ShownCase], columns: Sequence[str], wanted: int) -> list[str]:
    """Cases whose texts are withheld, chosen by the same rule."""
    if not cases or not wanted:
        return []
    chosen = choose(cases, wanted)
    head = f"{len(chosen)} of {len(cases)} cases that are not known to be harmless."
    return ["## Withheld", head, withheld_table(chosen, columns)]


def _trees(trees: ChosenTrees, settings: CasesSettings, harmless: bool) -> list[str]:
    withheld = f" {trees.withheld} of them are of prompts for safety." if harmless else ""
    head = f"{len(trees.shown)} of {trees.total} trees.{withheld} {TREES_RULE}"
    parts = ["## Search trees", head]
    for number, tree in enumerate(trees.shown, start=1):
        parts += [f"### Tree {number}", tree_block(tree, settings.length, settings.nodes)]
    return parts


def check_out(path: Path) -> None:
    """Raises a UserError where a page cannot be written, before anything is read."""
    if path.suffix.lower() not in (".md", ".markdown"):
        raise UserError(f"--out={path}: the page is Markdown: name a file that ends with .md")
    if path.is_dir():
        raise UserError(f"--out={path}: there is a folder of that name")
