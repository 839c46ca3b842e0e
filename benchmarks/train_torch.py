"""What `train` compares with: a training step of transformers on one GPU.

    python -m benchmarks.train_torch '[PART, VARIANT, CONFIG, ROWS, LENGTH, STEPS, RANK]'

    python -m benchmarks.train_torch --pairs FILE

Part ("sft" or "dpo"), variant, values of a config.json, rows, tokens a row, steps of the figure,
rank of the adapters of peft (0: all parameters are trained); prints one JSON line. `train` calls
it. With --pairs, step-level DPO of real pairs: the file holds [CONFIG, [[[tokens, tokens that
count], [tokens, ...]], ...], batch size, pairs of a micro-batch]. `train_trees` calls it.
"""

import json
import statistics
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any


def main() -> None:
    """Runs the step that the argument names."""
    if sys.argv[1] == "--pairs":
        measure_pairs(Path(sys.argv[2]))
        return
    part, variant, values, rows, length, steps, rank = json.loads(sys.argv[1])
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    model, optimizer = make_model(values, variant, device, rank)
    tokens = torch.randint(0, values["vocab_size"], (rows, length), device=device)
    wide = "autocast" in variant
    within: Any = torch.autocast(device, torch.bfloat16) if wide else nullcontext()

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with within:
            loss = sft_loss(model, tokens) if part == "sft" else dpo_loss(model, tokens)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if device == "cuda":
            torch.cuda.synchronize()

    step()
    seconds = []
    for _ in range(steps):
        start = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - start)
    took = statistics.median(seconds)
    line = {"name": f"torch_{part}", "variant": variant, "step_ms": 1e3 * took}
    line |= {"tokens_per_s": tokens.numel() / took, "torch": torch.__version__}
    if rank:
        line["lora_rank"] = rank
    if device == "cuda":
        line["peak_gb"] = torch.cuda.max_memory_allocated() / 1e9
    print(json.dumps(line), flush=True)


def make_model(values: dict[str, Any], variant: str, device: str, rank: int = 0) -> tuple[Any, Any]:
    """Transformers' model of that config with random weights, and its optimizer.

    With a rank, adapters of peft in float32 on all kernels of the layers are trained.
    """
    import torch
    import transformers

    values = {**values, "use_cache": False}
    config = transformers.AutoConfig.for_model(values.pop("model_type"), **values)
    dtype = torch.float32 if "autocast" in variant else torch.bfloat16
    with torch.device(device):
        model = transformers.AutoModelForCausalLM.from_config(
            config, dtype=dtype, attn_implementation="sdpa"
        )
    if "checkpoint" in variant:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    if rank:
        from peft import LoraConfig, get_peft_model

        adapters = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear")
        model = get_peft_model(model, adapters)
    model.train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-6, weight_decay=0.0, fused=device == "cuda")
    return model, optimizer


def sft_loss(model: Any, tokens: Any) -> Any:
    """Transformers' own."""
    return model(input_ids=tokens, labels=tokens).loss


def dpo_loss(model: Any, tokens: Any) -> Any:
    """As trainers for DPO do it: both sides in one pass, log-softmax over the vocabulary.

    The second half of each sequence counts; its logits alone are made. Even rows are chosen.
    """
    import torch.nn.functional as functional

    counted = tokens.shape[1] // 2
    logits = model(input_ids=tokens, logits_to_keep=counted + 1).logits[:, :-1]
    targets = tokens[:, -counted:]
    logps = -functional.cross_entropy(
        logits.flatten(0, 1).float(), targets.flatten(), reduction="none"
    )
    sums = logps.view(targets.shape).sum(1)
    return -functional.logsigmoid(0.1 * (sums[0::2] - sums[1::2])).mean()


def measure_pairs(path: Path) -> None:
    """Prints the line of real pairs: all once, after a first step that is not counted."""
    import torch

    values, pairs, batch_size, micro = json.loads(path.read_text())
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    model, optimizer = make_model(values, "bfloat16", device)

    def step(batch: list[Any]) -> None:
        optimizer.zero_grad(set_to_none=True)
        for start in range(0, len(batch), micro):
            loss = padded_loss(model, batch[start : start + micro], device)
            (loss / len(batch)).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if device == "cuda":
            torch.cuda.synchronize()

    step(pairs[: min(len(pairs), 2 * micro)])
    start = time.perf_counter()
    for first in range(0, len(pairs), batch_size):
        step(pairs[first : first + batch_size])
    seconds = time.perf_counter() - start
    line = {"name": "torch", "variant": "bfloat16", "pairs": len(pairs), "seconds": seconds}
    print(json.dumps(line | {"pairs_per_s": len(pairs) / seconds}), flush=True)


def padded_loss(model: Any, pairs: list[Any], device: str) -> Any:
    """The sum of the DPO losses of a few pairs, both sides in one padded pass."""
    import torch
    import torch.nn.functional as functional

    sides = [side for pair in pairs for side in pair]
    longest = max(len(tokens) for tokens, _ in sides)
    tokens = torch.zeros((len(sides), longest), dtype=torch.long)
    mask = torch.zeros((len(sides), longest), dtype=torch.long)
    counts = torch.zeros((len(sides), longest), dtype=torch.bool)
    for row, (ids, counted) in enumerate(sides):
        tokens[row, : len(ids)] = torch.tensor(ids)
        mask[row, : len(ids)] = 1
        counts[row, len(ids) - counted : len(ids)] = True
    tokens, mask, counts = tokens.to(device), mask.to(device), counts.to(device)
    body = model.model(input_ids=tokens, attention_mask=mask).last_hidden_state
    logits = model.lm_head(body[:, :-1][counts[:, 1:]]).float()
    logps = -functional.cross_entropy(logits, tokens[:, 1:][counts[:, 1:]], reduction="none")
    owner = counts[:, 1:].nonzero()[:, 0]
    sums = torch.zeros(len(sides), device=device).index_add(0, owner, logps)
    return -functional.logsigmoid(0.1 * (sums[0::2] - sums[1::2])).sum()


if __name__ == "__main__":
    main()
