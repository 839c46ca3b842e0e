"""Hostile checkpoints, as edits of a valid folder.

`ATTACKS` are fixed, and shuffled so that a prefix contains all kinds; `draw_attack` returns random
ones.
"""

import itertools
import math
import random
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from soak import edits

_TOKENIZER = "tokenizer.json"
_GENERATION = "generation_config.json"
_SETTINGS = "tokenizer_config.json"


class Attack(NamedTuple):
    """An edit of a folder.

    Attributes:
        kind: what is attacked.
        name: description.
        edit: changes the folder.
        must_refuse: whether loading the folder would be an error.
    """

    kind: str
    name: str
    edit: Callable[[Path], object]
    must_refuse: bool


_COUNTS = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "max_position_embeddings",
)
_REQUIRED = (*_COUNTS[:5], "model_type")
_NUMBERS = ("rope_theta", "rms_norm_eps", "initializer_range")
_MAPPINGS = ("rope_parameters", "rope_scaling")
_OTHERS = (
    "model_type",
    "tie_word_embeddings",
    "layer_types",
    "hidden_act",
    "attention_bias",
    "sliding_window",
    "max_window_layers",
    "use_sliding_window",
    "quantization_config",
    "architectures",
    "torch_dtype",
    "eos_token_id",
)
_FLAGS = ("tie_word_embeddings", "attention_bias")
# Fields for which no value among those below is right, but null.
_NEVER = ("model_type", "layer_types", "hidden_act", "quantization_config")
# fmt: off
_VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 10**9, 10**30, 0.5, -1e9, 1e308, math.nan, math.inf,
    "no", "1", "", "\ud800", "a" * 10_000, [], [1], ["a", None], [[[[]]]], {}, {"a": 1},
    {"rope_type": "yarn"}, {"rope_type": ["a"]}, {"rope_type": "llama3", "factor": "a"},
    {"rope_theta": "a"}, {"rope_theta": math.nan},
)
_JSON = (
    b"", b"[]", b"3", b"null", b"{", b"\xff\xfe{\x00}\x00", b"\xef\xbb\xbf{}", b'{"a": 1} x',
    b"{}", b'{"a": "\\ud800"}',
)
# fmt: on
_DEEP = b"[" * 200_000 + b"]" * 200_000
_RAW_HEADERS = (
    ("empty", b"", None),
    ("no JSON", b"{" * 50, None),
    ("a list", b"[]", None),
    ("deep", _DEEP, None),
    ("longer than the file", b"{}", 2**40),
    ("as long as can be", b"{}", 2**64 - 1),
    ("shorter than it says", b"{}", 1),
)
_TENSORS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("offsets beyond the file", {"data_offsets": [0, 2**40]}),
    ("negative offsets", {"data_offsets": [-8, 0]}),
    ("offsets that are text", {"data_offsets": ["a", "b"]}),
    ("one offset", {"data_offsets": [0]}),
    ("a shape that is too large", {"shape": [2**40, 2**40]}),
    ("a negative shape", {"shape": [-1, -1]}),
    ("an empty shape", {"shape": []}),
    ("a shape of a fraction", {"shape": [1.5]}),
    ("a dtype that is unknown", {"dtype": "X9"}),
    ("a dtype that is a list", {"dtype": []}),
)
_HEADERS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("a tensor that is a number", {"odd": 3}),
    ("a tensor of no name", {"": {"dtype": "F32", "shape": [], "data_offsets": [0, 4]}}),
    ("metadata that are a list", {"__metadata__": [1]}),
)
_PATHS: tuple[Any, ...] = (
    f"../{edits.OUTSIDE}",
    "/etc/passwd",
    "",
    ".",
    "..",
    "./shard.safetensors",
    "a\x00b",
    "a" * 300,
    "missing.safetensors",
    edits.CONFIG,
    3,
    None,
    [],
    {"a": 1},
)
_PICKLES = ("pytorch_model.bin", "model.pt", "training_args.bin", "tokenizer.pkl")
_ESCAPES = (
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ self.__init__.__globals__.__builtins__.open('MARKER', 'w') }}",
    "{{ cycler.__init__.__globals__.os.system('touch MARKER') }}",
    "{{ lipsum.__globals__['os'].popen('touch MARKER') }}",
    "{{ messages.__class__.__base__ }}",
    "{% include '/etc/passwd' %}",
    "{% import 'os' as os %}",
    "{{ raise_exception('no') }}",
    "{{ messages[0]['content'] }}{{ messages[0]['content'] }}",
    "{{ undefined.a.b }}",
    "{% for %}",
)
_ENDLESS = (
    "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "{{ 'a' * 3000000000 }}{{ messages[0]['content'] }}",
    "{% for a in range(99999) %}{{ 'a' * 99999 }}{% endfor %}{{ messages[0]['content'] }}",
)


def _is_valid(field: str, value: Any) -> bool:
    """Whether a value of a field of config.json is valid; True for fields without a rule here."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if value is None:
        return field not in _REQUIRED
    if field in _COUNTS:
        return is_number and isinstance(value, int) and value >= 1
    if field in _NUMBERS:
        is_in_range = is_number and math.isfinite(value) and value >= 0
        return is_in_range and (value > 0 or field != "rope_theta")
    if field in _MAPPINGS:
        return bool(value == {})  # all others among the values are incomplete or of no known kind
    if field in _FLAGS:
        return isinstance(value, bool) and (value is False or field == "tie_word_embeddings")
    if field == "sliding_window":  # one of Llama, which has none
        return False
    return field not in _NEVER


def _fields() -> Iterator[Attack]:
    for field, value in itertools.product((*_COUNTS, *_NUMBERS, *_MAPPINGS, *_OTHERS), _VALUES):
        edit = partial(edits.set_field, field, value)
        yield Attack("config", f"{field} = {value!r:.60}", edit, not _is_valid(field, value))


def _files() -> Iterator[Attack]:
    read_as_json = (edits.CONFIG, _TOKENIZER, _SETTINGS, _GENERATION, edits.INDEX, edits.CHAT)
    for file, content in itertools.product(read_as_json, (*_JSON, _DEEP)):
        kind = "depth" if content == _DEEP else "json"
        name = f"{file} holds {content[:20]!r} ({len(content)} bytes)"
        is_needed = file in (edits.CONFIG, _TOKENIZER)
        yield Attack(kind, name, partial(edits.write, file, content), is_needed)
    for file in (edits.CONFIG, _TOKENIZER, edits.WEIGHTS):
        yield Attack("pipe", f"{file} is a pipe", partial(edits.make_pipe, file), True)
        yield Attack("link", f"{file} is a folder", partial(edits.make_folder, file), True)
        for kind, target in (("link", file), ("link", "/dev/null"), ("device", "/dev/zero")):
            edit = partial(edits.make_link, file, target)
            yield Attack(kind, f"{file} is a link to {target}", edit, True)


def _weights() -> Iterator[Attack]:
    for name, values in _TENSORS:
        yield Attack("header", name, partial(edits.change_tensor, values), True)
    for name, values in _HEADERS:
        yield Attack("header", name, partial(edits.change_header, values), True)
    for name, encoded, length in _RAW_HEADERS:
        edit = partial(edits.put_header, encoded, length)
        yield Attack("header", f"the header is {name}", edit, True)
    for path in _PATHS:
        edit = partial(edits.name_in_index, path)
        yield Attack("index", f"the index names {path!r:.60}", edit, True)


def _code() -> Iterator[Attack]:
    for name, is_alone in itertools.product(_PICKLES, (False, True)):
        edit = partial(edits.add_pickle, name, is_alone)
        where = "in place of" if is_alone else "beside"
        yield Attack("code", f"{name} {where} the weights", edit, is_alone)
    yield Attack("code", "auto_map names code", edits.add_code, False)
    for text in _ESCAPES:
        edit = partial(edits.set_template, text)
        yield Attack("template", f"the template is {text}", edit, True)
    for text in _ENDLESS:
        edit = partial(edits.set_template, text)
        yield Attack("endless template", f"the template is {text}", edit, True)


def _shuffled(attacks: list[Attack]) -> tuple[Attack, ...]:
    return tuple(random.Random(0).sample(attacks, len(attacks)))


ATTACKS = _shuffled([*_fields(), *_files(), *_weights(), *_code()])
KINDS = tuple(sorted({attack.kind for attack in ATTACKS} | {"flip", "fuzz"}))


def draw_attack(rng: random.Random) -> Attack:
    """Random bytes in the header of the weights, or a hostile value anywhere in a JSON file."""
    if rng.random() < 0.4:
        places = [(rng.random(), rng.randrange(256)) for _ in range(rng.choice((1, 1, 1, 2, 9)))]
        name = f"{len(places)} random bytes in the header"
        return Attack("flip", name, partial(edits.flip_header, places), False)
    file = rng.choice((_TOKENIZER, _TOKENIZER, _SETTINGS, _GENERATION))
    value = rng.choice(_VALUES)
    edit = partial(edits.replace_somewhere, file, value, rng.random())
    return Attack("fuzz", f"{value!r:.60} somewhere in {file}", edit, False)
