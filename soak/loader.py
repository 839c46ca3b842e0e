"""Loads checkpoints that may be hostile, in a separate process with limits of time and memory.

`python -m soak.loader` reads one path per line, and answers each with one line of JSON.
"""

import hashlib
import json
import os
import resource
import select
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from soak.command import ROOT
from stair_jax.closing import Closing
from stair_jax.errors import UserError
from stair_jax.models import huggingface
from stair_jax.text.chat import encode_prompt, prepare_tokenizer

_MEMORY = 4 * 2**30  # bytes of data, of the process
# For one folder: a template may take its two seconds of the processor, on a machine that is busy.
_SECONDS = 60.0
_STATUS = Path("/proc/self/status")
_RESET_PEAK = Path("/proc/self/clear_refs")


class Loaded(NamedTuple):
    """Outcome of loading a folder.

    Attributes:
        outcome: "loaded", "refused" (a UserError), "raised" (any other exception), "hung" (time
            limit exceeded) or "died" (the process has ended).
        text: the error message; if loaded, a hash of the parameters.
        megabytes: increase of the resident memory at its peak.
    """

    outcome: str
    text: str
    megabytes: float = 0.0


def load(folder: Path) -> Loaded:
    """Loads a folder in this process: tokenizer, chat template, config, parameters."""
    _RESET_PEAK.write_text("5")
    before = _peak()
    outcome, text = _load(folder)
    return Loaded(outcome, text, _peak() - before)


def _load(folder: Path) -> tuple[str, str]:
    """Outcome and text of `Loaded`."""
    try:
        tokenizer = prepare_tokenizer(folder)
        if tokenizer.hf.chat_template:
            encode_prompt(tokenizer, "step")
        config = huggingface.load_config(folder)
        params = huggingface.load_params(folder, config)
    except UserError as error:
        return "refused", str(error)
    except (Exception, SystemExit) as error:
        return "raised", f"{type(error).__name__}: {str(error)[:300]}"
    return "loaded", _digest(params)


def _peak() -> float:
    """Peak of the resident memory since the last reset, in MB."""
    lines = _STATUS.read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:"))


def _digest(params: Any) -> str:
    digest = hashlib.sha256()
    for path, value in jax.tree_util.tree_leaves_with_path(params):
        digest.update(jax.tree_util.keystr(path).encode())
        digest.update(np.asarray(value).tobytes())
    return digest.hexdigest()


class Loader(Closing):
    """A process that loads folders; it is replaced when a folder hangs or kills it."""

    def __init__(self, seconds: float = _SECONDS):
        """The process starts with the first folder; `seconds` is the limit for one folder."""
        self._seconds = seconds
        self._process: subprocess.Popen[str] | None = None

    def close(self) -> None:
        """Ends the process."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def load(self, folder: Path) -> Loaded:
        """Loads a folder."""
        process = self._process or self._start()
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(f"{folder}\n")
        process.stdin.flush()
        if not select.select([process.stdout], [], [], self._seconds)[0]:
            self.close()
            return Loaded("hung", f"took longer than {self._seconds:.0f} s")
        line = process.stdout.readline()
        if not line:
            status = process.wait()
            self.close()
            return Loaded(
                "died",
                f"the process ended with {status}",
            )
        return Loaded(*json.loads(line))

    def _start(self) -> "subprocess.Popen[str]":
        self._process = subprocess.Popen(
            [sys.executable, "-m", "soak.loader"],
            cwd=ROOT,
            env=os.environ | {"JAX_PLATFORMS": "cpu"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n", "the loader does not start"
        return self._process


def main() -> None:
    """Answers until the input ends."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # output of libraries must not mix with the answers
    resource.setrlimit(resource.RLIMIT_DATA, (_MEMORY, _MEMORY))
    jax.devices()
    print("ready", file=out, flush=True)
    for line in sys.stdin:
        loaded = load(Path(line.removesuffix("\n")))
        print(json.dumps(loaded, default=str), file=out, flush=True)


if __name__ == "__main__":
    main()
