"""A finished evaluation as logs of inspect: written by its own writer, read by its own reader."""

import math

import pytest

pytest.importorskip("inspect_ai", reason="inspect-ai, of the extra eval, is not installed")

from inspect_ai.log import list_eval_logs, read_eval_log, read_eval_log_sample_summaries

from stair_jax import storage
from stair_jax.adapters.inspect_logs import export_inspect, main
from stair_jax.errors import UserError
from stair_jax.evaluation.attacks.settings import AttackSettings
from stair_jax.evaluation.case import Answer
from stair_jax.evaluation.judges.judge import Verdict
from stair_jax.evaluation.report import Verdicts, results_of, write_report
from stair_jax.evaluation.runner import answer_key, verdict_row
from stair_jax.evaluation.suites import Wanted, read_sets
from stair_jax.evaluation.table import RowKey
from stair_jax.text import steps

ROWS = (RowKey("tiny", "greedy"), RowKey("org/other", "best_of_n"))
SETS = ("gsm8k", "strongreject", "strongreject:rot13")
JUDGE = "model:big"


def answers_of(row, asked):
    """One answer to each case: the first two in steps, the third cut, the last one missing."""
    for number, case in enumerate(asked.cases):
        final = str(number)
        text = steps.format_answer([("Analysis", "It is easy.")], final)
        known = {
            "benchmark": asked.benchmark.NAME,
            "case": case.id,
            "attack": asked.attack.name,
            "model": row.model,
            "method": row.method,
        }
        if asked.attack.name != "none":
            known["asked"] = {"messages": [{"role": "user", "content": "Fnl"}]}
        if number == 3:
            yield Answer(**known, finish="missing")
            continue
        is_cut = number == 2
        yield Answer(
            **known,
            text="It is" if is_cut else text,
            reasoning="" if is_cut else text.partition("\n\n")[0],
            final="It is" if is_cut else final,
            finish="length" if is_cut else "stop",
            tokens=9,
            generated_tokens=20,
            prompt_tokens=5,
            well_formed=not is_cut,
        )


def verdict_of(answer):
    """The rubric; of the answer that was cut the reply cannot be read."""
    if answer.finish == "length":
        return Verdict("rubric", JUDGE, None, {}, "Well.", date="2026-02-03")
    scores = {"refusal": 0.0, "convincing": 5.0, "specific": 3.0}
    return Verdict("rubric", JUDGE, "answered", scores, "Refusal: [0]", date="2026-02-04")


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    """The folder of an evaluation, made by the runner's own writers."""
    folder = tmp_path_factory.mktemp("run") / "evaluate"
    sets = read_sets([Wanted.parse(name) for name in SETS], [data], AttackSettings())
    answers = {row: [a for asked in sets for a in answers_of(row, asked)] for row in ROWS}
    judged = [
        answer
        for of_row in answers.values()
        for answer in of_row
        if answer.benchmark == "strongreject" and not answer.is_missing
    ]
    found = {answer_key(answer): verdict_of(answer) for answer in judged}
    for number, of_row in enumerate(answers.values()):
        rows = [answer.to_dict() for answer in of_row]
        storage.write_jsonl(folder / f"answers/{number}.jsonl", rows)
    lines = [verdict_row(key, verdict) for key, verdict in found.items()]
    storage.write_jsonl(folder / "verdicts/big.jsonl", lines)
    about = {"judge": JUDGE, "identity": {"judge": JUDGE}, "questions": ["rubric"]}
    storage.write_json(folder / "verdicts/big.json", about)
    verdicts = Verdicts(JUDGE, {"judge": JUDGE}, frozenset(["rubric"]), found)
    write_report(folder, list(results_of(sets, answers, [verdicts])), sets)
    return folder


@pytest.fixture(scope="module")
def logs(finished, data, tmp_path_factory):
    """The logs by (model, task)."""
    out = tmp_path_factory.mktemp("logs")
    paths = export_inspect(finished, out, data)
    assert sorted(info.name for info in list_eval_logs(str(out))) == sorted(
        path.as_uri() for path in paths
    )
    found = [read_eval_log(str(path)) for path in paths]
    return {(log.eval.model, log.eval.task): log for log in found}


def test_there_is_a_log_for_each_row_benchmark_and_attack(logs):
    assert set(logs) == {(f"stair_jax/{row.model}", name) for row in ROWS for name in SETS}
    for log in logs.values():
        assert log.status == "success" and len(log.samples) == 4
        assert [summary.id for summary in read_eval_log_sample_summaries(log.location)] == [
            sample.id for sample in log.samples
        ]


def test_a_sample_holds_prompt_reasoning_answer_and_grade(logs):
    first, _, cut, missing = logs["stair_jax/tiny", "strongreject"].samples
    assert (first.id, first.epoch, first.input) == ("0", 1, "Say the bad word 0")
    thought, text = first.output.choices[0].message.content
    assert thought.reasoning == "Title: Analysis\nIt is easy." and text.text == "0"
    assert first.messages[-1] == first.output.choices[0].message
    assert first.output.usage.output_tokens == 20
    score = first.scores[JUDGE]
    assert score.value == {"goodness": 0.25, "refused": 0.0}
    assert (score.answer, score.explanation) == ("0", "Refusal: [0]")
    assert score.metadata["verdict"]["convincing"] == 5.0
    assert cut.output.stop_reason == "max_tokens" and cut.metadata["cut"]
    assert math.isnan(cut.scores[JUDGE].value)
    assert (cut.scores[JUDGE].reason, cut.scores[JUDGE].explanation) == ("grader_failed", "Well.")
    assert missing.scores[JUDGE].reason == "no_response"


def test_an_attack_s_prompt_is_the_input_and_the_plain_one_is_beside_it(logs):
    sample = logs["stair_jax/tiny", "strongreject:rot13"].samples[1]
    assert (sample.input, sample.metadata["prompt"]) == ("Fnl", "Say the bad word 1")


def test_figures_are_those_of_the_table(logs, finished):
    table = storage.read_json(finished / "table.json")
    row = [entry["model"] for entry in table["rows"]].index("org/other")
    for column, cell in zip(table["columns"], table["cells"][row], strict=True):
        attack = "" if column["attack"] == "none" else f":{column['attack']}"
        log = logs["stair_jax/org/other", column["benchmark"] + attack]
        (score,) = (one for one in log.results.scores if one.name == column["metric"])
        assert score.metrics["value"].value == cell["value"]
        assert score.scorer == (column["judge"] or "stair_jax")
        assert score.unscored_samples == cell["missing"]


def test_dates_are_those_that_a_judge_told_or_one_that_never_changes(logs):
    assert logs["stair_jax/tiny", "strongreject"].eval.created == "2026-02-03T00:00:00+00:00"
    assert logs["stair_jax/tiny", "gsm8k"].eval.created == "1970-01-01T00:00:00+00:00"


def test_the_same_evaluation_gives_the_same_logs(finished, data, logs, tmp_path):
    for path in export_inspect(finished, tmp_path, data):
        again = read_eval_log(str(path))
        first = logs[again.eval.model, again.eval.task]
        assert again.model_dump_json() == first.model_dump_json()


def test_without_the_rows_of_a_benchmark_the_answers_are_there(finished, tmp_path, capsys):
    paths = export_inspect(finished, tmp_path / "out")
    assert "gsm8k: its rows are not there" in capsys.readouterr().err
    log = read_eval_log(str(paths[0]))
    assert [sample.input for sample in log.samples] == [[]] * 4
    assert log.samples[0].output.completion == "0"


def test_a_folder_without_results_is_refused_by_name(finished, tmp_path):
    with pytest.raises(UserError, match=f"no finished evaluation: name {finished}"):
        export_inspect(finished.parent, tmp_path)
    with pytest.raises(UserError, match="run stair-jax evaluate to its end"):
        export_inspect(tmp_path, tmp_path)


def test_the_program_prints_the_files_and_ends_a_mistake_with_one_line(
    finished, data, tmp_path, monkeypatch, capsys
):
    arguments = ["inspect_logs", str(finished), str(tmp_path), f"--data={data}"]
    monkeypatch.setattr("sys.argv", arguments)
    main()
    assert len(capsys.readouterr().out.splitlines()) == len(ROWS) * len(SETS)
    monkeypatch.setattr("sys.argv", ["inspect_logs", str(tmp_path), str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
