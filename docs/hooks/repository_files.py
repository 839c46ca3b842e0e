"""An MkDocs hook: pages of the site for files that stand outside docs/.

CONTRIBUTING.md and CHANGELOG.md become pages. A link to any other file of the repository, such as
`../stair_jax/settings.py`, leads to a page that shows its source. The same links work where the
repository is browsed, and a link to a file that is not there fails the build.
"""

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT_PAGES = {"CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
SOURCE_FOLDER = "source"
_LINK = re.compile(r"(\]\()([^()\s#]+)((?:#[^()\s]*)?\))")
_LANGUAGES = {".py": "python", ".sh": "bash", ".yml": "yaml", ".yaml": "yaml", ".cfg": "ini"}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages."""
    root = Path(config.config_file_path).parent
    for name, uri in ROOT_PAGES.items():
        files.append(File.generated(config, uri, content=(root / name).read_text()))
    targets = {
        target
        for file in files.documentation_pages()
        for target in _linked_files(file.content_string, file.src_uri)
        if (root / target).exists()
    }
    for target in sorted(targets):
        content = _source_page(root / target, target)
        files.append(File.generated(config, _page_of(target), content=content))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Points the links between files of the repository at the pages that show them."""
    uri = page.file.src_uri

    def replaced(match: re.Match[str]) -> str:
        target = _repository_path(match[2], uri)
        if target is None:
            return match[0]
        link = posixpath.relpath(_page_of(target), posixpath.dirname(uri) or ".")
        return f"{match[1]}{link}{match[3]}"

    return markdown if _is_source(uri) else _LINK.sub(replaced, markdown)


def _linked_files(markdown: str, uri: str) -> Iterator[str]:
    """Paths of the linked files that have no page of their own."""
    for match in _LINK.finditer(markdown):
        target = _repository_path(match[2], uri)
        if target is not None and _is_source(_page_of(target)):
            yield target


def _repository_path(link: str, uri: str) -> str | None:
    """What a link on the page `uri` names, from the root of the repository; None: a URL."""
    if ":" in link:
        return None
    folder = "" if uri in ROOT_PAGES.values() else posixpath.join("docs", posixpath.dirname(uri))
    return posixpath.normpath(posixpath.join(folder, link))


def _page_of(target: str) -> str:
    """The page, within docs/, of a file of the repository."""
    if target.startswith("docs/"):
        return target.removeprefix("docs/")
    return ROOT_PAGES.get(target, f"{SOURCE_FOLDER}/{target}.md")


def _is_source(uri: str) -> bool:
    return uri.startswith(f"{SOURCE_FOLDER}/")


def _source_page(path: Path, target: str) -> str:
    """A page that shows a file, or names what is in a folder; the search does not look into it."""
    if path.is_dir():
        names = sorted(child.name for child in path.iterdir() if child.name[0] not in "._")
        body = "\n".join(f"- `{name}`" for name in names)
    else:
        fence = "`" * 8  # longer than any fence in the file
        body = f"{fence}{_LANGUAGES.get(path.suffix, 'text')}\n{path.read_text()}{fence}"
    return f"---\nsearch:\n  exclude: true\n---\n\n# `{target}`\n\n{body}\n"
