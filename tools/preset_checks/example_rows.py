"""Local data for every preset: the example row of its map function, in a file of the type of the real data."""

import json
from functools import cache
from pathlib import Path
from typing import Any

from xtune.inspection.dataset_formats import formats

# Characters per file: enough for three optimizer steps of two sequences each.
CHARACTERS = 6_000
# Conversations without tools: the example row of `openai` has tools, which many templates do not support.
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
def docstring_rows() -> dict[str, dict[str, Any]]:
    """Return the example row in the docstring of each registered map function, by its name."""
    return {data_format.name: data_format.row for data_format in formats()}


@cache
def tokenizer_texts() -> list[str]:
    """Return all example rows as JSON, to train tokenizers on."""
    return [json.dumps(row, ensure_ascii=False) for row in [*docstring_rows().values(), *CHATS]]


def rows_file(folder: Path, map_fn: str, path: str) -> Path:
    """Return a file of rows for `map_fn` with the file type of `path`, written on the first call.

    The file type for a hub data set is JSON lines.
    """
    suffix = Path(path).suffix if Path(path).suffix in ('.json', '.jsonl', '.txt', '.xlsx') else '.jsonl'
    file = folder / f'{map_fn}{suffix}'
    if not file.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        base = CHATS if map_fn in ('openai', 'auto') else [docstring_rows()[map_fn]]
        size = sum(len(json.dumps(row, ensure_ascii=False)) for row in base)
        temporary = file.with_name(f'.{file.name}')
        _write(temporary, suffix, base * (CHARACTERS // size + 1))
        temporary.rename(file)
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
