"""Every section a config may define: its keys, their meaning, units and limits.

This table is the only one: `load` checks configs against it, `wire` fills defaults from it, and
`docs/en/config.md` is generated from it.
"""

from dataclasses import MISSING, dataclass, field
from typing import Any, Literal


def knob(doc: str, default: Any = MISSING, **limits: Any) -> Any:
    """Declare one key: its meaning (with the unit), its default, limits `low`, `above`, `high`, `filled` (not '')."""
    return field(default=default, metadata=dict(doc=doc, **limits))


@dataclass(frozen=True)
class Scalars:
    """Sections that are one value each."""

    base_model: str = knob(
        'Hub name or local folder of the model to start from; the tokenizer is read from it too.', filled=True
    )
    chat_template: str = knob(
        "Chat template: 'auto' (the model's own), a name (chatml, llama3, ...), or a .jinja file.", filled=True
    )
    max_length: int = knob('Tokens per training sequence.', 2048, low=8)
    pack: bool | Literal['fit', 'exact', 'stream'] = knob(
        "Put several short samples into one sequence. 'fit' (or True): none is split and none sees another; 'exact': "
        "cut at exactly max_length, none sees another; 'stream': the same cuts, a sequence is one text; False: one "
        'sample a sequence.',
        True,
    )
    overlong: Literal['truncate', 'split', 'drop', 'error'] = knob(
        'What to do with a sample of more than max_length tokens. truncate keeps whole turns and every end of turn; '
        'split makes several samples, at turn borders where there are turns.',
        'truncate',
    )
    train_on: Literal['all_replies', 'last_reply'] = knob(
        'Which replies of a conversation get a loss. A message that says train: false never does.', 'all_replies'
    )
    control_tokens: Literal['auto', 'text', 'parse', 'error'] = knob(
        'What special-token text inside data (such as <|im_end|>) becomes. text: ordinary text; parse: the control '
        'token; error: the row cannot be used; auto: text, but data that a chat template seems to have written are '
        'refused.',
        'auto',
    )
    precision: Literal['auto', 'bf16', 'fp32'] = knob(
        'Compute type and type of frozen weights. auto: bf16 where the GPU has it, else fp32. What is trained stays '
        'in fp32 either way.',
        'auto',
    )
    activation_checkpointing: int | Literal['auto', 'all', 'none', 'offload'] = knob(
        'Layers whose activations are recomputed in the backward pass: less memory, about a third more time. auto: as '
        'many as the memory of the GPU demands, measured before the first step (on CPUs, with sliced weights and with '
        'split rows: all); a number: that many, the first ones; offload: all, and what lies between layers waits in '
        'host memory.',
        'auto',
        low=0,
    )
    seed: int = knob('Seed of data order, adapter initialisation and dropout.', 42, low=0)
    load_from: str | None = knob(
        'Weights to begin with: a .pth of another run, or a folder with an adapter. Optimizer, schedule and data start '
        'at step 0; --resume continues from a checkpoint instead. The sections `lora` and `base_model` are those the '
        'weights were trained with.',
        None,
        filled=True,
    )
    work_dir: str | None = knob('Folder the run writes to; default work_dirs/<config name>.', None)

    @property
    def packing(self) -> str:
        """`pack` as one of the modes of `xtune.data.packing`."""
        return {True: 'fit', False: 'none'}.get(self.pack, self.pack)


@dataclass(frozen=True)
class Source:
    """Where rows come from and how one row becomes a conversation."""

    path: str = knob(
        'Local file (json, jsonl, csv, tsv, parquet, arrow, xlsx, txt, md; text formats also as .gz), folder or glob; '
        "a hub data set id; modelscope:<id>; or the name of a bundled set ('self_cognition').",
        filled=True,
    )
    map_fn: Any = knob(
        "Function or registered name that maps a row to a conversation; 'auto' goes by the columns.", 'auto'
    )
    map_args: dict | None = knob('Keyword arguments for map_fn.', None)
    split: str = knob('Split of a hub data set, or of a folder whose file names tell splits.', 'train')
    name: str | None = knob('Configuration name of a hub data set.', None)
    sheet: str | None = knob("Sheet of an .xlsx file; '*': all; default the first.", None)
    text_unit: Literal['line', 'paragraph', 'file'] | None = knob(
        'What is one document in a text file: a line (default for .txt), what stands between blank lines, or the file '
        '(default for .md).',
        None,
    )
    chat_template: str | None = knob('Template of this set, if it is not that of the run (see `chat_template`).', None)
    limit: int | None = knob('Use at most this many rows, from the start.', None, low=1)
    system: str | None = knob(
        'System message for rows that have none: a text, or the name of a built-in one (alpaca, coder, ...).', None
    )
    ignore: list = knob(
        'Columns, keys of messages, splits, sheets and types of files that need not be used, by the names in the '
        'report.',
        (),
    )
    weight: float | None = knob(
        'Share of this set in a list of sets; all have one or none. The largest for its weight is used once an epoch, '
        'the others repeat.',
        None,
        above=0,
    )


@dataclass(frozen=True)
class Data:
    """How rows are prepared and loaded."""

    num_proc: int | None = knob('Processes that tokenise; default one per core. Never changes a batch.', None, low=1)
    max_bad_rows: float = knob(
        'Share of unusable rows above which the run stops, 0 to 1. Rows dropped for their length do not count.',
        0.05,
        low=0,
        high=1,
    )
    strict: bool = knob(
        'Stop if a column, a key of a message, a turn, a thought, a file or a sheet is not used, instead of reporting '
        'it. Columns and keys in train_dataset.ignore may stay unused.',
        False,
    )
    num_workers: int = knob('Processes that load batches beside the training process.', 0, low=0)
    longest_first: bool = knob(
        'The first step trains on the longest sequences, so that too little memory shows at once.', False
    )
    streaming: bool = knob(
        'Read, tokenise and pack rows while training, for data larger than the disk; needs schedule.max_steps. Rows '
        'are shuffled within windows.',
        False,
    )
    window: int = knob('Rows in one window of streaming.', 10_000, low=1)


@dataclass(frozen=True)
class Schedule:
    """How long to train, in which batches, at which learning rate."""

    max_epochs: int = knob('Passes over the training data.', 1, low=1)
    max_steps: int | None = knob('Stop after this many optimizer steps, if sooner than max_epochs.', None, low=1)
    batch_size: int = knob('Sequences per device in one forward pass.', 1, low=1)
    gradient_accumulation_steps: int = knob('Forward passes per optimizer step, per device.', 16, low=1)
    lr_schedule: Literal['cosine', 'linear', 'constant'] = knob('Learning rate after the warm-up.', 'cosine')
    warmup_ratio: float = knob('Share of the optimizer steps with a linear warm-up.', 0.03, low=0, high=1)
    min_lr_ratio: float = knob('Where cosine and linear end, as a share of the peak learning rate.', 0.0, low=0, high=1)
    max_grad_norm: float | None = knob('Gradients are scaled down to this global L2 norm; None: never.', 1.0, above=0)


StrategyName = Literal[
    'one_device', 'ddp', 'zero1', 'zero2', 'zero2_offload', 'zero3', 'zero3_offload', 'fsdp2', 'fsdp2_offload'
]


@dataclass(frozen=True)
class Speed:
    """What makes a step fast. Each is left out where it does not apply, and the run's first lines say which are on."""

    master_weights: bool = knob(
        'In bf16: compute without casts, and keep float32 masters of what is trained. False: autocast. Where each '
        'device has the whole model.',
        True,
    )
    chunked_cross_entropy: bool = knob(
        'Compute the loss a chunk of positions at a time, so that no [tokens, vocabulary] is kept. Where each device '
        'has the whole model, and its logits are those of one linear layer.',
        True,
    )
    fused_lora: bool = knob(
        'Compute a frozen linear layer and its LoRA in one operation, which writes no output of the adapter of its own '
        'and unpacks 4-bit weights itself. Where each device has the whole model; not for DoRA and other variants.',
        True,
    )
    varlen_attention: bool = knob(
        'Attend over packed rows by where samples begin, instead of a mask: by the kernel of torch >= 2.10 on GPUs in '
        'bf16, a sample at a time on CPUs. On GPUs attend over other rows without looking for samples in them, with '
        'that kernel where tokens see a window. Where each device has the whole model, llm.attn_implementation is '
        "'sdpa', and a trial shows the same logits and gradients.",
        True,
    )
    flash_attention_3: bool = knob(
        'Where its package (flash_attn_interface) is installed, on GPUs of the Hopper generation: let the attention of '
        '`varlen_attention` compute with FlashAttention 3, if a trial shows the same logits and gradients.',
        True,
    )
    compile: bool = knob(
        'Compile each layer with torch.compile; on GPUs, where each device has the whole model. Packed rows are then '
        'filled up to max_length, others to a multiple of 64 tokens. It needs Triton and a C compiler; without them '
        'the run goes on as if it were off.',
        True,
    )
    cuda_graphs: bool = knob(
        'Where the GPU waits for Python, as in small models, and all layers keep their activations: after three such '
        'steps with rows of one width, run the compiled layers as CUDA graphs for that width. These hold the memory of '
        'the activations between steps too.',
        True,
    )


@dataclass(frozen=True)
class Strategy:
    """How the run is spread over devices."""

    name: StrategyName = knob(
        'What each device holds. one_device, ddp: the whole model; zero1 to zero3 (DeepSpeed): a slice of the '
        'optimizer state, then of the gradients, then of the weights; fsdp2: a slice of all three; _offload: its '
        'slices in host memory. On one device nothing is spread, and _offload is refused.'
    )
    deepspeed: dict | None = knob(
        "DeepSpeed configuration (its JSON as a dict) of zero1 to zero3; 'auto' is filled in.", None
    )
    sequence_parallel_size: int = knob(
        'Neighbouring devices that split each row among them, for rows too long for one; they count as one device in '
        'the number of sequences. Divides the number of devices and of attention heads.',
        1,
        low=1,
    )
    timeout: float = knob(
        'Seconds that processes wait for each other in an optimizer step, beyond which the run ends; after half of '
        'them the stacks of all are written to the work_dir.',
        1800.0,
        above=0,
    )


@dataclass(frozen=True)
class Checkpoint:
    """When .pth files are written. Each holds what is trained, the optimizer, the RNG and the place in the data."""

    every_steps: int | None = knob('Optimizer steps between iter_N.pth files; None: none.', 500, low=1)
    every_epochs: int | None = knob('Epochs between epoch_N.pth files; None: none.', 1, low=1)
    keep: int | None = knob('How many of the newest checkpoints stay on disk; None: all.', 2, low=1)
    export_adapter: bool = knob('Also write the adapter in Hugging Face format beside each checkpoint.', True)
    background: bool = knob('Train on while all weights are written (from a copy in host memory).', False)


@dataclass(frozen=True)
class Log:
    """What the run reports."""

    every_steps: int = knob('Optimizer steps between progress lines.', 10, low=1)
    tensorboard: bool = knob('Write TensorBoard scalars.', True)
    plot: bool = knob('Draw loss.png at the end.', True)


@dataclass(frozen=True)
class Validation:
    """When the loss on `val_dataset` is measured."""

    every_steps: int | None = knob(
        'Optimizer steps between measurements, which need val_dataset; None: only at the end of epochs.', None, low=1
    )


@dataclass(frozen=True)
class ChatSamples:
    """Prompts answered during training, to watch the model learn."""

    every_steps: int | None = knob(
        'Optimizer steps between answers, which also follow the last step; None: never.', None, low=1
    )
    prompts: list = knob('Prompts to answer.', ())
    system: str | None = knob('System message: a text, or the name of a built-in one (alpaca, coder, ...).', None)
    max_new_tokens: int = knob('Tokens per answer, at most.', 64, low=1)


@dataclass(frozen=True)
class Evaluation:
    """A benchmark to measure during training."""

    metric: Literal['mmlu'] = knob('mmlu: accuracy on multiple-choice questions, by subject and on average.')
    val: str | None = knob('Questions measured during training: rows with input, output and subject.', None)
    test: str | None = knob('Questions measured after training: rows with input, output and subject.', None)


@dataclass(frozen=True)
class Section:
    """One top-level name: its meaning and what it holds.

    `keys` is a dataclass of knobs for a section that is checked key by key. A section without it names a `type`, and
    its keys are those of that callable; `strict` refuses keys that a `**kwargs` would swallow.
    """

    doc: str
    keys: type | None = None
    optional: bool = False
    nullable: bool = False
    strict: bool = False


# In the order in which copy-cfg writes them.
SECTIONS: dict[str, Section | None] = {
    'base_model': None,
    'llm': Section(
        "How the model is loaded: a callable and its arguments, and values of the model's config, such as "
        'attention_dropout=0.1.'
    ),
    'tokenizer': Section('How the tokenizer is loaded.'),
    'chat_template': None,
    'quantization': Section('Quantised frozen base (QLoRA, float8); None: not quantised.', nullable=True, strict=True),
    'lora': Section('Adapter (peft); None: all weights are trained.', nullable=True, strict=True),
    'load_from': None,
    'train_dataset': Section('The training data: a data set, or a list of them.', Source),
    'val_dataset': Section(
        'Validation data: a data set, a list of them, or a number: that share (below 1) or count of the training rows '
        'is held out.',
        Source,
        optional=True,
        nullable=True,
    ),
    'max_length': None,
    'pack': None,
    'overlong': None,
    'train_on': None,
    'control_tokens': None,
    'data': Section('How rows are prepared and loaded.', Data, optional=True),
    'precision': None,
    'activation_checkpointing': None,
    'optimizer': Section('The optimizer class and its arguments; see optimizers.md.', strict=True),
    'schedule': Section('How long, in which batches, at which learning rate.', Schedule),
    'speed': Section('What makes a step fast.', Speed, optional=True),
    'strategy': Section('How the run is spread over devices.', Strategy),
    'checkpoint': Section('When .pth files are written.', Checkpoint, optional=True),
    'log': Section('What the run reports.', Log, optional=True),
    'validation': Section('When the validation loss is measured.', Validation, optional=True),
    'chat_samples': Section('Prompts answered during training.', ChatSamples, optional=True, nullable=True),
    'evaluation': Section(
        'A benchmark to measure during training; not run by this version.', Evaluation, optional=True, nullable=True
    ),
    'seed': None,
    'work_dir': None,
    'custom_imports': Section('Modules of your own to import first (registered map functions), a list.', optional=True),
    'runner': Section(
        "More arguments for the mmengine Runner: custom_hooks, such as [dict(type='EarlyStoppingHook', "
        "monitor='val_loss', rule='less')], which ends a run when the validation loss no longer falls; visualizer, "
        'whose trackers receive the figures and the options of the run; experiment_name, log_level, env_cfg, and '
        'randomness=dict(deterministic=True).',
        optional=True,
        nullable=True,
    ),
}
# Sections whose value names a callable in `type`.
TYPED = ('llm', 'tokenizer', 'quantization', 'lora', 'optimizer')
