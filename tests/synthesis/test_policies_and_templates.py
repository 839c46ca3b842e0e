"""What a model is shown of policies and prompts."""

import re

import pytest

from stair_jax.errors import UserError
from stair_jax.synthesis.policies import about, policies_of, policy_files
from stair_jax.synthesis.settings import WritingSettings
from stair_jax.synthesis.templates import TEMPLATES, fill_template
from stair_jax.text.policies import GENERAL, POLICIES

WITH_POLICY = "{policy} / {prompt}"


def settings(**values):
    return WritingSettings(template=WITH_POLICY, **values)


def test_there_are_seven_categories_and_a_general_policy():
    assert len(POLICIES) == 8 and GENERAL in POLICIES


@pytest.mark.parametrize("name", POLICIES)
def test_a_policy_has_its_parts_and_is_short(name):
    text = POLICIES[name]
    parts = re.findall(r"^([A-Z][\w -]+): ", text, re.MULTILINE)
    assert parts[1:] == ["Allowed", "Not allowed", "Style", "Hard cases"] and len(parts) == 5
    assert about(text).startswith(f"{parts[0]}: ")
    assert len(text.split()) <= 160


def test_a_policy_is_a_text_a_name_or_a_file(tmp_path):
    path = tmp_path / "mine.txt"
    path.write_text("Privacy: ask first.\n", encoding="utf-8")
    given = {"own": "Be kind to all.", "guns": "violence", "privacy": str(path)}
    found = policies_of(settings(policies=given))
    assert found == {
        "own": "Be kind to all.",
        "guns": POLICIES["violence"],
        "privacy": "Privacy: ask first.\n",
    }
    found = policies_of(settings(policies=given, default_policies=True))
    assert {*found} == {*POLICIES, "own", "guns"} and found["privacy"].startswith("Privacy: ask")
    assert policy_files(settings(policies=given)) == {"policies.privacy": [path]}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("violenc", r"policies\.a is 'violenc', which is no text.*did you mean violence\?"),
        ("nowhere.md", r"there is no file nowhere\.md"),
        ("  ", r"policies\.a is empty"),
    ],
)
def test_a_policy_that_is_none_is_refused(value, message):
    with pytest.raises(UserError, match=message):
        policies_of(settings(policies={"a": value}))


def test_a_file_of_a_policy_that_is_no_text_or_too_long_is_refused(tmp_path):
    (path := tmp_path / "p.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match=r"p\.txt is damaged \(not UTF-8 text\)"):
        policies_of(settings(policies={"a": str(path)}))
    path.write_text("a " * 40_000)
    with pytest.raises(UserError, match="more than 65536 bytes"):
        policies_of(settings(policies={"a": str(path)}))


def test_nothing_is_replaced_in_a_prompt_or_a_policy():
    filled = fill_template(WITH_POLICY, " {policy} {prompt} {x} ", "{prompt}!\n")
    assert filled == "{prompt}! / {policy} {prompt} {x}"


@pytest.mark.parametrize("name", TEMPLATES)
def test_our_templates_hold_their_places_once(name):
    has_policy = "{policy}" in TEMPLATES[name]
    made = WritingSettings(template=name, default_policies=has_policy)
    assert made.template_text == TEMPLATES[name]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"template": "Answer."}, r"'Answer\.' is no text with \{prompt\}, nor the name of one"),
        ({"template": "deliberativ"}, r"did you mean deliberative\?"),
        ({"template": "{policy}"}, r"must hold \{prompt\} once, not 0 times"),
        ({"template": "{prompt} {prompt}"}, "once, not 2 times"),
        ({"template": "deliberative"}, r"holds \{policy\}, and there are none: set default_pol"),
        ({"default_policies": True}, r"does not hold \{policy\} once: add it, or set template="),
        ({"top_p": 0.0}, "top_p is 0.0: it must be a"),
    ],
)
def test_a_template_that_does_not_fit_is_refused(values, message):
    with pytest.raises(UserError, match=message):
        WritingSettings(**values)
