"""Tables over runs, and in documents whose figures can be checked."""

from itertools import product

import pytest

from stair_jax import launch, storage
from stair_jax.commands.study_tables import make_tables
from stair_jax.errors import UserError
from stair_jax.evaluation import blocks
from stair_jax.evaluation.benchmarks import BENCHMARKS
from stair_jax.evaluation.case import Answer, Case, Graded
from stair_jax.evaluation.graded_rows import graded_rows
from stair_jax.evaluation.tabulate import Result, tabulate
from stair_jax.evaluation.writers import write_table

DOCUMENT = """# Study

<!-- table: main -->
<!-- end of table: main -->

Text.

<!-- table: other -->

old

<!-- end of table: other -->
"""


def evaluated(workdir, seed, values, models=("base", "sft"), benchmarks=("xstest_safe",), tokens=0):
    """A run whose models have answered; 1: refused, or right. `base` refuses nothing."""
    results = []
    for model, name in product(models, benchmarks):
        own = [0.0] * len(values) if model == "base" else values
        graded = [
            Graded(
                Case(f"c{n}", ""),
                Answer(name, f"c{n}", model=model, tokens=tokens, steps=tokens // 10),
                {"refused": value, "fully_refused": value, "right": value},
            )
            for n, value in enumerate(own)
        ]
        metrics = BENCHMARKS[name].METRICS
        results.append(Result(model, "greedy", name, "none", metrics, graded, judge="rule"))
    folder = storage.make_folder(workdir / "evaluate")
    storage.write_jsonl(folder / "graded.jsonl", graded_rows(results))
    write_table(tabulate(results), folder)
    storage.write_json(workdir / "config.json", {"stages": ["evaluate"]})
    record = {"kind": "evaluate", "name": "evaluate", "seed": seed, "inputs": {}}
    record |= {"settings": {"models": list(models)}, "fingerprint": "f", "files": {}}
    storage.write_json(folder / "complete.json", record)


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """Runs r0 and r1 in the working directory, two seeds of one arm."""
    monkeypatch.chdir(tmp_path)
    evaluated(tmp_path / "r0", 0, [1.0, 0.0, 0.0, 0.0])
    evaluated(tmp_path / "r1", 1, [1.0, 1.0, 0.0, 0.0])
    (tmp_path / "doc.md").write_text(DOCUMENT)
    return tmp_path


def table(*words):
    return launch.main(["stair-jax", "table", *words])


REPORTED = ("strongreject", "xstest_unsafe", "xstest_safe", "gsm8k")


def test_a_page_of_the_study_has_the_rows_that_are_there(tmp_path):
    """Without a run of our recipe, and where no run has several rows that need its name."""
    for seed in range(2):
        for arm, values in (("base", []), ("sft", [0.0]), ("iter1", [1.0])):
            values = [1.0, *values, 0.0, 0.0][:3]
            evaluated(tmp_path / f"runs/{seed}/{arm}", seed, values, [arm], REPORTED, 20)
    make_tables({"study": tmp_path / "study.md"}, tmp_path / "runs")
    text = (tmp_path / "study.md").read_text()
    commands = {
        name: blocks.command_of(blocks.read_block(text, name, ""))
        for name in ("arms", "differences", "baselines")
    }
    assert {"--against=sft", "--rows=iter*"} <= set(commands["differences"])
    assert "--against=base" in commands["baselines"] and "--against=base" in commands["arms"]
    differences = blocks.read_block(text, "differences", "")
    assert "| iter1 | 0.667 [" in differences and "Less sft" in differences
    assert "Not run yet: no run of judges" in blocks.read_block(text, "judges", "")


MAIN = (
    "r0", "r1", "--rows=sft,start=base", "--columns=over=*.over_refusal", "--against=start",
    "--into=doc.md", "--block=main",
)  # fmt: skip


def test_a_table_is_printed_or_written_in_all_forms(runs, capsys):
    assert table("r0", "r1", "--columns=*.over_refusal") == 0
    printed = capsys.readouterr().out
    assert "| sft | 0.375 [" in printed
    assert table("r0", "r1", "--columns=*.over_refusal", "--out=t.md") == 0
    assert (runs / "t.md").read_text() == printed
    assert table("r0", "r1", "--columns=*.over_refusal", "--out=out") == 0
    assert (runs / "out/table.md").read_text() == printed
    assert storage.read_json(runs / "out/table.json")["cells"][1][0]["value"] == 0.375
    assert (runs / "out/table.csv").read_text().count("\n") == 3


def test_a_block_of_a_document_is_replaced_with_its_command(runs):
    assert table(*MAIN) == 0
    text = (runs / "doc.md").read_text()
    before, rest = text.split("<!-- table: main -->")
    body, after = rest.split("<!-- end of table: main -->")
    assert (before, after) == ("# Study\n\n", DOCUMENT.split("<!-- end of table: main -->")[1])
    assert "| sft | 0.375 [" in body and "Less start, on the cases" in body
    assert blocks.command_of(body) == ["stair-jax", "table", *MAIN]
    assert table(*MAIN) == 0
    assert (runs / "doc.md").read_text() == text


def test_a_document_is_checked_against_the_answers(runs, capsys):
    assert table(*MAIN) == 0
    assert table("--check", "--into=doc.md") == 0
    said = capsys.readouterr().err.splitlines()
    assert said == [
        "doc.md: the table main is what the answers give",
        "doc.md: the table other has no command yet",
    ]
    text = (runs / "doc.md").read_text()
    (runs / "doc.md").write_text(text.replace("0.375", "0.376"))
    assert table("--check", "--into=doc.md", "--block=main") == 1
    said = capsys.readouterr().err
    assert "is not what the answers give: '| sft | 0.376" in said and "| sft | 0.375" in said
    (runs / "doc.md").write_text(text)
    assert table(*MAIN, "--check") == 0
    evaluated(runs / "r1", 1, [1.0, 1.0, 1.0, 0.0])
    assert table(*MAIN, "--check") == 1
    assert (runs / "doc.md").read_text() == text


def test_all_blocks_are_made_by_the_commands_in_them(runs, capsys):
    """Also where nothing but the command is there yet; what has no runs is left as it is."""
    own = "stair-jax table {} --into=doc.md --block={}"
    text = DOCUMENT.replace("\nold\n", f"\nnot run\n\n```bash\n{own.format('r0', 'other')}\n```\n")
    start = "<!-- table: main -->\n"
    text = text.replace(start, start + f"```bash\n{own.format('r7', 'main')}\n```\n")
    (runs / "doc.md").write_text(text)
    assert table("--into=doc.md", "--check") == 1  # the block `other` is not what it should be
    assert table("--into=doc.md") == 0
    said = capsys.readouterr().err
    assert "the table main cannot be made: r7 has no finished evaluation" in said
    found = (runs / "doc.md").read_text()
    assert "| sft | 0.250 [" in found and "not run" not in found and "table r7" in found
    assert table("--into=doc.md", "--check") == 0
    (runs / "r0").rename(runs / "gone")
    assert table("--into=doc.md", "--check") == 1
    assert (runs / "doc.md").read_text() == found


def test_details_are_shown_in_place_of_figures(runs, capsys):
    for name, count in (("r0", 3), ("r1", 4)):
        details = {"sft": {"xstest_safe": {"types": {"homonyms": {"prompts": count}}}}}
        storage.write_json(runs / name / "evaluate/details.json", details)
    assert table("r0", "r1", "--details=xstest_safe.types", "--rows=ours=sft") == 0
    assert capsys.readouterr().out.splitlines()[2:] == ["| ours | homonyms | 7 |"]
    assert table("r0", "--details=xstest_safe.types", "--into=doc.md", "--block=other") == 0
    assert table("--check", "--into=doc.md", "--block=other") == 0
    assert table("r0", "--details=xstest_safe.types", "--out=folder") == 2
    assert "--details is Markdown alone" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "name the folders of runs"),
        (("r0", "--into=doc.md"), "--into needs the name of the block, as --block=NAME"),
        (("r0", "--block=main"), "name --into=FILE.md with --block"),
        (("r0", "--into=doc.md", "--block=main", "--out=x"), "are two calls"),
        (("--check",), "--check is about the blocks of a file"),
        (
            ("r0", "--into=doc.md", "--block=mian"),
            "<!-- table: mian --> is not there: did you mean",
        ),
        (("r0", "--into=none.md", "--block=main"), "there is no file none.md"),
        (("r0", "--config.seed=1"), "is a field of a run's config, which this"),
        (("r0", "--against=x"), "--against=x: there is no such row: known are base, sft"),
        (("x=r2",), "r2 has no finished evaluation"),
    ],
)
def test_mistakes_are_named(runs, capsys, words, said):
    assert table(*words) == 2
    assert said in capsys.readouterr().err
    assert (runs / "doc.md").read_text() == DOCUMENT


def test_a_table_without_a_command_cannot_be_checked(runs, capsys):
    start = "<!-- table: other -->\n"
    (runs / "doc.md").write_text(DOCUMENT.replace(start, f"{start}| base | 0.375 |\n"))
    assert table("--check", "--into=doc.md", "--block=other") == 1
    assert "the table other has no command yet" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("<!-- table: a -->\n", "the table a has no <!-- end of table: a -->"),
        (
            "<!-- table: a -->\n<!-- table: b -->\n<!-- end of table: a -->\n",
            "the table a has no <!-- end of table: a -->",
        ),
        (2 * "<!-- table: a -->\n<!-- end of table: a -->\n", "comes twice"),
    ],
)
def test_marks_that_do_not_fit_are_named(text, said):
    with pytest.raises(UserError, match=said):
        blocks.replace_block(text, "a", "", "doc.md")


def test_a_long_command_is_wrapped_and_read_again():
    words = ["stair-jax", "table", *(f"runs/with a name {n}" for n in range(9)), "--rows=a=b*"]
    body = blocks.make_block("| table |", words)
    assert max(map(len, body.splitlines())) <= 100 and body.count("\\\n") > 1
    assert blocks.command_of(body) == words
