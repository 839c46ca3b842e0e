"""Which files of a stage's folder belong to its artifact."""

from stair_jax.run.stage_records import COMPLETE_FILE, STARTED_FILE, check_bytes, write_complete
from stair_jax.storage import read_json


def test_hidden_files_events_and_checkpoints_are_no_part_of_the_artifact(tmp_path):
    kept = ["hf/config.json", "metrics.jsonl"]
    others = [".hf.before/config.json", ".part0.jsonl", "hf/.tmp", "checkpoints/7/x", STARTED_FILE]
    others += ["trees.jsonl.gz.damaged", "trees.jsonl.gz.damaged2"]
    for name in [*kept, *others, "events.out.tfevents.1"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    identity = {"kind": "sft", "name": "sft", "seed": 0, "settings": {}, "inputs": {}}
    write_complete(tmp_path, identity)
    assert list(read_json(tmp_path / COMPLETE_FILE)["files"]) == kept
    assert not (tmp_path / STARTED_FILE).exists()
    check_bytes(tmp_path)
