"""Forms of checkpoints that are not read: what they are, and how to convert them."""

import fnmatch
from collections.abc import Iterable
from pathlib import Path

from stair_jax.adapter_folders import CONFIG_FILE, TENSORS_FILE

_SAFETENSORS = "model*.safetensors"
# Meta's own form of Llama, and what torch.save and transformers 4 write.
_PICKLES = ("*.bin", "*.pth", "*.pt", "*.ckpt")
# No weights, although their names end so.
_NO_WEIGHTS = ("training_args.bin", "optimizer.*", "scheduler.*", "rng_state*")


def other_forms(source: str | Path, names: Iterable[str]) -> str:
    """What a checkpoint without safetensors is, and how to convert it; "" if that is not known.

    Args:
        source: the folder or hub id that was named.
        names: of the files in it.
    """
    names = [name for name in names if not _matches(name, _NO_WEIGHTS)]
    if any(fnmatch.fnmatch(name, _SAFETENSORS) for name in names):
        return ""
    if CONFIG_FILE in names:
        return "" if TENSORS_FILE in names else _about_adapters(source, names)
    gguf = [name for name in names if name.lower().endswith(".gguf")]
    if gguf:
        return about_gguf(source, gguf[0])
    pickles = [name for name in names if _matches(name, _PICKLES)]
    if pickles:
        return (
            f"{source} has its weights as pickles ({pickles[0]}), which are never opened, as they "
            f"may run code: convert them with transformers, {_converting(source)}, and name OUT"
        )
    own = [name for name in names if name.endswith(".safetensors")]
    if own:
        return (
            f"{source} has {own[0]}, but no model.safetensors or model-*.safetensors with an "
            f"index: convert it with transformers, {_converting(source)}, and name OUT"
        )
    other = [name for name in names if name.endswith((".msgpack", ".h5", ".onnx"))]
    if other:
        return (
            f"{source} has its weights as {other[0]}, of another framework: name a checkpoint "
            "with safetensors"
        )
    return ""


def _about_adapters(source: str | Path, names: Iterable[str]) -> str:
    pickles = [name for name in names if _matches(name, _PICKLES)]
    if pickles:
        return (
            f"{source} has its adapters in a pickle ({pickles[0]}), which is never opened, as it "
            "may run code: load it with peft, save_pretrained() it, and name that folder"
        )
    return f"{source} has {CONFIG_FILE}, but no {TENSORS_FILE}: name a folder as peft saves it"


def about_file(path: Path) -> str:
    """What to name in place of a file, where a folder is asked for."""
    if path.name.lower().endswith(".gguf"):
        return about_gguf(path.parent, path.name)
    if path.name.endswith(".safetensors"):
        return f"{path} is a file: name its folder {path.parent}, with config.json and tokenizer"
    return other_forms(path.parent, [path.name]) or f"{path} is a file: name a Hugging Face folder"


def about_gguf(source: str | Path, name: str) -> str:
    """What a GGUF file is, and how to convert it."""
    return (
        f"{name} in {source} is a GGUF file, the form of llama.cpp, mostly quantised: name the "
        "checkpoint that it was made of; or convert it with transformers (and gguf installed), "
        f"{_converting(source, f', gguf_file={name!r}')}, and name OUT"
    )


def _converting(source: str | Path, more: str = "") -> str:
    return " and ".join(
        f"{kind}.from_pretrained({str(source)!r}{more}).save_pretrained('OUT')"
        for kind in ("AutoModelForCausalLM", "AutoTokenizer")
    )


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch.fnmatch(name, pattern) for pattern in patterns)
