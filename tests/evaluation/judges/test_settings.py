"""Who judges, and how, as a user writes it."""

import pytest

from stair_jax.errors import UserError
from stair_jax.evaluation.judges.settings import JudgeSettings, JudgeSpec


@pytest.mark.parametrize(
    ("text", "kind", "name", "shown"),
    [
        ("rule", "rule", "", "rule"),
        ("endpoint", "endpoint", "", "endpoint"),
        ("runs/pocket/iter3", "model", "runs/pocket/iter3", "model:runs/pocket/iter3"),
        (" Qwen/Qwen2.5-7B-Instruct ", "model", "Qwen/Qwen2.5-7B-Instruct", None),
        ("C:\\models\\x", "model", "C:\\models\\x", None),
        ("model:rule", "model", "rule", "model:rule"),
        ("classifier:a/b", "classifier", "a/b", "classifier:a/b"),
    ],
)
def test_a_judge_is_a_kind_or_the_name_of_a_model(text, kind, name, shown):
    spec = JudgeSpec.parse(text)
    assert (spec.kind, spec.name) == (kind, name)
    assert str(spec) == (shown or f"{kind}:{name}")


@pytest.mark.parametrize("text", ["", "  ", "model:", "classifier", "rule:x", "endpoint:gpt"])
def test_a_judge_without_its_name_is_refused(text):
    with pytest.raises(UserError, match=r"the judge|a judge is empty"):
        JudgeSpec.parse(text)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"wordings": {"rubrik": "x"}}, "did you mean rubric"),
        ({"mode": "both"}, "mode"),
        ({"classifier_question": "rubric"}, "classifier_question"),
        ({"classifier_labels": {"LABEL_0": "maybe"}}, "use yes, no"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"temperature": -1.0}, "temperature"),
    ],
)
def test_a_setting_that_cannot_be_is_named(settings, says):
    with pytest.raises(UserError, match=says):
        JudgeSettings(**settings)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\xfa"])
def test_a_policy_that_cannot_be_read_is_named(tmp_path, content):
    (tmp_path / "policy.txt").write_bytes(content)
    with pytest.raises(UserError, match=r"policy: .*policy\.txt"):
        JudgeSettings(policy=str(tmp_path / "policy.txt")).read_policy()
    assert JudgeSettings().read_policy() == JudgeSettings().policy_hash() == ""
