"""Classifiers give the logits of transformers, whatever else is in the batch."""

import json
import shutil

import numpy as np
import pytest
import torch
import transformers

from stair_jax.decoding.driver import Driver, run_tasks
from stair_jax.errors import UserError
from stair_jax.inference.classifier import (
    CLASSIFIER_SERVICE,
    ClassifierTask,
    load_classifier,
)
from stair_jax.models import huggingface
from stair_jax.parallel.mesh import MeshShape, make_mesh

LABELS = ("refusal", "compliance", "partial")
PAD = 1
SIZES = {
    "vocab_size": 130,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "initializer_range": 0.3,
    "pad_token_id": PAD,
    "id2label": dict(enumerate(LABELS)),
}
# Lengths on both sides of the buckets 8 and 16, and beyond.
LENGTHS = (1, 5, 8, 9, 16, 20, 3)


@pytest.fixture(scope="module")
def make_folder(tmp_path_factory):
    """A function from a family to (folder, transformers model) of a random classifier."""

    def make(family, **changes):
        torch.manual_seed(0)
        config = getattr(transformers, f"{family}Config")(**SIZES | changes)
        model = getattr(transformers, f"{family}ForSequenceClassification")(config).eval()
        folder = tmp_path_factory.mktemp(family)
        model.save_pretrained(folder)
        return folder, model

    return make


def sequences():
    rng = np.random.default_rng(0)
    return [rng.integers(2, 130, length).tolist() for length in LENGTHS]


def reference(model, rows):
    """Logits of transformers, of one padded batch."""
    width = max(map(len, rows))
    padded = torch.tensor([row + [PAD] * (width - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
    with torch.no_grad():
        return model(padded, attention_mask=mask).logits.numpy()


@pytest.mark.parametrize("family", ["Llama", "Qwen2", "Qwen3", "Mistral", "Phi3", "Gemma"])
def test_logits_are_those_of_transformers(family, make_folder):
    folder, model = make_folder(family)
    classifier = load_classifier(folder, rows=3, buckets=(8, 16))
    assert classifier.labels == LABELS
    logits = classifier.logits(sequences())
    assert logits.shape == (len(LENGTHS), 3) and logits.dtype == np.float32
    np.testing.assert_allclose(logits, reference(model, sequences()), atol=1e-4)


def test_the_last_token_that_is_not_padding_is_read_as_in_transformers(make_folder):
    """Where texts end with the padding token, such as the end of a turn, so do the readings."""
    folder, model = make_folder("Llama")
    rows = [[5, 6, PAD, 7, PAD, PAD], [5, 6, PAD, 7], [8, PAD, PAD, PAD], [PAD, PAD]]
    logits = load_classifier(folder).logits(rows)
    np.testing.assert_allclose(logits[:3], reference(model, rows)[:3], atol=1e-4)
    np.testing.assert_allclose(logits[0], logits[1], atol=1e-6)
    assert np.isfinite(logits[3]).all()


def test_a_mesh_gives_the_same_logits(make_folder):
    folder, _ = make_folder("Qwen2")
    expected = load_classifier(folder).logits(sequences())
    mesh = make_mesh(MeshShape(2, 2, 2))
    sharded = load_classifier(folder, rows=3, mesh=mesh, vocab_multiple=2)
    assert sharded.rows == 4
    np.testing.assert_allclose(sharded.logits(sequences()), expected, atol=1e-4)


def test_the_service_gives_each_task_its_own_logits(make_folder):
    folder, _ = make_folder("Llama")
    classifier = load_classifier(folder, rows=3, buckets=(8, 16))
    ((name, service),) = classifier.services.items()
    assert name == CLASSIFIER_SERVICE
    tasks = [ClassifierTask(sequence) for sequence in sequences()]
    found = [each.logits for each in run_tasks(Driver(service, {name: service}), tasks)]
    np.testing.assert_allclose(found, classifier.logits(sequences()), atol=1e-6)


def test_one_label_gives_the_score_of_a_reward_model(make_folder):
    folder, model = make_folder("Qwen2", id2label={0: "score"})
    classifier = load_classifier(folder)
    assert classifier.labels == ("score",)
    np.testing.assert_allclose(
        classifier.logits(sequences()), reference(model, sequences()), atol=1e-4
    )
    assert huggingface.load_score_head(folder)["kernel"].shape == (32,)


def test_a_sequence_up_to_the_sliding_window_is_classified_and_a_longer_one_refused(make_folder):
    folder, model = make_folder("Mistral", sliding_window=13)
    classifier = load_classifier(folder, buckets=(8,))
    assert classifier.longest == 13
    rows = [sequences()[5][:13]]
    np.testing.assert_allclose(classifier.logits(rows), reference(model, rows), atol=1e-4)
    with pytest.raises(UserError, match="14 tokens, more than the sliding_window 13"):
        classifier.logits([sequences()[5][:14]])


def edited(folder, target, **changes):
    shutil.copytree(folder, target)
    values = json.loads((target / "config.json").read_text())
    values = {name: value for name, value in (values | changes).items() if value is not ...}
    (target / "config.json").write_text(json.dumps(values))
    return target


def test_labels_without_names_are_numbered_as_in_transformers(make_folder, tmp_path):
    folder, _ = make_folder("Llama")
    bare = edited(folder, tmp_path / "bare", id2label=..., label2id=..., pad_token_id=None)
    assert huggingface.load_labels(bare) == ("LABEL_0", "LABEL_1", "LABEL_2")
    assert huggingface.load_pad_id(bare) is None
    # Without a padding token it is the last token, whatever it is.
    last = load_classifier(bare).logits([[5, 6, PAD]])
    assert not np.allclose(last, load_classifier(folder).logits([[5, 6, PAD]]), atol=1e-3)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({"0": "a", "1": "b"}, "does not name the 3 rows"),
        ({"0": "a", "1": "b", "3": "c"}, "a name for each of 0 to 2"),
        ({"0": "a", "1": "b", "2": 7}, "does not name the 3 rows"),
        (["a", "b", "c"], "does not name the 3 rows"),
        ({"0": "a", "1": "b", "2": "a"}, "has a name twice"),
    ],
)
def test_labels_that_do_not_fit_the_head_are_refused(names, message, make_folder, tmp_path):
    folder, _ = make_folder("Llama")
    with pytest.raises(UserError, match=message) as caught:
        load_classifier(edited(folder, tmp_path / "odd", id2label=names))
    assert len(str(caught.value).splitlines()) == 1


def test_folders_without_the_head_that_is_asked_for_are_refused(make_folder, tmp_path):
    folder, _ = make_folder("Llama")
    with pytest.raises(UserError, match=r"score\.weight .* has 3 labels: name a reward model"):
        huggingface.load_score_head(folder)
    with pytest.raises(UserError, match="pad_token_id 'x'"):
        load_classifier(edited(folder, tmp_path / "pad", pad_token_id="x"))
    torch.manual_seed(0)
    config = transformers.LlamaConfig(**SIZES)
    transformers.LlamaForCausalLM(config).save_pretrained(tmp_path / "causal")
    with pytest.raises(UserError, match=r"no tensor score\.weight: name a model with a head of"):
        load_classifier(tmp_path / "causal")
