#!/usr/bin/env python
"""How much memory each GPU and each host needs for a model, from its shape alone: computed, not measured.

    python tools/plan_memory.py                               a 70B Llama on the machines that docs/en/devices.md shows
    python tools/plan_memory.py config.json --gpus 8 --gb 80  the model of a config.json on eight GPUs of 80 GB

GB are 1e9 bytes. With N devices, L layers, width H, vocabulary V, T tokens in a forward pass, and activations of all
layers recomputed, a device under FSDP2 or ZeRO-3 holds

    slices       bytes of all parameters / N   frozen: 2 (bf16) or 0.516 (NF4 in layers, double quantised);
                                               trained: 16 (float32 weight, gradient, two moments of Adam)
    whole        two layers, embedding and head as they are computed with (bf16, or NF4 in layers); where they are
                 trained, the float32 gradients of one layer, embedding and head too
    activations  T x H x (2 L + 40)            bf16 inputs of all layers, and the layer at work
    logits       T x V x 12                    bf16 and float32, and the gradients of both

times 1.1 for what allocators lose, and 1 GB for CUDA and NCCL. With offload the slices lie in the host's memory.
"""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

BF16, NF4, TRAINED = 2.0, 0.516, 16.0
SLACK, CONTEXT = 1.1, 1.0
RANK, TOKENS = 16, 2048
METHODS = ('qlora', 'lora', 'full')
LLAMA_70B = dict(
    hidden_size=8192,
    intermediate_size=28672,
    num_hidden_layers=80,
    num_attention_heads=64,
    num_key_value_heads=8,
    vocab_size=128256,
)


@dataclass(frozen=True)
class Machine:
    """`gpus` devices of `gb` GB each, at most eight of them in a host."""

    gpus: int
    gb: int
    offload: bool

    @property
    def hosts(self) -> int:
        """Number of hosts."""
        return -(-self.gpus // 8)

    @property
    def name(self) -> str:
        """What the table calls it."""
        return f'{self.gpus} x {self.gb} GB{", offload" if self.offload else ""}'


MACHINES = [
    Machine(gpus, gb, offload) for gpus, gb in ((2, 40), (4, 24), (8, 80), (16, 80)) for offload in (False, True)
]


@dataclass(frozen=True)
class Need:
    """GB of a device and of a host."""

    device: float
    host: float


def parameters(shape: dict) -> tuple[float, float, float]:
    """Return the parameters of a layer, of an adapter of rank 1 on it, and of embedding and head."""
    width, inner = shape['hidden_size'], shape['intermediate_size']
    heads = shape['num_attention_heads']
    size = shape.get('head_dim') or width // heads
    query, value = heads * size, (shape.get('num_key_value_heads') or heads) * size
    linears = [(width, query), (width, value), (width, value), (query, width)]
    linears += [(width, inner), (width, inner), (inner, width)]
    ends = shape['vocab_size'] * width * (1 if shape.get('tie_word_embeddings') else 2)
    return sum(a * b for a, b in linears), sum(a + b for a, b in linears), ends


def need(method: str, shape: dict, machine: Machine, tokens: int = TOKENS, rank: int = RANK) -> Need:
    """Return what `method` needs on `machine` with `tokens` tokens in a forward pass and adapters of `rank`."""
    layers, width, vocabulary = shape['num_hidden_layers'], shape['hidden_size'], shape['vocab_size']
    layer, adapter, ends = parameters(shape)
    compute = NF4 if method == 'qlora' else BF16
    whole = 2 * layer * compute + ends * BF16
    if method == 'full':
        sliced = (layers * layer + ends) * TRAINED
        whole += (layer + ends) * 4
    else:
        sliced = layers * layer * compute + ends * BF16 + layers * adapter * rank * TRAINED
    activations = tokens * width * (2 * layers + 40) + tokens * vocabulary * 12
    own = sliced / machine.gpus
    device = SLACK * (whole + activations + (0 if machine.offload else own)) / 1e9 + CONTEXT
    return Need(device, own * machine.gpus / machine.hosts / 1e9 if machine.offload else 0.0)


def table(shape: dict = LLAMA_70B, machines: list[Machine] = MACHINES) -> str:
    """Return a Markdown table: GB of a device (and of a host) by machine and method; in bold what fits."""
    text = '| | ' + ' | '.join(f'`{method}`' for method in METHODS) + ' |\n|---|---|---|---|\n'
    for machine in machines:
        cells = []
        for method in METHODS:
            found = need(method, shape, machine)
            fits = f'**{found.device:,.0f}**' if found.device <= machine.gb else f'{found.device:,.0f}'
            cells.append(fits + (f' + {found.host:,.0f}' if machine.offload else ''))
        text += f'| {machine.name} | {" | ".join(cells)} |\n'
    return text


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__.partition('\n')[0], epilog=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', nargs='?', type=Path, help="a model's config.json (default: a 70B Llama)")
    parser.add_argument('--gpus', type=int, help='number of GPUs')
    parser.add_argument('--gb', type=int, default=80, help='memory of each in GB (default: 80)')
    args = parser.parse_args()
    shape = json.loads(args.config.read_text(encoding='utf-8')) if args.config else LLAMA_70B
    missing = [key for key in LLAMA_70B if key not in shape and key != 'num_key_value_heads']
    if missing:
        parser.error(f'{args.config} has no {", ".join(missing)}; only models of one kind of dense layer are counted')
    machines = [Machine(args.gpus, args.gb, offload) for offload in (False, True)] if args.gpus else MACHINES
    print(table(shape, machines), end='')


if __name__ == '__main__':
    main()
