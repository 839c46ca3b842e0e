import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stair_jax.data.packing import Example
from stair_jax.data.tries import build_trie, bundle_tries


@st.composite
def examples(draw, min_size=1, max_size=8):
    """Random sequences over two tokens, so that many prefixes are shared, with random masks."""
    found = []
    for _ in range(draw(st.integers(min_size, max_size))):
        tokens = draw(st.lists(st.integers(0, 1), min_size=1, max_size=7))
        mask = draw(st.lists(st.integers(0, 1), min_size=len(tokens), max_size=len(tokens)))
        found.append(Example(tokens, mask))
    return found


def visible(trie):
    """Bool [P, P]: whether row position t (axis 0) attends to s, by the definition of `ends`."""
    index = np.arange(len(trie))
    return (index <= index[:, None]) & (index[:, None] < trie.ends)


def prefixes(trie):
    """For each row position the prefix that it stands for: the inputs it sees, and its target."""
    found = []
    for sees in visible(trie):
        inputs, targets = trie.tokens[sees].tolist(), trie.targets[sees].tolist()
        assert inputs[1:] == targets[:-1]
        assert trie.positions[sees].tolist() == list(range(len(inputs)))
        found.append((*inputs, targets[-1]))
    return found


@given(examples())
def test_a_place_is_a_prefix_and_sees_the_prefixes_of_it(sequences):
    trie = build_trie(sequences)
    expected = {
        tuple(sequence.tokens[:end])
        for sequence in sequences
        for end in range(2, len(sequence) + 1)
    }
    found = prefixes(trie)
    assert len(found) == len(expected) and set(found) == expected
    for t, sees in enumerate(visible(trie)):
        for s, seen in enumerate(sees):
            assert seen == (found[t][: len(found[s])] == found[s])


@given(examples())
def test_the_runs_of_a_sequence_are_what_the_loss_counts_of_it(sequences):
    trie = build_trie(sequences)
    found = prefixes(trie)
    for sequence, run in zip(sequences, trie.runs, strict=True):
        counted = sorted(found[place] for place in np.flatnonzero(np.isin(trie.node_ids, run)))
        assert counted == [
            tuple(sequence.tokens[: index + 1])
            for index in range(1, len(sequence))
            if sequence.loss_mask[index]
        ]
    used = {node for run in trie.runs for node in run}
    assert used == set(range(trie.num_nodes)) == set(trie.node_ids.tolist()) - {-1}
    starts = np.flatnonzero(np.diff(trie.node_ids, prepend=-2))
    nodes = trie.node_ids[starts]
    assert len(set(nodes[nodes >= 0])) == sum(nodes >= 0)  # a node is contiguous


def test_a_step_that_is_chosen_here_and_path_there():
    """Prompt 1 2; then the steps 3 4 and 3 5; then 6 and 7 after 3 4."""
    trie = build_trie(
        [
            Example([1, 2, 3, 4], [0, 0, 1, 1]),
            Example([1, 2, 3, 5], [0, 0, 1, 1]),
            Example([1, 2, 3, 4, 6], [0, 0, 0, 0, 1]),
            Example([1, 2, 3, 4, 7], [0, 0, 0, 0, 1]),
        ]
    )
    assert trie.tokens.tolist() == [1, 2, 3, 4, 4, 3]
    assert trie.targets.tolist() == [2, 3, 4, 6, 7, 5]
    assert trie.positions.tolist() == [0, 1, 2, 3, 3, 2]
    assert trie.ends.tolist() == [6, 6, 5, 4, 5, 6]
    assert trie.node_ids.tolist() == [-1, 0, 1, 2, 3, 4]
    assert trie.runs == ((0, 1), (0, 4), (2,), (3,))


def test_sequences_of_one_token_have_no_place():
    trie = build_trie([Example([5], [1]), Example([5], [0])])
    assert len(trie) == trie.num_nodes == 0 and trie.runs == ((), ())


@given(st.lists(examples(2, 2), min_size=1, max_size=6), st.integers(6, 14), st.integers(4, 6))
def test_bundles_hold_each_group_once_and_fit(groups, length, max_runs):
    bundles = bundle_tries(groups, length, max_runs)
    assert sorted(m for found in bundles for m in found.members) == list(range(len(groups)))
    for found in bundles:
        sequences = [example for member in found.members for example in groups[member]]
        assert max(len(trie) for trie in found.tries) <= length
        assert max(map(len, found.runs)) <= max_runs
        pair = build_trie(sequences)
        if len(found.tries) == 1:
            assert prefixes(found.tries[0]) == prefixes(pair)
        else:
            assert len(found.members) == 1 and len(found.tries) == len(sequences)
            assert len(pair) > length or max(map(len, pair.runs)) > max_runs
        stretches = [prefixes(trie)[place] for trie in found.tries for place in range(len(trie))]
        nodes, before = [], 0
        for trie in found.tries:
            nodes += np.where(trie.node_ids < 0, -1, trie.node_ids + before).tolist()
            before += trie.num_nodes
        for sequence, run in zip(sequences, found.runs, strict=True):
            counted = sorted(p for p, node in zip(stretches, nodes, strict=True) if node in run)
            expected = [i for i in range(1, len(sequence)) if sequence.loss_mask[i]]
            assert counted == [tuple(sequence.tokens[: i + 1]) for i in expected]


def test_a_trie_takes_as_many_groups_as_fit():
    """Four pairs after one prompt of 10 tokens; each adds 2 + 2 positions to the prompt's 9."""
    prompt = list(range(10))
    groups = [
        [Example([*prompt, 10 * i + side, 7], [0] * 10 + [1, 1]) for side in (1, 2)]
        for i in (3, 1, 2, 0)
    ]
    assert [found.members for found in bundle_tries(groups, 25, 4)] == [(3, 1, 2, 0)]
    assert [found.members for found in bundle_tries(groups, 24, 4)] == [(3, 1, 2), (0,)]
    assert [found.members for found in bundle_tries(groups, 13, 4)] == [(3,), (1,), (2,), (0,)]
    alone = bundle_tries(groups, 11, 4)  # 9 + 2 positions for a sequence, 9 + 4 for a pair
    assert [len(found.tries) for found in alone] == [2, 2, 2, 2]
    with pytest.raises(ValueError, match=r"12 tokens, .* is more than 10 places or 4 runs"):
        bundle_tries(groups, 10, 4)
