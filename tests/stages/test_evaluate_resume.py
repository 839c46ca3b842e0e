"""An evaluation is gone on with by the same models, files and settings alone."""

import shutil

import pytest

from stair_jax import launch, storage
from stair_jax.errors import UserError
from stair_jax.models import huggingface
from stair_jax.settings import build
from stair_jax.stages import Evaluate, evaluate_parts
from stair_jax.testing.tiny_models import tiny_model
from stair_jax.testing.tiny_tokenizers import bpe_tokenizer

CONFIG = """
from ml_collections import ConfigDict


def get_config(inputs):
    return ConfigDict({
        "seed": 0,
        "stages": ("evaluate",),
        "runtime": {"slots": 4, "decoding_mesh": {}},
        "evaluate": {
            "checkpoints": (f"{inputs}/tiny",),
            "files": inputs,
            "benchmarks": ("xstest_unsafe",),
            "grading": {"rule_phrases": f"{inputs}/phrases.txt"},
            "labelled": {"refusal": f"{inputs}/labels.jsonl"},
            "max_tokens": 4,
            "context_tokens": 128,
        },
    })
"""


def save_model(folder, seed=0):
    tokenizer = bpe_tokenizer()
    config, params = tiny_model(tokenizer.vocab_size, seed, num_hidden_layers=1)
    huggingface.save(folder, params, config, tokenizer)


@pytest.fixture
def inputs(tmp_path):
    """A model, four prompts, phrases of refusals, labels, and the config of a run on them."""
    folder = tmp_path / "inputs"
    save_model(folder / "tiny")
    rows = [f"{n},Prompt {n}.,contrast_homonyms,x" for n in range(4)]
    (folder / "xstest_prompts.csv").write_text("\n".join(["id,prompt,type,focus", *rows]))
    (folder / "phrases.txt").write_text("^sorry\ni cannot\n")
    labels = [
        {"id": f"{n}", "prompt": "x", "answer": ["Sorry, no.", "Yes."][n % 2], "label": label}
        for n, label in enumerate(["full_refusal", "full_compliance"] * 2)
    ]
    storage.write_jsonl(folder / "labels.jsonl", labels)
    (folder / "config.py").write_text(CONFIG)
    return folder


@pytest.fixture
def run(inputs, tmp_path, monkeypatch, capsys):
    """`run(*flags)`: (exit status of `stair-jax run`, what it says on stderr)."""
    monkeypatch.setattr(launch.signal, "signal", lambda *args: None)

    def run(*flags):
        config = f"--config={inputs / 'config.py'}:{inputs}"
        command = ["stair-jax", "run", config, f"--workdir={tmp_path / 'work'}", *flags]
        return launch.main(command), capsys.readouterr().err

    return run


@pytest.fixture
def interrupted(run, tmp_path, monkeypatch):
    """A run that failed when all answers and verdicts were there; its answers."""

    def fail(*arguments):
        raise RuntimeError("the machine is off")

    with monkeypatch.context() as patch:
        patch.setattr(evaluate_parts, "write_report", fail)
        with pytest.raises(RuntimeError, match="the machine is off"):
            run()
    return (tmp_path / "work/evaluate/answers/tiny.greedy.jsonl").read_bytes()


def test_another_model_under_the_same_name_is_refused_and_the_first_goes_on(
    run, inputs, interrupted, tmp_path
):
    shutil.copytree(inputs / "tiny", inputs / "kept")
    save_model(inputs / "tiny", seed=1)
    status, said = run()
    assert status == 2
    assert f"the stage evaluate was started with another content of {inputs}/tiny" in said
    shutil.rmtree(inputs / "tiny")
    shutil.move(inputs / "kept", inputs / "tiny")
    status, said = run()
    assert status == 0
    assert (tmp_path / "work/evaluate/answers/tiny.greedy.jsonl").read_bytes() == interrupted
    save_model(inputs / "tiny", seed=1)
    status, said = run()
    assert status == 2
    assert f"the stage evaluate was finished with another content of {inputs}/tiny" in said
    assert run("--redo=evaluate", "--yes")[0] == 0
    assert (tmp_path / "work/evaluate/answers/tiny.greedy.jsonl").read_bytes() != interrupted


@pytest.mark.parametrize("state", ["started", "finished"])
def test_other_files_and_settings_are_refused_by_name(run, inputs, interrupted, state):
    if state == "finished":
        assert run()[0] == 0
    changes = {
        "xstest_unsafe": ("xstest_prompts.csv", b"Prompt", b"Request"),
        "grading.rule_phrases": ("phrases.txt", b"cannot", b"will not"),
        "labelled.refusal": ("labels.jsonl", b"Yes.", b"Well."),
    }
    for name, (file, old, new) in changes.items():
        before = (inputs / file).read_bytes()
        (inputs / file).write_bytes(before.replace(old, new))
        status, said = run()
        assert (status, f"was {state} with another content of {name} than" in said) == (2, True)
        (inputs / file).write_bytes(before)
    for flag, field in (
        ("max_tokens=5", "max_tokens"),
        ("limit=2", "limit"),
        ("dtype='bfloat16'", "dtype"),
        ("benchmarks=('xstest_unsafe:rot13',)", "benchmarks"),
    ):
        status, said = run(f"--config.evaluate.{flag}")
        assert (status, field in said) == (2, True)
    assert run()[0] == 0


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"checkpoints": ("{a}/tiny", "{b}/tiny")}, "two models have the name 'tiny'"),
        (
            {"checkpoints": ("{a}/tiny",), "models": ("tiny",)},
            "two models have the name 'tiny' in the table, the stage tiny and ",
        ),
        (
            {"models": ("tiny",), "searched_checkpoint": "{a}/tiny", "methods": ("best_of_n",)},
            "two models have the name 'tiny' in the table, the stage tiny and ",
        ),
        (
            {"prompted": "gpt", "endpoint": {"model": "gpt", "base_url": "http://x/v1"}},
            "two models have the name 'gpt' in the table",
        ),
        ({"checkpoints": ("{a}/tiny", "{a}/tiny/hf")}, "'tiny' answers by the method greedy twice"),
        ({"models": ("a", "a")}, "'a' answers by the method greedy twice"),
        ({"graders": ("rule", "rule")}, "graders names 'rule' twice"),
        ({"graders": ("m", "model:m")}, "graders names 'model:m' twice"),
        ({"labelled": {"refusals": "x"}}, "labelled names 'refusals': did you mean refusal"),
    ],
)
def test_answers_and_verdicts_of_two_never_have_one_name(settings, said, tmp_path):
    places = {"a": tmp_path / "a", "b": tmp_path / "b"}
    for place in places.values():
        (place / "tiny/hf").mkdir(parents=True)

    def filled(value):
        if isinstance(value, str):
            return value.format(**places)
        return tuple(map(filled, value)) if isinstance(value, tuple) else value

    base = {"files": str(tmp_path), "benchmarks": ("gsm8k",), "prm": "prm"}
    with pytest.raises(UserError, match=said):
        build(Evaluate, base | {name: filled(value) for name, value in settings.items()}, "x")


def test_one_model_may_answer_by_several_methods(tmp_path):
    (tmp_path / "tiny/hf").mkdir(parents=True)
    settings = {
        "files": str(tmp_path),
        "benchmarks": ("gsm8k",),
        "checkpoints": (f"{tmp_path}/tiny",),
        "prompted_checkpoint": f"{tmp_path}/tiny/hf",
        "searched_checkpoint": f"{tmp_path}/tiny",
        "methods": ("best_of_n", "beam_search_self_reward"),
        "prm_checkpoint": "somewhere",
    }
    rows = build(Evaluate, settings, "x").rows
    assert {row.model for row in rows} == {"tiny"} and len(rows) == 4
