"""A cluster that lets in who has no token is refused."""

import subprocess

import pytest

from stair_jax.cluster import stranger
from stair_jax.cluster.address import read_address
from stair_jax.errors import UserError

ADDRESS = read_address("ray://10.0.0.1:6379")


@pytest.fixture
def knock(monkeypatch):
    """Lets the process that knocks end with a status, and an error; returns what it was given."""

    def knock(status, error=""):
        seen = {}

        def run(command, **options):
            seen.update(command=command, **options)
            return subprocess.CompletedProcess(command, status, "", error)

        monkeypatch.setenv("RAY_AUTH_MODE", "token")
        monkeypatch.setenv("RAY_AUTH_TOKEN", "secret" * 6)
        monkeypatch.setattr(stranger.subprocess, "run", run)
        stranger.check_closed(ADDRESS)
        return seen

    return knock


def test_who_knocks_has_no_token(knock):
    seen = knock(stranger._REFUSED)
    assert seen["command"][-2:] == ["stair_jax.cluster.stranger", "10.0.0.1:6379"]
    assert seen["env"]["RAY_AUTH_MODE"] == "disabled"
    assert "secret" not in "".join([*seen["command"], *seen["env"].values()])


def test_a_cluster_that_lets_a_stranger_in_is_refused(knock):
    with pytest.raises(UserError, match=r"lets in who has no token.*RAY_AUTH_MODE=token"):
        knock(stranger._LET_IN)


@pytest.mark.parametrize(
    ("error", "said"), [("Traceback\nRpcError: timed out\n", "RpcError: timed out"), ("", "no ans")]
)
def test_a_cluster_of_which_nothing_is_known_is_refused(knock, error, said):
    with pytest.raises(UserError, match=f"cannot be reached: {said}"):
        knock(1, error)


def test_a_cluster_that_says_nothing_is_not_waited_for(monkeypatch):
    def run(command, timeout, **options):
        raise subprocess.TimeoutExpired(command, timeout)

    monkeypatch.setattr(stranger.subprocess, "run", run)
    with pytest.raises(UserError, match="does not answer within 120 s"):
        stranger.check_closed(ADDRESS)
