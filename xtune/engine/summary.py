"""The summary of a run, about ten lines before the first step."""

from collections.abc import Callable, Iterator

import torch

from ..config.sections import Schedule, Source, Strategy
from ..config.specs import DataSpec, ModelSpec
from ..config.strategy_traits import traits_of
from ..data.encode import PLAIN_TEXT
from ..data.report import Report, counted
from ..data.training_data import TrainingData
from ..models.loading.config_checks import describe_stored_quantization
from ..ops.float8_linear import Float8Linear
from ..utils.cpu_threads import describe_threads
from ..utils.experts import expert_tensors
from ..utils.language_model import describe_non_text_modules
from ..utils.visible import visible

SHORT = {torch.bfloat16: 'bf16', torch.float32: 'fp32'}


def data_lines(spec: DataSpec, data: TrainingData, token_warning: str) -> Iterator[tuple[str, str]]:
    """Yield (label, text) about rows, packing and chat template; `token_warning` is from `new_token_warning`."""
    train = data.train
    if spec.data.streaming:
        sources = counted(len(spec.train), 'source')
        yield 'streaming', f'windows of {spec.data.window:,} rows from {sources}; the first window:'
    for source, report, repeats in zip(spec.train, train.reports, train.repeats, strict=True):
        yield from _source_lines(source, report, repeats)
    if not spec.data.streaming and (len(train.reports) > 1 or data.val is not None):
        yield 'training', f'{counted(train.samples, "sample")}, {train.tokens:,} tokens per epoch'
    count, full = len(train.sequences), f'{data.efficiency:.1%} full'
    if spec.values.pack:
        mode = spec.values.packing
        yield 'packing', f'{mode}: {counted(count, "sequence")} of at most {spec.values.max_length:,} tokens, {full}'
    else:
        yield (
            'packing',
            f'none: {counted(count, "sequence")}, {full} if padded to max_length={spec.values.max_length:,}',
        )
    if data.val is not None:
        yield 'validation', f'{counted(data.val.samples, "sample")}, {data.val.tokens:,} tokens'
        for report in data.val.reports:
            for line in report.lines() + report.unused.lines():
                yield '', line
    stops = ' '.join(data.tokenizer.convert_ids_to_tokens(data.stop_ids))
    stops = f'stop token{"" if len(data.stop_ids) == 1 else "s"} {stops}'
    is_text = all(report.remarks[PLAIN_TEXT] == report.rows - report.bad_rows for report in train.reports)
    unused = "; not used, all rows are plain text: chat_template='plain' trains a text model" if is_text else ''
    yield 'template', f'{data.template.name} ({stops}){unused}'
    if token_warning:
        yield 'tokens', token_warning


def _source_lines(source: Source, report: Report, repeats: float) -> Iterator[tuple[str, str]]:
    share = report.trained_tokens / max(report.tokens, 1)
    skipped = f', {counted(report.bad_rows, "row")} skipped' if report.bad_rows else ''
    template = f' with template `{report.template}`' if report.template else ''
    repeated = f', used {repeats:.2f} times per epoch' if repeats != 1 else ''
    yield (
        'data',
        f'{source.path} as {report.format}{template}: {counted(report.rows, "row")} -> '
        f'{counted(report.samples, "sample")}, '
        f'{report.tokens:,} tokens ({share:.0%} trained){skipped}{repeated}',
    )
    for line in report.lines() + report.unused.lines():
        yield '', line


def model_lines(
    spec: ModelSpec, llm: torch.nn.Module, dtype: torch.dtype, device: torch.device
) -> Iterator[tuple[str, str]]:
    """Yield (label, text) about the model and its trained parameters."""
    trained = sum(p.numel() for p in llm.parameters() if p.requires_grad)
    total = getattr(llm, 'num_parameters', lambda: sum(p.numel() for p in llm.parameters()))()
    yield 'model', f'{spec.base_model} ({llm.config.model_type}), base {_base(spec.quantization, llm)}'
    method = (
        'all weights' if spec.lora is None else f'{_config_class(spec.lora).__name__.replace("Config", "")} adapter'
    )
    yield 'trained', f'{method}: {trained / 1e6:,.2f} M of {total / 1e6:,.1f} M parameters ({trained / total:.2%})'
    others = describe_non_text_modules(llm)
    if others is not None:
        yield '', others
    name = torch.cuda.get_device_name(device) if device.type == 'cuda' else 'CPU'
    threads = '' if device.type == 'cuda' else f' ({describe_threads()})'
    yield 'device', f'{name}, computes in {SHORT[dtype]}{threads}'


def _config_class(lora: Callable) -> type:
    """Return the class of the adapter's config; a class is not called, as some warn when they are made."""
    return lora.func if isinstance(lora.func, type) else type(lora())


def _base(quantization: Callable | None, llm: torch.nn.Module) -> str:
    """Return the storage format of the base, and how much of it is stored otherwise."""
    if quantization is not None:
        text = type(quantization()).__name__.replace('Config', '')
        in_float8 = sum(isinstance(module, Float8Linear) for module in llm.modules())
        text += f' ({counted(in_float8, "linear layer")})' if in_float8 else ''
    else:
        text = describe_stored_quantization(llm.config)
        if text is None:
            return 'not quantized'
    experts = expert_tensors(llm)
    if not experts or any(p.dtype not in SHORT for p in experts):  # stored in fewer bits too
        return text
    kept = sum(p.numel() * p.element_size() for p in experts) / 2**30
    return f'{text}, but {kept:,.2f} GiB of experts stay in {SHORT[experts[0].dtype]}'


def schedule_lines(
    schedule: Schedule, strategy: Strategy, num_ranks: int, steps: int, steps_per_epoch: int | None
) -> Iterator[tuple[str, str]]:
    """Yield (label, text) about optimizer steps and devices.

    Args:
        schedule: The section `schedule`.
        strategy: The section `strategy`.
        num_ranks: The ranks of the run.
        steps: The optimizer steps of the run.
        steps_per_epoch: Those of an epoch; None: the data are a stream.
    """
    sp_size = strategy.sequence_parallel_size
    dp_size, per_epoch = num_ranks // sp_size, ''
    if steps_per_epoch is not None:
        epochs = -(-steps // steps_per_epoch)  # as the progress line counts them
        early = f', ends in epoch {epochs} of {schedule.max_epochs}' if epochs < schedule.max_epochs else ''
        per_epoch = f' ({steps_per_epoch:,} per epoch, {counted(epochs, "epoch")}{early})'
    yield (
        'steps',
        f'{counted(steps, "optimizer step")}{per_epoch} of {schedule.batch_size} x '
        f'{schedule.gradient_accumulation_steps}{f" x {dp_size}" if dp_size > 1 else ""} sequences',
    )
    if num_ranks > 1:
        yield 'devices', f'{num_ranks} ranks, {placement_text(strategy.name)}'
    if sp_size > 1:
        yield 'sequences', f'each sharded over {sp_size} consecutive ranks'


def placement_text(strategy: str) -> str:
    """Return what each rank of a run holds, in words."""
    traits = traits_of(strategy)
    if traits.is_replicated:
        return 'each with the full model; gradients are all-reduced'
    sharded = {1: 'optimizer state', 2: 'gradients and optimizer state'}
    placed = f'a shard of {sharded.get(traits.zero_stage, "weights, gradients and optimizer state")}'
    if not traits.shards_weights:
        placed = f'the full model and {placed}'
    engine = f'DeepSpeed ZeRO-{traits.zero_stage}' if traits.is_zero else 'FSDP2'
    return f'each with {placed} ({engine})' + ', in CPU memory' * traits.offloads


def show(lines: Iterator[tuple[str, str]]) -> None:
    """Print labeled lines."""
    for label, text in lines:
        print(f'{label:<11}{visible(text)}', flush=True)
