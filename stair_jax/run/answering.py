"""A model that answers, as `stair-jax answer` and `stair-jax chat` load it."""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from stair_jax.data.questions import Message, Question, with_system
from stair_jax.decoding.driver import Driver, TokenListener, run_tasks
from stair_jax.decoding.engine import Engine
from stair_jax.decoding.requests import Handle
from stair_jax.decoding.task import Service
from stair_jax.inference.answers import Answered, Answering, AnswerTask
from stair_jax.inference.methods import is_search, parse_method
from stair_jax.inference.prompt_logps import PROMPT_LOGPS_SERVICE, LogpsTask, PromptLogps
from stair_jax.inference.scorers import PrmScorer, SelfReward
from stair_jax.inference.scoring import Scorer
from stair_jax.models import huggingface
from stair_jax.parallel.mesh import MeshShape
from stair_jax.run.answer_models import AnswerSettings, ModelFiles, find_files
from stair_jax.run.engines import EngineSettings, lay_out_engine, start_engine
from stair_jax.run.runtime import Runtime
from stair_jax.search.judging.judges import Judge
from stair_jax.settings import build, check_section, require
from stair_jax.text.chat import encode_prompt
from stair_jax.text.conversations import encode_chat
from stair_jax.text.steps import TAG_PATTERN

# Where the context is not set: longer ones cost memory that few chats need.
MOST_CONTEXT = {"cpu": 4096, "accelerator": 16384}
# On a CPU every slot costs time, whether it is in use or not.
_MOST_SLOTS = {"cpu": 8, "accelerator": 256}
_CPU_PREFILL_ROWS = 8
_PRM_BUCKET = 256  # shortest length that sequences of a reward model are padded to


class Answerer:
    """A loaded model that is asked, and what guides its searches."""

    def __init__(
        self,
        engine: Engine,
        files: ModelFiles,
        settings: AnswerSettings,
        prm: PrmScorer | None,
        prompt_logps: PromptLogps | None = None,
    ):
        """Made by `load_answerer`."""
        self.engine, self.files, self.settings = engine, files, settings
        self.max_length = engine.max_length
        self._answering = Answering(
            engine, files.tokenizer, settings, settings.seed, self.max_length
        )
        self._prm = prm
        self._self_reward: SelfReward | None = None
        services: dict[str, Service] = dict(prm.services) if prm else {}
        if prompt_logps is not None:
            services[PROMPT_LOGPS_SERVICE] = prompt_logps
        self._prompt_logps = prompt_logps
        self.driver = Driver(engine, services)

    def warm_up(self) -> None:
        """Compiles what answers and their scores need: the first one is as fast as the others."""
        self.engine.device.warm_up()
        question = Question("warm-up", ({"role": "user", "content": "hello"},))
        tokens = self.encode(question)
        settings = dataclasses.replace(self.settings, method="greedy", max_answer_tokens=1)
        list(run_tasks(self.driver, [self.task(question, tokens, settings)]))
        if self._prm is not None:
            lengths = [_PRM_BUCKET]  # a program for each
            while lengths[-1] < self.max_length:
                lengths.append(2 * lengths[-1])
            self._prm.score([tokens[:1] * min(length, self.max_length) for length in lengths])

    def encode(self, question: Question) -> tuple[int, ...]:
        """Token ids of a chat, up to where the answer starts.

        A single prompt is encoded as in training and search (`encode_prompt`), other chats exactly
        as transformers does (`encode_chat`).
        """
        tokenizer, messages = self.files.tokenizer, question.messages
        if len(messages) == 1:
            return tuple(encode_prompt(tokenizer, question.text))
        if not self.files.is_structured:  # the model knows no tags, and may have no room for them
            messages = tuple({**m, "content": TAG_PATTERN.sub("", m["content"])} for m in messages)
        return tuple(encode_chat(tokenizer, messages))

    def run(self, questions: Iterable[Question]) -> Iterator[Answered]:
        """Answers side by side, in the order of the questions."""
        method = self.settings.method
        tasks = (self._task(method, question, self.encode(question)) for question in questions)
        return run_tasks(self.driver, tasks)

    def add(
        self,
        method: str,
        question: Question,
        tokens: tuple[int, ...],
        on_tokens: TokenListener,
        parent: Handle | None = None,
    ) -> int:
        """Starts to answer a chat; the result is kept in the cache, but not that of a search.

        Args:
          method: as `check_method` accepts it.
          question: the chat.
          tokens: of `encode`.
          on_tokens: see `Driver.add`.
          parent: the first of `tokens`, kept in the cache.

        Returns:
          the ticket of the task.
        """
        keep = not is_search(method)
        return self.driver.add(
            self._task(method, question, tokens, parent if keep else None, keep),
            on_tokens=on_tokens,
        )

    def task(
        self, question: Question, tokens: tuple[int, ...], settings: AnswerSettings
    ) -> AnswerTask:
        """The task of an answer, for who steps the driver himself.

        Args:
          question: the chat.
          tokens: of `encode`.
          settings: in place of those of the answerer, as far as they say how this answer is made:
            method, seed, sampling and search. The judge of self-reward stays as it is.

        Raises:
          UserError: the model cannot be asked by this method.
        """
        method = settings.method
        self.check_method(method)
        answering = Answering(
            self.engine, self.files.tokenizer, settings, settings.seed, self.max_length
        )
        scorer = self._scorer(method) if is_search(method) else None
        return answering.task(method, question.to_prompt(), tokens, scorer)

    @property
    def is_guided(self) -> bool:
        """Whether a reward model can guide its searches."""
        return self._prm is not None

    def logps_task(self, tokens: Sequence[int], start: int) -> LogpsTask:
        """The task of scoring a sequence from a token on, for who steps the driver himself.

        Raises:
          UserError: there is too little memory for sequences of this length.
        """
        assert self._prompt_logps is not None
        self._prompt_logps.check(len(tokens))
        return LogpsTask(tokens, start)

    def check_method(self, method: str) -> None:
        """Raises a UserError unless the model can be asked by a method."""
        parsed = parse_method(method)
        require(
            self.files.is_structured or not parsed.is_self_rewarded,
            f"{method}: the model's answers have no output block",
        )
        require(
            self._prm is not None or not parsed.is_guided,
            f"{method} needs a reward model: start with --prm",
        )

    def _task(
        self,
        method: str,
        question: Question,
        tokens: tuple[int, ...],
        parent: Handle | None = None,
        keep: bool = False,
    ) -> AnswerTask:
        scorer = self._scorer(method) if is_search(method) else None
        prompt = question.to_prompt()
        return self._answering.task(method, prompt, tokens, scorer, parent, keep)

    def _scorer(self, method: str) -> Scorer | None:
        if parse_method(method).is_guided:
            return self._prm
        if self._self_reward is None:
            settings = self.settings
            judge = Judge(self.files.tokenizer, settings.judge)
            self._self_reward = SelfReward(
                self.engine, judge, settings.reward, settings, settings.seed
            )
        return self._self_reward


def load_answerer(
    files: ModelFiles,
    prm: Path | None,
    settings: AnswerSettings,
    prompts: int,
    steps: int = 8,
    runtime_fields: Mapping[str, Any] | None = None,
) -> Answerer:
    """Reads the weights, and makes an engine of the size that is needed.

    Args:
      files: of `find_files`; and so `prm`.
      prm: folder of the reward model.
      settings: of the model, and how it is asked.
      prompts: that are answered side by side.
      steps: tokens that are sampled between two looks at the results.
      runtime_fields: of `Runtime`, in place of those that follow from the rest.

    Raises:
      UserError: a field of the runtime cannot be.
    """
    given = check_section(Runtime, runtime_fields or {}, "config.runtime")
    platform = jax.local_devices()[0].platform
    kind = "cpu" if platform == "cpu" else "accelerator"
    default = "float32" if kind == "cpu" else "bfloat16"
    context = settings.context_tokens or min(files.config.context_tokens, MOST_CONTEXT[kind])
    engine_settings = EngineSettings(context, settings.dtype or default, settings.weights)
    wanted = prompts * settings.parsed_method.num_candidates(settings)
    slots = given.get("slots", settings.slots)
    runtime = dataclasses.replace(runtime_for(slots, wanted, context, kind, steps), **given)
    # Before the engine, whose cache takes the memory that is left.
    scorer = None if prm is None else _load_prm(prm, engine_settings, runtime)
    layout = lay_out_engine(files.config, engine_settings, runtime)
    engine = start_engine(files.folder, engine_settings, layout)
    return Answerer(engine, files, settings, scorer, PromptLogps(engine.device))


def answer(
    model: str, prompts: Sequence[str | Sequence[Message]], prm: str = "", **settings: Any
) -> list[Answered]:
    """Answers of a model to prompts and chats, side by side.

    Args:
      model: a Hugging Face folder, a hub id, a stage of a run, or "pocket".
      prompts: texts, or lists of messages {"role", "content"} that end with the user's.
      prm: the reward model that guides a search, named in the same way.
      **settings: fields of `AnswerSettings`, such as method="sample".

    Returns:
      an answer per prompt, in their order.

    Raises:
      UserError: the model cannot be read, or a setting cannot be.
    """
    chosen = build(AnswerSettings, settings, "answer")
    questions = []
    for number, prompt in enumerate(prompts):
        if isinstance(prompt, str):
            prompt = [{"role": "user", "content": prompt}]
        messages = with_system(list(prompt), chosen.system)
        questions.append(Question(str(number), messages))
    files, prm_folder = find_files(model, prm, chosen)
    answerer = load_answerer(files, prm_folder, chosen, len(questions))
    return list(answerer.run(questions))


def runtime_for(slots: int, wanted: int, context: int, kind: str, steps: int) -> Runtime:
    """Sizes for so many sequences side by side."""
    if kind == "cpu":
        slots = slots or min(wanted, _MOST_SLOTS[kind])
        return Runtime(
            slots,
            # One more than can be in use, for what is kept.
            cache_tokens=(slots + 1) * context,
            prefill_rows=min(_CPU_PREFILL_ROWS, max(2, slots)),
            steps_per_call=steps,
            decoding_mesh=MeshShape(),
        )
    devices = len(jax.local_devices())
    each = -(-wanted // devices)
    # 0 stands for 256 a device, or as many as fit beside the weights.
    slots = slots or (devices * each if each < _MOST_SLOTS[kind] else 0)
    return Runtime(slots, steps_per_call=steps)


def _load_prm(folder: Path, settings: EngineSettings, runtime: Runtime) -> PrmScorer:
    settings = dataclasses.replace(settings, weights="none")
    layout = lay_out_engine(huggingface.load_config(folder), settings, runtime)
    params: Mapping[str, Any] = {
        "model": huggingface.load_params(folder, layout.config, layout.mesh),
        "score": huggingface.load_score_head(folder, layout.mesh),
    }
    bucket = min(_PRM_BUCKET, settings.context_tokens)
    return PrmScorer(layout.config, params, buckets=(bucket,), mesh=layout.mesh)
