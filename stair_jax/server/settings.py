"""Settings of the server."""

from dataclasses import dataclass
from typing import Literal

from stair_jax.settings import Settings, setting


@dataclass(frozen=True)
class ServerSettings(Settings):
    """Where the server listens, whom it answers, and how much it takes on.

    Attributes:
      host: address to listen at; "0.0.0.0" is reached from other machines, for which
        `api_key_file` should be set.
      port: to listen at; 0: any that is free.
      api_key_file: a file of API keys, one a line, one of which each request must bring; "": none
        is needed.
      served_name: by which clients name the model; "": that of the command line.
      reasoning: what clients get of a structured answer: "separate": its steps in fields of their
        own; "hidden": its output block alone; "raw": its whole text, tags included.
      max_body_bytes: of a request.
      max_choices: most answers to one request (its field `n`).
      max_queue: most answers that wait for those under way; what comes then gets status 429.
      max_requests_per_key: most requests under way that brought the same key; 0: no limit.
      drain_seconds: how long what is under way may go on after a SIGTERM.
    """

    host: str = "127.0.0.1"
    port: int = setting(8000, least=0, most=65535)
    api_key_file: str = ""
    served_name: str = ""
    reasoning: Literal["separate", "hidden", "raw"] = "separate"
    max_body_bytes: int = setting(2**22, least=1, most=2**40)
    max_choices: int = setting(128, least=1, most=2**16)
    max_queue: int = setting(1024, least=1, most=2**24)
    max_requests_per_key: int = setting(0, least=0, most=2**24)
    drain_seconds: float = setting(30.0, least=0, most=86400)
