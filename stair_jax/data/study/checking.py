"""What holds for the rows of every build, whatever the sources."""

from collections.abc import Mapping, Sequence

from stair_jax.data.decontamination import normalised
from stair_jax.data.records import KINDS
from stair_jax.data.study.public_set import Row
from stair_jax.text import steps

_STRUCTURED = ("sft", "sft_contrast")
TRAINING = (*_STRUCTURED, "prompts1", "prompts2", "prompts3")


def check_files(files: Mapping[str, Sequence[Row]]) -> None:
    """Asserts what users rely on: a failure is a fault of the builder.

    Ids are unique in a file; kinds are known; structured answers pass the strict parser; no prompt
    is in two training files, nor in a training file and in one to tune on or to report.
    """
    for name, rows in files.items():
        ids = [row["id"] for row in rows]
        assert len(set(ids)) == len(ids), f"{name}: an id comes twice"
        assert all(row["prompt"].strip() for row in rows), f"{name}: a prompt is empty"
        assert {row["kind"] for row in rows if "kind" in row} <= set(KINDS), name
    for name in _STRUCTURED:
        for row in files[name]:
            steps.parse(row["answer"])
    trained: dict[str, str] = {}
    for name in TRAINING:
        for plain in map(plain_prompt, files[name]):
            assert plain not in trained, f"a prompt of {trained[plain]} is in {name} too"
            trained[plain] = name
    for name, rows in files.items():
        if name == "dev" or name.startswith("eval/"):
            for plain in map(plain_prompt, rows):
                assert plain not in trained, f"a prompt of {trained[plain]} is in {name} too"


def plain_prompt(row: Row) -> str:
    """The normalised text of what a row asks for: of an attacked or wrapped prompt, the goal."""
    return normalised(str(row.get("goal", row["prompt"])))
