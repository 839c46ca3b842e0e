"""The jitted tree search against the reference in plain Python, and its own invariants."""

import dataclasses
import functools
import math
import random

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stair_jax.errors import UserError
from stair_jax.search import kernel, mcts
from stair_jax.search.kernel import Need, SearchConfig
from stair_jax.testing.reference_search import RandomActor, ReferenceLanes, ReferenceSearch

SMALL = SearchConfig(num_iterations=12, num_children=2, max_depth=3, tie_break="first")


backup = jax.jit(functools.partial(kernel.backup, SMALL))
expand = jax.jit(functools.partial(kernel.expand, SMALL))
first_tree = jax.jit(lambda trees: jax.tree.map(lambda leaf: leaf[0], trees))


def keys(batch, seed=0):
    return jax.random.split(jax.random.key(seed), batch)


def drive(config, scripts, *, seed=0, tree_keys=None, finish=True):
    """Drives `advance` with results in random portions: returns (trees, requests, rounds)."""
    trees, paths, requests, rounds, _ = drive_lanes(config, scripts, seed, tree_keys)
    requests = [[request[1:] for request in asked] for asked in requests]
    if finish:
        trees = visit_rest(config, trees, scripts, paths, requests)
    return (
        jax.tree.map(np.asarray, trees.replace(key=jax.random.key_data(trees.key))),
        requests,
        rounds,
    )


def drive_lanes(config, scripts, seed=0, tree_keys=None):
    """(trees, paths, requests as (lane, need, path), rounds, lanes in the order of delivery)."""
    batch, portion = len(scripts), random.Random(seed)
    trees = kernel.init(config, keys(batch) if tree_keys is None else tree_keys)
    paths = [[()] for _ in scripts]
    requests, served = ([[] for _ in scripts] for _ in range(2))
    waiting = [{} for _ in scripts]
    done = np.zeros(batch, bool)
    delivery, rounds = kernel.Delivery.empty(config, batch), 0
    while not done.all():
        trees, selection = kernel.advance(config, trees, delivery)
        rounds += 1
        nodes, needs = np.asarray(selection.node), np.asarray(selection.need)
        for b, lane in np.ndindex(needs.shape):
            need = needs[b, lane]
            done[b] |= need == Need.DONE
            if need in (Need.EXPAND, Need.ROLLOUT, Need.SCORE):
                assert lane not in waiting[b]
                waiting[b][lane] = (need, paths[b][nodes[b, lane]])
                requests[b].append((lane, Need(need).name.lower(), waiting[b][lane][1]))
        delivery = kernel.Delivery.empty(config, batch)
        for b in [b for b in range(batch) if waiting[b] and portion.random() < 0.7]:
            lane = portion.choice(sorted(waiting[b]))
            need, path = waiting[b].pop(lane)
            delivery.lane[b] = lane
            served[b].append(lane)
            if need == Need.EXPAND:
                children = scripts[b].children(path)
                paths[b] += [(*path, position) for position in range(len(children))]
                put_expansion(delivery, b, children)
            else:
                delivery.rewarded[b] = True
                delivery.reward[b] = as_nan(scripts[b].score(path))
    return trees, paths, requests, rounds, served


def put_expansion(delivery, b, children):
    delivery.expanded[b] = True
    delivery.expansion.num_children[b] = len(children)
    for position, (is_terminal, prior) in enumerate(children):
        delivery.expansion.is_terminal[b, position] = is_terminal
        delivery.expansion.prior[b, position] = prior


def visit_rest(config, trees, scripts, paths, requests):
    rewards = np.zeros(trees.visits.shape, np.float32)
    terminal = np.asarray(trees.is_terminal)
    for b, node in np.argwhere(kernel.unvisited(trees)).tolist():
        rewards[b, node] = as_nan(scripts[b].score(paths[b][node]))
        requests[b].append(("score" if terminal[b, node] else "rollout", paths[b][node]))
    return kernel.finish(config, trees, rewards, np.ones(len(scripts), bool))


def as_nan(reward):
    return np.nan if reward is None else reward


def refer(config, actor, kind=ReferenceSearch, **more):
    fields = ("num_iterations", "num_children", "max_depth", "c", "score")
    return kind(
        actor,
        **{name: getattr(config, name) for name in fields},
        capacity=config.capacity or math.inf,
        number=np.float32,
        **more,
    )


def assert_same(trees, b, nodes):
    """Asserts that tree b equals the reference: structure, order, visits, sums and rewards."""
    count = len(nodes)
    assert trees.num_nodes[b] == count
    columns = {
        "parent": [node.parent.index if node.parent else kernel.NO_NODE for node in nodes],
        "depth": [node.depth for node in nodes],
        "is_terminal": [node.is_terminal for node in nodes],
        "prior": [node.prior for node in nodes],
        "visits": [node.visits for node in nodes],
        "value_sum": [node.total for node in nodes],
        "reward": [as_nan(node.own_reward) for node in nodes],
    }
    for name, column in columns.items():
        np.testing.assert_array_equal(getattr(trees, name)[b, :count], column, err_msg=name)
    for node in nodes:
        children = trees.children[b, node.index]
        assert children[children >= 0].tolist() == [child.index for child in node.children]
    assert (trees.visits[b, count:] == 0).all()


CASES = {
    "ucb1": (SearchConfig(40, 4, 4, 1.5, "ucb1", "first"), {}),
    "puct_missing": (SearchConfig(40, 5, 3, 0.7, "puct", "first"), {"missing": 0.2}),
    "missing_scaled": (
        SearchConfig(40, 3, 4, 0.5, "ucb1", "first"),
        {"missing": 0.3, "scale": 8.0},
    ),
    "one_child": (SearchConfig(12, 1, 5, 1.5, "ucb1", "first"), {"terminal": 0.05}),
    "wide_root": (
        SearchConfig(40, 2, 4, 1.5, "ucb1", "first", root_children=6),
        {"root_children": 6},
    ),
    "narrow_root": (
        SearchConfig(40, 4, 3, 0.5, "puct", "first", root_children=2),
        {"root_children": 2},
    ),
    "greedy_full": (SearchConfig(40, 2, 6, 0.0, "ucb1", "first", 7), {"missing": 0.1}),
}


@pytest.mark.parametrize("name", CASES)
def test_host_rounds_match_the_plain_python_search(name):
    config, options = CASES[name]
    batch, compared = 8, 0
    options = [options] * (batch - 1) + [options | {"failing": 1.0}]
    scripts = [RandomActor(b, config.num_children, **options[b]) for b in range(batch)]
    trees, requests, _ = drive(config, scripts)
    assert (trees.iterations == config.num_iterations).all()
    for b in range(batch):
        expected = refer(config, RandomActor(b, config.num_children, **options[b])).run().finish()
        if expected.margin > 1e-5 * scripts[b].scale:
            assert requests[b] == expected.requests
            assert_same(trees, b, expected.nodes)
            compared += 1
    assert compared >= 0.75 * batch
    assert config.capacity is None or trees.num_nodes.max() == config.capacity


@pytest.mark.parametrize("name, lanes", [*zip(CASES, (2, 4, 3, 2, 3, 2, 4), strict=True)])
def test_several_iterations_under_way_match_plain_python_wu_uct(name, lanes):
    """Both searches are served in one random order: requests, nodes and statistics are equal."""
    config, options = CASES[name]
    config = dataclasses.replace(config, in_flight=lanes)
    batch, compared, crowded = 8, 0, 0
    scripts = [RandomActor(b, config.num_children, **options) for b in range(batch)]
    trees, _, requests, _, served = drive_lanes(config, scripts, seed=lanes)
    trees = jax.tree.map(np.asarray, trees.replace(key=None))
    assert (trees.iterations == config.num_iterations).all()
    assert not trees.pending.any() and not trees.expanding.any() and (trees.leaf < 0).all()
    for b in range(batch):
        actor = RandomActor(b, config.num_children, **options)
        expected = refer(config, actor, ReferenceLanes, lanes=lanes)
        asked = expected.fill()
        for lane in served[b]:
            asked += expected.deliver(lane) + expected.fill()
        if expected.margin > 1e-5 * actor.scale:
            assert asked == requests[b]
            assert expected.launched == expected.finished == config.num_iterations
            assert_same(trees, b, expected.nodes)
            compared += 1
        crowded += len(expected.nodes) > 1
    assert compared >= 0.75 * batch and crowded >= batch - 2


def test_a_wide_root_has_room_for_all_that_the_budget_makes():
    """With steps that never end, each iteration but the first expands a node."""
    config = SearchConfig(9, 2, 8, 1.5, "ucb1", "first", root_children=6)
    actor = {"terminal": 0.0, "failing": 0.0, "root_children": 6}
    scripts = [RandomActor(b, 2, **actor) for b in range(6)]
    for script in scripts:
        script.children = lambda path: [(False, 0.5)] * (2 if path else 6)
    trees, *_ = drive(config, scripts)
    most = 1 + 6 + 7 * 2
    assert (trees.num_nodes <= most).all() and config.num_nodes >= most
    width = (trees.children >= 0).sum(axis=2)
    assert (width[:, 0] == 6).all() and width[:, 1:].max() == 2


def test_several_expansions_under_way_find_room_beside_a_wide_root():
    """With steps that never end the trees are those of a search without a limit."""
    config = SearchConfig(40, 1, 40, 1.5, "ucb1", "first", in_flight=3, root_children=16)
    scripts = [RandomActor(b, 1) for b in range(4)]
    for script in scripts:
        script.children = lambda path: [(False, 0.5)] * (1 if path else 16)
    trees, _, _, _, served = drive_lanes(config, scripts, seed=0)
    for b, lanes in enumerate(served):
        actor = RandomActor(b, 1)
        actor.children = scripts[b].children
        expected = refer(config, actor, ReferenceLanes, lanes=config.in_flight)
        expected.fill()
        for lane in lanes:
            expected.deliver(lane)
            expected.fill()
        assert trees.num_nodes[b] == len(expected.nodes)


def test_one_lane_of_the_reference_is_the_sequential_search():
    for seed in range(6):
        config = SearchConfig(40, 3, 4)
        lanes = refer(config, RandomActor(seed, 3, missing=0.2), ReferenceLanes)
        while lanes.fill() or lanes.at[0] is not None:
            lanes.deliver(0)
        whole = refer(config, RandomActor(seed, 3, missing=0.2)).run()
        assert [(n.path, n.visits, n.total) for n in lanes.nodes] == [
            (n.path, n.visits, n.total) for n in whole.nodes
        ]


def test_iterations_under_way_spread_over_the_children():
    """Hand-computed: four lanes at a root with three unvisited children and no reward yet."""
    config = SearchConfig(20, 3, 2, 1.0, "ucb1", "first", in_flight=4)
    trees, delivery = kernel.init(config, keys(1)), kernel.Delivery.empty(config, 1)
    trees, selection = kernel.advance(config, trees, delivery)
    assert selection.need.tolist() == [[Need.ROLLOUT] * 4]  # expanded only after a visit
    delivery.rewarded[0] = True
    trees, selection = kernel.advance(config, trees, delivery)
    assert selection.need.tolist() == [[Need.EXPAND, *[Need.WAIT] * 3]]
    # While the root is being expanded, a lane that becomes free rolls out from it again.
    delivery.lane[0] = 1
    trees, selection = kernel.advance(config, trees, delivery)
    assert selection.need.tolist() == [[Need.WAIT, Need.ROLLOUT, Need.WAIT, Need.WAIT]]
    delivery = kernel.Delivery.empty(config, 1)
    put_expansion(delivery, 0, [(False, 1.0), (True, 1.0), (False, 1.0)])
    trees, selection = kernel.advance(config, trees, delivery)
    assert selection.node.tolist() == [[1, *[kernel.NO_NODE] * 3]]
    for lane, (node, need) in ((1, (2, Need.SCORE)), (2, (3, Need.ROLLOUT))):
        delivery = kernel.Delivery.empty(config, 1)
        delivery.rewarded[0], delivery.lane[0] = True, lane
        trees, selection = kernel.advance(config, trees, delivery)
        assert (selection.node.tolist()[0][lane], selection.need.tolist()[0][lane]) == (node, need)
    # Visits + pending: 5 + 3 at the root, 0 + 1 at each child; all means 0, so the first is chosen.
    delivery.lane[0] = 3
    trees, selection = kernel.advance(config, trees, delivery)
    assert (selection.node.tolist()[0][3], selection.need.tolist()[0][3]) == (1, Need.ROLLOUT)
    np.testing.assert_array_equal(np.asarray(trees.pending)[0, :4], [4, 2, 1, 1])
    np.testing.assert_array_equal(np.asarray(trees.visits)[0, :4], [5, 0, 0, 0])


def test_a_lane_waits_for_the_one_score_of_a_terminal():
    config = SearchConfig(9, 1, 2, 1.0, "ucb1", "first", in_flight=2)
    trees, delivery = kernel.init(config, keys(1)), kernel.Delivery.empty(config, 1)
    trees, _ = kernel.advance(config, trees, delivery)
    delivery.rewarded[0] = True
    trees, _ = kernel.advance(config, trees, delivery)
    delivery = kernel.Delivery.empty(config, 1)
    put_expansion(delivery, 0, [(True, 1.0)])
    trees, selection = kernel.advance(config, trees, delivery)
    assert selection.need.tolist() == [[Need.SCORE, Need.WAIT]]
    rewarded = kernel.Delivery.empty(config, 1)
    rewarded.rewarded[0], rewarded.lane[0] = True, 1
    trees, selection = kernel.advance(config, trees, rewarded)
    assert selection.need.tolist() == [[Need.WAIT, Need.WAIT]]
    assert trees.leaf.tolist() == [[1, kernel.NO_NODE]]
    rewarded.lane[0], rewarded.reward[0] = 0, 0.5
    trees, selection = kernel.advance(config, trees, rewarded)
    assert selection.need.tolist() == [[Need.DONE, Need.DONE]]
    trees = jax.device_get(trees.replace(key=None))
    assert (trees.iterations[0], trees.visits[0, 1], trees.value_sum[0, 1]) == (9, 7, 3.5)


def test_random_ties_keep_what_holds_of_every_tree():
    config = SearchConfig(40, 4, 4, in_flight=3)
    scripts = [RandomActor(b, 4) for b in range(8)]
    trees, _, requests, _, _ = drive_lanes(config, scripts)
    again = drive_lanes(config, [RandomActor(b, 4) for b in range(8)])[2]
    assert requests == again
    assert requests != drive_lanes(config, [RandomActor(b, 4) for b in range(8)], 0, keys(8, 1))[2]
    trees = jax.tree.map(np.asarray, trees.replace(key=None))
    for b in range(8):
        count = trees.num_nodes[b]
        below = np.zeros(count, int)
        np.add.at(below, trees.parent[b, 1:count], trees.visits[b, 1:count])
        own = trees.visits[b, :count] - below
        assert (own >= 0).all() and own.sum() == 40 == trees.visits[b, 0]
        inner = trees.children[b, :count, 0] >= 0
        chosen = trees.choice[b, :count]
        assert (trees.parent[b, chosen[inner]] == np.flatnonzero(inner)).all()
        assert (chosen[~inner] == kernel.NO_NODE).all()


def mix(word):
    """A u32 hash that gives equal results for Python integers and traced arrays."""
    word = (word ^ (word >> 16)) * 0x45D9F3B & 0xFFFFFFFF
    word = (word ^ (word >> 16)) * 0x45D9F3B & 0xFFFFFFFF
    return word ^ (word >> 16)


def traced_hash(seed, *numbers):
    for number in numbers:
        word = seed ^ jnp.asarray(number).astype(jnp.uint32)
        word = (word ^ (word >> 16)) * jnp.uint32(0x45D9F3B)
        word = (word ^ (word >> 16)) * jnp.uint32(0x45D9F3B)
        seed = word ^ (word >> 16)
    return seed


def traced_expand(seed, tree, node):
    word = traced_hash(seed, node, 1, tree.visits[node])
    bits = word >> jnp.arange(3, dtype=jnp.uint32) * 3
    return kernel.Expansion((word >> 16) % 4, bits % 8 == 0, jnp.full(3, 0.5))


def traced_reward(seed, tree, node):
    word = traced_hash(seed, node, 2, tree.visits[node])
    return jnp.where(word % 16 == 0, jnp.nan, ((word >> 8) % 4096).astype(jnp.float32) / 512 - 4)


class HashScript:
    """The traced actor, computed with Python integers."""

    def __init__(self, seed):
        self.seed = seed

    def hash(self, *numbers):
        seed = self.seed
        for number in numbers:
            seed = mix(seed ^ number)
        return seed

    def expand(self, node):
        word = self.hash(node.index, 1, node.visits)
        return [((word >> 3 * i) % 8 == 0, 0.5) for i in range((word >> 16) % 4)]

    def reward(self, node):
        word = self.hash(node.index, 2, node.visits)
        return None if word % 16 == 0 else (word >> 8) % 4096 / 512 - 4


TRACED = SearchConfig(60, 3, 4, 1.5, "ucb1", "first")
ACTOR = kernel.TracedActor(traced_expand, traced_reward)
SEEDS = np.arange(16, dtype=np.uint32)


def test_search_inside_one_jit_matches_the_plain_python_search():
    compared = 0
    trees = kernel.search(TRACED, ACTOR, kernel.init(TRACED, keys(16)), SEEDS)
    trees = jax.tree.map(np.asarray, trees.replace(key=None))
    for b in range(16):
        expected = refer(TRACED, HashScript(b)).run().finish()
        if expected.margin > 1e-5:
            assert_same(trees, b, expected.nodes)
            compared += 1
    assert compared >= 12


def statistics(trees, b):
    return [np.asarray(leaf)[b] for leaf in jax.tree.leaves(trees)]


def test_a_tree_depends_on_its_key_and_not_on_its_neighbours_or_the_schedule():
    config = dataclasses.replace(SMALL, tie_break="random", num_children=4)
    script = {"failing": 0.0, "terminal": 0.0}
    own = [
        RandomActor(7, 4, **script),
        RandomActor(7, 4, **script),
        *[RandomActor(s, 4) for s in range(6)],
    ]
    other = [*[RandomActor(s + 50, 4) for s in range(7)], RandomActor(7, 4, **script)]
    first, requests, _ = drive(config, own, tree_keys=keys(8))
    second, moved, _ = drive(
        config, other, seed=1, tree_keys=keys(8)[jnp.array([2, 3, 4, 5, 6, 7, 1, 0])]
    )
    assert requests[0] == moved[7]
    for one, same in zip(statistics(first, 0), statistics(second, 7), strict=True):
        np.testing.assert_array_equal(one, same)
    assert requests[0] != requests[1]  # another key breaks ties differently


@pytest.mark.parametrize("score", ["ucb1", "puct"])
def test_ties_are_drawn_uniformly(score):
    """Children 0, 2 and 3 tie and 1 does not, at expansion and at a recomputed choice."""
    config = SearchConfig(10, 4, 2, score=score)
    priors = jnp.array([0.5, 0.25, 0.5, 0.5])
    expansion = kernel.Expansion(jnp.int32(4), jnp.zeros(4, bool), priors)

    def choices(tree):
        tree = kernel.backup(config, tree, jnp.int32(0), 0.0)
        tree, first = kernel.expand(config, tree, jnp.int32(0), expansion)
        tree = tree.replace(
            visits=tree.visits.at[:5].set(jnp.array([8, 2, 2, 2, 2])),
            value_sum=tree.value_sum.at[:5].set(jnp.array([0.0, 2.0, 1.0, 2.0, 2.0])),
        )
        renewed = mcts._choose(config, tree, jnp.int32(0), mcts._tie_words(config, tree)[0])
        return first, renewed

    first, renewed = jax.jit(jax.vmap(choices))(kernel.init(config, keys(6000)))
    tied = [1, 2, 3, 4] if score == "ucb1" else [1, 3, 4]
    assert_uniform(first, tied)
    assert_uniform(renewed, [1, 3, 4])
    together = np.unique(np.asarray(first) * 8 + np.asarray(renewed), return_counts=True)[1]
    assert len(together) == 3 * len(tied)  # the random words of one turn are independent


def assert_uniform(drawn, values):
    found, counts = np.unique(np.asarray(drawn), return_counts=True)
    assert found.tolist() == values
    expected = len(drawn) / len(values)
    assert ((counts - expected) ** 2 / expected).sum() < 20  # 3 degrees of freedom: p = 0.0002


def test_tie_words_of_successive_iterations_and_keys_are_independent():
    config = SearchConfig(max_depth=7)
    trees = kernel.init(config, keys(400))

    @jax.jit
    def tie_words(trees):
        turns = jax.vmap(lambda t: trees.replace(turn=trees.turn + t))(jnp.arange(20))
        return jax.vmap(jax.vmap(functools.partial(mcts._tie_words, config)))(turns)

    words = np.asarray(tie_words(trees))
    bits = (words.reshape(-1)[:, None] >> np.arange(32)) & 1
    assert np.abs(bits.mean(0) - 0.5).max() < 0.01
    assert len(np.unique(words)) > words.size - 20
    grid = words.astype(float)
    for axis in range(3):
        moved = np.roll(grid, 1, axis)
        assert abs(np.corrcoef(grid.ravel(), moved.ravel())[0, 1]) < 0.02


def test_first_iteration_rolls_out_the_root_and_the_second_expands_it():
    scripts = [RandomActor(b, 2, failing=0.0, terminal=0.0) for b in range(2)]
    _, requests, _ = drive(SMALL, scripts, finish=False)
    assert requests[0][:3] == [("rollout", ()), ("expand", ()), ("rollout", (0,))]
    assert requests[0][3] == ("rollout", (1,))


def test_known_terminal_rewards_cost_no_round():
    scripts = [RandomActor(b, 2, failing=0.0, terminal=1.0) for b in range(2)]
    trees, requests, rounds = drive(SMALL, scripts)
    assert [len(asked) for asked in requests] == [4 if n == 3 else 3 for n in trees.num_nodes]
    assert (trees.iterations == SMALL.num_iterations).all()
    assert rounds < SMALL.num_iterations


@pytest.mark.parametrize("missing", [np.nan, np.inf, -np.inf])
def test_missing_reward_moves_no_mean_and_is_asked_once_at_a_terminal(missing):
    tree = first_tree(kernel.init(SMALL, keys(1)))
    tree = backup(tree, np.int32(0), missing)
    assert (np.asarray(tree.visits)[0], np.asarray(tree.value_sum)[0]) == (1, 0.0)
    tree = backup(tree, np.int32(0), 3.0)
    expansion = kernel.Expansion(np.int32(2), np.array([True, False]), np.ones(2, np.float32))
    tree, child = expand(tree, np.int32(0), expansion)
    assert int(child) == 1
    tree = backup(tree, child, missing)
    tree = jax.device_get(tree.replace(key=None))
    np.testing.assert_array_equal(tree.visits[:3], [3, 1, 0])
    np.testing.assert_array_equal(tree.value_sum[:3], [4.5, 1.5, 0.0])
    np.testing.assert_array_equal(tree.reward[:3], [np.nan, 1.5, np.nan])


def test_masks_change_nothing():
    trees = kernel.init(SMALL, keys(2))
    one = first_tree(trees)
    expansion = kernel.Expansion(np.int32(2), np.ones(2, bool), np.ones(2, np.float32))
    expanded, node = expand(one, np.int32(0), expansion, False)
    backed_up = backup(one, np.int32(0), 1.0, False)
    assert int(node) == 0
    for same in (expanded, backed_up):
        jax.tree.map(np.testing.assert_array_equal, data(same), data(one))


def data(trees):
    return trees.replace(key=jax.random.key_data(trees.key))


def test_delivery_to_a_tree_without_a_request_is_ignored():
    delivery = kernel.Delivery.empty(SMALL, 2)
    delivery.rewarded[:] = True
    trees, selection = kernel.advance(SMALL, kernel.init(SMALL, keys(2)), delivery)
    assert np.asarray(trees.visits).sum() == 0
    assert selection.need.tolist() == [[Need.ROLLOUT]] * 2
    trees, selection = kernel.advance(SMALL, trees, kernel.Delivery.empty(SMALL, 2))
    assert selection.need.tolist() == [[Need.WAIT]] * 2


def test_an_expansion_delivered_with_a_reward_is_applied_alone():
    delivery = kernel.Delivery.empty(SMALL, 2)
    trees, _ = kernel.advance(SMALL, kernel.init(SMALL, keys(2)), delivery)
    delivery.rewarded[0] = True
    put_expansion(delivery, 0, [(False, 0.5)])
    trees, selection = kernel.advance(SMALL, trees, delivery)
    assert np.asarray(trees.visits).sum() == 0
    assert selection.node.tolist() == [[1], [kernel.NO_NODE]]
    assert selection.need.tolist()[1][0] == Need.WAIT


def test_restart_and_finish_touch_the_trees_of_the_mask_alone():
    mask, fresh = np.array([False, True]), data(kernel.init(SMALL, keys(2, seed=9)))
    before = drive(SMALL, [RandomActor(b, 2) for b in range(2)])[0]
    trees = jax.tree.map(jnp.array, before.replace(key=keys(2)))
    after = data(kernel.restart(SMALL, trees, keys(2, seed=9), mask))
    jax.tree.map(np.testing.assert_array_equal, statistics(after, 0), statistics(before, 0))
    jax.tree.map(np.testing.assert_array_equal, statistics(after, 1), statistics(fresh, 1))
    rewards = np.full((2, SMALL.num_nodes), 2.0, np.float32)
    ended = data(kernel.finish(SMALL, kernel.init(SMALL, keys(2, seed=9)), rewards, mask))
    jax.tree.map(np.testing.assert_array_equal, statistics(ended, 0), statistics(fresh, 0))
    assert (np.asarray(ended.visits)[1, 0], np.asarray(ended.value_sum)[1, 0]) == (1, 2.0)


def test_next_unvisited_gives_the_lowest_node_then_none():
    tree = first_tree(kernel.init(SMALL, keys(1)))
    assert int(kernel.next_unvisited(tree)) == 0
    tree = backup(tree, np.int32(0), 1.0)
    assert int(kernel.next_unvisited(tree)) == kernel.NO_NODE
    expansion = kernel.Expansion(np.int32(2), np.zeros(2, bool), np.ones(2, np.float32))
    tree, child = expand(tree, np.int32(0), expansion)
    tree = backup(tree, child, 1.0)
    assert int(kernel.next_unvisited(tree)) == 2


def test_actions_lead_from_the_root_to_their_node():
    trees, paths, *_ = drive_lanes(SMALL, [RandomActor(b, 2) for b in range(3)])
    depths = set()
    to_nodes = jax.vmap(functools.partial(kernel.actions_to, SMALL), (None, 0))
    actions = jax.jit(jax.vmap(to_nodes, (0, None)))(trees, np.arange(SMALL.num_nodes))
    for own, found_of_tree in zip(paths, actions.tolist(), strict=True):
        for path, found in zip(own, found_of_tree[: len(own)], strict=True):
            assert found == [*path, *[kernel.NO_NODE] * (SMALL.max_depth - len(path))]
            depths.add(len(path))
    assert depths == set(range(SMALL.max_depth + 1))


def test_search_trees_is_a_search_of_fresh_trees():
    expected = kernel.search(TRACED, ACTOR, kernel.init(TRACED, keys(16)), SEEDS)
    found = kernel.search_trees(TRACED, ACTOR, keys(16), SEEDS)
    jax.tree.map(np.testing.assert_array_equal, data(found), data(expected))


def test_other_trees_of_a_config_compile_nothing():
    drive(SMALL, [RandomActor(b, 2) for b in range(2)])
    before = kernel.advance._cache_size(), kernel.finish._cache_size()
    drive(SMALL, [RandomActor(b + 2, 2) for b in range(2)])
    assert (kernel.advance._cache_size(), kernel.finish._cache_size()) == before


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("num_iterations", 0),
        ("num_children", 0),
        ("num_children", 257),
        ("max_depth", 0),
        ("c", -1.0),
        ("c", float("nan")),
        ("score", "ucb"),
        ("tie_break", "last"),
        ("capacity", 0),
        ("in_flight", 0),
        ("in_flight", 5),
        ("root_children", 257),
    ],
)
def test_wrong_settings_are_named(field, value):
    with pytest.raises(UserError, match=f"^{field} is {value!r}: it must be"):
        SearchConfig(**{field: value})
