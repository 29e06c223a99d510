"""A training run from its config to its checkpoints."""

import shlex
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from mmengine.runner import set_random_seed

from ..config.part_prompts import written_for
from ..config.run_config import RunConfig
from ..config.sections import ChatSamples, Source
from ..config.specs import StepSpec, is_packed
from ..config.strategy_traits import traits_of
from ..config.wire import Job
from ..data.largest_batch import largest_batch
from ..data.rank_shard import RankShard
from ..data.step_loader import step_loader
from ..data.training_data import TrainingData
from ..hf_format.config_overrides import changed_config, note_overrides
from ..hf_format.writer import export_info, stored_dtype
from ..parallel import ulysses_check
from ..parallel.collectives import rank
from ..parallel.env import ALONE, World
from ..parallel.rendezvous import Rendezvous
from ..parallel.timeout_errors import report_timeouts
from ..parallel.watchdog import Watchdog
from ..utils.atomic import write_text
from ..utils.cpu_threads import local_processes, use_free_cores
from ..utils.device import best_device, memory_freed_after
from ..utils.interruption import NOTHING_TO_SAVE, interrupted_as, print_last
from . import checkpoint_io, checks, export_check, hooks, ineffective_options, packing_check, summary
from .adapter_export import AdapterExport
from .auto_checkpointing import apply_checkpointing
from .build_run_data import build_run_data
from .load_from import InitialWeights, read_initial_weights
from .log_folders import without_empty_folders, without_empty_logs
from .metrics_file import MetricsFile
from .model_builder import SpecModelBuilder, resumed_initial
from .new_token_report import new_token_warning
from .oom_report import explain_oom
from .optimizations import compiles, optimize, padding
from .optimizer import CountedOptimizer, build_optimizer, schedulers
from .probe_recorder import ProbeRecorder, probe_samples
from .resume_checks import base_fingerprint_of, settings_of_run
from .run_lock import lock_work_dir
from .runner import TuneRunner
from .strategies import build_strategy
from .trackers import hyperparameters, visualizer
from .trained_state import TrainedState
from .trainer import Trainer
from .work_dir import archive_previous_run, checkpoint_to_resume, create_work_dir
from .zero_config import zero_config


def train(
    config: RunConfig,
    resume: str | bool = False,
    world: World = ALONE,
    check_fit: Callable[[StepSpec, int, torch.device], None] = lambda step, num_ranks, device: None,
) -> int:
    """Run `config`; return 0, or 130 if the run was interrupted and left a checkpoint.

    Args:
        config: The config with the options of the command.
        resume: A checkpoint's path, True for the latest complete one in the work_dir, False for a new run.
        world: The processes of the run; each calls this function.
        check_fit: Called with step, ranks and device before data are prepared; raises a ModelError if the run does
            not fit the device.

    Raises:
        XtuneError: The config, the data or the environment must be changed; raised as early as possible.
    """
    job = config.wire()
    job = replace(job, chat_samples=_usable_prompts(job.chat_samples, job.train_sources, config.options))
    device = best_device(world.local_rank)
    if device.type == 'cpu':
        use_free_cores(local_processes() if world.size > 1 else 1)
    checks.options(job, world)
    checks.strategy(job, world, device)
    rendezvous = Rendezvous(world) if world.size > 1 else None
    with (
        create_work_dir(job.work_dir, world.is_main) as work_dir,
        lock_work_dir(work_dir, config.path, rendezvous),
        without_empty_folders(work_dir, world.is_main),
    ):
        start = checkpoint_to_resume(work_dir, resume, rendezvous, world.restarts > 0)
        text = config.text()
        initial_weights = read_initial_weights(
            job.values.load_from, work_dir, settings_of_run(job.model, text), start, verified=world.local_rank > 0
        )
        checks.model(job, device)
        checks.base(job, world, device)
        check_fit(job.step, world.size, device)
        data = build_run_data(job.model, job.data_spec, job.chat_samples, _rank_shard(job.step, device, world))
        summary.show(summary.data_lines(job.data_spec, data, new_token_warning(job.model, data)))
        if rendezvous:
            rendezvous.wait_for_all('data are ready')
        group = rendezvous.group(device, job.strategy.timeout) if rendezvous else nullcontext()
        with group, memory_freed_after(device):
            return _fine_tune(job, data, device, rendezvous, work_dir, text, start, initial_weights, world)


def _rank_shard(step: StepSpec, device: torch.device, world: World) -> RankShard:
    """Return the part of each step that this rank computes, and how its sequences are padded."""
    pad = padding(step.packing, step.model.max_length, compiles(step, device, world.size))
    return RankShard.of_rank(world.rank, world.size, step.strategy.sequence_parallel_size, pad)


def _usable_prompts(samples: ChatSamples, sources: tuple[Source, ...], options: dict[str, Any]) -> ChatSamples:
    """Return the section without the prompts of a preset's data set if the run trains on another data set.

    Prompts that `options` name are used in any case.
    """
    paths = [source.path for source in sources]
    if not samples.every_steps or {'chat_samples', 'chat_samples.prompts'} & set(options):
        return samples
    other = written_for(samples.prompts, paths)
    if other is None:
        return samples
    print(
        f'note: the prompts of chat_samples are those of {other}, and this run trains on {", ".join(paths)}: they are '
        'not answered; give your own with --cfg-options chat_samples.prompts=...'
    )
    return replace(samples, every_steps=None, prompts=())


def _fine_tune(
    job: Job,
    data: TrainingData,
    device: torch.device,
    rendezvous: Rendezvous | None,
    work_dir: Path,
    text: str,
    start: Path | None,
    initial_weights: InitialWeights | None,
    world: World,
) -> int:
    """Load the model and train it. A function of its own, because neither may outlive the process group."""
    set_random_seed(job.values.seed)  # adapters are initialized at random
    deepspeed = partial(zero_config, job.strategy, job.schedule, job.lora is not None, world.size)
    strategy = build_strategy(job.strategy, world, rendezvous, device, deepspeed)
    with explain_oom('loading the model'):
        builder = SpecModelBuilder(
            job.model,
            device,
            lambda model, dtype: summary.show(summary.model_lines(job.model, model, dtype, device)),
            job.schedule.batch_size,
            job.values.packing != 'none',
            resumed_initial(job.lora, start),
        )
        llm, dtype = strategy.place(builder), builder.dtype
    sp_group = ulysses_check.sequence_parallel_group(llm, dtype, device, job.strategy, job.values.max_length)
    _show_schedule(job, data, world)

    if world.is_main:
        checkpoint_io.remove_partial_files(work_dir)
        if start is None:
            archive_previous_run(work_dir)
        write_text(work_dir / f'{job.name}.py', text)
    with explain_oom('training'):
        optimized = optimize(job.step, llm, dtype, device, sp_group, world.size)
        task = optimized.task
        summary.show(optimized.lines())
        traits = traits_of(job.strategy.name, world.size)
        if is_packed(job.values.packing):
            packing_check.check_packing(task, traits)
        strategy.attach(task, build_optimizer(job.optimizer, traits, task.trained_parameters().values()))
        trainer = Trainer(task, strategy, job.schedule.max_grad_norm, optimized.wrappers)
        runner = build_runner(job, data, trainer, text, start)
        if initial_weights is not None:
            summary.show(iter([('weights', initial_weights.load_into(runner.strategy.state, runner.run_meta))]))
        memory = apply_checkpointing(
            job.values.activation_checkpointing,
            task,
            optimized.layers,
            traits.is_replicated,
            job.optimizer.func,
            lambda: largest_batch(data),
        )
        summary.show(iter([('memory', memory)]))
        with interrupted_as(lambda: _interrupted(runner, start)), without_empty_logs(runner):
            _train(runner, job, world)
    return _farewell(runner, job, world)


def _show_schedule(job: Job, data: TrainingData, world: World) -> None:
    """Print the lines about steps, devices and optimizer, and the options that have no effect on this many steps."""
    steps, schedule = len(data.steps), job.schedule
    per_epoch = None if job.data.streaming else data.steps.steps_per_epoch
    summary.show(summary.schedule_lines(schedule, job.strategy, world.size, steps, per_epoch))
    optimizer = f'{job.optimizer.func.__name__}, {schedule.lr_schedule} from lr {job.optimizer.keywords.get("lr")}'
    summary.show(iter([('optimizer', optimizer), ('writes to', str(job.work_dir))]))
    for note in ineffective_options.notes_on_steps(job, steps, per_epoch or 0):
        print(f'note: {note}')


def _interrupted(runner: TuneRunner, start: Path | None) -> str:
    """Return the message of an interrupted run that has not saved a checkpoint."""
    return NOTHING_TO_SAVE if start is None and not runner.iter else 'interrupted; what was saved before stays'


def _train(runner: TuneRunner, job: Job, world: World) -> None:
    if world.size == 1:
        runner.train()
        return
    torch.manual_seed(job.values.seed + world.rank)  # dropout differs between devices
    with Watchdog(job.work_dir, world.rank, hang_seconds=job.strategy.timeout / 2) as watchdog:
        runner.register_hook(hooks.HeartbeatHook(watchdog.heartbeat))
        with report_timeouts(job.strategy.timeout, job.work_dir):
            runner.train()
    runner.trainer.strategy.close()


def build_runner(job: Job, data: TrainingData, trainer: Trainer, text: str, start: Path | None) -> TuneRunner:
    """Return the runner of `job`, ready to train."""
    task = trainer.task
    overrides = changed_config(task.llm, job.model)
    if job.lora is not None and rank() == 0:
        note_overrides(overrides, job.values.base_model)
    stored = stored_dtype(job.model, task.llm)
    base, stops = job.values.base_model, data.stop_ids
    info = export_info(task.llm, base, stored, data.template.source, stops, data.tokenizer, overrides)
    state, probe_recorder = TrainedState(task.llm, trainer.strategy), ProbeRecorder(task, probe_samples(data))
    metrics = MetricsFile(job.work_dir / 'metrics.jsonl')
    export = AdapterExport(state, info, data.tokenizer, probe_recorder)
    if state.is_adapter:
        export_check.check_adapter(state, export.write_weights, job.work_dir)
    extra = dict(job.runner)
    arguments = dict(
        model=task,
        work_dir=str(job.work_dir),
        experiment_name=f'{job.name}_{time.time_ns()}',
        train_dataloader=step_loader(data.steps, job.data.num_workers),
        optim_wrapper=CountedOptimizer(trainer.strategy.optimizer),
        param_scheduler=schedulers(job.schedule, len(data.steps)) or None,
        train_cfg=dict(type='xtune.StepLoop'),
        strategy=dict(type='xtune.CheckpointStrategy', state=state),
        default_hooks=dict(timer=None, sampler_seed=None, logger=None, checkpoint=None),
        custom_hooks=[
            *_hooks(job, data, metrics, export),
            *hooks.resolve_custom_hooks(extra.pop('custom_hooks', None)),
        ],
        resume=str(start) if start else False,
        launcher='none',
        log_level='WARNING',
        probe_recorder=probe_recorder,
        trainer=trainer,
        visualizer=visualizer(extra.pop('visualizer', None), job.log.tensorboard and rank() == 0),
        randomness=dict(seed=job.values.seed) | extra.pop('randomness', {}),
        cfg=hyperparameters(text),
        run_meta=dict(
            plan=data.steps.identity(),
            sequences_per_step=data.steps.sequences_per_step,
            config=text,
            export=info.to_dict(),
            base_fingerprint=base_fingerprint_of(job.model),
        ),
    )
    return TuneRunner(**{**arguments, **extra})


def _hooks(job: Job, data: TrainingData, metrics: MetricsFile, export: AdapterExport) -> list:
    adapter = job.lora is not None and job.checkpoint.export_adapter
    made = [
        hooks.ProgressHook(metrics, job.log.every_steps),
        hooks.CheckpointHook(job.checkpoint, export if adapter else None),
    ]
    if data.val is not None:
        every = job.validation.every_steps
        made.append(
            hooks.ValidationHook(data.val, data.pad_id, job.schedule.batch_size, metrics, every, data.steps.shard)
        )
    if job.chat_samples.every_steps and job.chat_samples.prompts:
        path = job.work_dir / 'chat_samples.jsonl'
        made.append(hooks.ChatSamplesHook(job.chat_samples, data.chat_tokenizer, data.stop_ids, path))
    if job.log.plot:
        made.append(hooks.LossCurveHook(metrics, job.work_dir / 'loss.png'))
    return made


def _farewell(runner: TuneRunner, job: Job, world: World) -> int:
    loop = runner.train_loop
    interrupted = loop.interrupted and loop.steps_done < loop.max_iters
    if world.is_main:
        last = job.work_dir / (job.work_dir / checkpoint_io.POINTER).read_text(encoding='utf-8').strip()
        if interrupted:
            print_last(f'interrupted after step {loop.steps_done}; continue with --resume (from {last})')
        else:
            if loop.stop_training:
                print(f'a hook ended the run after step {loop.steps_done} of {loop.max_iters}')
            files_named = shlex.join([str(job.work_dir / f'{job.name}.py'), str(last)])
            print(f'done. Next: xtune convert pth_to_hf {files_named} ./hf')
            if job.log.tensorboard:
                print(f'figures: tensorboard --logdir {shlex.quote(str(job.work_dir))}')
    return 130 if interrupted else 0
