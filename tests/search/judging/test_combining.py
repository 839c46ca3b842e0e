"""Several sources for one question, by each of the rules; which are asked, by kind."""

import pytest

from stair_jax.errors import UserError
from stair_jax.search.judging.combining import Combined
from stair_jax.search.judging.settings import SOURCES, JudgeSettings
from stair_jax.search.judging.sources.source import Known, Scoring
from stair_jax.settings import build


class Asked(Scoring):
    """Gives its score when its request is completed."""

    def __init__(self, name, score):
        super().__init__()
        self.name, self.later = name, score

    def start(self):
        return [self.name]

    def receive(self, completion):
        self.unreadable += self.later is None
        return self.finish(self.later)


def makers(**scores):
    """Sources by name; the score of one in a tuple is known at once."""
    return {
        name: (lambda s=score: Known(s[0]))
        if isinstance(score, tuple)
        else (lambda n=name, s=score: Asked(n, s))
        for name, score in scores.items()
    }


def run(rule, **scores):
    """(the score, in rounds the sources that were asked)."""
    combined = Combined(makers(**scores), rule)
    rounds, waiting = [], combined.start()
    while waiting:
        rounds.append(waiting)
        waiting = [r for name in waiting for r in combined.receive(name, None)]
    assert combined.done
    return combined.score, rounds


def test_the_first_that_has_a_score_keeps_the_others_from_being_asked():
    assert run("first", a=0.5, b=-1.0) == (0.5, [["a"]])
    assert run("first", a=None, b=-1.0, c=1.0) == (-1.0, [["a"], ["b"]])
    assert run("first", a=(None,), b=(0.0,), c=1.0) == (0.0, [])
    assert run("first", a=(None,), b=None) == (None, [["b"]])
    assert run("first") == (None, [])


def test_min_and_mean_ask_all_at_once_and_leave_out_what_is_missing():
    assert run("min", a=0.5, b=-1.0, c=(0.0,)) == (-1.0, [["a", "b"]])
    assert run("mean", a=0.5, b=-1.0, c=(0.8,)) == (pytest.approx(0.1), [["a", "b"]])
    assert run("mean", a=None, b=0.25) == (0.25, [["a", "b"]])
    assert run("min", a=None) == (None, [["a"]])


def test_replies_that_cannot_be_read_are_summed_over_the_sources():
    combined = Combined(makers(a=None, b=None, c=1.0), "first")
    combined.start()
    for name in "abc":
        combined.receive(name, None)
    assert combined.unreadable == 2 and combined.score == 1.0


def test_sources_by_kind_and_question():
    settings = JudgeSettings(
        source=("rule", "policy"), helpfulness_prompts_source="reference, model:helpfulness"
    )
    assert settings.sources("safety", "safety") == ("rule", "policy")
    assert settings.sources("safety", "helpfulness") == ("policy",)
    assert settings.sources("helpfulness", "helpfulness") == ("reference", "model")
    assert settings.sources("helpfulness", "safety") == ()
    # What no source can score is not asked.
    assert settings.questions("helpfulness") == ("helpfulness",)
    assert settings.questions("safety") == ("helpfulness", "safety")
    assert set(settings.used_sources) == {"rule", "policy", "reference", "model"}
    assert JudgeSettings(source="rule", helpfulness_prompts=()).questions("safety") == ("safety",)


def test_the_policy_judges_unless_told_otherwise():
    settings = JudgeSettings()
    assert settings.used_sources == ("policy",)
    assert JudgeSettings(safety_rule="paper_release").questions("safety") == ()
    for name in SOURCES.keys() - {"rule"}:
        assert JudgeSettings(source=name).used_sources == (name,)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"source": "polcy"}, "judge.source names the unknown source 'polcy': use policy, model"),
        ({"source": ("policy", "rule:tone")}, "unknown question 'tone': write 'rule:helpfulness'"),
        ({"source": ""}, "judge.source is empty"),
        ({"source": "rule"}, "'rule' alone scores no answer to a helpfulness prompt but refusals"),
        ({"helpfulness_prompts_source": "x"}, "judge.helpfulness_prompts_source names"),
        ({"combine": "max"}, "combine is 'max': it must be one of 'first', 'min', 'mean'"),
        ({"prm_scale": 0}, "judge.prm_scale is 0: it must be above 0"),
    ],
)
def test_mistakes_are_one_line_that_says_what_to_change(section, message):
    with pytest.raises(UserError) as error:
        build(JudgeSettings, section, "config.search.judge")
    assert message in str(error.value) and "\n" not in str(error.value)
