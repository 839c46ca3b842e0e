"""Small tokenizers with the four tags of the answer format and a chat template."""

from collections.abc import Sequence

from tokenizers import AddedToken, decoders, models, pre_tokenizers, processors, trainers
from tokenizers import Tokenizer as Backend
from transformers import PreTrainedTokenizerFast

from stair_jax.text.tokenizer import Tokenizer, add_tags

LLAMA3_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "<|start_header_id|>{{ message['role'] }}<|end_header_id|>\n\n"
    "{{ message['content'] | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
_BYTE_TEMPLATE = (
    "{% for m in messages %}<|user|>{{ m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
_WORD_TEMPLATE = "{% for m in messages %}<|end|>{{ m['content'] }}<|end|>{% endfor %}"
_JUDGE_WORDS = ("1", "2", "3", "4", "5", "SAFE", "UNSAFE", "Conclusion:", "[", "rate", "safe")
_CORPUS = (
    "The first step is an analysis of the problem.",
    "Title: Problem analysis. Final Answer: forty two.",
    "user assistant Reasoning_step Output begin_of_text eot_id",
)


def byte_tokenizer() -> Tokenizer:
    """One token a byte: any text comes back as it was. 265 tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Backend(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    specials = ["<|eot|>", "<|user|>", "<|end|>", "<|assistant|>"]
    backend.add_special_tokens([AddedToken(text, special=True) for text in specials])
    hf = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|eot|>")
    hf.chat_template = _BYTE_TEMPLATE
    add_tags(hf)
    return Tokenizer(hf)


def word_tokenizer(words: Sequence[str] = _JUDGE_WORDS) -> Tokenizer:
    """One token a word between spaces: so few that a random model samples the tags often.

    Args:
      words: beside `[UNK]`, which stands for any other; the default are those that a judge needs
        (ratings 1 to 5, SAFE, UNSAFE, and "Conclusion: ["), which makes 18 tokens.
    """
    vocabulary = {word: index for index, word in enumerate(["[UNK]", *words])}
    backend = Backend(models.WordLevel(vocabulary, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Split("[", "isolated")]
    )
    backend.add_special_tokens([AddedToken("<|end|>", special=True)])
    hf = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|end|>")
    hf.chat_template = _WORD_TEMPLATE
    add_tags(hf)
    return Tokenizer(hf)


def bpe_tokenizer() -> Tokenizer:
    """A byte-level BPE with the special tokens and the chat template of Llama 3. 347 tokens."""
    specials = ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    backend = Backend(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=specials,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(_CORPUS, trainer)
    bos = specials[0]
    backend.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", special_tokens=[(bos, backend.token_to_id(bos))]
    )
    hf = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token=bos, eos_token="<|eot_id|>")
    hf.add_special_tokens({"additional_special_tokens": specials[1:3]})
    hf.chat_template = LLAMA3_TEMPLATE
    add_tags(hf)
    return Tokenizer(hf)
