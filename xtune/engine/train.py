"""A training run from its config to its checkpoints."""

import shlex
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from mmengine.runner import set_random_seed

from ..config.part_prompts import written_for
from ..config.run_config import RunConfig
from ..config.sections import ChatSamples, Source
from ..config.specs import StepSpec, is_packed
from ..config.strategy_traits import StrategyTraits, traits_of
from ..config.wire import Job
from ..data.largest_batch import largest_batch
from ..data.rank_shard import RankShard
from ..data.training_data import TrainingData
from ..parallel import ulysses_check
from ..parallel.env import ALONE, World
from ..parallel.rendezvous import Rendezvous
from ..parallel.timeout_errors import report_timeouts
from ..parallel.watchdog import Watchdog
from ..utils.atomic import write_text
from ..utils.cpu_threads import local_processes, use_free_cores
from ..utils.device import best_device, memory_freed_after
from ..utils.interruption import NOTHING_TO_SAVE, interrupted_as, print_last
from . import checkpoint_io, checks, hooks, ineffective_options, packing_check, summary
from .auto_checkpointing import apply_checkpointing
from .build_run_data import build_run_data
from .build_runner import build_runner
from .load_from import InitialWeights, read_initial_weights
from .log_folders import without_empty_folders, without_empty_logs
from .model_builder import SpecModelBuilder, resumed_initial
from .new_token_report import new_token_warning
from .oom_report import explain_oom
from .optimizations import Optimized, compiles, optimize, padding
from .optimizer import build_optimizer
from .resume_checks import settings_of_run
from .run_lock import lock_work_dir
from .runner import TuneRunner
from .strategies import Strategy, build_strategy
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
        checkpoint = checkpoint_to_resume(work_dir, resume, rendezvous, world.restarts > 0)
        text = config.text()
        initial_weights = read_initial_weights(
            job.values.load_from, work_dir, settings_of_run(job.model, text), checkpoint, verified=world.local_rank > 0
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
            return _fine_tune(
                job, data, _Context(world, device, rendezvous, work_dir, text, checkpoint, initial_weights)
            )


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


@dataclass(frozen=True)
class _Context:
    """Where a run takes place, and what it starts from.

    Attributes:
        world: The ranks of the run.
        device: The device of this rank.
        rendezvous: The rendezvous of the ranks; None: there is one rank.
        work_dir: The folder of the run.
        text: Its config as one file.
        checkpoint: The checkpoint to resume from.
        initial_weights: The weights of `load_from`.
    """

    world: World
    device: torch.device
    rendezvous: Rendezvous | None
    work_dir: Path
    text: str
    checkpoint: Path | None
    initial_weights: InitialWeights | None


def _fine_tune(job: Job, data: TrainingData, context: _Context) -> int:
    """Load the model and train it. A function of its own, because neither may outlive the process group."""
    world, device = context.world, context.device
    set_random_seed(job.values.seed)  # adapters are initialized at random
    strategy, llm, dtype = _load_model(job, context)
    sp_group = ulysses_check.sequence_parallel_group(llm, dtype, device, job.strategy, job.values.max_length)
    _show_schedule(job, data, world)
    if world.is_main:
        checkpoint_io.remove_partial_files(context.work_dir)
        if context.checkpoint is None:
            archive_previous_run(context.work_dir)
        write_text(context.work_dir / f'{job.name}.py', context.text)
    with explain_oom('training'):
        optimized = optimize(job.step, llm, dtype, device, sp_group, world.size)
        summary.show(optimized.lines())
        trainer = _build_trainer(job, optimized, strategy, traits_of(job.strategy.name, world.size))
        runner = build_runner(job, data, trainer, context.text, context.checkpoint)
        if context.initial_weights is not None:
            loaded = context.initial_weights.load_into(runner.strategy.state, runner.run_meta)
            summary.show(iter([('weights', loaded)]))
        memory = apply_checkpointing(
            job.values.activation_checkpointing,
            optimized.task,
            optimized.layers,
            job.step.is_replicated(world.size),
            job.optimizer.func,
            lambda: largest_batch(data),
        )
        summary.show(iter([('memory', memory)]))
        with interrupted_as(lambda: _interrupted(runner, context.checkpoint)), without_empty_logs(runner):
            _train(runner, job, world)
    return _report_end(runner, job, world)


def _load_model(job: Job, context: _Context) -> tuple[Strategy, torch.nn.Module, torch.dtype]:
    """Return the strategy, the model that it placed on the ranks, and the compute type."""
    world, device = context.world, context.device
    deepspeed = partial(zero_config, job.strategy, job.schedule, job.lora is not None, world.size)
    strategy = build_strategy(job.strategy, world, context.rendezvous, device, deepspeed)
    with explain_oom('loading the model'):
        builder = SpecModelBuilder(
            job.model,
            device,
            lambda model, dtype: summary.show(summary.model_lines(job.model, model, dtype, device)),
            job.schedule.batch_size,
            job.values.packing != 'none',
            resumed_initial(job.lora, context.checkpoint),
        )
        return strategy, strategy.place(builder), builder.dtype


def _build_trainer(job: Job, optimized: Optimized, strategy: Strategy, traits: StrategyTraits) -> Trainer:
    """Return the trainer of an optimized task, with the optimizer of the run."""
    task = optimized.task
    if is_packed(job.values.packing):
        packing_check.check_packing(task, traits)
    strategy.attach(task, build_optimizer(job.optimizer, traits, task.trained_parameters().values()))
    return Trainer(task, strategy, job.schedule.max_grad_norm, optimized.wrappers)


def _show_schedule(job: Job, data: TrainingData, world: World) -> None:
    """Print the lines about steps, devices and optimizer, and the options that have no effect on this many steps."""
    steps, schedule = len(data.steps), job.schedule
    per_epoch = None if job.data.streaming else data.steps.steps_per_epoch
    summary.show(summary.schedule_lines(schedule, job.strategy, world.size, steps, per_epoch))
    optimizer = f'{job.optimizer.func.__name__}, {schedule.lr_schedule} from lr {job.optimizer.keywords.get("lr")}'
    summary.show(iter([('optimizer', optimizer), ('writes to', str(job.work_dir))]))
    for note in ineffective_options.notes_on_steps(job, steps, per_epoch or 0):
        print(f'note: {note}')


def _interrupted(runner: TuneRunner, checkpoint: Path | None) -> str:
    """Return the message of an interrupted run that has not saved a checkpoint."""
    return NOTHING_TO_SAVE if checkpoint is None and not runner.iter else 'interrupted; earlier checkpoints are kept'


def _train(runner: TuneRunner, job: Job, world: World) -> None:
    """Run the loop; with several ranks under a watchdog, which ends a rank that hangs."""
    if world.size == 1:
        runner.train()
        return
    torch.manual_seed(job.values.seed + world.rank)  # dropout differs between devices
    with Watchdog(job.work_dir, world.rank, hang_seconds=job.strategy.timeout / 2) as watchdog:
        runner.register_hook(hooks.HeartbeatHook(watchdog.heartbeat))
        with report_timeouts(job.strategy.timeout, job.work_dir):
            runner.train()
    runner.trainer.strategy.close()


def _report_end(runner: TuneRunner, job: Job, world: World) -> int:
    """Print how the run ended and the next command; return its exit code."""
    loop = runner.train_loop
    interrupted = loop.interrupted and loop.steps_done < loop.max_iters
    if world.is_main:
        last = job.work_dir / (job.work_dir / checkpoint_io.POINTER).read_text(encoding='utf-8').strip()
        if interrupted:
            print_last(f'interrupted after step {loop.steps_done}; continue with --resume (from {last})')
        else:
            if loop.stop_training:
                print(f'a hook ended the run after step {loop.steps_done} of {loop.max_iters}')
            arguments = shlex.join([str(job.work_dir / f'{job.name}.py'), str(last)])
            print(f'done. Next: xtune convert pth_to_hf {arguments} ./hf')
            if job.log.tensorboard:
                print(f'TensorBoard: tensorboard --logdir {shlex.quote(str(job.work_dir))}')
    return 130 if interrupted else 0
