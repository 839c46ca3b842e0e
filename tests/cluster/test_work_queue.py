"""Which worker gets which item, without workers and without a clock."""

from hypothesis import given
from hypothesis import strategies as st

from stair_jax.cluster.work_queue import WorkQueue


def queue_of(sizes, **options):
    """Items `(number, size)`."""
    return WorkQueue(enumerate(sizes), lambda item: item[0], lambda item: item[1], **options)


def ids(items):
    return [number for number, _ in items]


def test_the_longest_go_first_and_equal_ones_in_their_order():
    queue = queue_of([2, 5, 2, 9, 5])
    assert ids(queue.take("a", 5)) == [3, 1, 4, 0, 2]


def test_the_longest_is_found_among_those_that_are_read():
    read = []

    def sizes():
        for size in [1, 2, 3, 9]:
            read.append(size)
            yield size

    queue = queue_of(sizes(), window=2)
    assert read == [1, 2]
    assert ids(queue.take("a", 4)) == [1, 2, 3, 0]


def test_nobody_gets_more_than_an_equal_share_of_the_last_items():
    queue = queue_of([1] * 10)
    assert len(queue.take("a", 8, workers=4)) == 3
    assert queue.take("a", 8, workers=4) == []
    assert len(queue.take("b", 8, workers=2)) == 5


def test_what_a_lost_worker_had_waits_again():
    queue = queue_of([3, 2, 1])
    queue.take("a", 2)
    queue.finish(0)
    assert queue.lose("a") == 1
    assert queue.lose("a") == 0
    assert ids(queue.take("b", 3)) == [1, 2]


def test_an_item_that_is_given_back_goes_to_another_worker():
    queue = queue_of([1])
    queue.take("a")
    queue.give_back(0, "b")
    assert queue.is_dealt
    queue.give_back(0, "a")
    assert ids(queue.take("b")) == [0]


def test_who_has_nothing_gets_copies_of_the_oldest_items_and_the_first_result_counts():
    queue = queue_of([1, 1, 1])
    queue.take("a", 2), queue.take("b", 1)
    assert queue.take("b", 1) == []  # it is at work
    queue.finish(2)
    assert ids(queue.take("b", 1)) == [0]
    assert queue.take("c", 1, workers=3) == [(1, 1)]
    assert queue.take("d", 1, workers=4) == []  # two workers have each
    assert queue.finish(0) and not queue.finish(0) and not queue.finish("unknown")
    assert queue.finish(1) and queue.is_done


def test_a_copy_stays_when_one_of_its_workers_is_lost():
    queue = queue_of([1])
    queue.take("a"), queue.take("b")
    assert queue.lose("a") == 0 and queue.is_dealt and not queue.is_done
    assert queue.lose("b") == 1 and not queue.is_dealt


@given(
    st.lists(st.integers(1, 9), max_size=30),
    st.lists(st.tuples(st.sampled_from("tfgl"), st.sampled_from("abc"), st.integers(1, 4))),
)
def test_no_item_is_lost_or_finished_twice(sizes, events):
    """Whatever workers do, and whichever die: in the end each item has one result."""
    queue, held, results = queue_of(sizes, window=4), {}, []

    def finish(worker):
        if held.get(worker):
            id = held[worker].pop()
            results.extend([id] * queue.finish(id))

    for event, worker, number in events:
        if event == "t":
            held.setdefault(worker, set()).update(ids(queue.take(worker, number, 3)))
        elif event == "f":
            finish(worker)
        elif event == "g" and held.get(worker):
            queue.give_back(held[worker].pop(), worker)
        elif event == "l":
            queue.lose(worker), held.pop(worker, None)
    for worker in "abc":
        queue.lose(worker)
    while not queue.is_done:
        held = {"d": set(ids(queue.take("d", 2)))}
        while held["d"]:
            finish("d")
    assert sorted(results) == list(range(len(sizes)))
