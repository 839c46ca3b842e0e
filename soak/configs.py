"""Fuzzed command lines and config files: accepted, or refused with a one-line error.

Every command has the flag `--show-config`, so that no stage runs. Its exit status must be 0 or 2;
with 2 it prints exactly one line. A field that holds a number must refuse text that is not a finite
number, and show the number that it accepts.
"""

import contextlib
import io
import math
import random
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from soak.command import ROOT
from soak.fuzz import draw_text
from soak.result import Result
from stair_jax import launch
from stair_jax.monitoring import Progress

_CONFIG = str(ROOT / "configs/pocket.py")
_SHOWN = re.compile(r"^config\.(\S+) = (.*)$", re.MULTILINE)
_ERROR = "stair_jax: error: "
# fmt: off
_TEXTS = (
    "nan", "inf", "-inf", "1e400", "-1", "0", "1", "0.5", "1e3", "1_000", "0x10", "\u0661",
    "1" * 5000, "", " ", "None", "True", "no", "null", "[]", "()", "(,)", "{}", "{'a': nan}",
    "('a',)", "'", "[" * 5000, "(" * 100_000, "-" * 5000 + "1", "{" * 300, "lambda: 0",
    "__import__('os')", "/dev/null", "/proc/self/mem", "a/../../b", "a" * 300, "é", "\udcff",
    "a\nb", "%s{0}", "[0]",
)
_VALUES = (  # Python expressions for a config file
    "float('nan')", "float('inf')", "10**400", "10**5000", "-1", "True", "None", "''", "b'a'",
    "'a' * 300", "1j", "[]", "[[]]", "(1, 'a')", "{}", "{1: 2}", "{'a': float('nan')}",
    "{'a': {'b': 1}}", "object()", "print",
    "type", "set()", "range(3)", "'\\x00'", "'\\ud800'", "ConfigDict()",
)
_WORDS = (
    "run", "show", "completion", "rnu", "--", "-", "=", "--=", "--config", "--config=",
    "--workdir", "--workdir=", "--config=nothing.py", "--config=pocket", f"--config={_CONFIG}",
    "--redo", "--config=/", f"--config={_CONFIG}:a", "--redo=sft", "--yes", "--help",
    "--help=sft", "--help=", "--coordinator=a:1", "--num_processes=x", "--process_id=-1",
    "--distributed", "--lengthen=x", "--config.", "--config.=1", "--noconfig.seed",
    "--config.seed", "--config.a..b=1", "--config.seed[0]=1", "--config.stages[99]=sft",
    "--config.stages=('sft', 'sft')", "bash", "/proc",
)
# fmt: on
_BODIES = (
    "",
    "def get_config(): return 1",
    "def get_config(): return {}",
    "def get_config(a): return a",
    "def get_config(): raise SystemExit(0)",
    "def get_config(): return get_config()",
    "def get_config(:",
    "get_config = 3",
    "import nothing_of_this_name",
    "raise ValueError('a\\nb')",
    "x = (" + "(" * 5000,
    "\x00",
    "from ml_collections import ConfigDict\ndef get_config(): return ConfigDict({'stages': 3})",
    "from ml_collections import ConfigDict\ndef get_config(): return ConfigDict()",
)
_WORDS_FOR_NUMBERS = ("None", "True", "False")  # accepted by fields that hold more than numbers
_EDITS = ("_", "x", ".", "", "[0]", "[-1]", "[", "\udce9", " ")


class _Ended(NamedTuple):
    """Exit status and output of a command; the status is text if it raised an exception."""

    status: int | str
    out: str
    err: str


class _Command(NamedTuple):
    """A command line, and the numeric field that it sets to `text`, if any."""

    words: list[str]
    field: str = ""
    text: str = ""


_Fields = Mapping[str, str]  # the value of each field, as `--show-config` writes it
_Kind = Callable[[random.Random, _Fields, Path], _Command]


def run(size: int, seed: int, folder: Path) -> Result:
    """Runs `size` commands; command i is drawn with the seed `seed` + i."""
    result = Result("configs")
    shown = _execute([f"--config={_CONFIG}", "--show-config"])
    fields = dict(_SHOWN.findall(shown.out))
    assert shown.status == 0 and len(fields) > 100, shown
    progress = Progress("configs", size, "commands")
    for number in range(seed, seed + size):
        rng = random.Random(number)
        kind = list(_KINDS)[number % len(_KINDS)]
        command = _KINDS[kind](rng, fields, folder)
        ended = _execute(command.words)
        result.counts[f"{kind} {'refused' if ended.status == 2 else 'accepted'}"] += 1
        for what in _problems(command, ended):
            result.fail(f"{kind}: {what}", number, " ".join(map(repr, command.words))[:300])
        progress.update(number - seed + 1, failures=len(result.failures))
    progress.close()
    return result


def _execute(words: list[str]) -> _Ended:
    """Runs a command in this process; its streams encode text like those of a terminal."""
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", errors) for errors in _ERRORS)
    status: int | str
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = launch.main(["stair-jax", *words])
        except (Exception, SystemExit) as error:
            status = f"{type(error).__name__}: {str(error)[:200]}"
    texts = []
    for stream in (out, err):
        stream.flush()
        texts.append(stream.buffer.getvalue().decode())  # type: ignore[attr-defined]
    return _Ended(status, *texts)


_ERRORS = ("strict", "backslashreplace")  # of stdout and stderr


def _problems(command: _Command, ended: _Ended) -> list[str]:
    """Problems with the exit of a command, one line each."""
    if ended.status not in (0, 2):
        return [f"exited with {ended.status!r}, not with 0 or 2"]
    if ended.status == 0:
        return _taken_problems(command, ended)
    lines = ended.err.splitlines()
    if len(lines) != 1 or not lines[0].startswith(_ERROR) or not lines[0][len(_ERROR) :].strip():
        return [f"printed more than one line, or no error: {lines[:3]}"]
    return []


def _taken_problems(command: _Command, ended: _Ended) -> list[str]:
    """Problems with a number that was accepted, one line each."""
    if not command.field:
        return []
    shown = dict(_SHOWN.findall(ended.out)).get(command.field)
    number = _number(command.text)
    if number is None and command.text.strip() not in _WORDS_FOR_NUMBERS:
        return [f"{command.text[:100]!r} was accepted as a number: {shown}"]
    if number is not None and shown is not None and number != _number(shown):
        return [f"{command.text[:100]!r} is shown as {shown}"]
    return []


def _override(rng: random.Random, fields: _Fields, folder: Path) -> _Command:
    """Sets a field to a text that may not fit its type."""
    field = rng.choice(list(fields))
    text = rng.choice(_TEXTS) if rng.random() < 0.9 else _argument(draw_text(rng, ["nan", "sft"]))
    words = [f"--config={_CONFIG}", "--show-config", f"--config.{field}={text}"]
    return _Command(words, field, text) if _number(fields[field]) is not None else _Command(words)


def _name(rng: random.Random, fields: _Fields, folder: Path) -> _Command:
    """Sets a field with a misspelt name."""
    field = rng.choice(list(fields))
    place = rng.randrange(len(field) + 1)
    edited = field[:place] + rng.choice(_EDITS) + field[place + rng.randrange(2) :]
    word = f"--{rng.choice(('', 'no'))}config.{edited}{rng.choice(('', '=1', '='))}"
    return _Command([f"--config={_CONFIG}", "--show-config", word])


def _file(rng: random.Random, fields: _Fields, folder: Path) -> _Command:
    """A config file that fails, or that sets a field to a value of the wrong type."""
    path = folder / "config.py"
    body = rng.choice(_BODIES)
    if rng.random() < 0.8:
        *section, field = rng.choice(list(fields)).split(".")
        place = "".join(f".setdefault({name!r}, ConfigDict())" for name in section)
        body = (
            "from ml_collections import ConfigDict\n"
            "from stair_jax import recipes\n"
            "def get_config():\n"
            "    config = recipes.get_config('pocket')\n"
            f"    config.unlock(); config = config.to_dict()\n"
            f"    section = config{place}\n"
            f"    section[{field!r}] = {rng.choice(_VALUES)}\n"
            "    return ConfigDict(config)\n"
        )
    path.write_text(body)
    return _Command([f"--config={path}", "--show-config"])


def _words(rng: random.Random, fields: _Fields, folder: Path) -> _Command:
    """Random words."""
    words = [rng.choice(_WORDS) for _ in range(rng.randrange(7))]
    return _Command([*words, "--show-config"])


_KINDS: Mapping[str, _Kind] = {
    "override": _override,
    "name": _name,
    "file": _file,
    "words": _words,
}


def _argument(text: str) -> str:
    """`text` as a command line can contain it: no NUL, valid or surrogate-escaped UTF-8."""
    return text.replace("\x00", "").encode("utf-8", "replace").decode("utf-8", "surrogateescape")


def _number(text: str) -> float | None:
    """The finite number that a text represents; None if it is not one."""
    try:
        number = float(text)
    except ValueError:
        try:
            number = float(int(text, 0))
        except (ValueError, OverflowError):
            return None
    return number if math.isfinite(number) else None
