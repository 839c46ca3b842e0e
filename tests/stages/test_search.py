"""Search and preferences stages with a real, tiny, random model, killed and resumed."""

import json
import os
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from tokenizers import AddedToken, models, pre_tokenizers
from tokenizers import Tokenizer as Backend
from transformers import PreTrainedTokenizerFast

from stair_jax import storage
from stair_jax.errors import UserError
from stair_jax.models import huggingface
from stair_jax.models.config import ModelConfig
from stair_jax.models.lora import B, Lora
from stair_jax.models.transformer import init_params
from stair_jax.record_log import RecordLog
from stair_jax.search.pair_candidates import NO_PAIRS
from stair_jax.search.pair_outcomes import regret
from stair_jax.search.tree_records import TreeRecord, read_trees
from stair_jax.settings import build
from stair_jax.stages import Preferences, Search, judging_stage, search_probe
from stair_jax.stages.search_parts import TREES_FILE
from stair_jax.text.tokenizer import Tokenizer, add_tags

SETTINGS = {
    "model": "base",
    "prompts": "data",
    "file": "prompts.jsonl",
    "num_prompts": 9,
    "max_prompt_tokens": 80,
    "context_tokens": 64,
    "num_iterations": 12,
    "num_children": 3,
    "max_depth": 3,
    "temperature": 1.0,
    "top_p": 1.0,
    "top_k": 0,
    "max_step_tokens": 24,
    "max_answer_tokens": 40,
    "judge": {
        "probe": "",  # random weights
        "mode": "expected",
        "fence": False,  # its words would not fit
        "helpfulness_template": "rate {prompt} : {answer}",
        "safety_template": "safe {prompt} : {answer}",
        "safety_score": "expected",
        "malformed": -2.5,
    },
    "reward": {"family": "s"},
    "samples_every": 2,
}
ODD = [
    {"id": "empty", "prompt": " "},
    {"id": "full", "prompt": "1 " * 70},
    {"id": "p1", "prompt": "1 2"},
    {"id": "long", "prompt": "1 " * 200},
]
SKIPPED = [
    {"id": "empty", "reason": "empty prompt"},
    {"id": "full", "reason": "prompt leaves no room in the context"},
    {"id": "p1", "reason": "duplicate id"},
    {"id": "long", "reason": "prompt too long"},
]
PAIRS = {
    "trees": "search",
    "v0": 0.0,
    "v1": -3.0,
    "min_visits": 1,
    "prm": {"v0": 0.0, "max_pairs_per_tree": 20},
}


def make_tokenizer():
    """So few words that a random model samples the tags often."""
    words = ["[UNK]", "1", "2", "3", "4", "5", "SAFE", "UNSAFE", "Conclusion:", "[", "rate", "safe"]
    backend = Backend(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Split("[", "isolated")]
    )
    backend.add_special_tokens([AddedToken("<|end|>", special=True)])
    hf = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|end|>")
    hf.chat_template = "{% for m in messages %}<|end|>{{ m['content'] }}<|end|>{% endfor %}"
    add_tags(hf)
    return Tokenizer(hf)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """Folders of a model and of prompts."""
    root = tmp_path_factory.mktemp("inputs")
    tokenizer = make_tokenizer()
    config = ModelConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        initializer_range=0.3,
    )
    params = init_params(config, jax.random.key(0))
    huggingface.save(root / "base" / "hf", params, config, tokenizer)
    rows = [
        {"id": f"p{i}", "prompt": "1 2 " * i + "3", "kind": kind, "source": "test"}
        for i, kind in enumerate(["safety", "helpfulness"] * 3)
    ]
    rows = [*rows[:5], *({"kind": "safety", "source": "odd"} | row for row in ODD), rows[5]]
    storage.write_jsonl(root / "data" / "prompts.jsonl", rows)
    return {"model": root / "base", "prompts": root / "data"}


@pytest.fixture(scope="module")
def run_search(run_stage, inputs):
    """`run_search(folder, trees_in_flight, **settings)`: the folder of a finished search."""

    def run_search(folder, trees_in_flight=4, **settings):
        runtime = {"slots": 8, "trees_in_flight": trees_in_flight}
        return run_stage(Search, SETTINGS | settings, folder, inputs, **runtime)

    return run_search


@pytest.fixture
def run_preferences(run_stage):
    """`run_preferences(folder, trees, **settings)`: the bytes of each file that is written."""

    def run_preferences(folder, trees, **settings):
        run_stage(Preferences, PAIRS | settings, folder, {"trees": trees})
        return {path.name: path.read_bytes() for path in folder.iterdir()}

    return run_preferences


@pytest.fixture(scope="module")
def finished(run_search, tmp_path_factory):
    """An undisturbed search."""
    return run_search(tmp_path_factory.mktemp("search"))


def test_search_writes_one_tree_a_prompt(finished):
    records = [TreeRecord.from_dict(r) for r in RecordLog(finished / TREES_FILE)]
    assert sorted(record.id for record in records) == [f"p{i}" for i in range(5)]
    assert sum(len(record.nodes) for record in records) > 20
    assert all(record.iterations == 12 and record.generated_tokens for record in records)
    metrics = storage.read_jsonl(finished / "metrics.jsonl")
    assert [line["step"] for line in metrics] == [1, 2, 3, 4, 5]
    by_id = {record.id: record for record in records}
    assert [line["nodes"] for line in metrics] == [len(by_id[f"p{i}"].nodes) for i in range(5)]
    speed = storage.read_jsonl(finished / "speed.jsonl")
    assert [line["step"] for line in speed] == [1, 2, 3, 4, 5]
    assert speed[-1]["hit_rate"] > 0.3 and 0 < speed[-1]["occupancy"] <= 1
    assert not set(metrics[0]) & set(speed[0]) - {"step"}
    assert storage.read_json(finished / "skipped.json") == SKIPPED


def test_samples_are_of_every_second_prompt_with_answers_scores_and_replies(finished):
    records = {record["id"]: record for record in RecordLog(finished / TREES_FILE)}
    samples = list(storage.read_jsonl(finished / "samples.jsonl"))
    places = [(row["step"], row["id"], row["sample"]) for row in samples]
    assert places == [
        (2 * place + 1, f"p{2 * place}", what)
        for place in range(3)
        for what in ("tree", "judgement")
    ]
    for row in samples:
        nodes = records[row["id"]]["nodes"]
        entries = [entry for node in nodes for entry in node["judgements"]]
        assert row["prompt"] == records[row["id"]]["prompt"]
        if row["sample"] == "tree":
            rewards = [entry["reward"] for entry in entries if entry["reward"] is not None]
            assert row["reward"] == max(rewards) and row["tree_value"] == nodes[0]["value"]
        else:
            assert row["policy safety labels"].startswith("log p -")
            assert row["reward"] in [entry["reward"] for entry in entries]
            assert row["answer"] in [entry["answer"] for entry in entries]


def trees(folder):
    """The records by prompt, without the one field that may differ."""
    records = RecordLog(folder / TREES_FILE).read()
    return {record["id"]: record | {"seconds": None} for record in records}


def test_killed_and_resumed_search_gives_the_same_preferences_and_metrics(
    finished, run_search, run_preferences, tmp_path, monkeypatch, capsys
):
    expected = run_preferences(tmp_path / "expected", finished)
    append = RecordLog.append

    def killed(log, record):
        if len(log.read()) == 2:
            raise KeyboardInterrupt
        append(log, record)

    folder = tmp_path / "search"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(RecordLog, "append", killed)
        run_search(folder)
    with open(folder / TREES_FILE, "ab") as file:
        file.write(b"\x1f\x8b\x08 torn")
    run_search(folder)
    assert f"{TREES_FILE}: it was damaged: 8 of its" in capsys.readouterr().err
    assert trees(folder) == trees(finished) and len(trees(folder)) == 5
    metrics = (folder / "metrics.jsonl").read_bytes()
    assert metrics == (finished / "metrics.jsonl").read_bytes()
    samples = (folder / "samples.jsonl").read_bytes()
    assert samples == (finished / "samples.jsonl").read_bytes()
    assert storage.read_json(folder / "skipped.json") == SKIPPED
    assert run_preferences(tmp_path / "resumed", folder) == expected
    assert len(expected["dpo.jsonl"].splitlines()) > 3
    # A finished search has nothing left to do.
    before = (folder / TREES_FILE).read_bytes()
    run_search(folder)
    assert (folder / TREES_FILE).read_bytes() == before
    assert (folder / "metrics.jsonl").read_bytes() == metrics


def test_trees_that_are_gone_without_a_trace_are_missed(finished, run_search, tmp_path, capsys):
    """The file was cut between two records, and then lost as a whole."""
    folder = tmp_path / "search"
    shutil.copytree(finished, folder)
    end = [end for _, end in RecordLog(folder / TREES_FILE).members()][2]
    os.truncate(folder / TREES_FILE, end)
    run_search(folder)
    assert "search: 2 trees that were finished are gone, and are sea" in capsys.readouterr().err
    assert trees(folder) == trees(finished)
    (folder / TREES_FILE).unlink()
    run_search(folder)
    assert "search: 5 trees that were finished are gone" in capsys.readouterr().err
    assert trees(folder) == trees(finished)


def test_preferences_count_what_they_make_and_leave_out(finished, run_preferences, tmp_path):
    files = run_preferences(tmp_path, finished)
    counts = json.loads(files["counts.json"])
    pairs = storage.read_jsonl(tmp_path / "dpo.jsonl")
    processes = storage.read_jsonl(tmp_path / "prm.jsonl")
    assert counts["dpo"]["pairs"] == len(pairs) and counts["dpo"]["trees"] == 5
    assert counts["prm"]["pairs"] == len(processes) > 0
    kinds = sum(count for name, count in counts["dpo"].items() if name.startswith("kind_"))
    assert kinds == len(pairs)
    tokenizer = make_tokenizer()
    for pair in pairs:  # texts and ids say the same
        assert tokenizer.decode(pair["chosen_tokens"]) == pair["chosen"]
        assert pair["chosen_value"] > pair["rejected_value"]
        assert 0 <= pair["chosen_refusals"] <= 1
    regrets = [regret(tree) for tree in read_trees(finished / TREES_FILE)]
    found = json.loads(files["regret.json"])
    assert sum(kind["trees"] for kind in found.values()) == len(regrets) - regrets.count(None) > 0
    assert all(kind["mean"] >= 0 for kind in found.values())


def test_trees_without_pairs_are_counted_by_reason_and_thresholds_proposed(
    finished, run_preferences, tmp_path, capsys
):
    name = tmp_path.name
    strict = {"v0": 0.3, "v1": 0.5, "min_visits": 4, "report": {"min_pairs": 1}}
    files = run_preferences(tmp_path, finished, **strict)
    lines = capsys.readouterr().err.splitlines()
    without = json.loads(files["counts.json"])["trees_without_pairs"]
    with_pairs = {pair["prompt"] for pair in storage.read_jsonl(tmp_path / "dpo.jsonl")}
    assert sum(without.values()) == 5 - len(with_pairs) > 0
    for reason, count in without.items():
        assert f"{name}: {count} of 5 trees give no pair: {NO_PAIRS[reason]}" in lines
    report = json.loads(files["report.json"])
    proposed = report["proposed"]
    chosen = {field: proposed[field] for field in ("v0", "v1", "min_visits")}
    assert f"--config.{name}.v0={chosen['v0']:g} " in lines[-1]
    assert proposed["pairs"] > report["set"]["pairs"]
    run_preferences(tmp_path / "proposed", finished, **chosen)
    assert len(storage.read_jsonl(tmp_path / "proposed" / "dpo.jsonl")) == proposed["pairs"]


def test_a_search_without_one_pair_is_refused_with_what_to_change(
    finished, run_preferences, tmp_path, capsys
):
    with pytest.raises(UserError) as error:
        run_preferences(tmp_path, finished, v0=9.0, prm={"v0": 9.0})
    assert "3 of 5 trees give no pair: value gaps of at most v0: lower v0" in str(error.value)
    assert f"--config.{tmp_path.name}.v0=" in str(error.value)
    assert json.loads((tmp_path / "counts.json").read_text())["trees_without_pairs"]
    run_preferences(tmp_path / "prm", finished, v0=9.0)  # the PRM's pairs are something
    assert not storage.read_jsonl(tmp_path / "prm" / "dpo.jsonl")


def test_trajectories_can_be_as_many_as_steps(finished, run_preferences, tmp_path):
    run_preferences(tmp_path / "few", finished, v1=0.5)
    steps = len(storage.read_jsonl(tmp_path / "few" / "dpo.jsonl"))
    run_preferences(tmp_path / "matched", finished, v1=0.5, variant="trajectory", match_steps=True)
    matched = storage.read_jsonl(tmp_path / "matched" / "dpo.jsonl")
    run_preferences(tmp_path / "all", finished, v1=0.5, variant="trajectory")
    every = storage.read_jsonl(tmp_path / "all" / "dpo.jsonl")
    assert len(matched) == min(steps, len(every)) > 0
    assert all(pair["path"] == [] for pair in every)


def test_good_answers_are_sft_examples_as_many_as_pairs_where_that_is_wanted(
    finished, run_preferences, tmp_path
):
    wanted = {"write_sft": True, "sft": {"v1": -3.0, "answer_format": "plain"}}
    files = run_preferences(tmp_path / "all", finished, **wanted)
    rows = storage.read_jsonl(tmp_path / "all" / "sft.jsonl")
    assert len(rows) == json.loads(files["counts.json"])["sft"]["answers"] > 0
    assert max(Counter(row["prompt"] for row in rows).values()) <= 8
    by_id = {tree.id: tree for tree in read_trees(finished / TREES_FILE)}
    for row in rows:
        name, _, index = row["id"].rpartition(":")
        tree, node = by_id[name], int(index)
        assert tree.nodes[node].terminal and row["kind"] == tree.kind
        assert row["answer"] == "".join(tree.texts(tree.path(node))).strip()
    run_preferences(tmp_path / "few", finished, match_steps=True, **wanted)
    pairs = storage.read_jsonl(tmp_path / "few" / "dpo.jsonl")
    matched = storage.read_jsonl(tmp_path / "few" / "sft.jsonl")
    assert len(matched) == min(len(pairs), len(rows)) < len(rows)
    assert all(row in rows for row in matched)
    assert "sft.jsonl" not in run_preferences(tmp_path / "none", finished)


@pytest.mark.parametrize(
    "options",
    [
        {"in_flight": 3, "reuse_rollout_step": True},
        {"judge": SETTINGS["judge"] | {"mode": "generative", "max_tokens": 8, "attempts": 2}},
    ],
)
def test_options_give_the_same_trees_in_any_company(run_search, tmp_path, options):
    run_search(tmp_path / "together", **options)
    run_search(tmp_path / "one", trees_in_flight=1, **options)
    assert trees(tmp_path / "together") == trees(tmp_path / "one")
    assert len(trees(tmp_path / "one")) == 5


@pytest.fixture(scope="module")
def chance(tmp_path_factory):
    """A file of cases whose labels nobody can guess: each answer is called good once, and bad."""
    path = tmp_path_factory.mktemp("cases") / "cases.jsonl"
    rows = [
        {"prompt": "1 2", "kind": "safety", "answer": "3 " * (n // 2 + 1)}
        | dict.fromkeys(("safety", "helpfulness"), n % 2 * 2 - 1)
        for n in range(40)
    ]
    storage.write_jsonl(path, rows)
    return str(path)


def test_a_judge_of_random_weights_stops_the_search_before_its_first_tree(
    run_search, chance, tmp_path, monkeypatch, capsys
):
    folder = tmp_path / "search"
    judge = SETTINGS["judge"] | {"probe": chance}
    with pytest.raises(UserError, match=r"helpfulness does not tell .* \[0\.3\d, 0\.6\d\]"):
        run_search(folder, judge=judge)
    assert not (folder / TREES_FILE).exists()
    record = storage.read_json(folder / "probe.json")
    assert record["readable"] == 1 and record["auc"]["safety"]["value"] == 0.5
    said = capsys.readouterr().err
    assert "search: 40 cases: 100% of the scores could be read, AUC of help" in said
    assert said.count("the judge replied P(") == 2
    # The record is used again, and with other thresholds.
    monkeypatch.setattr(search_probe, "run_probe", lambda *_: pytest.fail("probed again"))
    with pytest.raises(UserError, match="helpfulness does not tell"):
        run_search(folder, judge=judge)
    run_search(folder, judge=judge | {"min_auc": 0.5})
    assert len(trees(folder)) == 5


def test_a_probe_changes_no_tree(finished, run_search, chance, tmp_path):
    judge = SETTINGS["judge"] | {"probe": chance, "min_auc": 0.0}
    assert trees(run_search(tmp_path / "search", judge=judge)) == trees(finished)


def test_scores_are_calibrated_by_the_record(run_search, chance, tmp_path):
    """Where the labels say nothing, the calibrated scores are nearly 0."""
    judge = SETTINGS["judge"] | {"probe": chance, "min_auc": 0.0, "calibrate": True}
    folder = run_search(tmp_path / "search", judge=judge, num_prompts=3)
    curve = storage.read_json(folder / "probe.json")["calibration"]["safety"]
    judged = [
        entry["safety"]
        for record in RecordLog(folder / TREES_FILE)
        for node in record["nodes"]
        for entry in node["judgements"]
        if entry.get("safety") is not None and record["kind"] == "safety"
    ]
    assert abs(curve["slope"]) < 1e-3 and judged
    assert all(abs(score) < 0.01 for score in judged)


def test_what_lets_the_judge_judge_is_no_part_of_the_identity_unless_it_calibrates(chance):
    def identity(**judge):
        return build(Search, SETTINGS | {"judge": judge}, "config.search").identity()["judge"]

    plain = identity(probe="default", min_auc=0.7)
    assert plain == identity(probe=chance, min_auc=0.9, min_readable=0.1)
    assert identity(probe="", calibrate=True) != identity(probe=chance, calibrate=True)
    stage = build(Search, SETTINGS | {"judge": {"probe": chance, "calibrate": True}}, "search")
    assert stage.sources() == {"judge.probe": [Path(chance)]}


def test_cases_that_cannot_be_read_are_found_before_anything_runs(tmp_path):
    for judge, message in (
        ({"probe": "none.jsonl"}, "which is no file"),
        ({"probe": "", "calibrate": True}, "needs labelled cases"),
    ):
        stage = build(Search, SETTINGS | {"judge": judge}, "config.search")
        with pytest.raises(UserError, match=message):
            stage.check_environment(tmp_path)


def test_a_judge_in_batches_is_refused_as_each_iteration_would_wait_a_day():
    judge = {"source": "endpoint", "endpoint": {"batch": {"size": 10}}}
    with pytest.raises(UserError, match=r"judge.endpoint.batch.size is set, and a search waits"):
        build(Search, SETTINGS | {"judge": judge}, "config.search")


def test_a_prompt_without_an_id_is_named(run_stage, inputs, tmp_path):
    storage.write_jsonl(
        tmp_path / "prompts.jsonl", [{"prompt": "1", "kind": "safety", "source": ""}]
    )
    with pytest.raises(UserError, match="line 1, lacks the column 'id'"):
        run_stage(Search, SETTINGS, tmp_path / "search", inputs | {"prompts": tmp_path})


def test_wrong_settings_and_missing_trees_are_said_clearly(run_preferences, tmp_path):
    with pytest.raises(UserError, match="tempo"):
        build(Search, SETTINGS | {"tempo": 1}, "config.search")
    with pytest.raises(UserError, match="family"):
        build(Search, SETTINGS | {"reward": {"family": "cubic"}}, "config.search")
    with pytest.raises(UserError, match="variant"):
        build(Preferences, {"variant": "words"}, "config.preferences")
    with pytest.raises(UserError, match="holds no tree"):
        run_preferences(tmp_path, tmp_path)


@pytest.fixture(scope="module")
def adapted(inputs):
    """Folders as `inputs`, of a policy that is adapters of the model that judges."""
    base = inputs["model"] / "hf"
    config = replace(huggingface.load_config(base), lora=Lora(4, 2.0))
    params = init_params(config, jax.random.key(0))
    for number, name in enumerate(sorted(params["layers"])):
        if name.endswith(B):  # which are zeros
            shape = params["layers"][name].shape
            params["layers"][name] = jax.random.normal(jax.random.key(number), shape, jnp.float32)
    policy = base.parents[1] / "policy"
    huggingface.save_adapter(policy / "hf", params, config, make_tokenizer(), base)
    return inputs | {"model": policy, "judge_model": base.parent}


def test_the_base_of_the_policys_adapters_judges_in_its_engine_as_in_one_of_its_own(
    run_stage, adapted, tmp_path, monkeypatch, capsys
):
    judge = SETTINGS["judge"] | {"source": "model"}
    section = SETTINGS | {"judge": judge, "judge_model": "base"}

    def run(name):
        made = run_stage(Search, section, tmp_path / name, adapted, slots=8, trees_in_flight=4)
        return trees(made), "judges, over the base of the policy" in capsys.readouterr().err

    together, is_shared = run("together")
    monkeypatch.setattr(judging_stage, "have_one_base", lambda *folders: False)
    apart, is_apart = run("apart")
    assert is_shared and not is_apart
    for id, tree in together.items():
        for ours, theirs in zip(tree["nodes"], apart[id]["nodes"], strict=True):
            assert ours["tokens"] == theirs["tokens"]
            assert ours["value"] == pytest.approx(theirs["value"], abs=1e-4)
    assert len({node["value"] for node in together["p0"]["nodes"]}) > 3
