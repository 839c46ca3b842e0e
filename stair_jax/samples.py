"""Text samples: what a model writes, or is trained on, for people to look at while a stage runs.

The texts are of models and data sets, so nobody has checked them: each form here keeps a text from
being read as markup or as control characters of a terminal, and bounds its length.
"""

import html
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

_LONGEST = 20_000  # characters of a text in files, TensorBoard and W&B
_LONGEST_SHOWN = 300  # characters of a text in a line of the log
# Control characters but tab and line feed, and what changes the direction of the text around it.
_UNSEEN = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


@dataclass(frozen=True)
class Sample:
    """Texts with the values that belong to them.

    Attributes:
      what: the kind of sample, such as "pair".
      texts: by name, such as "prompt" and "chosen".
      values: by name; None: there is none.
    """

    what: str
    texts: Mapping[str, str]
    values: Mapping[str, float | None] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The fields of a JSON line; a number that is not finite is None."""
        texts = {name: shorten(text, _LONGEST) for name, text in self.texts.items()}
        values = {
            name: float(value) if value is not None and math.isfinite(value) else None
            for name, value in self.values.items()
        }
        return {"sample": self.what, **texts, **values}

    def to_markdown(self) -> str:
        """For TensorBoard: each text is an indented code block, in which nothing is markup."""
        parts = [f"**{_plain(name)}** {_number(value)}" for name, value in self.values.items()]
        blocks = [", ".join(parts)] if parts else []
        for name, text in self.texts.items():
            lines = _visible(shorten(text, _LONGEST)).split("\n")
            blocks.append(f"**{_plain(name)}**\n\n" + "\n".join(f"    {line}" for line in lines))
        return "\n\n".join(blocks)

    def to_html(self) -> str:
        """For Weights & Biases, escaped."""
        parts = [f"<b>{html.escape(name)}</b> {_number(v)}" for name, v in self.values.items()]
        blocks = [f"<p>{', '.join(parts)}</p>"] if parts else []
        for name, text in self.texts.items():
            escaped = html.escape(_visible(shorten(text, _LONGEST)))
            blocks.append(
                f'<b>{html.escape(name)}</b><pre style="white-space: pre-wrap">{escaped}</pre>'
            )
        return "".join(blocks)

    def to_line(self) -> str:
        """For the log: one line, with short quoted texts."""
        parts = [f"{name} {shorten(text, _LONGEST_SHOWN)!r}" for name, text in self.texts.items()]
        parts += [f"{name} {_number(value)}" for name, value in self.values.items()]
        return f"{self.what}: {'; '.join(parts)}"


def shorten(text: str, most: int) -> str:
    """A text of at most about `most` characters: start and end, where it is longer."""
    if len(text) <= most:
        return text
    head = most * 2 // 3
    cut = len(text) - most
    return f"{text[:head]} [... {cut} characters ...] {text[head + cut :]}"


def _visible(text: str) -> str:
    """The text with control characters as escapes."""
    text = text.replace("\r\n", "\n")
    return _UNSEEN.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def _plain(name: str) -> str:
    return name.replace("_", " ")


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.4g}"
