"""The probe of a judge: what it measures, what it objects to, and the cases that it is made of."""

from collections import Counter

import pytest

from stair_jax import storage
from stair_jax.decoding.driver import Driver
from stair_jax.decoding.no_engine import NoEngine
from stair_jax.errors import UserError
from stair_jax.search.judging.auc import interval
from stair_jax.search.judging.calibration import Calibrator
from stair_jax.search.judging.judges import Judge, JudgeSettings
from stair_jax.search.judging.probe import run_probe
from stair_jax.search.judging.probe_cases import ProbeCase, read_cases
from stair_jax.search.judging.probe_verdict import objection, summarize
from stair_jax.search.judging.sources.language_model import LanguageModelSource
from stair_jax.text.judge_wordings import WORDINGS

CASES = [
    *(ProbeCase(f"bad {n}", "safety", "never" if n % 2 else "sure", n % 2 * 2 - 1, None) for n in
      range(40)),
    *(ProbeCase(f"good {n}", "helpfulness", "right" if n % 2 else "wrong", 1, n % 2 * 2 - 1) for n
      in range(40)),
]  # fmt: skip
LEAST = {"min_readable": 0.5, "min_auc": 0.7}


@pytest.fixture
def probe(tokenizer, make_engine):
    """`probe(reply, **settings)`: the result for a judge that replies as `reply` says."""

    def probe(reply, **settings):
        engine = make_engine()
        engine.replies.reply = lambda request, text: reply(text, request.id[-1])
        wanted = {"attempts": 1, "ask_closing": False, "max_tokens": 40} | settings
        return run_probe(Judge(tokenizer, JudgeSettings(**wanted)), Driver(engine), CASES, seed=0)

    return probe


def faithful(text, question):
    """Replies to the default wordings: whether the assistant does what the user wants."""
    return "NO" if "| never\n" in text or "| wrong\n" in text else "YES"


def test_a_faithful_judge_passes(probe):
    result = probe(faithful)
    assert result.readable == 1 and result.auc("safety").value == 1
    assert result.auc("helpfulness").value == 1
    assert objection(result, **LEAST, is_calibrated=False) is None
    assert summarize(result) == (
        "80 cases: 100% of the scores could be read, AUC of helpfulness 1.00 [0.90, 1.00], AUC of "
        "safety 1.00 [0.90, 1.00]"
    )
    assert result.replies[0] in ("'YES'", "'NO'") and len(result.replies) == 2


def test_replies_of_another_model_are_read_by_its_own_tokenizer(tokenizer, make_engine):
    engine = make_engine()
    engine.replies.reply = lambda request, text: faithful(text, request.id[-1])
    settings = JudgeSettings(source="model", attempts=1, ask_closing=False, max_tokens=40)
    other = LanguageModelSource(tokenizer, settings, service="judge")
    judge = Judge(None, settings, {"model": other})
    result = run_probe(judge, Driver(NoEngine(), {"judge": engine}), CASES, seed=0)
    assert set(result.replies) <= {"'YES'", "'NO'"} and len(result.replies) == 2


def test_scores_that_are_fixed_are_not_measured(probe):
    """The answers to helpfulness prompts are safe by default, whatever the judge would say."""
    result = probe(faithful)
    assert len(result.scored("safety")[0]) == 40
    assert result.asked == {"safety": ("helpfulness", "safety"), "helpfulness": ("helpfulness",)}


def test_a_judge_that_is_upside_down_is_named_so_and_can_be_turned(probe):
    result = probe(
        lambda text, question: (
            {"YES": "NO", "NO": "YES"}[faithful(text, question)]
            if question == "safety"
            else faithful(text, question)
        )
    )
    assert result.auc("safety").value == 0
    refusal = objection(result, **LEAST, is_calibrated=False)
    assert refusal.startswith("the judge's safety is upside down") and "\n" not in refusal
    assert "search.judge.calibrate=True" in refusal
    turned = result.mapped(Calibrator(result.fit(), "sign"))
    assert turned.auc("safety").value == 1
    assert objection(turned, **LEAST, is_calibrated=True) is None


def test_a_judge_that_says_the_same_of_all_answers_is_refused(probe):
    refusal = objection(probe(lambda *_: "YES"), **LEAST, is_calibrated=False)
    assert "does not tell good answers from bad ones" in refusal and "AUC 0.50" in refusal


def test_a_judge_that_cannot_be_read_is_refused_and_quoted(probe):
    refusal = objection(probe(lambda *_: "I am a poem"), **LEAST, is_calibrated=False)
    assert "the judge cannot be read: 80 cases: 0% of the scores" in refusal
    assert "'I am a poem'" in refusal and "stair-jax judge check" in refusal


def test_a_reply_that_could_not_be_read_is_shown_first(probe):
    odd = probe(lambda text, question: "hm" if "bad 7" in text else faithful(text, question))
    assert odd.replies[0] == "'hm'" and odd.replies[1] in ("'YES'", "'NO'")


def test_log_probs_of_labels_are_shown_by_their_names(probe):
    result = probe(faithful, mode="expected")
    assert all("P(YES) = " in reply and "P(NO) = " in reply for reply in result.replies)


def test_the_built_in_cases_are_at_least_forty_and_balanced():
    for source in ("default", "pocket"):
        cases = read_cases(source)
        kinds = Counter(case.kind for case in cases)
        safe = Counter(case.safety for case in cases if case.kind == "safety")
        helpful = Counter(case.helpfulness for case in cases)
        assert len(cases) >= 40 and min(kinds.values()) >= 0.4 * len(cases)
        assert min(safe[-1], safe[1]) >= 20
        assert min(helpful[-1], helpful[1]) >= 20
        assert len({(case.prompt, case.answer) for case in cases}) == len(cases)


def test_chance_on_the_built_in_cases_is_refused():
    """So many cases that the interval around .5 ends below .7."""
    for source in ("default", "pocket"):
        cases = read_cases(source)
        for label in ("safety", "helpfulness"):
            kinds = ("safety",) if label == "safety" else ("safety", "helpfulness")
            sides = Counter(getattr(case, label) for case in cases if case.kind in kinds)
            assert interval(0.5, sides[1], sides[-1])[1] < 0.7


@pytest.mark.parametrize(
    "row, message",
    [
        ({"answer": "b", "kind": "safety", "safety": 1}, "line 2: a case needs a text in 'prompt'"),
        ({"prompt": "a", "answer": "b", "kind": "jokes", "safety": 1}, "line 2: kind is 'jokes'"),
        ({"prompt": "a", "answer": "b", "kind": "safety", "safety": 2}, "line 2: safety is 2"),
        ({"prompt": "a", "answer": "b", "kind": "safety", "safety": True}, "safety is True"),
        ({"prompt": "a", "answer": "b", "kind": "safety"}, "needs safety or helpfulness"),
    ],
)
def test_a_wrong_case_of_the_user_is_named_by_its_line(tmp_path, row, message):
    good = {"prompt": "a", "answer": "b", "kind": "safety", "safety": 1, "helpfulness": None}
    storage.write_jsonl(tmp_path / "cases.jsonl", [good, row])
    with pytest.raises(UserError, match=message):
        read_cases(str(tmp_path / "cases.jsonl"))


def test_cases_that_are_not_there_are_said_to_be_missing(tmp_path):
    with pytest.raises(UserError, match=r"none\.jsonl, which is no file: name JSON lines"):
        read_cases(str(tmp_path / "none.jsonl"))
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(UserError, match="is empty"):
        read_cases(str(tmp_path / "empty.jsonl"))


@pytest.mark.parametrize("question", ["safety", "helpfulness"])
def test_each_wording_can_be_named_and_brings_its_labels(question):
    for name, wording in WORDINGS[question].items():
        settings = JudgeSettings(**{f"{question}_template": name})
        assert settings.labels(question) == wording.labels
        assert getattr(settings, f"{question}_template") == wording.template
        same = JudgeSettings(**{f"{question}_template": wording.template})
        assert same == settings
        assert {min(wording.labels.values()), max(wording.labels.values())} == {-1, 1}


def test_a_template_of_ones_own_keeps_verdicts_and_ratings():
    settings = JudgeSettings(
        safety_template="{prompt} {answer}", helpfulness_template="{prompt}{answer}"
    )
    assert list(settings.safety_labels) == ["SAFE", "UNSAFE"]
    assert list(settings.helpfulness_labels) == ["1", "2", "3", "4", "5"]


@pytest.mark.parametrize(
    "labels", [{"YES": 1.0}, {"YES": 1.0, "NO": 1.0}, {"YES": 2.0, "NO": 0.0}, {"a": 1.0, "A": 0.0}]
)
def test_labels_that_cannot_be_scores_are_refused(labels):
    with pytest.raises(UserError, match="safety_labels"):
        JudgeSettings(safety_labels=labels)


def test_a_name_that_is_no_wording_is_refused_with_those_that_are():
    with pytest.raises(UserError, match=r"safety_template is 'complys'.*did you mean complies"):
        JudgeSettings(safety_template="complys")
