"""Addresses of object storage, which no part of stair_jax reads or writes.

Python would make a folder named "gs:" of `gs://bucket/run`: every text setting, every flag and
every folder that is made is checked here first.
"""

import os
import re

from stair_jax.errors import UserError

_ADDRESS = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]+)://(?P<rest>.*)", re.DOTALL)
# A path keeps one slash of an address. Only these schemes are known by it: "a:/b" may be a folder.
_FLATTENED = re.compile(
    r"(gs|gcs|s3|s3a|s3n|hf|az|abfss?|wasbs?|adl|r2|oss|hdfs|dbfs|file|ray):/[^/]"
)
_MOUNTS = {
    "gs": "gcsfuse",
    "gcs": "gcsfuse",
    "s3": "mount-s3",
    "s3a": "mount-s3",
    "s3n": "mount-s3",
    "az": "blobfuse2",
    "abfs": "blobfuse2",
    "abfss": "blobfuse2",
    "wasb": "blobfuse2",
    "wasbs": "blobfuse2",
}
# May stand in a text, such as a system turn, or name a cluster.
_NO_STORAGE = ("http", "https", "ray")


def require_local(value: str | os.PathLike[str], where: str) -> None:
    """Raises a UserError if a text or path is an address of object storage.

    Args:
      value: of a setting or a flag, or a path.
      where: the name of the setting or flag, for the message.
    """
    text = os.fspath(value)
    match = _ADDRESS.fullmatch(text)
    if match is not None and match["scheme"].lower() not in _NO_STORAGE:
        raise UserError(f"{where} is {text}: {_instead(match['scheme'].lower(), match['rest'])}")
    if _FLATTENED.match(text):
        scheme, _, rest = text.partition(":/")
        raise UserError(f"{where} is {text}: {_instead(scheme, rest)}")


def _instead(scheme: str, rest: str) -> str:
    """What works in place of an address."""
    if scheme == "hf":
        name = rest.removeprefix("datasets/").removeprefix("models/")
        return (
            f"a model or data set of the hub is named by its id alone, {name or 'OWNER/NAME'}, and "
            "everything else by a local path"
        )
    if scheme == "file":
        return f"name the path alone, /{rest.lstrip('/')}"
    tool = _MOUNTS.get(scheme)
    mounted = f"mount the bucket (with {tool})" if tool else "mount the storage"
    return (
        f"object storage is not read or written by its address: {mounted} and name the local path, "
        "or copy the files to this machine"
    )
