"""Prompts answered and judged over a scripted engine."""

from dataclasses import replace

import pytest

from stair_jax.data.records import StepPair, SynthesisPrompt
from stair_jax.decoding.driver import Driver, run_tasks
from stair_jax.search.judging.judges import Judge
from stair_jax.search.judging.prefixes import JudgePrefixes
from stair_jax.search.judging.reward import SafetyReward
from stair_jax.search.judging.settings import JudgeSettings
from stair_jax.synthesis.categories import ChosenCategories, KnownCategories
from stair_jax.synthesis.duplicates import near_duplicates
from stair_jax.synthesis.pairs import make_pair
from stair_jax.synthesis.policies import policies_of
from stair_jax.synthesis.prompt_task import Means, PromptTask
from stair_jax.synthesis.records import PromptAnswers
from stair_jax.synthesis.settings import PairSettings, WritingSettings
from stair_jax.synthesis.writers import LocalWriter
from stair_jax.testing.scripted_engine import RandomReplies, ScriptedEngine
from stair_jax.text import steps

PROMPTS = [
    SynthesisPrompt(f"p{i}", f"Question {i}?", kind, answer=answer)
    for i, (kind, answer) in enumerate(
        [
            ("safety", None),
            ("helpfulness", steps.format_answer([("A", "x")], "b")),
            ("safety", "No steps."),
            ("helpfulness", None),
        ]
    )
]
JUDGE = {
    "mode": "expected",
    "fence": False,
    "safety_score": "expected",
    "helpfulness_template": "Rate {prompt} {answer}",
    "safety_template": "Safe? {prompt} {answer}",
}


@pytest.fixture
def answer(tokenizer):
    """`answer(prompts, ...)`: their records; each handle is given back."""

    def run(prompts, disorder=None, judge=(), judges_given=False, reply=None, **values):
        replies = RandomReplies(tokenizer)
        if reply:
            replies.reply = reply
        engine = ScriptedEngine(replies, disorder=disorder, max_length=values.pop("room", 2**40))
        settings = WritingSettings(**{"max_prompt_tokens": 10**6} | values)
        judge = Judge(tokenizer, JudgeSettings(**JUDGE | dict(judge)))
        driver, policies = Driver(engine), policies_of(settings)
        categories = KnownCategories(settings.categories, policies)
        if policies and settings.categories == "model":
            categories = ChosenCategories(tokenizer, policies, driver)
        prefixes = JudgePrefixes(engine, judge)
        means = Means(
            categories,
            LocalWriter(engine, tokenizer, settings, policies, 3, keeps_tokens=True),
            judge,
            prefixes,
            SafetyReward(),
            settings,
            3,
            judges_given,
        )
        found = list(run_tasks(driver, [PromptTask(means, prompt) for prompt in prompts]))
        prefixes.close_all()
        assert not engine.handles
        run.seen = [tokenizer.decode(request.sequence) for request in engine.seen]
        return found

    return run


def test_sound_answers_are_judged_and_others_have_a_reason(answer, tokenizer):
    records = answer(PROMPTS, num_candidates=16, max_similarity=0.5)
    reasons = set()
    for record in records:
        assert [each.number for each in record.answers] == list(range(16))
        sound = [each for each in record.answers if each.reason != "malformed"]
        flags = near_duplicates([each.text for each in sound], 0.5)
        assert [each.reason == "duplicate" for each in sound] == flags
        for each in record.answers:
            reasons.add(each.reason)
            assert tokenizer.decode(each.tokens).strip() == each.text
            assert steps.is_well_formed(each.text) == (each.reason != "malformed")
            if each.reason:
                assert each.reward is None
            else:
                expected = each.safety * each.helpfulness + 2 * each.safety
                assert each.reward == pytest.approx(expected)
    assert reasons == {"", "malformed", "duplicate"}


@pytest.mark.parametrize("disorder", range(3))
def test_what_is_answered_beside_a_prompt_and_in_which_order_changes_nothing(answer, disorder):
    settings = {"num_candidates": 6, "judges_given": True}
    expected = answer(PROMPTS, **settings)
    assert answer(PROMPTS, disorder, **settings) == expected
    assert answer(PROMPTS[::-1], disorder, **settings) == expected[::-1]
    assert answer(PROMPTS[1:2], **settings) == expected[1:2]
    assert len({record.answers for record in expected}) == len(PROMPTS)


def test_records_come_back_as_they_were_written(answer):
    for record in answer(PROMPTS, num_candidates=3, judges_given=True):
        assert PromptAnswers.from_dict(record.to_dict(), "row") == record


def test_given_answers_are_judged_where_they_are_wanted(answer):
    given = [record.given for record in answer(PROMPTS, judges_given=True)]
    assert given[0] is None and given[3] is None
    assert given[1].reward is not None and given[2].reason == "malformed"
    plain = answer(PROMPTS, judges_given=True, answer_format="plain")[2].given
    assert (plain.reason, plain.text) == ("", "No steps.") and plain.reward is not None
    assert not any(record.given for record in answer(PROMPTS))


def test_a_malformed_answer_may_have_a_reward_of_its_own(answer):
    values = {"num_candidates": 16, "max_similarity": 0.5}
    records = answer(PROMPTS, judge={"malformed": -2.5}, **values)
    answers = [each for record in records for each in record.answers]
    for reason, reward in (("malformed", -2.5), ("duplicate", None)):
        assert {each.reward for each in answers if each.reason == reason} == {reward}


def test_plain_answers_are_judged_by_what_they_say(answer):
    def reply(request, text):
        return "I'm sorry, I can't help with that." if request.sampling.max_tokens == 99 else None

    judge = {"source": "rule", "safety_prompts": ("safety",), "helpfulness_prompts": ()}
    settings = {"answer_format": "plain", "max_answer_tokens": 99, "reply": reply}
    (record,) = answer(PROMPTS[:1], judge=judge, **settings)
    assert [each.reason for each in record.answers] == ["", *["duplicate"] * 3]
    assert record.answers[0].safety == 1.0 and record.answers[0].reward == 1.0


def test_prompts_that_cannot_be_answered_are_skipped_with_a_reason(answer):
    prompts = [
        SynthesisPrompt("empty", " ", "safety"),
        SynthesisPrompt("long", "x" * 200, "safety"),
        SynthesisPrompt("full", "x" * 90, "safety"),
    ]
    records = answer(prompts, max_prompt_tokens=100, room=90)
    assert [record.skipped for record in records] == [
        "empty prompt",
        "prompt too long",
        "prompt leaves no room in the context",
    ]
    assert not any(record.answers for record in records)


def test_an_answer_that_is_cut_is_not_judged(answer):
    (record,) = answer(PROMPTS[:1], max_answer_tokens=1)
    assert [each.reason for each in record.answers] == ["cut"] * 4


def test_the_policy_of_the_category_is_shown_and_the_chat_before_the_prompt_kept(answer):
    prompt = SynthesisPrompt(
        "p", "And now?", "safety", category="cyber", history=({"role": "user", "content": "Hi."},)
    )
    values = {"template": "P: {policy} R: {prompt}", "policies": {"cyber": "Do not break in."}}
    (record,) = answer([prompt], **values)
    assert record.category == "cyber"
    assert answer.seen[0] == "Hi.P: Do not break in. R: And now?"
    judged = [text for text in answer.seen if "Rate User: Hi.\n\nUser: And now?" in text]
    assert judged and not any("break in" in text for text in judged)


def test_an_answer_goes_on_behind_its_start(answer):
    start = (steps.format_step("A", "x"), "\n\n" + steps.format_step("B", "y"))

    def reply(request, text):
        return "\n\n" + steps.format_output("z")

    prompt = SynthesisPrompt("p", "Why?", "safety", start=start, answer="\n\n<|Output|>z")
    (record,) = answer([prompt], reply=reply, judges_given=True, num_candidates=1)
    assert answer.seen[0].startswith("Why?" + "".join(start))
    assert (record.answers[0].text, record.answers[0].reason) == (
        "\n\n" + steps.format_output("z"),
        "",
    )
    assert record.given.reason == "malformed"
    made = make_pair(prompt, record, PairSettings(pairs="given_own"), 0.9)
    assert made == "bad_given"
    sound = replace(record, given=replace(record.given, text="w", reason=""))
    made = make_pair(prompt, sound, PairSettings(pairs="given_own", v0=None), 0.9)
    assert (made.start, made.path, made.rejected) == (start, start, record.answers[0].text)
    assert StepPair.from_dict(made.to_dict(), "row") == made


class Letters(RandomReplies):
    """Prefers the first letter that a prompt names, and any less than its favourite b."""

    def score(self, request):
        text = self.tokenizer.decode(request.sequence)
        letters = [self.tokenizer.decode([id]) for id in request.score_ids]
        wanted = text.partition("choose ")[2][:1].lower()
        return [-1.0 if x == "b" else -1.5 if x == wanted else -4.0 for x in letters]


def test_the_model_chooses_a_category_by_what_its_name_gains(tokenizer):
    names = ("Apples", "Books", "Cars", "Dogs", "Eggs", "Fish", "Gold", "Hats", "Ice", "Jam")
    policies = {f"c{n}": f"{name}: such things.\nHave them." for n, name in enumerate(names)}
    engine = ScriptedEngine(Letters(tokenizer), disorder=1)
    driver = Driver(engine)
    categories = ChosenCategories(tokenizer, policies, driver)
    prompts = [SynthesisPrompt(letter, f"please choose {letter}", "safety") for letter in "ACGHIJ"]
    chosen = list(run_tasks(driver, map(categories.task, prompts)))
    assert chosen == ["c0", "c2", "c6", "c7", "c8", "c9"]  # ten names take two requests each
    asked = tokenizer.decode(engine.seen[-1].sequence)
    assert "\n- Ice: such things.\n- Jam" in asked and "Have them" not in asked
    assert asked.endswith("The topic is ")  # a space is a token of its own here


def test_a_prompt_without_room_for_the_list_of_topics_is_skipped(answer):
    policies = {"a": "Apples: one.", "b": "Books: two."}
    values = {"template": "{policy} {prompt}", "policies": policies, "categories": "model"}
    records = answer([PROMPTS[0], SynthesisPrompt("q", "x" * 400, "safety")], room=500, **values)
    assert records[0].category in policies and not records[0].skipped
    assert (records[1].category, records[1].skipped) == ("", "prompt too long")
