"""The formats of other trainers, as functions from our records to their rows.

A side of a pair is the whole text from the prompt on, the path that both sides share with it: the
shared part has the same log-probability on both sides, so that it cancels in DPO's loss. A trainer
puts an end of turn behind either side, also behind a step that does not end its answer, as the
paper's released code does.

Sources: TRL, "Dataset formats and types"; LLaMA-Factory, data/README.md; OpenRLHF,
openrlhf/datasets/sft_dataset.py and reward_dataset.py.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from stair_jax.data.records import PathPair, Record, SftRow, StepPair
from stair_jax.data.schema import LeftOut

Row = dict[str, Any]
Use = Literal["sft", "dpo", "prm"]
_SHAREGPT = {"system": "system", "user": "human", "assistant": "gpt"}
RECORDS: dict[Use, type[Record]] = {"sft": SftRow, "dpo": StepPair, "prm": PathPair}


@dataclass(frozen=True)
class Format:
    """How a trainer wants its rows.

    Attributes:
      about: one line for the data card.
      rows: for each use, what makes the rows of a record; it may raise `LeftOut`.
      loading: for each use, how the trainer is told of the file; `{file}` is its name.
    """

    about: str
    rows: Mapping[Use, Callable[[Any], Iterator[Row]]]
    loading: Mapping[Use, str]


def _said(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


def _learnt(row: SftRow) -> list[dict[str, str]]:
    """The answer as a message.

    Raises:
      LeftOut: it is made to begin with a text that is not to be learnt.
    """
    if row.start:
        raise LeftOut("the answer has a start, which the trainer would learn")
    return _said(row.answer)


def _sides(pair: StepPair) -> tuple[str, str]:
    """Both sides from the prompt on."""
    path = "".join(pair.path)
    return path + pair.chosen, path + pair.rejected


def _messages(row: SftRow) -> Iterator[Row]:
    yield {"messages": row.messages + _learnt(row)}


def _completion(row: SftRow) -> Iterator[Row]:
    yield {"prompt": row.messages, "completion": _learnt(row)}


def _input_output(row: SftRow) -> Iterator[Row]:
    yield {"input": row.messages, "output": _learnt(row)}


def _preference(pair: StepPair) -> Iterator[Row]:
    chosen, rejected = _sides(pair)
    yield {"prompt": pair.messages, "chosen": _said(chosen), "rejected": _said(rejected)}


def _whole_chats(pair: StepPair) -> Iterator[Row]:
    chosen, rejected = _sides(pair)
    yield {"chosen": pair.messages + _said(chosen), "rejected": pair.messages + _said(rejected)}


def _stepwise(pair: PathPair) -> Iterator[Row]:
    """Both paths with a label a step: True on the better path, and where the other one shares it.

    Raises:
      LeftOut: it is a chat, for whose turns the form has no place.
    """
    if pair.is_chat:
        raise LeftOut("a chat, for whose turns the format has no place")
    better, other = list(pair.chosen_path), list(pair.rejected_path)
    shared = shared_steps(better, other)
    yield {"prompt": pair.prompt, "completions": better, "labels": [True] * len(better)}
    labels = [number < shared for number in range(len(other))]
    yield {"prompt": pair.prompt, "completions": other, "labels": labels}


def shared_steps(one: list[str], other: list[str]) -> int:
    """How many steps two paths begin with in common."""
    matches = (a == b for a, b in zip(one, other, strict=False))
    return next((n for n, same in enumerate(matches) if not same), min(len(one), len(other)))


def _sharegpt(messages: list[dict[str, str]]) -> list[dict[str, str]]:
    return [{"from": _SHAREGPT[turn["role"]], "value": turn["content"]} for turn in messages]


def _conversation(row: SftRow) -> Iterator[Row]:
    yield {"conversations": _sharegpt(row.messages + _learnt(row))}


def _conversation_pair(pair: StepPair) -> Iterator[Row]:
    (chosen,), (rejected,) = (_sharegpt(_said(side)) for side in _sides(pair))
    yield {"conversations": _sharegpt(pair.messages), "chosen": chosen, "rejected": rejected}


_LLAMA_FACTORY = "dataset_dir: this folder; dataset: {name} (described in dataset_info.json)"
_OPENRLHF = "--apply_chat_template --dataset {file}"

FORMATS: dict[str, Format] = {
    "messages": Format(
        "chats as `messages`, of TRL's SFTTrainer, OpenAI and many more",
        {"sft": _messages},
        {"sft": 'SFTTrainer(train_dataset=load_dataset("json", data_files="{file}")["train"])'},
    ),
    "trl-sft": Format(
        "prompts and completions of TRL's SFTTrainer, which learns the completion alone",
        {"sft": _completion},
        {"sft": 'SFTTrainer(train_dataset=load_dataset("json", data_files="{file}")["train"])'},
    ),
    "trl-dpo": Format(
        "preference pairs with an explicit prompt, of TRL's DPOTrainer",
        {"dpo": _preference},
        {"dpo": 'DPOTrainer(train_dataset=load_dataset("json", data_files="{file}")["train"])'},
    ),
    "trl-prm": Format(
        "steps with labels, TRL's type of stepwise supervision (its PRMTrainer)",
        {"prm": _stepwise},
        {"prm": 'PRMTrainer(train_dataset=load_dataset("json", data_files="{file}")["train"])'},
    ),
    "llama-factory": Format(
        "ShareGPT's columns, and the dataset_info.json, of LLaMA-Factory",
        {"sft": _conversation, "dpo": _conversation_pair},
        {"sft": _LLAMA_FACTORY, "dpo": _LLAMA_FACTORY},
    ),
    "openrlhf": Format(
        "chats of OpenRLHF's train_sft, train_rm and train_dpo",
        {"sft": _input_output, "dpo": _whole_chats},
        {
            "sft": f"{_OPENRLHF} --input_key input --output_key output",
            "dpo": f"{_OPENRLHF} --chosen_key chosen --rejected_key rejected",
        },
    ),
}
