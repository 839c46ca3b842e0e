"""The configs can be run, say how, and have the numbers of the paper."""

import inspect
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

import stair_jax
from stair_jax import storage
from stair_jax.commands.config_file import load_config
from stair_jax.errors import UserError
from stair_jax.models.huggingface.known_configs import KNOWN
from stair_jax.recipes import RECIPES
from stair_jax.run.override import Override
from stair_jax.run.run_config import read_config, section_classes
from stair_jax.settings import default_of, describe, mapping_values, nested_settings, type_hints
from stair_jax.stages import STAGES

ROOT = Path(stair_jax.__file__).parents[1]
CONFIGS = sorted((ROOT / "configs").glob("*.py"))
MODELS = ("llama8b", "qwen2_7b")  # those of the paper
REAL = [path for path in CONFIGS if path.stem.startswith(MODELS)]
LORA = [name for name in RECIPES if name.endswith("_lora")]
GPUS = ("24", "48", "80")  # GB
SECTIONS = section_classes(STAGES)


def nested_classes(cls):
    """A class of settings, and those that its fields hold."""
    found = [cls]
    for name, hint in type_hints(cls).items():
        if name in cls.__dataclass_fields__ and (inner := nested_settings(hint)):
            found += nested_classes(inner)
    return found


CLASSES = list(dict.fromkeys(each for cls in SECTIONS.values() for each in nested_classes(cls)))


def run_of(path):
    return read_config(load_config(str(path)), STAGES)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_the_settings_that_a_run_writes_are_a_config_of_the_same_run(path, tmp_path):
    run = run_of(path)
    storage.write_json(tmp_path / "config.json", run.effective())
    again = run_of(tmp_path / "config.json")
    assert again.effective() == run.effective()
    assert [entry.stage for entry in again.stages] == [entry.stage for entry in run.stages]


def stage_of(path, kind):
    """The settings of a kind, also where the run has no such stage."""
    config = load_config(str(path)).to_dict()
    return {
        **{f.name: default_of(f) for f in STAGES[kind].__dataclass_fields__.values()},
        **config[kind],
    }


def explained(cls):
    """The names in the Attributes of the docstring of a class itself."""
    attributes = inspect.cleandoc(cls.__doc__).partition("Attributes:\n")[2]
    return re.findall(r"^ {2,4}(\w+): ", attributes, re.MULTILINE)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_config_is_a_list_of_stages_with_known_fields(path):
    assert run_of(path).stages
    assert path.stem in RECIPES


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_every_field_is_explained_once(cls):
    """In the docstring of the class that has it, or of the one that it inherits it from."""
    own = [info.name for info in fields(cls)]
    found = [name for base in cls.__mro__ if base.__doc__ for name in explained(base)]
    repeated = {name for name in found if found.count(name) > 1}
    assert set(own) <= set(found), cls
    assert not repeated - set(explained(cls)), (cls, repeated)
    assert all(field.text for field in describe(cls))


def values_for(hint: Any, default: Any) -> tuple[str, str]:
    """A text that a field of this type takes, its default as it would be typed; and a wrong one."""
    wrong = {float: "many", int: "1.5", bool: "maybe"}
    if isinstance(default, tuple):
        return repr(default), "(1, 'many')" if float in _parts(hint) else "(1, 2.5)"
    if mapping_values(hint) is not None:
        return ("None" if default is None else repr(default)), "[1]"
    text = str(default)
    return text, next((w for kind, w in wrong.items() if kind in (hint, *_parts(hint))), "")


def _parts(hint: Any) -> tuple[Any, ...]:
    return getattr(hint, "__args__", ())


def all_fields():
    """(section, dotted field) of every field of every section."""
    return [(section, field) for section, cls in SECTIONS.items() for field in describe(cls)]


@pytest.mark.parametrize(
    ("section", "field"), all_fields(), ids=lambda value: getattr(value, "name", value)
)
def test_every_field_can_be_set_and_a_wrong_type_is_refused(section, field):
    """Its default, typed on the command line, is taken; text for a number and the like is not."""
    cls, hint = SECTIONS[section], None
    for name in field.name.split("."):
        info, hint = cls.__dataclass_fields__[name], type_hints(cls)[name]
        cls = nested_settings(hint) or cls
    default = default_of(info)
    right, wrong = values_for(hint, default)
    base = {"stages": ("pocket",)}
    flag = f"--config.{section}.{field.name}"
    read_config(base, STAGES, [Override(f"{section}.{field.name}", right, flag)])
    nested: dict[str, Any] = {}
    inner = nested
    *path, last = field.name.split(".")
    for name in path:
        inner[name] = inner = {}
    for odd in (object(), [object()], {"x": object()}):
        if hint is Any or (isinstance(odd, dict) and mapping_values(hint) is Any):
            continue
        inner[last] = odd
        with pytest.raises(UserError, match=re.escape(f"config.{section}.{field.name}")):
            read_config({**base, section: nested}, STAGES)
    if wrong or field.rule.choices:
        text = wrong or "no such choice"
        with pytest.raises(UserError, match=last):
            read_config(base, STAGES, [Override(f"{section}.{field.name}", text, flag)])


def test_the_page_of_the_configuration_names_what_there_is():
    page = (ROOT / "docs/configuration.md").read_text()
    for cls in CLASSES:
        assert f"`{cls.__name__}`" in page, cls
    for path in re.findall(r"\]\(\.\./(\S+?)\)", page):
        assert (ROOT / path).exists(), path


@pytest.mark.parametrize("path", REAL, ids=lambda path: path.stem)
def test_the_docstring_of_a_config_holds_its_commands(path):
    text = path.read_text().partition('"""\n\nfrom')[0]
    argument, plan = (":24", "rtx4090:1") if path.stem in LORA else ("", "v5p:2x2x1")
    assert f"--config=configs/{path.name}{argument} --workdir=" in text
    assert f"--config=configs/{path.name}{argument} --plan={plan}" in text


@pytest.mark.parametrize("path", REAL, ids=lambda path: path.stem)
def test_real_models_have_the_numbers_of_the_paper(path):
    model, sft, dpo, prm, search, pairs = (
        stage_of(path, kind) for kind in ("model", "sft", "dpo", "prm", "search", "preferences")
    )
    assert model["architecture"] in KNOWN
    for section, batch_size, epochs in ((sft, 128, 3.0), (dpo, 128, 1.0), (prm, 256, 1.0)):
        assert (section["batch_size"], section["epochs"]) == (batch_size, epochs)
        assert (section["warmup_ratio"], section["weight_decay"]) == (0.1, 0.0)
        full = section["learning_rate"] / (10 if path.stem in LORA else 1)
        assert full in (5e-7, pytest.approx(1e-6), pytest.approx(5e-6))
    assert prm["learning_rate"] == (5e-5 if path.stem in LORA else 5e-6)
    assert dpo["beta"] in (0.1, 0.2, 0.4) and dpo["sft_weight"] == 0.2
    assert (search["num_iterations"], search["num_children"], search["max_depth"]) == (200, 4, 7)
    sampling = ("c", "temperature", "top_p", "top_k")
    assert tuple(search[name] for name in sampling) == (1.5, 1.2, 0.9, 50)
    assert (search["judge"]["mode"], search["judge"]["temperature"]) == ("generative", 0.6)
    assert (pairs["v0"], pairs["v1"], pairs["min_visits"]) == (0.5, 0.8, 4)


@pytest.mark.parametrize("model", MODELS)
def test_one_run_does_what_the_single_ones_do(model):
    kinds = [entry.kind for entry in run_of(ROOT / f"configs/{model}_stair.py").stages]
    iteration = ["search", "preferences", "dpo"]
    assert kinds == ["files", "model", "sft", *3 * iteration, "prm", "export", "export"]
    lora = run_of(ROOT / f"configs/{model}_lora.py").stages
    assert [entry.kind for entry in lora] == kinds
    single = [ROOT / f"configs/{model}_{part}.py" for part in ("sft", "iter1", "iter3", "prm")]
    ends = [run_of(path).stages[-1].kind for path in single]
    assert ends == ["sft", "dpo", "dpo", "prm"]


PAPER = [name for name in RECIPES if name not in LORA and name.startswith(MODELS)]


@pytest.mark.parametrize("recipe", PAPER)
def test_recipes_leave_meshes_and_sizes_to_the_devices(recipe):
    config = load_config(recipe)
    run = read_config(config, STAGES)
    assert run.runtime.training_mesh is None and run.runtime.decoding_mesh is None
    assert (run.runtime.slots, run.runtime.trees_in_flight) == (0, 0)
    assert config.sft.microbatch_rows == config.dpo.microbatch_rows == 0


@pytest.mark.parametrize("recipe", LORA)
@pytest.mark.parametrize("memory", GPUS)
def test_on_one_gpu_every_stage_that_trains_has_the_same_adapters(recipe, memory):
    """So each goes on with those of the stage before; what is not one of them is as in `_stair`."""
    run = read_config(load_config(f"{recipe}:{memory}"), STAGES)
    trained = [entry.stage for entry in run.stages if entry.kind in ("sft", "dpo", "prm")]
    assert len(trained) == 5 and all(stage.lora == trained[0].lora for stage in trained)
    assert trained[0].lora.adapters and not trained[0].lora.stack
    assert {stage.param_dtype for stage in trained} == {"bfloat16"}
    whole = load_config(recipe.replace("_lora", "_stair"))
    for name in ("files", "model", "preferences", "export", "runtime", "stages"):
        assert load_config(recipe)[name] == whole[name]


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ("llama8b_lora:32", "no config for a GPU of '32' GB: name the next smaller one of 24, 48"),
        (str(ROOT / "configs/qwen2_7b_lora.py:") + "H100", "no config for a GPU of 'H100' GB"),
        ("llama8b_stair:24", "the recipe llama8b_stair has no argument: leave out :24"),
    ],
)
def test_an_argument_that_cannot_be_is_one_line(config, said):
    with pytest.raises(UserError, match=said):
        load_config(config)


@pytest.mark.parametrize("recipe", LORA)
def test_the_smallest_gpu_is_the_default(recipe):
    assert load_config(recipe) == load_config(f"{recipe}:24")
    assert load_config(str(ROOT / f"configs/{recipe}.py:80")) == load_config(f"{recipe}:80")
