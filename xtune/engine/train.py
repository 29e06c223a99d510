"""A training run from its config to its checkpoints."""

import shlex
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from mmengine.runner import set_random_seed

from ..config.flatten import flatten
from ..config.load import load
from ..config.part_prompts import written_for
from ..config.wire import Job, wire
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
from .job_data import build_job_data
from .load_from import InitialWeights, read_initial_weights
from .log_folders import without_empty_folders, without_empty_logs
from .metrics_file import MetricsFile
from .model_builder import JobModelBuilder, resumed_initial
from .oom_report import explain_oom
from .optimizations import compiles, optimize, padding
from .optimizer import CountedOptimizer, build_optimizer, schedulers
from .optimizer_checks import check_optimizer
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
    config: Path,
    options: dict[str, Any],
    resume: str | bool = False,
    world: World = ALONE,
    check_fit: Callable[[Job, World, torch.device], None] = lambda job, world, device: None,
) -> int:
    """Run `config` with `options`; return 0, or 130 if the run was interrupted and left a checkpoint.

    Args:
        config: The config's file.
        options: Dotted option names and values.
        resume: A checkpoint's path, True for the latest complete one in the work_dir, False for a new run.
        world: The processes of the run; each calls this function.
        check_fit: Raises a ModelError if the run does not fit the device; called before data are prepared.

    Raises:
        XtuneError: The config, the data or the environment must be changed; raised as early as possible.
    """
    job = _with_own_prompts(wire(load(config, options, check_types=True), config.stem), options)
    device = best_device(world.local_rank)
    if device.type == 'cpu':
        use_free_cores(local_processes() if world.size > 1 else 1)
    checks.options(job, world)
    checks.strategy(job, world, device)
    check_optimizer(job, world, device)
    rendezvous = Rendezvous(world) if world.size > 1 else None
    with (
        create_work_dir(job.work_dir, world.is_main) as work_dir,
        lock_work_dir(work_dir, config, rendezvous),
        without_empty_folders(work_dir, world.is_main),
    ):
        start = checkpoint_to_resume(work_dir, resume, rendezvous, world.restarts > 0)
        text = flatten(config, options)
        initial_weights = read_initial_weights(
            job.values.load_from, work_dir, settings_of_run(job, text), start, verified=world.local_rank > 0
        )
        checks.model(job, device)
        checks.base(job, world, device)
        check_fit(job, world, device)
        share = RankShard.of_rank(
            world.rank, world.size, job.strategy.sequence_parallel_size, padding(job, compiles(job, device, world))
        )
        data = build_job_data(job, share)
        summary.show(summary.data_lines(job, data))
        if rendezvous:
            rendezvous.wait_for_all('data are ready')
        group = rendezvous.group(device, job.strategy.timeout) if rendezvous else nullcontext()
        with group, memory_freed_after(device):
            return _fine_tune(job, data, device, rendezvous, work_dir, text, start, initial_weights, world)


def _with_own_prompts(job: Job, options: dict[str, Any]) -> Job:
    """Return `job` without the prompts of a preset's data set if the run trains on another data set.

    Prompts that `options` name are used in any case.
    """
    samples, paths = job.chat_samples, [source.path for source in job.train_sources]
    if not samples.every_steps or {'chat_samples', 'chat_samples.prompts'} & set(options):
        return job
    other = written_for(samples.prompts, paths)
    if other is None:
        return job
    print(
        f'note: the prompts of chat_samples are those of {other}, and this run trains on {", ".join(paths)}: they are '
        'not answered; give your own with --cfg-options chat_samples.prompts=...'
    )
    return replace(job, chat_samples=replace(samples, every_steps=None, prompts=()))


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
    strategy = build_strategy(
        job.strategy, world, rendezvous, device, lambda dtype: zero_config(job, world.size, dtype)
    )
    with explain_oom('loading the model'):
        builder = JobModelBuilder(
            job,
            device,
            lambda model, dtype: summary.show(summary.model_lines(job, model, dtype, device)),
            resumed_initial(job, start),
        )
        llm, dtype = strategy.place(builder), builder.dtype
    sp_group = ulysses_check.sequence_parallel_group(llm, dtype, device, job.strategy, job.values.max_length)
    summary.show(summary.schedule_lines(job, data, world))
    for note in ineffective_options.notes_on_steps(
        job, len(data.steps), 0 if job.data.streaming else data.steps.steps_per_epoch
    ):
        print(f'note: {note}')

    if world.is_main:
        checkpoint_io.remove_partial_files(work_dir)
        if start is None:
            archive_previous_run(work_dir)
        write_text(work_dir / f'{job.name}.py', text)
    with explain_oom('training'):
        optimized = optimize(job, llm, dtype, device, sp_group, world)
        task = optimized.task
        summary.show(optimized.lines())
        packing_check.keep_apart(job, task, world)
        strategy.attach(task, build_optimizer(job, task.trained_parameters().values()))
        trainer = Trainer(task, strategy, job.schedule.max_grad_norm, optimized.wrappers)
        runner = build_runner(job, data, trainer, text, start)
        if initial_weights is not None:
            summary.show(iter([('weights', initial_weights.load_into(runner.strategy.state, runner.run_meta))]))
        memory = apply_checkpointing(job, task, optimized.layers, world.size, lambda: largest_batch(data))
        summary.show(iter([('memory', memory)]))
        with interrupted_as(lambda: _interrupted(runner, start)), without_empty_logs(runner):
            _train(runner, job, world)
    return _farewell(runner, job, world)


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
            base_fingerprint=base_fingerprint_of(job),
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
