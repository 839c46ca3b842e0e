"""Hostile edits of a Hugging Face folder, which is the last argument of each."""

import json
import os
import pickle
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

MARKER = "code of the checkpoint ran"  # a file beside the folder that such code would create
OUTSIDE = "outside.safetensors"  # name of a file with all tensors beside the folder
CONFIG = "config.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
CHAT = "stair_chat.json"
_METADATA = "__metadata__"


def set_field(field: str, value: Any, folder: Path) -> None:
    """Sets a field of config.json."""
    values = json.loads((folder / CONFIG).read_text())
    if field == "rope_theta":
        del values["rope_parameters"]  # it takes precedence
    (folder / CONFIG).write_text(json.dumps(values | {field: value}))


def write(name: str, content: bytes, folder: Path) -> None:
    """Writes a file."""
    (folder / name).write_bytes(content)


def make_pipe(name: str, folder: Path) -> None:
    """Replaces a file by a named pipe, which blocks its readers."""
    (folder / name).unlink()
    os.mkfifo(folder / name)


def make_folder(name: str, folder: Path) -> None:
    """Replaces a file by a folder."""
    (folder / name).unlink()
    (folder / name).mkdir()


def make_link(name: str, target: str, folder: Path) -> None:
    """Replaces a file by a symbolic link."""
    (folder / name).unlink()
    (folder / name).symlink_to(target)


def change_header(values: Mapping[str, Any], folder: Path) -> None:
    """Changes entries of the header of the weights."""
    header = _read_header(folder)
    put_header(json.dumps(header | dict(values)).encode(), None, folder)


def change_tensor(values: Mapping[str, Any], folder: Path) -> None:
    """Changes the header's description of one tensor."""
    header = _read_header(folder)
    name = next(name for name in header if name != _METADATA)
    change_header({name: header[name] | values}, folder)


def put_header(encoded: bytes, length: int | None, folder: Path) -> None:
    """Replaces the header of the weights, optionally with a wrong length."""
    data = (folder / WEIGHTS).read_bytes()
    size = len(encoded) if length is None else length
    (folder / WEIGHTS).write_bytes(size.to_bytes(8, "little") + encoded + data[_end(data) :])


def flip_header(places: Sequence[tuple[float, int]], folder: Path) -> None:
    """Overwrites bytes of the header of the weights; places are fractions of its length."""
    data = bytearray((folder / WEIGHTS).read_bytes())
    end = _end(data)
    for place, value in places:
        data[int(place * end)] = value
    (folder / WEIGHTS).write_bytes(data)


def name_in_index(file: Any, folder: Path) -> None:
    """Adds an index that names `file` for all tensors, and moves them to shard.safetensors."""
    header = _read_header(folder)
    (folder / WEIGHTS).rename(folder / "shard.safetensors")
    names = [name for name in header if name != _METADATA]
    (folder / INDEX).write_text(json.dumps({"weight_map": dict.fromkeys(names, file)}))


def _read_header(folder: Path) -> dict[str, Any]:
    data = (folder / WEIGHTS).read_bytes()
    return dict(json.loads(data[8 : _end(data)]))


def _end(data: bytes | bytearray) -> int:
    """End of the header of a safetensors file."""
    return 8 + int.from_bytes(data[:8], "little")


class _Bomb:
    """Runs a command when it is unpickled."""

    def __init__(self, marker: Path):
        self._marker = marker

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return os.system, (f"touch '{self._marker}'",)


def add_pickle(name: str, is_alone: bool, folder: Path) -> None:
    """Adds a pickle, and removes the weights if the pickle `is_alone`."""
    (folder / name).write_bytes(pickle.dumps(_Bomb(folder.parent / MARKER)))
    if is_alone:
        (folder / WEIGHTS).unlink()


def add_code(folder: Path) -> None:
    """Adds code, and entries in config and tokenizer that refer to it."""
    body = f"open({str(folder.parent / MARKER)!r}, 'w')\n"
    (folder / "modeling_own.py").write_text(body)
    (folder / "tokenization_own.py").write_text(body)
    set_field("auto_map", {"AutoConfig": "modeling_own.A", "AutoModel": "modeling_own.B"}, folder)
    path = folder / "tokenizer_config.json"
    own = {"auto_map": {"AutoTokenizer": ["tokenization_own.A", "tokenization_own.B"]}}
    path.write_text(json.dumps(json.loads(path.read_text()) | own))


def set_template(text: str, folder: Path) -> None:
    """Sets the chat template; MARKER in it is replaced by the path of the marker file."""
    marker = folder.parent / MARKER
    (folder / "chat_template.jinja").write_text(text.replace("MARKER", str(marker)))


def replace_somewhere(name: str, value: Any, seed: float, folder: Path) -> None:
    """Replaces a random value of a JSON file, at any depth."""
    rng, path = random.Random(seed), folder / name
    content = node = json.loads(path.read_text())
    while node:
        key = rng.choice(list(node) if isinstance(node, dict) else range(len(node)))
        if not isinstance(node[key], dict | list) or rng.random() < 0.3:
            node[key] = value
            break
        node = node[key]
    path.write_text(json.dumps(content))
