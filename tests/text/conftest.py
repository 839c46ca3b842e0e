"""Small tokenizers with the conventions of the supported model families, trained in the tests."""

# ruff: noqa: RUF001 (control tokens of DeepSeek, and look-alikes, are meant)

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import pytest
from tokenizers import AddedToken, Regex, decoders, models, normalizers, processors, trainers
from tokenizers import Tokenizer as Backend
from tokenizers import pre_tokenizers as pre
from transformers import PreTrainedTokenizerFast

from stair_jax.text import template_limits, template_process
from stair_jax.text.tokenizer import Tokenizer, add_tags, load_huggingface

TEMPLATES = Path(__file__).parent / "templates"
STORIES = Path(__file__).parents[3] / "shared/data/stories260K"

_SPLIT = (  # {} digits per word: 1 for Qwen, up to 3 for Llama 3
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{}"
    r"| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_CORPUS = [
    "user\n\nWhat is the first step?\n\nThe first step is an analysis of the problem.\n",
    "system\nYou are a helpful assistant.\n\n\nCutting Knowledge Date: December 2023\n\n",
    "assistant\n  two  spaces\n\n    Title: Look. Final Answer: forty two, 1234567.",
    "Reasoning_step Output begin_of_text im_start think </think> </s> <s> [INST] <<SYS>>",
] * 8


@dataclass(frozen=True)
class Convention:
    """What a model family adds to its vocabulary."""

    template: str
    specials: tuple[str, ...]
    bos: str | None
    eos: str
    pad: str | None = None
    words: tuple[str, ...] = ()  # added tokens that are not special
    stops: tuple[str, ...] = ()  # stop tokens in generation_config.json


_LLAMA3 = (
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|reserved_special_token_0|>",
    "<|reserved_special_token_1|>",
    "<|finetune_right_pad_id|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eom_id|>",
    "<|eot_id|>",
    "<|python_tag|>",
)
_CHATML = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_VISION = ("<|vision_start|>", "<|vision_end|>", "<|vision_pad|>")
_CALLS = ("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>")
_R1 = (
    "<｜end▁of▁sentence｜>",
    "<｜User｜>",
    "<｜Assistant｜>",
    "<｜begin▁of▁sentence｜>",
    "<|EOT|>",
)
_THINK = ("<think>", "</think>")
_MISTRAL = ("<unk>", "<s>", "</s>", "[INST]", "[/INST]")
_LLAMA_STOPS = ("<|end_of_text|>", "<|eom_id|>", "<|eot_id|>")
_QWEN_STOPS = ("<|im_end|>", "<|endoftext|>")

BYTE_LEVEL = {
    "llama3_1": Convention(
        "llama3_1", _LLAMA3, "<|begin_of_text|>", "<|eot_id|>", stops=_LLAMA_STOPS
    ),
    "llama3_2": Convention(
        "llama3_2", _LLAMA3, "<|begin_of_text|>", "<|eot_id|>", stops=_LLAMA_STOPS
    ),
    "qwen2": Convention("qwen2", _CHATML, None, "<|im_end|>", "<|endoftext|>", stops=_QWEN_STOPS),
    "qwen2_5": Convention(
        "qwen2_5",
        (*_CHATML, *_VISION),
        None,
        "<|im_end|>",
        "<|endoftext|>",
        words=_CALLS[:2],
        stops=_QWEN_STOPS,
    ),
    "qwen3": Convention(
        "qwen3",
        (*_CHATML, *_VISION),
        None,
        "<|im_end|>",
        "<|endoftext|>",
        words=(*_CALLS, *_THINK),
        stops=_QWEN_STOPS,
    ),
    "r1_llama": Convention("r1_distill", _R1, _R1[3], _R1[0], _R1[0], words=_THINK),
    "r1_qwen": Convention(
        "r1_distill", (*_R1, *_VISION), _R1[3], _R1[0], _R1[0], words=(*_THINK, *_CALLS[:2])
    ),
    "mistral": Convention("mistral", _MISTRAL, "<s>", "</s>"),
}
FAMILIES = (*BYTE_LEVEL, "llama2", "stories260K")


def _byte_level(convention: Convention, is_qwen: bool) -> PreTrainedTokenizerFast:
    backend = Backend(models.BPE(ignore_merges=not is_qwen))
    split = Regex(_SPLIT.format("" if is_qwen else "{1,3}"))
    backend.pre_tokenizer = pre.Sequence(
        [pre.Split(split, "isolated"), pre.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    backend.decoder = decoders.ByteLevel()
    backend.train_from_iterator(
        _CORPUS,
        trainers.BpeTrainer(
            vocab_size=420,
            initial_alphabet=pre.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    if is_qwen:
        backend.normalizer = normalizers.NFC()
    backend.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token in convention.specials]
    )
    backend.add_tokens(
        [AddedToken(token, special=False, normalized=False) for token in convention.words]
    )
    backend.post_processor = processors.ByteLevel(trim_offsets=False)
    if convention.bos:
        opening = processors.TemplateProcessing(
            single=f"{convention.bos} $A",
            special_tokens=[(convention.bos, backend.token_to_id(convention.bos))],
        )
        backend.post_processor = processors.Sequence([backend.post_processor, opening])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=convention.bos,
        eos_token=convention.eos,
        pad_token=convention.pad,
        clean_up_tokenization_spaces=False,
    )


def _sentencepiece() -> PreTrainedTokenizerFast:
    """Control tokens in the vocabulary, merges that produce one, and byte fallback."""
    control = ["<unk>", "<s>", "</s>"]
    backend = Backend(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    backend.pre_tokenizer = pre.Metaspace(prepend_scheme="first", split=False)
    backend.train_from_iterator(
        _CORPUS,
        trainers.BpeTrainer(
            vocab_size=600,
            special_tokens=[*control, *(f"<0x{byte:02X}>" for byte in range(256))],
            show_progress=False,
        ),
    )
    backend.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    state = json.loads(backend.to_str())
    state["added_tokens"] = [t for t in state["added_tokens"] if t["content"] in control]
    state["model"]["vocab"]["s>"] = len(state["model"]["vocab"])
    state["model"]["merges"] = [["s", ">"], ["<", "s>"], *state["model"]["merges"]]
    return PreTrainedTokenizerFast(
        tokenizer_object=Backend.from_str(json.dumps(state)),
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
    )


def make(name: str) -> tuple[PreTrainedTokenizerFast, list[int]]:
    """The unprepared tokenizer of a checkpoint, with the stop ids of its generation config."""
    if name in BYTE_LEVEL:
        convention = BYTE_LEVEL[name]
        hf = _byte_level(convention, is_qwen="qwen" in name)
        template = convention.template
        stop_ids = [hf.convert_tokens_to_ids(token) for token in convention.stops]
    else:
        hf = load_huggingface(STORIES) if name == "stories260K" else _sentencepiece()
        template, stop_ids = "llama2", []
    hf.chat_template = (TEMPLATES / f"{template}.jinja").read_text()
    return hf, stop_ids


@pytest.fixture(scope="session", params=FAMILIES)
def family(request) -> Tokenizer:
    """The tokenizer of one family, with the tags."""
    if request.param == "stories260K" and not STORIES.is_dir():
        pytest.skip(f"there is no checkpoint at {STORIES}")
    hf, stop_ids = make(request.param)
    assert add_tags(hf, stop_ids) == 4
    hf.name_or_path = request.param
    return Tokenizer(hf, stop_ids)


@pytest.fixture(scope="session", name="make")
def make_fixture():
    """`make(name)`: see above."""
    return make


@pytest.fixture(autouse=True)
def templates_in_this_process(request, monkeypatch):
    """Renders templates without a process for each, which takes a tenth of a second.

    Not in the tests of these processes; elsewhere what is rendered matters, and not where.
    """
    if "limits" in request.path.stem:
        return

    def render(template, variables):
        request = {"template": template, "variables": variables, "characters": 10**6}
        answer = template_process.render(request)
        if "error" in answer:
            raise template_limits.TemplateError(answer["error"])
        return tuple(answer["texts"])

    monkeypatch.setattr(template_limits, "_render", lru_cache(maxsize=None)(render))
