"""Tokenize a source once, in parallel, into a cached Arrow file.

This runs before a process group or a GPU context exists. Chunks of rows are written in order, so the number of
processes changes only the time. The cache key is the content: rows, map function, template, tokenizer, length.
"""

import hashlib
import itertools
import json
import os
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pyarrow as pa
from filelock import FileLock

from ..config.sections import Source
from ..utils.cache import cache_folder, cache_root
from .encode import Encoder
from .encode_rows import CHUNK, encode_rows
from .mapper import RowMapper
from .open_source import finish_report, open_source
from .report import Report
from .sources import Row, RowSource
from .store import SCHEMA, TokenStore, content_of, to_batch
from .unread_files import FilesReadElsewhere
from .worker_pool import map_in_order

CACHE_VERSION = 6  # increase when the meaning of cached data changes


def prepare(
    source: Source,
    encoder: Encoder,
    *,
    num_proc: int | None,
    max_bad_rows: float,
    strict: bool = False,
    elsewhere: FilesReadElsewhere = frozenset(),
) -> tuple[TokenStore, Report]:
    """Return the samples of `source` and a report on its rows; tokenize it unless it is cached.

    Args:
        source: The section.
        encoder: Encodes its rows.
        num_proc: Worker processes; None: one per CPU.
        max_bad_rows: Share of unusable rows above which the run stops.
        strict: Stop if some data are not used.
        elsewhere: Files that other sources of the run read, so that they are not reported as unread.

    Raises:
        DataError: The source is missing, broken, or has too many unusable rows; or, if `strict`, some of its data are
            not used.
    """
    rows = RowSource(source, elsewhere=elsewhere)
    mapper = open_source(rows, encoder)
    folder = cache_root() / 'data' / _cache_key(rows, mapper, encoder)
    if not (folder / 'report.json').is_file():
        # One process per host tokenizes; the other ranks on the host wait here, outside of any collective.
        with FileLock(cache_folder('locks') / folder.name):
            if not (folder / 'report.json').is_file():
                cache_folder('data')
                _write(
                    rows, mapper, encoder, folder, num_proc=num_proc or os.cpu_count() or 1, max_bad_rows=max_bad_rows
                )
    saved = json.loads((folder / 'report.json').read_text(encoding='utf-8'))
    report = Report.from_json(saved['report'])
    report.require_usable(source.path, max_bad_rows)
    for sentence in saved['unread']:
        rows.note_unread(sentence)
    finish_report(report, rows, encoder)
    if strict:
        report.require_all_used(source.path)
    return TokenStore(folder / 'samples.arrow', saved['origins'], saved['content_hash']), report


def _cache_key(rows: RowSource, mapper: RowMapper, encoder: Encoder) -> str:
    parts = (CACHE_VERSION, rows.fingerprint(), mapper.identity(), encoder.identity())
    return hashlib.blake2b(repr(parts).encode(), digest_size=16).hexdigest()


def _write(
    rows: RowSource, mapper: RowMapper, encoder: Encoder, folder: Path, *, num_proc: int, max_bad_rows: float
) -> None:
    """Encode all rows into `folder`, which appears only when it is complete."""
    work = partial(_encode_batch, mapper=mapper, encoder=encoder)
    staging = folder.with_name(f'{folder.name}.{os.getpid()}.tmp')
    staging.mkdir(parents=True)
    total, origins, content = Report(format=mapper.name), {}, hashlib.blake2b(digest_size=16)
    try:
        with pa.OSFile(str(staging / 'samples.arrow'), 'wb') as sink, pa.ipc.new_file(sink, SCHEMA) as writer:
            for batch, names, report in map_in_order(work, _chunks(rows), num_proc):
                total.add(report)
                content.update(content_of(batch))
                numbers = pa.array([origins.setdefault(name, len(origins)) for name in names], pa.int32())
                writer.write_batch(batch.set_column(3, SCHEMA.field('origin'), numbers.take(batch.column('origin'))))
        total.require_usable(rows.source.path, max_bad_rows)
        saved = dict(report=total.to_json(), origins=list(origins), content_hash=content.hexdigest())
        saved['unread'] = list(rows.unread_parts)
        (staging / 'report.json').write_text(json.dumps(saved, ensure_ascii=False), encoding='utf-8')
        if folder.exists():  # another run was faster
            return
        staging.rename(folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _encode_batch(chunk: list[Row], mapper: RowMapper, encoder: Encoder) -> tuple[pa.RecordBatch, list[str], Report]:
    """Return the samples of a chunk in `SCHEMA`, the origins that its column `origin` indexes, and the report."""
    samples, rows, report = encode_rows(chunk, mapper, encoder)
    names = list(dict.fromkeys(row.origin for row in rows))
    numbers = {name: i for i, name in enumerate(names)}
    return to_batch(samples, [row.number for row in rows], [numbers[row.origin] for row in rows]), names, report


def _chunks(rows: RowSource) -> Iterator[list[Row]]:
    iterator = iter(rows)
    while chunk := list(itertools.islice(iterator, CHUNK)):
        yield chunk
