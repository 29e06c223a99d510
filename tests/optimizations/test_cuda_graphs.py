"""Training with captured layers is identical to training without capture, for every shape and model.

Here, each replay calls the captured function again. The tests with `-m gpu` use real CUDA graphs.
"""

import gc
import weakref
from contextlib import nullcontext

import pytest
import torch
from peft import LoraConfig, get_peft_model
from training import make_trainer
from transformers import Gemma3ForCausalLM, Gemma3TextConfig, LlamaConfig, LlamaForCausalLM

from xtune.data.batches import MicroBatch
from xtune.engine.nan_report import NonFiniteStep
from xtune.engine.oom_retry import retry_on_oom
from xtune.ops.compilation import Compiled
from xtune.optimizations.activation_checkpointing import ActivationCheckpointing, CheckpointPolicy
from xtune.optimizations.cuda_graphs.launch_bound import STEPS
from xtune.optimizations.cuda_graphs.partition import ForwardTrace
from xtune.optimizations.cuda_graphs.pytree import UnsupportedArgument, signature_of
from xtune.optimizations.cuda_graphs.runner import MAX_SHAPES, CudaGraphRunner, can_capture
from xtune.optimizations.cuda_graphs.wrap_step import capture_when_launch_bound
from xtune.optimizations.layer_call import call_layer, checkpoint_layer
from xtune.optimizations.master_weights import MasterWeights
from xtune.tasks.lm_head import find_lm_head
from xtune.tasks.sft import SupervisedFineTuning

pytestmark = pytest.mark.integration

CPU = torch.device('cpu')
SIZES = dict(vocab_size=50, hidden_size=32, intermediate_size=64, num_attention_heads=4, num_key_value_heads=2)


class FakeCapture:
    """Calls the function again at each replay, and counts captures and replays."""

    def __init__(self):
        self.captured = self.replayed = 0
        self.segments = []

    def warmup(self, strict):
        return nullcontext()

    def scratch_bytes(self):
        return 2**30

    def new_pool(self):
        pass

    def __call__(self, function):
        outputs = function()
        self.captured += 1
        self.segments.append(weakref.ref(function.__self__))

        def replay():
            self.replayed += 1
            with torch.enable_grad():
                new_outputs = function()
            for output, new in zip(outputs, new_outputs, strict=True):
                if output is not None:
                    output.data.copy_(new)

        return outputs, replay


class RunnerWithFixedWaitShare(CudaGraphRunner):
    """Uses this wait share for every step, independent of the load of the machine."""

    wait_share = 0.0

    def end_step(self, wait_share):
        assert 0 <= wait_share <= 2
        super().end_step(self.wait_share)


def llama(layers=3, **options):
    return LlamaForCausalLM(LlamaConfig(**SIZES, num_hidden_layers=layers, **options))


def gemma():
    layer_types = ['sliding_attention', 'sliding_attention', 'full_attention', 'sliding_attention']
    sizes = SIZES | dict(head_dim=8, sliding_window=8)
    return Gemma3ForCausalLM(Gemma3TextConfig(**sizes, num_hidden_layers=4, layer_types=layer_types))


def batch(seq_len=16, batch_size=2):
    return MicroBatch.unpacked(*(torch.randint(1, 50, (batch_size, seq_len)) for _ in range(2)))


class Training:
    """A tiny model in training, with or without graphs."""

    def __init__(self, capture=None, make=llama, lora=True, can_capture=lambda _: True):
        torch.manual_seed(0)
        llm = make().train()
        if lora:
            llm.requires_grad_(False)
            llm = get_peft_model(llm, LoraConfig(r=4, lora_dropout=0.1, target_modules='all-linear'))
        self.layers = ActivationCheckpointing(llm)
        self.layers.apply(CheckpointPolicy(0))
        master_weights = MasterWeights(llm, torch.bfloat16)
        llm.to(torch.bfloat16)
        self.graphs = RunnerWithFixedWaitShare(self.layers, CPU, capture, can_capture) if capture else None
        self.task = SupervisedFineTuning(
            llm, torch.bfloat16, master_weights=master_weights, lm_head=find_lm_head(llm), graphs=self.graphs
        )
        self.parameters = list(self.task.trained_parameters().values())
        wrappers = [self.break_step, retry_on_oom(self.layers, self.graphs)]
        if self.graphs is not None:
            wrappers.append(capture_when_launch_bound(self.graphs))
        self.trainer = make_trainer(self.task, torch.optim.AdamW(self.parameters, lr=1e-2), wrappers=wrappers)
        self.random = torch.manual_seed(1).get_state()

    def step(self, *seq_lens):
        torch.set_rng_state(self.random)
        out = self.trainer.train_step([batch(seq_len) for seq_len in seq_lens])
        self.random = torch.get_rng_state()
        return out.loss, out.grad_norm

    def break_step(self, trainer):
        """Run `self.after` at the end of each forward and backward pass, inside of the retry."""
        self.after, forward_backward = lambda: None, trainer.forward_backward

        def broken(*arguments):
            loss = forward_backward(*arguments)
            self.after()
            return loss

        trainer.forward_backward = broken


def same_weights(plain, graphed):
    return all(torch.equal(a, b) for a, b in zip(plain.parameters, graphed.parameters, strict=True))


@pytest.mark.parametrize('lora', [True, False])
@pytest.mark.parametrize(('make', 'segments'), [(llama, 1), (gemma, 3)])
def test_training_is_identical(make, segments, lora):
    capture = FakeCapture()
    plain, graphed = Training(None, make, lora), Training(capture, make, lora)
    for _ in range(STEPS + 4):
        assert plain.step(16, 16) == graphed.step(16, 16)
    assert same_weights(plain, graphed)
    # a forward and a backward pass of each segment, in the two micro-batches of each of three steps
    assert (capture.captured, capture.replayed) == (2 * segments, 2 * segments * 2 * 3)


def test_each_shape_has_its_own_graphs_up_to_a_limit():
    plain, graphed = Training(), Training(FakeCapture())
    for _ in range(STEPS + 3):
        assert plain.step(16, 24) == graphed.step(16, 24)
    assert len(graphed.graphs) == 2 and same_weights(plain, graphed)
    for _ in range(STEPS + 1):
        graphed.step(*range(2, 2 + MAX_SHAPES))  # all in one step
    assert len(graphed.graphs) == MAX_SHAPES
    for seq_len in range(2, 2 + MAX_SHAPES):
        for _ in range(STEPS + 1):
            graphed.step(seq_len)
    assert len(graphed.graphs) == MAX_SHAPES


def test_steps_that_are_not_launch_bound_are_not_captured():
    capture = FakeCapture()
    graphed = Training(capture)
    graphed.graphs.wait_share = 0.1
    for _ in range(STEPS + 3):
        graphed.step(16)
    assert not capture.captured


def test_a_second_forward_pass_before_the_backward_pass_leaves_the_first_alone():
    capture = FakeCapture()
    plain, graphed = Training(), Training(capture)
    for _ in range(STEPS + 2):
        assert plain.step(16) == graphed.step(16)
    for training in (plain, graphed):
        replayed = capture.replayed
        torch.set_rng_state(training.random)
        with training.graphs.training_step() if training.graphs else nullcontext():
            losses = [training.task(batch(16)) for _ in range(2)]
            sum(losses).backward()
    assert capture.replayed == replayed + 2
    pairs = zip(plain.parameters, graphed.parameters, strict=True)
    assert all(torch.allclose(a.grad, b.grad, rtol=1e-2, atol=1e-4) for a, b in pairs)


def test_a_change_of_checkpointing_captures_again():
    capture = FakeCapture()
    plain, graphed = Training(), Training(capture)
    for count in (0, 2):
        for training in (plain, graphed):
            training.layers.apply(CheckpointPolicy(count))
        for _ in range(STEPS + 2):
            assert plain.step(16) == graphed.step(16)
    assert capture.captured == 4 and same_weights(plain, graphed)


def test_a_failed_capture_continues_without_graphs(capsys):
    class Fails(FakeCapture):
        def __call__(self, function):
            function()
            raise RuntimeError('operation not permitted when stream is capturing\nmore')

    plain, graphed = Training(), Training(Fails())
    for _ in range(STEPS + 3):
        assert plain.step(16) == graphed.step(16)
    assert same_weights(plain, graphed) and not len(graphed.graphs)
    assert capsys.readouterr().out.count('(operation not permitted when stream is') == 1


def test_nothing_is_captured_after_a_failed_capture(capsys):
    class Fails(FakeCapture):
        def __call__(self, function):
            self.captured += 1
            raise torch.OutOfMemoryError('CUDA out of memory')

    capture = Fails()
    graphed = Training(capture)
    for _ in range(STEPS + 2):
        graphed.step(16, 24)
    assert capture.captured == 1 and not graphed.graphs.scratch_bytes
    assert 'CUDA out of memory' in capsys.readouterr().out


def test_checkpointed_layers_are_not_captured():
    plain = Compiled(call_layer)
    assert can_capture(plain)
    assert not can_capture(Compiled(checkpoint_layer)) and not can_capture(call_layer)
    plain.failed = True
    assert not can_capture(plain)
    capture = FakeCapture()
    graphed = Training(capture, can_capture=lambda layer_call: layer_call is not checkpoint_layer)
    graphed.layers.apply(CheckpointPolicy(1))
    for _ in range(STEPS + 2):
        graphed.step(16)
    assert not capture.captured


def test_out_of_memory_releases_the_graphs_first(capsys):
    capture = FakeCapture()
    plain, graphed = Training(), Training(capture)
    for _ in range(STEPS + 2):
        assert plain.step(16) == graphed.step(16)
    assert len(graphed.graphs)

    def fail():
        gc.collect()
        if any(segment() is not None for segment in capture.segments):  # the memory of graphs is free once all are gone
            raise torch.OutOfMemoryError('CUDA out of memory')

    graphed.after = fail
    assert plain.step(16) == graphed.step(16)
    assert not len(graphed.graphs) and graphed.layers.num_plain == 3 and same_weights(plain, graphed)
    assert 'CUDA graphs' in capsys.readouterr().out


def test_validation_and_samples_get_the_memory(monkeypatch):
    graphed = Training(FakeCapture())
    for _ in range(STEPS + 2):
        graphed.step(16)
    with graphed.task.generation_mode():
        assert not len(graphed.graphs) and not graphed.graphs.scratch_bytes
    for _ in range(STEPS + 2):
        graphed.step(16)
    assert len(graphed.graphs)
    graphed.task.llm.eval()
    forward = graphed.task.forward

    def fail(batch):
        if len(graphed.graphs):
            raise torch.OutOfMemoryError('CUDA out of memory')
        return forward(batch)

    monkeypatch.setattr(graphed.task, 'forward', fail)
    data = [batch(16)]
    assert graphed.task.val_step(data)[0] == pytest.approx(forward(data[0]).item(), 1e-5) and not len(graphed.graphs)


def test_layers_before_the_first_trained_one_are_captured_too():
    capture = FakeCapture()
    trainings = [Training(None, gemma, lora=False), Training(capture, gemma, lora=False)]
    for training in trainings:
        for layer in training.layers.layers[:2]:
            layer.requires_grad_(False)
        training.task.llm.get_input_embeddings().weight.requires_grad_(False)
    for _ in range(STEPS + 3):
        assert len({training.step(16) for training in trainings}) == 1
    # forward: two frozen layers of one type, one of the other, one of the first; backward: the latter two
    assert capture.captured == 5


def test_a_nan_is_found_in_its_module():
    graphed = Training(FakeCapture())
    for _ in range(STEPS + 2):
        graphed.step(16)
    assert len(graphed.graphs)
    weight = graphed.layers.layers[1].mlp.up_proj.base_layer.weight
    weight.data[0, 0] = float('nan')
    with pytest.raises(NonFiniteStep) as found:
        graphed.step(16)
    assert 'layers.1.mlp.up_proj' in found.value.where


def test_hooks_of_layers_are_called():
    graphed = Training(FakeCapture())
    for _ in range(STEPS + 2):
        graphed.step(16)
    seen = []
    graphed.layers.layers[1].register_forward_hook(lambda *_: seen.append(1))
    graphed.step(16)
    assert seen == [1]


def test_only_layers_that_pass_hidden_states_on_are_captured():
    layers = llama().model.layers

    def segments(first, second, output):
        trace = ForwardTrace(list(layers[:2]))
        trace.add(layers[0], ((first,), {}), output)
        trace.add(layers[1], ((second,), dict(mask=None)), output)
        return trace.segments()

    x, y = torch.ones(2, requires_grad=True), torch.ones(2)
    for layer in layers:
        layer.layer_call = None
    assert len(segments(x, y, y)) == 1
    assert segments(x, y + 1, y) is None  # something is computed between the layers
    assert segments(x, (y,), (y,)) is None


def test_signatures_differ_by_shapes_and_plain_values_only():
    assert signature_of((torch.ones(2), dict(a=1, b=[None, 'x']))) == signature_of(
        (torch.zeros(2), dict(b=[None, 'x'], a=1))
    )
    assert signature_of((1,)) != signature_of((True,)) and signature_of(torch.ones(2)) != signature_of(torch.ones(3))
    with pytest.raises(UnsupportedArgument, match='object'):
        signature_of((torch.ones(2), dict(cache=object())))
