"""Tests assert behavior: they use no private names of xtune, and quote no sentence of its messages.

A message in full belongs to the golden file (tests/golden.py). An assertion may quote names, values, files and numbers.
"""

import ast
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

TESTS = Path(__file__).parent
# Private names of libraries that have no public equivalent. tests/compat may use all.
LIBRARY_NAMES = {'_attn_implementation', '_destroy', '_scaled_mm', '_schema'}
LIBRARIES = {'os', 'torch'}
SENTENCE = 4  # words in a row


def is_private(name: str) -> bool:
    last = name.rpartition('.')[2]
    return last.startswith('_') and not last.startswith('__') and last.strip('_') != '' and last not in LIBRARY_NAMES


def called(node: ast.Call) -> str:
    """Return the last part of the name of a called function."""
    return getattr(node.func, 'attr', getattr(node.func, 'id', ''))


def private_names(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield (line, name) of private names of other objects than `self` and `cls`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and is_private(node.attr):
            root = ast.unparse(node).partition('.')[0]
            if not (ast.unparse(node.value) in ('self', 'cls') or root in LIBRARIES):
                yield node.lineno, ast.unparse(node)
        elif isinstance(node, ast.ImportFrom) and (node.module or '').startswith('xtune'):
            yield from ((node.lineno, alias.name) for alias in node.names if is_private(alias.name))
        elif isinstance(node, ast.Call) and called(node) in ('setattr', 'getattr'):
            names = (argument.value for argument in node.args[:2] if isinstance(argument, ast.Constant))
            yield from ((node.lineno, name) for name in names if isinstance(name, str) and is_private(name))


def phrases(text: str) -> list[str]:
    """Return every run of SENTENCE ordinary words in a text, or in a regular expression."""
    found, words = [], []
    for token in text.replace('\\', '').split():
        word = token.strip('.,;:()?!').lower()
        words = [*words, word] if re.fullmatch("[a-z]+(?:[-'][a-z]+)*", word) else []
        if len(words) >= SENTENCE:
            found.append(' '.join(words[-SENTENCE:]))
    return found


@cache
def message_phrases() -> frozenset[str]:
    """Return the phrases in the string literals of xtune, docstrings aside."""
    found = set()
    for file in (TESTS.parent / 'xtune').rglob('*.py'):
        tree = ast.parse(file.read_text(encoding='utf-8'))
        docstrings = {node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in docstrings:
                found.update(phrases(node.value))
    return frozenset(found)


def expected(tree: ast.AST) -> Iterator[ast.AST]:
    """Yield the X of `X in text`, `text == X`, `match=X` and `text.startswith(X)`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            yield from (node.left, *node.comparators)
        elif isinstance(node, ast.Call) and called(node) in ('startswith', 'endswith'):
            yield from node.args
        elif isinstance(node, ast.keyword) and node.arg == 'match':
            yield node.value


def parameters(function: ast.FunctionDef, names: set[str]) -> Iterator[ast.AST]:
    """Yield the values of the parameters of a parametrized test that have one of these names."""
    for decorator in function.decorator_list:
        if isinstance(decorator, ast.Call) and 'parametrize' in ast.unparse(decorator.func):
            columns = re.findall(r'\w+', ast.unparse(decorator.args[0]))
            for row in getattr(decorator.args[1], 'elts', ()):
                cells = getattr(row, 'elts', [row]) if len(columns) > 1 else [row]
                yield from (cell for name, cell in zip(columns, cells, strict=False) if name in names)


def sentences(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield (line, text) of strings that are expected in a text and quote a sentence of a message."""
    for function in (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)):
        values = list(expected(function))
        names = {node.id for value in values for node in ast.walk(value) if isinstance(node, ast.Name)}
        for value in (*values, *parameters(function, names)):
            for node in ast.walk(value):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    if set(phrases(node.value)) & message_phrases():
                        yield node.lineno, node.value


@cache
def parsed_tests() -> dict[str, ast.AST]:
    """Return the tests outside tests/compat, parsed, by path."""
    files = (file for file in sorted(TESTS.rglob('*.py')) if (TESTS / 'compat') not in file.parents)
    return {str(file.relative_to(TESTS.parent)): ast.parse(file.read_text(encoding='utf-8')) for file in files}


def places(check: Callable[[ast.AST], Iterator[tuple[int, str]]]) -> list[str]:
    """Return `file:line: text` for what a check finds in the tests."""
    return sorted({f'{file}:{line}: {text}' for file, tree in parsed_tests().items() for line, text in check(tree)})


def test_no_private_names_of_xtune():
    assert places(private_names) == []


def test_no_sentences_of_messages():
    assert places(sentences) == []


def test_the_checks_find_what_they_look_for():
    phrase = min(message_phrases())
    source = (
        f"@pytest.mark.parametrize('value, text', [(1, '{phrase}'), (2, 'a/b.json')])\n"
        'def test(value, text):\n'
        f"    assert text in str(one._state) and '({phrase}):' in str(error)\n"
        "    monkeypatch.setattr('xtune.cli._guarded', None)\n"
        'from xtune.cli import _require_home\n'
    )
    assert sorted(private_names(ast.parse(source))) == [
        (3, 'one._state'),
        (4, 'xtune.cli._guarded'),
        (5, '_require_home'),
    ]
    assert [line for line, _ in sentences(ast.parse(source))] == [3, 1]
