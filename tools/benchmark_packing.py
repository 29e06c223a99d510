#!/usr/bin/env python
"""Speed and memory of packed rows: under a mask against by where samples begin, plain and with compiled layers.

    python tools/benchmark_packing.py                                           a 1.5B-shaped random model on a GPU
    python tools/benchmark_packing.py --shape tiny --rows 2 --width 256 --steps 3                   also on a CPU

LoRA of rank 16 on all linear layers, bf16 with float32 masters on a GPU, nothing recomputed, no optimizer. Rows hold
samples of random lengths up to --longest, other ones in each step. `graphs` counts what torch.compile compiled, `late`
what of it in the second half of the steps; `loss` is that of the first step. Exits with 1 if losses differ.
"""

import argparse
import time
from contextlib import nullcontext

import numpy as np
import torch
from common.material import refusal
from common.process import fail
from peft import LoraConfig, get_peft_model
from torch._dynamo.utils import counters
from transformers import AutoModelForCausalLM, LlamaConfig

from xtune.data.batches import MicroBatch, Padding
from xtune.data.collate import collate
from xtune.optimizations.master_weights import MasterWeights
from xtune.optimizations.packed_attention import PackedAttention, install_packed_attention
from xtune.tasks.lm_head import find_lm_head
from xtune.tasks.loss import summed_loss
from xtune.utils.model_structure import layers_of

# Width, inner width, layers, heads, key heads, vocabulary.
SHAPES = {
    'tiny': (64, 128, 2, 4, 2, 512),
    '135m': (576, 1536, 30, 9, 3, 49_152),
    '1.5b': (1536, 8960, 28, 12, 2, 151_936),
    '8b': (4096, 14_336, 32, 32, 8, 128_256),
}


# Tokens of the shortest sample.
SHORTEST = 8


class Samples:
    """Samples of random ids, all trained, of random lengths from SHORTEST on."""

    def __init__(self, vocabulary: int, longest: int) -> None:
        self.vocabulary, self.longest, self.random, self.made = vocabulary, longest, np.random.default_rng(0), []

    def row(self, width: int) -> np.ndarray:
        """Return the pieces [n, 3] of a row of at most `width` tokens, at least three quarters of it."""
        pieces, left = [], width
        while left > width // 4:
            length = min(int(self.random.integers(SHORTEST, self.longest + 1)), left)
            self.made.append(self.random.integers(0, self.vocabulary, length))
            pieces.append((len(self.made) - 1, 0, length))
            left -= length
        return np.array(pieces)

    def ids(self, index: int) -> np.ndarray:
        """Return the token ids of a sample."""
        return self.made[index]

    def spans(self, index: int) -> np.ndarray:
        """Return its trained spans."""
        return np.array([[0, len(self.made[index])]])

    def place(self, index: int) -> str:
        """Return its name."""
        return str(index)


def model(shape: str, device: torch.device, dtype: torch.dtype) -> torch.nn.Module:
    """Return a random model with an adapter."""
    hidden, inner, layers, heads, key_heads, vocabulary = SHAPES[shape]
    config = LlamaConfig(
        hidden_size=hidden,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=key_heads,
        vocab_size=vocabulary,
        pad_token_id=0,
    )
    torch.manual_seed(0)
    with torch.device(device):
        llm = AutoModelForCausalLM.from_config(config, attn_implementation='sdpa', dtype=dtype)
    return get_peft_model(llm, LoraConfig(r=16, target_modules='all-linear', init_lora_weights=False))


def measure(
    args: argparse.Namespace, batches: list[MicroBatch], device: torch.device, varlen: bool, compiled: bool
) -> list[float]:
    """Return tokens per second, peak GiB, graphs, late graphs, and the loss per token of the first step."""
    torch._dynamo.reset()
    counters.clear()
    dtype = torch.bfloat16 if device.type == 'cuda' else torch.float32
    llm = model(args.shape, device, dtype)
    if dtype != torch.float32:
        MasterWeights(llm, dtype)
    head = find_lm_head(llm)
    attention: PackedAttention | None = None
    if varlen:
        attention = install_packed_attention(llm, dtype, device, args.width, nullcontext())
        if attention is None:
            fail(f'torch {torch.__version__} has no attention for rows of many samples that works on {device}')
    for layer in layers_of(llm) if compiled else ():
        layer.compile()
    times, graphs, first = [], [], None
    for number, batch in enumerate(batches):
        if device.type == 'cuda':
            torch.cuda.synchronize()
            if number == len(batches) // 2:
                torch.cuda.reset_peak_memory_stats()
        start = time.perf_counter()
        batch = batch.to(device)
        loss = summed_loss(llm, batch, head, **(attention.model_kwargs(batch) if attention else {})) / batch.num_targets
        loss.backward()
        first = loss.item() if first is None else first
        times.append(time.perf_counter() - start)
        graphs.append(counters['stats']['unique_graphs'])
    half = len(batches) // 2
    peak = torch.cuda.max_memory_allocated() / 2**30 if device.type == 'cuda' else float('nan')
    speed = float(np.median([b.num_tokens / t for b, t in zip(batches[half:], times[half:], strict=True)]))
    return [speed, peak, graphs[-1], graphs[-1] - graphs[half - 1], first]


def differ(losses: list[float]) -> bool:
    """Tell whether losses of the same step are more than 1 % apart, or not finite."""
    return not np.isfinite(losses).all() or max(losses) - min(losses) > 0.01 * max(losses)


def arguments(given: list[str] | None) -> argparse.Namespace:
    """Return the parsed command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--shape', choices=list(SHAPES), default='1.5b', help='of the model (default: 1.5b)')
    parser.add_argument('--rows', type=int, default=4, help='rows of a forward pass (default: 4)')
    parser.add_argument('--width', type=int, default=2048, help='tokens of a row (default: 2048)')
    parser.add_argument('--longest', type=int, default=512, help='tokens of the longest sample (default: 512)')
    parser.add_argument('--steps', type=int, default=20, help='forward and backward passes (default: 20)')
    args = parser.parse_args(given)
    for name, least in dict(rows=1, width=SHORTEST, longest=SHORTEST, steps=2).items():
        if getattr(args, name) < least:
            parser.error(f'--{name} {getattr(args, name)}: give at least {least}')
    return args


def main(given: list[str] | None = None) -> int:
    """Measure and print; return the exit code."""
    args = arguments(given)
    device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    refused = refusal(torch.cuda.device_count(), 1, args.shape in ('tiny', '135m'), '--shape tiny')
    if refused:
        fail(refused)
    samples = Samples(SHAPES[args.shape][-1], args.longest)
    rows = [[samples.row(args.width) for _ in range(args.rows)] for _ in range(args.steps)]
    losses = []
    print(f'{"attention":<10}{"compiled":<10}{"tokens/s":>10}{"GiB":>8}{"graphs":>8}{"late":>6}{"loss":>12}')
    for compiled in (False, True) if device.type == 'cuda' else (False,):
        padding = Padding(min_length=args.width, with_positions=True) if compiled else Padding()
        batches = [collate(samples, row, 0, padding=padding) for row in rows]
        for varlen in (False, True):
            speed, peak, graphs, late, loss = measure(args, batches, device, varlen, compiled)
            losses.append(loss)
            name = 'varlen' if varlen else 'mask'
            print(f'{name:<10}{compiled!s:<10}{speed:>10,.0f}{peak:>8.1f}{graphs:>8}{late:>6}{loss:>12.5f}', flush=True)
    return int(differ(losses))


if __name__ == '__main__':
    raise SystemExit(main())
