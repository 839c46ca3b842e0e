from dataclasses import dataclass
from threading import Barrier, Thread

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stair_jax.data.packing import Example
from stair_jax.data.tokenized import LazyIds, TokenizedRows
from stair_jax.errors import UserError
from stair_jax.training.batches import Batches, Group


@dataclass
class Row:
    id: str
    number: int
    lengths: tuple[int, int]


def encode(row):
    """Two sequences of given lengths, whose tokens say where they are from."""
    first = 100 * row.number
    return [
        Example(list(range(first + 50 * side, first + 50 * side + n)), [0] * (n - 1) + [1], "x")
        for side, n in enumerate(row.lengths)
    ]


def make_rows(lengths):
    return [Row(str(i), i, pair) for i, pair in enumerate(lengths)]


def on_processes(count, rows, encode):
    """`TokenizedRows` in each of several simulated processes, which exchange lengths by a fake
    gather.
    """
    barrier, shares, made = Barrier(count), [None] * count, [None] * count

    def work(process):
        def gather(sizes):
            shares[process] = sizes
            barrier.wait(timeout=20)
            return np.stack(shares)

        try:
            made[process] = TokenizedRows(rows, encode(process), 2, (process, count), gather)
        except UserError as error:
            made[process] = error

    threads = [Thread(target=work, args=(process,)) for process in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return made


pairs_strategy = st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=12)


@given(pairs_strategy, st.sampled_from([1, 2, 3]), st.integers(1, 5))
@settings(max_examples=15)
def test_the_parts_of_all_processes_are_the_batches_of_one(lengths, count, batch_size):
    rows = make_rows(lengths)
    read = [[] for _ in range(count)]

    def counting(process):
        def encode_and_count(row):
            read[process].append(row.number)
            return encode(row)

        return encode_and_count

    made = on_processes(count, rows, counting)
    assert [sorted(numbers) for numbers in read] == [
        list(range(process, len(rows), count)) for process in range(count)
    ]
    each = 2
    batches = [
        Batches(
            [Group(row.id, examples) for row, examples in zip(rows, encoded, strict=True)],
            batch_size, 9, each * count, slice(each * process, each * process + each),
        )
        for process, encoded in enumerate(made)
    ]  # fmt: skip
    eager = [Group(row.id, tuple(encode(row))) for row in rows]
    whole = Batches(eager, batch_size, 9, each * count)
    assert len({len(own) for own in [*batches, whole]}) == 1
    for step, expected in enumerate(whole):
        parts = [own[step] for own in batches]
        for part in parts:
            assert part.members == expected.members and part.ids == expected.ids
            assert part.num_tokens == expected.num_tokens
            assert part.num_positions == expected.num_positions
            assert part.num_rows == each * count
        for name, array in expected.arrays["micro"].items():
            own = [part.arrays["micro"][name] for part in parts]
            if array.ndim == 3:
                np.testing.assert_array_equal(np.concatenate(own, axis=1), array)
            else:
                assert all(np.array_equal(one, array) for one in own), name
        assert len({part.arrays["count"] for part in parts} | {expected.arrays["count"]}) == 1
    assert all(own.state(1) == whole.state(1) for own in batches)


def test_a_process_reads_no_tokens_but_its_own_and_those_of_its_rows():
    rows, read = make_rows([(9, 9)] * 8), []

    def encode_and_count(row):
        read.append(row.number)
        return encode(row)

    encoded = on_processes(2, rows, lambda process: encode_and_count if process else encode)[1]
    assert read == [1, 3, 5, 7]
    groups = [Group(str(i), examples) for i, examples in enumerate(encoded)]
    first = Batches(groups, 8, 9, 16, slice(8, 16))[0]
    assert read == [1, 3, 5, 7, 4, 6]  # rows 8 to 15 hold the pairs 4 to 7
    np.testing.assert_array_equal(
        first.arrays["micro"]["tokens"][0][:2], [range(400, 409), range(450, 459)]
    )


def test_a_row_that_one_process_cannot_encode_is_told_by_all():
    def refusing(process):
        def encode_or_refuse(row):
            if row.number == 2:
                raise UserError("row 2 is empty")
            return encode(row)

        return encode_or_refuse

    made = on_processes(3, make_rows([(2, 3)] * 5), refusing)
    assert [str(error) for error in made] == ["row 2 is empty"] * 3
    with pytest.raises(UserError, match="row 2"):
        TokenizedRows(make_rows([(2, 3)] * 5), refusing(0), 2, (0, 1))


def test_truncation_takes_from_the_end_and_so_from_what_counts():
    rows = [Row("a", 0, (5, 5)), Row("b", 1, (5, 5))]
    encoded = TokenizedRows(rows, lambda row: [Example([1, 2, 3, 4, 5], [0, 0, 0, 1, 1])], 1)
    (short,), _ = encoded.truncated(4)
    assert (list(short.tokens), list(short.loss_mask)) == ([1, 2, 3, 4], [0, 0, 0, 1])
    (shorter,) = encoded.truncated(2)[1]
    assert (list(shorter.tokens), list(shorter.loss_mask)) == ([1, 2], [0, 0])
    assert encoded.lengths.tolist() == [[5], [5]] and len(encoded[0][0]) == 5
    assert shorter.id == "b"


def test_late_ids_are_a_sequence():
    made = []

    def make():
        made.append(1)
        return np.array([5, 6, 7], np.int32)

    ids = LazyIds(3, make)
    assert len(ids) == 3 and not made
    assert list(ids) == [5, 6, 7] and ids[-1] == 7 and ids[1:] == [6, 7] and 6 in ids
    assert np.asarray(ids).dtype == np.int32 and np.asarray(ids, np.int64).dtype == np.int64
    assert sum(LazyIds(300, lambda: np.ones(300, np.int32))) == 300


def test_tokens_of_weight_are_those_beside_end_tokens_and_a_cut_takes_end_tokens_first():
    ends = (90, 91)
    sides = ([1, 2, 90], [1, 90, 91]), ([7, 8], [7, 8])
    rows = [Row(str(number), number, (0, 0)) for number in range(2)]

    def encode(row):
        return [Example(ids, [0] + [1] * (len(ids) - 1), "x") for ids in sides[row.number]]

    made = TokenizedRows(rows, encode, 2, ends=ends)
    assert made.counted.tolist() == [[2, 2], [1, 1]]
    assert made.weighted.tolist() == [[1, 0], [1, 1]]
    assert made.truncated(2).weighted.tolist() == [[1, 0], [1, 1]]
    assert made.truncated(1).weighted.tolist() == [[0, 0], [0, 0]]
    alike = made.checksums[:, 0] == made.checksums[:, 1]
    assert alike.tolist() == [False, True] and (made.checksums >= 0).all()
