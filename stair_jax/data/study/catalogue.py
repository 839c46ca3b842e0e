"""The public data sets of the study, by role.

The roles are a rule: what is reported is neither trained on nor used to choose anything, and the
sets of other roles are kept apart from it by `data/decontamination.py`.
"""

from collections.abc import Mapping

from stair_jax.data.study.public_set import PublicSet

_XSTEST = "github:paul-rottger/exaggerated-safety/d7bb5bd738c1fcbc36edd83d5e7d1b71a3e2d84d"
_COMPLETIONS = f"{_XSTEST}/evaluation/automated_evaluation_labels"
_GSM8K = "github:openai/grade-school-math/3101c7d5072418e28b9008a6636bde82a006892c"
_OVERKILL = "github:InvokerStark/OverKill/9551a7ff7b2cb18d178e64fb5cc95e4684311b3b/data"
_COCONOT = "github:allenai/noncompliance/25bf77cc668814360405cdb8197c4368205806c7/data"
_HARMBENCH = (
    "github:centerforaisafety/HarmBench/8e1604d1171fe8a48d8febecd22f600e462bdcdd"
    "/data/behavior_datasets"
)

_TRAINING = (
    PublicSet(
        "star1",
        ("star1/STAR-1.json",),
        "training",
        "Apache-2.0",
        "hub:UCSC-VLAA/STAR-1:default/train",
        ("question",),
    ),
    PublicSet(
        "gsm8k_train",
        ("gsm8k/train.jsonl", "gsm8k/gsm8k_train.jsonl"),
        "training",
        "MIT",
        f"{_GSM8K}/grade_school_math/data/train.jsonl",
        ("question",),
    ),
    PublicSet(
        "alpaca_gpt4",
        ("alpaca_gpt4/alpaca_gpt4_data.json", "llama_factory/alpaca_en_demo.json"),
        "training",
        "CC-BY-NC-4.0",
        "hub:vicgalle/alpaca-gpt4:default/train",
        ("instruction",),
    ),
    PublicSet(
        "alpaca",
        ("alpaca/alpaca_data.json", "alpaca_small/alpaca_train.json"),
        "training",
        "CC-BY-NC-4.0",
        "hub:tatsu-lab/alpaca:default/train",
        ("instruction",),
    ),
    PublicSet(
        "dolly",
        ("dolly/databricks-dolly-15k.jsonl", "dolly/dolly_train.json"),
        "training",
        "CC-BY-SA-3.0",
        "hub:databricks/databricks-dolly-15k:default/train",
        ("instruction",),
    ),
    PublicSet(
        "ultrafeedback",
        ("ultrafeedback/train_prefs.parquet", "ultrafeedback/train_clean.jsonl"),
        "training",
        "MIT",
        "hub:HuggingFaceH4/ultrafeedback_binarized:default/train_prefs",
        columns=("prompt",),
    ),
    PublicSet(
        "alpaca_harmless",
        ("refusal_direction/harmless_train.json",),
        "training",
        "Apache-2.0, of Alpaca's rows CC-BY-NC-4.0",
        "github:andyrdt/refusal_direction/9d852fae1a9121c78b29142de733cb1340770cc3"
        "/dataset/splits/harmless_train.json",
        ("instruction",),
    ),
    PublicSet(
        "refusal_direction",
        ("refusal_direction/harmful_train.json",),
        "training",
        "Apache-2.0",
        "github:andyrdt/refusal_direction/9d852fae1a9121c78b29142de733cb1340770cc3"
        "/dataset/splits/harmful_train.json",
        ("instruction",),
    ),
    PublicSet(
        "advbench",
        ("advbench/harmful_behaviors.csv",),
        "training",
        "MIT",
        "github:llm-attacks/llm-attacks/main/data/advbench/harmful_behaviors.csv",
        ("goal",),
    ),
    PublicSet(
        "safety_tuned_llamas",
        ("safety_tuned_llamas/safety_only_data_Instructions.json",),
        "training",
        "CC-BY-NC-4.0",
        "github:vinid/safety-tuned-llamas/36a4b8d5c2177ed165bf61f59b590161394f7f12"
        "/data/training/safety_only_data_Instructions.json",
        ("instruction",),
    ),
    PublicSet(
        "coconot_pref",
        ("coconot/coconot_pref.jsonl",),
        "training",
        "ODC-BY",
        f"{_COCONOT}/coconot_pref.jsonl",
    ),
)
_DEVELOPMENT = (
    PublicSet(
        "harmbench_val",
        ("harmbench/harmbench_behaviors_text_val.csv",),
        "development",
        "MIT",
        f"{_HARMBENCH}/harmbench_behaviors_text_val.csv",
        ("Behavior",),
    ),
    PublicSet(
        "oktest",
        ("oktest/OKTest.csv",),
        "development",
        "not stated",
        f"{_OVERKILL}/OKTest.csv",
    ),
    PublicSet(
        "oktest_heldout",
        ("oktest/OKTest_heldout.csv",),
        "development",
        "not stated",
        f"{_OVERKILL}/OKTest_heldout.csv",
    ),
    PublicSet(
        "xstest_gpt4",
        (
            "xstest/xstest_v2_completions_gpt4_gpteval.csv",
            "xstest/xstest_v2_completions_gpt4_streval.csv",
        ),
        "development",
        "CC-BY-4.0",
        f"{_COMPLETIONS}/xstest_v2_completions_gpt4_gpteval.csv",
        (),
    ),
    PublicSet(
        "xstest_llama2new",
        (
            "xstest/xstest_v2_completions_llama2new_gpteval.csv",
            "xstest/xstest_v2_completions_llama2new_streval.csv",
        ),
        "development",
        "CC-BY-4.0",
        f"{_COMPLETIONS}/xstest_v2_completions_llama2new_gpteval.csv",
        (),
    ),
)
_REPORTED = (
    PublicSet(
        "strongreject",
        ("strongreject/strongreject_dataset.csv",),
        "reported",
        "MIT; rows of other sets keep theirs",
        "github:alexandrasouly/strongreject/main/strongreject_dataset/strongreject_dataset.csv",
        ("forbidden_prompt",),
        ("baseline_prompts.json", "stored_attacks/*"),
    ),
    PublicSet(
        "xstest",
        ("xstest/xstest_prompts.csv", "xstest/xstest_v2_prompts.csv"),
        "reported",
        "CC-BY-4.0",
        f"{_XSTEST}/xstest_prompts.csv",
    ),
    PublicSet(
        "gsm8k_test",
        ("gsm8k/test.jsonl", "gsm8k/gsm8k_test.jsonl"),
        "reported",
        "MIT",
        f"{_GSM8K}/grade_school_math/data/test.jsonl",
        ("question",),
    ),
    PublicSet(
        "do_not_answer",
        ("do_not_answer/do_not_answer_en.csv", "do_not_answer/data_en.csv"),
        "reported",
        "CC-BY-NC-SA-4.0",
        "hub:LibrAI/do-not-answer:default/train",
        ("question",),
    ),
    PublicSet(
        "harmbench_test",
        ("harmbench/harmbench_behaviors_text_test.csv",),
        "reported",
        "MIT",
        f"{_HARMBENCH}/harmbench_behaviors_text_test.csv",
        ("Behavior",),
    ),
    PublicSet(
        "jailbreakbench",
        ("jailbreakbench/harmful-behaviors.csv",),
        "reported",
        "MIT",
        "hub:JailbreakBench/JBB-Behaviors:behaviors/harmful",
        ("Goal",),
    ),
    PublicSet(
        "malicious_instruct",
        ("malicious_instruct/MaliciousInstruct.txt",),
        "reported",
        "not stated",
        "github:Princeton-SysML/Jailbreak_LLM/1e490531c0ef4bc13430178bf1fbc8f813e34b1a"
        "/data/MaliciousInstruct.txt",
    ),
    PublicSet(
        "coconot_contrast",
        ("coconot/coconot_contrast_eval.jsonl", "coconot/coconot_contrast_test.jsonl"),
        "reported",
        "ODC-BY",
        f"{_COCONOT}/coconot_contrast_eval.jsonl",
    ),
    PublicSet(
        "or_bench",
        ("or_bench/or-bench-hard-1k.csv",),
        "reported",
        "CC-BY-4.0",
        "hub:bench-llm/or-bench:or-bench-hard-1k/train",
    ),
    PublicSet(
        "alpaca_eval",
        ("alpaca_eval/gpt4_1106_preview_model_outputs.json", "alpaca_eval/alpaca_eval.json"),
        "reported",
        "CC-BY-NC-4.0",
        "github:tatsu-lab/alpaca_eval/cd543a149df89434d8a54582c0151c0b945c3d20"
        "/results/gpt4_1106_preview/model_outputs.json",
        ("instruction",),
    ),
    PublicSet(
        "hhh",
        ("hhh/hhh_clean.jsonl", "hhh/hhh.jsonl"),
        "reported",
        "Apache-2.0",
        "github:google/BIG-bench/main/bigbench/benchmark_tasks/hhh_alignment",
        ("input",),
    ),
    PublicSet(
        "simpleqa",
        ("simpleqa/simple_qa_test_set.csv",),
        "reported",
        "MIT",
        "hub:basicv8vc/SimpleQA:default/test",
        ("problem",),
    ),
    PublicSet(
        "truthfulqa",
        ("truthfulqa/TruthfulQA.csv",),
        "reported",
        "Apache-2.0",
        "github:sylinrl/TruthfulQA/main/TruthfulQA.csv",
        ("Question",),
    ),
    PublicSet(
        "ifeval",
        ("ifeval/input_data.jsonl",),
        "reported",
        "Apache-2.0",
        "github:google-research/google-research/master/instruction_following_eval/data"
        "/input_data.jsonl",
    ),
    PublicSet(
        "math500",
        ("math500/test.jsonl",),
        "reported",
        "MIT",
        "hub:HuggingFaceH4/MATH-500:default/test",
        ("problem",),
    ),
    PublicSet(
        "advglue",
        ("advglue/dev.json",),
        "reported",
        "CC-BY-SA-4.0",
        "github:AI-secure/adversarial-glue/2e18301c3e6b0fed775834d64e9e431745df92ed/dev.json",
        (),
    ),
    PublicSet(
        "confaide",
        ("confaide/tier_1.txt",),
        "reported",
        "MIT",
        "github:skywalker023/confAIde/3174c63e689226189675a740b7bf9053f10bae50"
        "/benchmark/tier_1.txt",
        (),
        (
            *("tier_1_labels.txt", "tier_2_labels.txt", "tier_2a.txt", "tier_2b.txt"),
            *("tier_3.txt", "tier_3_control.txt", "tier_4.txt"),
        ),
    ),
)

SETS: Mapping[str, PublicSet] = {one.name: one for one in (*_TRAINING, *_DEVELOPMENT, *_REPORTED)}
