"""Extrapolate from partial models to the full model: per phase of a step, a baseline that grows with layers and a peak.

The bytes allocated after each phase grow by the same amount with each layer of a type: the difference of two partial
models. The peak of a phase above that baseline is the work of one layer, or of the embedding and the lm_head, and does
not grow with the number of layers. The optimizer step is the exception: its peak is extrapolated by differences too.
"""

from dataclasses import dataclass, replace

from .partial_model import LayerType
from .partial_run import PartialRun


@dataclass(frozen=True)
class StepMemory:
    """Bytes of a step, or of one more layer: allocated between steps, allocated after each phase, peak of each phase.

    `seconds` are those of one micro-batch, and of the rest of an optimizer step; None: not timed.
    """

    between_steps: float
    allocated: dict[str, float]
    peak: dict[str, float]
    seconds: tuple[float, float] | None

    @classmethod
    def of(cls, run: PartialRun) -> 'StepMemory':
        """Return the memory of a partial model."""
        phases = run.phases.items()
        allocated, peak = {k: v.allocated for k, v in phases}, {k: v.peak for k, v in phases}
        return cls(run.between_steps, allocated, peak, run.seconds)

    def plus(self, other: 'StepMemory', times: float) -> 'StepMemory':
        """Return the sum of this and `times` the other."""
        seconds = None
        if self.seconds is not None:
            seconds = tuple(a + times * b for a, b in zip(self.seconds, other.seconds, strict=True))
        return StepMemory(
            self.between_steps + times * other.between_steps,
            {name: value + times * other.allocated[name] for name, value in self.allocated.items()},
            {name: value + times * other.peak[name] for name, value in self.peak.items()},
            seconds,
        )


@dataclass(frozen=True)
class LayerCosts:
    """The run of the smallest partial model, which has one layer of each type, and the cost of one more layer.

    Args:
        base: The run of the smallest partial model.
        per_layer: The cost of one more layer of each type that the model has several of.
        types: The type of each layer of the full model, in order.
        workspace: Bytes that libraries allocate once.
        in_transit: Bytes of layer inputs that are copied to or from host memory while layers compute.
    """

    base: PartialRun
    per_layer: dict[LayerType, StepMemory]
    types: list[LayerType]
    workspace: int
    in_transit: int = 0

    def full_model(self) -> StepMemory:
        """Return the memory of the full model."""
        memory = StepMemory.of(self.base)
        for layer_type, cost in self.per_layer.items():
            memory = memory.plus(cost, self.types.count(layer_type) - 1)
        peak = {}
        for name, phase in self.base.phases.items():
            baseline = self._baseline(name)
            # Above its baseline a peak does not grow with the layers; only that of the optimizer step does.
            peak[name] = memory.peak[name] if baseline is None else phase.peak - self.base.phases[baseline].allocated
            peak[name] += 0 if baseline is None else memory.allocated[baseline]
            peak[name] += self.in_transit if name.startswith(('forward', 'loss', 'backward')) else 0
        return replace(memory, peak=peak)

    def _baseline(self, name: str) -> str | None:
        """Return the phase whose memory after it is the baseline of the peak of phase `name`."""
        phase, _, number = name.partition(' ')
        if phase in ('loss', 'backward'):
            loss = f'loss {number}'
            return loss if phase == 'backward' and loss in self.base.phases else f'forward {number}'
        if phase == 'embedding':
            return f'backward {number}'
        return name if phase == 'forward' else None

    def first_layer_peak(self, memory: StepMemory) -> float:
        """Return the peak of the first layer's backward pass in the first micro-batch, when all gradients exist.

        The work of the layer is taken from the second micro-batch, which allocates no new gradients. The copy of a
        layer input overlaps with the work of one layer earlier, before the gradients of this layer exist.
        """
        work, cost = self.base.phases['backward 1'], self.per_layer.get(self.types[0])
        peak = memory.allocated['backward 0'] + work.peak - work.allocated
        gradients = cost.allocated['backward 0'] - cost.between_steps if cost else 0
        return peak + max(self.in_transit - gradients, 0)

    def with_offloaded_inputs(self) -> 'LayerCosts':
        """Return the costs with layer inputs in host memory, but for two: one on its way out, one on its way back."""
        per_layer, inputs = {}, [0.0]
        for layer_type, cost in self.per_layer.items():
            layer_input = cost.allocated['forward 0'] - cost.between_steps
            inputs.append(layer_input)
            phases = [name for name in cost.allocated if name.startswith(('forward', 'loss'))]
            allocated = cost.allocated | {name: cost.allocated[name] - layer_input for name in phases}
            peak = cost.peak | {name: cost.peak[name] - layer_input for name in phases}
            per_layer[layer_type] = replace(cost, allocated=allocated, peak=peak)
        return replace(self, per_layer=per_layer, in_transit=round(min(2, len(self.types) - 1) * max(inputs)))


@dataclass(frozen=True)
class PartialCheckpointing:
    """Layer costs with and without activation checkpointing, for runs that checkpoint only some layers."""

    checkpointed: LayerCosts
    kept: LayerCosts

    def activation_bytes(self) -> list[float]:
        """Return for each layer the additional bytes of activations without checkpointing."""
        name = 'forward 0'
        bytes_of = {
            layer_type: cost.allocated[name] - self.checkpointed.per_layer[layer_type].allocated[name]
            for layer_type, cost in self.kept.per_layer.items()
        }
        # A type with a single layer has no difference of partial models: such types share the rest of the base.
        single = [layer_type for layer_type in self.kept.types if layer_type not in bytes_of]
        rest = self.kept.base.phases[name].allocated - self.checkpointed.base.phases[name].allocated
        bytes_of.update(dict.fromkeys(single, (rest - sum(bytes_of.values())) / max(len(single), 1)))
        return [bytes_of[layer_type] for layer_type in self.kept.types]

    def full_model(self, num_checkpointed: int) -> StepMemory:
        """Return the memory of the full model with activation checkpointing in the first `num_checkpointed` layers."""
        checkpointed, kept = self.checkpointed.full_model(), self.kept.full_model()
        if not 0 < num_checkpointed < len(self.kept.types):
            return checkpointed if num_checkpointed else kept
        added, share = sum(self.activation_bytes()[num_checkpointed:]), num_checkpointed / len(self.kept.types)
        allocated, peak = dict(checkpointed.allocated), dict(checkpointed.peak)
        for number in '01':
            forward, backward = f'forward {number}', f'backward {number}'
            for name in (forward, f'loss {number}'):
                if name in allocated:
                    allocated[name] += added
                    peak[name] += added
            # The last layers are not checkpointed: the backward pass frees their activations before it reaches the
            # checkpointed layers.
            without = allocated[forward] + kept.peak[backward] - kept.allocated[forward]
            peak[backward] = max(without, peak[backward])
        seconds = checkpointed.seconds
        if seconds is not None:
            pairs = zip(checkpointed.seconds, kept.seconds, strict=True)
            seconds = tuple(share * slow + (1 - share) * fast for slow, fast in pairs)
        return StepMemory(checkpointed.between_steps, allocated, peak, seconds)
