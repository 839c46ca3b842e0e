"""The configs can be run, say how, and have the numbers of the paper."""

import dataclasses
import inspect
import re
from pathlib import Path

import pytest
from stair_jax.graph import leaves, make_graph
from stair_jax.stages.runtime import Runtime

import stair_jax
from stair_jax.inference.candidates import TestTimeSettings
from stair_jax.launch import parse
from stair_jax.models.known import KNOWN
from stair_jax.parallel.mesh import MeshShape
from stair_jax.search.actor import SamplingSettings
from stair_jax.search.judge import JudgeSettings
from stair_jax.search.preferences import PrmSettings as PrmPairSettings
from stair_jax.search.preferences import StepSettings
from stair_jax.search.reward import SafetyReward
from stair_jax.search.runner import SearchSettings
from stair_jax.search.tree_data import SearchConfig
from stair_jax.stages.dpo import DpoSettings
from stair_jax.stages.evaluate import EvaluateSettings
from stair_jax.stages.export import ExportSettings
from stair_jax.stages.files import FilesSettings
from stair_jax.stages.model import ModelSettings
from stair_jax.stages.pocket import PocketSettings
from stair_jax.stages.preferences import PreferencesSettings
from stair_jax.stages.pretrain import PretrainSettings
from stair_jax.stages.prm import PrmSettings
from stair_jax.stages.search import SearchStageSettings
from stair_jax.stages.sft import SftSettings
from stair_jax.training.settings import TrainingSettings

ROOT = Path(stair_jax.__file__).parents[1]
CONFIGS = sorted(path for path in (ROOT / "configs").glob("*.py") if path.stem != "recipe")
REAL = [path for path in CONFIGS if not path.stem.startswith("pocket")]

# The settings that read each section of a config, those of its own class first.
SECTIONS = {
    "runtime": (Runtime,),
    "runtime.training_mesh": (MeshShape,),
    "runtime.decoding_mesh": (MeshShape,),
    "pocket": (PocketSettings,),
    "files": (FilesSettings,),
    "model": (ModelSettings,),
    "export": (ExportSettings,),
    "pretrain": (PretrainSettings, TrainingSettings),
    "sft": (SftSettings, TrainingSettings),
    "dpo": (DpoSettings, TrainingSettings),
    "prm": (PrmSettings, TrainingSettings),
    "search": (SearchStageSettings, SearchSettings, SearchConfig, SamplingSettings),
    "search.judge": (JudgeSettings,),
    "search.reward": (SafetyReward,),
    "preferences": (PreferencesSettings, StepSettings),
    "preferences.prm": (PrmPairSettings,),
    "evaluate": (EvaluateSettings,),
    "evaluate.judge": (JudgeSettings,),
    "evaluate.test_time": (TestTimeSettings,),
}


def config_of(path):
    return parse(["stair-jax", f"--config={path}", "--workdir=unused"])[0]


def explained(cls):
    """The names in the Attributes of the docstring of a class itself."""
    attributes = inspect.cleandoc(cls.__doc__).partition("Attributes:\n")[2]
    return re.findall(r"^ {2,4}(\w+): ", attributes, re.MULTILINE)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_config_is_a_list_of_stages_with_known_fields(path):
    config = config_of(path)
    graph = make_graph(config)
    assert graph
    for stage in graph:
        for field in leaves(stage.settings):
            section, _, name = f"{stage.kind}.{field}".rpartition(".")
            known = [f.name for cls in SECTIONS.get(section, ()) for f in dataclasses.fields(cls)]
            is_inside = section.startswith("sft.rates")  # names of kinds
            assert name in known or is_inside, f"{section}.{name}"


@pytest.mark.parametrize("section", SECTIONS)
def test_every_field_is_explained_once(section):
    """In the docstring of the class that has it, or of the one that it inherits it from."""
    for cls in SECTIONS[section]:
        own = [f.name for f in dataclasses.fields(cls)]
        found = [name for base in cls.__mro__ if base.__doc__ for name in explained(base)]
        repeated = {name for name in found if found.count(name) > 1}
        assert set(own) <= set(found), cls
        assert not repeated - set(explained(cls)), (cls, repeated)


def test_the_page_of_the_configuration_names_what_there_is():
    page = (ROOT / "docs/configuration.md").read_text()
    for classes in SECTIONS.values():
        for cls in classes:
            assert f"`{cls.__name__}`" in page, cls
    for path in re.findall(r"\]\(\.\./(\S+?)\)", page):
        assert (ROOT / path).exists(), path


@pytest.mark.parametrize("path", REAL, ids=lambda path: path.stem)
def test_the_docstring_of_a_config_holds_its_commands(path):
    text = path.read_text().partition('"""\n\nimport')[0]
    assert f"--config=configs/{path.name} --workdir=" in text
    assert f"--config=configs/{path.name} --plan=v5p:2x2x1" in text
    assert "--config.runtime.decoding_mesh.tensor=1" in text  # a host with GPUs


@pytest.mark.parametrize("path", REAL, ids=lambda path: path.stem)
def test_real_models_have_the_numbers_of_the_paper(path):
    config = config_of(path)
    assert config.model.architecture in KNOWN
    for kind, batch_size, epochs in (("sft", 128, 3.0), ("dpo", 128, 1.0), ("prm", 256, 1.0)):
        section = config[kind]
        assert (section.batch_size, section.epochs) == (batch_size, epochs)
        assert (section.warmup_ratio, section.weight_decay) == (0.1, 0.0)
        assert section.learning_rate in (5e-7, 1e-6, 5e-6)
    assert config.prm.learning_rate == 5e-6
    assert config.dpo.beta in (0.1, 0.2, 0.4) and config.dpo.sft_weight == 0.2
    search = config.search
    assert (search.num_iterations, search.num_children, search.max_depth) == (200, 4, 7)
    assert (search.c, search.temperature, search.top_p, search.top_k) == (1.5, 1.2, 0.9, 50)
    assert (search.judge.mode, search.judge.temperature) == ("generative", 0.6)
    assert (config.preferences.v0, config.preferences.v1) == (0.5, 0.8)
    assert config.preferences.min_visits == 4


@pytest.mark.parametrize("model", ["llama8b", "qwen2_7b"])
def test_one_run_does_what_the_single_ones_do(model):
    kinds = [s.kind for s in make_graph(config_of(ROOT / f"configs/{model}_stair.py"))]
    iteration = ["search", "preferences", "dpo"]
    assert kinds == ["files", "model", "sft", *3 * iteration, "prm", "export", "export"]
    single = [ROOT / f"configs/{model}_{part}.py" for part in ("sft", "iter1", "iter3", "prm")]
    ends = [make_graph(config_of(path))[-1].kind for path in single]
    assert ends == ["sft", "dpo", "dpo", "prm"]
