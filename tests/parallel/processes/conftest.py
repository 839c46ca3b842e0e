"""Fixtures of processes that meet."""

import socket
import threading

import pytest

from stair_jax.errors import UserError
from stair_jax.parallel.processes.collectives import LostProcess
from stair_jax.parallel.processes.rendezvous import meet


@pytest.fixture
def free_address():
    """`free_address()`: host:port of this machine at which nobody listens."""

    def find():
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            return f"127.0.0.1:{free.getsockname()[1]}"

    return find


@pytest.fixture
def come():
    """`come(members, seconds)`: calls `meet` in a thread per member.

    Returns the connections, or the error, of each. With `meanwhile`, that is called beside them.
    """

    def come(members, seconds, meanwhile=None):
        results = {}

        def run(place, member):
            try:
                results[place] = meet(member, seconds)
            except (LostProcess, UserError) as error:
                results[place] = error

        threads = [threading.Thread(target=run, args=item) for item in enumerate(members)]
        for thread in threads[: 1 if meanwhile else None]:
            thread.start()
        if meanwhile:
            meanwhile()
        for thread in threads[1:] if meanwhile else ():
            thread.start()
        for thread in threads:
            thread.join()
        return [results[place] for place in range(len(members))]

    return come
