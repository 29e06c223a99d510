"""Build the runner of a run: data loader, schedule, hooks, and what its checkpoints contain."""

import time
from pathlib import Path

from ..config.wire import Job
from ..data.step_loader import step_loader
from ..data.training_data import TrainingData
from ..hf_format.config_overrides import changed_config, note_overrides
from ..hf_format.writer import export_info, stored_dtype
from ..parallel.collectives import rank
from . import export_check, hooks
from .adapter_export import AdapterExport
from .metrics_file import MetricsFile
from .optimizer import CountedOptimizer, schedulers
from .probe_recorder import ProbeRecorder, probe_samples
from .resume_checks import base_fingerprint_of
from .runner import TuneRunner
from .trackers import hyperparameters, visualizer
from .trained_state import TrainedState
from .trainer import Trainer


def build_runner(job: Job, data: TrainingData, trainer: Trainer, text: str, checkpoint: Path | None) -> TuneRunner:
    """Return the runner of `job`, ready to train.

    Args:
        job: The run.
        data: Its data.
        trainer: Its training step.
        text: Its config as one file.
        checkpoint: The checkpoint to resume from.
    """
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
        resume=str(checkpoint) if checkpoint else False,
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
    run_hooks = [
        hooks.ProgressHook(metrics, job.log.every_steps),
        hooks.CheckpointHook(job.checkpoint, export if adapter else None),
    ]
    if data.val is not None:
        every = job.validation.every_steps
        run_hooks.append(
            hooks.ValidationHook(data.val, data.pad_id, job.schedule.batch_size, metrics, every, data.steps.shard)
        )
    if job.chat_samples.every_steps and job.chat_samples.prompts:
        path = job.work_dir / 'chat_samples.jsonl'
        run_hooks.append(hooks.ChatSamplesHook(job.chat_samples, data.chat_tokenizer, data.stop_ids, path))
    if job.log.plot:
        run_hooks.append(hooks.LossCurveHook(metrics, job.work_dir / 'loss.png'))
    return run_hooks
