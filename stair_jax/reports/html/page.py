"""One file of HTML out of the page's own files and blocks of data; it loads nothing."""

import base64
import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_ASSETS = Path(__file__).with_name("assets")
_ORDER_FILE, _PAGE_FILE = "order.txt", "page.html"
_MARK = re.compile(r"\{\{(csp|style|data|script)\}\}")
_CLOSING = re.compile(r"</(script|style)|<!--", re.IGNORECASE)
_NAME = re.compile(r"[a-z]+(/[0-9]+){0,2}")


@dataclass(frozen=True)
class Assets:
    """The page without data.

    Attributes:
      page: HTML with the marks `{{csp}}`, `{{style}}`, `{{data}}` and `{{script}}`, each once.
      style: CSS.
      script: JavaScript.
    """

    page: str
    style: str
    script: str

    def policy(self, live: bool) -> str:
        """The content security policy: this style and this script alone, and no requests.

        Args:
          live: whether the page may ask where it came from for more.
        """
        connect = "connect-src 'self'; " if live else ""
        return (
            f"default-src 'none'; script-src {_hash(self.script)}; style-src {_hash(self.style)}; "
            f"img-src data:; {connect}base-uri 'none'; form-action 'none'"
        )


@cache
def read_assets(folder: Path = _ASSETS) -> Assets:
    """The files of the page, joined in the order of `order.txt`."""
    names = (folder / _ORDER_FILE).read_text(encoding="utf-8").split()
    texts = {name: (folder / name).read_text(encoding="utf-8") for name in names}
    for name, text in texts.items():
        if found := _CLOSING.search(text):
            raise ValueError(f"{name} has {found[0]!r}, which ends or changes its element")
    style, script = (
        "\n".join(text for name, text in texts.items() if name.endswith(ending))
        for ending in (".css", ".js")
    )
    return Assets((folder / _PAGE_FILE).read_text(encoding="utf-8"), style, script)


def page(assets: Assets, blocks: Iterable[tuple[str, str]], live: bool) -> Iterator[str]:
    """The page in parts.

    Args:
      assets: of the page.
      blocks: names and encoded texts (`parts.encode_text`).
      live: as of `Assets.policy`.
    """
    pieces = _MARK.split(assets.page)
    yield pieces[0]
    for mark, text in zip(pieces[1::2], pieces[2::2], strict=True):
        if mark == "data":
            yield from (_element(name, encoded) for name, encoded in blocks)
        elif mark == "csp":
            yield assets.policy(live)
        else:
            yield assets.style if mark == "style" else assets.script
        yield text


def _element(name: str, encoded: str) -> str:
    """A block, neither of whose texts has a character that means something in HTML."""
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no name of a block")
    return f'<script type="application/octet-stream" id="data:{name}">{encoded}</script>\n'


def _hash(text: str) -> str:
    """A text as a source of a content security policy (W3C CSP Level 3, section 2.3.1)."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
