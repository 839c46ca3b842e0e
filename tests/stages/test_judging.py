"""Searches whose answers are judged by others than the policy."""

from dataclasses import replace

import jax
import pytest

from stair_jax import storage
from stair_jax.errors import UserError
from stair_jax.models import huggingface
from stair_jax.models.heads import init_score_head
from stair_jax.models.lora import Lora
from stair_jax.models.transformer import init_params
from stair_jax.record_log import RecordLog
from stair_jax.run.context import PlanContext, StageContext
from stair_jax.run.runtime import Runtime
from stair_jax.settings import build
from stair_jax.stages import Search
from stair_jax.stages.search_parts import TREES_FILE
from stair_jax.testing.fake_endpoint import Act, FakeEndpoint, reply_of
from stair_jax.testing.tiny_models import tiny_model
from stair_jax.testing.tiny_tokenizers import bpe_tokenizer, word_tokenizer

SETTINGS = {
    "model": "base",
    "prompts": "data",
    "file": "prompts.jsonl",
    "context_tokens": 128,
    "num_iterations": 12,
    "num_children": 3,
    "max_depth": 3,
    "max_step_tokens": 24,
    "max_answer_tokens": 40,
}
JUDGE = {
    "probe": "",  # of random weights
    "helpfulness_prompts": ("helpfulness", "safety"),
    "mode": "expected",
    "fence": False,
    "helpfulness_template": "rate {prompt} : {answer}",
    "safety_template": "safe {prompt} : {answer}",
    "safety_score": "expected",
    "malformed": 0.0,
}
# Random words have no labels whose first tokens differ.
GENERATIVE = {"source": "model", "mode": "generative", "ask_closing": False}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """Folders of a policy of few words, of another model and a reward model, and of prompts."""
    root = tmp_path_factory.mktemp("inputs")
    small, large = word_tokenizer(["1", "2", "3", "rate", "safe"]), bpe_tokenizer()
    for name, tokenizer in (("base", small), ("judge", large), ("prm", large)):
        changes = {"num_hidden_layers": 1, "initializer_range": 0.3}
        config, params = tiny_model(tokenizer.vocab_size, **changes)
        head = init_score_head(config, jax.random.key(1)) if name == "prm" else None
        huggingface.save(root / name / "hf", params, config, tokenizer, score_head=head)
    rows = [
        {"id": f"p{i}", "prompt": f"{i} 2 1", "kind": kind, "source": "test", "reference": i}
        for i, kind in enumerate(["safety", "helpfulness"] * 2)
    ]
    storage.write_jsonl(root / "data" / "prompts.jsonl", rows)
    folders = {"model": "base", "prompts": "data", "judge_model": "judge", "judge_prm": "prm"}
    return {field: root / name for field, name in folders.items()}


@pytest.fixture
def search(run_stage, inputs, tmp_path):
    """`search(judge, stage=..., ...)`: the judgements of all trees of a search."""

    def run(judge, folder="search", **settings):
        section = SETTINGS | settings | {"judge": JUDGE | judge}
        used = {field: path for field, path in inputs.items() if section.get(field)}
        made = run_stage(Search, section, tmp_path / folder, used, slots=8, trees_in_flight=4)
        records = {record["id"]: record for record in RecordLog(made / TREES_FILE).read()}
        return {
            name: [e for node in record["nodes"] for e in node["judgements"]]
            for name, record in records.items()
        }

    return run


def scores(judgements, question):
    return {
        entry[question]
        for entries in judgements.values()
        for entry in entries
        if "malformed" not in entry
    }


@pytest.mark.slow
def test_a_frozen_model_with_a_tokenizer_of_its_own_judges(search, inputs):
    by_stage = search({"source": "model"}, judge_model="judge")
    found = scores(by_stage, "safety") | scores(by_stage, "helpfulness")
    assert len(found) > 2 and all(-1 < score < 1 for score in found)
    folder = str(inputs["judge_model"] / "hf")
    by_folder = search({"source": "model"}, folder="again", judge_checkpoint=folder)
    assert by_folder == by_stage


def test_a_reward_model_judges(search, inputs):
    judge = {"source": "prm", "prm_scale": 2.0}
    judgements = search(judge, judge_prm="prm")
    found = scores(judgements, "safety")
    assert found == scores(judgements, "helpfulness")
    assert len(found) > 2 and all(-1 < score < 1 for score in found)
    folder = str(inputs["judge_prm"] / "hf")
    assert search(judge, folder="again", judge_prm_checkpoint=folder) == judgements


def test_rules_and_references_need_no_model(search):
    judge = {"source": "rule,reference", "safety_prompts": ("safety",)}
    judgements = search(judge)
    assert scores(judgements, "safety") <= {1.0, -1.0}
    assert {-1.0} <= scores(judgements, "helpfulness") <= {1.0, -1.0}


def test_an_endpoint_judges_and_is_asked_nothing_twice(search):
    def script(number, body):
        reply = reply_of(body)
        asks_safety = body["messages"][0]["content"].startswith("safe")
        reply["choices"][0]["message"]["content"] = "SAFE" if asks_safety else "4"
        return Act(body=reply)

    with FakeEndpoint(script) as server:
        endpoint = {"base_url": server.base_url, "model": "fake", "max_requests": 500}
        judge = {"source": "endpoint", "endpoint": endpoint}
        judgements = search(judge)
        asked = len(server.calls)
        assert scores(judgements, "safety") == {1.0} and asked > 4
        assert scores(judgements, "helpfulness") == {0.5}
        assert search(judge) == judgements and len(server.calls) == asked


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"judge": {"source": "model"}}, "judge.source names 'model': name a stage in judge_model"),
        ({"judge": {"source": "prm"}}, "name a stage in judge_prm, or a folder or hub id in"),
        ({"judge_model": "judge"}, "judge_model is set, and judge.source does not name 'model'"),
        (
            {
                "judge": {"source": "model"},
                "judge_model": "judge",
                "judge_checkpoint": "owner/name",
            },
            "judge_model and judge_checkpoint are both set: name one of them",
        ),
    ],
)
def test_a_source_and_its_model_go_together(settings, message):
    with pytest.raises(UserError, match=message):
        build(Search, SETTINGS | settings, "config.search")


def test_what_an_endpoint_or_a_checkpoint_lacks_is_said_before_the_run(tmp_path):
    stage = build(Search, SETTINGS | {"judge": {"source": "endpoint"}}, "config.search")
    with pytest.raises(UserError, match=r"judge.endpoint.base_url is empty"):
        stage.check_environment(tmp_path)
    settings = {"judge": {"source": "model"}, "judge_checkpoint": str(tmp_path)}
    with pytest.raises(UserError, match=r"config.json"):
        build(Search, SETTINGS | settings, "config.search").check_environment(tmp_path)


def test_checkpoints_that_judge_are_sources_of_the_stage(inputs):
    folder = inputs["judge_model"] / "hf"
    settings = {"judge": {"source": "model"}, "judge_checkpoint": str(folder)}
    (files,) = build(Search, SETTINGS | settings, "config.search").sources().values()
    assert {path.name for path in files} >= {"config.json", "model.safetensors", "tokenizer.json"}


def test_a_plan_has_the_programs_of_all_that_judges(inputs):
    models = {
        field: (huggingface.load_config(inputs[field] / "hf"),)
        for field in ("model", "judge_model", "judge_prm")
    }
    device = jax.devices()[:1]
    context = PlanContext("search", Runtime(slots=8), device, device, models)
    plain = build(Search, SETTINGS, "config.search").programs(context)
    settings = {"judge": {"source": ("prm", "model")}, "judge_model": "a", "judge_prm": "b"}
    stage = build(Search, SETTINGS | settings, "config.search")
    programs = stage.programs(context)
    stage.check_devices(context)
    assert len(programs) == 2 * len(plain) + 1
    names = [program.name for program in programs]
    assert sum(name.startswith("decode") for name in names) == 2
    assert sum(name.startswith("PRM score") for name in names) == 1


@pytest.fixture(scope="module")
def adapted(inputs):
    """Folders of two models that are adapters of the base."""
    base = inputs["model"] / "hf"
    config = replace(huggingface.load_config(base), lora=Lora(2, 1.0))
    params = init_params(config, jax.random.key(0))
    tokenizer = word_tokenizer(["1", "2", "3", "rate", "safe"])
    folders = [base.parents[1] / name for name in ("adapted", "other")]
    for folder in folders:
        huggingface.save_adapter(folder / "hf", params, config, tokenizer, base)
    return folders


@pytest.mark.parametrize(
    ("policy", "judge", "adapter"),
    [
        ("adapted", "base", 0),
        ("adapted", "other", 2),
        ("base", "other", 1),
        ("adapted", "adapted", None),
        ("base", "base", None),
    ],
)
def test_a_judge_over_the_base_of_the_policy_needs_no_engine(
    policy, judge, adapter, inputs, adapted, tmp_path
):
    folder = inputs["model"].parent
    settings = SETTINGS | {"judge": JUDGE | GENERATIVE, "judge_model": judge}
    stage = build(Search, settings, "config.search")
    context = StageContext("search", Runtime(slots=8), 0, tmp_path, {"judge_model": folder / judge})
    judges = stage.load_judges(context, folder / policy / "hf", stage.engine)
    assert (judges.services, judges.beside, judges.engine.is_shared) == ({}, (), True)
    source = judges.sources["model"]
    assert (source.service, source.adapter) == ("", adapter)
    assert judges.adapters == ([folder / judge / "hf"] if judge == "other" else [])
    request = source.request("a", "safety", "1 2", "3", (0, 0))
    assert request.adapter == adapter


def test_a_policy_in_eight_bits_shares_nothing_with_its_judge(inputs, adapted, tmp_path):
    folder = inputs["model"]
    settings = SETTINGS | {"judge": JUDGE | GENERATIVE, "judge_model": "base", "weights": "int8"}
    stage = build(Search, settings, "config.search")
    context = StageContext("search", Runtime(slots=8), 0, tmp_path, {"judge_model": folder})
    judges = stage.load_judges(context, adapted[0] / "hf", stage.engine)
    assert list(judges.services) == ["judge"] and not judges.engine.is_shared


def test_a_plan_has_no_programs_of_a_judge_over_the_base_of_the_policy(inputs, adapted):
    models = {
        "model": (huggingface.load_config(adapted[0] / "hf"),),
        "judge_model": (huggingface.load_config(inputs["model"] / "hf"),),
    }
    device = jax.devices()[:1]
    settings = {"judge": {"source": "model"}, "judge_model": "base"}

    def programs(bases, **changes):
        stage = build(Search, SETTINGS | settings | {"model": "adapted"} | changes, "config.search")
        context = PlanContext("search", Runtime(slots=8), device, device, models, bases)
        stage.check_devices(context)
        return stage.programs(context)

    shared = programs({"model": "base"})
    assert len(programs({})) == len(shared) + 3 == len(programs({"model": "base"}, weights="int8"))
    (decode,) = (program for program in shared if program.name.startswith("decode"))
    assert "down_lora_a" in str(jax.tree.structure(decode.arguments))
