r"""Our models in lm-eval (the Language Model Evaluation Harness), as its model `stair_jax`.

lm-eval 0.4 finds no models of other packages by itself: it knows this one once this module is
imported. As a program, which takes the arguments of `lm_eval`:

    python -m stair_jax.adapters.lm_eval_model --model stair_jax \
      --model_args pretrained=runs/pocket/iter3 --tasks mine --include_path tasks

Log-likelihoods are exact (`inference/likelihood.py`), and samples come from our engine.
"""

import inspect
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lm_eval import utils
from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.api.registry import register_model
from lm_eval.models.utils import normalize_gen_kwargs, postprocess_generated_text
from tqdm import tqdm

from stair_jax.decoding.driver import run_tasks
from stair_jax.decoding.requests import Completion, Request, Sampling, request_key
from stair_jax.decoding.task import Task
from stair_jax.errors import UserError, did_you_mean
from stair_jax.inference.likelihood import LikelihoodTask
from stair_jax.run.compilation_cache import use_compilation_cache, users_cache
from stair_jax.run.language_model import LanguageModel, LanguageModelSettings
from stair_jax.settings import build, require
from stair_jax.text import steps
from stair_jax.text.rendering import apply_template

NAME = "stair_jax"

# Fields of generation settings that are heeded, and those that may have one value alone.
_HEEDED = {"do_sample", "until", "max_gen_toks", "temperature", "top_p", "top_k"}
_FIXED = {"num_beams": 1, "repetition_penalty": 1.0, "num_return_sequences": 1, "use_cache": True}


@register_model(NAME)
class StairJaxLM(TemplateLM):
    """A checkpoint behind our engine and our service of log-likelihoods."""

    def __init__(
        self,
        pretrained: str = "",
        dtype: str = "",
        weights: str = "none",
        max_length: int = 0,
        max_gen_toks: int = 256,
        slots: int = 0,
        seed: int = 0,
        keep_reasoning: bool = False,
        add_bos_token: bool | None = None,
        prefix_token_id: int | None = None,
        batch_size: Any = None,
        max_batch_size: Any = None,
        device: Any = None,
        **unknown: Any,
    ):
        """Reads all but the weights.

        Args:
          pretrained: a Hugging Face folder, a stage of a run, a hub id, or "pocket".
          dtype: of weights and activations; empty: float32 on CPUs, bfloat16 on accelerators.
          weights: of the engine that samples: "none", "fp8" or "int8".
          max_length: most tokens of a sequence; 0: those of the model, at most 4096 on CPUs and
            16384 on accelerators.
          max_gen_toks: most tokens of a sample, where the task does not say.
          slots: sequences that decode side by side; 0: as many as suits the devices.
          seed: of samples with a temperature.
          keep_reasoning: whether steps of reasoning and tags are a part of what was generated; else
            it is the final answer alone.
          add_bos_token: whether texts are encoded with special tokens; None: as the tokenizer does.
          prefix_token_id: token before texts without a context; None: BOS, else EOS.
          batch_size: not used, nor are `max_batch_size` and `device`: lm-eval passes them.
          max_batch_size: not used.
          device: not used.
          **unknown: refused by name.

        Raises:
          UserError: the model cannot be read, or an argument cannot be.
        """
        super().__init__()
        for name in unknown:
            known = inspect.signature(type(self).__init__).parameters
            raise UserError(f"model_args has no {name!r}: {did_you_mean(name, known)}")
        require(bool(pretrained), "pretrained is missing: --model_args pretrained=FOLDER")
        values = {"dtype": dtype, "weights": weights, "context_tokens": max_length, "slots": slots}
        settings = build(LanguageModelSettings, values, "model_args")
        self.model = LanguageModel(str(pretrained), settings)
        self.tokenizer: Any = self.model.hf
        self.max_length, self.max_gen_toks = self.model.max_length, int(max_gen_toks)
        self._seed, self._keep_reasoning = int(seed), keep_reasoning
        self._add_bos, self._prefix = add_bos_token, prefix_token_id

    @property
    def eot_token_id(self) -> int:
        """The end-of-sequence token."""
        return int(self.tokenizer.eos_token_id)

    @property
    def prefix_token_id(self) -> int:
        """The token before a text without a context."""
        if self._prefix is not None:
            return self._prefix
        bos = self.tokenizer.bos_token_id
        return self.eot_token_id if bos is None else int(bos)

    @property
    def tokenizer_name(self) -> str:
        """What lm-eval's caches of requests tell tokenizers apart by."""
        return self.model.name.replace("/", "__")

    def get_model_info(self) -> dict[str, Any]:
        """What lm-eval writes beside its results."""
        return {"model_dtype": self.model.dtype, "model_max_length": self.max_length}

    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, **kwargs: Any
    ) -> list[int]:
        """Token ids of a text, as lm-eval has them of transformers' models."""
        options = {}
        if add_special_tokens is None:
            add_special_tokens = self._add_bos
            if string.startswith(self.tokenizer.decode(self.prefix_token_id)):
                add_special_tokens = False  # it has its BOS already
        if add_special_tokens is not None:
            options["add_special_tokens"] = add_special_tokens
        return list(self.tokenizer.encode(string, **options))

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """A chat as text, with the system turn and the template values of the checkpoint.

        Args:
          chat_history: turns of any roles that the template knows.
          add_generation_prompt: whether the header of an answer follows; else the last turn, the
            assistant's, is left open.

        Raises:
          UserError: there is no template, or it refuses the chat.
        """
        hf, chat, turns = self.tokenizer, self.model.chat, list(chat_history)
        if chat.system is not None and turns[0]["role"] != "system":
            turns.insert(0, {"role": "system", "content": chat.system.strip()})
        # Within limits, which transformers lacks.
        apply_template(hf, chat, [turns], add_generation_prompt)
        return str(
            hf.apply_chat_template(
                turns,
                tokenize=False,
                chat_template=chat.with_fixed_clock(hf.get_chat_template()),
                add_generation_prompt=add_generation_prompt,
                continue_final_message=not add_generation_prompt,
                **chat.values,
            )
        )

    def loglikelihood_rolling(
        self, requests: Sequence[Instance], disable_tqdm: bool = False
    ) -> list[float]:
        """Log-likelihoods of whole texts, in windows of the context where they are longer."""
        windows = [list(self._windows(*request.args)) for request in requests]
        found = iter(self._scores([each for own in windows for each in own], disable_tqdm))
        sums = [sum(next(found)[0] for _ in own) for own in windows]
        for request, value in zip(requests, sums, strict=True):
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, value)
        return sums

    def generate_until(self, requests: Sequence[Instance], disable_tqdm: bool = False) -> list[str]:
        """Samples of texts, each up to its first stop text, which is no part of it."""
        driver, texts = self.model.sampling(), {}
        tasks = [self._generation(number, *each.args) for number, each in enumerate(requests)]
        tickets = {
            driver.add(task, priority=number, on_tokens=task.hear): number
            for number, task in enumerate(tasks)
        }
        with tqdm(total=len(tasks), desc="Samples", disable=disable_tqdm) as bar:
            while driver.pending:
                for ticket, tokens in driver.step():
                    number = tickets[ticket]
                    texts[number] = self._text(tokens, tasks[number].stops)
                    self.cache_hook.add_partial(
                        "generate_until", requests[number].args, texts[number]
                    )
                    bar.update()
        return [texts[number] for number in range(len(tasks))]

    def _loglikelihood_tokens(
        self,
        requests: Sequence[tuple[Any, list[int], list[int]]],
        disable_tqdm: bool = False,
        **kwargs: Any,
    ) -> list[tuple[float, bool]]:
        """Log-likelihood of each continuation, and whether greedy decoding would give it."""
        found = self._scores([request[1:] for request in requests], disable_tqdm)
        for (texts, *_), answer in zip(requests, found, strict=True):
            if texts is not None:
                self.cache_hook.add_partial("loglikelihood", texts, answer)
        return found

    def _scores(
        self, pairs: Sequence[tuple[Sequence[int], Sequence[int]]], disable_tqdm: bool
    ) -> list[tuple[float, bool]]:
        """(log-likelihood, whether it is greedy) of (context, continuation) in token ids."""
        driver = self.model.scoring()
        found = run_tasks(driver, (self._score(*pair) for pair in pairs))
        bar = tqdm(found, total=len(pairs), desc="Log-likelihoods", disable=disable_tqdm)
        return [(completion.total, completion.is_greedy) for completion in bar]

    def _score(self, context: Sequence[int], continuation: Sequence[int]) -> LikelihoodTask:
        require(
            0 < len(continuation) <= self.max_length,
            f"a continuation of {len(continuation)} tokens cannot be scored: the context has "
            f"{self.max_length} (max_length)",
        )
        # The last token is scored and never read, so that one more fits.
        tokens = (*context, *continuation)[-(self.max_length + 1) :]
        return LikelihoodTask(tokens, len(tokens) - len(continuation), service="")

    def _windows(self, text: str) -> Iterable[tuple[list[int], list[int]]]:
        rolling = utils.get_rolling_token_windows(
            token_list=self.tok_encode(text),
            prefix_token=self.prefix_token_id,
            max_seq_len=self.max_length,
            context_len=1,
        )
        return map(utils.make_disjoint_window, rolling)

    def _generation(self, number: int, context: str, options: Mapping[str, Any]) -> "Generation":
        values: dict[str, Any] = dict(normalize_gen_kwargs(dict(options), self.max_gen_toks))
        for name, value in values.items():
            if name not in _HEEDED and value != _FIXED.get(name):
                raise UserError(f"generation_kwargs: {name}={value!r} is not known to {NAME}")
        most = int(values["max_gen_toks"])
        room = self.max_length - most
        require(
            room > 0,
            f"max_gen_toks is {most}, and max_length {self.max_length}: no room is left for a "
            "prompt",
        )
        stops = [values["until"]] if isinstance(values["until"], str) else list(values["until"])
        sampling = Sampling(
            temperature=float(values["temperature"]) if values["do_sample"] else 0.0,
            top_k=int(values.get("top_k") or 0),
            top_p=float(values.get("top_p") or 1.0),
            max_tokens=most,
            stop_ids=self.model.stop_ids,
        )
        tokens = tuple(self.tok_encode(context)[-room:])
        key = request_key(self._seed, NAME, number)
        return Generation(self, Request((), tokens, sampling=sampling, key=key), stops)

    def _text(self, tokens: Sequence[int], stops: Sequence[str]) -> str:
        """What a sample says: of a structured answer the output block, up to a stop text."""
        text = self.tokenizer.decode(list(tokens), skip_special_tokens=True)
        if self.strips and any(tag in text for tag in steps.TAGS):
            text = steps.final_answer(text)
        return str(postprocess_generated_text(text, list(stops), think_end_token=None))

    @property
    def strips(self) -> bool:
        """Whether reasoning is taken out of samples, and stop texts count only behind it."""
        return self.model.is_structured and not self._keep_reasoning


class Generation(Task[tuple[int, ...]]):
    """One sample, which ends early where a stop text comes up.

    Attributes:
      stops: the stop texts.
    """

    def __init__(self, model: StairJaxLM, request: Request, stops: Sequence[str]):
        """A task that has asked nothing yet."""
        self._model, self._request = model, request
        self.stops = [stop for stop in stops if stop]
        self._heard: list[int] = []
        self._looked = 0
        # A token is at least a byte; UTF-8 has up to four a character.
        self._longest = 4 * max(map(len, self.stops), default=0)

    def start(self) -> list[Request]:
        """The only request."""
        return [self._request]

    def receive(self, completion: Completion) -> list[Request]:
        """The whole sample."""
        self.result = completion.tokens
        return []

    def hear(self, id: Any, tokens: tuple[int, ...], logps: tuple[float, ...] = ()) -> None:
        """Takes tokens as they are sampled."""
        self._heard += tokens

    def advance(self) -> list[Request]:
        """Ends where a stop text is in what was sampled since the last look."""
        if self.stops and len(self._heard) > self._looked:
            since = max(0, self._looked - self._longest)
            self._looked = len(self._heard)
            if self._has_stop(since):
                self.result = tuple(self._heard)
        return []

    def _has_stop(self, since: int) -> bool:
        hf = self._model.tokenizer
        if self._model.strips:
            # Stop texts inside of the reasoning end nothing.
            opening = hf.convert_tokens_to_ids(steps.OUTPUT_OPEN)
            reasoning = hf.convert_tokens_to_ids(steps.REASONING_OPEN)
            if opening in self._heard:
                since = max(since, self._heard.index(opening) + 1)
            elif reasoning in self._heard:
                return False
        text = hf.decode(self._heard[since:], skip_special_tokens=True)
        return any(stop in text for stop in self.stops)


def main() -> None:
    """The command line of lm-eval, which knows the model `stair_jax`."""
    from lm_eval.__main__ import cli_evaluate

    use_compilation_cache(users_cache())
    try:
        cli_evaluate()
    except UserError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
