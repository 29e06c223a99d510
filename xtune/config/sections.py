"""The schema of a config: every section and option with its type, default, limits and description.

It is the only such table: `load` checks configs against it, `wire` fills in its defaults, `xtune copy-cfg` writes its
descriptions as comments, and `docs/en/config.md` is generated from it.
"""

from dataclasses import MISSING, dataclass, field, fields
from typing import Any, Literal


def option(doc: str, default: Any = MISSING, **limits: Any) -> Any:
    """Declare an option.

    Args:
        doc: Its description, with the unit.
        default: Its default; without one it is required.
        limits: `low` and `high` (inclusive), `above` (exclusive), `filled=True` (not an empty string).
    """
    return field(default=default, metadata=dict(doc=doc, **limits))


@dataclass(frozen=True)
class Scalars:
    """Options that are a section of their own: one value each."""

    base_model: str = option(
        'Base model: hub name or local folder. The tokenizer is loaded from the same place.', filled=True
    )
    chat_template: str = option(
        "Chat template: 'auto' (the model's own), a name (chatml, llama3, ...), or a .jinja file.", filled=True
    )
    max_length: int = option('Tokens per training sequence.', 2048, low=8)
    pack: bool | Literal['fit', 'exact', 'stream'] = option(
        "Packing: several samples in one sequence. 'fit' (or True): samples are not split; 'exact': samples are cut so "
        "that each sequence has max_length tokens; 'stream': cut like 'exact', but samples of a sequence attend to "
        "each other. In 'fit' and 'exact' they do not. False: one sample per sequence.",
        True,
    )
    overlong: Literal['truncate', 'split', 'drop', 'error'] = option(
        'What to do with a sample longer than max_length tokens. truncate: cut it, keeping whole turns and every stop '
        'token; split: make several samples, cut between turns where there are turns; drop: leave it out; error: stop.',
        'truncate',
    )
    train_on: Literal['all_replies', 'last_reply'] = option(
        'Assistant messages that get a loss. A message with train: false never does.', 'all_replies'
    )
    control_tokens: Literal['auto', 'text', 'parse', 'error'] = option(
        'How text in the data that spells a special token, such as <|im_end|>, is tokenized. text: as ordinary text; '
        'parse: as the special token; error: the row is unusable; auto: like text, but data to which a chat template '
        'seems to have been applied are refused.',
        'auto',
    )
    precision: Literal['auto', 'bf16', 'fp32'] = option(
        'Dtype of the computation and of frozen weights. auto: bf16 if the GPU supports it, else fp32. Trained weights '
        'are kept in fp32 in any case.',
        'auto',
    )
    activation_checkpointing: int | Literal['auto', 'all', 'none', 'offload'] = option(
        'Activation checkpointing: less memory, about a third more time. auto: checkpoint the fewest layers that fit, '
        'profiled before step 1 (all layers on CPUs, with sharded weights and with sequence parallelism); N: the first '
        'N layers; all; none; offload: all, with layer inputs offloaded to CPU memory.',
        'auto',
        low=0,
    )
    seed: int = option('Seed of the data order, adapter initialization and dropout.', 42, low=0)
    load_from: str | None = option(
        'Initial weights: a .pth of another run, or an adapter folder. Optimizer, schedule and data start at step 0; '
        'to continue a run use --resume instead. Sections `lora` and `base_model` must be those of these weights.',
        None,
        filled=True,
    )
    work_dir: str | None = option('Output folder of the run; default work_dirs/<config name>.', None)

    @property
    def packing(self) -> str:
        """`pack` as a mode of `xtune.data.packing`."""
        return {True: 'fit', False: 'none'}.get(self.pack, self.pack)


@dataclass(frozen=True)
class Source:
    """A data set: where its rows are and how a row becomes a conversation."""

    path: str = option(
        'Local file (json, jsonl, csv, tsv, parquet, arrow, xlsx, txt, md; text formats also as .gz), folder or glob; '
        "hub data set id; modelscope:<id>; or the name of a bundled data set ('self_cognition').",
        filled=True,
    )
    map_fn: Any = option(
        "Function, or registered name of one, that maps a row to a conversation; 'auto': chosen by the columns.", 'auto'
    )
    map_args: dict | None = option('Keyword arguments for map_fn.', None)
    split: str = option('Split of a hub data set, or of a folder with splits in its file names.', 'train')
    name: str | None = option('Configuration name of a hub data set.', None)
    sheet: str | None = option("Sheet of an .xlsx file; '*': all; None: the first.", None)
    text_unit: Literal['line', 'paragraph', 'file'] | None = option(
        'What one document of a text file is: line (default for .txt), paragraph (text between blank lines) or file '
        '(default for .md).',
        None,
    )
    chat_template: str | None = option('Chat template of this data set; None: that of the run.', None)
    limit: int | None = option('Use only the first N rows.', None, low=1)
    system: str | None = option(
        'System message of rows without one: a text, or the name of a built-in one (alpaca, coder, ...).', None
    )
    ignore: list = option(
        'Columns, message keys, splits, sheets and file types that may stay unused, by their names in the report.',
        (),
    )
    weight: float | None = option(
        'Relative weight in a list of data sets; set it for all or for none. The data set that is largest for its '
        'weight is used once per epoch, the others are repeated.',
        None,
        above=0,
    )


@dataclass(frozen=True)
class Data:
    """Preprocessing and loading of the data."""

    num_proc: int | None = option(
        'Tokenization processes; None: one per core. Does not change the batches.', None, low=1
    )
    max_bad_rows: float = option(
        'Fraction of unusable rows above which the run stops. Rows dropped for their length do not count.',
        0.05,
        low=0,
        high=1,
    )
    strict: bool = option(
        'Stop, instead of reporting it, if a column, message key, turn, reasoning content, file or sheet is not used. '
        'Those in train_dataset.ignore may stay unused.',
        False,
    )
    num_workers: int = option('Worker processes that load batches; 0: the training process does.', 0, low=0)
    longest_first: bool = option(
        'Train on the longest sequences in the first step, so that a lack of memory shows at once.', False
    )
    streaming: bool = option(
        'Read, tokenize and pack rows while training, for data larger than the disk; needs schedule.max_steps. Rows '
        'are shuffled within windows.',
        False,
    )
    window: int = option('Rows in a shuffle window of streaming.', 10_000, low=1)


@dataclass(frozen=True)
class Schedule:
    """Length of the run, batch size and learning rate."""

    max_epochs: int = option('Epochs: passes over the training data.', 1, low=1)
    max_steps: int | None = option('Stop after N optimizer steps, if that is before max_epochs.', None, low=1)
    batch_size: int = option('Sequences per device in a forward pass.', 1, low=1)
    gradient_accumulation_steps: int = option(
        'Forward passes per optimizer step, per device. An optimizer step has batch_size * '
        'gradient_accumulation_steps * devices sequences.',
        16,
        low=1,
    )
    lr_schedule: Literal['cosine', 'linear', 'constant'] = option('Learning rate schedule after the warm-up.', 'cosine')
    warmup_ratio: float = option('Fraction of the optimizer steps with linear warm-up.', 0.03, low=0, high=1)
    min_lr_ratio: float = option('Final learning rate of cosine and linear, relative to the peak.', 0.0, low=0, high=1)
    max_grad_norm: float | None = option('Gradient clipping: maximum global L2 norm; None: off.', 1.0, above=0)


StrategyName = Literal[
    'one_device', 'ddp', 'zero1', 'zero2', 'zero2_offload', 'zero3', 'zero3_offload', 'fsdp2', 'fsdp2_offload'
]


@dataclass(frozen=True)
class Speed:
    """Optimizations of the training step. One that does not apply is left out; the run prints which are on."""

    master_weights: bool = option(
        'Pure bf16 compute with fp32 master weights of what is trained; False: autocast. Only where each device has '
        'the full model.',
        True,
    )
    chunked_cross_entropy: bool = option(
        'Chunked linear cross-entropy, which never materializes the [tokens, vocabulary] logits. Only where each '
        'device has the full model and its logits come from one linear layer.',
        True,
    )
    fused_lora: bool = option(
        'Compute a frozen linear layer and its LoRA in one operation, without a separate adapter output; it also '
        'dequantizes 4-bit weights. Only where each device has the full model; not for DoRA and other variants.',
        True,
    )
    varlen_attention: bool = option(
        'Varlen attention over packed sequences (cu_seqlens, no 4-D mask): the kernel of torch on GPUs in bf16, '
        'one sample at a time on CPUs. On GPUs unpacked sequences skip the search for sample boundaries, and '
        'use that kernel for sliding windows. Only where each device has the full model, '
        "llm.attn_implementation='sdpa', and a parity check finds equal logits and gradients.",
        True,
    )
    flash_attention_3: bool = option(
        'Compute varlen attention with FlashAttention 3 on Hopper GPUs, if its package (flash_attn_interface) is '
        'installed and a parity check finds equal logits and gradients.',
        True,
    )
    compile: bool = option(
        'torch.compile each layer, on GPUs where each device has the full model. Packed sequences are then padded to '
        'max_length, others to a multiple of 64 tokens. Needs Triton and a C compiler; without them it is off.',
        True,
    )
    cuda_graphs: bool = option(
        'Capture the compiled decoder layers as CUDA graphs, one set per sequence length, after three launch-bound '
        'steps of that length (small models) and only if no layer is checkpointed. The graphs keep the memory of the '
        'activations between steps.',
        True,
    )


@dataclass(frozen=True)
class Strategy:
    """Parallelism strategy."""

    name: StrategyName = option(
        'What is replicated and what is sharded. one_device, ddp: nothing is sharded; zero1, zero2, zero3 (DeepSpeed): '
        'the optimizer state, then also the gradients, then also the weights; fsdp2: all three; _offload: shards are '
        'kept in CPU memory. On one device nothing is sharded, and _offload is an error.'
    )
    deepspeed: dict | None = option(
        "DeepSpeed configuration for zero1 to zero3, its JSON as a dict; 'auto' values are filled in.", None
    )
    sequence_parallel_size: int = option(
        'Ulysses group size: consecutive ranks that shard each sequence, for sequences too long for one device. A '
        'group counts as one device in the number of sequences. Must divide the number of devices and of attention '
        'heads.',
        1,
        low=1,
    )
    timeout: float = option(
        'Collective timeout in seconds, for each optimizer step. At half of it all ranks dump their stack traces to '
        'the work_dir.',
        1800.0,
        above=0,
    )


@dataclass(frozen=True)
class Checkpoint:
    """Checkpoints: .pth files with the trained weights, optimizer state, RNG state and position in the data."""

    every_steps: int | None = option('Optimizer steps between iter_N.pth checkpoints; None: none.', 500, low=1)
    every_epochs: int | None = option('Epochs between epoch_N.pth checkpoints; None: none.', 1, low=1)
    keep: int | None = option('Latest checkpoints to keep on disk; None: all.', 2, low=1)
    export_adapter: bool = option('Also write the adapter in Hugging Face format beside each checkpoint.', True)
    background: bool = option(
        'Full fine-tuning: write checkpoints in the background, from a copy in CPU memory.', False
    )


@dataclass(frozen=True)
class Log:
    """Progress lines, TensorBoard and the loss curve."""

    every_steps: int = option('Optimizer steps between progress lines.', 10, low=1)
    tensorboard: bool = option('Write TensorBoard scalars.', True)
    plot: bool = option('Draw loss.png at the end.', True)


@dataclass(frozen=True)
class Validation:
    """Validation loss on `val_dataset`."""

    every_steps: int | None = option(
        'Optimizer steps between validations (needs val_dataset); None: only at the end of each epoch.', None, low=1
    )


@dataclass(frozen=True)
class ChatSamples:
    """Prompts that the model answers during training."""

    every_steps: int | None = option(
        'Optimizer steps between answers; also after the last step. None: never.', None, low=1
    )
    prompts: list = option('Prompts to answer.', ())
    system: str | None = option('System message: a text, or the name of a built-in one (alpaca, coder, ...).', None)
    max_new_tokens: int = option('Maximum number of tokens per answer.', 64, low=1)


@dataclass(frozen=True)
class Section:
    """A top-level name of a config.

    Args:
        group: Heading under which `xtune copy-cfg` writes it.
        doc: Its description; empty for an option of `Scalars`, which has its own.
        keys: Dataclass of its options. Without one the section names a `type`, and takes the arguments of that
            callable.
        optional: Whether it may be left out.
        nullable: Whether it may be None.
        strict: Whether to refuse keys that only a `**kwargs` of the `type` would take.
    """

    group: str
    doc: str = ''
    keys: type | None = None
    optional: bool = False
    nullable: bool = False
    strict: bool = False


# In the order in which copy-cfg writes them.
SECTIONS: dict[str, Section] = {
    'base_model': Section('model'),
    'llm': Section(
        'model',
        "How the model is loaded: a callable and its arguments. Values of the model's config, such as "
        'attention_dropout=0.1, are arguments too.',
    ),
    'tokenizer': Section('model', 'How the tokenizer is loaded.'),
    'chat_template': Section('model'),
    'quantization': Section(
        'model', 'Quantization of the frozen base (QLoRA, float8); None: not quantized.', nullable=True, strict=True
    ),
    'lora': Section('model', 'Adapter (peft); None: full fine-tuning.', nullable=True, strict=True),
    'load_from': Section('model'),
    'train_dataset': Section('data', 'Training data: a data set, or a list of them.', Source),
    'val_dataset': Section(
        'data',
        'Validation data: a data set, a list of them, or a number: the fraction (below 1) or count of training rows to '
        'hold out.',
        Source,
        optional=True,
        nullable=True,
    ),
    'max_length': Section('data'),
    'pack': Section('data'),
    'overlong': Section('data'),
    'train_on': Section('data'),
    'control_tokens': Section('data'),
    'data': Section('data', 'Preprocessing and loading of the data.', Data, optional=True),
    'optimizer': Section('optimizer', 'Optimizer class and its arguments; see optimizers.md.', strict=True),
    'schedule': Section('schedule', 'Length of the run, batch size and learning rate.', Schedule),
    'precision': Section('runtime'),
    'activation_checkpointing': Section('runtime'),
    'speed': Section('runtime', 'Optimizations of the training step.', Speed, optional=True),
    'strategy': Section('runtime', 'Parallelism strategy.', Strategy),
    'checkpoint': Section('runtime', 'When checkpoints are written.', Checkpoint, optional=True),
    'log': Section('runtime', 'Progress lines, TensorBoard and the loss curve.', Log, optional=True),
    'validation': Section('runtime', 'When the validation loss is computed.', Validation, optional=True),
    'chat_samples': Section(
        'runtime', 'Prompts that the model answers during training.', ChatSamples, optional=True, nullable=True
    ),
    'seed': Section('runtime'),
    'work_dir': Section('runtime'),
    'custom_imports': Section(
        'runtime', 'Your own modules to import first, such as those that register map functions: a list.', optional=True
    ),
    'runner': Section(
        'runtime',
        "More arguments of the mmengine Runner: custom_hooks, such as [dict(type='EarlyStoppingHook', "
        "monitor='val_loss', rule='less')], which ends a run when the validation loss no longer falls; visualizer, "
        'whose trackers receive the figures and the options of the run; experiment_name, log_level, env_cfg, and '
        'randomness=dict(deterministic=True).',
        optional=True,
        nullable=True,
    ),
}
SCALARS = {declared.name: declared for declared in fields(Scalars)}
# Sections whose value names a callable in `type`.
TYPED = ('llm', 'tokenizer', 'quantization', 'lora', 'optimizer')
# Sections of earlier versions -> why they are gone.
REMOVED = {'evaluation': 'benchmarks are not measured during training; remove the section'}
