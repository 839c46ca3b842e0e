"""Cases of several runs, joined: each with the answers of the columns that were asked for."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from stair_jax.errors import UserError, did_you_mean
from stair_jax.evaluation.benchmark import text_of
from stair_jax.evaluation.case import Case
from stair_jax.reports.answers import Evaluated, GradedAnswer, Place, read_evaluation
from stair_jax.reports.asked_cases import AskedCases
from stair_jax.reports.choosing import CasesSettings, ShownCase, change_of, set_name
from stair_jax.reports.records import RunRecords

Answers = Mapping[Place, GradedAnswer]


def read_columns(
    runs: Sequence[RunRecords], files: str = ""
) -> tuple[dict[str, Answers], dict[str, AskedCases]]:
    """The rows of the tables of all runs, and their benchmarks.

    A row that several runs have is named with its run, as RUN/ROW.

    Args:
      runs: of which each evaluation is read.
      files: as of `asked_cases`.

    Raises:
      UserError: a file is missing or damaged; or two runs have the same name.
    """
    found: dict[tuple[str, str], dict[Place, GradedAnswer]] = {}
    asked: dict[str, AskedCases] = {}
    _check_names(runs)
    for run in runs:
        for stage in run.of_kind("evaluate"):
            evaluated = read_evaluation(stage, files)
            _add_rows(found, run.name, evaluated)
            for name, one in evaluated.asked.items():
                if name not in asked or not asked[name].cases:
                    asked[name] = one
    times = Counter(row for _, row in found)
    named: dict[str, Answers] = {
        (row if times[row] == 1 else f"{run}/{row}"): answers
        for (run, row), answers in found.items()
    }
    return named, asked


def _check_names(runs: Sequence[RunRecords]) -> None:
    times = Counter(run.name for run in runs)
    if twice := next((name for name, count in times.items() if count > 1), None):
        raise UserError(f"two of the runs are named {twice!r}: rename one, or name it once")


def _add_rows(
    found: dict[tuple[str, str], dict[Place, GradedAnswer]], run: str, evaluated: Evaluated
) -> None:
    for row, answers in evaluated.rows.items():
        own = found.setdefault((run, row), {})
        for place, answer in answers.items():
            own.setdefault(place, answer)


def chosen_columns(columns: Mapping[str, Answers], models: Sequence[str]) -> dict[str, Answers]:
    """The columns that are named, in their order; all, where none is.

    Raises:
      UserError: one is not there.
    """
    for name in models:
        if name not in columns:
            raise UserError(f"--models: there is no {name!r}: {did_you_mean(name, columns)}")
    return {name: columns[name] for name in models or columns}


def joined_cases(
    columns: Mapping[str, Answers],
    asked: Mapping[str, AskedCases],
    settings: CasesSettings,
    harmless: bool,
) -> list[ShownCase]:
    """All cases that a page may show, in the order of the tables.

    Args:
      columns: of the page.
      asked: the benchmarks.
      settings: of the page.
      harmless: whether prompts under an attack count as harmful.

    Raises:
      UserError: a benchmark is named that no run has.
    """
    places = dict.fromkeys(place for answers in columns.values() for place in answers)
    names = dict.fromkeys(map(set_name, places))
    for name in settings.benchmarks:
        if name not in names:
            raise UserError(f"--benchmarks: there is no {name!r}: {did_you_mean(name, names)}")
    wanted = settings.benchmarks or tuple(names)
    return [
        _joined(place, columns, asked.get(place.benchmark), harmless)
        for place in places
        if set_name(place) in wanted
    ]


def _joined(
    place: Place, columns: Mapping[str, Answers], asked: AskedCases | None, harmless: bool
) -> ShownCase:
    case = asked.cases.get(place.case) if asked else None
    replies = {name: found[place] for name, found in columns.items() if place in found}
    names = list(columns)
    is_plain = place.attack == "none" or not harmless
    return ShownCase(
        place=place,
        prompt=tuple(_turns(case)),
        group=case.group if case else "",
        reference=text_of(case.reference) if case and not case.choices else "",
        is_harmless=bool(asked and asked.is_harmless(place.case)) and is_plain,
        replies=replies,
        change=change_of(replies.get(names[0]), replies.get(names[-1])),
    )


def _turns(case: Case | None) -> Iterable[tuple[str, str]]:
    """The chat up to the prompt, as (role, text)."""
    return [(turn["role"], turn["content"]) for turn in case.messages] if case else []
