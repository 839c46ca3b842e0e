"""The file of a report: no text becomes markup, nothing is asked for, limits are said."""

import base64
import gzip
import hashlib
import json
import re
from html.parser import HTMLParser

import pytest

from stair_jax import storage
from stair_jax.errors import UserError
from stair_jax.reports.choosing import in_turn
from stair_jax.reports.html import at_end, page
from stair_jax.reports.html.build import write_report
from stair_jax.reports.html.parts import Part, encode_text, pack, to_json
from stair_jax.reports.html.settings import ReportSettings

HOSTILE = [
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "<!-- <script> -->",
    "{{script}} {{csp}}",
    "\u2028\u2029\x00\ud7ff & &lt;",
    "<|/Output|></style>",
]


class Elements(HTMLParser):
    """The elements of a page, with their attributes and texts."""

    def __init__(self, text):
        super().__init__()
        self.found = []
        self._is_open = False
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.found.append([tag, dict(attributes), ""])
        self._is_open = True

    def handle_endtag(self, tag):
        self._is_open = False

    def handle_data(self, data):
        if self._is_open:
            self.found[-1][2] += data

    def named(self, tag):
        return [(attributes, text) for name, attributes, text in self.found if name == tag]


def elements(path):
    return Elements(path.read_text(encoding="utf-8"))


def blocks(path):
    """The blocks of a file, by name."""
    data = {
        attributes["id"].removeprefix("data:"): text
        for attributes, text in elements(path).named("script")
        if attributes.get("type") == "application/octet-stream"
    }
    return {name: json.loads(gzip.decompress(base64.b64decode(t))) for name, t in data.items()}


@pytest.fixture
def hostile_run(tmp_path, records):
    trees = [records.tree(f"t{n}", prompt=text, text=text) for n, text in enumerate(HOSTILE)]
    records.search(tmp_path / "a", trees, [f"t{n}:1:2" for n in range(len(HOSTILE))])
    stages = ["search:search1", "preferences:pairs1"]
    storage.write_json(tmp_path / "a" / "config.json", {"seed": 0, "stages": stages, "x": HOSTILE})
    return tmp_path / "a"


def test_hostile_texts_make_no_element_and_come_back_as_they_are(hostile_run, run):
    path, other = write_report([hostile_run]), write_report([run.workdir])
    kinds = [
        [tag for tag, attributes, _ in elements(each).found if "id" not in attributes]
        for each in (path, other)
    ]
    assert kinds[0] == kinds[1]
    found = blocks(path)
    assert found["head"]["runs"][0]["config"]["x"] == HOSTILE
    trees = [tree for name, value in found.items() if name.startswith("trees/0/") for tree in value]
    assert sorted(tree["nodes"]["text"][1] for tree in trees) == sorted(HOSTILE)


def test_the_policy_allows_this_style_and_script_alone(run):
    found = elements(write_report([run.workdir]))
    ((policy, _),) = [
        each
        for each in found.named("meta")
        if "content" in each[0] and each[0].get("http-equiv") == "Content-Security-Policy"
    ]
    policies = dict(part.strip().split(" ", 1) for part in policy["content"].split(";"))
    assert policies["default-src"] == "'none'" and "connect-src" not in policies
    for kind, texts in (
        ("script-src", [t for a, t in found.named("script") if "id" not in a]),
        ("style-src", [t for _, t in found.named("style")]),
    ):
        hashes = [base64.b64encode(hashlib.sha256(t.encode()).digest()).decode() for t in texts]
        assert policies[kind] == " ".join(f"'sha256-{each}'" for each in hashes)
    addresses = [v for _, a, _ in found.found for n, v in a.items() if n in ("src", "href")]
    assert all(address.startswith("#") for address in addresses)


def test_the_same_run_gives_the_same_file_but_for_its_time(run):
    def written():
        text = write_report([run.workdir]).read_text()
        return re.sub(r'id="data:head">[^<]*<', "", text)

    assert written() == written()


def test_texts_beyond_the_limits_are_left_out_and_that_is_said(run):
    path = write_report([run.workdir], settings=ReportSettings(trees=1, pairs=0))
    found = blocks(path)
    assert found["head"]["notes"] == [
        "Of a the texts of 1 of 2 trees, 0 of 1 pairs are in this file; "
        f"stair-jax view {run.workdir} shows all."
    ]
    assert found["trees/0"]["block"] == [0, None]  # of the one with a pair
    assert found["trees/0/0"][0]["id"] == "t1"
    assert found["pairs/0"]["block"] == [None] and "pairs/0/0" not in found
    assert found["pairs/0"]["prompt"] == ["How do I kill a process that hangs?"]


def test_every_row_is_read_from_its_block_and_place(run):
    found = blocks(write_report([run.workdir]))
    trees = found["trees/0"]
    for number, name in enumerate(trees["id"]):
        block, slot = trees["block"][number], trees["slot"][number]
        assert found[f"trees/0/{block}"][slot]["id"] == name


def part_of(texts, order=None):
    order = range(len(texts)) if order is None else order
    return Part("trees", [{}], [len(texts)], lambda row: {"text": texts[row]}, order)


def test_packed_texts_keep_to_the_size_and_come_in_their_order():
    texts = [f"{number}" * 200_000 for number in range(8)]
    whole = pack(part_of(texts), 8, 10**9)
    assert whole.rows == 8 and len(whole.texts) == 4
    size = sum(map(len, whole.texts[:2]))
    some = pack(part_of(texts, [7, 6, 5, 4, 3, 2, 1, 0]), 8, size)
    assert some.rows == 4 and sum(map(len, some.texts)) <= size
    assert some.blocks == [None] * 4 + [1, 1, 0, 0] and some.slots[4:] == [1, 0, 1, 0]


def test_rows_are_taken_in_turn():
    assert in_turn([[1, 2, 3], [], [4]]) == [1, 4, 2, 3]


def test_blocks_hold_no_character_that_html_knows():
    text = to_json({"a": HOSTILE, "b": float("nan")})
    assert text.isascii() and json.loads(text) == {"a": HOSTILE, "b": None}
    assert re.fullmatch(r"[A-Za-z0-9+/=]+", encode_text(text))
    assert encode_text(text) == encode_text(text)


def test_the_page_takes_its_own_files_in_their_order(tmp_path):
    for name, text in {
        "order.txt": "a.css\nb.js\na.js\n",
        "page.html": '<meta content="{{csp}}"><style>{{style}}</style>{{data}}<s>{{script}}</s>',
        "a.css": "A",
        "a.js": "last {{data}}",
        "b.js": "first",
    }.items():
        (tmp_path / name).write_text(text)
    assets = page.read_assets(tmp_path)
    made = "".join(page.page(assets, [("head", "QQ==")], live=True))
    assert "connect-src 'self'" in made and made.count("QQ==") == 1
    assert made.endswith('id="data:head">QQ==</script>\n<s>first\nlast {{data}}</s>')


@pytest.mark.parametrize("text", ["a</script>", "</STYLE", "<!-- x"])
def test_files_of_the_page_cannot_end_their_element(tmp_path, text):
    (tmp_path / "order.txt").write_text("a.js")
    (tmp_path / "a.js").write_text(text)
    with pytest.raises(ValueError, match=r"a\.js has"):
        page.read_assets(tmp_path)


def test_a_finished_run_writes_its_report_once_and_says_where(run, capsys):
    path = run.workdir / "report.html"
    at_end.report_at_end(run.workdir)
    assert capsys.readouterr().err.splitlines() == [
        "writing the report of the run",
        f"report: {path} (open it in a browser)",
    ]
    before = path.stat().st_mtime_ns
    at_end.report_at_end(run.workdir)
    assert path.stat().st_mtime_ns == before and str(path) in capsys.readouterr().err
    config = run.workdir / "config.json"
    storage.write_json(config, storage.read_json(config))
    at_end.report_at_end(run.workdir)
    assert path.stat().st_mtime_ns > before


@pytest.mark.parametrize("error", [UserError("it is\nbroken"), ZeroDivisionError("it is broken")])
def test_a_report_that_fails_does_not_fail_the_run(run, capsys, monkeypatch, error):
    def fail(folders):
        raise error

    monkeypatch.setattr(at_end, "write_report", fail)
    at_end.report_at_end(run.workdir)
    said = capsys.readouterr().err.splitlines()[1:]
    assert len(said) == 1 and said[0].endswith("it is broken") and "the run is done" in said[0]


def test_damaged_records_are_one_line(run):
    trees = run.workdir / "search1" / "trees.jsonl.gz"
    trees.write_bytes(b"x" + trees.read_bytes()[1:])
    with pytest.raises(UserError, match="damaged at record 1"):
        write_report([run.workdir])
