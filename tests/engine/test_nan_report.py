"""A NaN stops the run before the optimizer update; the error names the step, the rows and the module."""

import math
from dataclasses import astuple, replace

import pytest
import torch
from training import make_trainer

from xtune.data.batches import MicroBatch
from xtune.engine.nan_report import NonFiniteStep
from xtune.engine.strategies import Replicated
from xtune.tasks.sft import SupervisedFineTuning


class NoUpdate(Replicated):
    """Fails if the weights are updated."""

    def optimizer_step(self, values):
        on_host = self.read(values)
        assert not all(map(math.isfinite, on_host)), 'the update must be skipped'
        return on_host


def make_sgd_trainer(llm, strategy=None):
    task = SupervisedFineTuning(llm, torch.float32)
    return make_trainer(task, torch.optim.SGD(llm.parameters(), lr=1.0), strategy=strategy)


def batch(places):
    ids = torch.arange(6).repeat(len(places), 1)
    targets = ids.roll(-1, dims=1)
    return replace(MicroBatch.unpacked(ids, targets), places=places)


def test_nan_in_a_weight_names_the_module(tiny_model):
    from transformers import AutoModelForCausalLM

    llm = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    with torch.no_grad():
        llm.model.layers[1].mlp.up_proj.weight[3, 3] = float('nan')
    with pytest.raises(NonFiniteStep) as raised:
        make_sgd_trainer(llm, NoUpdate()).train_step([batch(['row 4']), batch(['row 5'])])
    assert raised.value.where == 'the output of model.layers.1.mlp.up_proj'
    assert raised.value.places == ['row 4']


def test_nan_in_one_gradient_is_not_spread_by_clipping(tiny_model):
    from transformers import AutoModelForCausalLM

    llm = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    weight = llm.model.layers[1].self_attn.o_proj.weight
    weight.register_hook(lambda gradient: gradient * float('nan'))
    with pytest.raises(NonFiniteStep) as raised:
        make_sgd_trainer(llm).train_step([batch(['row 4'])])
    assert raised.value.where == 'the gradient of model.layers.1.self_attn.o_proj.weight'


def test_infinite_gradient_names_the_parameter(tiny_model):
    from transformers import AutoModelForCausalLM

    class Explode(NoUpdate):
        def reduce_and_clip(self, max_grad_norm):
            llm.model.layers[0].self_attn.q_proj.weight.grad[0, 0] = float('inf')
            return torch.tensor(float('inf'))

    llm = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    with pytest.raises(NonFiniteStep) as raised:
        make_sgd_trainer(llm, Explode()).train_step([batch(['row 4']), batch(['row 5'])])
    assert raised.value.where == 'the gradient of model.layers.0.self_attn.q_proj.weight'
    assert raised.value.places == ['row 4', 'row 5']


@pytest.mark.parametrize('masters', [False, True])
def test_fused_optimizer_skips_a_non_finite_update(masters, tiny_model):
    """A fused optimizer skips the update on the device, without a host sync before it."""
    from transformers import AutoModelForCausalLM

    from xtune.optimizations.master_weights import MasterWeights

    results = []
    for fused in (True, False):
        llm = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
        dtype = torch.bfloat16 if masters else torch.float32
        task = SupervisedFineTuning(llm, dtype, master_weights=MasterWeights(llm, dtype) if masters else None)
        trainer = make_trainer(task, torch.optim.AdamW(task.trained_parameters().values(), fused=fused))
        metrics = [trainer.train_step([batch(['row 4'])])]
        before = [p.clone() for p in task.trained_parameters().values()]
        hook = llm.model.layers[1].self_attn.o_proj.weight.register_hook(lambda gradient: gradient * float('nan'))
        with pytest.raises(NonFiniteStep, match='the gradient of model.layers.1.self_attn.o_proj.weight'):
            trainer.train_step([batch(['row 4'])])
        assert all(map(torch.equal, before, task.trained_parameters().values()))
        hook.remove()
        trainer.strategy.zero_grad()
        metrics.append(trainer.train_step([batch(['row 4'])]))
        results.append([*(value for step in metrics for value in astuple(step)), *task.trained_parameters().values()])
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-5)
