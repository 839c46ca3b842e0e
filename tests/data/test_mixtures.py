from collections import Counter
from itertools import groupby

import pytest

from stair_jax.data.mixtures import check_mixing, draw, mix, read_mixture, shuffled_passes
from stair_jax.data.records import PreferencePair, SftRow
from stair_jax.data.shuffling import grouped_passes
from stair_jax.errors import UserError
from stair_jax.storage import write_jsonl

READERS = ["datasets", pytest.param("seqio", marks=pytest.mark.slow)]
SIZES = {"safety": 20, "helpfulness": 60}


@pytest.fixture
def path(tmp_path):
    rows = [
        {"id": f"{kind}{i}", "prompt": f"p{i}", "answer": f"a{i}", "kind": kind}
        for kind, size in SIZES.items()
        for i in range(size)
    ]
    write_jsonl(tmp_path / "sft.jsonl", rows)
    return tmp_path / "sft.jsonl"


@pytest.mark.parametrize("reader", READERS)
def test_the_mixture_keeps_rates_passes_and_seed(path, reader):
    rates = {"safety": 3, "helpfulness": 1}
    rows = read_mixture(path, rates, 1200, 5, reader)
    assert len(rows) == 1200
    share = Counter(row.kind for row in rows)["safety"] / 1200
    assert share == pytest.approx(0.75, abs=0.05)  # 4 standard deviations
    for kind, size in SIZES.items():  # each pass takes every row once, in an order of its own
        ids = [row.id for row in rows if row.kind == kind]
        passes = [ids[i : i + size] for i in range(0, len(ids) - size + 1, size)]
        assert all(len(set(one)) == size for one in passes)
        assert passes[0] != passes[1]
    assert rows[0].answer == "a" + rows[0].prompt[1:]
    assert read_mixture(path, rates, 1200, 5, reader) == rows
    assert read_mixture(path, rates, 1200, 6, reader) != rows


@pytest.mark.parametrize("reader", READERS)
def test_without_rates_each_pass_is_the_whole_file(path, reader):
    rows = read_mixture(path, None, 160, 0, reader)
    assert set(Counter(row.id for row in rows[:80]).values()) == {1}
    assert set(Counter(row.id for row in rows).values()) == {2}


def test_a_rate_of_zero_leaves_a_kind_out(path):
    rows = read_mixture(path, {"safety": 0.0, "helpfulness": 1.0}, 50, 0, "datasets")
    assert {row.kind for row in rows} == {"helpfulness"}


@pytest.mark.parametrize(
    ("rates", "message"),
    [
        ({"safety": 0}, "all rates are 0"),
        ({"rude": 1}, "unknown kind 'rude'"),
        ({"safety": -1}, "must be 0 or more"),
        ({"safety": float("nan")}, "must be 0 or more"),
    ],
)
def test_bad_rates_are_refused(path, rates, message):
    with pytest.raises(UserError, match=message):
        read_mixture(path, rates, 5, 0, "datasets")


def test_a_kind_without_rows_and_an_unknown_reader_are_refused(tmp_path):
    path = tmp_path / "one.jsonl"
    write_jsonl(path, [{"id": "a", "prompt": "p", "answer": "a", "kind": "safety"}])
    with pytest.raises(UserError, match="no helpfulness row"):
        read_mixture(path, {"helpfulness": 1}, 5, 0, "datasets")
    with pytest.raises(UserError, match="reader 'csv' is unknown"):
        read_mixture(path, None, 5, 0, "csv")


def test_shuffled_passes_take_all_before_any_again():
    order = shuffled_passes(7, 17, 3)
    assert len(order) == 17
    assert sorted(order[:7]) == sorted(order[7:14]) == list(range(7))
    assert order == shuffled_passes(7, 17, 3) != shuffled_passes(7, 17, 4)


@pytest.mark.parametrize("reader", READERS)
def test_pairs_are_drawn_at_rates_as_rows_are(reader):
    kinds = ["safety"] * 20 + ["helpfulness"] * 60
    pairs = [PreferencePair(str(i), "", kind=kind) for i, kind in enumerate(kinds)]
    numbers = draw(pairs, {"safety": 3, "helpfulness": 1}, 1200, 5, reader)
    safe = [number for number in numbers if number < 20]
    assert len(safe) / len(numbers) == pytest.approx(0.75, abs=0.05)  # 4 standard deviations
    assert all(
        len(set(safe[i : i + 20])) == 20 for i in range(0, len(safe) - 19, 20)
    )  # whole passes
    assert numbers == draw(pairs, {"safety": 3, "helpfulness": 1}, 1200, 5, reader)


def test_without_rates_pairs_come_in_shuffled_passes_and_need_no_kind():
    pairs = [PreferencePair(str(i), "") for i in range(7)]
    assert draw(pairs, None, 17, 3) == shuffled_passes(7, 17, 3)
    with pytest.raises(UserError, match=r"prm\.jsonl: row '0' has the kind None"):
        draw(pairs, {"safety": 1}, 17, 3, where="prm.jsonl")


def test_mixing_is_checked_before_any_data_are_read():
    check_mixing(None, "datasets")
    with pytest.raises(UserError, match="unknown kind 'rude'"):
        check_mixing({"rude": 1}, "seqio")
    with pytest.raises(UserError, match="reader 'csv' is unknown"):
        check_mixing(None, "csv")


def test_rates_are_of_pairs_where_those_of_a_prompt_stay_together():
    sizes = {"safety": [1] * 30, "helpfulness": [4, 2] * 10}
    pairs = [
        PreferencePair("x", f"{kind}{number}", kind=kind)
        for kind, counts in sizes.items()
        for number, count in enumerate(counts)
        for _ in range(count)
    ]
    prompts = [pair.prompt for pair in pairs]
    drawn = draw(pairs, {"safety": 1, "helpfulness": 1}, 3000, 2, "datasets", keys=prompts)
    assert len(drawn) == 3000
    share = sum(pairs[index].kind == "safety" for index in drawn) / 3000
    assert share == pytest.approx(0.5, abs=0.06)  # 3 standard deviations, of 1875 draws
    runs = [list(run) for _, run in groupby(drawn, lambda index: prompts[index])]
    for run in runs[:-1]:  # whole prompts, rows in order; a prompt may repeat at once
        whole = [index for index, name in enumerate(prompts) if name == prompts[run[0]]]
        assert run == whole * (len(run) // len(whole))
    assert draw(pairs, None, 90, 2, keys=prompts) == grouped_passes(prompts, 90, 2)


SOURCES = {"reasoned": 40, "contrast": 10, "chat": 30}


def rows_of(sources):
    return [
        SftRow(f"{source}{i}", "p", "a", "safety", source=source)
        for source, size in sources.items()
        for i in range(size)
    ]


@pytest.mark.parametrize("reader", READERS)
def test_rows_are_mixed_by_source_and_a_star_stands_for_all_others(reader):
    rates = {"contrast": 1, "*": 3}
    drawn = mix(rows_of(SOURCES), rates, 1200, 5, reader, "x", "source")
    shares = Counter(row.source for row in drawn)
    assert shares["contrast"] / 1200 == pytest.approx(0.25, abs=0.05)  # 4 standard deviations
    # The others are one set, of which each pass has every row once.
    others = [row.id for row in drawn if row.source != "contrast"]
    assert len(set(others[:70])) == 70 and shares["reasoned"] > shares["chat"]


def test_sources_have_to_be_named_and_to_be_there():
    rows = rows_of(SOURCES)
    with pytest.raises(UserError, match=r"no source 'chat', of which there are 30 rows: name it"):
        mix(rows, {"contrast": 1, "reasoned": 1}, 5, 0, "datasets", "x", "source")
    with pytest.raises(
        UserError, match=r"x has no row of the source 'OKTest': its sources are 're"
    ):
        mix(rows, {"OKTest": 1, "*": 1}, 5, 0, "datasets", "x", "source")
    with pytest.raises(UserError, match="all rates are 0: at least one source"):
        check_mixing({"chat": 0}, "datasets", "source")
    left = mix(rows, {"chat": 0, "*": 1}, 50, 0, "datasets", "x", "source")
    assert {row.source for row in left} == {"reasoned", "contrast"}
