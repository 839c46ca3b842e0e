"""Folders of adapters (PEFT's format): which model they belong to, and where that is.

An adapter folder has `adapter_config.json` and `adapter_model.safetensors`, and no weights besides:
those are of its base, another folder or an id of the hub. Folders that are written here also say in
`base.json` by which path from here the base was found, and what its weights were.
"""

import os
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from stair_jax import storage
from stair_jax.errors import UserError

CONFIG_FILE = "adapter_config.json"
TENSORS_FILE = "adapter_model.safetensors"
BASE_FILE = "base.json"
BASE_FIELD = "base_model_name_or_path"
_WEIGHTS = "model*.safetensors"  # of a whole model


def is_adapter_folder(folder: str | Path) -> bool:
    """Whether a folder holds adapters without the model that they belong to."""
    folder = Path(folder)
    return (folder / CONFIG_FILE).is_file() and not any(folder.glob(_WEIGHTS))


def named_base(folder: Path) -> str:
    """What `adapter_config.json` says of the base: a folder, or an id of the hub.

    Raises:
      UserError: it says nothing.
    """
    values = storage.read_json(folder / CONFIG_FILE)
    name = values.get(BASE_FIELD) if isinstance(values, dict) else None
    if not isinstance(name, str) or not name.strip():
        raise UserError(
            f"{folder / CONFIG_FILE} does not say which model the adapters belong to: set "
            f"{BASE_FIELD} to a folder or a hub id"
        )
    return name


def base_record(folder: Path) -> dict[str, Any]:
    """The content of `base.json`; empty, where there is none.

    Raises:
      UserError: it is damaged.
    """
    path = folder / BASE_FILE
    if not path.is_file():
        return {}
    values = storage.read_json(path)
    kinds = {"path": str, "fingerprint": str, "targets": list}
    if not isinstance(values, dict) or not all(
        isinstance(values.get(name), kind) for name, kind in kinds.items()
    ):
        raise UserError(f"{path} is damaged: it needs a path, a fingerprint and targets")
    return values


def recorded_place(folder: Path) -> Path | None:
    """Where `base.json` says that the base is; None: there is no such file."""
    record = base_record(folder)
    return Path(os.path.normpath(folder.resolve() / record["path"])) if record else None


def find_base(folder: Path, checked: bool = True) -> Path | None:
    """The folder of the base, where `base.json` or `adapter_config.json` says; None: it is in none.

    Args:
      folder: of the adapters.
      checked: whether its weights have to be those that `base.json` describes, also where there is
        no choice.

    Raises:
      UserError: what is there is another model.
    """
    record, recorded = base_record(folder), recorded_place(folder)
    named = Path(os.path.normpath(Path(named_base(folder)).expanduser()))
    found: dict[Path, Path] = {}
    for place in filter(_is_model, [recorded, named] if recorded else [named]):
        found.setdefault(place.resolve(), place)
    for base in found.values():
        if (len(found) == 1 and not checked) or is_recorded(base, record):
            return base
    if found:
        raise UserError(about_another(next(iter(found.values())), folder))
    return None


def is_recorded(base: Path, record: Mapping[str, Any]) -> bool:
    """Whether a model's weights are those that a `base.json` describes; an empty one fits all."""
    return not record or weights_fingerprint(base) == record["fingerprint"]


def about_another(base: Path | str, folder: Path) -> str:
    """What to say where the base is another model than it was."""
    return (
        f"{base} is another model than the one that the adapters in {folder} were trained on: put "
        "that one back, or train them anew"
    )


def described(folder: Path, name: str) -> Path:
    """A file that describes a model: that of the folder, or else of the base of its adapters."""
    own = folder / name
    if own.exists() or not is_adapter_folder(folder):
        return own
    base = local_base(folder)
    return own if base is None else base / name


def local_base(folder: Path) -> Path | None:
    """The folder of the base on this machine, also in the hub's cache; None: there is none.

    Its weights are not looked at, and may be missing in the cache.
    """
    return find_base(folder, checked=False) or cached_folder(named_base(folder))


def write_base(folder: Path, place: Path, base: Path, targets: tuple[str, ...]) -> None:
    """Writes `base.json` into `folder`, which is to be moved to `place`."""
    path = os.path.relpath(base.resolve(), place.resolve())
    record = {"path": path, "fingerprint": weights_fingerprint(base), "targets": targets}
    storage.write_json(folder / BASE_FILE, record)


def weights_fingerprint(folder: Path) -> str:
    """SHA-256 (hex) of the names and bytes of a model's tensor files.

    Raises:
      UserError: a file cannot be read.
    """
    files = sorted(folder.glob(_WEIGHTS))
    return storage.fingerprint({path.name: _hash(path, _stat(path)) for path in files})


def _stat(path: Path) -> tuple[int, ...]:
    with storage.reading(path):
        about = path.stat()
    return about.st_size, about.st_mtime_ns, about.st_ctime_ns, about.st_ino


@lru_cache(maxsize=1024)
def _hash(path: Path, stat: tuple[int, ...]) -> str:
    """The hash of a file, once for each of its states."""
    return storage.fingerprint_file(path)


def cached_folder(repo_id: str, file: str = "config.json") -> Path | None:
    """The folder of a hub id in the cache of huggingface_hub; None: it has none with this file."""
    import huggingface_hub
    from huggingface_hub import errors

    try:
        found = huggingface_hub.try_to_load_from_cache(repo_id, file)
    except errors.HFValidationError:
        return None
    return Path(found).parent if isinstance(found, str) else None


def _is_model(folder: Path) -> bool:
    try:
        return any((folder / name).is_file() for name in ("config.json", CONFIG_FILE))
    except (OSError, ValueError):  # a name that is too long, or no path at all
        return False
