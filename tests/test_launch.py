"""The command line: what it says of mistakes, and its exit status."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from types import SimpleNamespace

import jax
import pytest

from stair_jax import launch, stages
from stair_jax.errors import UserError, did_you_mean

ROOT = Path(launch.__file__).parents[1]
CONFIG = """
    from ml_collections import ConfigDict

    def get_config(size="3"):
        return ConfigDict({
            "seed": 0,
            "stages": ("work",),
            "work": {"size": int(size), "rate": 0.5, "names": ("a", "b"), "quick": False},
        })
"""


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "config.py"
    path.write_text(textwrap.dedent(CONFIG))
    return path


@pytest.fixture
def work(monkeypatch):
    """A kind of stage whose `run` a test sets."""
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    options = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = {name: getattr(jax.config, name) for name in options}
    module = SimpleNamespace(INPUTS=(), run=lambda context: None)
    monkeypatch.setattr(stages, "KINDS", ("work",))
    monkeypatch.setitem(sys.modules, "stair_jax.stages.work", module)
    yield module
    for name, value in before.items():
        jax.config.update(name, value)


def parse(*arguments):
    return launch.parse(["launch", *map(str, arguments)])


def main(*arguments):
    return launch.main(["launch", *map(str, arguments)])


def test_overrides_have_the_type_of_their_field(config):
    parsed, workdir = parse(
        "--config.work.size=5", "--config.work.rate", "1e-3", f"--config={config}",
        "--workdir", "runs/a", "--config.work.names=('c',)", "--config.work.quick",
    )  # fmt: skip
    assert parsed.work.to_dict() == {"size": 5, "rate": 1e-3, "names": ("c",), "quick": True}
    assert workdir == Path("runs/a")


def test_a_config_may_take_an_argument(config):
    parsed, _ = parse(f"--config={config}:7", "--workdir=w")
    assert parsed.work.size == 7


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ("--workdir=w", "--config.work.sise=1"),
            "config.work has no field sise: did you mean size",
        ),
        (("--workdir=w", "--config.wrok.size=1"), "config has no field wrok: did you mean work"),
        (("--workdir=w", "--config.work.size.x=1"), "config.work.size has no fields"),
        (("--workdir=w", "--noconfig.work.quik"), "did you mean quick"),
        (("--workdir=w", "--config.work.size=many"), "--config.work.size=many: invalid literal"),
        (("--workdir=w", "--config.work.size"), "Missing value for flag --config.work.size"),
        (("--workdri=w",), "'workdri'. Did you mean: workdir"),
        (("--workdir=w", "config.seed=1"), "'config.seed=1' is not a flag"),
        ((), "--workdir is missing"),
        (("--workdir=",), "--workdir is missing"),
    ],
)
def test_wrong_flags_are_named(config, arguments, said):
    with pytest.raises(UserError) as caught:
        parse(f"--config={config}", *arguments)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("def get_config():\n    return nothing", "fails, line 2: NameError"),
        ("x = 1\ndef get_config(:\n", "fails, line 2: SyntaxError"),
        ("import no_such_module", "fails, line 1: ModuleNotFoundError"),
        ("def get_config():\n    return {}['a']", "fails, line 2: KeyError: 'a'"),
        ("def config():\n    return 1", "has no function get_config"),
        ("def get_config():\n    return {}", "gives a dict"),
    ],
)
def test_a_config_file_that_fails_is_named_with_its_line(tmp_path, text, said):
    path = tmp_path / "broken.py"
    path.write_text(text)
    with pytest.raises(UserError, match=str(path)) as caught:
        parse(f"--config={path}", "--workdir=w")
    assert said in str(caught.value)


def test_a_missing_config_is_named():
    with pytest.raises(UserError, match="--config is missing"):
        parse("--workdir=w")
    with pytest.raises(UserError, match=r"no config file configs/nothing\.py"):
        parse("--config=configs/nothing.py", "--workdir=w")


def test_exit_status_of_a_run(config, work, tmp_path, capsys):
    command = (f"--config={config}", f"--workdir={tmp_path / 'w'}")
    assert main(*command) == 0
    assert (tmp_path / "w" / "work" / "complete.json").exists()
    assert main(*command, "--config.work.size=4") == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith(
        "stair_jax: error: the stage work was finished with config.work.size = 3"
    )


def test_a_fault_of_ours_is_not_hidden(config, work, tmp_path):
    def fail(context):
        raise ZeroDivisionError("ours")

    work.run = fail
    with pytest.raises(ZeroDivisionError, match="ours"):
        main(f"--config={config}", f"--workdir={tmp_path / 'w'}")
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_an_error_of_many_lines_is_shown_in_one(config, work, tmp_path, capsys):
    def fail(context):
        raise UserError("first\n  second")

    work.run = fail
    assert main(f"--config={config}", f"--workdir={tmp_path / 'w'}") == 2
    assert capsys.readouterr().err.endswith("stair_jax: error: stage work: first second\n")


def test_compiled_programs_are_kept_in_the_workdir(config, work, tmp_path):
    main(f"--config={config}", f"--workdir={tmp_path / 'w'}")
    folder = Path(jax.config.jax_compilation_cache_dir)
    assert folder.is_absolute() and folder.parent == tmp_path / "w" / ".jax_cache"


def test_compiled_programs_are_not_kept_where_the_field_is_empty(config, work, tmp_path):
    before = jax.config.jax_compilation_cache_dir
    runtime = '"seed": 0, "runtime": {"compilation_cache": ""}'
    config.write_text(config.read_text().replace('"seed": 0', runtime))
    main(f"--config={config}", f"--workdir={tmp_path / 'w'}")
    assert jax.config.jax_compilation_cache_dir == before


def test_help(capsys):
    assert main("--help") == 0
    assert "--config.search.num_iterations=64" in capsys.readouterr().out


def test_did_you_mean():
    assert did_you_mean("serach", ["search", "sft"]) == "did you mean search?"
    assert did_you_mean("xyz", ["b", "a"]) == "known are a, b"
    assert did_you_mean("xyz", []) == "none are known"


def start(*command, **options):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, *map(str, command)],
        env=environment,
        text=True,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        preexec_fn=_heed_interrupts,
        **options,
    )


def _heed_interrupts():
    """A shell lets its background jobs, and so their children, ignore SIGINT."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_the_module_as_a_command(config, tmp_path):
    """A user's mistake: status 2, one line, no traceback."""
    process = start("-m", "stair_jax.launch", f"--config={config}", f"--workdir={tmp_path / 'w'}")
    out, err = process.communicate()
    assert (process.returncode, out) == (2, "")
    assert err.startswith("stair_jax: error: config.stages: there is no kind of stage 'work'")
    assert err.count("\n") == 1


SCRIPT = """
    import pathlib, sys, time, types
    from stair_jax import launch, stages

    def run(context):
        if context.settings.quick:
            raise RuntimeError("a fault of ours")
        (context.folder / "partial").write_text("")
        time.sleep(60)

    stages.KINDS = ("work",)
    sys.modules["stair_jax.stages.work"] = types.SimpleNamespace(INPUTS=(), run=run)
    sys.exit(launch.main())
"""


def test_signals_and_faults_have_their_own_status(config, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(SCRIPT))
    fault = start(
        script, f"--config={config}", f"--workdir={tmp_path / 'f'}", "--config.work.quick"
    )
    stopped = {
        number: start(script, f"--config={config}", f"--workdir={tmp_path / str(number)}")
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    for number, process in stopped.items():
        while not (tmp_path / str(number) / "work" / "partial").exists():
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(number)
        _, err = process.communicate()
        assert process.returncode == 128 + number
        assert err.endswith("the same command goes on where it stopped\n")
        assert "Traceback" not in err
    _, err = fault.communicate()
    assert fault.returncode == 1
    assert "Traceback" in err and "RuntimeError: a fault of ours" in err
