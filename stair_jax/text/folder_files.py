"""The files of a Hugging Face folder that libraries read whole, checked before they do."""

from pathlib import Path

from stair_jax.errors import UserError
from stair_jax.storage import check_regular

_READ_WHOLE = {".json", ".jinja", ".txt", ".model", ".tiktoken"}
_MOST_MEGABYTES = 256  # the largest tokenizers of public models take 35


def check_files(folder: Path) -> None:
    """Checks that config, tokenizer and templates of a folder are files of a size that can be.

    Raises:
      UserError: one is a folder, a named pipe or a device, or is too large.
    """
    for path in sorted(folder.iterdir()):
        if path.suffix not in _READ_WHOLE:
            continue
        check_regular(path)
        # A link may lead nowhere: who needs the file then says that it is missing.
        if path.is_file() and path.stat().st_size > _MOST_MEGABYTES * 10**6:
            raise UserError(f"{path} is larger than {_MOST_MEGABYTES} MB: it is no such file")
