"""A stage `synthesize` with a teacher is killed again and again (`payments.py`).

The teacher writes some answers that break the grammar, which go back once. What the stage makes
equals byte for byte what it makes undisturbed with a teacher without faults.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from soak.payments import Attacked, attack
from soak.result import Result
from stair_jax.storage import write_jsonl
from stair_jax.testing.fake_endpoint import Act, FakeEndpoint, reply_of
from stair_jax.text.steps import format_answer

_PROMPTS = 40
FILES = ("answers.jsonl", "sft.jsonl", "rejected.jsonl", "counts.json", "metrics.jsonl")
_REFUSAL = "I'm sorry, but I can't help with that."


def run(size: int, seed: int, folder: Path, count: int = _PROMPTS) -> Result:
    """Kills `size` processes; see `payments.attack`.

    Args:
        size: number of kills.
        seed: of the moments, and of what the teacher does.
        folder: for prompts and stages.
        count: prompts of a run.
    """
    prompts = folder / "prompts"
    rows = [{"id": f"p{i}", "prompt": f"Request {i}?", "kind": "safety"} for i in range(count)]
    write_jsonl(prompts / "prompts1.jsonl", rows)
    with FakeEndpoint(lambda number, body: Act(body=_answer(body))) as endpoint:
        undisturbed = Stage(endpoint, folder / "undisturbed", 0, prompts, {})
        undisturbed.finish()
    expected, calls = undisturbed.made(), len(endpoint.calls)

    def make(endpoint: FakeEndpoint, place: Path) -> Stage:
        return Stage(endpoint, place, calls, prompts, expected)

    return attack("synthesis", size, seed, folder, make, _answer)


def _answer(body: Mapping[str, Any]) -> dict[str, Any]:
    """What the teacher writes; a third of the first answers break the grammar."""
    reply = reply_of(body)
    said = reply["choices"][0]["message"]
    is_sound = len(body["messages"]) > 1 or body["seed"] % 3
    steps = [("What is asked", f"It is {said['content']}.")]
    said["content"] = format_answer(steps, _REFUSAL) if is_sound else f"No tags: {_REFUSAL}"
    return reply


@dataclass
class Stage(Attacked):
    """Starts of one stage, until it is finished.

    Attributes:
        prompts: folder of the prompts.
        expected: what an undisturbed stage makes, by file.
    """

    LEDGER = "teacher_replies.jsonl.gz"

    prompts: Path
    expected: Mapping[str, bytes]

    def command(self) -> list[str]:
        """See `Attacked.command`."""
        folders = [str(self.prompts), str(self.folder)]
        return ["soak.synthesis_client", self.endpoint.base_url, *folders]

    def made(self) -> dict[str, bytes]:
        """What the stage made."""
        return {name: (self.folder / name).read_bytes() for name in FILES}

    def differences(self) -> list[str]:
        """See `Attacked.differences`."""
        found = [name for name, data in self.made().items() if data != self.expected[name]]
        return [f"{', '.join(found)} differ from those of an undisturbed stage"] * bool(found)
