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
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict, config_dict

from stair_jax import storage
from stair_jax.errors import UserError
from stair_jax.parallel.processes import collectives
from stair_jax.record_log import RecordLog
from stair_jax.run import pipeline
from stair_jax.run.pipeline import Anew
from stair_jax.run.run_config import read_config
from stair_jax.run.stage import Artifact, Stage, stage_input
from stair_jax.settings import Settings, setting

OUT = "out/numbers.json"


@dataclass(frozen=True)
class Nested(Settings):
    """Settings within settings.

    Attributes:
      rate: a number.
      name: a text.
    """

    rate: float = 0.5
    name: str = "a"


class Watch:
    """What the stages below did."""

    runs: ClassVar[list[str]] = []
    contexts: ClassVar[dict] = {}

    @staticmethod
    def during(context):
        """A test puts something in this place."""


def note(stage, context):
    Watch.runs.append(context.name)
    Watch.contexts[context.name] = context, stage
    Watch.during(context)


@dataclass(frozen=True)
class Make(Stage):
    """Writes numbers.

    Attributes:
      numbers: to write.
      nested: see `Nested`.
      workers: changes the cost alone.
      path: a text.
    """

    LENGTH: ClassVar[str] = "length"

    numbers: tuple[int, ...] = (1,)
    nested: Nested = setting(Nested)
    workers: int = setting(1, least=1, cost=True)
    length: int = 1
    path: str = ""

    def makes(self):
        return {OUT: Artifact.PROMPTS}

    def run(self, context):
        note(self, context)
        storage.write_json(context.folder / OUT, list(self.numbers))

    def reopen(self, folder):
        storage.write_json(folder / "reopened.json", self.length)


@dataclass(frozen=True)
class Add(Stage):
    """Sums the numbers of other stages.

    Attributes:
      base: a stage.
      parts: more of them.
      file: in their folders.
    """

    base: str = stage_input(Artifact.PROMPTS, file="file")
    parts: tuple[str, ...] = stage_input(Artifact.PROMPTS, many=True, required=False)
    file: str = OUT

    def makes(self):
        return {OUT: Artifact.PROMPTS}

    def run(self, context):
        note(self, context)
        folders = [*context.input_list("parts"), *context.input_list("base")]
        numbers = [sum(storage.read_json(folder / OUT)) for folder in folders]
        storage.write_json(context.folder / OUT, numbers)


@dataclass(frozen=True)
class Judge(Stage):
    """Wants a model, which no other stage here makes.

    Attributes:
      model: a stage.
    """

    model: str = stage_input(Artifact.MODEL)

    def run(self, context):
        note(self, context)


STAGE_LIST = ("make", "make:more", "add:sum", "add:total")
STAGES = {"make": Make, "add": Add, "judge": Judge}


@pytest.fixture
def fake(monkeypatch):
    monkeypatch.setattr(Watch, "runs", [])
    monkeypatch.setattr(Watch, "contexts", {})
    monkeypatch.setattr(Watch, "during", staticmethod(lambda context: None))
    return Watch


def set_during(function):
    Watch.during = staticmethod(function)


def config(**changes):
    result = ConfigDict(
        {
            "seed": 1,
            "stages": STAGE_LIST,
            "make": {"numbers": (1, 2), "nested": {"rate": 0.5, "name": "a"}},
            "more": {"numbers": (10,), "nested": {"name": "b"}},
            "add": {"base": "make", "parts": ("make", "more")},
            "total": {"base": "sum", "parts": ()},
            "runtime": {"slots": 8},
        }
    )
    result.update_from_flattened_dict(changes)
    for name in {"more", "total"} - {str(label).rpartition(":")[2] for label in result.stages}:
        if result.stages == ("make",):
            del result[name]  # sections of stages that are not there are refused
    return result


def run(values, workdir, **anew):
    pipeline.run(read_config(values, STAGES), Path(workdir), Anew(**anew))


def check_fails(workdir, message, **changes):
    with pytest.raises(UserError, match=message) as caught:
        run(config(**changes), workdir)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_stages_run_in_order_with_their_settings_and_inputs(fake, tmp_path):
    run(config(), tmp_path)
    assert fake.runs == ["make", "more", "sum", "total"]
    assert storage.read_json(tmp_path / "sum" / "out" / "numbers.json") == [3, 10, 3]
    assert storage.read_json(tmp_path / "total" / "out" / "numbers.json") == [16]
    (more, stage), (total, _) = fake.contexts["more"], fake.contexts["total"]
    assert stage == Make(numbers=(10,), nested=Nested(rate=0.5, name="b"))
    assert (more.seed, more.runtime.slots) == (1, 8)
    assert fake.contexts["sum"][0].inputs == {
        "base": tmp_path / "make",
        "parts": [tmp_path / "make", tmp_path / "more"],
    }
    assert total.input("base") == tmp_path / "sum"
    assert total.input_list("parts") == []


def test_the_completion_record(fake, tmp_path):
    run(config(), tmp_path)
    record = storage.read_json(tmp_path / "sum" / "complete.json")
    made = storage.read_json(tmp_path / "make" / "complete.json")
    assert (record["kind"], record["name"], record["seed"]) == ("add", "sum", 1)
    assert record["settings"] == {"base": "make", "parts": ["make", "more"], "file": OUT}
    assert made["settings"]["nested"] == {"rate": 0.5, "name": "a"} and made["version"] == 1
    assert "workers" not in made["settings"]
    assert record["inputs"]["make"] == made["fingerprint"]
    assert list(record["files"]) == ["out/numbers.json"]
    assert not (tmp_path / "sum" / "started.json").exists()


def test_the_same_command_again_runs_nothing(fake, tmp_path, capsys):
    run(config(), tmp_path)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    fake.runs.clear()
    run(config(), tmp_path)
    assert fake.runs == []
    assert before == {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    assert "[4 of 4] total: finished before" in capsys.readouterr().err


def test_the_settings_of_a_run_are_written_anew_only_where_they_are_others(fake, tmp_path):
    run(config(), tmp_path)
    path = tmp_path / "config.json"
    written, text = path.stat().st_mtime_ns, path.read_text()
    run(config(), tmp_path)
    assert path.stat().st_mtime_ns == written
    run(config(**{"runtime.slots": 16}), tmp_path)
    assert path.stat().st_mtime_ns > written and storage.read_json(path)["runtime"]["slots"] == 16
    path.write_text("damaged")
    run(config(), tmp_path)
    assert path.read_text() == text


def test_runtime_is_free_to_change(fake, tmp_path):
    run(config(), tmp_path)
    fake.runs.clear()
    run(config(**{"runtime.slots": 64}), tmp_path)
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
    run(config(), tmp_path)
    fake.runs.clear()
    message = check_fails(tmp_path, said, **{field: value})
    assert "--workdir" in message and f"--redo={stale}" in message
    assert fake.runs == []


def test_what_depends_on_the_change_is_made_anew_and_no_more(fake, tmp_path):
    run(config(), tmp_path)
    message = check_fails(tmp_path, "more", **{"more.nested.name": "c"})
    assert message.endswith("--redo deletes and makes anew more, sum, total")
    fake.runs.clear()
    asked = []
    run(
        config(**{"more.nested.name": "c"}),
        tmp_path,
        redo=["more"],
        agree=lambda names: asked.append(list(names)) or True,
    )
    assert fake.runs == asked[0] == ["more", "sum", "total"]


def test_nothing_is_deleted_unless_it_is_agreed_to(fake, tmp_path):
    run(config(), tmp_path)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError, match="nothing was deleted"):
        run(config(), tmp_path, redo=["make"], agree=lambda names: False)
    with pytest.raises(UserError, match="--redo=mroe: the run has no such stage: did you mean mo"):
        run(config(), tmp_path, redo=["mroe"])
    assert sorted(tmp_path.rglob("*")) == before


def test_an_input_that_changed_is_named(fake, tmp_path):
    run(config(), tmp_path)
    shutil.rmtree(tmp_path / "more")
    message = check_fails(tmp_path, "another output of the stage more", **{"more.numbers": (11,)})
    assert message.startswith("the stage sum was finished")


def test_partial_work_of_another_config_is_refused(fake, tmp_path):
    def stop(context):
        storage.write_json(context.folder / "partial.json", 1)
        raise KeyboardInterrupt

    set_during(stop)
    with pytest.raises(KeyboardInterrupt):
        run(config(), tmp_path)
    set_during(lambda context: None)
    check_fails(
        tmp_path, r"stage make was started with config\.make\.numbers", **{"make.numbers": (9,)}
    )
    run(config(), tmp_path)
    assert fake.runs == ["make", "make", "more", "sum", "total"]


def write_records(folder, text):
    """Damages the record of a finished stage and its copy."""
    for name in ("complete.json", ".complete.json"):
        (folder / name).write_text(text)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda folder: write_records(folder, "{"), "complete.json is damaged"),
        (lambda folder: write_records(folder, "{}"), "complete.json is damaged"),
        (lambda folder: (folder / "complete.json").unlink(), "but no complete.json"),
        (lambda folder: shutil.rmtree(folder / "out"), "numbers.json is missing"),
        (lambda folder: (folder / "out" / "numbers.json").write_text("[]"), "has changed"),
    ],
)
def test_a_damaged_record_or_artifact(fake, tmp_path, damage, said):
    run(config(), tmp_path)
    fake.runs.clear()
    damage(tmp_path / "make")
    assert f"delete {tmp_path / 'make'}" in check_fails(tmp_path, said)
    shutil.rmtree(tmp_path / "make")
    run(config(), tmp_path)
    assert fake.runs == ["make"]


@pytest.mark.parametrize("text", ["", "{", "{}", "[" * 20_000, "\x00" * 9])
def test_the_copy_of_a_damaged_record_takes_its_place(fake, tmp_path, capsys, text):
    """Of a finished stage, and of one under way, whose work goes on."""

    def stop(context):
        if context.name == "more":
            storage.write_json(context.folder / "half.json", 1)
            raise KeyboardInterrupt

    set_during(stop)
    with pytest.raises(KeyboardInterrupt):
        run(config(), tmp_path)
    set_during(lambda context: None)
    records = [tmp_path / "make" / "complete.json", tmp_path / "more" / "started.json"]
    before = [record.read_bytes() for record in records]
    for record in records:
        record.write_text(text)
    check_fails(tmp_path, r"started with config\.more\.length", **{"more.length": 9})
    assert [record.read_bytes() for record in records] == before  # and are whole again
    said = capsys.readouterr().err
    assert all(f"{record} is damaged: its copy" in said for record in records)
    fake.runs.clear()
    run(config(), tmp_path)
    assert fake.runs == ["more", "sum", "total"] and (tmp_path / "more" / "half.json").exists()
    assert not list(tmp_path.rglob("*started.json"))


def test_bytes_that_changed_at_the_same_size_are_found_before_they_are_read(fake, tmp_path):
    run(config(), tmp_path)
    shutil.rmtree(tmp_path / "sum")
    path = tmp_path / "make" / "out" / "numbers.json"
    path.write_text(path.read_text().replace("1", "7"))
    check_fails(tmp_path, f"its file {path} has changed")


def test_checkpoints_of_a_finished_stage_may_be_deleted(fake, tmp_path):
    set_during(lambda context: storage.write_json(context.folder / "checkpoints" / "1.json", 1))
    run(config(), tmp_path)
    shutil.rmtree(tmp_path / "make" / "checkpoints")
    run(config(), tmp_path)
    assert fake.runs == ["make", "more", "sum", "total"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"stages": ("mak",)}, "no kind of stage 'mak': did you mean make"),
        ({"stages": ("make", "add:make")}, "lists the stage 'make' twice"),
        ({"stages": ("make:add",)}, "'add' means something else"),
        ({"stages": ("make:../x",)}, "cannot be the name of a folder"),
        ({"stages": ()}, "at least one stage"),
        (
            {"add.base": "mroe"},
            "sum.base names .mroe., .* no earlier stage: did you mean more",
        ),
        ({"add.parts": ("make", "total")}, "names 'total', which does not come before"),
        ({"add.base": "sum"}, "names 'sum', which does not come before"),
        ({"seed": None}, "config.seed is None"),
        ({"seed": -1}, "config.seed is -1: it must be at least 0"),
        (
            {"stages": (*STAGE_LIST, "judge"), "judge": {"model": "make"}},
            "does not make a language mod",
        ),
        ({"stages": ("make:" + 300 * "x",)}, "cannot be the name of a folder"),
        ({"add.file": "out/x.json"}, "prompts of the stage make are in out/numbers.json"),
        ({"add.base": ""}, r"config\.sum\.base is empty: name an earlier stage that makes prompts"),
        ({"summ": {"a": 1}}, r"config\.summ is about no kind of stage .* did you mean sum"),
        ({"more.nested": {"naem": "b"}}, r"config\.more\.nested has no field 'naem': did you mean"),
        (
            {"make.nested.rate": "1e-4"},
            "make.nested.rate is '1e-4': it must be a finite",
        ),
        ({"make.nested.rate": float("inf")}, "nested.rate is inf: it must be a finite number"),
        ({"make.workers": 0}, r"config\.make\.workers is 0: it must be at least 1"),
        ({"judge": {"model": 3}}, r"config\.judge\.model is 3: it must be text"),
    ],
)
def test_a_config_that_cannot_be_run(fake, tmp_path, changes, said):
    broken = config()
    for field, value in changes.items():
        section, _, name = field.rpartition(".")
        with broken.ignore_type():
            (broken[section] if section else broken)[name] = value
    with pytest.raises(UserError, match=said):
        run(broken, tmp_path / "run")
    assert fake.runs == [] and not (tmp_path / "run").exists()


def test_a_required_field_without_a_value(fake, tmp_path):
    broken = config()
    broken.make.path = config_dict.required_placeholder(str)
    with pytest.raises(UserError, match="no value yet"):
        run(broken, tmp_path)


def test_fields_that_change_cost_alone_are_free_to_change(fake, tmp_path):
    run(config(), tmp_path)
    fake.runs.clear()
    run(config(**{"make.workers": 4}), tmp_path)
    assert fake.runs == []


def test_a_default_that_changed_in_the_code_is_named(fake, tmp_path, monkeypatch):
    run(config(), tmp_path)

    @dataclass(frozen=True)
    class Other(Make):
        __doc__ = Make.__doc__
        path: str = "elsewhere"

    monkeypatch.setitem(STAGES, "make", Other)
    check_fails(tmp_path, r"config\.make\.path = '', and now it is 'elsewhere'")


def test_a_new_version_of_a_kind_is_named(fake, tmp_path, monkeypatch):
    run(config(), tmp_path)
    monkeypatch.setattr(Make, "VERSION", 2)
    check_fails(tmp_path, "finished with version 1 of the kind make, and this stair_jax has 2|vers")


def test_a_field_that_an_older_record_lacks_means_what_its_class_says(fake, tmp_path, monkeypatch):
    run(config(), tmp_path)

    @dataclass(frozen=True)
    class Newer(Make):
        __doc__ = Make.__doc__
        mode: str = setting("new", absent="old")
        more: int = 3  # as before

    monkeypatch.setitem(STAGES, "make", Newer)
    check_fails(tmp_path, r"config\.make\.mode = 'old', and now it is 'new'")
    fake.runs.clear()
    run(config(**{"make.mode": "old"}), tmp_path)
    assert fake.runs == []


def test_a_new_field_that_changes_nothing_leaves_the_fingerprints(fake, tmp_path, monkeypatch):
    """What was made before the field existed, and what is made after, are the same artifact."""

    @dataclass(frozen=True)
    class NewerNested(Nested):
        __doc__ = Nested.__doc__
        also: int = setting(0, absent=0)

    @dataclass(frozen=True)
    class Newer(Make):
        __doc__ = Make.__doc__
        nested: NewerNested = setting(NewerNested)
        held_out: float = setting(0.0, least=0, absent=0.0)

    def fingerprints(workdir):
        names = ("make", "more", "sum", "total")
        return [storage.read_json(workdir / n / "complete.json")["fingerprint"] for n in names]

    run(config(), tmp_path / "before")
    monkeypatch.setitem(STAGES, "make", Newer)
    run(config(), tmp_path / "after")
    assert fingerprints(tmp_path / "after") == fingerprints(tmp_path / "before")
    check_fails(
        tmp_path / "after",
        r"config\.make\.held_out = 0\.0, and now it is 0\.5",
        **{"make.held_out": 0.5},
    )
    run(config(**{"make.held_out": 0.5}), tmp_path / "other")
    assert fingerprints(tmp_path / "other") != fingerprints(tmp_path / "before")
    check_fails(tmp_path / "other", r"config\.make\.held_out = 0\.5, and now it is 0\.0")


def test_a_record_without_versions_and_with_fields_of_cost_is_still_known(fake, tmp_path):
    """As the records were before the defaults stood in them."""
    run(config(), tmp_path)
    for name, settings in (("make", {"numbers": [1, 2], "workers": 7}), ("more", None)):
        path = tmp_path / name / "complete.json"
        record = storage.read_json(path)
        del record["version"]
        record["settings"] = settings or record["settings"]
        storage.write_json(path, record)
    fake.runs.clear()
    run(config(), tmp_path)
    assert fake.runs == []


def test_a_stage_is_lengthened_and_what_depends_on_it_is_made_anew(fake, tmp_path):
    run(config(), tmp_path)
    before = storage.read_json(tmp_path / "make/complete.json")
    longer = config(**{"make.length": 3, "more.length": 1})
    message = check_fails(tmp_path, "make.length", **{"make.length": 3, "more.length": 1})
    assert "--lengthen=make to go on with it" in message
    fake.runs.clear()
    run(longer, tmp_path, lengthen=["make"])
    assert fake.runs == ["make", "sum", "total"]
    assert fake.contexts["make"][0].is_lengthened and not fake.contexts["sum"][0].is_lengthened
    record = storage.read_json(tmp_path / "make/complete.json")
    assert record["history"] == [
        {"settings": before["settings"], "fingerprint": before["fingerprint"]}
    ]
    assert record["fingerprint"] != before["fingerprint"]
    assert storage.read_json(tmp_path / "make/reopened.json") == 3
    fake.runs.clear()
    run(longer, tmp_path)
    assert fake.runs == []


def test_a_lengthened_stage_that_was_killed_goes_on_as_one(fake, tmp_path):
    run(config(), tmp_path)
    longer = config(**{"make.length": 3, "more.length": 1})

    def stop(context):
        raise KeyboardInterrupt

    set_during(stop)
    with pytest.raises(KeyboardInterrupt):
        run(longer, tmp_path, lengthen=["make"])
    set_during(lambda context: None)
    run(longer, tmp_path)
    assert fake.contexts["make"][0].is_lengthened
    assert len(storage.read_json(tmp_path / "make/complete.json")["history"]) == 1


def test_a_run_that_was_killed_while_it_reopened_a_stage_goes_on(fake, tmp_path, monkeypatch):
    run(config(), tmp_path)
    longer = config(**{"make.length": 3, "more.length": 1})

    def stop(stage, folder):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Make, "reopen", stop)
        run(longer, tmp_path, lengthen=["make"])
    fake.runs.clear()
    run(longer, tmp_path)
    assert fake.runs[0] == "make" and fake.contexts["make"][0].is_lengthened
    assert (tmp_path / "make/reopened.json").exists()


@pytest.mark.parametrize(
    ("names", "changes", "said"),
    [
        (["make"], {}, "config.make.length is to be larger than it was"),
        (["make"], {"make.length": 3, "make.numbers": (5,)}, "finished with config.make.numbers"),
        (["sum"], {}, "a stage of the kind add has no length"),
    ],
)
def test_what_cannot_be_lengthened(fake, tmp_path, names, changes, said):
    run(config(), tmp_path)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    with pytest.raises(UserError, match=said):
        run(config(**{"more.length": 1, **changes}), tmp_path, lengthen=names)
    assert before == {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}


def test_a_run_on_other_devices_goes_on(fake, tmp_path, monkeypatch):
    run(config(stages=("make",)), tmp_path)
    fake.runs.clear()
    monkeypatch.setattr(jax, "devices", lambda *args: jax.local_devices()[:1])
    run(config(**{"runtime.training_mesh": {"fsdp": 8}}), tmp_path)
    assert fake.runs == ["more", "sum", "total"]


def test_the_sheet_says_what_there_is_to_do(fake, tmp_path, capsys):
    run(config(stages=("make",)), tmp_path)
    sheet = capsys.readouterr().err
    assert sheet.startswith(f"run {tmp_path}: 1 stages, 1 to do")
    assert f"{jax.device_count()} x cpu" in sheet and "free" in sheet
    run(config(stages=("make",)), tmp_path)
    assert capsys.readouterr().err.startswith(f"run {tmp_path}: 1 stages, 0 to do")


def test_a_stage_that_sums_up_is_heard_when_it_is_new_and_when_it_is_old(
    fake, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(Make, "summary", lambda self, folder: f"sum of {folder}")
    for _ in range(2):
        run(config(stages=("make",)), tmp_path)
        assert f"sum of {tmp_path / 'make'}" in capsys.readouterr().err


def test_errors_of_a_stage_name_it(fake, tmp_path):
    def fail(context):
        raise UserError("no such file")

    set_during(fail)
    check_fails(tmp_path, "^stage make: no such file$")


def test_memory_that_runs_out_in_a_stage_is_one_line_with_what_to_lower(
    fake, tmp_path, monkeypatch
):
    monkeypatch.setattr(Make, "MEMORY", ("workers", "runtime.slots"))
    set_during(lambda context: np.zeros(2**50))
    check_fails(
        tmp_path,
        r"^stage make: out of memory: 8 PiB could not be allocated: lower config.make.workers "
        r"\(1\) or config.runtime.slots \(8\), or use more devices$",
    )


def test_a_full_disk_in_a_stage_is_one_line_and_the_run_goes_on_later(fake, tmp_path):
    def fail(context):
        if context.name == "more":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    set_during(fail)
    check_fails(tmp_path, f"stage more: cannot write {tmp_path / 'more'}: the disk is full")
    set_during(lambda context: None)
    run(config(), tmp_path)
    assert fake.runs == ["make", "more", "more", "sum", "total"]


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 72 KiB."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=72k", "none", str(tmp_path)]
    if os.geteuid() or not shutil.which("mount") or subprocess.run(mount, check=False).returncode:
        pytest.skip("mounting a small file system takes root")
    yield tmp_path
    subprocess.run(["umount", "--lazy", str(tmp_path)], check=True)


def test_a_disk_that_fills_up(fake, small_disk):
    """The records that fit are kept, and the run goes on when there is room again."""
    noise = [{"text": os.urandom(5_000).hex()} for _ in range(6)]
    (small_disk / "filler").write_bytes(b"x" * 36_864)

    def write_log(context):
        log = RecordLog(context.folder / "log.gz")
        for record in noise[len(log.read()) :]:
            log.append(record)

    set_during(write_log)
    only = {"stages": ("make",)}
    check_fails(small_disk, "^stage make: cannot write .*log.gz: the disk is full", **only)
    log = RecordLog(small_disk / "make" / "log.gz")
    kept = log.read()
    assert 0 < len(kept) < 6 and kept == noise[: len(kept)]
    (small_disk / "filler").unlink()
    run(config(**only), small_disk)
    assert log.read() == noise


def test_two_runs_cannot_share_a_folder(fake, tmp_path):
    def second(context):
        check_fails(tmp_path, f"in use by process {os.getpid()} on ")

    set_during(second)
    run(config(stages=("make",)), tmp_path)
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
    monkeypatch.setattr(collectives, "_state", lambda: state)
    monkeypatch.setattr(collectives, "broadcast", lambda value: value)
    monkeypatch.setattr(collectives, "gather", gather)
    return answers


def test_the_processes_of_a_run_meet_around_each_stage(fake, tmp_path, two_processes):
    run(config(stages=("make",)), tmp_path)
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
    monkeypatch.setattr(Add, "PROCESSES", "first")
    state = SimpleNamespace(num_processes=2, process_id=1)
    monkeypatch.setattr(collectives, "_state", lambda: state)
    states = {entry.name: [False, {}, ""] for entry in read_config(config(), STAGES).stages}
    monkeypatch.setattr(collectives, "broadcast", lambda value: states if value == {} else "")
    run(config(), tmp_path)
    assert fake.runs == ["make", "more"]
    assert not list(tmp_path.rglob("*ed.json")) and not list(tmp_path.rglob("complete.json"))


SCRIPT = """
    import dataclasses, pathlib, sys, time
    from stair_jax.record_log import RecordLog
    from stair_jax.run import pipeline
    from stair_jax.run.run_config import read_config
    from stair_jax.run.stage import Stage

    @dataclasses.dataclass(frozen=True)
    class Count(Stage):
        size: int = 5

        def run(self, context):
            log = RecordLog(context.folder / "log.gz")
            for i in range(len(log.read()), self.size):
                log.append({"i": i, "square": i * i})
                if i == 3 and sys.argv[2] == "hang":
                    time.sleep(60)

    config = read_config({"stages": ("count",), "count": {"size": 6}}, {"count": Count})
    pipeline.run(config, pathlib.Path(sys.argv[1]))
"""


def test_after_kill_9_the_run_goes_on_and_ends_the_same(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(SCRIPT))

    environment = os.environ | {
        "PYTHONPATH": str(Path(pipeline.__file__).parents[2]),
        "JAX_PLATFORMS": "cpu",
    }

    def start(workdir, mode, **options):
        command = [sys.executable, script, tmp_path / workdir, mode]
        return subprocess.Popen(command, env=environment, text=True, **options)

    whole, killed = start("whole", "run"), start("killed", "hang")
    log = tmp_path / "killed" / "count" / "log.gz"
    while len(RecordLog(log).read()) < 4:
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
