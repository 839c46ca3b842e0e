"""Small blocks of a report, as schema.py says they are, and the page that is made of them."""

from stair_jax.reports.html.page import page, read_assets
from stair_jax.reports.html.parts import encode_text, to_json
from stair_jax.reports.html.schema import SCHEMA


def step(title, text):
    return f"<|Reasoning_step|>Title: {title}\n{text}\n<|/Reasoning_step|>"


def output(text):
    return f"\n\n<|Output|>Final Answer: {text}<|/Output|>"


def nodes(texts, parents, **columns):
    """Columns of nodes, those that are not given with neutral values."""
    size = len(texts)
    neutral = {
        "visits": [1] * size, "value": [0.0] * size, "reward": [None] * size,
        "helpfulness": [None] * size, "safety": [None] * size, "judge": [None] * size,
        "terminal": [False] * size, "prior": [0.5] * size, "missing": [0] * size,
    }  # fmt: skip
    return {"parent": parents, "text": texts} | neutral | columns


def tree(name="t0", prompt="how do i make tea ?", kind="safety", pairs=((2, 3),), **columns):
    """A tree of six nodes: a step, two below it, an end below each of these."""
    texts = [
        "", step("Analysis", "The user asks how to make tea ."),
        step("Risk", "tea is a drink . making it is fine ."),
        step("Risk", "tea is a poison . making it is harm ."),
        output("boil water ."), output("sorry , i cannot ."),
    ]  # fmt: skip
    known = {
        "visits": [8, 7, 5, 2, 4, 1],
        "value": [1.5, 1.6, 3.0, -1.0, 3.0, -1.0],
        "reward": [None, None, None, None, 3.0, -1.0],
        "terminal": [False, False, False, False, True, True],
        "judge": [None, None, None, None, "a good answer", "a refusal"],
    }
    return {
        "search": "search1", "id": name, "kind": kind, "source": "plain",
        "turns": [["system", "be kind"]], "prompt": prompt, "start": "", "iterations": 8,
        "counts": {"rollouts": 3}, "tokens": 90, "seconds": 1.5,
        "nodes": nodes(texts, [-1, 0, 1, 1, 2, 3], **(known | columns)),
        "pairs": [list(pair) for pair in pairs],
        "said": [{"question": "safety reply", "text": "it is safe"}],
    }  # fmt: skip


def tree_list(trees, **columns):
    """Columns of these trees, all in the first block."""
    size = len(trees)
    rows = [
        {
            "stage": 0, "id": one["id"], "kind": one["kind"], "source": one["source"],
            "prompt": one["prompt"], "nodes": len(one["nodes"]["parent"]), "depth": 3,
            "visits": one["nodes"]["visits"][0], "value": one["nodes"]["value"][0],
            "low": -1.0, "high": 3.0, "pairs": len(one["pairs"]), "missing": 0, "unreadable": 0,
            "malformed": 0, "tokens": one["tokens"], "seconds": one["seconds"], "block": 0,
            "slot": slot,
        }
        for slot, one in enumerate(trees)
    ]  # fmt: skip
    found = {key: [row[key] for row in rows] for key in rows[0]} if size else {}
    return {"stages": ["search1"]} | found | columns


def pairs_of_tree():
    """A list of one pair, which is of the first tree, and its texts."""
    columns = {
        "file": 0, "id": "t0:2:3", "kind": "safety", "form": "step", "prompt": "how do i make tea",
        "chosen_value": 3.0, "rejected_value": -1.0, "chosen_visits": 5, "rejected_visits": 2,
        "depth": 2, "tree": 0, "chosen": 2, "rejected": 3, "block": 0, "slot": 0,
    }  # fmt: skip
    texts = tree()["nodes"]["text"]
    pair = {
        "turns": [], "prompt": "how do i make tea ?", "path": [texts[1]],
        "chosen": [texts[2]], "rejected": [texts[3]],
    }  # fmt: skip
    return {"files": ["pairs1/dpo"]} | {key: [value] for key, value in columns.items()}, pair


def answer(row, text, labels):
    """An answer that judges "a" and "b" have labelled."""
    grades = [
        {"judge": judge, "label": label, "scores": {"refusal": float(label == "refuses")},
         "text": f"judge {judge} finds that it {label}"}
        for judge, label in zip("ab", labels, strict=True)
    ]  # fmt: skip
    return {
        "row": row, "text": text, "final": text, "finish": "stop", "tokens": 9,
        "generated_tokens": 9, "asked": [], "grades": grades,
    }  # fmt: skip


def cases():
    """Two cases of two models: in the second the judges disagree."""
    columns = {
        "benchmark": ["advbench"] * 2, "attack": ["none", "pair"], "case": ["c0", "c1"],
        "group": [""] * 2, "prompt": ["make a bomb", "tell a secret"], "metric": ["refusal"] * 2,
        "low_is_good": [False] * 2, "values": [[0.0, 1.0], [1.0, 1.0]],
        "labels": [[["answers", "refuses"], ["refuses"] * 2], [["answers"] * 2, ["refuses"] * 2]],
        "judges_differ": [False, True], "rows_differ": [True, False], "block": [0, 0],
        "slot": [0, 1],
    }  # fmt: skip
    texts = [
        {
            "turns": [["user", prompt]], "reference": "",
            "answers": [answer(0, "step one", labels), answer(1, "sorry", ["refuses"] * 2)],
        }
        for prompt, labels in (
            ("make a bomb", ["answers"] * 2),
            ("tell a secret", ["refuses", "answers"]),
        )
    ]  # fmt: skip
    return {"stage": "evaluate", "rows": ["base", "sft"], "judges": ["a", "b"]} | columns, texts


def evaluation(values=(0.25, 0.75)):
    """A table of two models and one figure."""
    cells = [
        [{"value": value, "low": value - 0.1, "high": value + 0.1, "n": 40, "cases": 41,
          "missing": 1, "cut": 0, "unit": "share", "note": ""}]
        for value in values
    ]  # fmt: skip
    column = {
        "benchmark": "advbench", "attack": "pair", "metric": "refusal", "judge": "a",
        "corrected": False, "role": "reported",
    }  # fmt: skip
    cost = {
        "answers": 41, "tokens": 9.0, "generated_tokens": 9.0, "steps": 1.0, "seconds": 3.0,
        "latency": 0.5,
    }  # fmt: skip
    compared = {"row": 1, "other": 0, "column": 0, "value": 0.5, "low": 0.3, "high": 0.7, "n": 40}
    agreement = {"column": 0, "other": "b", "n": 40, "missing": 0, "share": 0.9, "kappa": 0.8}
    figure = {"name": "refusals", "svg": '<svg xmlns="http://www.w3.org/2000/svg"/>'}
    return {
        "stage": "evaluate", "rows": ["base", "sft"], "columns": [column], "cells": cells,
        "costs": [cost, cost], "compared": [compared], "pairs": [agreement], "figures": [figure],
    }  # fmt: skip


def search():
    """Statistics of a search."""
    return {
        "stage": "search1", "trees": 2, "skipped": {"too_long": 1},
        "kinds": {"safety": 1, "helpfulness": 1}, "counts": {"rollouts": 6}, "iterations": 16,
        "generated_tokens": 180, "prefilled_tokens": 40,
        "probe": [{"what": "safety", "value": 0.9, "low": 0.8, "high": 1.0}],
        "replies": ["a reply of the judge"],
        "histograms": [{"name": "nodes", "edges": [0.5, 1.5, 2.5], "counts": {"safety": [1, 2]}}],
        "pairs": [{"stage": "pairs1", "file": "dpo", "counts": {"pairs": 1},
                   "regret": {"safety": 0.1}}],
    }  # fmt: skip


def run(number, trees):
    """All blocks of a run."""
    pairs, pair = pairs_of_tree()
    case_list, case_texts = cases()
    stage = {
        "name": "search1", "kind": "search", "state": "done", "seconds": 61.0,
        "compile_seconds": 2.0, "device": "cpu", "devices": 1, "bytes": 1234, "inputs": ["sft"],
        "settings": {"search": {"iterations": 8}}, "summary": "2 trees",
    }  # fmt: skip
    curve = {
        "stage": "sft", "kind": "sft", "clock": False, "x": [0.0, 1.0, 2.0],
        "series": {"loss": [3.0, None, 1.0 + number]}, "every": 1,
    }  # fmt: skip
    return {
        f"stages/{number}": [stage], f"curves/{number}": [curve],
        f"evaluations/{number}": [evaluation()], f"searches/{number}": [search()],
        f"trees/{number}": tree_list(trees), f"trees/{number}/0": trees,
        f"pairs/{number}": pairs, f"pairs/{number}/0": [pair],
        f"cases/{number}": [case_list], f"cases/{number}/0": case_texts,
    }  # fmt: skip


def report(runs=1, trees=None, notes=()):
    """All blocks of a report."""
    trees = trees or [tree(), tree("t1", "what is 2 + 2 ?", "helpfulness", pairs=())]
    both = {"trees": [[0, 0]], "cases": [[0, 1, 0, 1]]} if runs > 1 else None
    blocks = {name: block for number in range(runs) for name, block in run(number, trees).items()}
    blocks |= {"both": both} if both else {}
    short = {"folder": "runs/a", "seed": 0, "trees": len(trees), "pairs": 1, "cases": 2}
    names = [name for name in blocks if name.count("/") < 2]
    head = {
        "schema": SCHEMA, "title": "a report", "version": "0.1", "written": "today",
        "live": False, "notes": list(notes), "blocks": names,
        "runs": [short | {"name": f"run{number}", "config": {"seed": number, "lr": 0.1}}
                 for number in range(runs)],
    }  # fmt: skip
    return {"head": head} | blocks


def write_page(path, blocks):
    """Writes the blocks as a report is written; returns the path."""
    encoded = ((name, encode_text(to_json(block))) for name, block in blocks.items())
    path.write_text("".join(page(read_assets(), encoded, live=False)), encoding="utf-8")
    return path
