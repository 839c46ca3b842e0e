"""Puts an export into a data set of the Hugging Face hub."""

import re
from pathlib import Path

from stair_jax.errors import UserError

_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def check_push(name: str) -> None:
    """Checks the name and that there is a token, before anything is read or written.

    Raises:
      UserError: the name is none, or there is no token.
    """
    import huggingface_hub

    if not _NAME.fullmatch(name):
        raise UserError(f"--push={name} is no data set of the hub: write --push=OWNER/NAME")
    if not huggingface_hub.get_token():
        raise UserError("--push needs a token that may write: set HF_TOKEN, or run `hf auth login`")


def push(folder: Path, files: list[str], name: str, public: bool) -> str:
    """Uploads files as one commit, and returns the address of the commit.

    Args:
      folder: of the export.
      files: names in it; others are not touched, neither here nor there.
      name: "OWNER/NAME"; the data set is made if there is none.
      public: whether a data set that is made may be seen by all; one that is there stays as it is.

    Raises:
      UserError: the hub refuses, or cannot be reached.
    """
    import huggingface_hub

    hub = huggingface_hub.HfApi()
    try:
        hub.create_repo(name, repo_type="dataset", private=not public, exist_ok=True)
        done = hub.upload_folder(
            repo_id=name,
            repo_type="dataset",
            folder_path=folder,
            allow_patterns=files,
            commit_message="Add an export of stair_jax",
        )
    except Exception as error:  # its HTTP client's errors have no common base class
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"{folder} is written, but cannot be pushed to {name} ({reason}): check the token's "
            "rights and the name, and run the same command again"
        ) from error
    return str(done)
