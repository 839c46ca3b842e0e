"""The inside of a worker process: what goes wrong is an answer, and absent folders are carried."""

import os
from dataclasses import dataclass, field, replace
from pathlib import Path

from stair_jax.cluster.carried import AbsentFolders, carry
from stair_jax.cluster.work import Order, Report
from stair_jax.cluster.worker_process import Absent, Failure, WorkerProcess
from stair_jax.errors import UserError


class Reader:
    """A worker whose only item is what a file holds."""

    def __init__(self, folder):
        self.folder = folder

    def exchange(self, order, seconds):
        if order.is_last:
            raise UserError("the judge is of no use")
        return Report([("text", (self.folder / "sub" / "weights").read_bytes())])


@dataclass(frozen=True)
class MakeReader:
    folder: Path
    places: dict = field(default_factory=dict)

    def __call__(self):
        folder = self.places.get(self.folder, self.folder)
        if not folder.is_dir():
            raise AbsentFolders([folder])
        return Reader(folder)

    def moved(self, places):
        return MakeReader(self.folder, places)


def model_in(folder):
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "weights").write_bytes(b"\x00\x01")
    return folder


def test_a_worker_that_reads_its_folder_is_ready_at_once(tmp_path):
    process = WorkerProcess()
    assert process.start(MakeReader(model_in(tmp_path / "hf"))) == Report(wants=1)
    assert process.exchange(Order(), 1.0).finished == [("text", b"\x00\x01")]


def test_a_folder_that_is_absent_is_carried_there(tmp_path):
    there, absent = model_in(tmp_path / "driver" / "hf"), tmp_path / "worker" / "hf"
    process, make = WorkerProcess(), MakeReader(absent)
    assert process.start(make) == Absent([absent])
    store = {}

    def put(content):
        store[len(store)] = content
        return len(store) - 1

    carried = carry(there, put)
    assert carried.files == {"sub/weights": 0}
    assert process.start(make, [replace(carried, folder=absent)], store.__getitem__) == Report(
        wants=1
    )
    assert process.exchange(Order(), 1.0).finished == [("text", b"\x00\x01")]
    assert process._unpacked.places[absent].name == "hf"


def test_a_mistake_of_the_user_is_told_with_the_machine(tmp_path):
    process = WorkerProcess()
    process.start(MakeReader(model_in(tmp_path / "hf")))
    failure = process.exchange(Order(is_last=True), 1.0)
    assert failure.is_users and failure.text.startswith("the judge is of no use (on ")


def test_a_fault_is_told_with_its_traceback(tmp_path):
    process = WorkerProcess()
    folder = model_in(tmp_path / "hf")
    process.start(MakeReader(folder))
    os.remove(folder / "sub" / "weights")
    failure = process.exchange(Order(), 1.0)
    assert isinstance(failure, Failure) and not failure.is_users
    assert "FileNotFoundError" in failure.text and "Traceback" in failure.text
