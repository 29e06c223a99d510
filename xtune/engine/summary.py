"""The summary of a run, about ten lines before the first step."""

from collections.abc import Callable, Iterator

import torch

from ..config.sections import Source
from ..config.strategy_traits import traits_of
from ..config.wire import Job
from ..data.encode import PLAIN_TEXT
from ..data.report import Report, counted
from ..data.training_data import TrainingData
from ..models.loading.config_checks import describe_stored_quantization
from ..ops.float8_linear import Float8Linear
from ..parallel.env import World
from ..utils.cpu_threads import describe_threads
from ..utils.experts import expert_tensors
from ..utils.language_model import describe_non_text_modules
from ..utils.visible import visible
from .new_token_report import new_token_warning

SHORT = {torch.bfloat16: 'bf16', torch.float32: 'fp32'}


def data_lines(job: Job, data: TrainingData) -> Iterator[tuple[str, str]]:
    """Yield (label, text) about rows, packing and chat template."""
    train = data.train
    if job.data.streaming:
        sources = counted(len(job.train_sources), 'source')
        yield 'streaming', f'windows of {job.data.window:,} rows from {sources}; the first window:'
    for source, report, repeats in zip(job.train_sources, train.reports, train.repeats, strict=True):
        yield from _source_lines(source, report, repeats)
    if not job.data.streaming and (len(train.reports) > 1 or data.val is not None):
        yield 'training', f'{counted(train.samples, "sample")}, {train.tokens:,} tokens per epoch'
    count, full = len(train.sequences), f'{data.efficiency:.1%} full'
    if job.values.pack:
        mode = job.values.packing
        yield 'packing', f'{mode}: {counted(count, "sequence")} of at most {job.values.max_length:,} tokens, {full}'
    else:
        yield 'packing', f'none: {counted(count, "sequence")}, {full} if padded to max_length={job.values.max_length:,}'
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
    if warning := new_token_warning(job, data):
        yield 'tokens', warning


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


def model_lines(job: Job, llm: torch.nn.Module, dtype: torch.dtype, device: torch.device) -> Iterator[tuple[str, str]]:
    """Yield (label, text) about the model and its trained parameters."""
    trained = sum(p.numel() for p in llm.parameters() if p.requires_grad)
    total = getattr(llm, 'num_parameters', lambda: sum(p.numel() for p in llm.parameters()))()
    yield 'model', f'{job.values.base_model} ({llm.config.model_type}), base {_base(job, llm)}'
    method = 'all weights' if job.lora is None else f'{_kind(job.lora).__name__.replace("Config", "")} adapter'
    yield 'trained', f'{method}: {trained / 1e6:,.2f} M of {total / 1e6:,.1f} M parameters ({trained / total:.2%})'
    others = describe_non_text_modules(llm)
    if others is not None:
        yield '', others
    name = torch.cuda.get_device_name(device) if device.type == 'cuda' else 'CPU'
    threads = '' if device.type == 'cuda' else f' ({describe_threads()})'
    yield 'device', f'{name}, computes in {SHORT[dtype]}{threads}'


def _kind(lora: Callable) -> type:
    """Return the class of the adapter's config; a class is not called, as some warn when they are made."""
    return lora.func if isinstance(lora.func, type) else type(lora())


def _base(job: Job, llm: torch.nn.Module) -> str:
    """Return the storage format of the base, and how much of it is stored otherwise."""
    if job.quantization is not None:
        text = type(job.quantization()).__name__.replace('Config', '')
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


def schedule_lines(job: Job, data: TrainingData, world: World) -> Iterator[tuple[str, str]]:
    """Yield (label, text) about optimizer steps, devices, the optimizer and the work dir."""
    schedule, parts = job.schedule, job.strategy.sequence_parallel_size
    teams = world.size // parts
    begun = -(-len(data.steps) // data.steps.steps_per_epoch)  # as the progress line counts them
    early = f', ends in epoch {begun} of {schedule.max_epochs}' if begun < schedule.max_epochs else ''
    per_epoch = f' ({data.steps.steps_per_epoch:,} per epoch, {counted(begun, "epoch")}{early})'
    yield (
        'steps',
        f'{counted(len(data.steps), "optimizer step")}{"" if job.data.streaming else per_epoch} of '
        f'{schedule.batch_size} x {schedule.gradient_accumulation_steps}{f" x {teams}" if teams > 1 else ""} sequences',
    )
    if world.size > 1:
        yield 'devices', f'{world.size} ranks, {held_by_each(job.strategy.name)}'
    if parts > 1:
        yield 'sequences', f'each sharded over {parts} consecutive ranks'
    yield (
        'optimizer',
        f'{job.optimizer.func.__name__}, {schedule.lr_schedule} from lr {job.optimizer.keywords.get("lr")}',
    )
    yield 'writes to', str(job.work_dir)


def held_by_each(strategy: str) -> str:
    """Return what each rank of a run holds, in words."""
    traits = traits_of(strategy)
    if traits.is_replicated:
        return 'each with the full model; gradients are all-reduced'
    sharded = {1: 'optimizer state', 2: 'gradients and optimizer state'}
    held = f'a shard of {sharded.get(traits.zero_stage, "weights, gradients and optimizer state")}'
    if not traits.shards_weights:
        held = f'the full model and {held}'
    engine = f'DeepSpeed ZeRO-{traits.zero_stage}' if traits.is_zero else 'FSDP2'
    return f'each with {held} ({engine})' + ', in CPU memory' * traits.offloads


def show(lines: Iterator[tuple[str, str]]) -> None:
    """Print labeled lines."""
    for label, text in lines:
        print(f'{label:<11}{visible(text)}', flush=True)
