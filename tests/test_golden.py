"""The golden file of messages: every entry is used, and a difference or an unknown id fails."""

import golden as module
import pytest


def test_every_entry_is_used(request):
    used = set(module.used_ids())
    texts = module.entries()
    if request.config.getoption('--update-golden'):
        module.write({name: text for name, text in texts.items() if name in used})
    else:
        assert not set(texts) - used, 'unused entries: run this test with --update-golden to remove them'


@pytest.mark.skipif("config.getoption('--update-golden')", reason='would write the entries')
def test_an_unknown_id_or_another_text_fails(golden, monkeypatch, tmp_path):
    file = tmp_path / 'messages.txt'
    file.write_text('An introduction.\n\n### known\nfirst\n\nlast\n', encoding='utf-8')
    monkeypatch.setattr(module.entries, '__defaults__', (file,))
    compare = golden  # not `golden(...)`: these ids are not entries of the real file
    assert compare('known', 'first\n\nlast\n')
    for name, text in (('known', 'other'), ('unknown', 'first')):
        with pytest.raises(AssertionError, match=name):
            compare(name, text)


def test_the_file_is_sorted_and_keeps_its_introduction(tmp_path):
    file = tmp_path / 'messages.txt'
    file.write_text('An introduction.\n', encoding='utf-8')
    texts = {'b': 'two\n\nlines', 'a': module.with_cases({'x': 'one', 'y': 'two'})}
    module.write(texts, file)
    assert module.entries(file) == texts and list(module.entries(file)) == ['a', 'b']
    assert file.read_text(encoding='utf-8').startswith('An introduction.\n\n### a\nx\n    one\ny\n    two\n\n### b\n')


def test_values_of_the_machine_become_placeholders(tmp_path):
    text = f'{module.FILE.parents[1]}/a, 1,234.5 MiB free, process 77'
    assert module.stable(text) == '<repository>/a, <n> MiB free, process <pid>'
