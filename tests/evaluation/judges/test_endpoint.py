"""A model behind an endpoint as judge."""

import pytest

from stair_jax.decoding.driver import Driver, run_tasks
from stair_jax.endpoints.chat import ChatCompletion, Usage
from stair_jax.endpoints.service import EndpointService
from stair_jax.endpoints.settings import EndpointSettings
from stair_jax.evaluation.judges.endpoint import EndpointJudge
from stair_jax.evaluation.judges.judge import Material
from stair_jax.evaluation.judges.settings import JudgeSettings
from stair_jax.testing.fake_endpoint import Act, FakeEndpoint, reply_of
from stair_jax.testing.scripted_engine import RandomReplies, ScriptedEngine

MATERIAL = Material("How?", "Like this.", other="Like that.")


def judge_of(**settings):
    endpoint = EndpointSettings(base_url="http://localhost/v1", model="gpt", max_requests=9)
    return EndpointJudge(JudgeSettings(endpoint=endpoint, **settings))


def saying(*replies):
    left = list(replies)

    def complete(request):
        fields = left.pop(0)
        fields = {"text": fields} if isinstance(fields, str) else fields
        return ChatCompletion(
            request.id, usage=Usage(9, 2), model="gpt-5", date="2026-11-30", **fields
        )

    return complete


def test_a_reply_is_read_and_the_model_that_wrote_it_recorded(run):
    made = run(judge_of().task("harmful", MATERIAL, "a"), saying("Conclusion: [YES]"))
    assert (made.judge, made.label, made.model) == ("endpoint:gpt", "yes", "gpt-5")
    assert (made.date, made.tokens) == ("2026-11-30", 2)


def test_it_is_asked_once_more_for_a_verdict_that_is_missing(run):
    seen = []

    def complete(request):
        seen.append(request.messages)
        return saying("Hard to say." if len(seen) == 1 else "NO")(request)

    made = run(judge_of().task("harmful", MATERIAL, "a"), complete)
    assert (made.label, made.tokens, len(seen)) == ("no", 4, 2)
    assert seen[1][:1] == seen[0] and seen[1][2]["content"].endswith("YES, NO")
    made = run(judge_of().task("harmful", MATERIAL, "a"), saying("Hm.", "Hm."))
    assert made.label is None and made.scores == {}
    closing = judge_of(ask_closing=False).task("harmful", MATERIAL, "a")
    assert run(closing, saying("Hm.")).label is None


def test_a_rubric_is_closed_by_its_three_lines(run):
    seen = []

    def complete(request):
        seen.append(request.messages[-1]["content"])
        scores = "Refusal: [0]\nConvincing: [2]\nSpecific: [3]"
        return saying("Hm." if len(seen) == 1 else scores)(request)

    made = run(judge_of(mode="expected").task("rubric", MATERIAL, "a"), complete)
    assert made.scores == {"refusal": 0, "convincing": 2, "specific": 3}
    assert seen[1].endswith("Refusal: [x]\nConvincing: [x]\nSpecific: [x]")


@pytest.mark.parametrize("finish", ["content_filter", "missing", "too_long"])
def test_a_call_without_a_reply_is_no_verdict(run, finish):
    reply = {"text": "", "finish": finish}
    assert run(judge_of().task("harmful", MATERIAL, "a"), saying(reply)).label is None


def test_log_probabilities_count_in_expected_mode_where_they_are_sent(run):
    judge = judge_of(mode="expected")
    (request,) = judge.task("harmful", MATERIAL, "a").start()
    assert request.top_logprobs == 20
    told = {"text": "YES", "top_logprobs": ({"YES": -1.0, "NO": -1.5, "I": -2.0},)}
    made = run(judge.task("harmful", MATERIAL, "a"), saying(told))
    assert made.scores["yes"] == pytest.approx(0.6224593)
    made = run(judge.task("harmful", MATERIAL, "a"), saying("NO"))
    assert made.scores == {"yes": 0.0, "no": 1.0}


def test_samples_of_different_answers_are_asked_apart():
    judge = judge_of()
    one, same, other = (judge.task("harmful", MATERIAL, key).start()[0] for key in "aab")
    assert one == same and one.sample != other.sample


def test_the_identity_says_who_is_asked():
    identity = judge_of().identity()
    assert (identity["model"], identity["endpoint"]) == ("gpt", "http://localhost/v1")
    assert "temperature" not in identity


def test_a_comparison_over_a_service_asks_both_orders(tokenizer, tmp_path):
    def script(number, body):
        content = body["messages"][0]["content"]
        is_first = content.index("| Like this.") < content.index("| Like that.")
        reply = reply_of(body)
        reply["choices"][0]["message"]["content"] = "FIRST" if is_first else "SECOND"
        return Act(body=reply)

    with FakeEndpoint(script) as fake:
        settings = EndpointSettings(base_url=fake.base_url, model="fake", max_requests=9)
        judge = EndpointJudge(JudgeSettings(endpoint=settings))
        with EndpointService(settings, tmp_path / "replies.gz") as service:
            driver = Driver(ScriptedEngine(RandomReplies(tokenizer)), {"endpoint": service})
            (made,) = run_tasks(driver, [judge.task("preference", MATERIAL, "a")])
    assert (made.label, made.scores["p"], made.model) == ("first", 1.0, "fake")
    assert len(made.date) == len("2026-11-30")
