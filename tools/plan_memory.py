#!/usr/bin/env python
"""How much memory each GPU and each host needs for a model, from its shape alone: computed, not measured.

    python tools/plan_memory.py                               a 70B Llama on the machines that docs/en/devices.md shows
    python tools/plan_memory.py config.json --gpus 8 --gb 80  the model of a config.json on eight GPUs of 80 GB

A mixture of experts is refused: what follows is about layers that are all dense. `xtune plan` counts one on one device.

GB are 1e9 bytes. With N devices, L layers, width H, vocabulary V, T tokens in a forward pass, and activations of all
layers recomputed, a device under FSDP2 holds its slices and the largest of what follows.

    slices    bytes of all parameters / N, frozen: 2 (bf16) or 0.516 (NF4 in layers, double quantised);
              trained: 16 (float32 weight, gradient, two moments of Adam). With offload they lie on the host
    gathering embedding and head twice (as received, and as computed with: 2 bytes each), two layers
    loss      embedding and head, T x V x 12 (logits in bf16 and float32, and the gradients of both), inputs of layers
    backward  embedding and head, two layers, inputs of all layers (T x H x 2 each), 40 x T x H of the layer at work
    full      loss and two layers; or, in the optimizer step, 4 bytes a parameter / N; with offload, gathering and
              gradients on their way to the host: 0.4 bytes a parameter of the layers, 1.07 of embedding and head

times 1.1 for what allocators lose, and 1 GB for CUDA and NCCL. Without these two, it is within 4 % of the peaks that
`benchmark_devices.py --model 70b` measured (devices/layers_70b.json), from which the last line's factors are.
"""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

BF16, NF4, TRAINED, STEP = 2.0, 0.516, 16.0, 4.0  # bytes of a parameter
LEAVING = (0.4, 1.07)  # of layers, and of embedding and head
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

# How config.json of a mixture of experts says how many there are.
EXPERTS = ('num_local_experts', 'num_experts', 'n_routed_experts', 'moe_num_experts', 'num_experts_per_tok')


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
    sliced = slices(method, shape, rank)
    own = sliced / machine.gpus
    held = passing(method, shape, machine, tokens) + (0 if machine.offload else own)
    host = own * machine.gpus / machine.hosts / 1e9 if machine.offload else 0.0
    return Need(SLACK * held / 1e9 + CONTEXT, host)


def slices(method: str, shape: dict, rank: int = RANK) -> float:
    """Return the bytes that all devices hold together as long as the run lasts."""
    layer, adapter, ends = parameters(shape)
    layers = shape['num_hidden_layers']
    if method == 'full':
        return (layers * layer + ends) * TRAINED
    return layers * layer * (NF4 if method == 'qlora' else BF16) + ends * BF16 + layers * adapter * rank * TRAINED


def passing(method: str, shape: dict, machine: Machine, tokens: int = TOKENS) -> float:
    """Return the most bytes that a device holds for a while beside its slices."""
    layers, width = shape['num_hidden_layers'], shape['hidden_size']
    layer, _, ends = parameters(shape)
    two = 2 * layer * (NF4 if method == 'qlora' else BF16)
    inputs, logits = tokens * width * 2 * layers, tokens * shape['vocab_size'] * 12
    gathering = 2 * ends * BF16 + two
    moments = [gathering, ends * BF16 + logits + inputs, ends * BF16 + two + inputs + 40 * tokens * width]
    if method == 'full':
        moments.append(ends * BF16 + logits + inputs + two)
        leaving = gathering + LEAVING[0] * layers * layer + LEAVING[1] * ends
        moments.append(leaving if machine.offload else (layers * layer + ends) * STEP / machine.gpus)
    return max(moments)


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


def shape_of(path: Path) -> dict:
    """Return the content of the config.json `path`, or of that in the folder `path`.

    Raises:
        ValueError: It cannot be read, is of a mixture of experts, or lacks a size.
    """
    path = path / 'config.json' if path.is_dir() else path
    try:
        shape = json.loads(path.read_text(encoding='utf-8'))
    except OSError as error:
        raise ValueError(f'{path}: {error.strerror}; give the config.json of a model, or its folder') from error
    except ValueError as error:
        raise ValueError(f'{path} is no JSON: {error}') from error
    if not isinstance(shape, dict):
        raise ValueError(f'{path} is no config of a model: it holds no JSON object')
    experts = [key for key in EXPERTS if _is_size(shape.get(key)) and shape[key] > 1]
    if experts:
        raise ValueError(
            f'{path} is of a mixture of experts ({experts[0]} is {shape[experts[0]]}), and only models of one kind of '
            'dense layer are counted; `xtune plan` counts it on one device'
        )
    wrong = [key for key in LLAMA_70B if not _is_size(shape.get(key)) and key != 'num_key_value_heads']
    if wrong:
        raise ValueError(f'{path} has no {", ".join(wrong)}; only models of one kind of dense layer are counted')
    return shape


def _is_size(value: object) -> bool:
    return type(value) is int and value > 0


def arguments(given: list[str] | None) -> argparse.Namespace:
    """Return the parsed command line; `shape` is that of the model."""
    parser = argparse.ArgumentParser(
        description=__doc__.partition('\n')[0], epilog=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        'config', nargs='?', type=Path, help='config.json of a model, or its folder (default: a 70B Llama)'
    )
    parser.add_argument('--gpus', type=int, help='number of GPUs')
    parser.add_argument('--gb', type=int, default=80, help='memory of each in GB (default: 80)')
    args = parser.parse_args(given)
    for name in ('gpus', 'gb'):
        value = getattr(args, name)
        if value is not None and value < 1:
            parser.error(f'--{name} {value}: give a whole number of at least 1')
    try:
        args.shape = shape_of(args.config) if args.config else LLAMA_70B
    except ValueError as error:
        parser.error(str(error))
    return args


def main(given: list[str] | None = None) -> None:
    """Print the table."""
    args = arguments(given)
    machines = [Machine(args.gpus, args.gb, offload) for offload in (False, True)] if args.gpus else MACHINES
    print(table(args.shape, machines), end='')


if __name__ == '__main__':
    main()
