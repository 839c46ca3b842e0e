"""Our models inside of lm-eval give what its own models of transformers give."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from stair_jax.errors import UserError
from stair_jax.text import steps
from stair_jax.text.chat_settings import ChatSettings

_REASON = "lm-eval, of the extra eval, is not installed"
Instance = pytest.importorskip("lm_eval.api.instance", reason=_REASON).Instance
HFLM = pytest.importorskip("lm_eval.models.huggingface").HFLM
StairJaxLM = pytest.importorskip("stair_jax.adapters.lm_eval_model").StairJaxLM

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
TEXTS = [
    ("The first step", " is an analysis"),
    ("The first step ", "is"),
    ("", "The user asks"),
    ("<|begin_of_text|>The", " problem."),
    ("x" * 140, " and more"),  # longer than the context
]
LONG = "The first step is an analysis of the problem. " * 30


def requests(kind, arguments):
    return [Instance(kind, {}, each, number) for number, each in enumerate(arguments)]


@pytest.fixture(scope="module")
def ours(checkpoint):
    return StairJaxLM(str(checkpoint), max_gen_toks=24)


@pytest.fixture(scope="module")
def theirs(checkpoint):
    return HFLM(str(checkpoint), device="cpu", dtype="float32", batch_size=2, max_length=128)


def test_log_likelihoods_are_those_of_transformers(ours, theirs):
    greedy = theirs.generate_until(
        requests("generate_until", [("The first step", {"until": [], "max_gen_toks": 3})])
    )
    texts = [*TEXTS, ("The first step", greedy[0])]
    found = ours.loglikelihood(requests("loglikelihood", texts))
    expected = theirs.loglikelihood(requests("loglikelihood", texts))
    for (value, is_greedy), (near, is_near_greedy) in zip(found, expected, strict=True):
        assert value == pytest.approx(near, abs=1e-4)
        assert is_greedy == is_near_greedy


def test_rolling_log_likelihoods_are_those_of_transformers(ours, theirs):
    texts = [("The user asks.",), (LONG,), ("",)]
    assert len(ours.tok_encode(LONG)) > 2 * ours.max_length
    found = ours.loglikelihood_rolling(requests("loglikelihood_rolling", texts))
    expected = theirs.loglikelihood_rolling(requests("loglikelihood_rolling", texts))
    assert found == pytest.approx(expected, abs=1e-3)
    assert found[0] == pytest.approx(expected[0], abs=1e-4) and found[1] < found[0]


def test_greedy_samples_are_those_of_transformers_up_to_a_stop_text(checkpoint, theirs):
    ours = StairJaxLM(str(checkpoint), keep_reasoning=True)
    plain = {"until": [], "max_gen_toks": 20, "do_sample": False}
    contexts = ["The first", "user", "x" * 150]
    whole = theirs.generate_until(requests("generate_until", [(c, plain) for c in contexts]))
    assert ours.generate_until(requests("generate_until", [(c, plain) for c in contexts])) == whole
    stops = [text[6:8] for text in whole]
    arguments = [(c, {**plain, "until": [s]}) for c, s in zip(contexts, stops, strict=True)]
    cut = ours.generate_until(requests("generate_until", arguments))
    assert cut == [text.split(stop)[0] for text, stop in zip(whole, stops, strict=True)]


def test_a_sample_ends_where_its_stop_text_comes_up(ours):
    engine = ours.model.sampling()._services[""]
    (whole,) = ours.generate_until(
        requests("generate_until", [("The first", {"until": [], "max_gen_toks": 90})])
    )
    before = engine.stats.generated
    arguments = [("The first", {"until": [whole[:1]], "max_gen_toks": 90})]
    assert ours.generate_until(requests("generate_until", arguments)) == [""]
    assert engine.stats.generated - before < 60 and not engine.pending


def test_of_a_structured_answer_the_output_block_is_the_sample(ours, checkpoint, monkeypatch):
    text = steps.format_answer([("Look", "no stop\nhere")], "yes\nno")
    tokens = ours.tokenizer.encode(text, add_special_tokens=False)
    assert ours._text(tokens, ["\n"]) == "yes"
    assert (
        ours._text(
            tokens[: tokens.index(ours.tokenizer.convert_tokens_to_ids("<|Output|>"))], ["\n"]
        )
        == ""
    )
    assert ours._text(ours.tokenizer.encode(" a plain one\n"), ["\n"]) == " a plain one"
    kept = StairJaxLM(str(checkpoint), keep_reasoning=True)
    assert kept._text(tokens, []) == text


def test_stop_texts_inside_of_reasoning_end_nothing(ours):
    generation = ours._generation(0, "a", {"until": ["stop"]})
    reasoning = steps.format_step("A", "stop") + "\n\n"
    for text, is_over in ((reasoning, False), ("<|Output|>Final Answer: ", False), ("stop", True)):
        generation.hear((), tuple(ours.tokenizer.encode(text, add_special_tokens=False)))
        generation.advance()
        assert generation.done == is_over


def test_chats_are_those_of_transformers_with_the_checkpoints_system_turn(
    ours, theirs, checkpoint, tmp_path
):
    chat = [
        {"role": "user", "content": "Is it safe?"},
        {"role": "assistant", "content": "yes"},
        {"role": "user", "content": "Why?"},
    ]
    assert ours.apply_chat_template(chat) == theirs.apply_chat_template(chat)
    left_open = [*chat, {"role": "assistant", "content": "Since"}]
    assert ours.apply_chat_template(left_open, False) == theirs.apply_chat_template(
        left_open, False
    )
    assert ours.apply_chat_template(left_open, False).endswith("Since")
    (tmp_path / "hf").mkdir()
    for file in checkpoint.iterdir():
        (tmp_path / "hf" / file.name).write_bytes(file.read_bytes())
    ChatSettings("Be brief.", {}).save(tmp_path / "hf")
    brief = StairJaxLM(str(tmp_path / "hf"))
    system = {"role": "system", "content": "Be brief."}
    assert brief.apply_chat_template(chat) == theirs.apply_chat_template([system, *chat])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"until": [], "num_beams": 4}, "num_beams=4 is not known to stair_jax"),
        ({"until": [], "max_gen_toks": 128}, "max_gen_toks is 128, and max_length 128"),
        ({"until": [], "do_sample": True, "temperature": 0.5, "top_p": 2}, "top_p must be in"),
    ],
)
def test_generation_settings_that_cannot_be_are_named(ours, settings, message):
    with pytest.raises(UserError, match=message):
        ours.generate_until(requests("generate_until", [("a", settings)]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "pretrained is missing"),
        ({"pretrained": "pocket", "max_lenght": 8}, "no 'max_lenght': did you mean max_length"),
        ({"pretrained": "pocket", "dtype": "int3"}, "model_args.dtype"),
        ({"pretrained": "/nowhere"}, "/nowhere"),
    ],
)
def test_arguments_that_cannot_be_are_named(arguments, message):
    with pytest.raises(UserError, match=message):
        StairJaxLM(**arguments)


def test_the_command_line_evaluates_local_tasks_offline(
    checkpoint, task_folder, theirs, tmp_path, monkeypatch
):
    """As lm-eval does with its own model, for each kind of request."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "HF_HOME": str(tmp_path / "hf_home"),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "HF_DATASETS_OFFLINE": "1",
        "HF_HUB_OFFLINE": "1",
        "JAX_PLATFORMS": "cpu",
    }
    names = ["tiny_choices", "tiny_rolling", "tiny_samples"]
    command = [
        *(sys.executable, "-m", "stair_jax.adapters.lm_eval_model", "--model", "stair_jax"),
        *("--model_args", f"pretrained={checkpoint},keep_reasoning=True", "--tasks"),
        *(",".join(names), "--include_path", str(task_folder), "--apply_chat_template"),
        *("--output_path", str(tmp_path / "out"), "--device", "cpu", "--batch_size", "2"),
    ]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr[-3000:]
    (file,) = (tmp_path / "out").rglob("results_*.json")
    ours = json.loads(file.read_text())["results"]
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "datasets")
    tasks = pytest.importorskip("lm_eval.tasks").TaskManager(include_path=str(task_folder))
    evaluate = pytest.importorskip("lm_eval").simple_evaluate
    options = {"task_manager": tasks, "apply_chat_template": True, "bootstrap_iters": 0}
    expected = evaluate(theirs, tasks=names, **options)
    assert ours.keys() == expected["results"].keys() == set(names)
    for name in names:
        row = expected["results"][name]
        numbers = {key: value for key, value in row.items() if isinstance(value, float)}
        assert numbers
        for key, value in numbers.items():
            assert ours[name][key] == pytest.approx(value, rel=1e-4)


def test_the_command_line_says_what_is_wrong_in_one_line(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path))  # none is set up

    def fail():
        raise UserError("no such\nfolder")

    monkeypatch.setattr("lm_eval.__main__.cli_evaluate", fail)
    with pytest.raises(SystemExit) as end:
        pytest.importorskip("stair_jax.adapters.lm_eval_model").main()
    assert end.value.code == 2 and capsys.readouterr().err == "error: no such folder\n"
