"""A step that runs out of memory is retried with more layers checkpointed, or fails with advice."""

import pytest
import torch
from training import make_trainer
from transformers import LlamaConfig, LlamaForCausalLM

from xtune.data.batches import MicroBatch
from xtune.engine.oom_report import explain_oom
from xtune.engine.oom_retry import retry_on_oom
from xtune.errors import ModelError, OutOfMemory
from xtune.optimizations.activation_checkpointing import ActivationCheckpointing, CheckpointPolicy
from xtune.optimizations.master_weights import MasterWeights
from xtune.tasks.sft import SupervisedFineTuning


def micro_batches(count=3):
    torch.manual_seed(1)
    ids = [torch.randint(50, (2, 16)) for _ in range(count)]
    return [MicroBatch.unpacked(ids_BS, ids_BS) for ids_BS in ids]


def two_steps(num_plain, fail=lambda call, layers: False, masters=True):
    """Return the metrics of two steps, the weights after them, and the layers; `num_plain` are not checkpointed."""
    torch.manual_seed(0)
    sizes = dict(hidden_size=32, intermediate_size=64, num_attention_heads=4, num_key_value_heads=2, vocab_size=50)
    llm = LlamaForCausalLM(LlamaConfig(**sizes, num_hidden_layers=4, attention_dropout=0.2)).train()
    layers = ActivationCheckpointing(llm)
    layers.apply(CheckpointPolicy(len(layers) - num_plain))
    master_weights = MasterWeights(llm, torch.bfloat16) if masters else None
    task = SupervisedFineTuning(llm, torch.bfloat16 if masters else torch.float32, master_weights=master_weights)
    optimizer = torch.optim.AdamW(task.trained_parameters().values(), lr=1e-2)
    trainer = make_trainer(task, optimizer, wrappers=[retry_on_oom(layers, None)])
    calls = [0]

    def count_calls(*_):
        calls[0] += 1
        if fail(calls[0], layers):
            raise torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 2.00 GiB.')

    llm.model.norm.register_forward_hook(count_calls)
    torch.manual_seed(3)
    metrics = [trainer.train_step(micro_batches()) for _ in range(2)]
    return [(step.loss, step.grad_norm) for step in metrics], list(task.trained_parameters().values()), layers


@pytest.mark.parametrize('masters', [True, False])
@pytest.mark.parametrize(('fails', 'kept', 'said'), [((2,), 2, ['2 of 4']), ((5, 7), 1, ['2 of 4', '3 of 4'])])
def test_retried_step_has_identical_metrics_and_weights(fails, kept, said, masters, capsys):
    reference = two_steps(4, masters=masters)
    retried = two_steps(4, lambda call, _: call in fails, masters)
    assert reference[0] == retried[0] and all(torch.equal(a, b) for a, b in zip(reference[1], retried[1], strict=True))
    assert retried[2].num_plain == kept and reference[2].num_plain == 4
    notes = [line for line in capsys.readouterr().out.splitlines() if 'out of memory' in line]
    assert len(notes) == len(said) and all(text in line for text, line in zip(said, notes, strict=True))


def test_step_that_never_fits_fails_with_advice(capsys):
    kept = []

    def fail(_, layers):
        kept.append(layers.num_plain)
        return True

    with pytest.raises(OutOfMemory, match='2 x 16 tokens.*weights 0.00.*optimizer.*logits') as error:
        two_steps(4, fail)
    assert kept == [4, 2, 1, 0]
    for change in ('schedule.batch_size', 'max_length', 'qlora', 'offload'):
        assert change in str(error.value)


def test_out_of_memory_outside_a_step_names_the_activity():
    with (
        pytest.raises(OutOfMemory, match=r'loading the model: .* Tried.*batch_size') as error,
        explain_oom('loading the model'),
    ):
        raise torch.OutOfMemoryError('CUDA out of memory. Tried 2 GiB. If reserved but unallocated memory is large try')
    assert 'reserved' not in str(error.value)


def test_run_that_does_not_fit_ends_with_a_message(make_config, xtune, tmp_path, monkeypatch):
    (tmp_path / 'greedy.py').write_text(
        'import torch\n'
        'from mmengine.hooks import Hook\n'
        'from xtune.registry import HOOKS\n\n\n'
        '@HOOKS.register_module()\n'
        'class Greedy(Hook):\n'
        '    def before_train(self, runner):\n'
        '        def refuse(*_):\n'
        "            raise torch.OutOfMemoryError('CUDA out of memory.')\n\n"
        '        runner.model.llm.register_forward_pre_hook(refuse)\n'
        '        runner.model.llm.get_input_embeddings().register_forward_pre_hook(refuse)\n'
    )
    monkeypatch.syspath_prepend(tmp_path)
    options = {'custom_imports': ['greedy'], 'runner': {'custom_hooks': [{'type': 'xtune.Greedy'}]}}
    code, out, err = xtune('train', make_config(activation_checkpointing='none', **options))
    assert code == 2 and 'out of memory' in err and ' 2 x ' in err and 'Traceback' not in err
    assert 'with 1 of 2 layers' in out and 'with 2 of 2 layers' in out


def test_model_without_layers_is_named():
    with pytest.raises(ModelError, match="Linear .*activation_checkpointing='none'"):
        ActivationCheckpointing(torch.nn.Linear(2, 2))
