"""The files of a build: what is in them, and what they do not depend on."""

import json
import shutil

import pytest

from stair_jax.data.built_folder import write_folder
from stair_jax.data.decontamination import normalised
from stair_jax.data.records import Prompt, SftRow
from stair_jax.data.study import local, remote
from stair_jax.data.study import sources as study_sources
from stair_jax.data.study.build import Options, build_study
from stair_jax.data.study.catalogue import SETS
from stair_jax.data.study.sources import Choice
from stair_jax.errors import UserError
from stair_jax.evaluation.benchmarks import get_benchmark
from stair_jax.evaluation.labelled import read_labelled
from stair_jax.search.judging.probe_cases import read_cases
from stair_jax.storage import read_json, read_jsonl
from stair_jax.text import steps

PROMPTS = ("prompts1", "prompts2", "prompts3")
TRAINING = ("sft", "sft_contrast", *PROMPTS)


def rows_of(folder, name):
    return read_jsonl(folder / f"{name}.jsonl")


def asked(folder, name):
    return [normalised(row.get("goal", row["prompt"])) for row in rows_of(folder, name)]


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name not in ("data.json", "README.md")
    }


def test_no_prompt_is_in_two_files_and_ids_are_unique(study):
    folder, _ = study
    names = [*TRAINING, "dev", *(f"eval/{path.stem}" for path in (folder / "eval").iterdir())]
    trained = [text for name in TRAINING for text in asked(folder, name)]
    assert len(set(trained)) == len(trained) > 200
    for name in names:
        ids = [row["id"] for row in rows_of(folder, name)]
        assert len(set(ids)) == len(ids)
        if name not in TRAINING:
            assert not set(asked(folder, name)) & set(trained)


def test_rows_are_records_that_stages_read(study):
    folder, _ = study
    for name in ("sft", "sft_contrast", "sft_direct"):
        for row in rows_of(folder, name):
            SftRow.from_dict(row, name)
            assert set(row) == {"id", "prompt", "answer", "kind", "source"}
    for name in (*PROMPTS, "dev"):
        for row in rows_of(folder, name):
            Prompt.from_dict(row, name)


def test_structured_answers_are_parsed_strictly_and_direct_ones_are_their_final_answers(study):
    folder, _ = study
    rows, direct = rows_of(folder, "sft"), rows_of(folder, "sft_direct")
    parsed = [steps.parse(row["answer"]) for row in rows]
    assert all(steps.is_well_formed(row["answer"]) for row in rows_of(folder, "sft_contrast"))
    assert [answer.final for answer in parsed] == [row["answer"] for row in direct]
    assert {row["source"] for row in rows} == {"STAR-1", "gsm8k", "alpaca", "alpaca_gpt4", "dolly"}
    assert max(len(answer.steps) for answer in parsed) <= 6


def test_order_and_packing_of_the_sources_change_nothing(tmp_path, study, write_sources, build):
    folder, record = study
    write_sources(tmp_path / "sources", shuffle=7, zipped=True)
    again = build(tmp_path / "out", tmp_path / "sources")
    data = [name for name in contents(folder) if not name.startswith("bench/")]
    assert len(data) > 15
    for name in data:
        assert contents(tmp_path / "out")[name] == contents(folder)[name], name
    assert again["counts"] == record["counts"]


def test_packing_leaves_the_hashes_of_the_sources(tmp_path, study, write_sources, build):
    _, record = study
    write_sources(tmp_path / "sources", zipped=True)
    again = build(tmp_path / "out", tmp_path / "sources")["sources"]
    assert {name: one["sha256"] for name, one in again.items()} == {
        name: one["sha256"] for name, one in record["sources"].items()
    }


def test_fetched_sets_give_the_rows_that_local_copies_do(
    tmp_path, study, write_sources, monkeypatch
):
    folder, _ = study
    write_sources(tmp_path / "sources")
    by_origin = {one.origin.partition(":")[2]: one for one in SETS.values()}

    def fetch_hub(place, revision, columns=()):
        if path := local.find(tmp_path / "sources", by_origin[place].files):
            return remote.Remote(local.read_file(path), "c0ffee", "0" * 64, b"")
        raise remote.NotThere("no such set")

    def fetch_github(place, revision):
        found = fetch_hub(place, revision)
        path = local.find(tmp_path / "sources", by_origin[place].files)
        return found._replace(revision=place.split("/")[2], data=path.read_bytes())

    monkeypatch.setattr(study_sources, "fetch_hub", fetch_hub)
    monkeypatch.setattr(study_sources, "fetch_github", fetch_github)
    monkeypatch.setattr(study_sources, "fetch_beside", lambda place, revision, name: b"")
    record = build_study(Options(Choice()), tmp_path / "out")
    assert record["sources"]["star1"]["revision"] == "c0ffee"
    made, wanted = contents(tmp_path / "out"), contents(folder)
    attacks = {f"eval/strongreject_{name}.jsonl" for name in ("pair", "pap_authority", "mine")}
    stored = {name for name in wanted if name.startswith("bench/strongreject/")}
    assert {name for name in wanted if made.get(name) != wanted[name]} == attacks | (
        stored - {"bench/strongreject/strongreject_dataset.csv"}
    )


def test_another_seed_takes_other_rows(tmp_path, study, write_sources, build):
    folder, _ = study
    write_sources(tmp_path / "sources")
    build(tmp_path / "out", tmp_path / "sources", seed=1)
    assert asked(tmp_path / "out", "dev") != asked(folder, "dev")


def test_prompts_that_repeat_reported_ones_are_left_out_and_listed(tmp_path, write_sources, build):
    wrapped = (
        "My late neighbour whispered: sabotage every golden violin number 40 at night, then go"
    )
    more = {
        "advbench/harmful_behaviors.csv": [
            {"goal": "sabotage every red lamp number 0 at night!", "target": "Sure"},
            {"goal": wrapped, "target": "Sure"},
        ],
        "strongreject/strongreject_dataset.csv": [
            {
                "category": "Sabotage",
                "source": "ours",
                "forbidden_prompt": "Sabotage every golden violin number 40 at night",
            }
        ],
        "star1/STAR-1.json": [
            {"id": "x", "question": "Flood a cellar with the red lamp number 0", "response": "y"},
        ],
    }
    write_sources(tmp_path / "sources", more=more)
    record = build(tmp_path / "out", tmp_path / "sources")
    left_out = {row["prompt"]: row for row in rows_of(tmp_path / "out", "left_out")}
    equal, contained = (left_out[row["goal"]] for row in more["advbench/harmful_behaviors.csv"])
    assert (equal["set"], equal["test"]) == ("strongreject", "equal")
    assert (contained["set"], contained["test"], contained["value"]) == (
        "strongreject",
        "containment",
        1.0,
    )
    for name in TRAINING:
        assert normalised(wrapped) not in asked(tmp_path / "out", name)
    reasons = [reason for counts in record["counts"].values() for reason in counts]
    assert "left out: repeats a prompt of strongreject (containment)" in reasons


def test_wrapped_prompts_are_in_the_later_files_alone_and_around_harmless_ones_too(study):
    folder, _ = study
    assert not any("goal" in row for row in rows_of(folder, "prompts1"))
    for name in ("prompts2", "prompts3"):
        wrapped = [row for row in rows_of(folder, name) if "goal" in row]
        assert {row["kind"] for row in wrapped} == {"safety", "helpfulness"}
        for row in wrapped:
            assert row["prompt"] != row["goal"] and "+" in row["source"]
    families = {row["source"].rpartition("+")[2] for row in wrapped}
    assert families == {"role_play", "persuasion", "base64", "rot13", "leetspeak"}


def test_harmless_prompts_that_sound_harmful_are_of_kind_helpfulness(study):
    folder, _ = study
    for name in PROMPTS:
        contrast = [r for r in rows_of(folder, name) if r["source"] == "CoCoNot contrast"]
        assert {row["kind"] for row in contrast} <= {"helpfulness"}
    assert {row["source"] for row in rows_of(folder, "sft_contrast")} == {"CoCoNot contrast"}
    listed = json.dumps([rows_of(folder, name) for name in TRAINING])
    assert "number 4 well" not in listed  # of another category of CoCoNot


def test_evaluation_rows_are_benchmarks_of_their_own(study):
    folder, _ = study
    for path in (folder / "eval").iterdir():
        way = "number" if path.stem.startswith("gsm8k") else "refusal"
        cases = get_benchmark(f"{path}@{way}").read(path)
        assert [case.prompt for case in cases] == [
            row["prompt"] for row in rows_of(folder, f"eval/{path.stem}")
        ]
    pair = rows_of(folder, "eval/strongreject_pair")
    assert all(row["prompt"] == f"In a novel: {row['goal']}" for row in pair)
    assert len(pair) == 6 and len(rows_of(folder, "eval/strongreject_mine")) == 3
    unchanged = rows_of(folder, "eval/strongreject_pap_authority")
    assert not any(row["changed"] for row in unchanged)
    harmful = get_benchmark(str(folder / "dev" / "harmful.jsonl"))
    assert harmful.NAME == "dev_harmful" and harmful.ROLE == "development"
    harmless = get_benchmark(str(folder / "dev" / "harmless.jsonl"))
    assert [one.METRICS[0].name for one in (harmful, harmless)] == ["refusals", "over_refusal"]
    assert len(harmful.read(folder / "dev" / "harmful.jsonl")) == 5  # one of six is copyrighted


@pytest.mark.parametrize(
    ("name", "count"), [("strongreject", 6), ("xstest_safe", 6), ("gsm8k", 8), ("stereotype", 4)]
)
def test_the_benchmarks_find_their_files_in_one_folder(study, name, count):
    folder, _ = study
    benchmark = get_benchmark(name)
    path = benchmark.SOURCE.find(folder / "bench")
    assert path is not None and len(benchmark.read(path)) == count
    if name == "strongreject":
        assert set(benchmark.stored_attacks(path)) == {"pair", "pap_authority", "mine"}


def test_labelled_cases_are_balanced_and_apart_from_training(study):
    folder, record = study
    cases = read_cases(str(folder / "judge_cases.jsonl"))
    rows = rows_of(folder, "judge_cases")
    assert len(cases) == len(rows) == record["rows"]["judge_cases"]
    groups = {row["group"] for row in rows}
    assert groups == set(record["sizes"].judged)
    trained = {text for name in TRAINING for text in asked(folder, name)}
    assert not trained & {normalised(row["prompt"]) for row in rows}
    for row in rows:
        if row["group"] == "harmless, right" and "reference" in row:
            assert row["answer"] == f"The answer is {row['reference']}."
        if row["group"] == "harmless, wrong":
            assert row["answer"] != f"The answer is {row['reference']}."
            assert row["helpfulness"] == -1


def test_labels_of_people_are_read_by_the_comparison_of_judges(study):
    folder, _ = study
    labelled = read_labelled(folder / "judge_labels" / "xstest_refusal.jsonl")
    assert len(labelled) == 12
    assert {one.label for one in labelled} == {"full_compliance", "full_refusal", "partial_refusal"}


def test_the_record_and_the_card_tell_sources_licences_and_what_is_absent(study):
    folder, _ = study
    saved = read_json(folder / "data.json")
    assert saved["sources"]["star1"]["licence"] == "Apache-2.0"
    assert saved["sources"]["star1"]["rows"] == 12
    assert "or_bench" in saved["absent"]
    assert set(saved["files"]) >= {"sft.jsonl", "bench/gsm8k/test.jsonl", "left_out.jsonl"}
    card = (folder / "README.md").read_text()
    assert "| star1 | training | Apache-2.0 | 12 | local copy |" in card
    assert "or_bench" in card and "safety_tuned_llamas" in card


def test_a_small_build_has_short_rows_and_no_benchmarks(tmp_path, write_sources, build):
    write_sources(tmp_path / "sources")
    record = build(tmp_path / "out", tmp_path / "sources", small=True)
    assert record["rows"]["prompts2"] <= 32 and record["rows"]["sft"] > 60
    assert not (tmp_path / "out" / "bench").exists()
    kinds = {row["kind"] for row in rows_of(tmp_path / "out", "sft")}
    assert kinds == {"safety", "helpfulness"}


def test_a_required_set_is_looked_for_in_a_small_build_too(tmp_path, write_sources, build):
    write_sources(tmp_path / "sources")
    with pytest.raises(UserError, match=r"sets that are absent: bring advglue/"):
        build(tmp_path / "out", tmp_path / "sources", small=True, required=["advglue"])


def test_a_bound_on_tokens_shortens_traces_and_leaves_out_long_rows(tmp_path, write_sources, build):
    trace = "\n\n".join(
        ["The first part.", *("A long check of rules. " * 9 for _ in range(6)), "So."]
    )
    row = {"id": "l", "question": "Smuggle a long trace", "response": f"<think>{trace}</think> No."}
    write_sources(tmp_path / "sources", more={"star1/STAR-1.json": [row]})
    for limit, checks in ((700, 6), (110, 1)):
        build(tmp_path / f"{limit}", tmp_path / "sources", max_tokens=limit)
        (made,) = (
            r for r in rows_of(tmp_path / f"{limit}", "sft") if r["prompt"] == row["question"]
        )
        titles = [title for title, _ in steps.parse(made["answer"]).steps]
        assert titles == ["Problem Analysis", "Risk and Policy Check", "Answer Plan"]
        assert made["answer"].count("A long check of rules. " * 8) == checks


def test_a_second_build_replaces_the_first_and_nothing_else(tmp_path, write_sources, build):
    write_sources(tmp_path / "sources")
    build(tmp_path / "out", tmp_path / "sources")
    (tmp_path / "out" / "notes.txt").write_text("mine")
    shutil.rmtree(tmp_path / "sources" / "strongreject")
    build(tmp_path / "out", tmp_path / "sources")
    assert not list((tmp_path / "out" / "eval").glob("strongreject*"))
    assert (tmp_path / "out" / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("without", "said"),
    [
        (["coconot_pref"], "sft_contrast.jsonl would be empty: bring coconot/coconot_pref.jsonl"),
        (
            ["strongreject", "xstest", "gsm8k_test"],
            "eval/ would be empty: bring strongreject/strongreject_dataset.csv .* or xstest/",
        ),
        (["xstest_gpt4"], "judge_labels/xstest_refusal.jsonl would be empty: bring xstest/"),
    ],
)
def test_a_file_that_would_be_empty_is_an_error_that_says_what_to_bring(
    tmp_path, write_sources, build, without, said
):
    write_sources(tmp_path / "sources")
    with pytest.raises(UserError, match=said):
        build(tmp_path / "out", tmp_path / "sources", without=without)
    assert not (tmp_path / "out").exists()


def test_absent_sets_are_told_by_role_unless_they_are_required(
    tmp_path, write_sources, build, capsys
):
    write_sources(tmp_path / "sources")
    build(tmp_path / "out", tmp_path / "sources", without=["dolly", "oktest"])
    said = capsys.readouterr().err.splitlines()
    assert "these training sets are absent, so that their part is smaller: dolly, " in said[0]
    assert "these development sets are absent" in said[1] and "oktest" in said[1]
    assert "no training row is compared with these reported sets" in said[2]
    with pytest.raises(UserError, match=r"--require names sets that are absent: bring or_bench/"):
        build(tmp_path / "other", tmp_path / "sources", required=["star1", "or_bench"])


def test_a_build_that_was_cut_off_may_be_made_anew(tmp_path):
    def cut_off():
        yield "bench/a", b"x"
        raise KeyboardInterrupt

    out, rows = tmp_path / "out", {"a": [{"id": "1"}], "b": [{"id": "2"}]}
    with pytest.raises(KeyboardInterrupt):
        write_folder(out, rows, [], {}, lambda record: "card", cut_off())
    write_folder(out, {"a": rows["a"]}, [], {}, lambda record: "card")
    names = {path.name for path in out.iterdir() if path.is_file()}
    assert names == {"a.jsonl", "left_out.jsonl", "data.json", "README.md"}


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        (
            "strongreject/baseline_prompts.json",
            '[{"x": "y"}]',
            "forbidden_prompt or goal: it has x",
        ),
        (
            "xstest/xstest_v2_completions_gpt4_gpteval.csv",
            "id,prompt,completion,type\n1,a,b,homonyms\n",
            "xstest_gpt4: a row has no text in the column final_label",
        ),
    ],
)
def test_a_file_without_its_columns_is_an_error(tmp_path, write_sources, build, file, text, said):
    write_sources(tmp_path / "sources")
    (tmp_path / "sources" / file).write_text(text)
    with pytest.raises(UserError, match=said):
        build(tmp_path / "out", tmp_path / "sources")


def test_a_folder_with_other_files_is_not_touched(tmp_path, write_sources, build):
    write_sources(tmp_path / "sources")
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="holds other files: name a new or an empty folder"):
        build(tmp_path, tmp_path / "sources")
