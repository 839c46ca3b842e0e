"""Config of a run on the inputs of `make_stage_inputs`, for the multi-process tests.

The config's argument is the folder of the inputs.
"""

from ml_collections import ConfigDict

_TRAINING = {
    "model": "base",
    "max_length": 128,
    "microbatch_rows": 8,
    "batch_size": 8,
    "learning_rate": 2e-3,
    "eps": 1e-3,  # a small eps would amplify the rounding of gradients near 0
    "checkpoint_every": 2,
    "held_out": 2,
    "eval_every": 2,
    "samples_every": 1,
}


def get_config(inputs):
    """A run with every kind of stage that works without the pocket model."""
    data = f"{inputs}/data"
    return ConfigDict(
        {
            "seed": 3,
            "stages": ("files:data", "model:base", "sft", "search", "evaluate", "dpo", "export"),
            "runtime": {
                "slots": 8,
                "trees_in_flight": 2,
                "training_mesh": {"data": 2, "fsdp": 4},
                "decoding_mesh": {"data": 1},
                "vocab_multiple": 16,
            },
            "files": {
                "sft": f"{data}/sft.jsonl",
                "prompts": (f"{data}/prompts.jsonl",),
                "dpo": f"{data}/dpo.jsonl",
            },
            "model": {"init": f"{inputs}/model/hf"},
            "sft": {**_TRAINING, "data": "data", "reader": "datasets"},
            "search": {
                "model": "base",
                "prompts": "data",
                "file": "prompts1.jsonl",
                "context_tokens": 96,
                "max_prompt_tokens": 90,
                "num_iterations": 4,
                "num_children": 2,
                "max_depth": 2,
                "max_step_tokens": 6,
                "max_answer_tokens": 10,
                "judge": {
                    "probe": "",  # random weights
                    "mode": "expected",
                    "fence": False,
                    "helpfulness_template": "{prompt} : {answer}",
                    "safety_template": "{prompt} . {answer}",
                },
            },
            "evaluate": {
                "models": ("base",),
                "files": f"{inputs}/benchmarks",
                "benchmarks": ("xstest_unsafe", "hhh", "xstest_unsafe:forged_tags"),
                "context_tokens": 96,
                "max_tokens": 10,
            },
            "dpo": {**_TRAINING, "preferences": "data", "epochs": 2.0},
            "export": {"model": "dpo", "dtype": "float32"},
        }
    )
