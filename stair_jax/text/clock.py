"""A clock that stands still for chat templates that ask for today's date (`strftime_now`).

Transformers hands `strftime_now` to each template and takes nothing but plain data from its caller.
So a macro of the same name is put before the template while it is rendered.
"""

import datetime

_FORMAT = "%d %b %Y"
_DIRECTIVES = "aAbBcdfGHIjmMpSuUVwWxXyYzZeDFRThnt"


def with_fixed_clock(template: str, date: str, fallback: str) -> str:
    """A template whose `strftime_now` gives one date, at midnight; itself if it asks for none.

    Args:
      template: in Jinja.
      date: such as "26 Jul 2024".
      fallback: in place of a `date` of another form.
    """
    if "strftime_now" not in template:
        return template
    try:
        moment = datetime.datetime.strptime(date, _FORMAT)
    except ValueError:
        moment = datetime.datetime.strptime(fallback, _FORMAT)
    filters = "".join(
        f" | replace({f'%{dash}{letter}'!r}, {moment.strftime(f'%{dash}{letter}')!r})"
        for letter in _DIRECTIVES
        for dash in ("", "-")
    )
    # The line break belongs to the last tag: the template itself begins on a line of its own.
    return (
        "{%- macro strftime_now(format) -%}{%- for part in format.split('%%') -%}"
        "{{- '' if loop.first else '%' -}}{{- part" + filters + " -}}"
        "{%- endfor -%}{%- endmacro %}\n" + template
    )
