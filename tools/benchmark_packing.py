#!/usr/bin/env python
"""Compare the speed and memory of packed sequences with masked and with varlen attention, eager and compiled.

    python tools/benchmark_packing.py                            a random model of the shape of 1.5B; needs a GPU
    python tools/benchmark_packing.py --shape tiny --batch-size 2 --seq-len 256 --steps 3    also on a CPU

LoRA of rank 16 on all linear layers, on a GPU bf16 with float32 master weights, no activation checkpointing, no
optimizer. Sequences are packed with new samples of random lengths up to --max-sample-length in each step.

Prints one row per combination: tokens/s, peak GiB, `graphs` (graphs compiled by torch.compile), `late` (graphs compiled
in the second half of the steps), and `loss` (of the first step). Exits with 1 if the losses differ.
"""

import argparse
import time
from contextlib import nullcontext

import numpy as np
import torch
from common.subprocesses import exit_with_error
from common.synthetic_inputs import gpu_problem
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

# Hidden size, MLP size, layers, heads, key-value heads, vocabulary size.
SHAPES = {
    'tiny': (64, 128, 2, 4, 2, 512),
    '135m': (576, 1536, 30, 9, 3, 49_152),
    '1.5b': (1536, 8960, 28, 12, 2, 151_936),
    '8b': (4096, 14_336, 32, 32, 8, 128_256),
}

# Minimum length of a sample, in tokens.
MIN_SAMPLE_LENGTH = 8


class RandomSamples:
    """Samples of random token ids, all trained, of MIN_SAMPLE_LENGTH to `max_sample_length` tokens."""

    def __init__(self, vocab_size: int, max_sample_length: int) -> None:
        self.vocab_size, self.max_sample_length = vocab_size, max_sample_length
        self.random, self.samples = np.random.default_rng(0), []

    def pack(self, seq_len: int) -> np.ndarray:
        """Return the token ranges [num_samples, 3] of a sequence that fills at least three quarters of `seq_len`."""
        token_ranges, left = [], seq_len
        while left > seq_len // 4:
            length = min(int(self.random.integers(MIN_SAMPLE_LENGTH, self.max_sample_length + 1)), left)
            self.samples.append(self.random.integers(0, self.vocab_size, length))
            token_ranges.append((len(self.samples) - 1, 0, length))
            left -= length
        return np.array(token_ranges)

    def ids(self, index: int) -> np.ndarray:
        """Return the token ids of a sample."""
        return self.samples[index]

    def spans(self, index: int) -> np.ndarray:
        """Return the trained spans of a sample."""
        return np.array([[0, len(self.samples[index])]])

    def place(self, index: int) -> str:
        """Return the name of a sample for error messages."""
        return str(index)


def build_model(shape: str, device: torch.device, dtype: torch.dtype) -> torch.nn.Module:
    """Return a random model with LoRA."""
    hidden_size, mlp_size, layers, heads, kv_heads, vocab_size = SHAPES[shape]
    config = LlamaConfig(
        hidden_size=hidden_size,
        intermediate_size=mlp_size,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        vocab_size=vocab_size,
        pad_token_id=0,
    )
    torch.manual_seed(0)
    with torch.device(device):
        llm = AutoModelForCausalLM.from_config(config, attn_implementation='sdpa', dtype=dtype)
    return get_peft_model(llm, LoraConfig(r=16, target_modules='all-linear', init_lora_weights=False))


def measure(
    args: argparse.Namespace, batches: list[MicroBatch], device: torch.device, varlen: bool, compiled: bool
) -> list[float]:
    """Return tokens/s, peak GiB, compiled graphs, graphs compiled late, and the loss per token of the first step."""
    torch._dynamo.reset()
    counters.clear()
    dtype = torch.bfloat16 if device.type == 'cuda' else torch.float32
    llm = build_model(args.shape, device, dtype)
    if dtype != torch.float32:
        MasterWeights(llm, dtype)
    lm_head = find_lm_head(llm)
    attention: PackedAttention | None = None
    if varlen:
        attention = install_packed_attention(llm, dtype, device, args.seq_len, nullcontext())
        if attention is None:
            exit_with_error(f'torch {torch.__version__} has no varlen attention for {device}')
    for layer in layers_of(llm) if compiled else ():
        layer.compile()
    times, graphs, first_loss = [], [], None
    for number, batch in enumerate(batches):
        if device.type == 'cuda':
            torch.cuda.synchronize()
            if number == len(batches) // 2:
                torch.cuda.reset_peak_memory_stats()
        start = time.perf_counter()
        batch = batch.to(device)
        loss = (
            summed_loss(llm, batch, lm_head, **(attention.model_kwargs(batch) if attention else {})) / batch.num_targets
        )
        loss.backward()
        first_loss = loss.item() if first_loss is None else first_loss
        times.append(time.perf_counter() - start)
        graphs.append(counters['stats']['unique_graphs'])
    half = len(batches) // 2
    peak = torch.cuda.max_memory_allocated() / 2**30 if device.type == 'cuda' else float('nan')
    speed = float(np.median([b.num_tokens / t for b, t in zip(batches[half:], times[half:], strict=True)]))
    return [speed, peak, graphs[-1], graphs[-1] - graphs[half - 1], first_loss]


def differ(losses: list[float]) -> bool:
    """Return whether losses of the same step differ by more than 1 %, or are not finite."""
    return not np.isfinite(losses).all() or max(losses) - min(losses) > 0.01 * max(losses)


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """Return the parsed command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--shape', choices=list(SHAPES), default='1.5b', help='model shape (default: 1.5b)')
    parser.add_argument('--batch-size', type=int, default=4, help='sequences per micro-batch (default: 4)')
    parser.add_argument('--seq-len', type=int, default=2048, help='tokens per sequence (default: 2048)')
    parser.add_argument('--max-sample-length', type=int, default=512, help='tokens (default: 512)')
    parser.add_argument('--steps', type=int, default=20, help='forward and backward passes (default: 20)')
    args = parser.parse_args(argv)
    minimums = dict(batch_size=1, seq_len=MIN_SAMPLE_LENGTH, max_sample_length=MIN_SAMPLE_LENGTH, steps=2)
    for name, minimum in minimums.items():
        if getattr(args, name) < minimum:
            parser.error(f'--{name.replace("_", "-")} {getattr(args, name)}: give at least {minimum}')
    return args


def main(argv: list[str] | None = None) -> int:
    """Measure and print; return the exit code."""
    args = parse_arguments(argv)
    device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    problem = gpu_problem(torch.cuda.device_count(), 1, args.shape in ('tiny', '135m'), '--shape tiny')
    if problem:
        exit_with_error(problem)
    samples = RandomSamples(SHAPES[args.shape][-1], args.max_sample_length)
    packed = [[samples.pack(args.seq_len) for _ in range(args.batch_size)] for _ in range(args.steps)]
    losses = []
    print(f'{"attention":<10}{"compiled":<10}{"tokens/s":>10}{"GiB":>8}{"graphs":>8}{"late":>6}{"loss":>12}')
    for compiled in (False, True) if device.type == 'cuda' else (False,):
        padding = Padding(min_length=args.seq_len, with_positions=True) if compiled else Padding()
        batches = [collate(samples, sequences, 0, padding=padding) for sequences in packed]
        for varlen in (False, True):
            speed, peak, graphs, late, loss = measure(args, batches, device, varlen, compiled)
            losses.append(loss)
            name = 'varlen' if varlen else 'mask'
            print(f'{name:<10}{compiled!s:<10}{speed:>10,.0f}{peak:>8.1f}{graphs:>8}{late:>6}{loss:>12.5f}', flush=True)
    return int(differ(losses))


if __name__ == '__main__':
    raise SystemExit(main())
