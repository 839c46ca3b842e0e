"""Files of a checkpoint that are none, and JSON that no reader can hold."""

import os
from pathlib import Path

import pytest

from stair_jax import pocket
from stair_jax.errors import UserError
from stair_jax.models.huggingface import load_config
from stair_jax.storage import read_json
from stair_jax.text.folder_files import check_files
from stair_jax.text.tokenizer import load_huggingface

POCKET = Path(*pocket.__path__) / "base"
FILES = ("config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja")


@pytest.fixture
def folder(tmp_path):
    """A copy of the pocket base without its weights."""
    for path in POCKET.iterdir():
        if path.suffix != ".safetensors":
            (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def load(folder):
    load_huggingface(folder)
    load_config(folder)


def test_a_folder_of_files_is_read(folder):
    check_files(folder)
    load(folder)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_what_is_no_file_is_named_and_not_opened(folder, name, kind):
    (folder / name).unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(folder / name)
    elif kind == "device":
        (folder / name).symlink_to("/dev/zero")
    else:
        (folder / name).mkdir()
    what = "a folder" if kind == "folder" else "a named pipe, a device or a socket"
    with pytest.raises(UserError, match=f"{name}: it is {what}, not a file"):
        load(folder)


def test_a_file_that_is_too_large_is_named(folder):
    with open(folder / "tokenizer_config.json", "ab") as file:
        file.truncate(10**9)
    with pytest.raises(UserError, match=r"tokenizer_config.json is larger than 256 MB"):
        load(folder)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json"])
def test_json_of_great_depth_is_one_line(folder, name):
    (folder / name).write_text("[" * 200_000 + "]" * 200_000)
    with pytest.raises(UserError) as caught:
        load(folder)
    assert len(str(caught.value).splitlines()) == 1
    with pytest.raises(UserError, match="nested too deep"):
        read_json(folder / name)


def test_a_field_that_is_there_twice_is_named(folder):
    text = (folder / "config.json").read_text().rstrip().removesuffix("}")
    (folder / "config.json").write_text(text + ', "vocab_size": 7}')
    with pytest.raises(UserError, match=r"config.json has the field 'vocab_size' twice"):
        load_config(folder)


def test_an_unknown_token_that_is_none_is_named(folder):
    path = folder / "tokenizer_config.json"
    path.write_text(path.read_text().replace('"unk_token": "<|unk|>"', '"unk_token": ""'))
    with pytest.raises(UserError, match=r"has no token '', its unk_token"):
        load_huggingface(folder)
