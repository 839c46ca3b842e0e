"""Searches, trees and pairs in the blocks of `schema.py`."""

from typing import TypedDict


class Probe(TypedDict):
    """How well a judge tells answers apart whose worth is known.

    Attributes:
      what: such as "safety".
      value: the area under the curve.
      low: lower end of its 95 % interval.
      high: upper end.
    """

    what: str
    value: float | None
    low: float | None
    high: float | None


class Histogram(TypedDict):
    """How a number is spread over trees.

    Attributes:
      name: of the number, such as "value of the root".
      edges: of the bins, one more than counts.
      counts: by kind of prompt, trees in each bin.
    """

    name: str
    edges: list[float]
    counts: dict[str, list[int]]


class PairCounts(TypedDict):
    """What became of the candidates for pairs.

    Attributes:
      stage: that chose the pairs.
      file: such as "dpo".
      counts: by reason, such as "small_gap", and "pairs".
      regret: by kind of prompt, the mean regret of the trees' choices; none where not measured.
    """

    stage: str
    file: str
    counts: dict[str, int]
    regret: dict[str, float]


class Search(TypedDict):
    """Statistics of a search.

    Attributes:
      stage: its name.
      trees: number of them.
      skipped: prompts without a tree, by reason.
      kinds: trees by kind of prompt.
      counts: events summed over the trees, such as "rollouts", "malformed" and "unreadable".
      iterations: of all trees.
      generated_tokens: of all trees.
      prefilled_tokens: of all trees.
      probe: of the judge; empty: not probed.
      replies: of the judge to the probe, some of them.
      histograms: value of the root, spread of the values, nodes, depth.
      pairs: of the stages that chose pairs from these trees.
    """

    stage: str
    trees: int
    skipped: dict[str, int]
    kinds: dict[str, int]
    counts: dict[str, int]
    iterations: int
    generated_tokens: int
    prefilled_tokens: int
    probe: list[Probe]
    replies: list[str]
    histograms: list[Histogram]
    pairs: list[PairCounts]


class TreeList(TypedDict):
    """All trees of a run as columns.

    Attributes:
      stages: names of the searches.
      stage: number of the search in `stages`.
      id: of the tree.
      kind: "safety" or "helpfulness".
      source: of the prompt.
      prompt: its first characters.
      nodes: number of nodes, the root included.
      depth: of the deepest node.
      visits: of the root.
      value: of the root.
      low: the lowest reward of an answer in it; null: no rewards.
      high: the highest; high - low is the spread.
      pairs: for DPO that were chosen from it; step pairs, where there are some of its search.
      missing: evaluations that gave no reward.
      unreadable: replies of the judge that could not be read.
      malformed: answers of another form than steps and one output block.
      tokens: sampled for it.
      seconds: from its start to its end, beside others.
      block: number of the block that has the tree; null: not in this file.
      slot: place in the block.
    """

    stages: list[str]
    stage: list[int]
    id: list[str]
    kind: list[str]
    source: list[str]
    prompt: list[str]
    nodes: list[int]
    depth: list[int]
    visits: list[int]
    value: list[float | None]
    low: list[float | None]
    high: list[float | None]
    pairs: list[int]
    missing: list[int]
    unreadable: list[int]
    malformed: list[int]
    tokens: list[int]
    seconds: list[float]
    block: list[int | None]
    slot: list[int]


class Nodes(TypedDict):
    """The nodes of a tree as columns; node 0 is the root, and parents stand before children.

    Attributes:
      parent: number of the node above; -1 for the root.
      text: of the step, with its tags; "" for the root.
      visits: number of rewards in the subtree, missing ones excluded.
      value: mean of these rewards.
      reward: of the node's own answer; of others than terminal nodes that of the first answer that
        was judged from here.
      helpfulness: of the same answer.
      safety: of the same answer.
      judge: that answer, and the judgements of further ones, as text; null: nothing was judged.
      terminal: whether the step ends the answer.
      prior: of the step.
      missing: evaluations in the subtree that gave no reward.
    """

    parent: list[int]
    text: list[str]
    visits: list[int]
    value: list[float | None]
    reward: list[float | None]
    helpfulness: list[float | None]
    safety: list[float | None]
    judge: list[str | None]
    terminal: list[bool]
    prior: list[float]
    missing: list[int]


class Said(TypedDict):
    """Words of the judge about one answer of a tree, where a sample was kept.

    Attributes:
      question: what was asked, such as "safety reply".
      text: what the judge wrote.
    """

    question: str
    text: str


class Tree(TypedDict):
    """A search tree.

    Attributes:
      search: name of the stage.
      id: of the tree.
      kind: "safety" or "helpfulness".
      source: of the prompt.
      turns: the chat before the prompt, as [role, text].
      prompt: all of it.
      start: what all answers begin with; "": nothing.
      iterations: of the search.
      counts: events, such as "rollouts".
      tokens: sampled.
      seconds: from its start to its end, beside others.
      nodes: of the tree.
      pairs: [better node, worse node] of each pair that `TreeList.pairs` counts.
      said: words of the judge.
    """

    search: str
    id: str
    kind: str
    source: str
    turns: list[list[str]]
    prompt: str
    start: str
    iterations: int
    counts: dict[str, int]
    tokens: int
    seconds: float
    nodes: Nodes
    pairs: list[list[int]]
    said: list[Said]


class PairList(TypedDict):
    """All preference pairs of a run as columns.

    Attributes:
      files: the files, as "STAGE/dpo" or "STAGE/prm".
      file: number of the file in `files`.
      id: of the pair.
      kind: "safety" or "helpfulness".
      form: "step", "trajectory" or "answer" (not of a tree).
      prompt: its first characters.
      chosen_value: of the better side; null: not known.
      rejected_value: of the worse side.
      chosen_visits: of the better side.
      rejected_visits: of the worse side.
      depth: of the better node; null: not of a tree.
      tree: row of its tree in the run's TreeList; null: not of a tree.
      chosen: number of the better node in the tree; null: not of a tree.
      rejected: number of the worse node.
      block: number of the block that has its texts; null: not in this file.
      slot: place in the block.
    """

    files: list[str]
    file: list[int]
    id: list[str]
    kind: list[str]
    form: list[str]
    prompt: list[str]
    chosen_value: list[float | None]
    rejected_value: list[float | None]
    chosen_visits: list[int | None]
    rejected_visits: list[int | None]
    depth: list[int | None]
    tree: list[int | None]
    chosen: list[int | None]
    rejected: list[int | None]
    block: list[int | None]
    slot: list[int]


class Pair(TypedDict):
    """The texts of a pair.

    Attributes:
      turns: the chat before the prompt, as [role, text].
      prompt: all of it.
      path: steps that both sides share.
      chosen: steps of the better side behind these.
      rejected: steps of the worse side.
    """

    turns: list[list[str]]
    prompt: str
    path: list[str]
    chosen: list[str]
    rejected: list[str]
