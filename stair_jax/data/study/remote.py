"""Public data sets that are not here yet: from the Hugging Face hub, and files on GitHub."""

import http.client
import urllib.error
import urllib.request
from collections.abc import Collection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from stair_jax.data.sources import read_source
from stair_jax.data.study.local import content_hash, read_file
from stair_jax.data.text_files import SourceRows
from stair_jax.errors import UserError
from stair_jax.storage import fingerprint

_SECONDS = 30.0  # to wait for a server
_MOST_BYTES = 256 * 1024 * 1024  # of a file; the largest of the catalogue has 20 MB
_NOT_GIVEN = (401, 403, 404, 410, 451)  # no such set, or not without a login
_LOCAL = "copy the sets into a folder, and name it with --sources=DIR"


class Remote(NamedTuple):
    """What a server had.

    Attributes:
      rows: of the set.
      revision: commit that was read; "": the name of a branch alone is known.
      sha256: of the file's bytes, or of the rows as JSON.
      data: the bytes of the file; empty: there were only rows.
    """

    rows: SourceRows
    revision: str
    sha256: str
    data: bytes


class NotThere(Exception):
    """A server has no such set, or does not give it without a login; the message says why."""


def fetch_hub(place: str, revision: str, columns: Collection[str] = ()) -> Remote:
    """Reads a data set of the hub through `datasets`, which runs no code of it.

    Args:
      place: "OWNER/NAME:CONFIG/SPLIT".
      revision: commit, branch or tag; "": the newest.
      columns: that are read; (): all.

    Raises:
      NotThere: the hub has no such set or revision, or wants a login.
      UserError: the hub cannot be reached, or the set cannot be read.
    """
    commit = _commit(place.partition(":")[0], revision)
    rows = read_source(f"{place}@{commit}", columns)
    return Remote(rows, commit, fingerprint([row for _, row in rows.rows]), b"")


def _commit(name: str, revision: str) -> str:
    """The commit that a revision of a data set stands for now."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    try:
        info = HfApi().dataset_info(name, revision=revision or None, timeout=_SECONDS)
    except Exception as error:  # also of the HTTP library, which differs between versions
        status = getattr(getattr(error, "response", None), "status_code", None)
        if isinstance(error, HfHubHTTPError) and status in _NOT_GIVEN:
            raise NotThere(" ".join(str(error).split())[:200]) from error
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"cannot reach the hub for {name} ({reason}): {_LOCAL}") from error
    return str(info.sha)


def fetch_github(place: str, revision: str) -> Remote:
    """Downloads a file of a repository on GitHub, and reads its rows.

    Args:
      place: "OWNER/REPOSITORY/COMMIT/PATH".
      revision: commit, branch or tag; "": the one of `place`.

    Raises:
      NotThere: there is no such file.
      UserError: GitHub cannot be reached, or the file is too large or cannot be read.
    """
    data = _download(_address(place, revision))
    with TemporaryDirectory() as folder:
        copy = Path(folder) / Path(place).name
        copy.write_bytes(data)
        return Remote(read_file(copy), revision or place.split("/")[2], content_hash(data), data)


def fetch_beside(place: str, revision: str, name: str) -> bytes:
    """The bytes of another file in the folder of a file on GitHub; empty: there is none.

    Raises:
      UserError: GitHub cannot be reached, or the file is too large.
    """
    try:
        return _download(_address(f"{place.rpartition('/')[0]}/{name}", revision))
    except NotThere:
        return b""


def _address(place: str, revision: str) -> str:
    owner, repository, commit, path = place.split("/", 3)
    commit = revision or commit
    return f"https://raw.githubusercontent.com/{owner}/{repository}/{commit}/{path}"


def _download(address: str) -> bytes:
    try:
        with urllib.request.urlopen(address, timeout=_SECONDS) as reply:
            data: bytes = reply.read(_MOST_BYTES + 1)
    except (OSError, http.client.HTTPException) as error:  # the latter: it was cut off
        if isinstance(error, urllib.error.HTTPError) and error.code in _NOT_GIVEN:
            raise NotThere(f"{address} answers {error.code} {error.reason}") from error
        raise UserError(f"cannot reach {address} ({error}): {_LOCAL}") from error
    if len(data) > _MOST_BYTES:
        raise UserError(f"{address} has more than {_MOST_BYTES} bytes, and is no file of the study")
    return data
