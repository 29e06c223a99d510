"""What a user gets wrong: one message on stderr that names the place, exit code 2, and nothing half-written."""

import json
import os
import shutil
from pathlib import Path

import openpyxl
import pytest
import torch

from xtune.errors import ConfigError

pytestmark = pytest.mark.integration

GOOD = {'instruction': 'a', 'output': 'b'}


@pytest.fixture
def train(make_config, xtune, tmp_path):
    """Run `train` on a small config with options; it must fail, leave no checkpoint and no cache, show no traceback."""

    def run(*arguments, **options):
        code, out, err = xtune('train', make_config(**options), *arguments)
        assert code == 2, (code, out, err)
        assert err.startswith('error: ') and 'Traceback' not in err
        assert not list(tmp_path.rglob('*.pth')) and not list((tmp_path / 'cache').rglob('*tmp*'))
        return err

    return run


def rows(path, *values):
    path.write_text('\n'.join(v if isinstance(v, str) else json.dumps(v) for v in values), encoding='utf-8')
    return {'train_dataset.path': str(path)}


def test_missing_file_names_close_files(train, golden, tmp_path):
    rows(tmp_path / 'data.jsonl', GOOD)
    err = train(**{'train_dataset.path': str(tmp_path / 'dta.jsonl')})
    assert 'dta.jsonl' in err and 'data.jsonl' in err
    golden('data.missing_file', err)


def test_unknown_hook_is_named_before_the_model_loads(train, golden):
    err = train(**{'base_model': '/no/such/model', 'runner': {'custom_hooks': [{'type': 'ValidatonHook'}]}})
    assert '`ValidatonHook`' in err and '`ValidationHook`' in err and 'custom_imports' in err
    golden('config.unknown_hook', err)


def test_empty_file(train, golden, tmp_path):
    golden('data.empty_file', train(**rows(tmp_path / 'data.jsonl')))
    golden('data.empty_list', train(**rows(tmp_path / 'list.json', '[]')))


def test_wrong_column_names_the_columns_and_the_fitting_map_fn(train, golden, tmp_path):
    data = rows(tmp_path / 'data.jsonl', {'messages': [{'role': 'user', 'content': 'a'}]})
    err = train(**data)
    assert 'data.jsonl, row 1' in err and "map_fn='openai'" in err
    golden('data.map_fn_of_other_columns', err)
    data = rows(tmp_path / 'odd.jsonl', {'frage': 'a', 'antwort': 'b'})
    err = train(**data, **{'train_dataset.map_fn': 'auto'})
    assert 'frage, antwort' in err and 'instruction, input' in err
    golden('data.unknown_columns', err)


def test_broken_json_names_the_line(train, golden, tmp_path):
    err = train(**rows(tmp_path / 'data.jsonl', GOOD, GOOD, '{"instruction": "a" "output": "b"}'))
    assert 'data.jsonl, line 3' in err
    golden('data.broken_json', err)


def test_workbook_without_the_sheet_names_its_sheets(train, golden, tmp_path):
    book = openpyxl.Workbook()
    book.active.title = 'QA'
    book.active.append(['Question', 'Answer'])
    book.active.append(['a', 'b'])
    book.save(tmp_path / 'qa.xlsx')
    source = {'train_dataset.path': str(tmp_path / 'qa.xlsx'), 'train_dataset.map_fn': 'medqa'}
    err = train(**source, **{'train_dataset.sheet': 'Sheet9'})
    assert '`Sheet9`' in err and 'QA' in err
    golden('data.unknown_sheet', err)


@pytest.mark.parametrize(
    ('messages', 'reason'),
    [
        ([{'role': 'user', 'content': 'a'}], 'reply missing'),
        ([{'role': 'user', 'content': 'a'}, {'role': 'assistant', 'content': ' '}], 'empty reply'),
        ([{'role': 'user', 'content': 'a'}] + [{'role': 'assistant', 'content': 'b'}] * 2, 'roles'),
    ],
)
def test_bad_conversations_are_counted_and_located(messages, reason, train, tmp_path):
    good = {'messages': [{'role': 'user', 'content': 'a'}, {'role': 'assistant', 'content': 'b'}]}
    data = rows(tmp_path / 'data.jsonl', good, {'messages': messages}, good)
    err = train(**data, **{'train_dataset.map_fn': 'openai'})
    assert '1 of the 3 rows' in err and reason in err and 'data.jsonl, row 2' in err


def test_a_few_bad_rows_are_skipped_and_shown(make_config, xtune, golden, tmp_path):
    data = rows(tmp_path / 'data.jsonl', *[GOOD] * 30, {'instruction': 'a', 'output': ''})
    code, out, err = xtune('check-custom-dataset', make_config(**data))
    assert code == 0, err
    assert '1 row skipped' in out and 'data.jsonl, row 31' in out
    golden('data.report_with_a_skipped_row', out)


def test_unknown_keys_and_wrong_types_come_together(make_config, xtune, golden):
    options = ['schedul.max_epochs=1', 'lora.rr=8', 'max_length=0', 'pack=maybe', 'optimizer.lr_=1']
    code, _, err = xtune('train', make_config(), '--cfg-options', *options)
    assert code == 2 and '`schedule`' in err and 'got 0' in err and "got 'maybe' (str)" in err
    golden('config.wrong_options', err)
    code, _, err = xtune('train', make_config(), '--cfg-options', 'lora.rr=8', 'optimizer.lr_=1')
    assert code == 2 and '`lora.rr`' in err and '`lr`' in err
    golden('config.unknown_arguments', err)


def test_unknown_preset(xtune, golden):
    code, _, err = xtune('train', 'smollm2_135m_lora_selfcogg_e2')
    assert code == 2 and 'smollm2_135m_lora_selfcog_e2' in err
    golden('config.unknown_preset', err)


def test_model_folder_without_weights(train, golden, tiny_model, tmp_path):
    shutil.copytree(tiny_model, tmp_path / 'bare')
    (tmp_path / 'bare' / 'model.safetensors').unlink()
    golden('model.no_weights', train(base_model=str(tmp_path / 'bare')))
    golden('model.missing_folder', train(base_model=str(tmp_path / 'nowhere')))


def test_quantized_base_without_bitsandbytes(train, golden, monkeypatch):
    import importlib.util

    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, 'find_spec', lambda name, *a: None if name == 'bitsandbytes' else real(name, *a)
    )
    golden('model.no_bitsandbytes', train(method='qlora'))


def test_a_run_that_is_refused_leaves_no_empty_folder(train, golden, tmp_path):
    golden('run.nothing_to_resume', train('--work-dir', str(tmp_path / 'a' / 'b'), '--resume'))
    assert not (tmp_path / 'a').exists()
    (tmp_path / 'mine').mkdir()
    train('--work-dir', str(tmp_path / 'mine' / 'run'), base_model='/no/such/model')
    train('--work-dir', str(tmp_path / 'mine'), base_model='/no/such/model')
    assert list((tmp_path / 'mine').iterdir()) == []


def test_a_model_without_a_name(train, golden):
    keys = ('base_model', 'chat_template', 'train_dataset.path')
    golden('config.empty_options', {f'{key}=': train('--cfg-options', f'{key}=') for key in keys})


def test_attention_that_the_model_lacks_is_named_before_data_are_prepared(
    make_config, xtune, golden, tiny_model, tmp_path
):
    shutil.copytree(tiny_model, tmp_path / 'gemma')
    values = json.loads((tiny_model / 'config.json').read_text('utf-8'))
    values |= dict(model_type='gemma2', architectures=['Gemma2ForCausalLM'], attn_logit_softcapping=50.0)
    (tmp_path / 'gemma' / 'config.json').write_text(json.dumps(values), encoding='utf-8')
    code, out, err = xtune('train', make_config(base_model=str(tmp_path / 'gemma')))
    assert code == 2 and not out and 'whisper' not in err
    assert 'Gemma2ForCausalLM' in err and "='eager'" in err
    golden('model.no_sdpa', err)


def test_rows_that_are_longer_than_the_model_is_made_for_are_warned_of(make_config, xtune, golden):
    options = {'max_length': 600, 'schedule.max_steps': 1}
    code, out, _ = xtune('train', make_config(**options))
    warning = next(line for line in out.splitlines() if 'max_length=600' in line)
    assert code == 0 and '512 tokens' in warning
    golden('data.longer_than_the_context', warning)


def test_work_dir_that_cannot_be_written(train, golden, alpaca_file):
    golden('run.work_dir_below_a_file', train('--work-dir', str(alpaca_file / 'below')))
    golden('run.work_dir_with_a_long_name', train('--work-dir', 'a' * 300), {'a' * 300: '<300 letters>'})


@pytest.mark.parametrize('config', ['mine', 'smollm2_360m_qlora_medqa_e2'])  # the second one is composed in the cache
def test_a_home_that_cannot_be_written_names_the_variable(config, make_config, xtune, golden, tmp_path, monkeypatch):
    (tmp_path / 'file').touch()
    config = make_config() if config == 'mine' else config
    monkeypatch.delenv('XTUNE_CACHE')
    monkeypatch.setenv('HOME', str(tmp_path / 'file' / 'home'))
    code, _, err = xtune('train', config)
    assert code == 2 and 'XTUNE_CACHE' in err and f'{tmp_path}/file/home' in err and 'Traceback' not in err
    golden(
        'run.cache_cannot_be_written', err, {f'xtune/{name}': 'xtune/<folder>' for name in ('data', 'locks', 'presets')}
    )


def test_a_folder_of_the_cache_that_is_a_file(tmp_path, monkeypatch):
    from xtune.utils.cache import cache_folder, cache_root

    folder = cache_folder('data')
    assert folder == cache_root() / 'data' and folder.is_dir() and not list(folder.iterdir())
    folder.rmdir()
    folder.touch()
    with pytest.raises(ConfigError, match='XTUNE_CACHE'):
        cache_folder('data')


def test_no_home_at_all(xtune, golden, monkeypatch):
    def none():
        raise RuntimeError('Could not determine home directory.')

    monkeypatch.setattr(Path, 'home', none)
    code, _, err = xtune('list-cfg')
    assert code == 2 and 'HOME' in err
    golden('run.no_home', err)


@pytest.mark.skipif(torch.cuda.is_available(), reason='with a GPU the optimizer works, and test_gpu.py runs it')
def test_paged_optimizer_without_a_gpu(train, golden):
    err = train(**{'optimizer.type': 'bitsandbytes.optim.PagedAdamW32bit'})
    assert 'PagedAdamW32bit' in err and 'type=torch.optim.AdamW' in err
    golden('run.paged_optimizer_without_a_gpu', err)


def test_template_that_does_not_fit_the_tokenizer(train, golden):
    err = train(chat_template='llama3')
    assert '<|eot_id|>' in err
    golden('template.stop_token_of_another_tokenizer', err)
    golden('template.unknown_name', train(chat_template='chatlm'))


def test_checkpoint_that_would_run_code(train, golden, tmp_path):
    class Evil:
        def __reduce__(self):
            return os.system, (f'touch {tmp_path}/PWNED',)

    evil = tmp_path / 'evil.bin'
    torch.save(dict(state_dict={}, meta=dict(export={}), extra=Evil()), evil)
    golden('checkpoint.executes_code', train('--resume', str(evil)))
    assert not (tmp_path / 'PWNED').exists()


def test_full_disk_while_saving(make_config, xtune, golden, tmp_path, monkeypatch):
    """/dev/full is a device whose every write fails as on a full disk."""
    from xtune.engine import checkpoint_io

    real = torch.save

    def to_full_disk(content, file):
        with open('/dev/full', 'wb') as full:
            real(content, full)

    monkeypatch.setattr(checkpoint_io.torch, 'save', to_full_disk)
    code, _, err = xtune('train', make_config())
    assert code == 2 and '--resume' in err
    golden('checkpoint.full_disk', err)
    assert not list((tmp_path / 'run').glob('*.pth')) and not list((tmp_path / 'run').glob('.*tmp'))


def test_debug_shows_the_traceback(make_config, tmp_path):
    from xtune.cli import main
    from xtune.errors import DataError

    with pytest.raises(DataError):
        main(['train', str(make_config(**{'train_dataset.path': str(tmp_path / 'no.json')})), '--debug'])


def test_full_disk_beside_checkpoints(xtune, golden, monkeypatch, tmp_path):
    """Whatever else cannot be written ends in one line too, and leaves no half of a file."""
    import errno

    from xtune.utils import atomic

    replace = atomic.os.replace

    def full(source, target):
        if Path(target).parent.name == 'new':
            raise OSError(errno.ENOSPC, 'No space left on device')
        replace(source, target)

    monkeypatch.setattr(atomic.os, 'replace', full)
    code, _, err = xtune('copy-cfg', 'smollm2_135m_lora_selfcog_e2', tmp_path / 'new')
    assert code == 2 and not list((tmp_path / 'new').iterdir())
    golden('run.full_disk', err)
