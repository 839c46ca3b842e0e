import json
import math
from collections import Counter, deque

import jax
import numpy as np
import pytest

from stair_jax.data.prompts import Prompt
from stair_jax.decoding.driver import Driver
from stair_jax.errors import UserError
from stair_jax.search.judging.calibration import Calibrator, Platt
from stair_jax.search.judging.reward import SafetyReward
from stair_jax.search.judging.watch import JudgeWatch
from stair_jax.search.runner import make_queue, run_search
from stair_jax.search.search_context import PRIORS
from stair_jax.search.search_task import SearchOptions, SearchTask
from stair_jax.search.tree_records import TreeRecord
from stair_jax.settings import build
from stair_jax.stages import Search
from stair_jax.testing.reference_search import ReferenceLanes, ReferenceSearch
from stair_jax.text import steps
from stair_jax.text.fence_prompts import FENCE_OPEN

SECTION = {
    "num_iterations": 20,
    "num_children": 3,
    "max_depth": 3,
    "max_step_tokens": 60,
    "max_answer_tokens": 300,
    "give_up_after": 0,
}
EXPECTED = {"mode": "expected", "helpfulness_prompts": ("helpfulness", "safety")}
PROMPTS = [
    Prompt(f"p{i}", f"question {i}?", "safety" if i % 2 else "helpfulness", "test")
    for i in range(12)
]


def read(section):
    """Search settings from a section; the judge's mode is "expected" unless it says otherwise."""
    section = SECTION | section
    section |= {"judge": EXPECTED | section.get("judge", {})}
    return build(Search, section, "config.search").search_settings


def search(
    tokenizer,
    engine,
    prompts=PROMPTS,
    seed=3,
    trees_in_flight=8,
    done=(),
    device="host",
    reward=None,
    progress=None,
    **section,
):
    """Runs a search; returns (trees by id without `seconds`, report)."""
    trees = {}

    def on_tree(record):
        data = json.loads(json.dumps(record.to_dict()))
        del data["seconds"]
        trees[record.id] = data

    report = run_search(
        prompts,
        engine,
        tokenizer,
        read(section),
        seed,
        on_tree,
        progress,
        reward=reward or SafetyReward(),
        trees_in_flight=trees_in_flight,
        model="m",
        fingerprint="s",
        done=done,
        device=device,
    )
    return trees, report


def test_a_tree_is_the_same_alone_and_beside_others(tokenizer, make_engine):
    together, report = search(tokenizer, make_engine(disorder=1))
    assert list(sorted(together)) == sorted(prompt.id for prompt in PROMPTS)
    assert report.trees == len(PROMPTS) and report.generated_tokens > 0
    few_at_a_time, _ = search(tokenizer, make_engine(disorder=2), trees_in_flight=3)
    assert few_at_a_time == together
    alone, _ = search(tokenizer, make_engine(disorder=3), PROMPTS[5:6])
    assert alone["p5"] == together["p5"]
    other_seed, _ = search(tokenizer, make_engine(), PROMPTS[5:6], seed=4)
    assert other_seed["p5"] != together["p5"]


def test_interrupted_and_resumed_search_gives_the_same_trees(tokenizer, make_engine):
    expected, _ = search(tokenizer, make_engine(disorder=1))
    found = {}

    class Killed(Exception):
        pass

    def until_killed(record):
        if len(found) == 4:
            raise Killed
        found[record.id] = json.loads(json.dumps(record.to_dict() | {"seconds": None}))

    settings = read({})
    arguments = (tokenizer, settings, 3, until_killed)
    more = {"reward": SafetyReward(), "trees_in_flight": 8, "model": "m", "fingerprint": "s"}
    with pytest.raises(Killed):
        run_search(PROMPTS, make_engine(disorder=7), *arguments, **more)
    rest = [prompt for prompt in PROMPTS if prompt.id not in found]
    assert len(rest) == len(PROMPTS) - 4
    trees, _ = search(tokenizer, make_engine(disorder=9), rest)
    for record in found.values():
        del record["seconds"]
    assert found | trees == expected


@pytest.mark.parametrize(
    "malformed, options",
    [("missing", {}), (-1.0, {}), ("missing", {"in_flight": 3, "reuse_rollout_step": True})],
)
def test_statistics_of_a_tree_hold_together(tokenizer, make_engine, malformed, options):
    # At most 150 tokens per answer: some rollouts are cut off and therefore malformed.
    options = options | {"judge": {"malformed": malformed}}
    trees, report = search(tokenizer, make_engine(), max_answer_tokens=150, **options)
    assert report.counts["malformed"] > 0
    assert (report.counts["missing"] > 0) == (malformed == "missing")
    for data in trees.values():
        record = TreeRecord.from_dict(data | {"seconds": 0.0})
        children = record.children()
        for index, node in enumerate(record.nodes):
            evaluated = [entry["reward"] for entry in node.judgements]
            own = [reward for reward in evaluated if reward is not None]
            below = [record.nodes[child] for child in children[index]]
            assert evaluated, "every node is evaluated by the end"
            assert node.depth <= 3 and len(below) <= 3
            assert not (node.terminal and below)
            assert len({n.tokens for n in below}) == len(below), "no exact duplicates"
            if node.terminal:  # judged once; the reward is reused on each visit
                assert len(evaluated) == 1 and node.reward == (own[0] if own else None)
                assert node.value == (pytest.approx(own[0]) if own else None)
                continue
            assert node.visits == len(own) + sum(n.visits for n in below)
            missing = len(evaluated) - len(own)
            assert node.missing == missing + sum(n.missing for n in below)
            total = sum(own) + sum(n.value * n.visits for n in below if n.visits)
            assert node.value == (pytest.approx(total / node.visits) if node.visits else None)
        root = record.nodes[0]
        assert root.visits + root.missing >= record.iterations == 20


def test_visits_are_those_of_the_kernel(tokenizer, make_engine, monkeypatch):
    """Visits and means computed on the host agree with those of the jitted search."""
    kept = {}
    close = SearchTask._visit_unvisited

    def spy(self, slot, visits):
        kernel = self._batched_trees._trees
        kept[self._trees[slot].queued.prompt.id] = jax.tree.map(
            lambda x: np.array(x[slot]), (kernel.visits, kernel.value_sum, kernel.parent)
        )
        return close(self, slot, visits)

    monkeypatch.setattr(SearchTask, "_visit_unvisited", spy)
    trees, _ = search(tokenizer, make_engine(), PROMPTS[:6])
    for id, data in trees.items():
        visits, value_sum, parent = kept[id]
        nodes = data["nodes"]
        late = np.zeros(len(nodes))  # visits after the budget, which the jitted search does not see
        late_sum = np.zeros(len(nodes))
        for index, node in enumerate(nodes):
            assert parent[index] == node["parent"]
            above = index if visits[index] == 0 else -1
            while above >= 0:
                late[above] += 1
                late_sum[above] += node["judgements"][0]["reward"]
                above = nodes[above]["parent"]
        for index, node in enumerate(nodes):
            assert visits[index] + late[index] == node["visits"]
            total = value_sum[index] + late_sum[index]
            assert total / node["visits"] == pytest.approx(node["value"], abs=1e-4)


def test_progress_is_told_of_iterations_and_judgements(tokenizer, make_engine):
    """Both grow from round to round, long before a tree is finished, up to those of all trees."""
    seen = []

    class Listener:
        def update(self, done, *, done_parts, **shown):
            seen.append((done, done_parts, shown["judgements"]))

    _, report = search(tokenizer, make_engine(), PROMPTS[:4], progress=Listener())
    assert report.iterations == 4 * SECTION["num_iterations"]
    assert report.judgements == report.counts["judged"] > 0
    assert seen[-1] == (4, report.iterations, report.judgements)
    assert seen == sorted(seen)
    begun = [parts for done, parts, _ in seen if done == 0]
    assert len(set(begun)) > 5


def test_first_visit_evaluates_and_second_expands(tokenizer, make_engine):
    engine = make_engine(p_end=0.0)  # steps never end the answer
    engine.replies.reply = lambda request, text: (
        steps.format_output("yes") if "rollout" in request.id else None
    )
    search(tokenizer, engine, PROMPTS[:1])
    asked = [request.id[2:4] for request in engine.seen if "judge" not in request.id]
    assert asked[:4] == [(0, "rollout"), *[(0, "step")] * 3]
    first_rollouts = {}
    for place, (node, what) in enumerate(asked):
        if what == "rollout":
            first_rollouts.setdefault(node, place)
        else:  # a node is expanded after its own first evaluation
            assert first_rollouts[node] < place


class Replay:
    """An actor for the reference search that replays the results in the runner's records."""

    def __init__(self, record):
        self.record, self.children = record, record.children()
        self.judged = Counter()
        self.index = {(): 0}

    def expand(self, node):
        children = self.children[self.index[node.path]]
        self.index |= {(*node.path, place): child for place, child in enumerate(children)}
        nodes = [self.record.nodes[child] for child in children]
        return [(child.terminal, child.prior) for child in nodes]

    def reward(self, node):
        index = self.index[node.path]
        self.judged[index] += 1
        return self.record.nodes[index].judgements[self.judged[index] - 1]["reward"]


def in_turn(search):
    """Serves the lanes of the reference search in the order of their requests."""
    waiting = deque(search.fill())
    while waiting:
        lane, *_ = waiting.popleft()
        waiting += search.deliver(lane) + search.fill()
    return search


@pytest.mark.parametrize(
    "score, lanes, more_pairs",
    [
        ("ucb1", 1, {}),
        ("puct", 1, {}),
        ("ucb1", 3, {}),
        ("ucb1", 1, {"share_rollouts": True, "resample": 2}),
        ("ucb1", 3, {"share_rollouts": True}),
    ],
)
def test_trees_are_those_of_the_plain_python_search(
    tokenizer, make_engine, score, lanes, more_pairs
):
    section = {"score": score, "tie_break": "first", "max_answer_tokens": 150, "in_flight": lanes}
    section["more_pairs"] = more_pairs
    trees, report = search(tokenizer, make_engine(), **section)
    assert report.counts["missing"] > 0 or more_pairs
    compared = 0
    for data in trees.values():
        record = TreeRecord.from_dict(data | {"seconds": 0.0})
        replay = Replay(record)
        common = (replay, 20, 3, 3)
        if lanes == 1:
            expected = ReferenceSearch(*common, score=score, number=np.float32).run()
        else:
            expected = in_turn(ReferenceLanes(*common, number=np.float32, lanes=lanes))
        if expected.margin < 1e-5:  # float32 may decide a near tie differently
            continue
        compared += 1
        expected.finish()
        assert [n.visits for n in expected.nodes] == [n.visits + n.missing for n in record.nodes]
        evaluations = [len(node.judgements) for node in record.nodes]
        assert [replay.judged[i] for i in range(len(record.nodes))] == evaluations
        for ours, theirs in zip(record.nodes, expected.nodes, strict=True):
            if not record.nodes[0].missing:
                mean = theirs.total / theirs.visits
                assert ours.value == pytest.approx(mean, abs=1e-5)
    assert compared >= 6


def test_terminal_node_is_judged_once(tokenizer, make_engine):
    engine = make_engine(p_end=1.0)  # every step is the output block
    trees, report = search(tokenizer, engine, PROMPTS[:1])
    nodes = trees["p0"]["nodes"]
    assert report.counts["rollouts"] == 1 and report.counts["expansions"] == 1
    assert all(node["terminal"] and len(node["judgements"]) == 1 for node in nodes[1:])
    assert nodes[0]["visits"] == 1 + sum(node["visits"] for node in nodes[1:])
    assert sum(node["visits"] for node in nodes[1:]) >= 19


def test_random_keys_are_never_used_twice(tokenizer, make_engine):
    engine = make_engine()
    search(tokenizer, engine, judge={"mode": "generative", "attempts": 2, "max_tokens": 99})
    uses = Counter((request.key, request.sequence) for request in engine.seen)
    assert uses.most_common(1)[0][1] == 1
    assert not engine.handles, "every handle is given back"


def test_unreadable_judgements_are_missing_and_counted(tokenizer, make_engine):
    engine = make_engine()
    engine.replies.reply = lambda request, text: "no idea" if "judge" in request.id else None
    judge = {"mode": "generative", "attempts": 2, "max_tokens": 50, "ask_closing": False}
    trees, report = search(tokenizer, engine, PROMPTS[:2], judge=judge)
    evaluations = sum(len(n["judgements"]) for tree in trees.values() for n in tree["nodes"])
    assert report.counts["unreadable"] == 4 * evaluations  # two questions, two attempts
    assert report.counts["missing"] >= evaluations
    for tree in trees.values():
        assert all(node["value"] is None and node["visits"] == 0 for node in tree["nodes"])


def test_a_reward_that_is_not_finite_is_missing_and_counted(tokenizer, make_engine):
    def reward(helpfulness, safety):
        return math.inf if helpfulness > 0 else math.nan

    trees, report = search(tokenizer, make_engine(), PROMPTS[:2], reward=reward)
    assert report.counts["nonfinite"] > 0
    for tree in trees.values():
        for node in tree["nodes"]:
            rewards = [entry["reward"] for entry in node["judgements"]]
            assert all(reward is None or math.isfinite(reward) for reward in rewards)


@pytest.mark.parametrize("options", [{}, {"in_flight": 3}])
def test_a_tree_without_any_reward_is_given_up(tokenizer, make_engine, options):
    def reward(helpfulness, safety):
        return math.nan

    engine = make_engine()
    trees, report = search(
        tokenizer, engine, PROMPTS[:5], reward=reward, give_up_after=4, **options
    )
    assert not trees and not engine.handles and not engine.waiting
    assert report.skipped == [(f"p{i}", "no reward in 4 evaluations") for i in range(5)]
    rollouts = [request for request in engine.seen if "rollout" in request.id]
    assert len(rollouts) <= 5 * (4 + options.get("in_flight", 1) - 1)


@pytest.mark.parametrize("options", [{}, {"in_flight": 3}])
def test_trees_are_given_up_alike_in_any_company(tokenizer, make_engine, options):
    """About half of the rewards are missing, so that some trees begin with two of these."""

    def reward(helpfulness, safety):
        return helpfulness if safety > 0 else math.nan

    judge = {"safety_prompts": ("helpfulness", "safety"), "safety_score": "expected"}
    options = options | {"reward": reward, "judge": judge}
    engines = make_engine(0), make_engine(5)
    searches = [
        search(tokenizer, engine, give_up_after=2, trees_in_flight=width, **options)
        for engine, width in zip(engines, (8, 2), strict=True)
    ]
    (trees, report), (again, other) = searches
    assert again == trees and other.skipped == report.skipped
    assert not any(engine.handles for engine in engines)
    assert trees and report.skipped
    whole, _ = search(tokenizer, make_engine(), give_up_after=0, **options)
    assert all(whole[id] == tree for id, tree in trees.items())


def test_a_watch_stops_the_search_and_gives_all_back(tokenizer, make_engine):
    engine = make_engine()
    engine.replies.reply = lambda request, text: "no idea" if "judge" in request.id else None
    judge = EXPECTED | {"mode": "generative", "attempts": 1, "ask_closing": False}
    with pytest.raises(UserError, match="of the last 30 judgements 0% could be read"):
        run_search(
            PROMPTS,
            engine,
            tokenizer,
            read({"judge": judge}),
            3,
            lambda record: None,
            reward=SafetyReward(),
            watch=JudgeWatch(0.5, window=30),
        )
    assert not engine.handles and not engine.waiting


def test_calibrated_scores_are_those_of_the_rewards(tokenizer, make_engine):
    """A curve that turns the scores round turns the judgements, and no fixed score."""
    calibrate = Calibrator({"safety": Platt(-1.0, 0.25)}, "expected")
    judge = {"mode": "expected", "safety_score": "expected"}
    found = []
    for given in (None, calibrate):
        trees = []
        run_search(
            PROMPTS[:2],
            make_engine(),
            tokenizer,
            read({"judge": judge | {"helpfulness_prompts": ("helpfulness",)}}),
            3,
            trees.append,
            reward=SafetyReward(),
            calibrate=given,
        )
        found.append({tree.id: tree.nodes[0].judgements[0] for tree in trees})
    plain, changed = found
    assert changed["p0"] == plain["p0"] and plain["p0"]["safety"] == 1.0
    assert changed["p1"]["safety"] == calibrate("safety", plain["p1"]["safety"])
    assert changed["p1"]["helpfulness"] == plain["p1"]["helpfulness"]


def test_steps_that_were_cut_off_are_no_children(tokenizer, make_engine):
    trees, report = search(
        tokenizer, make_engine(), PROMPTS[:2], max_step_tokens=5, keep_cut_steps=False
    )
    assert all(len(tree["nodes"]) == 1 for tree in trees.values())
    assert report.counts["cut_steps"] == 3 * report.counts["expansions"] > 0


@pytest.mark.parametrize("options", [{}, {"reuse_rollout_step": True}, {"in_flight": 3}])
def test_steps_that_were_cut_off_are_children_that_go_on(tokenizer, make_engine, options):
    engine = make_engine()
    section = options | {"max_step_tokens": 9}
    trees, report = search(tokenizer, engine, PROMPTS[:4], **section)
    again, _ = search(tokenizer, make_engine(disorder=3), PROMPTS[:4], **section)
    assert again == trees and not engine.handles
    ends = {tokenizer.tags.reasoning_close, tokenizer.tags.output_close, *tokenizer.stop_ids}
    cut = continued = 0
    for tree in trees.values():
        record = TreeRecord.from_dict(tree | {"seconds": 0.0})
        for index, node in enumerate(record.nodes[1:], start=1):
            path = record.path(index)
            assert "".join(record.texts(path)) == tokenizer.decode(record.tokens(path))
            if node.tokens[-1] not in ends:
                assert len(node.tokens) == 9 and not node.terminal
                cut += 1
                continued += bool(record.children()[index])
    assert cut == report.counts["kept_cut_steps"] > continued > 0
    assert not report.counts["cut_steps"]


ODD = [
    Prompt("empty", "  ", "safety"),
    Prompt("long", "x" * 500, "safety"),
    PROMPTS[0],
    Prompt("full", "x" * 300, "safety"),
    Prompt("p0", "again", "safety"),
    PROMPTS[1],
    Prompt("p1", "again", "safety"),
]
SKIPPED = [
    ("empty", "empty prompt"),
    ("long", "prompt too long"),
    ("full", "prompt leaves no room in the context"),
    ("p0", "duplicate id"),
    ("p1", "duplicate id"),
]


@pytest.mark.parametrize("lanes", [1, 3])
def test_prompts_that_cannot_be_searched_are_counted(tokenizer, make_engine, lanes):
    section = {"max_prompt_tokens": 400, "max_answer_tokens": 120, "in_flight": lanes}
    engine = make_engine(max_length=300)
    trees, report = search(tokenizer, engine, ODD, **section)
    assert sorted(trees) == ["p0", "p1"] and trees["p0"]["prompt"] == PROMPTS[0].prompt
    assert report.skipped == SKIPPED and report.trees == 2
    assert not engine.handles
    rest, resumed = search(tokenizer, make_engine(max_length=300), ODD, done=["p0"], **section)
    assert rest == {"p1": trees["p1"]} and resumed.skipped == SKIPPED
    assert search(tokenizer, make_engine(), [])[1].trees == 0


def test_a_rollout_that_never_ends_is_malformed(tokenizer, make_engine):
    engine = make_engine()
    engine.replies.reply = lambda request, text: "x" * 400 if "rollout" in request.id else None
    trees, report = search(tokenizer, engine, PROMPTS[:2])
    assert report.counts["malformed"] == report.counts["rollouts"] == report.counts["missing"] > 0
    for tree in trees.values():  # answers that end by a step can still be scored
        assert tree["iterations"] == 20
        values = [node["value"] for node in tree["nodes"] if node["terminal"]]
        assert values and None not in values


def test_a_judge_that_never_concludes_is_asked_again_then_left_out(tokenizer, make_engine):
    engine = make_engine()
    engine.replies.reply = lambda request, text: "hm " * 99 if "judge" in request.id else None
    judge = {"mode": "generative", "attempts": 2, "max_tokens": 30, "ask_closing": False}
    trees, report = search(tokenizer, engine, PROMPTS[:2], judge=judge)
    asked = sum("judge" in request.id for request in engine.seen)
    assert report.counts["unreadable"] == asked == 4 * report.counts["judged"] > 0
    assert all(tree["nodes"][0]["value"] is None for tree in trees.values())


def test_a_judge_prompt_without_room_is_missing_and_counted(tokenizer, make_engine):
    template = "x" * 400 + "{prompt}{answer}"
    judge = {"helpfulness_template": template, "safety_prompts": ("helpfulness",)}
    judge |= {"helpfulness_prompts": ("helpfulness",)}
    trees, report = search(tokenizer, make_engine(max_length=400), PROMPTS[:2], judge=judge)
    assert report.counts["too_long"] == report.counts["judged"] > 0
    assert sorted(trees) == ["p0", "p1"]


def test_a_tree_of_several_iterations_in_flight_depends_on_no_schedule(tokenizer, make_engine):
    section = {"in_flight": 3}
    engine = make_engine(disorder=1)
    trees, _ = search(tokenizer, engine, PROMPTS[:6], **section)
    one_by_one = make_engine(disorder=2, capacity=1)
    others, _ = search(tokenizer, one_by_one, PROMPTS[:6], **section)
    assert trees == others and not engine.handles
    assert [request.id[3] for request in one_by_one.seen[:3]] == ["rollout"] * 3
    sequential, _ = search(tokenizer, make_engine(), PROMPTS[:6])
    assert all(trees[id] != sequential[id] for id in trees)


def test_the_last_trees_are_served_by_what_they_have_left_to_do(tokenizer, make_engine):
    engine = make_engine()
    trees, _ = search(tokenizer, engine, PROMPTS[:3])
    of_tree = {slot: [r.priority for r in engine.seen if r.id[1] == slot] for slot in range(3)}
    at_the_end = set()
    for priorities in of_tree.values():
        # First its iterations, by how many it has done, then the visits after them, in one turn.
        assert priorities[0] == 0 and priorities == sorted(priorities)
        assert len(set(priorities)) > 5
        assert SECTION["num_iterations"] <= priorities[-1] < SECTION["num_iterations"] + 3
        at_the_end.add(priorities[-1])
        assert priorities.count(priorities[-1]) > 1
    assert len(at_the_end) == 3
    evicting = make_engine()
    others, _ = search(tokenizer, _Evicting(evicting), PROMPTS[:3])
    assert others == trees
    assert {r.priority for r in evicting.seen if r.id[1] == 2} == {2}


class _Evicting:
    """An engine that has evicted something by the time of its first request."""

    def __init__(self, engine):
        self._engine = engine

    def __getattr__(self, name):
        return getattr(self._engine, name)

    def keep(self, *args, **options):
        self._engine.stats.evicted += 1
        return self._engine.keep(*args, **options)


def test_requests_bring_only_what_no_kept_sequence_holds(tokenizer, make_engine):
    engine = make_engine()
    wordings = {"helpfulness_template": "rating", "safety_template": "verdict"}
    trees, report = search(tokenizer, engine, PROMPTS[:3], judge=wordings)
    templates, brought = {}, Counter()
    for request in engine.seen:
        prompt = PROMPTS[request.id[1]]  # trees start in the order of the prompts
        id = prompt.id
        brought[id] += len(request.tokens)
        if "judge" not in request.id:
            assert request.tokens == () and request.parent is not None
            continue
        question = request.id[-1]
        tree, template = request.parent, request.parent.parent
        assert templates.setdefault(question, template) is template
        text = tokenizer.decode(tree.tokens)
        assert text.endswith(f"{prompt.prompt}\n\n### Answer\n{FENCE_OPEN}")
        assert text.startswith(tokenizer.decode(template.tokens))
        assert tokenizer.decode(template.tokens).endswith("### Question\n| ")
    assert set(templates) == {"helpfulness", "safety"}
    for id, tree in trees.items():
        question = len(tokenizer.encode_text(tree["prompt"] + f"\n\n### Answer\n{FENCE_OPEN}"))
        prompt = len(tree["nodes"][0]["tokens"])
        assert tree["prefilled_tokens"] == brought[id] + prompt + 2 * question
    assert report.engine.hit_rate > 0.65  # the reminders behind the answers are not shared
    assert report.engine.generated == report.generated_tokens == engine.stats.generated
    assert (
        search(tokenizer, engine, PROMPTS[3:4], judge=wordings)[1].engine.generated
        < report.generated_tokens
    )


def test_the_first_step_of_a_rollout_is_a_child(tokenizer, make_engine):
    section = {"reuse_rollout_step": True, "max_step_tokens": 200}
    engine = make_engine()
    rollouts = {}
    complete = engine.complete

    def spy(request):
        completion = complete(request)
        if request.id[3] == "rollout":
            rollouts[request.parent.tokens, request.id[4]] = completion.tokens
        return completion

    engine.complete = spy
    trees, report = search(tokenizer, engine, PROMPTS[:6], **section)
    assert not engine.handles
    sampled = sum(request.id[3] == "step" for request in engine.seen)
    assert report.counts["reused_steps"] == report.counts["expansions"] > 6
    assert sampled == 2 * report.counts["expansions"]
    ends = {tokenizer.tags.reasoning_close, tokenizer.tags.output_close}
    terminal = 0
    for tree in trees.values():
        record = TreeRecord.from_dict(tree | {"seconds": 0.0})
        for index, children in enumerate(record.children()):
            if not children:
                continue
            sequence = record.nodes[0].tokens + tuple(record.tokens(record.path(index)))
            first = rollouts[sequence, 1]
            length = 1 + next(i for i, token in enumerate(first) if token in ends)
            child = record.nodes[children[0]]
            assert child.tokens == first[:length]
            assert child.terminal == (first[length - 1] == tokenizer.tags.output_close)
            terminal += child.terminal
    assert terminal > 0
    again, _ = search(tokenizer, make_engine(disorder=5), PROMPTS[:6], **section)
    assert again == trees


def test_a_first_step_that_is_too_long_counts_as_a_sample_that_was_cut(tokenizer, make_engine):
    engine = make_engine()
    section = {"reuse_rollout_step": True, "max_step_tokens": 5, "keep_cut_steps": False}
    trees, report = search(tokenizer, engine, PROMPTS[:2], **section)
    assert all(len(tree["nodes"]) == 1 for tree in trees.values())
    # The first expansion of each root reuses a step; later ones have none to reuse.
    assert report.counts["reused_steps"] == 2
    sampled = sum(request.id[3] == "step" for request in engine.seen)
    assert report.counts["cut_steps"] == 3 * report.counts["expansions"] == sampled + 2
    assert not engine.handles


def test_trees_start_as_the_cache_carries_them(tokenizer, make_engine):
    """A tree of this size pins a few hundred tokens. The trees must not depend on the capacity."""
    roomy, tight, none = (make_engine(capacity=n) for n in (10**6, 3000, 1))
    wordings = {"helpfulness_template": "rating", "safety_template": "verdict"}
    section = {"max_prompt_tokens": 100, "judge": wordings}  # initial guess: 100 + 300 tokens
    most = []
    for engine in (roomy, tight, none):
        in_flight = [0]
        submit = engine.submit

        def watched(requests, engine=engine, submit=submit, in_flight=in_flight):
            submit(requests)
            in_flight.append(len({request.id[1] for request in engine.waiting}))

        engine.submit = watched
        trees, _ = search(tokenizer, engine, **section)
        most.append(max(in_flight))
        if engine is roomy:
            expected = trees
        assert trees == expected
    assert most[0] == 8 and 1 < most[1] < 8 and most[2] == 1, most


@pytest.mark.parametrize("device", ["host", "device"])
def test_trees_are_the_same_wherever_their_statistics_are(tokenizer, make_engine, device):
    trees, _ = search(tokenizer, make_engine(), PROMPTS[:2], device=device)
    assert trees == search(tokenizer, make_engine(), PROMPTS[:2])[0]


def test_a_device_that_is_none_is_said_clearly(tokenizer, make_engine, monkeypatch):
    with pytest.raises(UserError, match=r"runtime\.tree_device is 'gpu'"):
        search(tokenizer, make_engine(), device="gpu")

    def no_cpu(backend=None):
        raise RuntimeError(f"Unknown backend {backend}")

    monkeypatch.setattr(jax, "local_devices", no_cpu)
    with pytest.raises(UserError, match="JAX_PLATFORMS"):
        search(tokenizer, make_engine())


def test_only_the_final_answer_is_judged(tokenizer, make_engine):
    engine = make_engine()
    search(tokenizer, engine, PROMPTS[:2])
    judged = [request for request in engine.seen if "judge" in request.id]
    assert judged
    for request in judged:
        text = tokenizer.decode(request.sequence)
        assert "Title:" not in text and not set(request.sequence) & {*vars(tokenizer.tags).values()}


@pytest.mark.parametrize(
    "prior, expected", [("uniform", 1.0), ("arithmetic", 0.625), ("geometric", 0.5)]
)
def test_priors(prior, expected):
    logps = [math.log(1.0), math.log(0.25)]
    assert PRIORS[prior](logps) == pytest.approx(expected)


@pytest.mark.parametrize(
    "section",
    [{"prior": "flat"}, {"iterations": 3}, {"top_p": 0.0}, {"max_step_tokens": 0}, {"c": -1.0}],
)
def test_wrong_settings_are_refused(section):
    with pytest.raises(UserError, match=next(iter(section))):
        build(Search, section, "config.search")


@pytest.mark.parametrize("num_rounds", [0, 1, 2, 5, 10, 20, 40, 80])
def test_a_search_beside_another_task_can_be_cancelled(tokenizer, make_engine, num_rounds):
    """Nothing of it is left in the engine, and the other search does not notice."""
    engine = make_engine(disorder=num_rounds)
    found = {0: [], 1: []}
    driver = Driver(engine)
    tickets = [
        driver.add(
            SearchTask(
                make_queue(PROMPTS[:4], tokenizer, settings, on_tree=found[place].append),
                engine,
                tokenizer,
                settings,
                3,
                None,
                SearchOptions(reward=SafetyReward(), trees_in_flight=3),
            )
        )
        for place in (0, 1)
        for settings in [read({"reuse_rollout_step": bool(place)})]
    ]
    done = []
    for _ in range(num_rounds):
        done += [ticket for ticket, _ in driver.step()]
    driver.cancel(tickets[0])
    while driver.pending:
        done += [ticket for ticket, _ in driver.step()]
    assert not engine.handles and not engine.pending and tickets[1] in done
    alone, _ = search(tokenizer, make_engine(), PROMPTS[:4], reuse_rollout_step=True)
    assert {tree.id: tree.counts for tree in found[1]} == {
        id: tree["counts"] for id, tree in alone.items()
    }
