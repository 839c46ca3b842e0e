"""Checkpoints of other forms are named for what they are, with the way to convert them."""

import huggingface_hub
import pytest

from stair_jax.errors import UserError
from stair_jax.models.huggingface import hub
from stair_jax.models.huggingface.safetensors_files import CheckpointFiles

ANY = ["config.json", "tokenizer.json"]


def make(folder, names):
    folder.mkdir(parents=True)
    for name in names:
        (folder / name).write_text("{}")
    return folder


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["a-Q4_K_M.gguf"], r"a-Q4_K_M.gguf in .*m is a GGUF file.*gguf_file='a-Q4_K_M.gguf'"),
        ([*ANY, "pytorch_model.bin"], r"pickles \(pytorch_model.bin\).* AutoModelForCausalLM"),
        ([*ANY, "pytorch_model-00001-of-00002.bin"], "pickles"),
        (["consolidated.00.pth", "params.json"], r"pickles \(consolidated.00.pth\)"),
        ([*ANY, "consolidated.safetensors"], "no model.safetensors .* convert it"),
        (["adapter_config.json", "adapter_model.bin"], r"adapters in a pickle \(adapter_model.bin"),
        (["adapter_config.json"], "no adapter_model.safetensors: name a folder as peft saves it"),
        ([*ANY, "tf_model.h5"], "tf_model.h5, of another framework"),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else "",
)
@pytest.mark.parametrize("weights", [True, False])
def test_a_folder_of_another_form_says_what_it_is(tmp_path, names, said, weights):
    folder = make(tmp_path / "m", names)
    with pytest.raises(UserError, match=said) as caught:
        hub.resolve(str(folder), weights)
    assert len(str(caught.value).splitlines()) == 1
    with pytest.raises(UserError, match=said):
        CheckpointFiles(folder)


@pytest.mark.parametrize(
    "names",
    [
        [*ANY, "model.safetensors", "pytorch_model.bin", "a.gguf"],
        [*ANY, "model-00001-of-00002.safetensors", "adapter_config.json"],
        [*ANY, "training_args.bin", "optimizer.pt"],
        ANY,
        [],
    ],
    ids=str,
)
def test_safetensors_and_folders_without_weights_are_not_refused(tmp_path, names):
    folder = make(tmp_path / "m", names)
    assert hub.resolve(str(folder), weights=False) == folder


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("a.gguf", "a.gguf in .* GGUF"),
        ("pytorch_model.bin", "pickles"),
        ("model.safetensors", "is a file: name its folder"),
        ("notes.txt", "is a file: name a Hugging Face folder"),
    ],
)
def test_a_file_says_what_to_name_instead(tmp_path, name, said):
    folder = make(tmp_path / "m", [name])
    with pytest.raises(UserError, match=said):
        hub.resolve(str(folder / name))


def test_a_web_page_is_named_by_its_id():
    for page in ("https://huggingface.co/Qwen/Q", "https://huggingface.co/Qwen/Q/tree/main"):
        with pytest.raises(UserError, match="name the model Qwen/Q itself"):
            hub.resolve(page)


@pytest.mark.parametrize("weights", [True, False])
def test_a_model_of_the_hub_says_what_it_is(tmp_path, monkeypatch, weights):
    found = make(tmp_path / "snapshot", [] if not weights else ANY)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *a, **k: str(found))
    monkeypatch.setattr(huggingface_hub, "list_repo_files", lambda name: ["a.gguf", "README.md"])
    with pytest.raises(UserError, match=r"a.gguf in owner/name is a GGUF file"):
        hub.resolve("owner/name", weights)
