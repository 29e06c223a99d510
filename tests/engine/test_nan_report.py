"""A NaN stops the run before the optimizer spreads it, with the step, the rows and the module named."""

from dataclasses import replace

import pytest
import torch

from xtune.data.batches import MicroBatch
from xtune.engine.nan_report import NonFiniteStep
from xtune.tasks.sft import SupervisedFineTuning


class NoStep:
    def loss(self, task, batch):
        return task(batch)

    def backward(self, loss, last):
        loss.backward()

    def clip(self):
        return torch.zeros(())

    def step_if_finite(self, values):
        return False

    def step(self):
        raise AssertionError('the step must not be taken')


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
        SupervisedFineTuning(llm, torch.float32).train_step([batch(['row 4']), batch(['row 5'])], NoStep())
    assert raised.value.where == 'the output of model.layers.1.mlp.up_proj'
    assert raised.value.places == ['row 4']


def test_nan_in_one_gradient_is_not_spread_by_clipping(tiny_model):
    from transformers import AutoModelForCausalLM

    from xtune.engine.optimizer import StepOptimizer

    llm = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    optimizer = StepOptimizer(torch.optim.SGD(llm.parameters(), lr=1.0), max_grad_norm=1.0)
    weight = llm.model.layers[1].self_attn.o_proj.weight
    weight.register_hook(lambda gradient: gradient * float('nan'))
    with pytest.raises(NonFiniteStep) as raised:
        SupervisedFineTuning(llm, torch.float32).train_step([batch(['row 4'])], optimizer)
    assert raised.value.where == 'the gradient of model.layers.1.self_attn.o_proj.weight'


def test_infinite_gradient_names_the_parameter(tiny_model):
    from transformers import AutoModelForCausalLM

    class Explode(NoStep):
        def clip(self):
            llm.model.layers[0].self_attn.q_proj.weight.grad[0, 0] = float('inf')
            return torch.tensor(float('inf'))

    llm = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    with pytest.raises(NonFiniteStep) as raised:
        SupervisedFineTuning(llm, torch.float32).train_step([batch(['row 4']), batch(['row 5'])], Explode())
    assert raised.value.where == 'the gradient of model.layers.0.self_attn.q_proj.weight'
    assert raised.value.places == ['row 4', 'row 5']


@pytest.mark.parametrize('masters', [False, True])
def test_a_fused_update_is_queued_but_not_taken(masters, tiny_model):
    """A fused optimizer skips the update itself, so the device need not be waited for before it."""
    from transformers import AutoModelForCausalLM

    from xtune.engine.optimizer import StepOptimizer
    from xtune.optimizations.master_weights import MasterWeights

    results = []
    for fused in (True, False):
        llm = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
        dtype = torch.bfloat16 if masters else torch.float32
        task = SupervisedFineTuning(llm, dtype, masters=MasterWeights(llm, dtype) if masters else None)
        optimizer = StepOptimizer(torch.optim.AdamW(task.trained_parameters().values(), fused=fused), 1.0)
        assert optimizer.step_if_finite(torch.ones(2)) == fused
        out = [task.train_step([batch(['row 4'])], optimizer)]
        before = [p.clone() for p in task.trained_parameters().values()]
        broken = llm.model.layers[1].self_attn.o_proj.weight.register_hook(lambda gradient: gradient * float('nan'))
        with pytest.raises(NonFiniteStep, match='the gradient of model.layers.1.self_attn.o_proj.weight'):
            task.train_step([batch(['row 4'])], optimizer)
        assert all(map(torch.equal, before, task.trained_parameters().values()))
        broken.remove()
        optimizer.zero_grad()
        out.append(task.train_step([batch(['row 4'])], optimizer))
        results.append([*(value for one in out for value in one.values()), *task.trained_parameters().values()])
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-5)
