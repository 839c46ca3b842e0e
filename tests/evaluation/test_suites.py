"""What is asked: suites, names, absent files, draws."""

import csv
import json

import pytest

from stair_jax.errors import UserError
from stair_jax.evaluation import suites
from stair_jax.evaluation.attacks import ATTACKS
from stair_jax.evaluation.attacks.settings import AttackSettings, StoredSettings
from stair_jax.evaluation.benchmarks import BENCHMARKS
from stair_jax.evaluation.suites import SUITES, Wanted, absent, read_sets, wanted_of

SETTINGS = AttackSettings()
PROMPTS = [f"Explain thing {n}." for n in range(8)]


@pytest.fixture
def folder(tmp_path):
    """A folder with StrongREJECT and XSTest, of eight prompts each."""
    with open(tmp_path / "strongreject_dataset.csv", "w", newline="") as file:
        rows = [["source", p, "cat"] for p in PROMPTS]
        csv.writer(file).writerows([["source", "forbidden_prompt", "category"], *rows])
    with open(tmp_path / "xstest_prompts.csv", "w", newline="") as file:
        types = ["homonyms", "contrast_homonyms"]
        rows = [[str(n), p, types[n % 2], "", "", ""] for n, p in enumerate(PROMPTS)]
        head = ["id", "prompt", "type", "label", "focus", "note"]
        csv.writer(file).writerows([head, *rows])
    return tmp_path


@pytest.mark.parametrize("suite", SUITES)
def test_every_name_of_a_suite_is_a_benchmark_and_an_attack(suite):
    wanted = wanted_of(suite, ())
    assert [str(each) for each in wanted] == list(SUITES[suite])
    for each in wanted:
        assert each.benchmark in BENCHMARKS
        assert each.attack in ATTACKS or each.attack.startswith("stored:")


@pytest.mark.parametrize("suite", SUITES)
def test_without_files_all_of_a_suite_is_reported_with_how_to_get_it(suite, tmp_path):
    wanted = wanted_of(suite, ())
    missing = absent(wanted, [tmp_path])
    assert list(missing) == list(dict.fromkeys(each.benchmark for each in wanted))
    for name, line in missing.items():
        source = BENCHMARKS[name].SOURCE
        assert source.paths[0] in line and "is not there" in line and source.how in line
        assert "\n" not in line
    assert read_sets(wanted, [tmp_path], SETTINGS) == []


def test_what_is_there_is_read_and_what_is_not_is_reported(folder, tmp_path_factory):
    """Each name of the suite is either asked or reported: nothing is left out silently."""
    wanted = wanted_of("safety", ())
    folders = [tmp_path_factory.mktemp("none"), folder]
    missing, sets = absent(wanted, folders), read_sets(wanted, folders, SETTINGS)
    asked = [one.name for one in sets]
    assert asked == [
        "strongreject",
        "strongreject:disemvowel",
        "strongreject:prefill",
        "strongreject:prefill_first_step",
        "strongreject:pair",
        "xstest_unsafe",
        "xstest_safe",
    ]
    for each in wanted:
        is_missing = each.benchmark in missing or str(each) in missing
        assert is_missing != (str(each) in asked)


def test_stored_attacks_without_prompts_are_reported_and_the_others_are_asked(folder):
    (folder / "stored_attacks").mkdir()
    rows = [{"forbidden_prompt": p, "jailbroken_prompt": f"Please: {p}"} for p in PROMPTS]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "stored_attacks/mine.jsonl").write_text(text)
    wanted = wanted_of("", ["strongreject:stored:mine", "strongreject:stored:pair"])
    missing = absent(wanted, [folder])
    assert list(missing) == ["strongreject:stored:pair"]
    line = missing["strongreject:stored:pair"]
    assert "no stored prompts of 'pair' (of these: mine)" in line
    assert "put baseline_prompts.json of the same repository" in line
    (found,) = read_sets(wanted, [folder], SETTINGS)
    assert found.name == "strongreject:stored:mine"
    own = folder / "own.jsonl"
    rows = [{"prompt": p, "attack": "pair", "attacked_prompt": "y"} for p in PROMPTS]
    own.write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = AttackSettings(stored=StoredSettings(path=str(own)))
    assert absent(wanted, [folder], settings) == {}
    assert len(read_sets(wanted, [folder], settings)) == 2


def test_the_files_of_a_benchmark_are_those_that_are_read(folder):
    benchmark = BENCHMARKS["strongreject"]()
    path = suites.find_file(benchmark, [folder])
    assert benchmark.files(path) == [path]
    (folder / "stored_attacks").mkdir()
    (folder / "stored_attacks/mine.jsonl").write_text("{}")
    (folder / "baseline_prompts.json").write_text("[]")
    assert {file.name for file in benchmark.files(path)} == {
        "strongreject_dataset.csv",
        "baseline_prompts.json",
        "mine.jsonl",
    }


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("strongrejct", "there is no benchmark 'strongrejct': .*strongreject"),
        ("xstest_safe:rot_13", "there is no attack 'rot_13': .*rot13"),
        ("xstest_safe:stored", "names no stored attack: write xstest_safe:stored:NAME"),
        ("xstest_safe:stored:", "names no stored attack: write xstest_safe:stored:NAME"),
        ("", "there is no benchmark ''"),
    ],
)
def test_a_name_that_is_none_is_told(name, said):
    with pytest.raises(UserError, match=said):
        Wanted.parse(name)


def test_names_are_each_asked_once():
    names = ["gsm8k", "xstest_safe", " gsm8k ", "gsm8k:none", "gsm8k:rot13"]
    assert [str(each) for each in wanted_of("", names)] == ["gsm8k", "xstest_safe", "gsm8k:rot13"]
    assert wanted_of("quick", ["gsm8k"]) == wanted_of("quick", [])


def test_draws_depend_on_seed_and_benchmark_alone_and_keep_the_order(folder):
    names = ["xstest_safe", "strongreject:rot13", "strongreject"]
    wanted = wanted_of("", names)

    def drawn(seed, limit=3, wanted=wanted):
        sets = read_sets(wanted, [folder], SETTINGS, limit, seed)
        return {one.name: [case.id for case in one.cases] for one in sets}

    first = drawn(0)
    assert drawn(0) == first == drawn(0, wanted=wanted[::-1])
    assert all(ids == sorted(ids, key=int) and len(ids) == 3 for ids in first.values())
    assert first["strongreject"] == first["strongreject:rot13"]  # rows of a table are paired
    assert {tuple(drawn(seed)["strongreject"]) for seed in range(5)} != {
        tuple(first["strongreject"])
    }
    assert len(drawn(0, limit=0)["strongreject"]) == len(drawn(0, limit=99)["strongreject"]) == 8


def test_draws_keep_clusters_whole(tmp_path):
    from stair_jax.evaluation.case import Case

    sizes = [1, 4, 2, 3, 1, 2]
    cases = [
        Case(f"{cluster}-{n}", "x", cluster=f"cluster {cluster}" if size > 1 else "")
        for n in range(max(sizes))
        for cluster, size in enumerate(sizes)
        if n < size
    ]
    for seed in range(20):
        drawn = suites._drawn(cases, 5, "name", seed)
        assert 5 <= len(drawn) < 5 + max(sizes)
        assert [case for case in cases if case in drawn] == list(drawn)
        found = {case.id.split("-")[0] for case in drawn}
        assert sum(sizes[int(cluster)] for cluster in found) == len(drawn)


def test_the_quick_suite_asks_a_hundred_cases_of_each_unless_told_otherwise():
    assert suites.limit_of("quick", 0) == 100
    assert suites.limit_of("quick", 7) == 7
    assert suites.limit_of("paper", 0) == suites.limit_of("", 0) == 0
