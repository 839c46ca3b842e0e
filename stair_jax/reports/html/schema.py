"""The blocks of data that a report is made of: JSON values by name.

In a file the block NAME is the element `<script type="application/octet-stream" id="data:NAME">`,
whose text is base64 of gzip of JSON. A page that is served (`Head.live`) finds the JSON of NAME at
`data/NAME`, relative to its own address. R is the number of a run in `Head.runs`, K a number that a
column `block` names.

    head                Head
    stages/R            list of Stage
    curves/R            list of Curve
    evaluations/R       list of Evaluation
    searches/R          list of Search
    trees/R             TreeList               trees/R/K      list of Tree
    pairs/R             PairList               pairs/R/K      list of Pair
    cases/R             list of CaseList       cases/R/K      list of Case
    both                Both (of two runs)

`schema_tables.py` has Evaluation, `schema_trees.py` what is of searches, trees and pairs,
`schema_cases.py` what is of cases; this file has the rest.

`head` is always there, and says in `Head.blocks` which others are, but for those with a K: whether
one of these is there, the columns `block` say. Lists of many rows are columns: lists of one length,
with the rows in the same order. The text of row i is `read("trees/R/" + block[i])[slot[i]]`; where
`block[i]` is null, the text is not in this file (`Head.notes` says so, in words for readers). All
text is of models, data sets and users: none of it may become markup. A number that is not there is
null, never NaN.
"""

from typing import Any, TypedDict

SCHEMA = 1  # of all blocks; a page shows no other


class Head(TypedDict):
    """What is known first.

    Attributes:
      schema: `SCHEMA`.
      title: of the page.
      version: of stair_jax that made it.
      written: when, as "2026-11-30 14:05 UTC".
      live: whether the page is served, and may read more.
      runs: one, or two that are looked at side by side.
      notes: sentences about what is left out, such as "300 of 4,000 trees are in this file".
      blocks: the names of all blocks without a K.
    """

    schema: int
    title: str
    version: str
    written: str
    live: bool
    runs: list["Run"]
    notes: list[str]
    blocks: list[str]


class Run(TypedDict):
    """A run in short.

    Attributes:
      name: of its folder, made unique where two have the same.
      folder: its path as it was given.
      seed: of the config.
      config: all settings, as of `config.json`.
      trees: number of search trees.
      pairs: number of preference pairs of all files.
      cases: number of cases of all evaluations.
    """

    name: str
    folder: str
    seed: int | None
    config: dict[str, Any]
    trees: int
    pairs: int
    cases: int


class Stage(TypedDict):
    """A stage of a run, in the order of the config.

    Attributes:
      name: of the stage.
      kind: of the stage, such as "search" or "dpo".
      state: "done", "under way" or "to do".
      seconds: of all starts by the wall clock; null: not written down.
      compile_seconds: of these, spent on compiling.
      device: kind of the devices of the last start; "": not known.
      devices: number of them.
      bytes: of the files that it made.
      inputs: names of the stages that it read.
      settings: that what it made depends on.
      summary: what the stage says of itself, several lines; "": nothing.
    """

    name: str
    kind: str
    state: str
    seconds: float | None
    compile_seconds: float | None
    device: str
    devices: int
    bytes: int
    inputs: list[str]
    settings: dict[str, Any]
    summary: str


class Curve(TypedDict):
    """The values of a stage over its steps; of a search a step is a tree.

    Attributes:
      stage: its name.
      kind: of the stage.
      clock: whether the values depend on the clock (speeds), and differ between equal runs.
      x: the steps, ascending.
      series: by name, a value for each step.
      every: a value is the mean of so many steps in a row; 1: of one.
    """

    stage: str
    kind: str
    clock: bool
    x: list[float]
    series: dict[str, list[float | None]]
    every: int


class Both(TypedDict):
    """What two runs have in common.

    Attributes:
      trees: [row of the first run's TreeList, row of the second's] of trees of the same prompt.
      cases: [CaseList, case, CaseList, case]: numbers of the same case in the first run and in the
        second.
    """

    trees: list[list[int]]
    cases: list[list[int]]
