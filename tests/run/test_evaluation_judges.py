"""Judges of an evaluation, loaded from their names."""

import json

import jax
import jax.numpy as jnp
import pytest

from stair_jax.decoding.driver import run_tasks
from stair_jax.endpoints.settings import EndpointSettings
from stair_jax.errors import UserError
from stair_jax.evaluation.judges.judge import Material
from stair_jax.evaluation.judges.settings import JudgeSettings, JudgeSpec
from stair_jax.models import huggingface
from stair_jax.models.transformer import apply, output_embedding
from stair_jax.parallel.mesh import MeshShape
from stair_jax.run.evaluation_judges import check_judge, load_judge
from stair_jax.run.runtime import Runtime
from stair_jax.testing.fake_endpoint import Act, FakeEndpoint, reply_of
from stair_jax.testing.tiny_models import tiny_model

MATERIAL = Material("How?", "Like this.")
RUNTIME = Runtime(
    slots=4,
    cache_tokens=8192,
    prefill_rows=2,
    prefill_width=64,
    decoding_mesh=MeshShape(),  # one device
)


@pytest.fixture(scope="module")
def model(chat_tokenizer, tmp_path_factory):
    """(folder, config, parameters) of a tiny model."""
    folder = tmp_path_factory.mktemp("judge") / "hf"
    config, params = tiny_model(chat_tokenizer.vocab_size, max_position_embeddings=4096)
    huggingface.save(folder, params, config, chat_tokenizer)
    return folder, config, params


def make_classifier(folder, model_folder, labels):
    """A classifier of the same model, as its files."""
    from safetensors.numpy import load_file, save_file

    folder.mkdir()
    for file in model_folder.iterdir():
        if file.suffix != ".safetensors":
            (folder / file.name).write_bytes(file.read_bytes())
    tensors = load_file(model_folder / "model.safetensors")
    tensors.pop("lm_head.weight", None)
    width = tensors["model.norm.weight"].shape[0]
    head = jax.random.normal(jax.random.key(1), (len(labels), width))
    save_file(tensors | {"score.weight": jax.device_get(head)}, folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    config["architectures"] = ["LlamaForSequenceClassification"]
    config["id2label"] = {str(place): label for place, label in enumerate(labels)}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_a_checkpoint_judges_by_its_label_probabilities(model, tmp_path):
    folder, config, params = model
    settings = JudgeSettings(mode="expected")
    with load_judge(JudgeSpec.parse(str(folder)), settings, tmp_path, RUNTIME) as loaded:
        judge = loaded.judge
        tasks = [judge.task("harmful", MATERIAL, "a"), judge.task("rubric", MATERIAL, "a")]
        (request,) = judge.task("harmful", MATERIAL, "a").start()
        one, rubric = run_tasks(loaded.driver(), tasks)
    assert judge.name == f"model:{folder}" and len(judge.identity()["checkpoint"]) == 64
    tokens = jnp.array([request.tokens])
    positions = jnp.arange(tokens.shape[1])[None]
    hidden = jax.jit(apply, static_argnums=0)(config, params, tokens, positions)
    logits = output_embedding(params, config)[jnp.array(request.score_ids)] @ hidden[0, -1]
    expected = jax.nn.softmax(logits)
    assert one.scores["yes"] == pytest.approx(float(expected[0]), abs=1e-4)
    assert rubric.label in ("answered", "refused") and 1 <= rubric.scores["convincing"] <= 5


def test_a_checkpoint_writes_its_verdict(model, tmp_path):
    settings = JudgeSettings(max_tokens=4, ask_closing=False)
    with load_judge(JudgeSpec.parse(str(model[0])), settings, tmp_path, RUNTIME) as loaded:
        (made,) = run_tasks(loaded.driver(), [loaded.judge.task("harmful", MATERIAL, "a")])
    assert 1 <= made.tokens <= 4 and made.label is None and made.scores == {}  # it writes noise


def test_a_checkpoint_with_labels_is_a_classifier(model, tmp_path):
    folder = make_classifier(tmp_path / "labels", model[0], ("no", "yes"))
    spec = check_judge(JudgeSpec.parse(str(folder)), JudgeSettings())
    assert spec.kind == "classifier"
    with load_judge(spec, JudgeSettings(), tmp_path, RUNTIME) as loaded:
        (made,) = run_tasks(loaded.driver(), [loaded.judge.task("harmful", MATERIAL, "a")])
    assert made.judge == f"classifier:{folder}" and made.label in ("yes", "no")
    assert sum(made.scores.values()) == pytest.approx(1)
    with pytest.raises(UserError, match=f"write classifier:{folder}"):
        check_judge(JudgeSpec("model", str(folder)), JudgeSettings())
    with pytest.raises(UserError, match=f"write model:{model[0]}"):
        check_judge(JudgeSpec("classifier", str(model[0])), JudgeSettings())


def test_a_reward_model_is_no_classifier(model, chat_tokenizer, tmp_path):
    _, config, params = model
    head = {"kernel": jnp.ones(config.hidden_size)}
    huggingface.save(tmp_path / "prm", params, config, chat_tokenizer, head)
    spec = JudgeSpec.parse(str(tmp_path / "prm"))
    with (
        pytest.raises(UserError, match="one label"),
        load_judge(spec, JudgeSettings(), tmp_path, RUNTIME),
    ):
        pass


def test_the_rule_needs_no_service(tmp_path):
    with load_judge(JudgeSpec.parse("rule"), JudgeSettings(), tmp_path) as loaded:
        task = loaded.judge.task("refusal", Material("?", "I cannot help."), "a")
        (made,) = run_tasks(loaded.driver(), [task])
    assert loaded.services == {} and made.label == "full_refusal"


def test_an_endpoint_judges_and_is_not_paid_twice(tmp_path):
    def script(number, body):
        reply = reply_of(body)
        reply["choices"][0]["message"]["content"] = "YES"
        return Act(body=reply)

    with FakeEndpoint(script) as fake:
        endpoint = EndpointSettings(base_url=fake.base_url, model="fake", max_requests=1)
        settings = JudgeSettings(endpoint=endpoint)
        for _ in range(2):
            with load_judge(JudgeSpec.parse("endpoint"), settings, tmp_path) as loaded:
                (made,) = run_tasks(loaded.driver(), [loaded.judge.task("harmful", MATERIAL, "a")])
            assert (made.label, made.model) == ("yes", "fake")


@pytest.mark.parametrize(
    ("text", "settings", "says"),
    [
        ("gone/model", {}, "gone/model"),
        ("endpoint", {}, "base_url is empty"),
        ("rule", {"rule_phrases": "gone.txt"}, r"cannot read gone\.txt"),
    ],
)
def test_a_judge_that_is_not_there_is_said_before_anything_is_loaded(text, settings, says):
    with pytest.raises(UserError, match=says):
        check_judge(JudgeSpec.parse(text), JudgeSettings(**settings))


def test_a_wording_that_cannot_be_used_is_said_before_anything_is_loaded(model, tmp_path):
    (tmp_path / "w.txt").write_text("{prompt}")
    settings = JudgeSettings(wordings={"harmful": str(tmp_path / "w.txt")})
    with pytest.raises(UserError, match=r"lacks \{answer\}"):
        check_judge(JudgeSpec.parse(str(model[0])), settings)
