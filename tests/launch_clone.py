"""A clone for the scripts of launch/, with commands that only write down what they are told."""

import os
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[1]
_STAMPS = ("", "-cuda", "-tpu", "-dev", "-ray", "-cuda,ray", "-tpu,ray")
_USERS = ("STAIR_EXTRA", "STAIR_TOKEN", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "INTERFACE")


def make(folder, fakes):
    """A clone where all is installed, and fakes: texts of bash scripts by name or path."""
    clone = folder / "clone"
    shutil.copytree(ROOT / "launch", clone / "launch")
    for name in ("setup.cfg", "pyproject.toml", "requirements.txt"):
        shutil.copy(ROOT / name, clone)
    for name, text in fakes.items():
        path = clone / name if "/" in name else folder / "bin" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/bash\n{text}\n")
        path.chmod(0o755)
    command = ["bash", "-c", "source launch/environment.sh; installation_id"]
    known = subprocess.run(command, cwd=clone, capture_output=True, text=True, check=True)
    for stamp in _STAMPS:
        (clone / ".venv" / f"installed{stamp}").write_text(known.stdout)
    return clone


def start(clone, script, *arguments, **environment):
    """A script of the clone that runs; its commands write to `log` beside the clone."""
    known = os.environ | {
        "PATH": f"{clone.parent / 'bin'}:{os.environ['PATH']}",
        "LOG": str(clone.parent / "log"),
        "POLL_SECONDS": "0",
        "HOME": str(clone.parent),
    }
    for name in _USERS:
        known.pop(name, None)
    return subprocess.Popen(
        ["bash", clone / "launch" / script, *arguments],
        cwd=clone,
        env=known | environment,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def run(clone, script, *arguments, **environment):
    """The exit status, what was said, and what the commands were told."""
    process = start(clone, script, *arguments, **environment)
    _, said = process.communicate(timeout=30)
    log = clone.parent / "log"
    return process.returncode, said, log.read_text().splitlines() if log.exists() else []
