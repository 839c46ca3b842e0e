"""Best-of-N: sample N full answers per prompt and return the one with the highest score."""

from collections.abc import Sequence

from stair_jax.data.records import Prompt
from stair_jax.decoding.requests import Request, request_key, run_all
from stair_jax.inference.candidates import (
    Result,
    Score,
    TestTimeSettings,
    end_ids,
    extended,
    known,
    rank,
    release,
    start,
)
from stair_jax.search.runner import EngineProtocol
from stair_jax.text.steps import split_steps
from stair_jax.text.tokenizer import Tokenizer


def best_of_n(
    engine: EngineProtocol,
    tokenizer: Tokenizer,
    prompts: Sequence[Prompt],
    score: Score,
    settings: TestTimeSettings,
    seed: int,
) -> list[Result]:
    """The best of `settings.n` sampled answers to each prompt; ties go to the first.

    The answers to all prompts are sampled in one batch of requests, then scored together. The
    answers to one prompt share its keys and values in the engine's cache.

    Args:
      engine: rollout engine without pending requests.
      tokenizer: of the engine's model.
      prompts: with distinct ids.
      score: PRM or self-reward, see `scorers.py`.
      settings: n and the sampling settings.
      seed: of the run.

    Returns:
      one result per prompt, in their order.
    """
    ends = end_ids(tokenizer)
    sampling = settings.sampling(settings.max_answer_tokens, ends)
    roots = [start(engine, tokenizer, prompt) for prompt in prompts]
    requests = [
        Request(
            id=(index, number),
            tokens=(),
            parent=root.handle,
            sampling=sampling,
            key=request_key(seed, root.prompt.id, "best_of_n", number),
            priority=index,
        )
        for index, root in enumerate(roots)
        for number in range(settings.n)
    ]
    completions = run_all(engine, requests)
    release(engine, roots)
    candidates = [
        [
            extended(root, completions[index, number], number, tokenizer)
            for number in range(settings.n)
        ]
        for index, root in enumerate(roots)
    ]
    scores = iter(score([candidate for group in candidates for candidate in group]))
    results = []
    for group in candidates:
        scored = [next(scores) for _ in group]
        best = max(range(len(group)), key=lambda i: rank(group[i], scored[i]))
        sampled = [candidate.tokens for candidate in group]
        results.append(
            Result(
                text=tokenizer.decode(group[best].tokens),
                tokens=group[best].tokens,
                generated_tokens=sum(map(len, sampled)) + sum(s.generated_tokens for s in scored),
                generated_steps=sum(len(split_steps(t, tokenizer.tags)) for t in sampled),
                score=known(scored[best]),
                unscored=sum(score.is_missing for score in scored),
            )
        )
    return results
