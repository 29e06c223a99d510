"""Predictions of the runs of one model: the config's, and the nearest one that fits a card."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch

from ..config.wire import Job
from ..engine.auto_checkpointing import has_whole_model
from ..engine.prepare_model import add_meta_adapter
from ..errors import ModelError
from ..methods.base_model import run_dtype
from ..models.loading.config_checks import check_attention
from ..models.loading.context_limit import check_length
from ..utils.experts import expert_tensors
from ..utils.model_structure import layers_of
from .architecture import architecture
from .compiled_estimate import CountedGraphs
from .meta_model import planned_meta_model
from .predict import Choice, Layers, Prediction, layers, predict
from .variants import Variant, in_bf16, nearest, shared, with_values

GIB = 2**30
# Of a card's GiB, what a run can use: allocators lose some, and a desktop takes some. CUDA itself takes CONTEXT.
USABLE, CONTEXT = 0.93, GIB // 2


@dataclass(frozen=True)
class Size:
    """Parameters of the model with its adapter, how many of them are trained, those of the largest tensor, and those of
    experts that are tensors; layers, and the width of what lies between them."""

    parameters: int
    trained: int
    largest: int
    experts: int
    layers: int
    width: int


class Planner:
    """Predicts runs of one model; each is predicted once.

    Args:
        job: The run of the config.
        told: Gets a line about what comes next, which may take minutes.

    Raises:
        ModelError: config.json cannot be read, or the model cannot be built from it, not attend as `llm` says, or not
            take rows of max_length.
    """

    def __init__(self, job: Job, told: Callable[[str], None] = lambda line: None) -> None:
        found = architecture(job)
        self.job, self.config, self.source, self._told = job, found.config, found.source, told
        check_attention(self.config, job.load_llm.keywords.get('attn_implementation'))
        check_length(self.config, job.values.max_length)
        self._known: dict[tuple, Layers] = {}
        self._size: Size | None = None
        self._graphs = CountedGraphs()

    def size(self) -> Size:
        """Return the sizes of the run's model."""
        self._size = self._size or self._counted_size()
        return self._size

    def _counted_size(self) -> Size:
        # Quantisation changes what a parameter takes, and not how many there are.
        job = with_values(replace(self.job, quantization=None), checkpointing='none')
        model = add_meta_adapter(planned_meta_model(job, self.config, torch.bfloat16), job.model)
        numbers = [(p.numel(), p.requires_grad) for p in model.parameters()]
        return Size(
            parameters=sum(n for n, _ in numbers),
            trained=sum(n for n, trained in numbers if trained),
            largest=max(n for n, _ in numbers),
            experts=sum(p.numel() for p in expert_tensors(model)),
            layers=len(layers_of(model)),
            width=model.get_input_embeddings().weight.shape[1],
        )

    def counted(self, job: Job, room: float = 0) -> Prediction:
        """Return what a run takes of any device, from tensors without values; 'auto' recomputes as little as `room`."""
        job = shared(in_bf16(job))
        dtype = run_dtype(job.model, torch.device('cpu'))
        return self._predicted(job, room, partial(self._counted, dtype=dtype))

    def least(self) -> Prediction:
        """Return the least that the run takes of any device: with 'auto' every layer recomputes."""
        return self.counted(self.job)

    def measured(self, job: Job, device: torch.device, room: float) -> Prediction | None:
        """Return what a run takes of the GPU `device`, from real steps of slices; None: these do not fit."""
        job, dtype = shared(job), run_dtype(job.model, device)
        self._told(f'measuring steps of {_size_of(job)} on this GPU')
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
        all_of_them = slices(with_values(job, checkpointing='all')) if wanted not in ('none', 0) else None
        if wanted == 'all':
            return predict(job, all_of_them, len(all_of_them.order))
        if wanted == 'auto':
            least = predict(job, all_of_them, len(all_of_them.order))
            if least.peak + CONTEXT > room or not has_whole_model(job, 2) or job.strategy.sequence_parallel_size > 1:
                return least
        kept = slices(with_values(job, checkpointing='none'))
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
            self._told(f'counting steps of {_size_of(job)}, checkpointing={values.checkpointing}')
            offloads = values.checkpointing == 'offload'
            alike = with_values(job, checkpointing='all') if offloads else job
            found = self._counted(alike, dtype) if offloads else layers(alike, self.config, dtype, None, self._graphs)
            self._known[key] = found.waiting() if offloads else found
        return self._known[key]

    def first_fit(self, room: float) -> tuple[Variant, Prediction] | None:
        """Return the nearest run that needs at most `room` bytes with the context of CUDA; None: there is none."""
        for variant in nearest(self.job):
            found = self.counted(variant.job, room)
            if found.peak + CONTEXT <= room:
                return variant, found
        return None


def _size_of(job: Job) -> str:
    return f'{job.schedule.batch_size} x {job.values.max_length:,} tokens'


def room(card: float) -> float:
    """Return the bytes that a run can use of a card of `card` GB, which sells as GB what are GiB."""
    return USABLE * card * GIB
