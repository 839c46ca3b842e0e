"""Cases as HTML blocks of a page: prompt, answers side by side, and what was said of them."""

from collections.abc import Mapping, Sequence

from stair_jax.evaluation.judges.judge import Verdict
from stair_jax.reports.answers import GradedAnswer, Scores
from stair_jax.reports.choosing import ShownCase
from stair_jax.reports.markup import folded, inline, name, number, table, turns
from stair_jax.text.steps import parse_tolerant


def case_block(case: ShownCase, columns: Sequence[str], length: int) -> str:
    """A case: an HTML block without blank lines.

    Args:
      case: that is shown.
      columns: of the page.
      length: characters of a text at most.
    """
    replies = [case.replies.get(column) for column in columns]
    rows = [
        [_figure(reply) for reply in replies],
        [_verdicts(reply) for reply in replies],
        [_final(reply, length) for reply in replies],
        [_more(reply, length) for reply in replies],
    ]
    lines = [f"<p>{_title(case)}</p>", f"<p><b>Prompt.</b> {_prompt(case, length)}</p>"]
    if case.reference:
        lines.append(f"<p><b>Reference.</b> {inline(case.reference, length)}</p>")
    return "\n".join([*lines, table(rows, [name(column) for column in columns])])


def withheld_table(cases: Sequence[ShownCase], columns: Sequence[str]) -> str:
    """Cases by id and category alone, with what their answers got, one a row."""
    rows = [
        [
            name(case.set_name),
            name(case.group),
            name(case.place.case),
            case.change,
            *(_found(case.replies.get(column)) for column in columns),
        ]
        for case in cases
    ]
    return table(rows, ["set", "category", "case", "change", *map(name, columns)])


def _found(reply: GradedAnswer | None) -> str:
    """The figure of an answer and the judges' labels, in few words."""
    if reply is None:
        return "<i>no answer</i>"
    labels = [
        f"{name(judge)}: {name(verdict.label or 'not readable')}"
        for judge, verdict in reply.verdicts.items()
    ]
    return "<br>".join([f"{name(reply.metric)} <b>{number(reply.value)}</b>", *labels])


def _title(case: ShownCase) -> str:
    group = f", {name(case.group)}" if case.group else ""
    return f"<b>{name(case.set_name)}</b>{group}, case {name(case.place.case)}"


def _prompt(case: ShownCase, length: int) -> str:
    if not case.prompt:
        return "<i>not known: the file of the set is not there, or has changed</i>"
    *before, (_, asked) = case.prompt
    head = folded(f"{len(before)} turns before it", turns(before, length)) if before else ""
    return head + inline(asked, length)


def _figure(reply: GradedAnswer | None) -> str:
    if reply is None:
        return "<i>no answer</i>"
    good = " (lower is better)" if reply.low_is_good else ""
    cut = ", cut at the limit of tokens" if reply.answer.is_cut else ""
    figure = f"{name(reply.metric)} <b>{number(reply.value)}</b>{good}" if reply.metric else ""
    return f"{figure or 'not graded'}; {reply.answer.tokens} tokens{cut}"


def _verdicts(reply: GradedAnswer | None) -> str:
    """What each judge found; its words are part of `_more`."""
    if reply is None:
        return ""
    names = dict.fromkeys([*reply.scores, *reply.verdicts])
    lines = [_verdict(name, reply.scores.get(name, {}), reply.verdicts.get(name)) for name in names]
    return "<br>".join(lines)


def _verdict(judge: str, scores: Scores, verdict: Verdict | None) -> str:
    label = f" <b>{name(verdict.label or 'not readable')}</b>" if verdict else ""
    shown: Mapping[str, float | None] = scores or (verdict.scores if verdict else {})
    numbers = ", ".join(f"{name(score)} {number(value)}" for score, value in shown.items())
    return f"{name(judge) or 'by its rule'}:{label} {numbers}".rstrip()


def _final(reply: GradedAnswer | None, length: int) -> str:
    if reply is None:
        return ""
    answer = reply.answer
    return inline(answer.final or answer.text, length) or f"<i>empty ({name(answer.finish)})</i>"


def _more(reply: GradedAnswer | None, length: int) -> str:
    """What is folded: the steps, the prompt of an attack, and the judges' words."""
    if reply is None:
        return ""
    answer = reply.answer
    steps = parse_tolerant(answer.text).steps
    parts = []
    if steps:
        body = "<br>".join(
            f"<b>{place}. {name(title)}</b><br>{inline(text, length)}"
            for place, (title, text) in enumerate(steps, start=1)
        )
        parts.append(folded(f"{len(steps)} steps", body))
    elif answer.reasoning:
        parts.append(folded("reasoning", inline(answer.reasoning, length)))
    if answer.asked:
        messages = answer.asked.get("messages", ())
        asked = turns(((str(one["role"]), str(one["content"])) for one in messages), length)
        parts.append(folded("as it was asked", asked))
    parts += [
        folded(f"words of {name(judge)}", inline(verdict.text, length))
        for judge, verdict in reply.verdicts.items()
        if verdict.text
    ]
    return "".join(parts)
