"""The report's page in a browser: where it leads, what it shows, and by which keys."""

import pytest

PLACES = {
    "/run/0": "Stages",
    "/evaluation/0": "advbench",
    "/answers/0": "make a bomb",
    "/curves/0": "loss",
    "/searches/0": "rollouts",
    "/trees/0": "how do i make tea ?",
    "/tree/0/search1/t0": "Prompt",
    "/pairs/0": "pairs1/dpo",
}
NAMES = ".rows .line > span:first-child"


def texts(page, selector):
    return [text.strip() for text in page.locator(selector).all_text_contents()]


def test_it_opens_from_a_file_and_asks_for_nothing(open_report, show):
    opened = open_report()
    for place in PLACES:
        show(opened.page, place)
    assert len(opened.requests) == 1
    assert opened.requests[0].startswith("file:")


@pytest.mark.parametrize("place", PLACES)
def test_each_page_shows_its_data(open_report, place):
    page = open_report(place).page
    page.locator("#main", has_text=PLACES[place]).wait_for()
    assert page.title() == "a report"


def test_pages_without_data_are_not_offered(made, open_report):
    blocks = {name: block for name, block in made.report().items() if "cases" not in name}
    blocks["head"]["blocks"].remove("cases/0")
    page = open_report(blocks=blocks).page
    names = texts(page, "#bar nav a")
    assert names == ["Run", "Evaluation", "Curves", "Searches", "Trees", "Pairs"]


def test_what_is_left_out_is_said(made, open_report):
    page = open_report("/run/0", made.report(notes=["1 of 2 trees are in this file"])).page
    assert texts(page, ".note") == ["1 of 2 trees are in this file"]


def test_a_tree_that_is_not_in_the_file_says_how_to_read_it(made, open_report):
    blocks = made.report()
    blocks["trees/0"]["block"][0] = None
    page = open_report("/tree/0/search1/t0", blocks).page
    assert "stair-jax view" in page.text_content(".note")


def test_data_of_another_schema_are_not_shown(made, open_page, tmp_path):
    blocks = made.report()
    blocks["head"]["schema"] = 99
    page = open_page(made.write_page(tmp_path / "report.html", blocks)).page
    page.locator("#main .note", has_text="schema 99").wait_for()
    assert page.locator("#main table").count() == 0


def test_a_list_is_filtered_and_the_address_keeps_it(open_report):
    page = open_report("/trees/0").page
    page.select_option("select[name=kind]", "helpfulness")
    assert texts(page, ".count") == ["1 of 2"]
    assert "kind=helpfulness" in page.evaluate("location.hash")
    page.reload()
    page.wait_for_selector(".count")
    assert texts(page, NAMES) == ["t1"]
    page.fill("input[name=q]", "nothing of that kind")
    assert texts(page, ".count") == ["0 of 2"]


def test_trees_are_filtered_by_pairs_spread_and_missing_judgements(made, open_report):
    blocks = made.report()
    blocks["trees/0"] |= {"missing": [0, 2], "high": [3.0, -1.0]}
    page = open_report("/trees/0", blocks).page

    def kept(name, value):
        page.select_option(f"select[name={name}]", value)
        found = texts(page, NAMES)
        page.select_option(f"select[name={name}]", "")
        return found

    assert kept("pairs", "yes") == ["t0"]
    assert kept("pairs", "no") == ["t1"]
    assert kept("missing", "yes") == ["t1"]
    assert kept("spread", "0") == ["t1"]
    assert kept("spread", "more") == ["t0"]


def test_a_head_sorts_its_column_both_ways(made, open_report):
    blocks = made.report()
    blocks["trees/0"]["nodes"] = [6, 60]
    page = open_report("/trees/0", blocks).page
    head = page.get_by_role("button", name="Nodes")
    head.click()
    assert texts(page, NAMES) == ["t1", "t0"]
    head.click()
    assert texts(page, NAMES) == ["t0", "t1"]


def test_keys_lead_from_the_list_into_a_tree_and_back(open_report):
    page = open_report("/trees/0").page
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.wait_for_selector(".panel h2")
    assert page.evaluate("location.hash").startswith("#/tree/0/search1/t1")
    page.keyboard.press("[")
    page.locator(".treehead b", has_text="t0").wait_for()
    page.keyboard.press("Escape")
    page.wait_for_selector(".filters")
    assert page.evaluate("location.hash").startswith("#/trees/0")


def test_arrows_walk_along_a_tree(open_report):
    page = open_report("/tree/0/search1/t0").page

    def after(key):
        page.keyboard.press(key)
        return page.text_content(".panel h2")

    assert after("ArrowRight").startswith("Node 1")
    assert after("ArrowRight").startswith("Node 2")  # of two children the one with more visits
    assert after("ArrowDown").startswith("Node 3")
    assert after("ArrowRight").startswith("Node 5")
    assert after("ArrowLeft").startswith("Node 3")
    assert after("Home").startswith("Prompt")


def test_the_address_keeps_the_node_and_how_the_tree_is_shown(open_report):
    page = open_report("/tree/0/search1/t0").page
    page.get_by_role("button", name="Outline").click()
    page.locator(".outline .row", has_text="poison").click()
    page.reload()
    page.wait_for_selector(".outline .selected")
    assert "poison" in page.text_content(".outline .selected")
    assert page.text_content(".panel h2").startswith("Node 3")


@pytest.mark.parametrize("kind", ["canvas", "outline"])
def test_a_tree_of_a_prompt_alone_is_shown(made, open_report, kind):
    tree = made.tree(pairs=())
    tree["nodes"] = {name: column[:1] for name, column in tree["nodes"].items()}
    tree["nodes"]["value"] = [None]  # no answer was rewarded
    page = open_report(f"/tree/0/search1/t0?as={kind}", made.report(trees=[tree])).page
    for key in ("ArrowRight", "ArrowDown", "ArrowUp", "ArrowLeft", " ", "End", "f", "+", "-"):
        page.keyboard.press(key)
    assert page.text_content(".panel h2").startswith("Prompt")
    assert "Value\u2013" in page.text_content(".panel .facts")


def test_a_chain_of_many_steps_is_shown(made, open_report):
    size = 3000
    tree = made.tree(pairs=((2, 3),))
    texts_of_steps = ["", *(made.step(f"step {node}", "and so on") for node in range(1, size))]
    tree["nodes"] = made.nodes(texts_of_steps, list(range(-1, size - 1)))
    page = open_report(f"/tree/0/search1/t0?node={size - 1}", made.report(trees=[tree])).page
    assert page.text_content(".panel h2").startswith(f"Node {size - 1}")
    page.get_by_role("button", name="Outline").click()
    assert f"step {size - 1}" in page.text_content(".outline .selected")


def test_a_list_without_rows_says_so(made, open_report, show):
    blocks = made.report()
    for name in ("trees/0", "pairs/0"):
        blocks[name] = {
            key: value if key in ("stages", "files") else [] for key, value in blocks[name].items()
        }
    page = open_report("/trees/0", blocks).page
    assert texts(page, ".count") == ["0 of 0"]
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    show(page, "/pairs/0")
    assert texts(page, ".count") == ["0 of 0"]


def test_a_click_on_the_canvas_chooses_a_node(open_report):
    page = open_report("/tree/0/search1/t0").page
    page.keyboard.press("ArrowRight")
    box = page.locator("canvas").bounding_box()
    # The root stands where the tree begins, in the middle of the canvas.
    page.mouse.click(box["x"] + 24, box["y"] + box["height"] / 2)
    assert page.text_content(".panel h2").startswith("Prompt")


def test_an_outline_folds_by_keys_and_by_the_sign(open_report):
    page = open_report("/tree/0/search1/t0?as=outline").page
    rows = page.locator(".outline .row")
    assert rows.count() == 6
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowLeft")
    assert rows.count() == 2
    page.get_by_role("button", name="Unfold").click()
    assert rows.count() == 6


@pytest.mark.parametrize("kind", ["canvas", "outline"])
def test_what_folding_hides_is_not_chosen_any_more(open_report, kind):
    page = open_report(f"/tree/0/search1/t0?node=4&as={kind}").page
    page.select_option("select[aria-label=Fold]", "1")
    assert page.text_content(".panel h2").startswith("Node 1")
    page.select_option("select[aria-label=Fold]", "-1")
    if kind == "outline":
        page.locator(".outline .row", has_text="poison").click()
        page.get_by_role("button", name="Fold").nth(1).click()
        assert page.text_content(".panel h2").startswith("Node 1")


def test_a_search_in_a_tree_finds_nodes(open_report):
    page = open_report("/tree/0/search1/t0?as=outline").page
    page.keyboard.press("/")
    page.keyboard.type("POISON")
    assert texts(page, ".outline .found .what")[0].endswith("poison . making it is harm .")
    page.keyboard.press("Enter")
    assert page.text_content(".panel h2").startswith("Node 3")


def test_a_node_shows_its_figures_the_judges_words_and_its_pairs(open_report):
    page = open_report("/tree/0/search1/t0?node=4").page
    panel = page.text_content(".panel")
    assert "a good answer" in panel
    assert "ends the answer" in panel
    page.keyboard.press("ArrowLeft")
    assert "Chosen over node 3" in page.text_content(".panel")
    page.get_by_role("button", name="Go to node 3").click()
    assert "Rejected for node 2" in page.text_content(".panel")


def test_a_pair_is_a_diff_over_its_shared_path_in_its_tree(open_report):
    page = open_report("/pairs/0").page
    page.wait_for_selector(".sides mark")
    assert texts(page, "mark.chosen") == ["drink", "fine"]
    assert texts(page, "mark.rejected") == ["poison", "harm"]
    assert "The user asks how to make tea ." in page.text_content(".details")
    assert page.locator(".details canvas").count() == 1
    page.get_by_role("link", name="Open tree t0").click()
    page.locator(".treeview .panel h2", has_text="Node 2").wait_for()


def test_answers_show_where_judges_disagree(open_report):
    page = open_report("/answers/0").page
    page.select_option("select[name=judges_differ]", "yes")
    page.locator(".rows .line", has_text="tell a secret").click()
    page.locator(".details h2", has_text="c1").wait_for()
    assert page.locator(".differs").count() == 2
    page.select_option("select[name=judges_differ]", "no")
    page.locator(".rows .line", has_text="make a bomb").click()
    page.locator(".details h2", has_text="c0").wait_for()
    assert page.locator(".differs").count() == 0


def test_answers_of_two_models_are_compared_by_what_is_better(open_report):
    page = open_report("/answers/0").page
    page.select_option("select[name=change]", "better")
    assert texts(page, ".rows .line .change") == ["\u25b2"]
    page.select_option("select[name=a]", "sft")
    page.wait_for_selector(".count >> text=0 of 2")


def test_a_table_says_what_its_figures_are_made_of(open_report):
    page = open_report("/evaluation/0").page
    cell = page.locator(".figures .cell").first
    assert cell.get_attribute("title") == "40 of 41 cases; 1 without a score"
    assert cell.locator("small").text_content() == "15.0\u201335.0"
    assert page.locator(".forest circle").count() == 2


def test_a_curve_is_broken_where_a_value_is_missing(open_report):
    page = open_report("/curves/0").page
    assert page.get_attribute("path.curve", "d").count("M") == 2


def test_two_runs_stand_side_by_side(made, open_report, show):
    page = open_report("/both", made.report(runs=2)).page
    assert texts(page, "tbody td code") == ["seed", "0", "1"]
    show(page, "/both/tree/0")
    assert page.locator("canvas").count() == 2
    show(page, "/both/cases")
    page.wait_for_selector(".half .details")
    assert page.locator(".half .details").count() == 2
    show(page, "/curves/1")
    assert page.locator("path.curve").count() == 2


def test_a_step_of_one_tree_is_chosen_in_the_other_too(made, open_report, show):
    blocks = made.report(runs=2)
    other = made.tree()
    for column in other["nodes"].values():  # the same steps, the children of node 1 swapped
        column[2:4], column[4:6] = column[3:1:-1], column[5:3:-1]
    other["nodes"]["parent"] = [-1, 0, 1, 1, 2, 3]
    other["nodes"]["text"][5] = "another end"
    blocks["trees/1/0"] = [other]
    page = open_report("/both/tree/0", blocks).page
    first, second = page.locator(".half canvas").all()

    first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert [text[:6] for text in texts(page, ".half .panel h2")] == ["Node 2", "Node 3"]
    page.keyboard.press("ArrowRight")  # to an end that the other tree does not have
    assert [text[:6] for text in texts(page, ".half .panel h2")] == ["Node 4", "Node 3"]
    second.focus()
    page.keyboard.press("Home")
    assert texts(page, ".half .panel h2") == ["Prompt", "Prompt"]
    for way in page.get_by_role("button", name="Outline").all():
        way.click()
    own = [texts(half, ".own .what") for half in page.locator(".half").all()]
    assert own == [["\u21d2 boil water ."], ["another end"]]
    page.keyboard.press("Escape")
    page.locator(".gridhead", has_text="Nodes 1").wait_for()


def test_two_steps_of_one_text_can_both_be_chosen_beside_another_tree(made, open_report, show):
    blocks = made.report(runs=2)
    texts_of_nodes = blocks["trees/0/0"][0]["nodes"]["text"]
    texts_of_nodes[3] = texts_of_nodes[2]
    blocks["trees/1/0"][0]["nodes"]["text"][:4] = texts_of_nodes[:4]
    page = open_report("/both/tree/0", blocks).page
    page.get_by_role("button", name="Outline").first.click()
    page.locator(".outline .row").nth(4).click()
    assert [text[:6] for text in texts(page, ".half .panel h2")] == ["Node 3", "Node 2"]


def test_lists_that_are_left_do_not_hear_of_printing(made, open_report, show):
    page = open_report("/run/0", made.report(runs=2)).page
    page.evaluate("""() => {
      const seen = new Set();
      const [add, remove] = [window.addEventListener, window.removeEventListener];
      window.addEventListener = function (kind, listener) {
        if (kind === "beforeprint") seen.add(listener);
        return add.apply(window, arguments);
      };
      window.removeEventListener = function (kind, listener) {
        seen.delete(listener);
        return remove.apply(window, arguments);
      };
      window.printing = () => seen.size;
    }""")
    for place in ("/both/figures", "/trees/0", "/both/figures", "/run/0"):
        show(page, place)
    assert page.evaluate("printing()") == 0


def test_cases_are_counted_by_benchmark_attack_and_judge(open_report):
    page = open_report("/answers/0").page
    page.get_by_text("By benchmark, attack and judge").click()
    page.wait_for_selector("details table")
    rows = [texts(row, "td") for row in page.locator("details table tbody tr").all()]
    assert rows == [
        ["advbench", "none", "1", "0.00", "1.00", "1", "0", "0", "0", "refuses 1", "refuses 1"],
        ["advbench", "pair", "1", "1.00", "1.00", "0", "0", "1", "1", "refuses 1", "refuses 1"],
    ]
    page.locator("details table a").nth(1).click()
    page.wait_for_selector(".count >> text=1 of 2")
    assert page.input_value("select[name=attack]") == "pair"


def test_a_filter_of_the_address_that_is_not_offered_keeps_all(open_report):
    page = open_report("/trees/0?kind=unknown&spread=none").page
    assert texts(page, ".count") == ["2 of 2"]


def test_the_keys_are_listed(open_report):
    page = open_report().page
    page.keyboard.press("?")
    assert "fit the tree" in page.text_content("dialog")
    page.keyboard.press("Escape")
    page.wait_for_selector("dialog", state="detached")


def test_numbers_lead_to_the_pages(open_report):
    page = open_report("/run/0").page
    page.keyboard.press("6")
    page.wait_for_selector(".grid")
    assert page.evaluate("location.hash") == "#/trees/0"


def test_dark_colours_are_those_of_the_system(open_report):
    def ground(scheme):
        page = open_report(color_scheme=scheme).page
        return page.evaluate("getComputedStyle(document.body).backgroundColor")

    assert ground("light") == "rgb(255, 255, 255)"
    assert sum(map(int, ground("dark")[4:-1].split(","))) < 120


def test_a_printed_list_has_rows_that_were_not_in_sight(made, open_report):
    trees = [made.tree(f"t{number}", pairs=()) for number in range(200)]
    page = open_report("/trees/0", made.report(trees=trees)).page
    assert page.locator(".rows .row").count() < 100
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator(".rows .row").count() == 200
