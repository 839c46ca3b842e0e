"""What is known of a public data set: its files, its columns, its licence and its role."""

from dataclasses import dataclass
from typing import Any, Literal

from stair_jax.errors import UserError

Role = Literal["training", "development", "reported"]
Row = dict[str, Any]


@dataclass(frozen=True)
class PublicSet:
    """A file of a public data set.

    Attributes:
      name: on the command line and in records.
      files: paths of the file below the folder of local copies, gzipped or not, under its official
        name and others; the first that is there is read.
      role: "training": may be trained on; "development": settings are chosen on it; "reported":
        never tuned on.
      licence: as its publisher states it.
      origin: "hub:OWNER/NAME:CONFIG/SPLIT", or "github:OWNER/REPOSITORY/COMMIT/PATH".
      prompt: columns of the prompt, of which a row has one; (): nothing is compared with its rows.
      columns: that are read of a large set; (): all.
      beside: files in its folder that benchmarks read too, as patterns.
    """

    name: str
    files: tuple[str, ...]
    role: Role
    licence: str
    origin: str
    prompt: tuple[str, ...] = ("prompt",)
    beside: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()

    def prompt_of(self, row: Row) -> str:
        """The prompt of a row, without white space around it; "": it is empty.

        Raises:
          UserError: the row has none of the columns.
        """
        for column in self.prompt:
            if column in row:
                return str(row[column] or "").strip()
        columns = " or ".join(map(repr, self.prompt))
        raise UserError(
            f"the data set {self.name}: there is no column {columns}, only "
            f"{', '.join(map(repr, row))}: take the file from {self.page}"
        )

    @property
    def page(self) -> str:
        """Where a user finds the set."""
        kind, _, place = self.origin.partition(":")
        if kind == "hub":
            return f"https://huggingface.co/datasets/{place.partition(':')[0]}"
        owner, repository, commit, path = place.split("/", 3)
        return f"https://github.com/{owner}/{repository}/blob/{commit}/{path}"

    @property
    def how(self) -> str:
        """What to bring, for a message: the file in its folder, and where it is."""
        return f"{self.files[0]} ({self.page})"
