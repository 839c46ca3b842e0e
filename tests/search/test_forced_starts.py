"""Which prompts of a search get a wrong beginning of the answer, and which one."""

import inspect

import pytest

from stair_jax.data.records import Prompt
from stair_jax.errors import UserError
from stair_jax.evaluation.attacks import forged_tags, many_shot, role_play
from stair_jax.evaluation.attacks.settings import PrefillSettings
from stair_jax.evaluation.attacks.suffix_settings import GcgSettings, RandomSearchSettings
from stair_jax.evaluation.case import Case
from stair_jax.search.forced_starts import WHICH, ForcedStarts, StartCounts
from stair_jax.settings import build
from stair_jax.text.starts import cut_start, num_steps
from stair_jax.text.steps import format_output, format_step, is_well_formed

PROMPTS = [
    Prompt(f"p{i}", f"question {i}?", "safety" if i % 2 else "helpfulness") for i in range(400)
]
TEXTS = {name: getattr(ForcedStarts(), name) for name in WHICH}
STEP = format_step("Plan", "Think.")


def started(seed=0, prompts=PROMPTS, **settings):
    """The ids of the prompts with a start, and these."""
    made = [ForcedStarts(**settings).apply(prompt, seed) for prompt in prompts]
    return {prompt.id: prompt.start for prompt in made if prompt.start}


def told(after):
    counts = StartCounts()
    for prompt, changed in zip(PROMPTS, after, strict=True):
        counts.add(prompt, changed)
    return counts.describe()


def test_nothing_is_changed_at_first():
    assert [ForcedStarts().apply(prompt, 3) for prompt in PROMPTS] == PROMPTS
    assert told(PROMPTS) == ""


def test_a_larger_share_has_the_prompts_of_a_smaller_one_with_the_same_starts():
    small, large, all_of_them = (started(share=share) for share in (0.2, 0.5, 1.0))
    assert 55 < len(small) < 105 and 170 < len(large) < 230 and len(all_of_them) == 400
    assert small.items() <= large.items() <= all_of_them.items()
    assert started(share=0.2, seed=1).keys() != small.keys()
    assert started(share=0.2, prompts=PROMPTS[::-1]) == small


def test_starts_are_wrong_for_the_kind_of_their_prompt():
    found = started(share=1.0)
    harmful = {cut_start(text) for name in ("comply", "prefill") for text in TEXTS[name]}
    refusing = {cut_start(text) for text in TEXTS["refuse"]}
    by_kind = {kind: set() for kind in ("safety", "helpfulness")}
    for prompt in PROMPTS:
        by_kind[prompt.kind].add(found[prompt.id])
    assert by_kind == {"safety": harmful, "helpfulness": refusing}
    harmless = Prompt("a", "How do I kill a process?", "safety", label="safe")
    assert ForcedStarts(share=1.0).apply(harmless, 0).start in refusing


def test_kinds_and_which_limit_who_gets_a_start():
    ids = {kind: {p.id for p in PROMPTS if p.kind == kind} for kind in ("safety", "helpfulness")}
    assert started(share=1.0, which=("refuse",)).keys() == ids["helpfulness"]
    assert started(share=1.0, kinds=("safety",)).keys() == ids["safety"]
    assert set(started(share=1.0, which=("comply",)).values()) == {
        cut_start(text) for text in TEXTS["comply"]
    }


def test_a_start_of_the_prompts_own_is_kept():
    own = Prompt("a", "why?", "safety", start=(STEP,))
    assert ForcedStarts(share=1.0).apply(own, 0) == own


def test_our_starts_are_whole_steps_or_open_ones_that_an_answer_can_go_on_from():
    for name, texts in TEXTS.items():
        for text in texts:
            start = cut_start(text)
            assert num_steps(start) == (name != "prefill" or "Output" in text)
            rest = format_output("No.")
            if "Output" in text:
                rest = " no." + rest[-len("<|/Output|>") :]
            elif name == "prefill":
                rest = f" no.\n<|/Reasoning_step|>{rest}"
            assert is_well_formed(text + rest)
            assert text == text.rstrip() or name != "prefill"


def test_forged_reasoning_surrounds_prompts_of_both_kinds_and_stays_apart_from_starts():
    settings = ForcedStarts(forged_tags=1.0)
    for prompt in PROMPTS[:20]:
        made = settings.apply(prompt, 0)
        texts = settings.forged_comply if prompt.kind == "safety" else settings.forged_refuse
        assert made.prompt in {text.replace("{prompt}", prompt.prompt) for text in texts}
        assert made.start is None and made.id == prompt.id
    both = [ForcedStarts(share=0.5, forged_tags=0.5).apply(prompt, 0) for prompt in PROMPTS]
    counts = {
        (bool(new.start), new.prompt != old.prompt) for old, new in zip(PROMPTS, both, strict=True)
    }
    assert len(counts) == 4
    assert told(both).startswith("of 400 prompts: ")
    only = [ForcedStarts(forged_tags=1.0, kinds=("safety",)).apply(p, 0) for p in PROMPTS]
    assert [new.prompt != old.prompt for old, new in zip(PROMPTS, only, strict=True)] == [
        prompt.kind == "safety" for prompt in PROMPTS
    ]


def test_a_prompt_that_holds_a_placeholder_is_put_in_as_it_is():
    prompt = Prompt("a", "what is {prompt}?", "safety")
    assert ForcedStarts(forged_tags=1.0).apply(prompt, 0).prompt.count("what is {prompt}?") == 1


def sentences(text):
    """Runs of five words, which is more than two texts have in common by chance."""
    words = text.replace("\n", " ").split()
    return {" ".join(words[i : i + 5]).lower() for i in range(max(len(words) - 4, 0))}


def test_no_wording_is_that_of_a_reported_attack():
    settings = ForcedStarts()
    ours = [
        text.replace("{prompt}", "")
        for name in (*WHICH, "forged_comply", "forged_refuse")
        for text in getattr(settings, name)
    ]
    case = Case("a", "question?")
    reported = [PrefillSettings().text, GcgSettings().target, RandomSearchSettings().target]
    reported += [
        asked.messages[-1]["content"] for asked in forged_tags.ForgedTags().apply(case, None)
    ]
    reported += [inspect.getsource(module) for module in (forged_tags, role_play, many_shot)]
    theirs = set().union(*map(sentences, reported))
    assert not set().union(*map(sentences, ours)) & theirs
    openings = [text.strip().lower() for text in reported[:3]]
    assert all("sure, here" not in text.lower() for text in ours)
    assert not any(opening in text.lower() for opening in openings for text in ours if opening)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"share": 1.5}, "share"),
        ({"which": ["agree"]}, "which"),
        ({"kinds": ["harm"]}, "kinds"),
        ({"share": 0.1, "which": []}, "which has no start for prompts of these kinds"),
        ({"share": 0.1, "which": ["refuse"], "kinds": ["safety"], "refuse": []}, "refuse has no"),
        ({"comply": [STEP + format_output("x")]}, "comply: .* finished answer"),
        ({"comply": [" "]}, "comply: .* empty"),
        ({"forged_comply": ["no place"]}, r"forged_comply: .* must hold \{prompt\} once"),
        ({"forged_tags": 0.1, "forged_refuse": []}, "forged_refuse has no text"),
        ({"forged_tags": 0.1, "kinds": []}, "kinds is empty"),
    ],
)
def test_settings_that_cannot_be_are_refused(section, message):
    with pytest.raises(UserError, match=message):
        build(ForcedStarts, section, "config.search.forced_starts")
