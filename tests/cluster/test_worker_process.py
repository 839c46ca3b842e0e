"""The inside of a worker process: what goes wrong is an answer, and absent folders are carried."""

from dataclasses import dataclass, field, replace
from pathlib import Path

from stair_jax.cluster.carried import AbsentFolders, carry
from stair_jax.cluster.work import Order, Report
from stair_jax.cluster.worker_process import Absent, Failure, WorkerProcess
from stair_jax.errors import UserError


class Reader:
    """A worker whose items are names of files, the results what these hold."""

    def __init__(self, folder):
        self.folder = folder
        self.files = {path.name: path.read_bytes() for path in folder.glob("sub/*")}

    def exchange(self, order, seconds):
        if order.is_last:
            raise UserError("the judge is of no use")
        return Report([(name, self.files[name]) for name in order.items])


@dataclass(frozen=True)
class MakeReader:
    folder: Path
    places: dict = field(default_factory=dict)
    seen: list = field(default_factory=list)

    def __call__(self):
        folder = self.places.get(self.folder, self.folder)
        if not folder.is_dir():
            raise AbsentFolders([folder])
        self.seen.append(folder)
        return Reader(folder)

    def moved(self, places):
        return replace(self, places=places)


def model_in(folder):
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "weights").write_bytes(b"\x00\x01")
    return folder


def test_a_worker_that_reads_its_folder_is_ready_at_once(tmp_path):
    process = WorkerProcess()
    assert process.start(MakeReader(model_in(tmp_path / "hf"))) == Report(wants=1)
    assert process.exchange(Order(["weights"]), 1.0).finished == [("weights", b"\x00\x01")]


def test_a_folder_that_is_absent_is_carried_there(tmp_path):
    there, absent = model_in(tmp_path / "driver" / "hf"), tmp_path / "worker" / "hf"
    seen = []
    process, make = WorkerProcess(), MakeReader(absent, seen=seen)
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
    assert process.exchange(Order(["weights"]), 1.0).finished == [("weights", b"\x00\x01")]
    (copy,) = seen
    assert copy.name == "hf" and not copy.exists()  # it has been read


def test_a_mistake_of_the_user_is_told_with_the_machine(tmp_path):
    process = WorkerProcess()
    process.start(MakeReader(model_in(tmp_path / "hf")))
    failure = process.exchange(Order(is_last=True), 1.0)
    assert failure.is_users and failure.text.startswith("the judge is of no use (on ")


def test_a_fault_is_told_with_its_traceback(tmp_path):
    process = WorkerProcess()
    process.start(MakeReader(model_in(tmp_path / "hf")))
    failure = process.exchange(Order(["other"]), 1.0)
    assert isinstance(failure, Failure) and not failure.is_users
    assert "KeyError: 'other'" in failure.text and "Traceback" in failure.text
