"""A byte tokenizer, and a fake engine whose samples are a deterministic function of the request."""

import hashlib
import random
from collections.abc import Callable, Hashable, Iterable, Sequence

import pytest
from tokenizers import AddedToken, decoders, models, pre_tokenizers
from tokenizers import Tokenizer as Backend
from transformers import PreTrainedTokenizerFast

from stair_jax.decoding.requests import Completion, EngineStats, Handle, Request
from stair_jax.text import steps
from stair_jax.text.tokenizer import Tokenizer, add_tags

_TEMPLATE = (
    "{% for m in messages %}<|user|>{{ m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    """One token per byte, chat markers as special tokens, and the four tags."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Backend(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    specials = ["<|eot|>", "<|user|>", "<|end|>", "<|assistant|>"]
    backend.add_special_tokens([AddedToken(text, special=True) for text in specials])
    hf = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|eot|>")
    hf.chat_template = _TEMPLATE
    add_tags(hf)
    return Tokenizer(hf)


class ScriptedEngine:
    """A fake engine: completions are hashes of tokens and key, returned in random portions.

    Some steps return nothing, as with an engine whose results are read a round later. It refuses
    the same requests as `Engine`.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        disorder: int = 0,
        p_end: float = 0.35,
        capacity: int = 10**6,
        max_length: int = 10**5,
    ):
        """An idle engine.

        Args:
            tokenizer: for the texts.
            disorder: seed of the order of completions.
            p_end: probability that a step is the output block.
            capacity: tokens of the cache; requests are never preempted.
            max_length: tokens of a sequence.
        """
        self.tokenizer = tokenizer
        self.order = random.Random(disorder)
        self.p_end = p_end
        self.capacity, self.max_length = capacity, max_length
        self.stats = EngineStats()
        self.waiting: list[Request] = []
        self.seen: list[Request] = []
        self.most_waiting = 0
        self.handles: set[Handle] = set()
        self.reply: Callable[[Request, str], str | None] = lambda request, text: None

    @property
    def pending(self) -> int:
        return len(self.waiting)

    @property
    def free(self) -> int:
        return self.capacity - sum(len(request.sequence) for request in self.waiting)

    def submit(self, requests: Iterable[Request]) -> None:
        for request in requests:
            assert request.parent is None or request.parent in self.handles
            self.waiting.append(request)
            self.seen.append(request)
        self.most_waiting = max(self.most_waiting, len(self.waiting))

    def keep(self, tokens: Iterable[int], parent: Handle | None = None) -> Handle:
        assert parent is None or parent in self.handles
        own = tuple(tokens)
        assert own or parent
        handle = Handle((parent.tokens if parent else ()) + own, parent)
        self.handles.add(handle)
        return handle

    def shorten(self, handle: Handle, num_tokens: int) -> Handle:
        least = len(handle.parent.tokens) if handle.parent else 1
        assert least <= num_tokens <= len(handle.tokens)
        self.release(handle)
        shorter = Handle(handle.tokens[:num_tokens], handle.parent)
        self.handles.add(shorter)
        return shorter

    def release(self, handle: Handle) -> None:
        self.handles.remove(handle)

    def step(self) -> list[Completion]:
        assert self.waiting, "nothing is pending"
        if self.order.random() < 0.2:
            return []
        self.order.shuffle(self.waiting)
        count = self.order.randint(1, max(1, len(self.waiting)))
        taken, self.waiting = self.waiting[:count], self.waiting[count:]
        return [self._answer(request) for request in taken]

    def _answer(self, request: Request) -> Completion:
        if len(request.sequence) + (request.sampling is not None) > self.max_length:
            return Completion(request.id, finish="too_long")
        completion = self._complete(request)
        self.stats.generated += len(completion.tokens)
        self.stats.prefilled += len(request.tokens)
        self.stats.reused += len(request.parent.tokens) if request.parent else 0
        return completion

    def _complete(self, request: Request) -> Completion:
        rng = random.Random(_digest(request.sequence, request.key))
        if request.sampling is None:
            # Scores depend on the tokens only, not on the key.
            rng = random.Random(_digest(request.sequence))
            return Completion(
                request.id,
                scores=tuple(-rng.random() * 5 for _ in request.score_ids),
                finish="scored",
            )
        text = self.reply(request, self.tokenizer.decode(request.sequence))
        if text is None:
            text = self._write(rng, request.sampling.stop_ids)
        tokens = tuple(self.tokenizer.encode_answer(text))
        tokens += (
            ()
            if tokens[-1:] and tokens[-1] in request.sampling.stop_ids
            else (self.tokenizer.eos_id,)
        )
        limit = min(request.sampling.max_tokens, self.max_length - len(request.sequence))
        finish = "stop" if len(tokens) <= limit else "length"
        tokens = tokens[:limit]
        handle = None
        if request.keep:
            handle = self.keep((*request.tokens, *tokens), request.parent)
        return Completion(
            request.id, tokens, tuple(-rng.random() for _ in tokens), finish, handle=handle
        )

    def _write(self, rng: random.Random, stop_ids: Sequence[int]) -> str:
        """One step if reasoning_close is among the stop ids, else the rest of an answer."""
        one_step = self.tokenizer.tags.reasoning_close in stop_ids
        text = ""
        while True:
            if rng.random() < self.p_end:
                return text + steps.format_output(rng.choice("abcdefgh"))
            text += steps.format_step(rng.choice("AB"), rng.choice("xyz"))
            if one_step:
                return text


def _digest(*values: Hashable) -> int:
    return int.from_bytes(hashlib.sha256(repr(values).encode()).digest()[:8], "big")


@pytest.fixture
def make_engine(tokenizer: Tokenizer) -> Callable[..., ScriptedEngine]:
    """Factory of scripted engines."""
    return lambda **options: ScriptedEngine(tokenizer, **options)
