"""A plan: what the run of a config needs, on which cards it fits, and what to change where it does not."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import torch

from ..config.wire import Job
from ..engine.fitting import has_whole_model
from ..errors import ModelError
from ..models.build import run_dtype
from ..models.layers import layers_of
from .compiled import CountedGraphs
from .frame import adapted, frame, model_config
from .predict import Choice, Layers, Prediction, layers, predict

GIB = 2**30
# Of a card's GiB, what a run can use: allocators lose some, and a desktop takes some. CUDA itself takes CONTEXT.
USABLE, CONTEXT = 0.93, GIB // 2
SHORTEST = 256


@dataclass(frozen=True)
class Variant:
    """A run that differs from the config's, and how: options of --cfg-options."""

    job: Job
    options: tuple[str, ...] = ()

    def but(self, job: Job, *options: str) -> 'Variant':
        """Return this with more changes; a later value of an option takes the place of an earlier one."""
        names = {option.partition('=')[0] for option in options}
        return Variant(job, (*(o for o in self.options if o.partition('=')[0] not in names), *options))


@dataclass(frozen=True)
class Size:
    """Parameters of the model with its adapter, how many of them are trained, and those of the largest tensor; layers,
    and the width of what lies between them."""

    parameters: int
    trained: int
    largest: int
    layers: int
    width: int


class Planner:
    """Predicts runs of one model; each is predicted once.

    Args:
        job: The run of the config.

    Raises:
        ModelError: config.json cannot be read, or the model cannot be built from it.
    """

    def __init__(self, job: Job) -> None:
        self.job, self.config = job, model_config(job)
        self._known: dict[tuple, Layers] = {}
        self._graphs = CountedGraphs()

    def size(self) -> Size:
        """Return the sizes of the run's model."""
        # Quantisation changes what a parameter takes, and not how many there are.
        job = _values(replace(self.job, quantization=None), checkpointing='none')
        model = adapted(frame(job, self.config, torch.bfloat16), job)
        numbers = [(p.numel(), p.requires_grad) for p in model.parameters()]
        return Size(
            parameters=sum(n for n, _ in numbers),
            trained=sum(n for n, trained in numbers if trained),
            largest=max(n for n, _ in numbers),
            layers=len(layers_of(model)),
            width=model.get_input_embeddings().weight.shape[1],
        )

    def counted(self, job: Job, room: float = 0) -> Prediction:
        """Return what a run takes on any card, from tensors without values; 'auto' recomputes as little as `room`."""
        job = in_bf16(job)
        dtype = run_dtype(job, torch.device('cpu'))
        return self._predicted(job, room, partial(self._counted, dtype=dtype))

    def measured(self, job: Job, device: torch.device, room: float) -> Prediction | None:
        """Return what a run takes on the GPU `device`, from real steps of slices; None: these do not fit."""
        dtype = run_dtype(job, device)
        try:
            return self._predicted(job, room, lambda job: layers(job, self.config, dtype, device))
        except torch.OutOfMemoryError:
            return None
        finally:
            torch.cuda.empty_cache()

    def _predicted(self, job: Job, room: float, slices: Callable[[Job], Layers]) -> Prediction:
        """Return what `job` takes, by slices of it with each way to call its layers that it needs.

        Raises:
            ModelError: It has fewer layers than shall recompute.
        """
        wanted = job.values.checkpointing
        if wanted == 'offload':
            found = slices(job)
            return predict(job, found, len(found.order))
        if isinstance(wanted, int) and wanted > self.size().layers:
            most = self.size().layers
            raise ModelError(f"checkpointing={wanted}, but the model has {most} layers: give at most {most}, or 'all'")
        all_of_them = slices(_values(job, checkpointing='all')) if wanted not in ('none', 0) else None
        if wanted == 'all':
            return predict(job, all_of_them, len(all_of_them.order))
        if wanted == 'auto':
            least = predict(job, all_of_them, len(all_of_them.order))
            if least.peak + CONTEXT > room or not has_whole_model(job, 2) or job.strategy.sequence_parallel_size > 1:
                return least
        kept = slices(_values(job, checkpointing='none'))
        count = 0 if wanted == 'none' else wanted
        if not count:
            return predict(job, kept, 0)
        choice, number = Choice(all_of_them, kept), len(kept.order)
        if wanted == 'auto':
            tried = (predict(job, choice, count) for count in range(number))
            return next((found for found in tried if found.peak + CONTEXT <= room), least)
        return predict(job, choice, count)

    def _counted(self, job: Job, dtype: torch.dtype) -> Layers:
        values, schedule = job.values, job.schedule
        key = (job.lora is None, str(job.quantization), values.checkpointing, values.max_length)
        key += (schedule.batch_size, schedule.accumulate > 1)
        if key not in self._known:
            offloads = values.checkpointing == 'offload'
            alike = _values(job, checkpointing='all') if offloads else job
            found = self._counted(alike, dtype) if offloads else layers(alike, self.config, dtype, None, self._graphs)
            self._known[key] = found.waiting() if offloads else found
        return self._known[key]

    def first_fit(self, room: float) -> tuple[Variant, Prediction] | None:
        """Return the nearest run that needs at most `room` bytes with the context of CUDA; None: there is none."""
        for variant in self.nearest():
            found = self.counted(variant.job, room)
            if found.peak + CONTEXT <= room:
                return variant, found
        return None

    def nearest(self) -> Iterator[Variant]:
        """Yield the config's run and ever more distant ones: recomputing, micro-batches, method, length.

        Smaller micro-batches with more accumulation are the same optimizer step; the last changes are another run.
        """
        now = Variant(self.job)
        yield now
        if now.job.values.checkpointing not in ('auto', 'all', 'offload'):
            now = now.but(_values(now.job, checkpointing='auto'), 'checkpointing=auto')
            yield now
        for now in _smaller(now):  # noqa: B020
            yield now
        if now.job.values.checkpointing != 'offload':
            yield now.but(_values(now.job, checkpointing='offload'), 'checkpointing=offload')
        for method in _methods(now.job):
            now = now.but(*method)
            yield now
        length = self.job.values.max_length
        while length // 2 >= SHORTEST:
            length //= 2
            now = now.but(_values(now.job, max_length=length), f'max_length={length}')
            yield now


def in_bf16(job: Job) -> Job:
    """Return `job` with the compute type that 'auto' means on the GPUs of today."""
    return _values(job, precision='bf16') if job.values.precision == 'auto' else job


def room(card: float) -> float:
    """Return the bytes that a run can use of a card of `card` GB, which sells as GB what are GiB."""
    return USABLE * card * GIB


def _values(job: Job, **values) -> Job:
    return replace(job, values=replace(job.values, **values))


def _smaller(now: Variant) -> Iterator[Variant]:
    schedule = now.job.schedule
    batch, sequences = schedule.batch_size, schedule.batch_size * schedule.accumulate
    while batch > 1:
        batch = max(n for n in range(1, batch // 2 + 1) if sequences % n == 0)
        made = replace(schedule, batch_size=batch, accumulate=sequences // batch)
        options = (f'schedule.batch_size={batch}', f'schedule.accumulate={sequences // batch}')
        now = now.but(replace(now.job, schedule=made), *options)
        yield now


def _methods(job: Job) -> Iterator[tuple]:
    from peft import LoraConfig
    from transformers import BitsAndBytesConfig

    lora: Callable = job.lora or partial(LoraConfig, r=16, target_modules='all-linear', task_type='CAUSAL_LM')
    if job.lora is None:
        yield replace(job, lora=lora), 'a lora preset'
    if not (job.quantization and getattr(job.quantization(), 'load_in_4bit', False)):
        nf4 = partial(BitsAndBytesConfig, load_in_4bit=True, bnb_4bit_quant_type='nf4', bnb_4bit_use_double_quant=True)
        yield replace(job, lora=lora, quantization=nf4), 'a qlora preset'
