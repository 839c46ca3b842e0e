"""No text of a model, judge, data set or user becomes an element, a request or a script."""

import copy

PAYLOADS = [
    "<img src=x onerror=hacked()>", "<script>hacked()</script>", "</script><script>hacked()",
    "<svg onload=hacked()>", "<iframe src='javascript:hacked()'></iframe>",
    "<a href='javascript:hacked()'>a</a>", "\"><img src=http://a.invalid/b onerror=hacked()>",
    "' onmouseover='hacked()", "{{data}} {{script}} {{csp}}",
    "<!-- --><style>*{display:none}</style>",
    "<meta http-equiv=refresh content='0;url=http://a.invalid'>", "]]><b>bold</b>",
    "<link rel=stylesheet href=http://a.invalid/c.css>", "&lt;img src=x onerror=hacked()&gt;",
    "<math><mtext><table><mglyph><style><img src=x onerror=hacked()>", "javascript:hacked()",
    "<template><img src=x onerror=hacked()></template>", "<base href=http://a.invalid/>",
    "<form action=http://a.invalid><input autofocus onfocus=hacked()></form>", "${hacked()}",
    "<object data=http://a.invalid></object>", "<embed src=http://a.invalid>",
    "\u202e\u200b\x00\x1b[2J",
    "__proto__", "constructor", "<|Output|>Final Answer: <img src=x onerror=hacked()><|/Output|>",
]  # fmt: skip
# Names of all elements that the page makes by itself.
OWN = {
    "a", "article", "aside", "b", "body", "button", "canvas", "caption", "circle", "code", "dd",
    "details", "div", "dl", "dt", "figcaption", "figure", "form", "h1", "h2", "h3", "h4", "head",
    "header", "html", "i", "img", "input", "label", "li", "line", "main", "mark", "meta", "nav",
    "ol", "option", "output", "p", "path", "pre", "rect", "script", "section", "select", "small",
    "span", "style", "summary", "sup", "svg", "table", "tbody", "td", "text", "th", "thead",
    "title", "tr",
}  # fmt: skip
PLACES = [
    "/run/0", "/evaluation/0", "/answers/0", "/curves/0", "/searches/0", "/trees/0", "/pairs/0",
    "/tree/0/0/0", "/both", "/both/trees", "/both/cases", "/both/tree/0",
]  # fmt: skip
# What is shown by its own keys, or is read as a number or a name of the schema.
KEPT = {"blocks", "state", "unit", "svg", "finish", "role"}
SEEN = """() => {
  document.querySelectorAll("details").forEach((one) => (one.open = true));
  const names = [...document.querySelectorAll("*")].map((one) => one.localName);
  const scripts = document.querySelectorAll("script:not([type='application/octet-stream'])");
  const attributes = [...document.querySelectorAll("*")].flatMap((one) => [...one.attributes]);
  return {
    names: [...new Set(names)],
    scripts: scripts.length,
    handlers: attributes.filter(({ name }) => name.startsWith("on")).length,
    addresses: attributes.filter(({ name, value }) => ["href", "src", "action"].includes(name)
      && !value.startsWith("#") && !value.startsWith("data:image/svg+xml;base64,")).length,
    hacked: typeof window.wasHacked,
  };
}"""


def poisoned(value, counter, key=None):
    """A block with a payload in place of each text."""
    if isinstance(value, dict):
        return {name: poisoned(one, counter, name) for name, one in value.items()}
    if isinstance(value, list):
        return [poisoned(one, counter, key) for one in value]
    if not isinstance(value, str) or key in KEPT:
        return value
    counter[0] += 1
    return f"{PAYLOADS[counter[0] % len(PAYLOADS)]} {counter[0]}"


def hostile_report(made):
    """A report with payloads in all texts, 10,000 of them in a tree, and how many there are."""
    counter = [0]
    size = 10_000
    parents = [-1, *(max(0, (node - 1) // 3) for node in range(1, size))]
    big = made.tree()
    big["nodes"] = made.nodes(["x"] * size, parents, judge=["x"] * size)
    blocks = poisoned(copy.deepcopy(made.report(runs=2, trees=[big])), counter)
    blocks["trees/0"]["stages"], blocks["trees/0"]["id"] = ["0"], ["0"]  # named by the address
    return blocks, counter[0]


def test_ten_thousand_hostile_strings_make_no_element_and_no_request(made, open_report, show):
    blocks, count = hostile_report(made)
    assert count > 10_000
    opened = open_report("/run/0", blocks)
    page = opened.page
    page.evaluate("() => { window.hacked = () => { window.wasHacked = true; }; }")
    for place in PLACES:
        show(page, place)
        page.wait_for_selector("#main > *")
        for _ in range(2):  # details within details
            seen = page.evaluate(SEEN)
        assert set(seen["names"]) <= OWN, (place, set(seen["names"]) - OWN)
        assert seen | {"names": 0} == {
            "names": 0, "scripts": 1, "handlers": 0, "addresses": 0, "hacked": "undefined"
        }, place  # fmt: skip
    assert [address for address in opened.requests if not address.startswith("data:")] == [
        opened.requests[0]
    ]


def test_all_nodes_of_a_hostile_tree_pass_through_the_outline_as_text(made, open_report):
    blocks, _ = hostile_report(made)
    high = {"width": 1000, "height": 8000}
    page = open_report("/tree/0/0/0?as=outline", blocks, viewport=high).page
    rows = page.evaluate(
        """async () => {
          const list = document.querySelector(".outline .windowed");
          const seen = new Set();
          for (let top = 0; top < list.scrollHeight; top += list.clientHeight) {
            list.scrollTop = top;
            await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
            list.querySelectorAll(".row").forEach((row) => seen.add(row.dataset.row));
            if (list.querySelector("img, script, svg, a, style, iframe")) return "an element";
          }
          return seen.size;
        }"""
    )
    assert rows == 10_000


def test_invisible_characters_stand_there_as_their_names(made, open_report):
    tree = made.tree(prompt="a\u202eb\u200bc\x1b[2Jd\x00")
    page = open_report("/tree/0/search1/t0", made.report(trees=[tree])).page
    said = page.locator(".panel .turn .text").last.text_content()
    assert said == "a[U+202E]b[U+200B]c\u241b[2Jd\u2400"
