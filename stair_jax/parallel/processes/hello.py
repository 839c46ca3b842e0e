"""What two processes of a run say to each other when they meet.

Process 0 greets each connection with a nonce. The other process says who it is, with a nonce of its
own and the proof that it has the run's token. Process 0 answers, with its proof, once all are there
or the run cannot start.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stair_jax.parallel.processes import credentials
from stair_jax.parallel.processes.messages import has_fields, line_of, readable

HELLO = "stair_jax"  # tells our processes from port scanners and the like
MOST_PROCESSES = 2**16


@dataclass(frozen=True)
class Member:
    """One process of a run.

    Attributes:
      coordinator: host:port of process 0.
      count: number of processes.
      index: of this process, from 0.
      token: that all processes of the run share; empty: none, whoever comes is taken.
    """

    coordinator: str
    count: int
    index: int
    token: str = ""

    @property
    def address(self) -> tuple[str, int]:
        """(host, port) of process 0; the brackets of an IPv6 address are removed."""
        host, _, port = self.coordinator.rpartition(":")
        return host.strip("[]"), int(port)


@dataclass(frozen=True)
class Hello:
    """What another process says to process 0.

    Attributes:
      count: number of processes by its command line.
      index: of the process.
      greeted: the nonce of process 0.
      nonce: its own.
      proof: that it has the token.
    """

    count: int
    index: int
    greeted: str
    nonce: str
    proof: str

    @classmethod
    def of(cls, member: Member, greeted: str) -> "Hello":
        """The hello of a process that was greeted with a nonce."""
        nonce = credentials.draw_nonce()
        said = (HELLO, member.count, member.index, greeted, nonce)
        return cls(*said[1:], credentials.sign(member.token, *said))

    @classmethod
    def read(cls, message: Mapping[str, Any] | None) -> "Hello | None":
        """The hello that a message holds; None: it comes from none of our processes."""
        kinds = {"count": int, "index": int, "greeted": str, "nonce": str, "proof": str}
        if message is None or not has_fields(message, hello=str, **kinds):
            return None
        if message["hello"] != HELLO or not credentials.is_nonce(message["nonce"]):
            return None
        # Each process has checked its own flags: no other values come from one of ours.
        if not 0 < message["index"] < message["count"] <= MOST_PROCESSES:
            return None
        return cls(**{name: message[name] for name in kinds})

    def line(self) -> bytes:
        """As it travels."""
        return line_of({"hello": HELLO, **vars(self)})

    def is_signed(self, token: str, greeted: str) -> bool:
        """Whether it answers this greeting, from a process with this token."""
        said = (HELLO, self.count, self.index, greeted, self.nonce)
        return self.greeted == greeted and credentials.is_proof(self.proof, token, *said)


@dataclass(frozen=True)
class Answer:
    """What process 0 answers to a hello.

    Attributes:
      refused: why the run cannot start; empty: it starts.
      mistake: the reason is a mistake of the user.
      is_signed: it comes from a process with the token.
    """

    refused: str
    mistake: bool
    is_signed: bool

    @classmethod
    def read(cls, message: Mapping[str, Any] | None, hello: Hello, token: str) -> "Answer | None":
        """The answer to `hello` that a message holds; None: it holds none."""
        if message is None or not has_fields(message, refused=str, mistake=bool, proof=str):
            return None
        said = _answer_parts(hello, message["refused"], message["mistake"])
        is_signed = credentials.is_proof(message["proof"], token, *said)
        return cls(readable(message["refused"]), message["mistake"], is_signed)


def greeting(nonce: str) -> bytes:
    """The line with which process 0 greets a connection."""
    return line_of({"greeting": HELLO, "nonce": nonce})


def read_greeting(message: Mapping[str, Any] | None) -> str | None:
    """The nonce of a greeting; None: it is not process 0 of a run that speaks."""
    if message is None or not has_fields(message, greeting=str, nonce=str):
        return None
    is_ours = message["greeting"] == HELLO and credentials.is_nonce(message["nonce"])
    return message["nonce"] if is_ours else None


def answer(token: str, hello: Hello, refused: str, mistake: bool) -> bytes:
    """The line with which process 0 answers a hello; see `Answer`."""
    refused = readable(refused)
    proof = credentials.sign(token, *_answer_parts(hello, refused, mistake))
    return line_of({"refused": refused, "mistake": mistake, "proof": proof})


def _answer_parts(hello: Hello, refused: str, mistake: bool) -> tuple[Any, ...]:
    """What process 0 signs: another word first, so that no process can send its own proof back."""
    return "answer", hello.nonce, hello.greeted, hello.index, refused, mistake
