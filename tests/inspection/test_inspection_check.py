"""`check-custom-dataset` says in ten lines what there is to train on and what to look at first."""

import re

import numpy as np
import pytest
from training import build_data_of

from xtune.config.load import load
from xtune.config.wire import wire


def verdict(out):
    (last,) = out.splitlines()[-1:]
    assert last.startswith('verdict    ready to train') and len(out.splitlines()) <= 10
    return last.removeprefix('verdict    ready to train')


def different(count, reply='The answer to this is {}, as one can see.'):
    return [{'instruction': f'What is {i}?', 'output': reply.format(i)} for i in range(count)]


def test_summary_has_about_ten_lines(make_config, xtune, write, tmp_path):
    code, out, _ = xtune('check-custom-dataset', make_config(pack=False, val_dataset=0.2, **write(different(40))))
    assert code == 0 and verdict(out) == ''
    assert [
        line[:11].strip() for line in out.splitlines()
    ] == 'data lengths packing validation template steps verdict'.split()
    assert f'data       {tmp_path / "rows.json"} as alpaca: 40 rows -> 40 samples' in out
    assert 'template   chatml (stop token <|im_end|>)\n' in out
    assert 'steps      8 per epoch, 16 in total (2 x 2 sequences each)\n' in out


CASES = {
    'the same response': different(40, 'Yes, it is.'),
    'few rows': different(8),
    'duplicates': different(30) + different(12),
    'one bad row of 61': different(60) + [{'instruction': 'a'}],
    'one bad row of 151': different(150) + [{'instruction': 'a'}],
    'long prompts': [{'instruction': f'{i} ' + 'word ' * 110, 'output': f'{i}'} for i in range(40)],
}


def test_verdict_names_the_worst_problem(make_config, xtune, write, golden):
    verdicts = {}
    for case, rows in CASES.items():
        code, out, err = xtune('check-custom-dataset', make_config(**write(rows)))
        assert code == 0, err
        verdicts[case] = f'ready to train{verdict(out)}'
    golden('data.verdicts', verdicts)


@pytest.mark.parametrize('overlong', ['truncate', 'drop', 'split'])
def test_verdict_suggests_a_max_length(make_config, xtune, write, overlong):
    rows = different(80) + [{'instruction': f'Long {i}?', 'output': f'{i} ' + 'word ' * 150} for i in range(20)]
    code, out, _ = xtune('check-custom-dataset', make_config(overlong=overlong, **write(rows)))
    whole = build_data_of(wire(load(make_config(max_length=512, pack=False, **write(rows))), 'run')).train.store.lengths
    longest = int(np.percentile(whole, 99, method='higher'))
    assert code == 0 and re.search(
        rf'20 rows (truncated|dropped|split).*; first: .*rows.json, row 81 \({whole[80]} tokens', out
    )
    assert '20%' in verdict(out) and f'max_length to {longest} ' in verdict(out)
    assert '\ntoo long   first ' in xtune('log-dataset', make_config(overlong=overlong, **write(rows)), '--rows', 0)[1]


def test_skipped_rows_are_listed_with_an_example(make_config, xtune, write, tmp_path):
    rows = [*different(60), {'instruction': 'a', 'output': ''}, {'instruction': 'a'}, {'instruction': 'b'}]
    code, out, _ = xtune('check-custom-dataset', make_config(**write(rows)))
    first = f'{tmp_path / "rows.json"}, row 61: empty reply'
    line = f'3 rows skipped: no column `output` (2), empty reply (1); first: {first}'
    assert code == 0 and f'           {line}\n' in out


def test_unusable_data_is_an_error(make_config, xtune, write):
    code, out, err = xtune('check-custom-dataset', make_config(**write([{'instruction': 'a', 'output': ''}] * 3)))
    assert code == 2 and 'verdict' not in out and 'empty reply' in err


def test_streaming_checks_the_first_window(make_config, xtune, write, tmp_path):
    options = {**write(different(200)), 'data.streaming': True, 'data.window': 50, 'schedule.max_steps': 3}
    code, out, err = xtune('check-custom-dataset', make_config(**options))
    assert code == 0 and verdict(out) == '', err
    assert 'data       first window only: ' in out and '50 rows -> 50 samples' in out
    assert 'steps      3 in total (2 x 2 sequences each)' in out
    # Of a source that comes later nothing is read yet.
    write(different(5), 'later.json')
    sources = [{'path': options['train_dataset.path'], 'map_fn': 'alpaca'}]
    sources.append({**sources[0], 'path': str(tmp_path / 'later.json')})
    both = make_config(**{'data.streaming': True, 'data.window': 50, 'schedule.max_steps': 3}, train_dataset=sources)
    assert verdict(xtune('check-custom-dataset', both)[1]) == ''
    code, out, err = xtune('log-dataset', both, '--html', tmp_path / 'page.html', '--rows', 1)
    assert code == 0 and 'later.json' in (tmp_path / 'page.html').read_text(encoding='utf-8'), err
    # A small source is read again and again; that makes no duplicates.
    options |= {**write(different(30)), 'data.window': 100}
    assert verdict(xtune('check-custom-dataset', make_config(**options))[1]) == ''
