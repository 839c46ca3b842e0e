"""Process 0 listens where the coordinator's address is, and nowhere else."""

import socket

import pytest

from stair_jax.errors import UserError
from stair_jax.parallel.processes import interfaces
from stair_jax.parallel.processes.interfaces import listen


def where(listening):
    """The addresses of the sockets that listen, which are closed."""
    found = {server.getsockname()[0] for server in listening.sockets}
    listening.close()
    return found


def test_an_address_is_that_interface_alone():
    listening = listen("127.0.0.1", 0)
    assert listening.address(80) == "127.0.0.1:80"
    assert where(listening) == {"127.0.0.1"}


def test_localhost_is_not_reached_from_elsewhere():
    listening = listen("localhost", 0)
    assert listening.address(80) == "localhost:80"
    assert where(listening) <= {"127.0.0.1", "::1"}


def test_an_address_of_ipv6_gets_its_brackets_back():
    assert interfaces.Listening((), "::1").address(80) == "[::1]:80"
    assert interfaces.Listening((), None).address(80) == "[::]:80"


@pytest.mark.parametrize("interface", ["127.0.0.1", "0.0.0.0"])
def test_the_interface_may_be_named(interface):
    """Here beside a coordinator whose name means another machine."""
    listening = listen("192.0.2.1", 0, interface)
    assert where(listening) <= {"127.0.0.1"} if interface[0] == "1" else {"0.0.0.0", "::"}


@pytest.mark.parametrize(
    ("host", "means"),
    [
        ("192.0.2.1", None),  # of no interface: behind a network address translation
        ("no.such.host.invalid", []),
        ("ourselves", [(socket.AF_INET, ("127.0.1.1", 0))]),  # as Debian writes /etc/hosts
    ],
)
def test_where_a_name_reaches_no_interface_all_are_taken_and_that_is_said(
    monkeypatch, capsys, host, means
):
    if means is not None:
        monkeypatch.setattr(interfaces, "_resolve", lambda host, port: means)
    listening = listen(host, 0)
    assert listening.address(80) == "[::]:80"
    assert where(listening) <= {"0.0.0.0", "::"}
    err = capsys.readouterr().err
    assert err.startswith(f"stair_jax: {host} is no address of an interface of this machine")
    assert err.count("\n") == 1


@pytest.mark.parametrize("interface", ["192.0.2.1", "no.such.host.invalid"])
def test_an_interface_that_is_not_there_is_named(interface):
    with pytest.raises(UserError, match=r"--listen is .*: this machine has no such interface"):
        listen("127.0.0.1", 0, interface)


def test_a_port_that_is_taken_is_named_and_frees_what_was_opened():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"process 0 cannot listen at port {port} of --coord"):
            listen("localhost", port)
