"""Where the rows of the public data sets come from, and a record of what was read."""

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from stair_jax.data.left_out import MAX_BAD_SHARE
from stair_jax.data.study import local
from stair_jax.data.study.catalogue import SETS
from stair_jax.data.study.public_set import PublicSet, Row
from stair_jax.data.study.remote import NotThere, Remote, fetch_beside, fetch_github, fetch_hub
from stair_jax.data.text_files import SourceRows
from stair_jax.errors import UserError, did_you_mean
from stair_jax.monitoring import say


@dataclass(frozen=True)
class Choice:
    """Which sources are read.

    Attributes:
      folder: of local copies; None: there are none.
      remote: read what is not there from the hub and from GitHub.
      revisions: commit, branch or tag to read, by the name of the set.
      without: sets to do without although they are there, e.g. for their licence.
    """

    folder: Path | None = None
    remote: bool = True
    revisions: Mapping[str, str] = field(default_factory=dict)
    without: Collection[str] = ()

    def __post_init__(self) -> None:
        """Raises a UserError for an unknown set, or a folder that is none."""
        for name in (*self.revisions, *self.without):
            if name not in SETS:
                raise UserError(f"there is no data set {name!r}: {did_you_mean(name, SETS)}")
        if self.folder is not None and not self.folder.is_dir():
            raise UserError(f"--sources={self.folder} is no folder: name the one with local copies")


@dataclass(frozen=True)
class Found:
    """A set that was read.

    Attributes:
      place: path below the folder of local copies, or origin.
      revision: of a hub or a repository; "": a local copy.
      sha256: of the unpacked file, or of the rows of a hub.
      rows: how many there are.
      unreadable: how many of them cannot be read, and are left out.
    """

    place: str
    revision: str
    sha256: str
    rows: int
    unreadable: int


class Sources:
    """The rows of the sets, each read when it is first asked for.

    Attributes:
      found: by name, the sets that were read.
      absent: by name, why a set that was asked for is not there.
    """

    def __init__(self, choice: Choice) -> None:
        """Reads nothing yet."""
        self._choice = choice
        self._rows: dict[str, list[Row]] = {}
        self._files: dict[str, dict[str, bytes]] = {}  # downloaded, by set and path
        self.found: dict[str, Found] = {}
        self.absent: dict[str, str] = {}

    def rows(self, name: str) -> list[Row]:
        """The rows of a set; []: it is absent.

        Raises:
          UserError: the set is there, and cannot be read or lacks the column of the prompt.
        """
        if name not in self._rows:
            self._rows[name] = self._read(SETS[name])
        return self._rows[name]

    def file(self, name: str) -> Path | None:
        """The local copy of a set that was read; None: it is absent, or came from elsewhere."""
        found, folder = self.found.get(name), self._choice.folder
        return folder / found.place if folder and found and not found.revision else None

    def downloads(self, name: str) -> Mapping[str, bytes]:
        """The files of a set that were downloaded, by their paths; none of a local copy or hub."""
        return self._files.get(name, {})

    def record(self) -> dict[str, Any]:
        """What was read, as JSON values by the name of the set."""
        return {
            name: {
                "role": SETS[name].role,
                "licence": SETS[name].licence,
                "page": SETS[name].page,
                **asdict(found),
            }
            for name, found in sorted(self.found.items())
        }

    def _read(self, one: PublicSet) -> list[Row]:
        if one.name in self._choice.without:
            self.absent[one.name] = "left out by --without"
            return []
        if folder := self._choice.folder:
            if path := local.find(folder, one.files):
                digest = local.content_hash(local.unpacked(path))
                place = path.relative_to(folder).as_posix()
                rows = local.read_file(path, one.columns)
                return self._checked(one, rows, place, "", digest)
            self.absent[one.name] = f"there is no {folder / one.files[0]}"
        if not self._choice.remote:
            return []
        say(f"fetching {one.name} from {one.page}")
        try:
            remote = self._fetch(one, self._choice.revisions.get(one.name, ""))
        except NotThere as error:
            self.absent[one.name] = str(error)
            return []
        self.absent.pop(one.name, None)
        return self._checked(one, remote.rows, one.origin, remote.revision, remote.sha256)

    def _fetch(self, one: PublicSet, revision: str) -> Remote:
        """Reads a set of the hub; or downloads it, with the files beside it that have a name."""
        kind, _, place = one.origin.partition(":")
        if kind == "hub":
            return fetch_hub(place, revision, one.columns)
        remote = fetch_github(place, revision)
        folder = one.files[0].rpartition("/")[0]
        names = [name for name in one.beside if "*" not in name]
        beside = {f"{folder}/{name}": fetch_beside(place, revision, name) for name in names}
        found = {path: data for path, data in beside.items() if data}
        self._files[one.name] = {one.files[0]: remote.data, **found}
        return remote

    def _checked(
        self, one: PublicSet, rows: SourceRows, place: str, revision: str, digest: str
    ) -> list[Row]:
        bad = rows.unreadable
        most = MAX_BAD_SHARE * len(rows) if one.role == "training" else 0
        if len(bad) > most:
            raise UserError(
                f"{place}, {bad[0].place}: {bad[0].reason}; {len(bad)} of {len(rows)} rows cannot "
                f"be read: copy the file again from {one.page}"
            )
        if not rows.rows:
            raise UserError(f"{place} has no rows: copy the file again from {one.page}")
        found = [row for _, row in rows.rows]
        if one.prompt:
            for row in found:
                one.prompt_of(row)
        self.found[one.name] = Found(place, revision, digest, len(found), len(bad))
        return found
