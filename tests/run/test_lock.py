"""The lock of a working folder."""

import pytest

from stair_jax.errors import UserError
from stair_jax.run import lock
from stair_jax.run.lock import is_locked, locked


def test_who_waits_for_a_folder_says_so_once(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(lock, "_QUIET", 0.0)
    with locked(tmp_path):
        with pytest.raises(UserError, match=r"in use by process \d+ on .*: wait until it ends"):
            lock.Lock(tmp_path, 0.3)
        assert capsys.readouterr().err.count("waits for at most 0 s") == 1
        assert is_locked(tmp_path)
    assert not is_locked(tmp_path)


def test_a_lock_that_is_lent_is_free_meanwhile(tmp_path):
    with locked(tmp_path) as own:
        with own.lent(), locked(tmp_path):
            pass
        assert is_locked(tmp_path)
