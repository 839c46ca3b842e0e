"""Examples of judgements for SFT, so that a policy that learns to answer can still judge."""

import json
from importlib import resources

from stair_jax.data.records import SftRow
from stair_jax.decoding.requests import request_key
from stair_jax.search.judging.fence import mark_of
from stair_jax.search.judging.settings import JudgeSettings
from stair_jax.search.judging.sources.judge_prompts import JudgePrompts
from stair_jax.text.steps import format_answer

_TITLE = "Reading the answer"


def judgement_examples(seed: int, settings: JudgeSettings | None = None) -> list[SftRow]:
    """The examples that come with the package, both questions and all labels among them.

    Their labels are those of the wordings "verdict" and "rating", which ask for a reasoning. A
    prompt is what the judge is asked, with a mark of its own around the answer; a reply is a
    structured answer whose output block holds the conclusion.

    Args:
      seed: of the marks.
      settings: with a wording of the same labels; None: these two.
    """
    wording = JudgeSettings(safety_template="verdict", helpfulness_template="rating")
    prompts = JudgePrompts(settings or wording)
    text = resources.files(__package__).joinpath("replay_cases.jsonl").read_text("utf-8")
    rows = []
    for number, line in enumerate(text.splitlines()):
        case = json.loads(line)
        question = case["question"]
        mark = mark_of(request_key(seed, "replay", number))
        prompt = prompts.write(question, case["prompt"], case["answer"], mark)
        reply = format_answer([(_TITLE, case["reasoning"])], f"Conclusion: [{case['label']}]")
        rows.append(SftRow(f"judgement{number}", prompt, reply, question))
    return rows
