"""Runs decoder layers as CUDA graphs in launch-bound steps.

A step of a 1.5B model launches ten thousand kernels one by one, which takes Python 0.1 to 0.2 s. Where the GPU finishes
sooner, the layers are captured once for each shape of a micro-batch, and replayed from then on. Consecutive layers that
take the same tensors besides the hidden states are one segment: the call of its first layer returns the output of its
last one, and the other layers pass that on.
"""

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from ...compat.torch_private import has_hooks
from ...ops.compilation import Compiled
from ...utils.device import random_numbers
from ..activation_checkpointing import ActivationCheckpointing
from ..layer_call import LayerCall, call_layer
from .launch_bound import LaunchBoundDetector
from .partition import ForwardTrace, capture_all
from .pytree import UnsupportedArgument, distinct_tensors, signature_of
from .segment import GraphCapture, Segment

# Largest number of captured shapes.
MAX_SHAPES = 8
# Largest total of the trained weights' gradients in bytes; each shape has its own. One shape may take more.
MAX_GRADIENT_BYTES = 2 * 2**30


def can_capture(layer_call: LayerCall) -> bool:
    """Return whether layers with this `layer_call` can be captured: compiled ones without activation checkpointing.

    Checkpointing reads the state of the random number generator, which a graph cannot.
    """
    return isinstance(layer_call, Compiled) and layer_call.eager is call_layer and not layer_call.failed


class CudaGraphRunner:
    """Runs the layers of a model in training, as CUDA graphs where that is faster.

    Args:
        checkpointing: The decoder layers. Graphs are released when their checkpointing changes.
        device: The device they compute on.
        capture: Captures functions.
        can_capture: Tells whether layers with this `layer_call` can be captured.

    Attributes:
        scratch_bytes: Memory of the graphs besides their tensors, of which the allocator does not tell.
        announced: The user has been told that layers run as graphs; set it where no run continues from here.
    """

    def __init__(
        self,
        checkpointing: ActivationCheckpointing,
        device: torch.device,
        capture: GraphCapture,
        can_capture: Callable[[LayerCall], bool] = can_capture,
    ) -> None:
        self._layers, self._device, self._capture = checkpointing.layers, device, capture
        self._can_capture = can_capture
        self._index = {id(layer): index for index, layer in enumerate(self._layers)}
        self._modules = [module for layer in self._layers for module in layer.modules()]
        # By signature of a micro-batch, then by index of the first layer; empty: the capture failed.
        self._captured: dict[Hashable, dict[int, Segment]] = {}
        self._to_capture: dict[Hashable, list[Segment] | None] = {}  # after this step
        self._detector = LaunchBoundDetector()  # of signatures that are not captured
        self._signature: Hashable = None
        self._replaying: dict[int, Segment] = {}
        self._trace: ForwardTrace | None = None
        self._hidden: torch.Tensor | None = None
        self._in_step = self._disabled = self.announced = False
        self.scratch_bytes = 0
        checkpointing.on_change(self.release)
        for layer in self._layers:
            layer.runner = self

    def __len__(self) -> int:
        """Return the number of captured shapes."""
        return sum(map(bool, self._captured.values()))

    @contextmanager
    def training_step(self) -> Iterator[None]:
        """Return a context for an optimizer step, in which layers may run as graphs."""
        self._in_step = not self._disabled
        self._detector.begin_step()
        self._clear_pending_backward()
        try:
            yield
        finally:
            self._in_step, self._replaying, self._trace, self._hidden = False, {}, None, None

    def call(self, layer: torch.nn.Module, forward: Callable, args: tuple, kwargs: dict) -> Any:
        """Return the output of `layer`; `forward` calls it without its `layer_call`."""
        if not self._in_step:
            return layer.layer_call(forward, *args, **kwargs)
        index = self._index[id(layer)]
        if index == 0:
            self._begin_micro_batch((args, kwargs))
        if self._replaying:
            if index in self._replaying:
                self._hidden = self._replaying[index]((args, kwargs))
            return self._hidden
        output = layer.layer_call(forward, *args, **kwargs)
        if self._trace is not None:
            self._trace.add(forward, (args, kwargs), output)
            if index == len(self._layers) - 1:
                self._to_capture[self._signature], self._trace = self._trace.segments(), None
        return output

    def end_step(self, wait_share: float) -> None:
        """Capture the layers for the shapes of the last step, as far as it was launch-bound.

        Args:
            wait_share: How long the process waited for the GPU at the end of the step, as a share of a micro-batch's
                time. The process runs ahead of the GPU by less than one micro-batch.
        """
        self._detector.end_step(wait_share)
        to_capture, self._to_capture = self._to_capture, {}
        for signature, segments in to_capture.items():
            if self._disabled:
                break
            self._captured[signature] = self._capture_segments(segments or [])
            if not self._captured.get(signature):
                continue
            # Only one shape is replayed at a time.
            self.scratch_bytes = max(self.scratch_bytes, self._capture.scratch_bytes())
            if not self.announced:
                self.announced = True
                print('note: training is launch-bound; decoder layers now run as CUDA graphs', flush=True)

    def release(self) -> bool:
        """Release all graphs, because layers are called in another way or memory is needed; return whether there were
        any. They may be captured again."""
        had_graphs = len(self) > 0
        self._captured, self._to_capture, self.scratch_bytes = {}, {}, 0
        self._replaying, self._trace, self._hidden = {}, None, None  # a step that failed may be under way
        self._detector = LaunchBoundDetector()
        self._capture.new_pool()
        return had_graphs

    def disable(self) -> bool:
        """Release all graphs and capture no more; return whether there were any."""
        self._disabled = True
        return self.release()

    def _begin_micro_batch(self, arguments: tuple[tuple, dict]) -> None:
        """Decide from the first layer's arguments whether to replay, to trace for a capture, or neither."""
        self._replaying, self._trace = {}, None
        if any(segment.backward_pending for segment in self._segments()):
            return  # it needs the memory that a replay would overwrite
        if any(map(has_hooks, self._modules)):
            return
        try:
            self._signature = signature_of(arguments), len(distinct_tensors(arguments))
        except UnsupportedArgument:
            return
        if self._signature in self._captured:
            self._replaying = self._captured[self._signature]
            return
        self._detector.add_micro_batch(self._signature)
        if not self._detector.is_launch_bound(self._signature):
            return
        signatures = self._captured.keys() | self._to_capture.keys() | {self._signature}
        if len(signatures) <= self._max_shapes() and all(self._can_capture(layer.layer_call) for layer in self._layers):
            self._trace = ForwardTrace(self._layers)

    def _clear_pending_backward(self) -> None:
        """Forget backward passes that a failed step did not run. Not part of `training_step`, whose generator would
        keep a reference to a segment through the step."""
        for segment in self._segments():
            segment.backward_pending = False

    def _segments(self) -> Iterator[Segment]:
        return (segment for segments in self._captured.values() for segment in segments.values())

    def _max_shapes(self) -> int:
        trained_bytes = sum(p.nbytes for layer in self._layers for p in layer.parameters() if p.requires_grad)
        return max(1, min(MAX_SHAPES, MAX_GRADIENT_BYTES // max(trained_bytes, 1)))

    def _capture_segments(self, segments: list[Segment]) -> dict[int, Segment]:
        restore_random_state = random_numbers(self._device)  # warm-up calls draw random numbers
        try:
            capture_all(segments, self._capture)
        except RuntimeError as error:  # out of memory is one
            self.disable()
            reason = str(error).strip().partition('\n')[0]
            print(f'note: CUDA graph capture failed ({reason[:200]}); continuing without CUDA graphs', flush=True)
            return {}
        finally:
            restore_random_state()
        return {segment.first: segment for segment in segments}
