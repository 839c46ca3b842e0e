"""What best-of-N and beam search share: a task a prompt, whose candidates a scorer scores."""

from collections.abc import Sequence

from stair_jax.data.records import Prompt
from stair_jax.decoding.driver import Driver, run_tasks
from stair_jax.decoding.task import Task, TaskGroup
from stair_jax.inference.candidates import Result, SamplingEngine, TestTimeSettings
from stair_jax.inference.scoring import Score, Scorer, as_scorer
from stair_jax.search.judging.prefixes import Keeper
from stair_jax.text.tokenizer import Tokenizer

SCORES = "scores"  # name of the scoring among the inner tasks


class PromptSearch(Task[Result]):
    """Test-time search for one prompt."""

    def __init__(
        self,
        engine: Keeper,
        tokenizer: Tokenizer,
        prompt: Prompt,
        scorer: Scorer,
        settings: TestTimeSettings,
        seed: int,
        tokens: Sequence[int] | None = None,
    ):
        """A task that has asked nothing yet.

        Args:
          engine: keeps the prompt and the candidates.
          tokenizer: of the engine's model.
          prompt: what is answered.
          scorer: scores the candidates.
          settings: of the method.
          seed: of the run.
          tokens: of a whole chat, rendered by the chat template; None: that of `prompt`.
        """
        self._engine, self._tokenizer, self._prompt = engine, tokenizer, prompt
        self._settings, self._seed, self._tokens = settings, seed, tokens
        self._scorer = scorer.open(prompt)
        self._scoring = TaskGroup()

    def close(self) -> None:
        """Gives back what is kept of the prompt."""
        self._scoring.close()
        self._scorer.close()


def search_prompts(
    method: type[PromptSearch],
    engine: SamplingEngine,
    tokenizer: Tokenizer,
    prompts: Sequence[Prompt],
    score: Score | Scorer,
    settings: TestTimeSettings,
    seed: int,
) -> list[Result]:
    """The answers of a method, one per prompt, in their order; see `best_of_n`."""
    scorer = as_scorer(score)
    tasks = (method(engine, tokenizer, prompt, scorer, settings, seed) for prompt in prompts)
    return list(run_tasks(Driver(engine, scorer.services), tasks))
