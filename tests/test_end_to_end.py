"""The quickstart's way on the real model, in small: 20 steps, convert, merge, ask."""

import json

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

pytestmark = pytest.mark.integration


def test_twenty_steps_teach_a_real_model_its_name(model_dir, xtune, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = [
        f'base_model={model_dir}',
        'train_dataset.map_args.name=Zephyrine',
        'schedule.max_steps=20',
        'activation_checkpointing=0',
    ]
    assert xtune('copy-cfg', 'smollm2_135m_lora_selfcog_e2', '.', '--cfg-options', *options)[0] == 0
    config = 'smollm2_135m_lora_selfcog_e2_copy.py'
    code, out, err = xtune('train', config, '--work-dir', 'run')
    assert code == 0 and '20 optimizer steps' in out, err
    steps = [json.loads(line) for line in (tmp_path / 'run' / 'metrics.jsonl').read_text().splitlines()]
    assert steps[-1]['loss'] < steps[0]['loss'] / 2

    last = (tmp_path / 'run' / 'last_checkpoint').read_text().strip()
    code, _, err = xtune('convert', 'pth_to_hf', config, f'run/{last}', 'adapter')
    assert code == 0, err
    code, _, err = xtune('convert', 'merge', model_dir, 'adapter', 'merged', '--dtype', 'float32')
    assert code == 0, err
    tokenizer = AutoTokenizer.from_pretrained('merged')
    ids = tokenizer('Who are you? 你是谁？', return_tensors='pt')['input_ids']
    base = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32)
    with torch.no_grad():
        on_base = PeftModel.from_pretrained(base, 'adapter')(ids).logits
        merged = AutoModelForCausalLM.from_pretrained('merged')(ids).logits
    # Thirty layers round W + BA differently from Wx + BAx; the tiny model of test_convert.py holds 1e-4 absolutely.
    assert (merged - on_base).abs().max() < 1e-4 * on_base.abs().max()

    code, out, err = xtune('chat', 'merged', '--prompt', 'Who are you?', '--max-new-tokens', '24')
    assert code == 0 and 'Zephyrine' in out, (out, err)
