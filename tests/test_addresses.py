"""Addresses of object storage are refused in any setting and flag, and make no folder."""

from pathlib import Path

import pytest

import stair_jax
from stair_jax.addresses import require_local
from stair_jax.commands import run as run_command
from stair_jax.commands.flags import make_parser, read_arguments
from stair_jax.errors import UserError
from stair_jax.run.override import Override
from stair_jax.run.run_config import read_config
from stair_jax.stages import STAGES
from stair_jax.storage import make_folder, write_json


@pytest.mark.parametrize(
    ("address", "works"),
    [
        ("gs://bucket/run", "gcsfuse"),
        ("s3://bucket/run", "mount-s3"),
        ("abfss://box@account/x", "blobfuse2"),
        ("swift://a/b", "mount the storage"),
        ("hf://Qwen/Qwen2-7B", "its id alone, Qwen/Qwen2-7B,"),
        ("hf://datasets/owner/name", "its id alone, owner/name,"),
        ("file:///data/run", "name the path alone, /data/run"),
        ("GS://bucket", "gcsfuse"),
        (Path("gs://bucket/run"), "gcsfuse"),
    ],
    ids=str,
)
def test_an_address_is_refused_by_what_works_instead(address, works):
    with pytest.raises(UserError, match=f"^--workdir is .*{works}") as caught:
        require_local(address, "--workdir")
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    "local",
    [
        "runs/a",
        "/data",
        "C:/data",
        "a:/b",
        "Qwen/Qwen2-7B",
        "https://a.b/c",
        "ray://head:6379",
        "v5p:2x2x1",
        "",
        "gs:",
    ],
)
def test_paths_ids_and_texts_are_not(local):
    assert require_local(local, "a setting") is None


@pytest.mark.parametrize(
    "override",
    [
        ("model.init", "s3://bucket/model"),
        ("model.chat_template", "gs://bucket/a.jinja"),
        ("files.sft", "gs://bucket/sft.jsonl"),
        ("files.sft", "('data/a.jsonl', 'gs://bucket/sft.jsonl')"),
        ("files.prompts", "(('hf://datasets/a/b',),)"),
        ("export.path", "az://box/out"),
        ("runtime.compilation_cache", "gs://bucket/cache"),
        ("sft.file", "gs://bucket/sft.jsonl"),
    ],
    ids=lambda override: override[0],
)
def test_each_setting_of_a_path_refuses_an_address(override):
    field, text = override
    flag = f"--config.{field}={text}"
    with pytest.raises(UserError, match=rf"config.{field}(\[\d\])* is .*://.*local path"):
        read_config({"stages": ("pocket",)}, STAGES, [Override(field, text, flag)])


def test_flags_refuse_an_address():
    parser = make_parser("run", "", run_command.add_flags)
    with pytest.raises(UserError, match=r"^--workdir is gs://bucket/run: "):
        read_arguments(parser, ["--config=pocket", "--workdir=gs://bucket/run"])


def test_no_folder_is_made(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for write in (
        lambda: make_folder("gs://bucket/run"),
        lambda: make_folder(Path("s3://bucket/run")),
        lambda: write_json(Path("gs://bucket") / "a.json", {}),
        lambda: stair_jax.load("gs://bucket/model"),
    ):
        with pytest.raises(UserError, match="mount the bucket"):
            write()
    assert list(tmp_path.iterdir()) == []
