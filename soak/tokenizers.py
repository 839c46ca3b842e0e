"""Tokenizers for fuzzed text: those of the test suite, and that of the pocket world."""

import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from tokenizers.pre_tokenizers import ByteLevel

from stair_jax import pocket
from stair_jax.text.chat import prepare_tokenizer
from stair_jax.text.tokenizer import Tokenizer, add_tags

_BUILDERS = Path(__file__).parents[1] / "tests" / "text" / "conftest.py"


def tokenizers() -> Iterator[tuple[str, Tokenizer]]:
    """Yields name and tokenizer (with tags) of each model family and of the pocket world."""
    builders = _load(_BUILDERS)
    for name in builders.FAMILIES:
        if name == "stories260K" and not builders.STORIES.is_dir():
            continue  # needs a download
        hf, stop_ids = builders.make(name)
        add_tags(hf, stop_ids)
        yield name, Tokenizer(hf, stop_ids)
    yield "pocket", prepare_tokenizer(Path(*pocket.__path__) / "base")


def keeps_text(tokenizer: Tokenizer) -> bool:
    """Whether `decode` inverts `encode_text`: the vocabulary contains every byte."""
    state = json.loads(tokenizer.hf.backend_tokenizer.to_str())
    is_byte_level = (state["decoder"] or {}).get("type") == "ByteLevel"
    return is_byte_level and set(ByteLevel.alphabet()) <= state["model"]["vocab"].keys()


def _load(path: Path) -> ModuleType:
    """Imports a module of the test suite, which is not a package."""
    spec = importlib.util.spec_from_file_location("soak_builders", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
