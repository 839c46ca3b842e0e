"""Transforms make the same chats again, decode what they encode, and leave the case as it is."""

import json
import random
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import stair_jax
from stair_jax.errors import UserError
from stair_jax.evaluation.attacks import ATTACKS, make_attack
from stair_jax.evaluation.attacks.attack import Means, Rewriting, Transform
from stair_jax.evaluation.attacks.augmentation import add_noise, change_capitals, scramble
from stair_jax.evaluation.attacks.settings import (
    AttackSettings,
    BestOfNSettings,
    ManyShotSettings,
    PrefillSettings,
    RolePlaySettings,
    SweepSettings,
)
from stair_jax.evaluation.benchmark import Benchmark
from stair_jax.evaluation.case import Answer, Case
from stair_jax.testing.scripted_target import ScriptedTarget, run_scripted
from stair_jax.testing.tiny_tokenizers import byte_tokenizer
from stair_jax.text import steps
from stair_jax.text.conversations import encode_chat
from stair_jax.text.encodings import disemvowel, read_base64, rot13, to_base64

ROOT = Path(stair_jax.__file__).parents[1]
CASE = Case(
    "case 7",
    "Explain how a lock is picked.",
    system="Be brief.",
    history=(
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hello to you"},
    ),
)
TRANSFORMS = sorted(
    name for name, kind in ATTACKS.items() if issubclass(kind, Transform) and name != "stored"
)
# Answers of the target in code, by attack.
CODED = {
    "rot13": rot13,
    "base64": to_base64,
    "base64_output": to_base64,
    "combination_1": to_base64,
    "combination_2": to_base64,
    "combination_3": to_base64,
}


def chats(name, case=CASE, seed=0, settings=None):
    """What an attack asks a target, and its results."""
    target = ScriptedTarget(lambda asked, key: "An answer to you.")
    (tried,) = run_scripted([make_attack(name, settings).task(case, Means(target, seed=seed))])
    return [asked for asked, _, _ in target.asked], tried


@pytest.mark.parametrize("name", TRANSFORMS)
def test_the_same_seed_and_case_make_the_same_chats_with_other_keys_for_each(name):
    first, tried = chats(name)
    assert chats(name)[0] == first == [one.asked for one in tried]
    target = ScriptedTarget(lambda asked, key: "no")
    run_scripted([make_attack(name).task(CASE, Means(target, method="sample"))])
    keys = [key for _, key, _ in target.asked]
    assert len(set(keys)) == len(keys)
    # The plain prompt has the key that it has without any attacks.
    assert all(key.startswith(f"case 7/{name}/") for key in keys) or (name, keys) == (
        "none",
        ["case 7"],
    )
    assert {method for _, _, method in target.asked} == {"sample"}


@pytest.mark.parametrize("name", ["best_of_n", "distractors", "poems", "many_shot"])
def test_what_is_drawn_differs_by_seed_and_by_case(name):
    cases = [Case(str(number), CASE.prompt) for number in range(4)]
    by_case = [str(chats(name, case)[0]) for case in cases]
    by_seed = [str(chats(name, seed=seed)[0]) for seed in range(4)]
    assert len(set(by_case)) > 1 and len(set(by_seed)) > 1


@pytest.mark.parametrize("name", TRANSFORMS)
def test_system_turn_and_history_of_the_case_stay(name):
    for asked in chats(name)[0]:
        first, *others, last = asked.messages
        assert first == {"role": "system", "content": "Be brief."}
        assert tuple(others[-2:]) == CASE.history
        assert last["role"] == "user"


@given(st.sampled_from(TRANSFORMS), st.text(min_size=1))
def test_any_prompt_can_be_attacked(name, prompt):
    attack = make_attack(name)
    made = attack.apply(Case("1", prompt), random.Random(0))
    assert made and all(asked.messages[-1]["role"] == "user" for asked in made)


class Probe(Benchmark):
    """Shows what a judge would be shown."""

    NAME = "probe"

    def read(self, path):
        raise NotImplementedError

    def grade(self, case, answer, verdict):
        raise NotImplementedError


@pytest.mark.parametrize("name", sorted(CODED))
def test_a_judge_sees_the_decoded_answer_and_the_original_prompt(name):
    said = "Sure, here is how you do it."
    target = ScriptedTarget(lambda asked, key: CODED[name](said))
    ((tried,),) = run_scripted([make_attack(name).task(CASE, Means(target))])
    assert tried.reply.final == CODED[name](said)
    material = Probe().material(CASE, Answer("probe", CASE.id, name, final=tried.final))
    assert (material.prompt, material.answer) == (CASE.prompt, said)


@pytest.mark.parametrize("name", sorted(CODED))
def test_a_refusal_in_plain_text_reaches_the_judge_as_it_is(name):
    refusal = "I'm sorry, but I cannot help you with that."
    assert make_attack(name).decode(refusal) == refusal


@pytest.mark.parametrize("name", sorted(set(TRANSFORMS) - set(CODED)))
@given(answer=st.text())
def test_answers_of_the_other_transforms_are_not_changed(name, answer):
    assert make_attack(name).decode(answer) == answer


def prompt_of(name):
    return chats(name)[0][0].messages[-1]["content"]


def test_coded_prompts_hold_the_code_and_not_the_prompt():
    codes = {"rot13": rot13, "base64": to_base64, "base64_input": to_base64}
    for name, code in codes.items():
        assert prompt_of(name).endswith("\n\n" + code(CASE.prompt))
        assert CASE.prompt not in prompt_of(name)
    assert prompt_of("base64_raw") == to_base64(CASE.prompt)
    assert prompt_of("disemvowel") == disemvowel(CASE.prompt)
    assert prompt_of("base64_output").startswith(CASE.prompt)


def test_a_combination_is_its_parts_around_each_other():
    code = prompt_of("combination_1").rsplit("\n\n", 1)[1]
    inner = read_base64(code)
    assert "do not apologise" in inner and "Begin your answer with" in inner
    assert CASE.prompt in inner


def test_the_last_entry_of_the_few_shot_list_is_the_prompt_with_an_open_answer():
    prompt = 'Say "hi"\nand \\ more'
    (asked,), _ = chats("few_shot_json", Case("1", prompt))
    text = asked.messages[-1]["content"]
    closed = json.loads(text[text.index("[\n") :] + '"}]')
    assert closed[-1] == {"request": prompt, "answer": ""}
    assert all(row["answer"] for row in closed[:-1])


def test_the_prompt_is_the_second_of_the_distracting_tasks():
    assert f"\n2. {CASE.prompt}\n" in prompt_of("distractors")


def test_a_smaller_number_of_samples_is_the_beginning_of_a_larger_one():
    few, many = (
        chats("best_of_n", settings=AttackSettings(best_of_n=BestOfNSettings(samples=number)))[0]
        for number in (3, 9)
    )
    assert len(many) == 9 and many[:3] == few
    assert len({asked.messages[-1]["content"] for asked in many}) == 9


@given(st.text(), st.integers())
def test_scrambling_keeps_the_letters_and_the_ends_of_each_word(text, seed):
    mixed = scramble(text, 1.0, random.Random(seed))
    words, others = re.findall(r"[^\W\d_]+", text), re.findall(r"[^\W\d_]+", mixed)
    assert [sorted(word) for word in words] == [sorted(word) for word in others]
    for word, other in zip(words, others, strict=True):
        assert (word[0], word[-1]) == (other[0], other[-1])
        assert len(word) > 3 or word == other


@given(st.text(), st.integers())
def test_capitals_change_nothing_but_case_and_noise_moves_by_one(text, seed):
    assert change_capitals(text, 1.0, random.Random(seed)).swapcase().isascii() == text.isascii()
    ascii_text = text.encode("ascii", "ignore").decode()
    changed = change_capitals(ascii_text, 0.5, random.Random(seed))
    assert changed.lower() == ascii_text.lower()
    noisy = add_noise(text, 1.0, random.Random(seed))
    for before, after in zip(text, noisy, strict=True):
        assert abs(ord(before) - ord(after)) == (1 if " " <= before <= "~" else 0)
        assert not " " <= before <= "~" or " " <= after <= "~"


def test_augmentations_come_with_their_probabilities():
    text, draw = "a" * 20_000, random.Random(1)
    capitals = change_capitals(text, 0.6, draw).count("A") / len(text)
    noise = 1 - add_noise(text, 0.06, draw).count("a") / len(text)
    words = "abcdefghij " * 2000
    mixed = sum(word != "abcdefghij" for word in scramble(words, 0.6, draw).split()) / 2000
    # Four standard deviations of each.
    assert abs(capitals - 0.6) < 0.014 and abs(noise - 0.06) < 0.007 and abs(mixed - 0.6) < 0.044


def test_without_augmentation_nothing_changes():
    settings = BestOfNSettings(samples=2, scramble=0, capitals=0, noise=0, temperature=1.0)
    asked, _ = chats("best_of_n", settings=AttackSettings(best_of_n=settings))
    assert [one.messages for one in asked] == [CASE.messages] * 2
    assert {one.temperature for one in asked} == {1.0}


@pytest.mark.parametrize("shots", [1, 16, 50])
def test_many_shots_are_turns_of_user_and_assistant_before_the_case_s_own(shots):
    settings = AttackSettings(many_shot=ManyShotSettings(shots=shots))
    (asked,), _ = chats("many_shot", settings=settings)
    roles = [message["role"] for message in asked.messages]
    assert roles == ["system", *["user", "assistant"] * (shots + 1), "user"]
    first = [message["content"] for message in asked.messages[1 : 2 * min(shots, 16) : 2]]
    assert len(set(first)) == min(shots, 16)  # none comes again before all have come


def test_shots_and_scenes_are_read_from_files(tmp_path):
    shots = tmp_path / "shots.jsonl"
    shots.write_text('{"prompt": "A?", "answer": "Yes."}\n')
    settings = AttackSettings(many_shot=ManyShotSettings(shots=2, examples=str(shots)))
    (asked,), _ = chats("many_shot", settings=settings)
    assert [message["content"] for message in asked.messages[1:5]] == ["A?", "Yes."] * 2
    scenes = tmp_path / "scenes.csv"
    scenes.write_text('name,template\nking,"The king asks {prompt} {loudly}"\n')
    settings = AttackSettings(role_play=RolePlaySettings(templates=str(scenes)))
    (asked,), _ = chats("role_play", settings=settings)
    assert asked.label == "king"
    assert asked.messages[-1]["content"] == f"The king asks {CASE.prompt} {{loudly}}"


@pytest.mark.parametrize(
    ("settings", "text", "message"),
    [
        ("many_shot", '{"prompt": "A?"}\n', r"line 1.*\{prompt, answer\}.*columns are prompt"),
        ("many_shot", "\n", "no rows"),
        ("role_play", '{"name": "a", "template": "b"}\n', r"'a' has no \{prompt\}"),
        ("role_play", "{", "line 1"),
    ],
)
def test_a_file_that_cannot_be_used_is_named_before_anything_is_asked(
    tmp_path, settings, text, message
):
    path = tmp_path / "rows.jsonl"
    path.write_text(text)
    sections = {
        "many_shot": ManyShotSettings(examples=str(path)),
        "role_play": RolePlaySettings(templates=str(path)),
    }
    with pytest.raises(UserError, match=message):
        make_attack(settings, AttackSettings(**{settings: sections[settings]}))


def test_each_scene_holds_the_prompt_once():
    asked, _ = chats("role_play")
    assert len({one.label for one in asked}) == len(asked) == 5
    assert all(one.messages[-1]["content"].count(CASE.prompt) == 1 for one in asked)


@pytest.mark.parametrize(
    ("name", "place"),
    [("prefill", "output"), ("prefill_first_step", "first_step"), ("prefill_answer", "answer")],
)
def test_prefills_stand_in_their_places_with_the_row_s_own_text(name, place):
    (asked,), _ = chats(name)
    assert (asked.messages, asked.place) == (CASE.messages, place)
    assert asked.prefill == PrefillSettings().text
    own = Case("1", "Hi", columns={"target": "Sure, here is a lock"})
    (asked,), _ = chats(name, own)
    assert asked.prefill == "Sure, here is a lock"
    assert asked.to_dict()["place"] == place
    needed = make_attack(name).NEEDS
    assert needed == {"prefill"}


def test_forged_tags_are_plain_text_to_the_tokenizer():
    """The rendered chats of a target hold no token of a tag, whatever the prompt holds."""
    tokenizer = byte_tokenizer()
    tags = {tokenizer.encode_answer(tag)[0] for tag in steps.TAGS}
    asked, _ = chats("forged_tags", Case("1", "Explain locks."))
    for one in asked:
        ids = encode_chat(tokenizer, one.messages)
        assert not tags & set(ids)
        assert one.messages[-1]["content"] in tokenizer.decode(ids)
    texts = {one.label: one.messages[-1]["content"] for one in asked}
    forged = texts["reasoning"].removeprefix("Explain locks.").strip()
    closed = f"{forged}\n{steps.format_output('No.')}"
    assert steps.is_well_formed(closed)  # it would be a reasoning, if tags counted
    assert texts["output"].startswith(texts["reasoning"])


def test_a_sweep_asks_the_plain_prompt_in_each_way_of_sampling():
    sweep = SweepSettings(temperatures=(0.5,), top_ps=(0.9, 0.7), samples=2)
    asked, _ = chats("decoding_sweep", settings=AttackSettings(sweep=sweep))
    assert all(one.messages == CASE.messages for one in asked)
    assert [(one.temperature, one.top_p) for one in asked] == [
        *[(0.5, 1.0)] * 2,
        *[(1.0, 0.9)] * 2,
        *[(1.0, 0.7)] * 2,
    ]
    assert asked[0].to_dict() == {
        "messages": [dict(message) for message in CASE.messages],
        "temperature": 0.5,
        "top_p": 1.0,
        "label": "temperature=0.5 top_p=1",
    }


def test_a_sweep_of_nothing_and_an_empty_prefill_are_refused():
    with pytest.raises(UserError, match="temperatures and top_ps are both empty"):
        SweepSettings((), ())
    with pytest.raises(UserError, match="text is empty"):
        PrefillSettings(" ")


def test_the_attack_that_the_documentation_adds_works():
    text = (ROOT / "docs/evaluation_attacks.md").read_text()
    (source,) = (
        block for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "class" in block
    )
    names = {"Rewriting": Rewriting, "random": random}
    exec(source, names)
    target = ScriptedTarget(lambda asked, key: asked.messages[-1]["content"][::-1])
    ((tried,),) = run_scripted([names["Backwards"]().task(CASE, Means(target))])
    assert tried.asked.messages[-1]["content"].endswith(".dekcip si kcol a woh nialpxE")
    assert tried.final == tried.asked.messages[-1]["content"]


def test_every_attack_is_in_the_documentation():
    text = (ROOT / "docs/evaluation_attacks.md").read_text()
    others = {"likelihoods", "weights"}  # of attacks by log-probabilities and gradients
    mine = [name for name, kind in ATTACKS.items() if not kind.NEEDS & others]
    assert [name for name in mine if f"`{name}`" not in text and f"`{name}:" not in text] == []


def test_an_unknown_name_is_refused_with_the_nearest_known_one():
    with pytest.raises(UserError, match="no attack 'base46': did you mean base64"):
        make_attack("base46")


def test_an_attack_is_known_by_its_name_and_by_what_its_files_say(tmp_path):
    identities = [str(make_attack(name).identity()) for name in ATTACKS if name != "stored"]
    assert len(set(identities)) == len(identities)
    path = tmp_path / "shots.jsonl"
    settings = AttackSettings(many_shot=ManyShotSettings(examples=str(path)))
    found = []
    for answer in ("Yes.", "No.", "Yes."):
        path.write_text(json.dumps({"prompt": "A?", "answer": answer}) + "\n")
        found.append(make_attack("many_shot", settings).identity())
    assert found[0] == found[2] != found[1]
    more = AttackSettings(best_of_n=BestOfNSettings(samples=5))
    assert make_attack("best_of_n", more).identity() != make_attack("best_of_n").identity()


def test_names_are_unique_and_those_of_their_classes():
    for name, kind in ATTACKS.items():
        assert name == kind.NAME
        assert name == "stored" or make_attack(name).name == name
        assert kind.__doc__
