"""What the operating system refuses is one line, wherever it comes up; other faults are not."""

import errno
import os

import pytest

from stair_jax import launch
from stair_jax.errors import system_error


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ELOOP, "", "a/b"), "cannot use a/b: Too many levels of symbolic links"),
        (PermissionError(errno.EACCES, "", b"a\xff"), "cannot use a\udcff: Permission denied"),
        (OSError(errno.EFBIG, ""), "the system refuses: File too large"),
        (ValueError("embedded null byte"), "a path holds a NUL character: see the paths in the"),
        (ConnectionResetError(errno.ECONNRESET, ""), ""),
        (OSError("of our own making"), ""),
        (ValueError("ours"), ""),
    ],
)
def test_errors_of_files_are_told_from_faults(error, said):
    assert system_error(error).startswith(said) and bool(system_error(error)) == bool(said)


@pytest.mark.parametrize("workdir", ["n" * 300, f"a/{'n' * 300}/b", "/proc/x", "file/a", "loop/a"])
def test_a_workdir_that_cannot_be_is_one_line(tmp_path, monkeypatch, capsys, workdir):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "")
    (tmp_path / "file").write_text("")
    (tmp_path / "loop").symlink_to("loop")
    command = ["stair-jax", "--config=pocket", f"--workdir={workdir}"]
    assert launch.main([*command, "--config.stages=('pocket:data',)"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("stair_jax: error: cannot ") and workdir.split("/")[-1] in line
    assert sorted(os.listdir(tmp_path)) in (["file", "loop"], ["a", "file", "loop"])
