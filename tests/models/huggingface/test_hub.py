"""Local folders, and hub ids out of a cache that is laid out as by huggingface_hub."""

import huggingface_hub
import pytest
from huggingface_hub import constants, errors

from stair_jax.errors import UserError
from stair_jax.models.huggingface import hub

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A function that puts a model's files into an empty cache, without network access."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub, "list_repo_files", lambda repo_id: [])

    def add(repo_id, *names):
        folder = tmp_path / "hub" / f"models--{repo_id.replace('/', '--')}"
        (folder / "refs").mkdir(parents=True)
        (folder / "refs/main").write_text(COMMIT)
        (folder / "blobs").mkdir()
        snapshot = folder / "snapshots" / COMMIT
        snapshot.mkdir(parents=True)
        for name in names:
            (folder / "blobs" / name).write_text("{}")
            (snapshot / name).symlink_to(f"../../blobs/{name}")
        return snapshot

    return add


@pytest.fixture
def failing(monkeypatch):
    """A function that makes every download raise the given error."""

    def fail(error):
        def snapshot_download(*args, **kwargs):
            raise error

        monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)

    return fail


def http_error(kind):
    """An error as raised by huggingface_hub, without the HTTP response behind it."""
    return kind.__new__(kind)


def test_a_folder_is_itself_also_when_it_looks_like_an_id(tmp_path, monkeypatch, cache):
    cache("org/name", "config.json", "model.safetensors")
    (tmp_path / "org/name").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert hub.resolve("org/name").resolve() == tmp_path / "org/name"
    assert hub.resolve(str(tmp_path / "org")) == tmp_path / "org"


def test_the_home_folder_is_found(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "model").mkdir()
    assert hub.resolve("~/model") == tmp_path / "model"


@pytest.mark.parametrize("name", ["/nowhere/at/all", "nowhere", "a/b/c", "../none", "./org/name"])
def test_a_missing_folder_is_named(name):
    with pytest.raises(UserError, match=r"there is no folder .*\w"):
        hub.resolve(name)


def test_an_id_is_found_in_the_cache(cache):
    snapshot = cache("Qwen/Qwen2-7B-Instruct", "config.json", "model-00001-of-00001.safetensors")
    assert hub.resolve("Qwen/Qwen2-7B-Instruct") == snapshot


def test_config_and_tokenizer_are_enough_without_weights(cache):
    snapshot = cache("org/name", "config.json", "tokenizer.json")
    assert hub.resolve("org/name", weights=False) == snapshot
    with pytest.raises(UserError, match=r"org/name has no model\.safetensors"):
        hub.resolve("org/name")


def test_an_id_that_is_not_in_the_cache_is_told_without_a_network(cache):
    with pytest.raises(UserError, match=r"cannot be reached.*`hf download org/other`") as raised:
        hub.resolve("org/other")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (http_error(errors.GatedRepoError), "gated.*accept its terms.*org/name.*hf auth login"),
        (http_error(errors.RepositoryNotFoundError), "no model org/name.*correct the name"),
        (errors.HFValidationError("bad"), "no model org/name.*correct the name"),
        (errors.LocalEntryNotFoundError("gone\nfor good"), "cannot be reached.*hf download"),
        (TimeoutError("too slow\nby far"), r"cannot fetch org/name \(too slow\).*local folder"),
        (OSError(28, "No space left on device"), "the disk is full"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_what_fails_is_said_in_one_line(failing, error, advice):
    failing(error)
    with pytest.raises(UserError, match=advice) as raised:
        hub.resolve("org/name")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("weights", [False, True])
def test_only_files_without_code_are_fetched(monkeypatch, tmp_path, weights):
    monkeypatch.setattr(huggingface_hub, "list_repo_files", lambda repo_id: [])
    offered = [
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "chat_template.jinja",
        "model-00001-of-00002.safetensors",
        "model.safetensors.index.json",
        "pytorch_model.bin",
        "training_args.bin",
        "modeling_custom.py",
        "consolidated.safetensors",
        "original/params.json",
        "original/consolidated.00.pth",
        "onnx/model.safetensors",
    ]
    fetched = []

    def snapshot_download(repo_id, allow_patterns, ignore_patterns):
        fetched.extend(
            huggingface_hub.utils.filter_repo_objects(
                offered, allow_patterns=allow_patterns, ignore_patterns=ignore_patterns
            )
        )
        (tmp_path / "model.safetensors").touch()
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    hub.resolve("org/name", weights)
    assert fetched == [name for name in offered[:6] if weights or not name.endswith("safetensors")]
