"""activation_checkpointing='auto': the profile of the layers, the choice, and identical training."""

import weakref

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import Gemma3ForCausalLM, Gemma3TextConfig, LlamaConfig, LlamaForCausalLM

from xtune.data.batches import MicroBatch
from xtune.engine.activation_profiler import ActivationProfile, profile_activations
from xtune.engine.auto_checkpointing import checkpoint_fewest_layers, fewest_checkpointed, peak, state_bytes
from xtune.optimizations.activation_checkpointing import ActivationCheckpointing, CheckpointPolicy
from xtune.optimizations.master_weights import MasterWeights
from xtune.tasks.sft import SupervisedFineTuning

pytestmark = pytest.mark.integration


@pytest.mark.parametrize(
    ('costs', 'limit', 'count'),
    [
        ([10, 10, 10, 10], 145, 0),  # 115 with the last, 10 for each other
        ([10, 10, 10, 10], 144, 1),
        ([10, 10, 10, 10], 125, 2),
        ([10, 10, 10, 10], 115, 3),
        ([10, 10, 10, 10], 114, 4),
        ([30, 1, 30, 1], 176, 0),
        ([30, 1, 30, 1], 175, 1),
        ([30, 1, 30, 1], 145, 2),
        ([30, 1, 30, 1], 144, 3),
        ([10], 115, 0),
        ([10, 10], 0, 2),
        ([10, 10], -5, 2),
    ],
)
def test_fewest_layers_that_fit_are_checkpointed(costs, limit, count):
    profile = ActivationProfile(costs, peak_all_checkpointed=110, peak_last_plain=115)
    assert fewest_checkpointed(profile, limit) == count
    assert peak(profile, count) <= limit or count == len(costs)
    assert count == 0 or peak(profile, count - 1) > limit


def test_optimizer_state_bytes():
    parameters = [torch.nn.Parameter(torch.zeros(3, 4)), torch.nn.Parameter(torch.zeros(5))]
    paged_8bit = type('PagedAdamW8bit', (), {'__module__': 'bitsandbytes.optim.adamw'})
    assert state_bytes(torch.optim.AdamW, parameters) == 17 * 8
    assert state_bytes(paged_8bit, parameters) == 17 * 3


class LiveBytes(TorchDispatchMode):
    """A memory meter on the CPU: the bytes of all live storages that were created in its context."""

    def __init__(self, limit=0):
        super().__init__()
        self.live = self.max_live = 0
        self.max_allowed, self._counted = limit, weakref.WeakSet()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        outputs = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(outputs):
            storage = tensor.untyped_storage() if isinstance(tensor, torch.Tensor) else None
            if storage is not None and storage not in self._counted:
                self._counted.add(storage)
                self.live += storage.nbytes()
                self.max_live = max(self.max_live, self.live)
                weakref.finalize(storage, self._freed, storage.nbytes())
        return outputs

    def _freed(self, size):
        self.live -= size

    def allocated(self):
        return self.live

    def peak(self):
        return self.max_live

    def forget_peak(self):
        self.max_live = self.live

    def limit(self):
        return self.max_allowed


def batch(vocabulary, batch_size=2, seq_len=64):
    torch.manual_seed(1)
    ids = torch.randint(vocabulary, (batch_size, seq_len))
    return MicroBatch.unpacked(ids, ids)


def llama(layers=4, **options):
    torch.manual_seed(0)
    sizes = dict(hidden_size=32, intermediate_size=64, num_attention_heads=4, num_key_value_heads=2, vocab_size=50)
    return LlamaForCausalLM(LlamaConfig(**sizes, num_hidden_layers=layers, **options))


def gemma3_with_sliding_window():
    torch.manual_seed(0)
    sizes = dict(hidden_size=32, intermediate_size=64, num_attention_heads=4, num_key_value_heads=2, vocab_size=50)
    layer_types = ['sliding_attention', 'full_attention'] * 2
    return Gemma3ForCausalLM(Gemma3TextConfig(**sizes, num_hidden_layers=4, layer_types=layer_types, head_dim=8))


def measured_peak(task, layers, count, micro_batch):
    """Return the peak bytes of the second micro-batch of a step."""
    layers.apply(CheckpointPolicy(count))
    task.train()
    meter = LiveBytes()
    with meter:
        task(micro_batch).backward()
        meter.forget_peak()
        task(micro_batch).backward()
        peak_bytes = meter.peak()
    task.drop_gradients()
    return peak_bytes


@pytest.mark.parametrize('model', [llama, gemma3_with_sliding_window])
def test_peak_follows_from_the_cost_of_one_layer(model):
    task = SupervisedFineTuning(model(), torch.float32)
    layers, micro_batch, meter = ActivationCheckpointing(task.llm), batch(50), LiveBytes()
    with meter:
        profile = profile_activations(task, layers, micro_batch, meter)
    assert all(p.grad is None for p in task.parameters()) and layers.num_plain == 0
    assert min(profile.costs) > 2 * micro_batch.input_ids.numel() * 32 * 4  # more than its input and its output
    for count in (0, 2, len(layers) - 1, len(layers)):
        # Both include the gradients.
        assert measured_peak(task, layers, count, micro_batch) == pytest.approx(peak(profile, count), rel=0.02)


def test_layer_cost_equals_its_tensors_saved_for_backward():
    task = SupervisedFineTuning(llama(), torch.float32)
    layers, micro_batch, meter = ActivationCheckpointing(task.llm), batch(50), LiveBytes()
    with meter:
        profile = profile_activations(task, layers, micro_batch, meter)
    packed = {}

    def pack(tensor):
        packed[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    weights = {p.untyped_storage().data_ptr() for p in task.parameters()}
    layer, hidden = layers.layers[2], torch.randn(2, 64, 32, requires_grad=True)
    task.train()
    layers.apply(CheckpointPolicy(0))
    position_embeddings = task.llm.model.rotary_emb(hidden, torch.arange(64)[None])
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = layer(hidden, attention_mask=None, position_embeddings=position_embeddings)
    not_counted = weights | {t.untyped_storage().data_ptr() for t in (hidden, output, *position_embeddings)}
    saved = sum(t.untyped_storage().nbytes() for pointer, t in packed.items() if pointer not in not_counted)
    assert profile.costs[2] == pytest.approx(saved, rel=0.02)


def test_different_layers_have_different_costs():
    task = SupervisedFineTuning(llama(), torch.float32)
    del task.llm.model.layers[1].mlp.act_fn
    task.llm.model.layers[1].mlp.act_fn = torch.nn.Sequential(torch.nn.SiLU(), torch.nn.Tanh(), torch.nn.Tanh())
    layers, meter = ActivationCheckpointing(task.llm), LiveBytes()
    with meter:
        costs = profile_activations(task, layers, batch(50), meter).costs
    assert costs[1] > costs[0] == costs[2] == costs[3]


@pytest.mark.parametrize('fits', ['all', 'some', 'none', 'nothing'])
def test_auto_only_changes_the_number_of_checkpointed_layers(fits):
    def step(apply_policy):
        llm = llama(attention_dropout=0.2)
        task = SupervisedFineTuning(llm, torch.bfloat16, master_weights=MasterWeights(llm, torch.bfloat16))
        layers, micro_batch = ActivationCheckpointing(task.llm), batch(50)
        torch.manual_seed(5)
        count = apply_policy(task, layers, micro_batch)
        task.train()
        loss = task(micro_batch)
        loss.backward()
        return count, [loss, *(p.grad for p in task.trained_parameters().values())]

    lines = []

    def auto(task, layers, micro_batch):
        meter = LiveBytes()
        with meter:
            profile = profile_activations(task, layers, micro_batch, meter)
            meter.max_allowed = (
                1000
                + {
                    'all': peak(profile, 0),
                    'some': peak(profile, 2),
                    'none': peak(profile, 3) - 1,
                    'nothing': -(2**40),
                }[fits]
            )
            lines.append(checkpoint_fewest_layers(task, layers, micro_batch, meter, state=1000))
        return layers.num_checkpointed

    def same_number(task, layers, micro_batch):
        layers.apply(CheckpointPolicy(count))
        return count

    count, tensors = step(auto)
    assert count == {'all': 0, 'some': 2, 'none': 4, 'nothing': 4}[fits]
    assert f'checkpointing in {count} of 4 layers; without: 0.00 GiB a layer' in lines[0]
    assert all(torch.equal(a, b) for a, b in zip(tensors, step(same_number)[1], strict=True))


def test_out_of_memory_during_profiling_is_not_an_error():
    task = SupervisedFineTuning(llama().eval(), torch.float32)
    layers, meter = ActivationCheckpointing(task.llm), LiveBytes(2**40)

    def refuse(*_):
        if layers.num_plain or layers.layers[-1].layer_call.__name__ == 'metered':
            raise torch.OutOfMemoryError('CUDA out of memory.')

    handle = layers.layers[0].register_forward_hook(refuse)
    assert (
        'no memory' in checkpoint_fewest_layers(task, layers, batch(50), meter, 0)
        and layers.num_plain == 0
        and not task.llm.training
    )
    handle.remove()
    task.train()
    task(batch(50)).backward()


def test_summary_has_the_number_of_checkpointed_layers(make_config, xtune):
    code, out, err = xtune('train', make_config(), '--cfg-options', 'schedule.max_steps=1')
    assert code == 0, err
    assert 'activation checkpointing in 2 of 2 layers (auto' in out


def test_resumed_run_may_checkpoint_other_layers(make_config, xtune, tmp_path):
    options = {'lora.lora_dropout': 0.0}
    assert xtune('train', make_config(name='uninterrupted', activation_checkpointing='none', **options))[0] == 0
    config = make_config(name='resumed', activation_checkpointing='offload', **options)
    code, out, err = xtune('train', config, '--resume', tmp_path / 'uninterrupted' / 'epoch_1.pth')
    assert code == 0 and 'nothing to offload' in out, err
    lines = [(tmp_path / name / 'metrics.jsonl').read_text().splitlines() for name in ('uninterrupted', 'resumed')]
    losses = [{line.split('"epoch"')[0]: line.split('"loss": ')[1].split(',')[0] for line in rows} for rows in lines]
    assert losses[1] and losses[1].items() <= losses[0].items()


def test_more_layers_than_the_model_has_are_refused_before_data_are_read(make_config, xtune, tmp_path):
    code, out, err = xtune('train', make_config(activation_checkpointing=99))
    assert code == 2 and 'activation_checkpointing=99' in err and 'data' not in out
    assert not (tmp_path / 'run').exists() or not any((tmp_path / 'run').iterdir())
