"""activation_checkpointing=auto: the profile of the layers, the choice, and the same training."""

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
def test_the_fewest_layers_recompute_that_fit(costs, limit, count):
    profile = ActivationProfile(costs, peak_all_checkpointed=110, peak_last_plain=115)
    assert fewest_checkpointed(profile, limit) == count
    assert peak(profile, count) <= limit or count == len(costs)
    assert count == 0 or peak(profile, count - 1) > limit


def test_state_of_optimizers():
    parameters = [torch.nn.Parameter(torch.zeros(3, 4)), torch.nn.Parameter(torch.zeros(5))]
    kind = type('PagedAdamW8bit', (), {'__module__': 'bitsandbytes.optim.adamw'})
    assert state_bytes(torch.optim.AdamW, parameters) == 17 * 8
    assert state_bytes(kind, parameters) == 17 * 3


class LiveBytes(TorchDispatchMode):
    """A meter of memory on the CPU: bytes of all storages made under it that live."""

    def __init__(self, limit=0):
        super().__init__()
        self.now = self.most = 0
        self.most_allowed, self._known = limit, weakref.WeakSet()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            storage = tensor.untyped_storage() if isinstance(tensor, torch.Tensor) else None
            if storage is not None and storage not in self._known:
                self._known.add(storage)
                self.now += storage.nbytes()
                self.most = max(self.most, self.now)
                weakref.finalize(storage, self._freed, storage.nbytes())
        return made

    def _freed(self, size):
        self.now -= size

    def allocated(self):
        return self.now

    def peak(self):
        return self.most

    def forget_peak(self):
        self.most = self.now

    def limit(self):
        return self.most_allowed


def batch(vocabulary, rows=2, width=64):
    torch.manual_seed(1)
    ids = torch.randint(vocabulary, (rows, width))
    return MicroBatch.unpacked(ids, ids)


def llama(layers=4, **more):
    torch.manual_seed(0)
    sizes = dict(hidden_size=32, intermediate_size=64, num_attention_heads=4, num_key_value_heads=2, vocab_size=50)
    return LlamaForCausalLM(LlamaConfig(**sizes, num_hidden_layers=layers, **more))


def windows():
    torch.manual_seed(0)
    sizes = dict(hidden_size=32, intermediate_size=64, num_attention_heads=4, num_key_value_heads=2, vocab_size=50)
    kinds = ['sliding_attention', 'full_attention'] * 2
    return Gemma3ForCausalLM(Gemma3TextConfig(**sizes, num_hidden_layers=4, layer_types=kinds, head_dim=8))


def real_peak(task, layers, count, one):
    """Return the peak of the second micro-batch of a step."""
    layers.apply(CheckpointPolicy(count))
    task.train()
    meter = LiveBytes()
    with meter:
        task(one).backward()
        meter.forget_peak()
        task(one).backward()
        found = meter.peak()
    task.drop_gradients()
    return found


@pytest.mark.parametrize('model', [llama, windows])
def test_the_peak_is_foretold_from_what_one_layer_keeps(model):
    task = SupervisedFineTuning(model(), torch.float32)
    layers, one, meter = ActivationCheckpointing(task.llm), batch(50), LiveBytes()
    with meter:
        profile = profile_activations(task, layers, one, meter)
    assert all(p.grad is None for p in task.parameters()) and layers.num_plain == 0
    assert min(profile.costs) > 2 * one.input_ids.numel() * 32 * 4  # more than its input and its output
    for count in (0, 2, len(layers) - 1, len(layers)):
        # Gradients of the two passes are there either way.
        assert real_peak(task, layers, count, one) == pytest.approx(peak(profile, count), rel=0.02)


def test_what_a_layer_costs_is_what_it_saves_for_its_backward_pass():
    task = SupervisedFineTuning(llama(), torch.float32)
    layers, one, meter = ActivationCheckpointing(task.llm), batch(50), LiveBytes()
    with meter:
        profile = profile_activations(task, layers, one, meter)
    held = {}

    def pack(tensor):
        held[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    weights = {p.untyped_storage().data_ptr() for p in task.parameters()}
    layer, hidden = layers.layers[2], torch.randn(2, 64, 32, requires_grad=True)
    task.train()
    layers.apply(CheckpointPolicy(0))
    places = task.llm.model.rotary_emb(hidden, torch.arange(64)[None])
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        made = layer(hidden, attention_mask=None, position_embeddings=places)
    given = weights | {t.untyped_storage().data_ptr() for t in (hidden, made, *places)}
    saved = sum(t.untyped_storage().nbytes() for at, t in held.items() if at not in given)
    assert profile.costs[2] == pytest.approx(saved, rel=0.02)


def test_layers_are_told_apart():
    task = SupervisedFineTuning(llama(), torch.float32)
    del task.llm.model.layers[1].mlp.act_fn
    task.llm.model.layers[1].mlp.act_fn = torch.nn.Sequential(torch.nn.SiLU(), torch.nn.Tanh(), torch.nn.Tanh())
    layers, meter = ActivationCheckpointing(task.llm), LiveBytes()
    with meter:
        costs = profile_activations(task, layers, batch(50), meter).costs
    assert costs[1] > costs[0] == costs[2] == costs[3]


@pytest.mark.parametrize('room', ['all', 'some', 'none', 'nothing'])
def test_fit_chooses_and_changes_nothing_else(room):
    def step(chosen):
        llm = llama(attention_dropout=0.2)
        task = SupervisedFineTuning(llm, torch.bfloat16, master_weights=MasterWeights(llm, torch.bfloat16))
        layers, one = ActivationCheckpointing(task.llm), batch(50)
        torch.manual_seed(5)
        count = chosen(task, layers, one)
        task.train()
        loss = task(one)
        loss.backward()
        return count, [loss, *(p.grad for p in task.trained_parameters().values())]

    line = []

    def auto(task, layers, one):
        meter = LiveBytes()
        with meter:
            profile = profile_activations(task, layers, one, meter)
            meter.most_allowed = (
                1000
                + {
                    'all': peak(profile, 0),
                    'some': peak(profile, 2),
                    'none': peak(profile, 3) - 1,
                    'nothing': -(2**40),
                }[room]
            )
            line.append(checkpoint_fewest_layers(task, layers, one, meter, state=1000))
        return layers.num_checkpointed

    def given(task, layers, one):
        layers.apply(CheckpointPolicy(counts))
        return counts

    counts, found = step(auto)
    assert counts == {'all': 0, 'some': 2, 'none': 4, 'nothing': 4}[room]
    assert f'checkpointing in {counts} of 4 layers; without: 0.00 GiB a layer' in line[0]
    assert all(torch.equal(a, b) for a, b in zip(found, step(given)[1], strict=True))


def test_no_memory_while_measuring_is_no_error():
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


def test_a_run_says_what_recomputes(make_config, xtune):
    code, out, err = xtune('train', make_config(), '--cfg-options', 'schedule.max_steps=1')
    assert code == 0, err
    assert 'activation checkpointing in 2 of 2 layers (auto' in out


def test_a_resumed_run_may_recompute_other_layers(make_config, xtune, tmp_path):
    options = {'lora.lora_dropout': 0.0}
    assert xtune('train', make_config(name='whole', activation_checkpointing='none', **options))[0] == 0
    config = make_config(name='again', activation_checkpointing='offload', **options)
    code, out, err = xtune('train', config, '--resume', tmp_path / 'whole' / 'epoch_1.pth')
    assert code == 0 and 'nothing to offload' in out, err
    lines = [(tmp_path / name / 'metrics.jsonl').read_text().splitlines() for name in ('whole', 'again')]
    losses = [{line.split('"epoch"')[0]: line.split('"loss": ')[1].split(',')[0] for line in rows} for rows in lines]
    assert losses[1] and losses[1].items() <= losses[0].items()


def test_more_layers_than_the_model_has_are_refused_before_data_are_read(make_config, xtune, tmp_path):
    code, out, err = xtune('train', make_config(activation_checkpointing=99))
    assert code == 2 and 'activation_checkpointing=99' in err and 'data' not in out
    assert not (tmp_path / 'run').exists() or not any((tmp_path / 'run').iterdir())
