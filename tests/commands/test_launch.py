"""The command line: what it says of mistakes, and its exit status."""

import io
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import jax
import pytest

from stair_jax import launch, storage
from stair_jax.commands import help as help_pages
from stair_jax.commands import plan as plan_command
from stair_jax.commands import run as run_command
from stair_jax.commands.config_file import load_config
from stair_jax.commands.flags import take_overrides
from stair_jax.errors import UserError, did_you_mean
from stair_jax.run.run_config import read_config
from stair_jax.run.stage import Stage
from stair_jax.settings import setting

ROOT = Path(launch.__file__).parents[1]
CONFIG = """
    from ml_collections import ConfigDict

    def get_config(size="3"):
        return ConfigDict({
            "seed": 0,
            "stages": ("work",),
            "work": {"size": int(size), "rate": 0.5, "names": ("a", "b")},
        })
"""


@dataclass(frozen=True)
class Work(Stage):
    """Does what a test says.

    Attributes:
      size: a number.
      rate: another one.
      names: some texts.
      quick: a choice.
      rates: of some names.
      limit: a number or none.
    """

    size: int = setting(1, most=1000)
    rate: float = 0.1
    names: tuple[str, ...] = ()
    quick: bool = False
    rates: Mapping[str, float] | None = None
    limit: int | None = None
    act: ClassVar[Callable] = staticmethod(lambda context: None)

    def run(self, context):
        self.act(context)


STAGES = {"work": Work}


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "config.py"
    path.write_text(textwrap.dedent(CONFIG))
    return path


@pytest.fixture
def work(monkeypatch):
    """A kind of stage whose `act` a test sets."""
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    options = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = {name: getattr(jax.config, name) for name in options}
    for module in (run_command, plan_command, help_pages):
        monkeypatch.setattr(module, "STAGES", STAGES)
    monkeypatch.setattr(Work, "act", staticmethod(lambda context: None))
    yield Work
    for name, value in before.items():
        jax.config.update(name, value)


def parse(path, *arguments):
    overrides, rest = take_overrides(list(map(str, arguments)))
    assert not rest
    return read_config(load_config(str(path)), STAGES, overrides)


def main(*arguments):
    return launch.main(["stair-jax", *map(str, arguments)])


def test_overrides_have_the_type_of_their_field(config):
    parsed = parse(
        config, "--config.work.size=5", "--config.work.rate", "1e-3",
        "--config.work.names=('c',)", "--config.work.quick", "--config.work.limit=7",
        "--config.work.rates.a=2",
    )  # fmt: skip
    (entry,) = parsed.stages
    assert entry.stage == Work(5, 1e-3, ("c",), True, {"a": 2.0}, 7)


@pytest.mark.parametrize(
    ("argument", "field", "value"),
    [
        ("--config.work.names=c, d", "names", ("c", "d")),
        ("--config.work.names=", "names", ()),
        ("--config.work.names[1]=c", "names", ("a", "c")),
        ("--config.work.rate=3", "rate", 3.0),
        ("--config.work.quick=yes", "quick", True),
        ("--noconfig.work.quick", "quick", False),
        ("--config.work.limit=None", "limit", None),
        ("--config.work.rates={'a': 1, 'b': 0.5}", "rates", {"a": 1.0, "b": 0.5}),
        ("--config.work.rates=None", "rates", None),
    ],
)
def test_forms_of_values(config, argument, field, value):
    (entry,) = parse(config, argument).stages
    assert getattr(entry.stage, field) == value


def test_a_config_may_take_an_argument(config):
    assert parse(f"{config}:7").stages[0].stage.size == 7


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--config.work.sise=1",), "config.work has no field sise: did you mean size"),
        (("--config.wrok.size=1",), "config has no field wrok: did you mean work"),
        (("--config.size=1",), "config has no field size: did you mean config.work.size?"),
        (("--config.work.size.x=1",), "config.work.size has no fields"),
        (("--noconfig.work.quik",), "did you mean quick"),
        (("--config.work.size=many",), "--config.work.size=many: size is 'many': it must be a wh"),
        (("--config.work.size=1001",), "config.work.size is 1001: it must be at most 1000"),
        (("--config.work.rate=nan",), "rate is 'nan': it must be a finite number"),
        (("--config.work.rates.a=x",), "it must be a finite number"),
        (("--config.work.names[2]=c",), "names has 2 items, counted from 0"),
        (("--config.work.limit[0]=1",), "limit has no items: set it as a whole"),
        (("--config.work.size",), "--config.work.size has no value"),
        (("--config.work=1",), "config.work is a section: set its fields"),
        (("--config.stages=wrok",), "no kind of stage 'wrok': did you mean work"),
    ],
)
def test_wrong_overrides_are_named(config, arguments, said):
    with pytest.raises(UserError) as caught:
        parse(config, *arguments)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--workdri=w",), "stair-jax run has no flag --workdri: did you mean --workdir?"),
        (("--workdir=w", "config.seed=1"), "there is no command"),
        (("--workdir=w", "--yes", "config.seed=1"), "'config.seed=1' is not a flag"),
        ((), "--workdir is missing"),
        (("--workdir=",), "--workdir is missing"),
        (("shwo", "w"), "there is no command 'shwo': did you mean show?"),
        (("--num_processes=x",), "invalid int value: 'x'"),
    ],
)
def test_wrong_flags_are_named(config, work, capsys, arguments, said):
    words = arguments if "shwo" in arguments else (f"--config={config}", *arguments)
    if said == "there is no command":
        words = ("config.seed=1", *words)
    assert main(*words) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("def get_config():\n    return nothing", "fails, line 2: NameError"),
        ("x = 1\ndef get_config(:\n", "fails, line 2: SyntaxError"),
        ("import no_such_module", "fails, line 1: ModuleNotFoundError"),
        ("def get_config():\n    return {}['a']", "fails, line 2: KeyError: 'a'"),
        ("import sys\nsys.exit(0)", "fails, line 2: SystemExit: 0"),
        ("def config():\n    return 1", "has no function get_config"),
        ("def get_config():\n    return {}", "gives a dict"),
    ],
)
def test_a_config_file_that_fails_is_named_with_its_line(tmp_path, text, said):
    path = tmp_path / "broken.py"
    path.write_text(text)
    with pytest.raises(UserError, match=str(path)) as caught:
        parse(path)
    assert said in str(caught.value)


def test_a_missing_config_is_named():
    with pytest.raises(UserError, match="--config is missing"):
        load_config(None)
    with pytest.raises(UserError, match=r"no config file configs/nothing\.py"):
        load_config("configs/nothing.py")
    with pytest.raises(UserError, match=r"no config file llama8b_stiar; .* did you mean llama8b_s"):
        load_config("llama8b_stiar")


def test_a_recipe_is_known_by_its_name():
    assert load_config("pocket").to_dict() == load_config(str(ROOT / "configs/pocket.py")).to_dict()


def test_exit_status_of_a_run(config, work, tmp_path, capsys):
    command = (f"--config={config}", f"--workdir={tmp_path / 'w'}")
    assert main(*command) == 0
    assert (tmp_path / "w" / "work" / "complete.json").exists()
    assert main(*command, "--config.work.size=4") == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith(
        "stair_jax: error: the stage work was finished with config.work.size = 3"
    )


def test_a_run_that_is_done_says_where_its_report_is(config, work, tmp_path, capsys):
    command = (f"--config={config}", f"--workdir={tmp_path / 'w'}")
    report = tmp_path / "w" / "report.html"
    assert main(*command, "--config.runtime.report=False") == 0
    assert not report.exists() and "report" not in capsys.readouterr().err
    assert main(*command) == 0  # nothing else is left to do
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"report: {report}")
    written = report.stat().st_mtime_ns
    assert main(*command) == 0  # and here neither is the report
    assert report.stat().st_mtime_ns == written


def test_a_fault_of_ours_is_not_hidden(config, work, tmp_path):
    def fail(context):
        raise ZeroDivisionError("ours")

    work.act = staticmethod(fail)
    with pytest.raises(ZeroDivisionError, match="ours"):
        main(f"--config={config}", f"--workdir={tmp_path / 'w'}")
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_an_error_of_many_lines_is_shown_in_one(config, work, tmp_path, capsys):
    def fail(context):
        raise UserError("first\n  second")

    work.act = staticmethod(fail)
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


def test_help_lists_the_commands_and_the_stages(capsys):
    assert main("--help") == 0
    shown = capsys.readouterr().out
    for word in ("run", "plan", "show", "completion", "sft", "evaluate", "runtime"):
        assert f"\n  {word} " in shown


def test_help_of_a_stage_has_each_field_with_type_default_and_text(work, capsys):
    assert main("--help=work") == 0
    shown = capsys.readouterr().out
    assert "--config.work.size=1\n    a whole number at most 1000. a number.\n" in shown
    assert "--config.work.limit=None\n    a whole number or None. a number or none.\n" in shown


def test_help_of_a_command_and_of_nothing(capsys):
    assert main("run", "--help") == 0 and main("--help=plan") == 0
    shown = capsys.readouterr().out
    assert "--redo STAGE" in shown and "--heartbeat_timeout" in shown and "--topology" in shown
    assert main("--help=serach") == 2
    assert "no such stage or command: did you mean search?" in capsys.readouterr().err


def test_the_config_of_a_run_can_be_shown(config, work, capsys):
    assert main(f"--config={config}", "--show-config", "--config.work.size=9") == 0
    lines = capsys.readouterr().out.splitlines()
    assert "config.work.size = 9" in lines and "config.work.limit = None" in lines
    assert "config.seed = 0" in lines and "config.runtime.slots = 0" in lines


def test_a_stage_is_made_anew_only_with_consent(config, work, tmp_path, capsys, monkeypatch):
    command = (f"--config={config}", f"--workdir={tmp_path / 'w'}")
    assert main(*command) == 0
    made = (tmp_path / "w" / "work" / "complete.json").stat().st_mtime_ns
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    assert main(*command, "--redo=work", "--config.work.size=4") == 2
    assert "to delete and make anew: work, add --yes" in capsys.readouterr().err
    assert (tmp_path / "w" / "work" / "complete.json").stat().st_mtime_ns == made
    assert main(*command, "--redo=work", "--yes", "--config.work.size=4") == 0
    assert (tmp_path / "w" / "work" / "complete.json").stat().st_mtime_ns != made


def test_an_override_of_a_stage_that_the_run_lacks_is_said(work, capsys, monkeypatch):
    monkeypatch.setitem(STAGES, "rest", Work)
    config = {"stages": ("work",)}
    read_config(config, STAGES, take_overrides(["--config.rest.size=2"])[0])
    assert "--config.rest.size=2: this run has no stage that it is about" in capsys.readouterr().err


def test_the_state_of_a_folder_is_shown(config, work, tmp_path, capsys):
    assert main(f"--config={config}", f"--workdir={tmp_path / 'w'}") == 0
    capsys.readouterr()
    assert main("show", tmp_path / "w") == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[0] == f"{tmp_path / 'w'}: not in use"
    assert shown[1].split()[:3] == ["work", "work", "done"]
    assert main("show", tmp_path) == 2
    assert "holds no run" in capsys.readouterr().err


def test_pairs_at_other_thresholds_are_shown_behind_their_stage(tmp_path, capsys):
    storage.write_json(tmp_path / "config.json", {"stages": ["preferences:pairs1", "dpo"]})
    (tmp_path / "pairs1").mkdir()
    record = {"kind": "preferences", "name": "pairs1", "seed": 0, "settings": {}, "inputs": {}}
    record |= {"fingerprint": "f", "files": {}}
    storage.write_json(tmp_path / "pairs1" / "complete.json", record)
    cell = {"v0": 0.5, "v1": 0.8, "min_visits": 4, "pairs": 3, "right": 0.75}
    report = {
        "trees": 9,
        "v0": [0.5],
        "v1": [0.8],
        "min_visits": [4],
        "pairs": [[[3]]],
        "right": [[[0.75]]],
        "set": cell,
        "proposed": cell | {"v0": 0.2, "pairs": 8},
    }
    storage.write_json(tmp_path / "pairs1" / "report.json", report)
    assert main("show", tmp_path) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split()[:2] == ["pairs1", "preferences"]
    assert "pairs of 9 trees at v1 0.8" in lines[2] and lines[4].split() == ["0.5", "3", "(75%)"]
    assert "proposed, 8 pairs" in lines[-3] and "--config.pairs1.v0=0.2" in lines[-3]
    assert lines[-2].split()[0] == "dpo"


def test_completion_knows_verbs_flags_and_fields(tmp_path):
    """The script runs in bash, and completes a word as a shell would ask it to."""
    script = subprocess.run(
        [sys.executable, "-m", "stair_jax.launch", "completion", "bash"],
        capture_output=True, text=True, check=True, env=os.environ | {"PYTHONPATH": str(ROOT)},
    ).stdout  # fmt: skip
    ask = script + (
        'COMP_WORDS=(stair-jax "$1"); COMP_CWORD=1; compopt() { :; }; _stair_jax; '
        'printf "%s\\n" "${COMPREPLY[@]}"'
    )

    def complete(word):
        done = subprocess.run(["bash", "-c", ask, "x", word], capture_output=True, text=True)
        return done.stdout.split()

    assert complete("pl") == ["plan"]
    assert complete("--work") == ["--workdir="]
    assert complete("--config.dpo.be") == ["--config.dpo.beta="]


def test_did_you_mean():
    assert did_you_mean("serach", ["search", "sft"]) == "did you mean search?"
    assert did_you_mean("xyz", ["b", "a"]) == "known are a, b"
    assert did_you_mean("xyz", []) == "none are known"


def start(*command, **options):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
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
    import dataclasses, sys, time
    from stair_jax import launch
    from stair_jax.commands import run
    from stair_jax.run.stage import Stage

    @dataclasses.dataclass(frozen=True)
    class Work(Stage):
        size: int = 1
        rate: float = 0.5
        names: tuple[str, ...] = ()
        quick: bool = False

        def run(self, context):
            if self.quick:
                raise RuntimeError("a fault of ours")
            (context.folder / "partial").write_text("")
            time.sleep(60)

    run.STAGES = {"work": Work}
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


def test_output_that_nobody_reads_any_more_ends_the_command_without_a_word():
    """As in `stair-jax --help | head`, where the reader is gone before all is printed."""
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "stair_jax.launch", "--help"]
    ended = subprocess.run(command, cwd=ROOT, stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (ended.returncode, ended.stderr) == (128 + signal.SIGPIPE, "")
