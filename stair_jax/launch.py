"""The command: runs the stages of a config in a working folder.

    python -m stair_jax.launch --config=configs/pocket.py --workdir=runs/pocket
        [--config.search.num_iterations=64 ...]

Running the same command again goes on where it stopped. Whether a run will fit is told without
weights, data or the devices themselves, and nothing is written:

    python -m stair_jax.launch --config=configs/pocket.py --plan=v5p:2x2x1

compiles every jitted step for a TPU slice (v4:2x2x1, v5p:2x2x1, v5e:4x4, v6e:4x4 and other shapes)
or for this machine (local), and prints the memory, FLOPs and least time of each.

A run over several hosts is the same command on each of them, with the same shared working folder,
and either --distributed on a TPU slice, under SLURM or in Kubernetes, where the processes find each
other, or --coordinator=host:port --num_processes=N --process_id=I (process 0 is at host:port).
--start_timeout (300) is how long they wait for each other, --heartbeat_timeout (900) how long a
machine may give no sign of life; both in seconds. docs/clusters.md tells more.

Exit status: 0 done; 2 a mistake that the user can correct (one line says what); 3 a plan that does
not fit; 4 another process of the run was lost, start all again; 1 a fault of ours (with a
traceback); 130 or 143 stopped from outside (Ctrl-C or SIGTERM).
"""

import os
import platform
import re
import runpy
import signal
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from stair_jax.errors import UserError, did_you_mean
from stair_jax.parallel import distributed
from stair_jax.parallel.cluster import join, take_flags
from stair_jax.parallel.peers import LOST, Peers
from stair_jax.storage import fingerprint

_QUIET = {
    "TF_CPP_MIN_LOG_LEVEL": "2",  # TensorFlow's and XLA's notes to their developers
    "TOKENIZERS_PARALLELISM": "false",  # else a warning at each fork
}
_OVERRIDE = re.compile(r"--?(?:no)?config\.([^=]+)")
_DOES_NOT_FIT = 3


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    before = signal.signal(signal.SIGTERM, _on_sigterm)
    argv = list(sys.argv if argv is None else argv)
    is_plan = _take(argv, "plan")[0] is not None
    then = "nothing was written" if is_plan else "the same command goes on where it stopped"
    line = _Line()
    try:
        return _run(argv, line)
    except UserError as error:
        return line.end(2, f"error: {' '.join(str(error).split())}")
    except distributed.LostProcess as error:
        return line.end(LOST, f"{error}; the same command goes on where it stopped")
    except KeyboardInterrupt:
        return line.end(128 + signal.SIGINT, f"interrupted: {then}")
    except _Terminated:
        return line.end(128 + signal.SIGTERM, f"terminated: {then}")
    except Exception as error:
        line.fail(error)
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


class _Line:
    """What this process says at its end, to the user and to the other processes of the run."""

    def __init__(self) -> None:
        self.peers: Peers | None = None

    def end(self, status: int, text: str) -> int:
        """Says how it ends; with other processes, it ends here."""
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if self.peers is None:
            print(f"stair_jax: {text}", file=sys.stderr, flush=True)
            return status
        if status == 2 and not distributed.is_main():
            self.peers.settle()  # most mistakes are everybody's: the first one tells
        self._leave(self.peers, status, text)
        raise AssertionError("a process that left is still there")

    def fail(self, error: Exception) -> None:
        """With other processes, ends here with a traceback, unless it is their end that shows."""
        if self.peers is not None:
            self.peers.settle()
            traceback.print_exc()
            self._leave(self.peers, 1, f"{type(error).__name__}: {error}"[:500])

    def _leave(self, peers: Peers, status: int, text: str) -> None:
        """Ends the process without JAX's own end, which waits for the others."""
        who = f"process {distributed.process_index()} of {distributed.num_processes()}"
        print(f"stair_jax: {who}: {text}", file=sys.stderr, flush=True)
        peers.leave(status, text)
        sys.stdout.flush()
        os._exit(status)


class _Terminated(BaseException):
    """SIGTERM came: leave by way of every `finally`."""


def _on_sigterm(number: int, frame: FrameType | None) -> None:
    raise _Terminated


def _run(argv: list[str], line: _Line) -> int:
    """Does what the command line says; returns the exit status."""
    if {"-h", "-help", "--help", "--helpfull"} & set(argv):
        print(__doc__)
        return 0
    topology, argv = _take(argv, "plan")
    if topology is not None:
        return _plan(argv, topology)
    cluster, argv = take_flags(argv)
    config, workdir = parse(argv)
    _use_compilation_cache(config, workdir)
    if cluster is not None:
        line.peers = join(cluster)
        signal.signal(signal.SIGTERM, _on_sigterm)  # JAX has put its own in this place
    from stair_jax import pipeline  # the flags are checked before anything slow is imported

    pipeline.run(config, workdir)
    if line.peers is not None:
        distributed.barrier("the end of the run", distributed.PATIENCE)
        line.peers.leave(0)
    return 0


def _plan(argv: Sequence[str], topology: str) -> int:
    config = parse_config(argv)
    from stair_jax import planner

    return 0 if planner.plan(config, topology) else _DOES_NOT_FIT


def _use_compilation_cache(config: ConfigDict, workdir: Path) -> None:
    """Keeps compiled programs for the next start, in `runtime.compilation_cache` or the workdir.

    An empty field turns it off; JAX's own environment variable counts more. XLA compiles for the
    very processor that it runs on, so that each kind of processor has a folder of its own.
    """
    folder = (config.get("runtime") or {}).get("compilation_cache")
    if folder is None:
        folder = workdir / ".jax_cache"
    if not folder or "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    import jax

    own = Path(folder).expanduser().absolute() / fingerprint(_processor())[:12]
    jax.config.update("jax_compilation_cache_dir", str(own))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


def _processor() -> list[str]:
    """The architecture of this machine's processor, and its features where Linux lists them."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    features = [line for line in lines if line.lower().startswith(("flags", "features"))]
    return [platform.machine(), *features[:1]]


def parse(argv: Sequence[str]) -> tuple[ConfigDict, Path]:
    """The config, with its overrides, and the working folder that a command line names.

    Args:
      argv: the command line, the name of the program first.

    Raises:
      UserError: a flag is missing, unknown or has a wrong value; the config file cannot be read.
    """
    config, workdir = _parse(argv)
    if not workdir:
        raise UserError("--workdir is missing: name the folder of the run, e.g. --workdir=runs/a")
    return config, Path(workdir)


def parse_config(argv: Sequence[str]) -> ConfigDict:
    """The config of a command line that needs no working folder; otherwise as `parse`."""
    return _parse(argv)[0]


def _parse(argv: Sequence[str]) -> tuple[ConfigDict, str | None]:
    path, rest = _take(argv, "config")
    if not path:
        raise UserError("--config is missing: name a config file, e.g. --config=configs/pocket.py")
    config = _load_config(path)
    _check_overrides(config, rest)
    values = flags.FlagValues()
    workdir = flags.DEFINE_string("workdir", None, "Folder of the run.", flag_values=values)
    try:
        config_flags.DEFINE_config_dict("config", config, flag_values=values, sys_argv=rest)
        unused = values(rest)[1:]
    except (flags.Error, TypeError, ValueError, LookupError, AttributeError) as error:
        raise UserError(f"{error} (--help shows the usage)") from error
    if unused:
        raise UserError(f"{unused[0]!r} is not a flag: overrides look like --config.seed=1")
    return values["config"].value, workdir.value


def _take(argv: Sequence[str], flag: str) -> tuple[str | None, list[str]]:
    """The value of --flag (None: it is not there), and the command line without it."""
    rest = list(argv)
    for index, argument in enumerate(rest):
        name, equals, value = argument.partition("=")
        if name not in (f"--{flag}", f"-{flag}"):
            continue
        del rest[index]
        if not equals and index < len(rest):
            value = rest.pop(index)
        return value, rest
    return None, rest


def _load_config(path: str) -> ConfigDict:
    """Runs `get_config()` of a config file; what follows a colon in `path` is its argument.

    The file may import its neighbours.
    """
    file, *arguments = path.split(":", 1)
    if not Path(file).is_file():
        raise UserError(f"there is no config file {file}")
    folder = str(Path(file).parent.absolute())
    sys.path.insert(0, folder)
    try:
        config = runpy.run_path(file)["get_config"](*arguments)
    except KeyError as error:
        if error.args != ("get_config",):
            raise UserError(_config_fault(file, error)) from error
        raise UserError(f"the config file {file} has no function get_config()") from error
    except Exception as error:
        raise UserError(_config_fault(file, error)) from error
    finally:
        sys.path.remove(folder)
    if not isinstance(config, ConfigDict):
        raise UserError(
            f"get_config() of {file} gives a {type(config).__name__}, "
            "and has to give an ml_collections.ConfigDict"
        )
    return config


def _config_fault(file: str, error: Exception) -> str:
    """What went wrong in a config file, with the line in it."""
    lines: list[Any] = [
        frame.lineno
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename == file
    ]
    if isinstance(error, SyntaxError):
        lines.append(error.lineno)
    where = f", line {lines[-1]}" if lines else ""
    return f"the config file {file} fails{where}: {type(error).__name__}: {error}"


def _check_overrides(config: ConfigDict, argv: Sequence[str]) -> None:
    """Looks for each --config.a.b=value whether the config has that field."""
    for argument in argv:
        match = _OVERRIDE.match(argument)
        section: Any = config
        where = "config"
        for part in match.group(1).split(".") if match else ():
            field = part.partition("[")[0]
            if not isinstance(section, ConfigDict):
                raise UserError(f"{argument}: {where} has no fields")
            if field not in section:
                hint = did_you_mean(field, section.keys())
                raise UserError(f"{argument}: {where} has no field {field}: {hint}")
            if field != part:
                break  # an index into a tuple: config_flags looks at it
            section = section[field]
            where += f".{part}"


if __name__ == "__main__":
    sys.exit(main())
