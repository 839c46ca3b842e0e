"""Ways to carry out a judge's task with a scripted model."""

import pytest

from stair_jax.testing.tiny_tokenizers import byte_tokenizer


@pytest.fixture(scope="session")
def tokenizer():
    return byte_tokenizer()


@pytest.fixture
def run():
    """`run(task, complete)`: the result of a task whose requests `complete` answers."""

    def carry_out(task, complete):
        waiting = task.start()
        while waiting:
            waiting = [more for request in waiting for more in task.receive(complete(request))]
        task.close()
        assert task.done
        return task.result

    return carry_out
