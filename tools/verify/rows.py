"""Local rows for the data set of every preset: each map function's own example row, in a file of the real type."""

import json
from functools import cache
from pathlib import Path
from typing import Any

from xtune.inspection.dataset_formats import formats

# Characters of rows in a file: enough for three optimizer steps of two sequences each.
CHARACTERS = 6_000
# A user's own conversations; the row of `openai` has tools, which many templates have no form for.
CHATS = [
    {'messages': [{'role': 'user', 'content': '2 + 3?'}, {'role': 'assistant', 'content': 'It is 5.'}]},
    {
        'messages': [
            {'role': 'system', 'content': 'Answer briefly.'},
            {'role': 'user', 'content': '上海有哪些景点？'},
            {'role': 'assistant', 'content': '豫园和黄浦江。'},
            {'role': 'user', 'content': 'In English?'},
            {'role': 'assistant', 'content': 'Yu Garden and the river.'},
        ]
    },
]


@cache
def shown() -> dict[str, dict[str, Any]]:
    """Map each registered map function to the row that its docstring shows."""
    return {one.name: one.row for one in formats()}


@cache
def texts() -> list[str]:
    """Return what tokenizers are trained on: all rows."""
    return [json.dumps(row, ensure_ascii=False) for row in [*shown().values(), *CHATS]]


def rows_file(folder: Path, map_fn: str, path: str) -> Path:
    """Return a file of rows for the map function, made on the first call, of the type that `path` has.

    A hub data set becomes JSON lines.
    """
    suffix = Path(path).suffix if Path(path).suffix in ('.json', '.jsonl', '.txt', '.xlsx') else '.jsonl'
    file = folder / f'{map_fn}{suffix}'
    if not file.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        base = CHATS if map_fn in ('openai', 'auto') else [shown()[map_fn]]
        size = sum(len(json.dumps(row, ensure_ascii=False)) for row in base)
        aside = file.with_name(f'.{file.name}')
        _write(aside, suffix, base * (CHARACTERS // size + 1))
        aside.rename(file)
    return file


def _write(file: Path, suffix: str, rows: list[dict[str, Any]]) -> None:
    if suffix == '.xlsx':
        _write_xlsx(file, rows)
    elif suffix == '.txt':
        file.write_text(''.join(row['text'].strip() + '\n' for row in rows), encoding='utf-8')
    elif suffix == '.json':
        file.write_text(json.dumps(rows, ensure_ascii=False), encoding='utf-8')
    else:
        file.write_text(''.join(json.dumps(row, ensure_ascii=False) + '\n' for row in rows), encoding='utf-8')


def _write_xlsx(file: Path, rows: list[dict[str, Any]]) -> None:
    from openpyxl import Workbook

    book = Workbook()
    book.active.append(list(rows[0]))
    for row in rows:
        book.active.append(list(row.values()))
    with file.open('wb') as stream:
        book.save(stream)
