"""The thread that owns the engine, as coroutines ask it."""

import asyncio
import threading

import pytest

from stair_jax.decoding.requests import Sampling
from stair_jax.errors import UserError
from stair_jax.server.errors import ApiError
from stair_jax.server.sampled import sampled_choices

ENDLESS = Sampling(temperature=1.0, max_tokens=100)


def in_thread(serve, use, **settings):
    """What `use(serving)` returns, over the tiny model."""

    async def run():
        async with serve(**settings) as (_, serving):
            return await use(serving)

    return asyncio.run(run())


def makes(count=1, sampling=ENDLESS, tokens=(1, 2, 3)):
    return sampled_choices(tokens, sampling, "test", 0, count)


async def until_nothing_is_left(serving):
    """Waits for the thread to see what was cancelled, and for a prompt that was begun."""
    engine = serving.answerer.engine
    while await serving.thread.call(lambda answerer: engine.pending or len(engine._handles)):
        await asyncio.sleep(0.001)
    await serving.thread.ask(makes(sampling=Sampling(temperature=0, max_tokens=20))[0])


def test_what_streams_is_the_result(serve):
    async def use(serving):
        heard, results = {n: [] for n in range(3)}, {}
        with serving.thread.asking(makes(3), streams=True) as stream:
            async for event in stream:
                heard[event.choice] += zip(event.tokens, event.logps, strict=True)
                if event.is_last:
                    results[event.choice] = event.result
        return heard, results

    heard, results = in_thread(serve, use)
    for number, completion in results.items():
        assert heard[number] == list(zip(completion.tokens, completion.logps, strict=True))


def test_a_prompt_of_several_answers_goes_through_the_model_once(serve, answerer):
    tokens = tuple(range(40))

    async def use(serving):
        before = answerer.engine.stats.prefilled
        with serving.thread.asking(makes(4, Sampling(max_tokens=2), tokens)) as stream:
            assert len([event async for event in stream]) == 4
        return answerer.engine.stats.prefilled - before

    assert in_thread(serve, use) < 2 * len(tokens)


def test_a_block_that_is_left_ends_its_tasks_and_frees_their_pages(serve, answerer):
    async def use(serving):
        with serving.thread.asking(makes(6), streams=True) as stream:
            await anext(stream)
            assert serving.thread.num_open == 6
        assert serving.thread.num_open == 0
        await until_nothing_is_left(serving)
        return answerer.engine.free

    assert in_thread(serve, use) == answerer.engine.capacity


def test_a_task_that_is_cancelled_leaves_the_others_alone(serve):
    async def use(serving):
        ended, seen = [], set()
        with serving.thread.asking(makes(3), streams=True) as stream:
            async for event in stream:
                seen.add(event.choice)
                if event.choice == 1:
                    assert not stream.is_cancelled(1)
                    stream.cancel(1)
                if event.is_last:
                    ended.append(event.choice)
        return seen, sorted(ended)

    seen, ended = in_thread(serve, use)
    assert 1 in seen and ended in ([0, 2], [0, 1, 2])  # it may have ended before


def test_what_nobody_waits_for_any_more_is_never_begun(serve):
    begun = []

    async def use(serving):
        gate = threading.Event()
        busy = asyncio.create_task(serving.thread.call(lambda answerer: gate.wait()))
        await asyncio.sleep(0)
        with serving.thread.asking([lambda answerer: begun.append(1)]):
            pass
        gate.set()
        await busy
        await serving.thread.call(lambda answerer: None)

    in_thread(serve, use)
    assert not begun


def test_a_task_that_cannot_be_made_fails_alone(serve):
    def refuse(answerer):
        raise UserError("the template refuses it")

    async def use(serving):
        with serving.thread.asking([refuse, *makes(1, Sampling(max_tokens=2))]) as stream:
            events = {event.choice: event async for event in stream}
        with pytest.raises(UserError, match="refuses"):
            await serving.thread.ask(refuse)
        return events

    events = in_thread(serve, use)
    assert isinstance(events[0].error, UserError) and events[1].error is None
    assert len(events[1].result.tokens) == 2


def test_what_the_engine_refuses_fails_alone(serve, answerer):
    async def use(serving):
        beyond = makes(2, tokens=(1, 10**6))  # no token of the vocabulary
        with serving.thread.asking([*beyond, *makes(1, Sampling(max_tokens=2))]) as stream:
            return {event.choice: event async for event in stream}

    events = in_thread(serve, use)
    assert isinstance(events[0].error, UserError) and isinstance(events[1].error, UserError)
    assert len(events[2].result.tokens) == 2
    assert not answerer.driver.pending


def test_tasks_that_are_aborted_fail_with_the_reason(serve):
    async def use(serving):
        with serving.thread.asking(makes(2), streams=True) as stream:
            await anext(stream)
            serving.thread.abort(ApiError(503, "the server ends"))
            return [event async for event in stream if event.is_last]

    events = in_thread(serve, use)
    assert [str(event.error) for event in events] == ["the server ends"] * 2


def test_a_thread_that_is_closed_says_so_to_who_waits(serve):
    async def use(serving):
        with serving.thread.asking(makes(1)) as stream:
            waiting = asyncio.ensure_future(anext(stream))
            await asyncio.sleep(0)
            await asyncio.to_thread(serving.thread.close)
            return await waiting

    event = in_thread(serve, use)
    assert event.is_last and (event.result is not None or event.error.status == 503)


def test_a_warm_model_compiles_nothing_for_its_answers(serve, answerer):
    answerer.warm_up()
    programs = answerer.engine.device.programs
    compiled = [programs.copy_pages, programs.prefill, programs.decode]
    before = [program._cache_size() for program in compiled]

    async def use(serving):
        for count, length in ((1, 3), (3, 60), (6, 17)):
            with serving.thread.asking(makes(count, ENDLESS, tuple(range(length)))) as stream:
                assert len([event async for event in stream]) == count

    in_thread(serve, use)
    assert [program._cache_size() for program in compiled] == before
