"""Small public sets of our own wording, in the form of the real ones."""

import csv
import gzip
import io
import json
import random

import pytest

THINGS = ("lamp", "chair", "river", "bridge", "violin", "kettle", "garden", "engine", "window")
KINDS = ("red", "old", "quiet", "broken", "golden", "wooden", "tiny", "distant", "hollow")


def words(number):
    """Four words that no other number of the same set has together."""
    thing, kind = THINGS[number % 9], KINDS[number // 9 % 9]
    return f"{kind} {thing} number {number}"


def lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


def table(rows):
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def problem(number, split):
    asked = f"A {split} of {words(number)} holds {number} nails and gets 2 more. How many nails?"
    worked = f"It holds {number}+2=<<{number}+2={number + 2}>>{number + 2} nails.\n"
    return {"question": asked, "answer": f"{worked}#### {number + 2}"}


def instruction(verb, number):
    return f"{verb} me about the {words(number)} in a {verb}"


def instructions(verb, count):
    return [
        {
            "instruction": instruction(verb, number),
            "input": "",
            "output": f"The {words(number)} is a {verb}. It stands there.",
        }
        for number in range(count)
    ]


def trace(number):
    parts = [f"The user wants the {words(number)}.", "A rule says no.", "So I decline."]
    return "<think>\n" + "\n\n".join(parts) + "\n</think>\n\nI cannot help with this."


def study_rows():
    """The rows of each file, by its path."""
    star = [
        {"id": str(n), "question": f"Smuggle the {words(n)} abroad", "response": trace(n)}
        for n in range(12)
    ]
    xstest = [
        {
            "id": f"v2-{n}",
            "prompt": f"How do I {'kill' if n % 2 else 'strike'} the {words(n)} process?",
            "type": "contrast_homonyms" if n % 2 else "homonyms",
            "focus": "words",
        }
        for n in range(12)
    ]
    labels = ("1_full_compliance", "2_full_refusal", "3_partial_refusal")
    completions = [
        {
            "id": row["id"],
            "type": row["type"],
            "prompt": row["prompt"],
            "completion": f"Answer {number} to that.",
            "final_label": "2_full_refusal" if number % 2 else labels[number // 2 % 3],
        }
        for number, row in enumerate(xstest)
    ]
    forbidden = [f"Sabotage every {words(n)} at night" for n in range(6)]
    return {
        "star1/STAR-1.json": star,
        "gsm8k/train.jsonl": [problem(n, "box") for n in range(180)],
        "gsm8k/test.jsonl": [problem(n, "crate") for n in range(8)],
        "alpaca_gpt4/alpaca_gpt4_data.json": instructions("poem", 80),
        "alpaca/alpaca_data.json": instructions("song", 10),
        "dolly/databricks-dolly-15k.jsonl": [
            {"instruction": row["instruction"], "context": "", "response": row["output"]}
            for row in instructions("letter", 10)
        ],
        "ultrafeedback/train_clean.jsonl": [
            {"prompt": instruction("essay", n), "chosen": "One.", "rejected": "Two."}
            for n in range(12)
        ],
        "refusal_direction/harmless_train.json": instructions("story", 60),
        "advbench/harmful_behaviors.csv": [
            {"goal": f"Wreck the {words(n)} tonight", "target": f"Sure, the {words(n)} is wrecked"}
            for n in range(60)
        ],
        "safety_tuned_llamas/safety_only_data_Instructions.json": [
            {
                "instruction": f"Burgle the {words(n)} quickly",
                "input": "",
                "output": "I'm sorry, but I cannot do that.",
            }
            for n in range(60)
        ],
        "coconot/coconot_pref.jsonl": [
            {
                "id": str(n),
                "category": "Requests with safety concerns" if n % 4 else "Incomplete requests",
                "subcategory": "triggers",
                "prompt": f"How can I shoot photos of the {words(n)} well?",
                "chosen": f"Stand near the {THINGS[n % 9]}. Hold still.",
                "rejected": "No.",
            }
            for n in range(60)
        ],
        "harmbench/harmbench_behaviors_text_val.csv": [
            {
                "Behavior": f"Flood the cellar with a {words(n)}",
                "FunctionalCategory": "copyright" if n == 5 else "standard",
                "ContextString": "A cellar." if n == 0 else "",
                "BehaviorID": str(n),
            }
            for n in range(6)
        ],
        "oktest/OKTest.csv": [
            {"prompt": f"Where may I drown a {words(n)} in sauce?\n"} for n in range(6)
        ],
        "xstest/xstest_prompts.csv": xstest,
        "xstest/xstest_v2_completions_gpt4_gpteval.csv": completions,
        "do_not_answer/do_not_answer_en.csv": [
            {
                "id": str(n),
                "risk_area": "Risk",
                "types_of_harm": "Social stereotypes and unfair discrimination",
                "specific_harms": "Harm",
                "question": f"Why are all owners of a {words(n)} lazy?",
            }
            for n in range(4)
        ],
        "strongreject/strongreject_dataset.csv": [
            {"category": "Sabotage", "source": "ours", "forbidden_prompt": text}
            for text in forbidden
        ],
        "strongreject/baseline_prompts.json": [
            {
                "forbidden_prompt": text,
                "jailbroken_prompt_pair": f"In a novel: {text}",
                "jailbroken_prompt_pap_authority_endorsement": text,
            }
            for text in forbidden
        ],
        "strongreject/stored_attacks/mine.jsonl": [
            {"goal": text, "prompt": f"Friend, {text}"} for text in forbidden[:3]
        ],
    }


def file_text(path, rows):
    """The rows as a file of that name has them."""
    if path.endswith(".csv"):
        return table(rows)
    return lines(rows) if path.endswith(".jsonl") else json.dumps(rows)


@pytest.fixture(scope="session")
def write_sources():
    """`write(folder, shuffle=None, zipped=False, without=(), **more)`: local copies of all sets.

    Args:
      folder: to write into.
      shuffle: a number, to bring the rows of each file into another order.
      zipped: gzip the files.
      without: paths that are left out.
      more: rows to add, by path.
    """

    def write(folder, shuffle=None, zipped=False, without=(), more=None):
        for path, rows in study_rows().items():
            if path in without:
                continue
            rows = [*rows, *(more or {}).get(path, ())]
            if shuffle is not None:
                random.Random(shuffle).shuffle(rows)
            place = folder / path
            place.parent.mkdir(parents=True, exist_ok=True)
            data = file_text(path, rows).encode()
            if zipped:
                place = place.with_name(place.name + ".gz")
            place.write_bytes(gzip.compress(data) if zipped else data)
        return folder

    return write


@pytest.fixture(scope="session")
def build(write_sources):
    """`build(out, folder, **options)`: builds from local copies; gives back what is recorded."""
    from stair_jax.data.study.build import Options, build_study
    from stair_jax.data.study.sources import Choice

    def run(out, folder, without=(), **options):
        choice = Choice(folder, remote=False, without=without)
        return build_study(Options(choice, **options), out)

    return run


@pytest.fixture(scope="session")
def study(tmp_path_factory, write_sources, build):
    """A finished build, (folder, record)."""
    folder = tmp_path_factory.mktemp("study")
    write_sources(folder / "sources")
    record = build(folder / "out", folder / "sources")
    return folder / "out", record
