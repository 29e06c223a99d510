"""The output of a run: prompts of its data set, consistent epochs, and no messages of other libraries."""

import json
import logging
import re
import subprocess
import sys

import pytest

from xtune.config.part_prompts import written_for

SCENIC = ['请给我介绍五个上海的景点', 'Please tell me five scenic spots in Shanghai']


@pytest.mark.parametrize(
    ('prompts', 'paths', 'other'),
    [
        (['Who are you?'], ['self_cognition'], None),
        (['Who are you?'], ['my.jsonl'], None),
        (SCENIC, ['my.jsonl', 'tatsu-lab/alpaca'], None),
        (SCENIC, ['my.jsonl'], 'tatsu-lab/alpaca'),
        (['What is my order number?'], ['my.jsonl'], None),
        ([], ['my.jsonl'], None),
    ],
)
def test_prompts_belong_to_the_data_set_of_their_part(prompts, paths, other):
    assert written_for(prompts, paths) == other


def test_prompts_of_another_data_set_are_not_answered(make_config, xtune, tmp_path):
    """Epochs of header and progress line, and the last lines, are read from the same run."""
    options = {'chat_samples.every_steps': 1, 'chat_samples.prompts': SCENIC, 'schedule.max_steps': 1}
    config = make_config(**options)
    code, out, err = xtune('train', config)
    assert code == 0 and 'prompts of chat_samples are those of tatsu-lab/alpaca' in out, out + err
    assert not (tmp_path / 'run' / 'chat_samples.jsonl').exists()
    header = re.search(r'per epoch, (\d+) epochs?, ends in epoch 1 of 2\)', out)
    assert header and f'epoch 1/{header[1]}  loss' in out, out
    assert out.rstrip().splitlines()[-1] == f'TensorBoard: tensorboard --logdir {tmp_path / "run"}'
    assert not err.strip(), err


def test_prompts_given_as_an_option_are_answered(make_config, xtune, tmp_path):
    config = make_config(**{'chat_samples.every_steps': 1, 'schedule.max_steps': 1, 'chat_samples.max_new_tokens': 2})
    code, out, err = xtune('train', config, '--cfg-options', "chat_samples.prompts=['Who are you?']")
    assert code == 0 and 'not answered' not in out, out + err
    assert 'Who are you?' in (tmp_path / 'run' / 'chat_samples.jsonl').read_text()


def test_tokenizer_cleanup_option_prints_no_warning(make_config, xtune, caplog):
    options = {'chat_samples.every_steps': 1, 'chat_samples.max_new_tokens': 2, 'schedule.max_steps': 1}
    prompts = {'chat_samples.prompts': ['Say , hello .'], 'tokenizer.clean_up_tokenization_spaces': True}
    library = logging.getLogger('transformers')
    library.addHandler(caplog.handler)
    try:
        code, out, err = xtune('train', make_config(**options, **prompts))
    finally:
        library.removeHandler(caplog.handler)
    assert code == 0 and 'clean_up' not in caplog.text + out + err, out + err


def test_deepspeed_logs_only_errors():
    code = (
        'import logging, xtune; log = logging.getLogger("DeepSpeed"); log.addHandler(logging.StreamHandler()); '
        'log.warning("remark"); log.error("broken")'
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert 'broken' in done.stderr and 'remark' not in done.stderr, json.dumps(done.stderr)
