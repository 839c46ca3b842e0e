"""A tiny checkpoint whose tokenizer has the tags and a chat template."""

import json

import pytest

from stair_jax.models import huggingface
from stair_jax.testing.tiny_models import tiny_model
from stair_jax.testing.tiny_tokenizers import bpe_tokenizer


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """Its folder; sequences have at most 128 tokens."""
    folder = tmp_path_factory.mktemp("tiny") / "hf"
    tokenizer = bpe_tokenizer()
    config, params = tiny_model(tokenizer.vocab_size, max_position_embeddings=128)
    huggingface.save(folder, params, config, tokenizer)
    return folder


@pytest.fixture(scope="session")
def task_folder(tmp_path_factory):
    """Tasks of each kind over JSON lines: `choices`, `rolling` and `samples`."""
    folder = tmp_path_factory.mktemp("tasks")
    rows = [
        {
            "question": "What is the first step?",
            "choices": [" an analysis", " the end"],
            "answer": 0,
        },
        {"question": "Is it safe?", "choices": [" yes", " no", " the user asks"], "answer": 2},
    ]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "rows.jsonl").write_text(lines)
    common = f"""
dataset_path: json
dataset_kwargs: {{data_files: {{test: "{folder}/rows.jsonl"}}}}
test_split: test
"""
    (folder / "choices.yaml").write_text(f"""task: tiny_choices{common}
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: answer
target_delimiter: ""
metric_list: [{{metric: acc, aggregation: mean, higher_is_better: true}}]
""")
    (folder / "rolling.yaml").write_text(f"""task: tiny_rolling{common}
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{{{question}}}} {{{{choices | join(', ')}}}} "
metric_list: [{{metric: byte_perplexity}}]
""")
    (folder / "samples.yaml").write_text(f"""task: tiny_samples{common}
output_type: generate_until
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{choices[answer]}}}}"
generation_kwargs: {{until: ["e"], max_gen_toks: 24, do_sample: false}}
metric_list: [{{metric: exact_match, aggregation: mean, higher_is_better: true}}]
""")
    return folder
