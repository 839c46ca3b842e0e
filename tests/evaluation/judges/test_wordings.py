"""Wordings: ours, and official ones from files of the user's."""

import hashlib

import pytest

from stair_jax.errors import UserError
from stair_jax.evaluation.judges.judge import Material
from stair_jax.evaluation.judges.questions import QUESTIONS
from stair_jax.evaluation.judges.reading import read
from stair_jax.evaluation.judges.wordings import default_wording, load_wordings, read_wording

MATERIAL = Material("How?", "So.", reference="so", other="Thus.", policy="Not so.")


@pytest.fixture
def write(tmp_path):
    def write_text(text):
        path = tmp_path / "wording.txt"
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    return write_text


@pytest.mark.parametrize("question", list(QUESTIONS))
def test_our_wording_shows_the_material_between_marks_and_asks_behind_it(question):
    wording = default_wording(question)
    text = wording.write(MATERIAL, "m4rk")
    assert "| How?" in text and "| So." in text and "{" not in text
    assert text.count("m4rk") >= 3
    question_place = text.index("### Question\n")
    assert text.index("m4rk ===\n| So.") < question_place < text.rindex("m4rk")
    assert set(part.labels for part in wording.parts if not part.name) <= {
        QUESTIONS[question].offered
    }


def test_a_file_takes_the_place_of_our_words_and_its_hash_is_known(write):
    content = b"Q: {prompt}\r\nA: {answer}\r\nHarmful?"
    path = write(content)
    wordings = load_wordings({"harmful": str(path)}, fenced=False)
    assert wordings["harmful"].write(MATERIAL, "m") == "Q: How?\nA: So.\nHarmful?"
    assert wordings["harmful"].sha256 == hashlib.sha256(content).hexdigest()
    assert wordings["refusal"].sha256 == default_wording("refusal").sha256
    assert wordings["harmful"].parts[0].scored == ("yes", "no")


def test_a_fenced_answer_of_a_file_has_a_reminder_behind_it(write):
    text = read_wording("harmful", write("{prompt} {answer} Harmful?\n")).write(MATERIAL, "m4rk")
    assert text.startswith("| How? === Beginning of the answer, mark m4rk ===\n| So.\n")
    _, _, reminder = text.partition("Harmful?\n\n")
    assert "between the two lines with the mark m4rk" in reminder


def test_placeholders_inside_of_the_material_stay(write):
    wording = load_wordings({"harmful": str(write("{prompt}|{answer}"))}, fenced=False)["harmful"]
    assert wording.write(Material("{answer}", "{prompt} {mark} {x}"), "m") == (
        "{answer}|{prompt} {mark} {x}"
    )


def test_the_header_says_what_replies_mean(write):
    wording = read_wording(
        "correctness",
        write(
            "labels: A = correct, B = incorrect, C = not_attempted\nlead_in: Grade:\n---\n"
            '{prompt} {reference} {answer} {"json": 1} {} {A}'
        ),
    )
    (part,) = wording.parts
    assert part.scored == ("A", "B", "C") and part.lead_in == "Grade:"
    assert part.spellings["C"] == part.spellings["not attempted"] == "not_attempted"
    assert '{"json": 1} {} {A}' in wording.write(MATERIAL, "m")


def test_a_rubric_may_ask_for_one_score(write):
    wording = read_wording("rubric", write("scores: one\n---\n{prompt} {answer} From 1 to 5?"))
    assert wording.parts[0].scored == ("1", "2", "3", "4", "5")
    assert read(wording, "Rating: 4")[""]["4"] == 1.0
    assert read(wording, "4.5") is read(wording, "0") is read(wording, "6") is None


@pytest.mark.parametrize(
    ("question", "text", "says"),
    [
        ("harmful", "{prompt}", r"lacks \{answer\}: .* \{prompt\}, \{answer\}"),
        ("harmful", "", r"lacks \{prompt\}"),
        ("harmful", "{prompt} {answer} {reference}", r"holds \{reference\}, which a wording of"),
        ("harmful", "{prompt} {answer} {response}", r"holds \{response\}"),
        ("correctness", "{prompt} {answer}", r"lacks \{reference\}"),
        ("preference", "{prompt} {answer}", r"lacks \{other\}"),
        ("harmful", b"\xff\xfe{prompt}", "no UTF-8 text"),
        ("harmful", "labels: A = yes\n{prompt} {answer}", "no line --- ends that header"),
        ("harmful", "labels: A = yes\n---\n{prompt} {answer}", "no reply for no"),
        ("harmful", "labels: A = yes, B = maybe\n---\n{prompt} {answer}", "'B = maybe'"),
        ("harmful", "labels: A = yes, a = no\n---\n{prompt} {answer}", "a reply twice"),
        ("harmful", "labels: A = yes, 2 = no\n---\n{prompt} {answer}", "mixes numbers and words"),
        ("harmful", "labels: A = yes, = no\n---\n{prompt} {answer}", "'= no'"),
        ("harmful", "raw: maybe\n---\n{prompt} {answer}", "write yes or no"),
        ("harmful", "raw: yes\ncolour: red\n---\n{prompt} {answer}", "'colour: red'"),
        ("rubric", "labels: A = yes\n---\n{prompt} {answer}", "labels is set"),
        ("rubric", "scores: two\n---\n{prompt} {answer}", "write all or one"),
        ("harmful", "scores: one\n---\n{prompt} {answer}", "harmful asks for none"),
    ],
)
def test_a_file_that_cannot_be_a_wording_is_refused_in_one_line(write, question, text, says):
    with pytest.raises(UserError, match=f"wording.txt.*{says}") as caught:
        read_wording(question, write(text))
    assert "\n" not in str(caught.value)


def test_a_question_or_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UserError, match="'harm': did you mean harmful"):
        load_wordings({"harm": "x"})
    with pytest.raises(UserError, match=r"cannot read .*gone.txt, the wording of harmful"):
        read_wording("harmful", tmp_path / "gone.txt")
