"""Strangers at the port of process 0: none crashes it, joins the run, or holds the others up."""

import contextlib
import itertools
import json
import socket
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stair_jax.errors import UserError
from stair_jax.parallel.processes import gathering, messages, watchdog
from stair_jax.parallel.processes.collectives import LostProcess
from stair_jax.parallel.processes.hello import Answer, Hello, Member, answer, read_greeting
from stair_jax.parallel.processes.messages import LONGEST_LINE, parse, receive

TOKEN = "0123456789abcdef"
NONCE = "ab" * 16
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)
FIELDS = {
    "hello": "stair_jax",
    "count": 2,
    "index": 1,
    "greeted": NONCE,
    "nonce": NONCE,
    "proof": "0" * 64,
}


@st.composite
def almost_hellos(draw):
    """A hello with one field gone, odd, or too many."""
    fields = dict(FIELDS)
    name = draw(st.sampled_from([*FIELDS, "more"]))
    fields.pop(name, None)
    if draw(st.booleans()):
        fields[name] = draw(JSON)
    return json.dumps(fields).encode() + b"\n"


HOSTILE = st.one_of(
    st.binary(max_size=40),
    st.binary(max_size=40).map(lambda data: data + b"\n"),
    JSON.map(lambda value: json.dumps(value).encode() + b"\n"),
    almost_hellos(),
    st.sampled_from(
        [
            b"",
            b"\n",
            b'{"hello": "stair_jax"}\n',
            b"[" * 3000 + b"\n",
            b"[" * 60_000 + b"\n",
            b"x" * (LONGEST_LINE + 1),
            b'{"hello": ' + b"9" * 4000 + b"}\n",
            b"\xff\xfe\n",
            b'"\\ud800"\n',
            b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        ]
    ),
)


def call(address):
    """A connection to process 0, which may not listen yet."""
    host, _, port = address.rpartition(":")
    for _ in range(500):
        with contextlib.suppress(OSError):
            return socket.create_connection((host, int(port)), timeout=20)
        time.sleep(0.01)
    raise AssertionError("process 0 does not listen")


def close(*all_connections):
    for connections in all_connections:
        for connection in connections.values():
            connection.close()


def is_closed(connection):
    """Waits until the other side closes a connection, and reads what it sent before."""
    with contextlib.suppress(ConnectionResetError):
        while connection.recv(4096):
            pass
    connection.close()
    return True


@given(said=st.lists(HOSTILE, min_size=1, max_size=4))
def test_a_run_starts_whatever_strangers_say(said, free_address, come):
    address, strangers = free_address(), []

    def meanwhile():
        for data in said:
            strangers.append(call(address))
            with contextlib.suppress(OSError):
                strangers[-1].sendall(data)

    first, second = come([Member(address, 2, index) for index in (0, 1)], 20.0, meanwhile)
    assert set(first) == {1} and set(second) == {0}
    first[1].sendall(b"x")
    assert second[0].recv(1) == b"x"
    assert all(is_closed(stranger) for stranger in strangers)
    close(first, second)


@given(st.one_of(HOSTILE, almost_hellos()))
def test_no_bytes_make_a_hello_that_is_signed(data):
    hello = Hello.read(parse(data))
    assert hello is None or not hello.is_signed(TOKEN, NONCE)


def test_a_hello_is_that_of_its_member_alone():
    member = Member("a:1", 3, 2, TOKEN)
    hello = Hello.read(parse(Hello.of(member, NONCE).line()))
    assert (hello.count, hello.index) == (3, 2) and hello.is_signed(TOKEN, NONCE)
    assert not hello.is_signed(TOKEN, "cd" * 16)  # heard before, and said again
    assert not hello.is_signed(TOKEN + "x", NONCE)
    for change in ({"index": 1}, {"count": 4}, {"nonce": "cd" * 16}):
        assert not Hello(**{**vars(hello), **change}).is_signed(TOKEN, NONCE), change


@pytest.mark.parametrize(
    "change",
    [{"index": "1"}, {"index": True}, {"index": [1]}, {"index": 0}, {"index": 2}, {"index": -1},
     {"index": 1.0}, {"count": 10**9}, {"count": "2"}, {"nonce": "é" * 32}, {"hello": "other"}],
)  # fmt: skip
def test_a_hello_of_no_process_of_ours_is_none(change):
    assert Hello.read(FIELDS) is not None
    assert Hello.read({**FIELDS, **change}) is None


def test_a_proof_that_is_no_ascii_is_none():
    assert not Hello.read({**FIELDS, "proof": "é" * 64}).is_signed("", NONCE)


@given(JSON)
def test_answers_and_greetings_of_anyone_are_checked(message):
    hello = Hello.of(Member("a:1", 2, 1, TOKEN), NONCE)
    if isinstance(message, dict):
        assert read_greeting(message) is None
        assert Answer.read(message, hello, TOKEN) is None


def test_only_who_has_the_token_can_answer():
    hello = Hello.of(Member("a:1", 2, 1, TOKEN), NONCE)

    def read(line, asked=hello):
        return Answer.read(parse(line), asked, TOKEN)

    assert read(answer(TOKEN, hello, "", False)) == Answer("", False, True)
    assert read(answer(TOKEN, hello, "late", True)) == Answer("late", True, True)
    assert not read(answer("", hello, "", False)).is_signed
    assert not read(answer(TOKEN, hello, "", False), Hello.of(Member("a:1", 2, 1), NONCE)).is_signed
    changed = parse(answer(TOKEN, hello, "late", True)) | {"refused": ""}
    assert not Answer.read(changed, hello, TOKEN).is_signed


def test_another_token_is_named_and_the_run_goes_on_waiting(free_address, come, capfd):
    address, refused = free_address(), []

    def meanwhile():
        for token in ("", "fedcba9876543210"):
            with contextlib.closing(call(address)) as connection:
                hello = Hello.of(
                    Member(address, 2, 1, token), read_greeting(receive(connection, 9))
                )
                connection.sendall(hello.line())
                refused.append(Answer.read(receive(connection, 9), hello, token))

    first, second = come([Member(address, 2, i, TOKEN) for i in (0, 1)], 20.0, meanwhile)
    assert set(first) == {1} and set(second) == {0}
    close(first, second)
    said = "process 0 has another STAIR_TOKEN: set the same for all processes"
    assert refused == [Answer(said, True, True), Answer(said, True, False)]
    err = capfd.readouterr().err
    assert err == (
        "stair_jax: 127.0.0.1 came as process 1 with another STAIR_TOKEN, and was turned away: set "
        "the same for all processes\n"
    )


@pytest.mark.parametrize("token", ["", "fedcba9876543210"])
def test_a_process_with_another_token_ends_with_one_line(free_address, come, token):
    address = free_address()
    first, second = come([Member(address, 2, 0, TOKEN), Member(address, 2, 1, token)], 1.0)
    assert isinstance(first, LostProcess) and isinstance(second, UserError)
    assert "another STAIR_TOKEN" in str(second) and "\n" not in str(second)


def test_bytes_one_by_one_do_not_stretch_the_deadline_of_a_line(monkeypatch):
    monkeypatch.setattr(messages, "LINE_SECONDS", 0.2)
    ours, theirs = socket.socketpair()
    stop = threading.Event()
    sent = itertools.count()

    def drip():
        while not stop.wait(0.02) and next(sent) < 500:
            theirs.sendall(b" ")

    thread = threading.Thread(target=drip)
    thread.start()
    assert receive(ours, 9.0) is None
    stop.set()
    thread.join()
    assert next(sent) < 400  # of those that would have been sent
    ours.close(), theirs.close()


def test_a_slow_stranger_is_turned_away_in_the_middle_of_its_line(free_address, come, monkeypatch):
    monkeypatch.setattr(gathering, "LINE_SECONDS", 0.2)
    address, sent = free_address(), []

    def meanwhile():
        connection = call(address)
        with pytest.raises(OSError):
            for _ in range(500):
                connection.sendall(b" ")
                sent.append(1)
                time.sleep(0.02)
        connection.close()

    first, second = come([Member(address, 2, index) for index in (0, 1)], 30.0, meanwhile)
    assert set(first) == {1} and set(second) == {0} and len(sent) < 400
    close(first, second)


def test_silent_strangers_hold_nobody_up(free_address, come, monkeypatch):
    """None of them has reached its deadline when the run starts; there are more than are kept."""
    monkeypatch.setattr(gathering, "_MOST_GUESTS", 8)
    monkeypatch.setattr(gathering, "LINE_SECONDS", 1000.0)
    address, strangers = free_address(), []

    def meanwhile():
        strangers.extend(call(address) for _ in range(20))

    first, second = come([Member(address, 2, index) for index in (0, 1)], 60.0, meanwhile)
    assert set(first) == {1} and set(second) == {0}
    assert all(is_closed(stranger) for stranger in strangers)
    close(first, second)


def test_strangers_do_not_stretch_the_time_to_wait(free_address, come):
    """While they knock, `accept` never times out."""
    address, over = free_address(), threading.Event()

    def knock():
        while not over.wait(0.005):
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", int(address[10:])), timeout=1).close()

    thread = threading.Thread(target=knock)
    thread.start()
    (error,) = come([Member(address, 2, 0)], 0.5)
    over.set()
    thread.join()
    assert str(error) == "process 1 of 2 did not come to the start within 0 s"


def test_a_process_that_ends_while_it_waits_may_come_again(free_address, come):
    address = free_address()

    def meanwhile():
        with contextlib.closing(call(address)) as connection:
            greeted = read_greeting(receive(connection, 9))
            connection.sendall(Hello.of(Member(address, 3, 1), greeted).line())
        time.sleep(0.05)

    first, *others = come([Member(address, 3, index) for index in (0, 1, 2)], 20.0, meanwhile)
    assert set(first) == {1, 2}
    close(first, *others)


@given(JSON | st.fixed_dictionaries({"process": JSON, "status": JSON, "text": st.text()}))
def test_no_message_about_an_end_is_taken_unchecked(message):
    member = Member("a:1", 3, 1)
    found = watchdog._read_end(message if isinstance(message, dict) else None, 0, member)
    if found is not None:
        assert found["process"] in range(3) and "\n" not in found["text"]
        assert found["status"] is None or 0 <= found["status"] < 256


@pytest.mark.parametrize(
    ("message", "sender", "taken"),
    [
        ({"process": 2, "status": 4, "text": "a\x1b[2J\nb"}, 2, {"text": "a [2J b"}),
        ({"process": 1, "status": 4, "text": ""}, 2, None),  # speaks for another one
        ({"process": 1, "status": None, "text": ""}, 0, {}),
        ({"process": 2, "status": None, "text": ""}, 2, None),
        ({"process": 2, "status": 256, "text": ""}, 2, None),
        ({"process": 2, "status": True, "text": ""}, 2, None),
        ({"process": 3, "status": 1, "text": ""}, 0, None),
        ({"process": 2, "status": 1}, 2, None),
    ],
)
def test_an_end_is_told_by_its_process_or_by_process_0(message, sender, taken):
    expected = None if taken is None else message | taken
    assert watchdog._read_end(message, sender, Member("a:1", 3, 1)) == expected
