"""The hash of a map function follows imports through user modules, and includes captured values."""

import importlib
import os
import subprocess
import sys

import pytest

from xtune.data.user_code import code_hash

FILES = {
    'mymaps/__init__.py': 'from .consts import LIMIT\n',
    'mymaps/consts.py': 'LIMIT = 3\n',
    'mymaps/maps.py': """
import functools
import json
from functools import partial

import outside.deep
from . import sub
from .text import clean as tidy
from xtune.messages import exchange


def plain(row):
    from .late import shout

    return exchange(tidy(row['q']), shout(sub.name(outside.deep.text(row['a']))))


def make(prefix, *, more=()):
    def inner(row):
        return exchange(prefix + row['q'], row['a'])

    return inner


def logged(function):
    def wrapper(row):
        return function(row)

    return wrapper


@logged
def first(row):
    return exchange(row['q'], 'first')


@logged
def second(row):
    return exchange(row['q'], 'second')


class Mapper:
    def __init__(self, prefix):
        self.prefix = prefix

    def __call__(self, row):
        return exchange(self.prefix + row['q'], row['a'])

    def method(self, row):
        return self(row)


hi, ho = make('hi'), make('ho')
upper, lower = (lambda row: exchange(row['q'].upper(), 'a')), (lambda row: exchange(row['q'].lower(), 'a'))
with_hi, with_ho = partial(make, 'hi'), partial(make, 'ho')
hi_object, ho_object = Mapper('hi'), Mapper('ho')
hi_method, ho_method = hi_object.method, ho_object.method
kept, kept_too = functools.lru_cache(hi), functools.lru_cache(ho)
""",
    'mymaps/late.py': 'import importlib as i\n\ndef shout(text):\n    return i.import_module("plug").do(text)\n',
    'mymaps/text.py': 'from . import maps\nfrom .sub.inner import strip\n\ndef clean(text):\n    return strip(text)\n',
    'mymaps/sub/__init__.py': 'def name(text):\n    return text\n',
    'mymaps/sub/inner.py': 'from ..consts import *\n\ndef strip(text):\n    return text\n',
    'mymaps/unused.py': 'X = 1\n',
    'outside/deep.py': 'import below\n\ndef text(x):\n    return x\n',  # in a namespace package
    'below.py': 'import outside.deep\n\ntry:\n    import no_such_module\nexcept ImportError:\n    pass\n',
    'plug.py': 'def do(x):\n    return x\n',
    'beside.py': 'X = 1\n',
}
REACHED = sorted(set(FILES) - {'mymaps/unused.py', 'beside.py'})


@pytest.fixture
def maps(tmp_path, monkeypatch):
    """The module mymaps.maps of a folder of its own."""
    for name, text in FILES.items():
        path = tmp_path / 'code' / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding='utf-8')
    monkeypatch.syspath_prepend(tmp_path / 'code')
    yield importlib.import_module('mymaps.maps')
    for name in [n for n in sys.modules if n.partition('.')[0] in ('mymaps', 'outside', 'below', 'plug')]:
        del sys.modules[name]


def test_an_edit_in_any_imported_user_module_changes_the_hash(maps, tmp_path):
    before = code_hash(maps.plain)
    for name in REACHED:
        path = tmp_path / 'code' / name
        text = path.read_text()
        path.write_text(text + '\nCHANGED = True\n')
        assert code_hash(maps.plain) != before, name
        path.write_text(text)
        assert code_hash(maps.plain) == before, name
    for name in set(FILES) - set(REACHED):
        (tmp_path / 'code' / name).write_text('CHANGED = True\n')
        assert code_hash(maps.plain) == before, name


@pytest.mark.parametrize(
    ('one', 'other'),
    [
        ('hi', 'ho'),
        ('upper', 'lower'),
        ('first', 'second'),
        ('with_hi', 'with_ho'),
        ('hi_object', 'ho_object'),
        ('hi_method', 'ho_method'),
        ('kept', 'kept_too'),
    ],
)
def test_callables_with_the_same_source_differ_by_captured_values(maps, one, other):
    assert code_hash(getattr(maps, one)) != code_hash(getattr(maps, other))


def test_the_hash_is_the_same_in_each_process(maps, tmp_path):
    names = ('plain', 'hi', 'first', 'with_hi', 'hi_object', 'hi_method', 'kept')
    code = 'import mymaps.maps as m; from xtune.data.user_code import code_hash\n'
    code += f'print([code_hash(getattr(m, name)) for name in {names}])'
    paths = os.pathsep.join([str(tmp_path / 'code'), *filter(None, [os.environ.get('PYTHONPATH')])])
    ran = subprocess.run(
        [sys.executable, '-c', code],
        env={**os.environ, 'PYTHONPATH': paths, 'PYTHONHASHSEED': '7'},
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout.strip() == str([code_hash(getattr(maps, name)) for name in names])


def test_circular_references_terminate(maps):
    one, two = maps.Mapper('x'), maps.Mapper('y')
    one.other, two.other, one.many = two, one, [one, two] * 50
    assert code_hash(one) == code_hash(one) != code_hash(two)


def test_code_without_a_file_is_hashed_by_its_bytecode():
    def made(text):
        names = {}
        exec(f'def f(row):\n    return {text}', names)
        return names['f']

    assert code_hash(made('1')) == code_hash(made('1')) != code_hash(made('2'))


def test_arrays_and_tensors_are_hashed_with_all_values():
    import numpy as np
    import torch

    from xtune.data.captured_values import describe

    def made(values):
        return lambda row: values

    zeros = np.zeros(5000)
    other = zeros.copy()
    other[2500] = 1
    for kind in (np.asarray, torch.tensor):
        assert describe(made(kind(zeros))) == describe(made(kind(zeros.copy())))
        assert describe(made(kind(zeros))) != describe(made(kind(other)))
