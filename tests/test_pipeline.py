"""Stages run once, in order, and never on what another config made."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from ml_collections import ConfigDict, config_dict
from stair_jax.graph import make_graph

from stair_jax import pipeline, stages, storage
from stair_jax.errors import UserError
from stair_jax.parallel import distributed


class FakeStages:
    """Two kinds: `make` writes numbers, `add` sums those of other stages."""

    def __init__(self):
        self.runs: list[str] = []
        self.contexts = {}
        self.during = lambda context: None

    def make(self, context):
        self._note(context)
        storage.write_json(context.folder / "out" / "numbers.json", list(context.settings.numbers))

    def add(self, context):
        self._note(context)
        folders = [*context.input_list("parts"), *context.input_list("base")]
        numbers = [sum(storage.read_json(folder / "out" / "numbers.json")) for folder in folders]
        storage.write_json(context.folder / "out" / "numbers.json", numbers)

    def _note(self, context):
        self.runs.append(context.name)
        self.contexts[context.name] = context
        self.during(context)


@pytest.fixture
def fake(monkeypatch):
    fake = FakeStages()
    monkeypatch.setattr(stages, "KINDS", ("make", "add"))
    modules = {
        "make": SimpleNamespace(INPUTS=(), run=fake.make),
        "add": SimpleNamespace(INPUTS=("base", "parts"), run=fake.add),
    }
    for kind, module in modules.items():
        monkeypatch.setitem(sys.modules, f"stair_jax.stages.{kind}", module)
    return fake


def config(**changes):
    result = ConfigDict(
        {
            "seed": 1,
            "stages": ("make", "make:more", "add:sum", "add:total"),
            "make": {"numbers": (1, 2), "nested": {"rate": 0.5, "name": "a"}},
            "more": {"numbers": (10,), "nested": {"name": "b"}},
            "add": {"base": "make", "parts": ("make", "more")},
            "total": {"base": "sum", "parts": ()},
            "runtime": {"slots": 8},
        }
    )
    result.update_from_flattened_dict(changes)
    return result


def check_fails(workdir, message, **changes):
    with pytest.raises(UserError, match=message) as caught:
        pipeline.run(config(**changes), workdir)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_stages_run_in_order_with_their_settings_and_inputs(fake, tmp_path):
    pipeline.run(config(), tmp_path)
    assert fake.runs == ["make", "more", "sum", "total"]
    assert storage.read_json(tmp_path / "sum" / "out" / "numbers.json") == [3, 10, 3]
    assert storage.read_json(tmp_path / "total" / "out" / "numbers.json") == [16]
    more, total = fake.contexts["more"], fake.contexts["total"]
    assert more.settings.to_dict() == {"numbers": (10,), "nested": {"rate": 0.5, "name": "b"}}
    assert (more.seed, more.runtime.slots) == (1, 8)
    assert fake.contexts["sum"].inputs == {
        "base": tmp_path / "make",
        "parts": [tmp_path / "make", tmp_path / "more"],
    }
    assert total.input("base") == tmp_path / "sum"
    assert total.input_list("parts") == []


def test_the_completion_record(fake, tmp_path):
    pipeline.run(config(), tmp_path)
    record = storage.read_json(tmp_path / "sum" / "complete.json")
    made = storage.read_json(tmp_path / "make" / "complete.json")
    assert (record["kind"], record["name"], record["seed"]) == ("add", "sum", 1)
    assert record["settings"] == {"base": "make", "parts": ["make", "more"]}
    assert record["inputs"]["make"] == made["fingerprint"]
    assert list(record["files"]) == ["out/numbers.json"]
    assert not (tmp_path / "sum" / "started.json").exists()


def test_the_same_command_again_runs_nothing(fake, tmp_path, capsys):
    pipeline.run(config(), tmp_path)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    fake.runs.clear()
    pipeline.run(config(), tmp_path)
    assert fake.runs == []
    assert before == {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    assert "[4 of 4] total: finished before" in capsys.readouterr().err


def test_runtime_is_free_to_change(fake, tmp_path):
    pipeline.run(config(), tmp_path)
    fake.runs.clear()
    pipeline.run(config(**{"runtime.slots": 64}), tmp_path)
    assert fake.runs == []


@pytest.mark.parametrize(
    ("field", "value", "said", "stale"),
    [
        (
            "make.nested.rate",
            0.25,
            r"config\.make\.nested\.rate = 0\.5, and now it is 0\.25",
            "make",
        ),
        ("more.nested.name", "c", r"config\.more\.nested\.name = 'b', and now it is 'c'", "more"),
        ("more.numbers", (), r"config\.more\.numbers = \[10\], and now it is \[\]", "more"),
        ("seed", 2, "seed = 1, and now it is 2", "make"),
        ("total.base", "more", r"config\.total\.base = 'sum', and now it is 'more'", "total"),
    ],
)
def test_a_changed_field_is_named(fake, tmp_path, field, value, said, stale):
    pipeline.run(config(), tmp_path)
    fake.runs.clear()
    message = check_fails(tmp_path, said, **{field: value})
    assert "--workdir" in message and f"delete {tmp_path / stale}" in message
    assert fake.runs == []


def test_what_depends_on_the_change_is_to_be_deleted_and_no_more(fake, tmp_path):
    pipeline.run(config(), tmp_path)
    message = check_fails(tmp_path, "more", **{"more.nested.name": "c"})
    folders = message.partition("delete ")[2].split(" and ")
    assert folders == [str(tmp_path / name) for name in ("more", "sum", "total")]
    for folder in folders:
        shutil.rmtree(folder)
    fake.runs.clear()
    pipeline.run(config(**{"more.nested.name": "c"}), tmp_path)
    assert fake.runs == ["more", "sum", "total"]


def test_an_input_that_changed_is_named(fake, tmp_path):
    pipeline.run(config(), tmp_path)
    shutil.rmtree(tmp_path / "more")
    message = check_fails(tmp_path, "another output of the stage more", **{"more.numbers": (11,)})
    assert message.startswith("the stage sum was finished")


def test_partial_work_of_another_config_is_refused(fake, tmp_path):
    def stop(context):
        storage.write_json(context.folder / "partial.json", 1)
        raise KeyboardInterrupt

    fake.during = stop
    with pytest.raises(KeyboardInterrupt):
        pipeline.run(config(), tmp_path)
    fake.during = lambda context: None
    check_fails(
        tmp_path, r"stage make was started with config\.make\.numbers", **{"make.numbers": (9,)}
    )
    pipeline.run(config(), tmp_path)
    assert fake.runs == ["make", "make", "more", "sum", "total"]


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda folder: (folder / "complete.json").write_text("{"), "complete.json is damaged"),
        (lambda folder: (folder / "complete.json").write_text("{}"), "complete.json is damaged"),
        (lambda folder: (folder / "complete.json").unlink(), "but no complete.json"),
        (lambda folder: shutil.rmtree(folder / "out"), "numbers.json is missing"),
        (lambda folder: (folder / "out" / "numbers.json").write_text("[]"), "has changed"),
    ],
)
def test_a_damaged_record_or_artifact(fake, tmp_path, damage, said):
    pipeline.run(config(), tmp_path)
    fake.runs.clear()
    damage(tmp_path / "make")
    assert f"delete {tmp_path / 'make'}" in check_fails(tmp_path, said)
    shutil.rmtree(tmp_path / "make")
    pipeline.run(config(), tmp_path)
    assert fake.runs == ["make"]


def test_bytes_that_changed_at_the_same_size_are_found_before_they_are_read(fake, tmp_path):
    pipeline.run(config(), tmp_path)
    shutil.rmtree(tmp_path / "sum")
    path = tmp_path / "make" / "out" / "numbers.json"
    path.write_text(path.read_text().replace("1", "7"))
    check_fails(tmp_path, f"its file {path} has changed")


def test_checkpoints_of_a_finished_stage_may_be_deleted(fake, tmp_path):
    fake.during = lambda context: storage.write_json(context.folder / "checkpoints" / "1.json", 1)
    pipeline.run(config(), tmp_path)
    shutil.rmtree(tmp_path / "make" / "checkpoints")
    pipeline.run(config(), tmp_path)
    assert fake.runs == ["make", "more", "sum", "total"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"stages": ("mak",)}, "no kind of stage 'mak': did you mean make"),
        ({"stages": ("make", "add:make")}, "lists the stage 'make' twice"),
        ({"stages": ("make:add",)}, "'add' means something else"),
        ({"stages": ("make:../x",)}, "cannot be the name of a folder"),
        ({"stages": ()}, "at least one stage"),
        ({"add.base": "mroe"}, r"base of the stage sum .* no earlier stage: did you mean more"),
        ({"add.parts": ("make", "total")}, "names 'total', which does not come before"),
        ({"add.base": "sum"}, "names 'sum', which does not come before"),
        ({"seed": None}, "config.seed is None"),
    ],
)
def test_a_config_that_cannot_be_run(fake, tmp_path, changes, said):
    broken = config()
    for field, value in changes.items():
        section, _, name = field.rpartition(".")
        with broken.ignore_type():
            (broken[section] if section else broken)[name] = value
    with pytest.raises(UserError, match=said):
        pipeline.run(broken, tmp_path / "run")
    assert fake.runs == [] and not (tmp_path / "run").exists()


def test_fields_of_a_section_have_to_be_those_of_the_kind(fake, tmp_path):
    broken = config()
    broken.more.nested = ConfigDict({"naem": "b"})
    with pytest.raises(UserError, match=r"config\.more\.nested\.naem .* did you mean name"):
        pipeline.run(broken, tmp_path)
    del broken.add["parts"]
    del broken.more["nested"]
    del broken.total["parts"]
    with pytest.raises(UserError, match=r"config\.add lacks the field parts"):
        pipeline.run(broken, tmp_path)


def test_a_required_field_without_a_value(fake, tmp_path):
    broken = config()
    broken.make.path = config_dict.required_placeholder(str)
    with pytest.raises(UserError, match="no value yet"):
        pipeline.run(broken, tmp_path)


def test_infinite_settings_reach_the_stage_and_the_fingerprint(fake, tmp_path):
    base = config(**{"make.nested.rate": float("inf")})
    pipeline.run(base, tmp_path)
    assert fake.contexts["make"].settings.nested.rate == float("inf")
    check_fails(tmp_path, "rate = 'inf', and now it is 0.5")


def test_an_unused_section_is_pointed_out(fake, capsys):
    unused = config()
    unused.summ = ConfigDict({"a": 1})
    make_graph(unused)
    assert "config.summ is about none of the stages" in capsys.readouterr().err


def test_a_stage_that_sums_up_is_heard_when_it_is_new_and_when_it_is_old(
    fake, tmp_path, monkeypatch, capsys
):
    module = sys.modules["stair_jax.stages.make"]
    monkeypatch.setattr(module, "summary", lambda folder: f"sum of {folder}", raising=False)
    for _ in range(2):
        pipeline.run(config(stages=("make",)), tmp_path)
        assert f"sum of {tmp_path / 'make'}" in capsys.readouterr().err


def test_errors_of_a_stage_name_it(fake, tmp_path):
    def fail(context):
        raise UserError("no such file")

    fake.during = fail
    check_fails(tmp_path, "^stage make: no such file$")


def test_a_full_disk_in_a_stage_is_one_line_and_the_run_goes_on_later(fake, tmp_path):
    def fail(context):
        if context.name == "more":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    fake.during = fail
    check_fails(tmp_path, f"stage more: cannot write {tmp_path / 'more'}: the disk is full")
    fake.during = lambda context: None
    pipeline.run(config(), tmp_path)
    assert fake.runs == ["make", "more", "more", "sum", "total"]


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 64 KiB."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(tmp_path)]
    if os.geteuid() or not shutil.which("mount") or subprocess.run(mount, check=False).returncode:
        pytest.skip("mounting a small file system takes root")
    yield tmp_path
    subprocess.run(["umount", "--lazy", str(tmp_path)], check=True)


def test_a_disk_that_fills_up(fake, small_disk):
    """The records that fit are kept, and the run goes on when there is room again."""
    noise = [{"text": os.urandom(5_000).hex()} for _ in range(6)]
    (small_disk / "filler").write_bytes(b"x" * 32_768)

    def write_log(context):
        log = storage.RecordLog(context.folder / "log.gz")
        for record in noise[len(log.read()) :]:
            log.append(record)

    fake.during = write_log
    only = {"stages": ("make",)}
    check_fails(small_disk, "^stage make: cannot write .*log.gz: the disk is full", **only)
    log = storage.RecordLog(small_disk / "make" / "log.gz")
    kept = log.read()
    assert 0 < len(kept) < 6 and kept == noise[: len(kept)]
    (small_disk / "filler").unlink()
    pipeline.run(config(**only), small_disk)
    assert log.read() == noise


def test_two_runs_cannot_share_a_folder(fake, tmp_path):
    def second(context):
        check_fails(tmp_path, f"in use by process {os.getpid()} on ")

    fake.during = second
    pipeline.run(config(stages=("make",)), tmp_path)
    assert fake.runs == ["make"]
    assert (tmp_path / ".lock").read_text() == ""


@pytest.fixture
def two_processes(monkeypatch):
    """The first of two processes, whose other one answers what a test sets."""
    answers = SimpleNamespace(other=None, meetings=[])

    def gather(name, value, seconds=0.0):
        answers.meetings.append(name)
        return [value, value if answers.other is None else answers.other(value)]

    state = SimpleNamespace(num_processes=2, process_id=0)
    monkeypatch.setattr(distributed, "_state", lambda: state)
    monkeypatch.setattr(distributed, "broadcast", lambda value: value)
    monkeypatch.setattr(distributed, "gather", gather)
    return answers


def test_the_processes_of_a_run_meet_around_each_stage(fake, tmp_path, two_processes):
    pipeline.run(config(stages=("make",)), tmp_path)
    assert two_processes.meetings == ["the start of the run"] + [
        f"the {part} of stage make" for part in ("start", "end", "record")
    ]


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (lambda own: [["x"], True], "process 1 was started with another config than process 0"),
        (lambda own: [own[0], False], "process 1 does not see the files of process 0 in"),
    ],
)
def test_processes_of_another_config_or_folder_are_named(
    fake, tmp_path, two_processes, other, said
):
    two_processes.other = other
    check_fails(tmp_path, said)
    assert fake.runs == []


def test_the_other_processes_run_what_is_for_all_and_write_no_record(
    fake, tmp_path, two_processes, monkeypatch
):
    monkeypatch.setattr(sys.modules["stair_jax.stages.add"], "PROCESSES", "first", raising=False)
    state = SimpleNamespace(num_processes=2, process_id=1)
    monkeypatch.setattr(distributed, "_state", lambda: state)
    monkeypatch.setattr(distributed, "broadcast", lambda value: [] if value == [] else "")
    pipeline.run(config(), tmp_path)
    assert fake.runs == ["make", "more"]
    assert not list(tmp_path.rglob("*ed.json")) and not list(tmp_path.rglob("complete.json"))


SCRIPT = """
    import sys, time, types
    from ml_collections import ConfigDict
    from stair_jax import pipeline, stages, storage

    def run(context):
        log = storage.RecordLog(context.folder / "log.gz")
        for i in range(len(log.read()), 6):
            log.append({"i": i, "square": i * i})
            if i == 3 and sys.argv[2] == "hang":
                time.sleep(60)

    stages.KINDS = ("count",)
    sys.modules["stair_jax.stages.count"] = types.SimpleNamespace(INPUTS=(), run=run)
    pipeline.run(ConfigDict({"stages": ("count",), "count": {"size": 6}}), sys.argv[1])
"""


def test_after_kill_9_the_run_goes_on_and_ends_the_same(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(SCRIPT))

    environment = os.environ | {"PYTHONPATH": str(Path(pipeline.__file__).parents[1])}

    def start(workdir, mode, **options):
        command = [sys.executable, script, tmp_path / workdir, mode]
        return subprocess.Popen(command, env=environment, text=True, **options)

    whole, killed = start("whole", "run"), start("killed", "hang")
    log = tmp_path / "killed" / "count" / "log.gz"
    while len(storage.RecordLog(log).read()) < 4:
        assert killed.poll() is None
        time.sleep(0.05)
    _, said = start("killed", "run", stderr=subprocess.PIPE).communicate()
    assert f"in use by process {killed.pid} on " in said
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    log.write_bytes(log.read_bytes()[:-5])
    assert start("killed", "run").wait() == 0
    assert whole.wait() == 0
    for name in ("log.gz", "complete.json"):
        assert (tmp_path / "killed/count" / name).read_bytes() == (
            tmp_path / "whole/count" / name
        ).read_bytes()
    record = json.loads((tmp_path / "whole/count/complete.json").read_text())
    assert record["settings"] == {"size": 6}
