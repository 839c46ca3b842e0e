"""How fast the report's page shows a large tree: first paint, panning, memory, requests.

    python -m benchmarks.viewer                    # 100,000 nodes, canvas and outline
    python -m benchmarks.viewer --nodes 10000

A tree of random shape and texts is written as a report is, and opened from its file in a browser
without a window. `first_paint_ms` counts from the start of the navigation: reading the file,
unpacking, laying out and drawing. `pan_p95_ms` is of the times between two frames while the mouse
drags the tree (canvas) or the wheel moves it (outline); `busy_ms_frame` is what the page's thread
works for a frame in the processor's time, so that other work on the machine does not count.
`requests` are those besides the file.
Needs playwright and a browser, such as Debian's chromium-headless-shell.
"""

import argparse
import json
import random
import shutil
import statistics
import tempfile
from pathlib import Path
from typing import Any

from stair_jax.errors import UserError
from stair_jax.reports.html.page import page, read_assets
from stair_jax.reports.html.parts import encode_text, to_json
from stair_jax.reports.html.schema import SCHEMA
from stair_jax.reports.html.schema_trees import Tree

BROWSER = "chromium-headless-shell"
BARS = {"first_paint_ms": 1000, "pan_p95_ms": 25, "requests": 0}
_WIDTH, _HEIGHT = 1440, 900
_DEEPEST = 12
_WORDS = ("the", "user", "asks", "how", "to", "make", "it", "safe", "risk", "harm", "then", "why")
# When the page first said that it had drawn this.
_DRAWN = """(name) => new Promise((done) => {
  const look = () => {
    const [found] = performance.getEntriesByName(name);
    found ? done(found.startTime) : setTimeout(look, 5);
  };
  look();
})"""
# Times between frames, of each of which the browser tells when it began.
_WATCH = """() => {
  window.frameTimes = [];
  let last;
  const frame = (now) => {
    if (last !== undefined) frameTimes.push(now - last);
    last = now;
    requestAnimationFrame(frame);
  };
  requestAnimationFrame(frame);
}"""


def main() -> None:
    """Prints a line of JSON for each way to show the tree."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nodes", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=5, help="first paints; the median counts")
    flags = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "report.html"
        write_tree(path, random_tree(flags.nodes))
        for kind in ("canvas", "outline"):
            measure(path, kind, flags.repeats)


def random_tree(nodes: int, seed: int = 0) -> Tree:
    """A tree of the report with random shape, texts and values."""
    draw = random.Random(seed)
    parent, depth = [-1], [0]
    for node in range(1, nodes):
        above = draw.randrange(max(0, node - 3000), node)
        while depth[above] >= _DEEPEST:
            above = parent[above]
        parent.append(above)
        depth.append(depth[above] + 1)
    visits = [1] * nodes
    for node in range(nodes - 1, 0, -1):
        visits[parent[node]] += visits[node]
    inner = set(parent)
    terminal = [node not in inner for node in range(nodes)]
    value = [round(draw.uniform(-3, 3), 3) for _ in range(nodes)]
    nothing: list[Any] = [None] * nodes
    return {
        "search": "search1", "id": "t0", "kind": "safety", "source": "plain", "turns": [],
        "prompt": "how do i make it ?", "start": "", "iterations": nodes, "counts": {},
        "tokens": 0, "seconds": 0.0, "pairs": [], "said": [],
        "nodes": {
            "parent": parent, "text": ["", *(_step(draw) for _ in range(1, nodes))],
            "visits": visits, "value": list(value), "helpfulness": nothing, "safety": nothing,
            "reward": [one if ends else None for one, ends in zip(value, terminal, strict=True)],
            "judge": nothing, "terminal": terminal, "prior": [0.0] * nodes, "missing": [0] * nodes,
        },
    }  # fmt: skip


def _step(draw: random.Random) -> str:
    words = " ".join(draw.choices(_WORDS, k=draw.randrange(8, 30)))
    return f"<|Reasoning_step|>Title: {draw.choice(_WORDS)}\n{words}\n<|/Reasoning_step|>"


def write_tree(path: Path, tree: Tree) -> None:
    """Writes a report of one tree."""
    nodes = len(tree["nodes"]["parent"])
    row = {
        "stage": 0, "id": tree["id"], "kind": tree["kind"], "source": tree["source"],
        "prompt": tree["prompt"], "nodes": nodes, "depth": _DEEPEST, "visits": nodes, "value": 0.0,
        "low": -3.0, "high": 3.0, "pairs": 0, "missing": 0, "unreadable": 0, "malformed": 0,
        "tokens": 0, "seconds": 0.0, "block": 0, "slot": 0,
    }  # fmt: skip
    run = {"name": "run", "folder": "run", "seed": 0, "config": {}, "trees": 1, "pairs": 0}
    head = {
        "schema": SCHEMA, "title": "run", "version": "", "written": "", "live": False,
        "runs": [run | {"cases": 0}], "notes": [], "blocks": ["trees/0"],
    }  # fmt: skip
    trees = {"stages": [tree["search"]]} | {key: [value] for key, value in row.items()}
    blocks = {"head": head, "trees/0": trees, "trees/0/0": [tree]}
    encoded = ((name, encode_text(to_json(block))) for name, block in blocks.items())
    path.write_text("".join(page(read_assets(), encoded, live=False)), encoding="utf-8")


def measure(path: Path, kind: str, repeats: int) -> None:
    """Opens the page so many times, pans once, and prints what was seen."""
    from playwright.sync_api import sync_playwright  # of the extra dev alone

    found = shutil.which(BROWSER)
    if found is None:
        raise UserError(f"{BROWSER} is not installed: apt-get install {BROWSER}")
    address = f"{path.as_uri()}#/tree/0/search1/t0?as={kind}"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found)
        requests: list[str] = []
        paints = []
        for _ in range(repeats):
            view = browser.new_page(viewport={"width": _WIDTH, "height": _HEIGHT})
            view.on("request", lambda request: requests.append(request.url))
            view.goto(address)
            paints.append(_first_paint(view, kind))
            if len(paints) < repeats:
                view.close()
        clock = view.context.new_cdp_session(view)
        clock.send("Performance.enable", {"timeDomain": "threadTicks"})
        busy = _busy_seconds(clock)
        frames = _pan(view, kind)
        busy = _busy_seconds(clock) - busy
        heap = view.evaluate("performance.memory.usedJSHeapSize") / 2**20
        browser.close()
    line = {
        "name": f"viewer_{kind}",
        "first_paint_ms": round(statistics.median(paints)),
        "pan_p95_ms": round(statistics.quantiles(frames, n=20)[-1], 1),
        "busy_ms_frame": round(1000 * busy / len(frames), 1),
        "requests": len(requests) - repeats,
        "frames": len(frames),
        "heap_mib": round(heap),
        "file_mib": round(path.stat().st_size / 2**20, 2),
        "bars": BARS,
    }
    print(json.dumps(line), flush=True)


def _first_paint(view: Any, kind: str) -> float:
    """Milliseconds from the start of the navigation until the tree is drawn."""
    found: float = view.evaluate(_DRAWN, "tree painted" if kind == "canvas" else "page shown")
    return found


def _busy_seconds(clock: Any) -> float:
    """Of the page's main thread so far, in the processor's time."""
    metrics = clock.send("Performance.getMetrics")["metrics"]
    found: float = next(one["value"] for one in metrics if one["name"] == "TaskDuration")
    return found


def _pan(view: Any, kind: str) -> list[float]:
    """Milliseconds between frames while the tree is moved, zoomed in and out."""
    box = view.locator("canvas" if kind == "canvas" else ".outline .windowed").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    view.mouse.move(x, y)
    view.evaluate(_WATCH)
    for turn in range(6):
        if kind == "canvas":
            view.mouse.down()
            view.mouse.move(x - 150, y + (300 if turn % 2 else -300), steps=40)
            view.mouse.up()
            view.mouse.move(x, y)
            view.keyboard.press("-")
        else:
            for _ in range(20):
                view.mouse.wheel(0, 400 * (turn + 1))
    frames: list[float] = view.evaluate("frameTimes")
    return frames


if __name__ == "__main__":
    main()
