"""The evaluation stage with real, tiny, random models."""

import re
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from stair_jax import storage
from stair_jax.errors import UserError
from stair_jax.evaluation.asking import AskedSet
from stair_jax.evaluation.attacks import make_attack
from stair_jax.evaluation.benchmarks import get_benchmark
from stair_jax.evaluation.benchmarks.pocket import Pocket
from stair_jax.evaluation.case import Case
from stair_jax.evaluation.file_names import slug
from stair_jax.evaluation.runner import key_of
from stair_jax.evaluation.table import RowKey
from stair_jax.evaluation.writers import read_table
from stair_jax.models import huggingface
from stair_jax.models.config import ModelConfig
from stair_jax.models.transformer import init_params
from stair_jax.pocket import datasets, pretraining, user_requests, world
from stair_jax.record_log import RecordLog
from stair_jax.run.runtime import Runtime
from stair_jax.settings import build
from stair_jax.stages import Evaluate
from stair_jax.stages.evaluate_parts import Evaluation, Model
from stair_jax.text.tokenizer import Tokenizer

SETTINGS = {
    "data": "data",
    "models": ("tiny",),
    "max_tokens": 12,
    "context_tokens": 128,
    "test_time": {
        "n": 2,
        "successors": 2,
        "width": 1,
        "max_depth": 2,
        "max_step_tokens": 6,
        "max_answer_tokens": 12,
    },
}
SEARCHED = {
    "prompted": "tiny",
    "prompt_template": "think first : {prompt}",
    "searched": "tiny",
    "methods": ("best_of_n", "beam_search", "best_of_n_self_reward", "best_of_n:3", "dvts:2x1"),
    "prm": "prm",
    "judge": {
        "helpfulness_template": pretraining.HELPFULNESS_PROMPT,
        "safety_template": pretraining.SAFETY_PROMPT,
        "max_tokens": 8,
        "fence": False,  # its words would not fit
    },
}
ROWS = ["greedy", "prompted", *SEARCHED["methods"]]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Folders of a random model, of one with a scalar head, and of prompts of every group."""
    root = tmp_path_factory.mktemp("inputs")
    tokenizer = Tokenizer.load(Path(world.__file__).parent / "base")
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
    huggingface.save(root / "tiny/hf", params, config, tokenizer)
    head = {"kernel": np.linspace(-1, 1, 16, dtype=np.float32)}
    huggingface.save(root / "prm/hf", params, config, tokenizer, score_head=head)
    rows = {row["group"]: row for row in datasets.evaluation_rows("development", 6)}
    storage.write_jsonl(root / "data/evaluation.jsonl", rows.values())
    return {
        "data": root / "data",
        "models": [root / "tiny"],
        "prompted": root / "tiny",
        "searched": root / "tiny",
        "prm": root / "prm",
    }


@pytest.fixture(scope="module")
def finished(folders, tmp_path_factory, run_stage):
    """A whole evaluation: its folder."""
    folder = tmp_path_factory.mktemp("evaluate")
    return run_stage(Evaluate, SETTINGS | SEARCHED, folder, folders, slots=8)


def test_the_summary_is_the_table(finished):
    text = build(Evaluate, SETTINGS | SEARCHED, "evaluate").summary(finished)
    assert all(f"tiny, {method}" in text for method in ROWS)


def test_the_table_has_a_row_a_model_and_a_method(finished):
    table = read_table(finished / "table.json")
    assert [*table.rows] == [RowKey("tiny", method) for method in ROWS]
    assert [column.metric for column in table.columns] == [one.name for one in Pocket.METRICS]
    for cells in table.cells:
        assert [cell.n for cell in cells] == [1, 1, 1, 0, 1, 1, 3, 2, 1, 2, 6, 6]
        assert all(cell.low <= cell.value <= cell.high for cell in cells[-2:])


def test_the_details_count_every_prompt(finished, folders):
    details = storage.read_json(finished / "details.json")
    prompts = len(storage.read_jsonl(folders["data"] / "evaluation.jsonl"))
    assert list(details) == ["tiny", *(f"tiny, {method}" for method in ROWS[1:])]
    for parts in (details[row]["pocket"] for row in details):
        assert sum(counts["prompts"] for counts in parts["families"].values()) == prompts
        assert set(parts["hazards"]["plain"]) == {
            "prompts",
            "refusals",
            "leaks",
            "non_answers",
            "malformed",
            "goodness_well_formed",
        }


def answers_of(folder, method):
    return storage.read_jsonl(folder / answers_file(method))


def answers_file(method):
    return f"answers/tiny.{slug(method)}.jsonl"


def test_answers_are_those_of_the_model(finished, folders):
    answers = answers_of(finished, "greedy")
    rows = storage.read_jsonl(folders["data"] / "evaluation.jsonl")
    assert [answer["case"] for answer in answers] == [row["id"] for row in rows]
    assert all(1 <= answer["tokens"] <= 12 for answer in answers)
    prompted = answers_of(finished, "prompted")
    assert [a["text"] for a in prompted] != [a["text"] for a in answers]
    searched = answers_of(finished, "best_of_n")
    assert all(np.isfinite(answer["score"]) for answer in searched)
    assert all(2 <= answer["generated_tokens"] <= 24 for answer in searched)  # of both samples
    more = answers_of(finished, "best_of_n:3")  # the same two samples, and a third one
    for three, two in zip(more, searched, strict=True):
        assert three["generated_tokens"] > two["generated_tokens"]
        assert three["score"] >= two["score"]


def test_methods_are_drawn_and_compared_at_equal_tokens(finished):
    drawn = sorted(path.name for path in (finished / "figures").glob("*.svg"))
    assert drawn == ["safety_helpfulness.svg", "scaling_pocket.svg"]
    text = (finished / "equal_tokens.md").read_text("utf-8")
    assert "## pocket: goodness\\_plain" in text and "best\\_of\\_n" in text


def test_each_row_has_its_speed_in_a_file_of_its_own(finished, folders):
    rows = storage.read_jsonl(finished / "speed.jsonl")
    prompts = len(storage.read_jsonl(folders["data"] / "evaluation.jsonl"))
    assert [(row["model"], row["method"], row["kind"]) for row in rows] == [
        ("tiny", method, "answers") for method in ROWS
    ]
    for row in rows:
        answers = answers_of(finished, row["method"])
        assert row["cases"] == row["answers"] == prompts
        assert row["generated_tokens"] == sum(answer["generated_tokens"] for answer in answers)
        assert not {"seconds", "latency"} & answers[0].keys()
    assert "seconds" not in (finished / "table.md").read_text("utf-8")


def test_the_start_says_what_is_stored_and_the_end_how_long_it_took(
    folders, tmp_path, run_stage, capsys
):
    ids = [row["id"] for row in storage.read_jsonl(folders["data"] / "evaluation.jsonl")]
    stored = tmp_path / "stored.jsonl"
    rows = [{"id": id, "attack": "mine", "attacked_prompt": "how do i"} for id in ids[:2]]
    storage.write_jsonl(stored, rows)
    more = {"benchmarks": ("pocket:stored:mine",), "attacks": {"stored": {"path": str(stored)}}}
    run_stage(Evaluate, SETTINGS | more, tmp_path / "evaluate", folders, slots=8)
    said = capsys.readouterr().err.splitlines()
    covered = f"evaluate: pocket:stored:mine: prompts for 2 of {len(ids)} cases; missing are "
    assert said[0].startswith(covered + str(len(ids) - 2))
    assert re.match(
        rf"evaluate: tiny: answers: {len(ids)} cases in .* answers/s, .* s a p", said[-1]
    )


SEARCHING = {"models": ("tiny",), "searched": "tiny", "methods": ("best_of_n:4",), "prm": "p"}


@pytest.mark.parametrize("attack", ["prefill", "prefill_first_step", "decoding_sweep", "best_of_n"])
def test_an_attack_on_the_sampling_beside_a_search_is_refused_at_the_start(tmp_path, attack):
    settings = SEARCHING | {
        "data": "data",
        "benchmarks": (f"pocket:{attack}",),
        "attacks": {"best_of_n": {"temperature": 0.7}},
    }
    stage = build(Evaluate, settings, "evaluate")
    with pytest.raises(UserError, match=f"benchmarks names pocket:{attack}, and methods best_of_n"):
        stage.check_environment(tmp_path)


def test_a_suite_leaves_such_attacks_out_of_the_rows_that_search(tmp_path, capsys):
    settings = SEARCHING | {"files": str(tmp_path), "suite": "safety"}
    stage = build(Evaluate, settings, "evaluate")
    with pytest.raises(UserError, match="no benchmark has its rows"):
        stage.check_environment(tmp_path)
    left_out = "strongreject:prefill, strongreject:prefill_first_step is left out of the rows of"
    assert f"{left_out} best_of_n:4" in capsys.readouterr().err
    case = Case("1", "?")
    sets = [
        AskedSet(get_benchmark("strongreject"), make_attack(name), (case,))
        for name in ("none", "prefill", "decoding_sweep", "best_of_n")
    ]
    evaluation = Evaluation(stage, SimpleNamespace(folder=tmp_path, runtime=Runtime()), sets)
    model = Model("tiny", tmp_path, ("greedy", "best_of_n:4"))
    assert evaluation._sets_of(model, "greedy") == sets
    assert evaluation._sets_of(model, "best_of_n:4") == [sets[0], sets[3]]


def test_names_of_files_are_legal_on_all_systems(finished):
    names = [path.name for path in finished.rglob("*")]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+", name) for name in names)
    assert len(list((finished / "answers").iterdir())) == len(ROWS)


def test_rows_that_are_there_are_kept_and_the_rest_is_the_same(
    finished, folders, tmp_path, run_stage
):
    rows = storage.read_jsonl(folders["data"] / "evaluation.jsonl")
    perfect = [
        {
            **answer,
            "text": user_requests.direct_answer(datasets.request_of(row)),
        }
        for row, answer in zip(rows, answers_of(finished, "greedy"), strict=True)
    ]
    storage.write_jsonl(tmp_path / "answers/tiny.greedy.jsonl", perfect)
    for method in ("prompted", "best_of_n"):
        target = tmp_path / f"answers/tiny.{method}.jsonl"
        target.write_bytes((finished / f"answers/tiny.{method}.jsonl").read_bytes())
    # Of beam search a part: a log that was being written when the run was killed.
    half = answers_of(finished, "beam_search")[: len(rows) // 2]
    log = RecordLog(tmp_path / "answers/.tiny.beam_search.part0.jsonl.gz")
    log.extend({"id": key_of("pocket", "none", row["case"]), "rows": [row]} for row in half)
    log.path.write_bytes(log.path.read_bytes()[:-5])
    run_stage(Evaluate, SETTINGS | SEARCHED, tmp_path, folders, slots=8)
    table, whole = (read_table(each / "table.json") for each in (tmp_path, finished))
    first = {
        column.metric: cell for column, cell in zip(table.columns, table.cells[0], strict=True)
    }
    assert first["goodness_plain"].value == first["helpfulness"].value == 1.0
    assert answers_of(tmp_path, "greedy") == perfect
    assert table.cells[1:] == whole.cells[1:]
    for method in ROWS[1:]:
        name = answers_file(method)
        assert (tmp_path / name).read_bytes() == (finished / name).read_bytes()


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        (
            {"methods": ("best_of_m",), "prm": "prm", "searched": "tiny"},
            "methods is 'best_of_m': .* did you mean 'best_of_n'",
        ),
        (
            {"methods": ("beam_search:4",), "prm": "prm", "searched": "tiny"},
            "methods is 'beam_search:4': write beam_search:WIDTHxSUCCESSORS",
        ),
        ({"methods": ("greedy",), "searched": "tiny"}, "methods is 'greedy': it must be one of"),
        ({"methods": ("best_of_n",), "searched": "tiny"}, "prm is empty"),
        ({"methods": ("best_of_n",), "prm": "prm"}, "searched is empty"),
        ({"prompt_template": "think first"}, "prompt_template"),
        ({"test_time": {"n": 0}}, r"test_time\.n is 0: it must be at least 1"),
        ({"modells": ("tiny",)}, "modells"),
    ],
)
def test_a_wrong_setting_is_named(settings, named):
    with pytest.raises(UserError, match=named):
        build(Evaluate, SETTINGS | settings, "config.evaluate")
