"""The ledger: what was paid, by identity, on the disk."""

import pytest

from stair_jax.endpoints.chat import Usage
from stair_jax.endpoints.ledger import Ledger, lost_record, reply_record
from stair_jax.endpoints.replies import Reply
from stair_jax.errors import UserError
from stair_jax.record_log import RecordLog

FULL = Reply(
    "yes ü\n",
    "length",
    Usage(5, 3),
    "because",
    ({"A": -0.5, "B": -1.0}, {".": 0.0}),
    "judge-2026-01-01",
    "2026-11-30",
)
PLAIN = Reply("", "content_filter", Usage(0, 0))


def write(path):
    ledger = Ledger(path)
    ledger.append([reply_record("a", FULL, Usage(5, 3), 0.25), lost_record("b", "timeout", 0.5)])
    ledger.append([reply_record("c", PLAIN, Usage(), 0.0)])
    return ledger


def test_replies_come_back_as_they_were_written(tmp_path):
    written = write(tmp_path / "replies.gz")
    for ledger in (written, Ledger(tmp_path / "replies.gz")):
        assert ledger.get("a") == (FULL, 0.25)
        assert ledger.get("c") == (PLAIN, 0.0)
        assert "b" not in ledger and len(ledger) == 2
        assert (ledger.calls, ledger.lost, ledger.cost) == (3, 1, 0.75)
        assert ledger.usage == Usage(5, 3)


def test_a_torn_last_record_is_dropped_and_the_next_can_be_read(tmp_path):
    path = tmp_path / "replies.gz"
    write(path)
    path.write_bytes(path.read_bytes()[:-3])
    ledger = Ledger(path)
    assert "a" in ledger and "c" not in ledger
    ledger.append([reply_record("d", PLAIN, Usage(), 0.0)])
    assert ledger.get("d") == (PLAIN, 0.0)
    assert Ledger(path).get("a") == (FULL, 0.25)


@pytest.mark.parametrize(
    "record", [{"id": "a"}, {"schema": 2, "id": "a", "cost": 0.0}, {"schema": 1, "cost": "much"}]
)
def test_a_file_of_another_kind_is_refused_in_one_line(tmp_path, record):
    RecordLog(tmp_path / "replies.gz").append(record)
    with pytest.raises(UserError, match=r"replies.gz is no file of replies that this version"):
        Ledger(tmp_path / "replies.gz")


def test_a_file_that_changes_while_it_is_in_use_is_named(tmp_path):
    ledger = write(tmp_path / "replies.gz")
    (tmp_path / "replies.gz").write_bytes(b"x" * 1000)
    with pytest.raises(UserError, match="was changed while it was read"):
        ledger.get("a")
