"""Tokenise a source once, in parallel, into a cached Arrow file.

This runs before a process group or a GPU context exists. Chunks of rows are numbered and written in order, so the
number of processes changes nothing but the time. The cache's key is the content: rows, map function, template,
tokenizer, length.
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
from ..errors import DataError
from ..messages import RowError
from ..utils.cache import cache_folder, cache_root
from .encode import Encoder, Sample
from .left_out import Elsewhere
from .mapping import RowMapper, row_mapper
from .pool import in_order
from .prerendered import LOOK, refuse_prerendered
from .report import EXAMPLES, Report
from .sources import Row, RowSource
from .store import SCHEMA, TokenStore, content_of, to_batch
from .usage import Usage
from .wrapped_lines import hard_wrapped

FORMAT = 5  # raise it when what is cached changes its meaning
CHUNK = 500  # rows


def prepare(
    source: Source,
    encoder: Encoder,
    num_proc: int | None,
    max_bad_rows: float,
    strict: bool = False,
    elsewhere: Elsewhere = frozenset(),
) -> tuple[TokenStore, Report]:
    """Return the samples of `source` and what happened to its rows; `elsewhere` is what other sources of the run read.

    Raises:
        DataError: The source is missing, broken, or has too many unusable rows; or, if `strict`, something of it is not
            used.
    """
    rows = RowSource(source, elsewhere=elsewhere)
    mapper = opened(rows, encoder)
    folder = cache_root() / 'data' / _key(rows, mapper, encoder)
    if not (folder / 'report.json').is_file():
        # One process of a host tokenises; the others of its run wait here, outside of any collective.
        with FileLock(cache_folder('locks') / folder.name):
            if not (folder / 'report.json').is_file():
                cache_folder('data')
                _write(rows, mapper, encoder, num_proc or os.cpu_count() or 1, max_bad_rows, folder)
    saved = json.loads((folder / 'report.json').read_text(encoding='utf-8'))
    report = Report.from_json(saved['report'])
    report.require_usable(source.path, max_bad_rows)
    for what in saved['not_read']:
        rows.found_inside(what)
    conclude(report, rows, encoder)
    if strict:
        report.require_all_used(source.path)
    return TokenStore(folder / 'samples.arrow', saved['origins'], saved['content']), report


def opened(rows: RowSource, encoder: Encoder) -> RowMapper:
    """Return the mapper of a source whose first rows can be used.

    Raises:
        DataError: They fit no map function, or a chat template has been applied to them.
    """
    head = rows.head(LOOK)
    mapper = row_mapper(rows.source, head[:5], encoder.tokeniser.template.takes_thoughts)
    refuse_prerendered(head, mapper, encoder.tokeniser)
    rows.hints = hard_wrapped(rows)
    return mapper


def conclude(report: Report, rows: RowSource, encoder: Encoder) -> None:
    """Add to `report` what is known of the source beside its rows."""
    report.template = encoder.tokeniser.template.name if rows.source.chat_template else ''
    report.hints = rows.hints
    report.unused.not_read = rows.not_read
    report.unused.ignore(rows.source.ignore)


def encode_rows(chunk: list[Row], mapper: RowMapper, encoder: Encoder) -> tuple[list[Sample], list[Row], Report]:
    """Return the samples of a chunk of rows, the row of each sample, and the counts.

    Raises:
        DataError: A row is too long and `overlong` is 'error'.
    """
    report, samples, origins, usage = Report(rows=len(chunk)), [], [], Usage(mapper)
    encoder.notes.clear()
    results: list = []
    for row in chunk:
        try:
            results.append(mapper(row.values))
        except RowError as error:
            results.append(error)
    encoded = enumerate(encoder([given for given in results if not isinstance(given, RowError)]))
    report.too_long = encoder.too_long
    for row, result in zip(chunk, results, strict=True):
        index, made = (None, result) if isinstance(result, RowError) else next(encoded)
        if isinstance(made, DataError):
            raise DataError(f'{row.place}: {made}') from made
        if isinstance(made, RowError):
            report.bad[made.reason] += 1
            if len(report.examples) < EXAMPLES:
                report.examples.append((row.place, str(made)))
            continue
        samples += made
        origins += [row] * len(made)
        usage.look(row)
        for remark in encoder.remarks.get(index, ()):
            report.remark(remark, row.place)
        for name, shown in (*getattr(result, 'notes', ()), *encoder.left_out.get(index, ())):
            report.unused.count(name, row.place, shown)
    usage.add_to(report.unused)
    report.notes.update(encoder.notes)
    report.samples = len(samples)
    report.tokens = sum(len(s.ids) for s in samples)
    # Nothing predicts token 0.
    report.trained_tokens = sum(end - max(start, 1) for s in samples for start, end in s.spans)
    return samples, origins, report


def _key(rows: RowSource, mapper: RowMapper, encoder: Encoder) -> str:
    settings = (FORMAT, rows.fingerprint(), mapper.identity(), encoder.identity())
    return hashlib.blake2b(repr(settings).encode(), digest_size=16).hexdigest()


def _write(rows, mapper, encoder: Encoder, num_proc: int, max_bad_rows: float, folder: Path) -> None:
    """Encode all rows into `folder`, which appears only when it is whole."""
    work = partial(_encoded_batch, mapper=mapper, encoder=encoder)
    aside = folder.with_name(f'{folder.name}.{os.getpid()}.tmp')
    aside.mkdir(parents=True)
    total, origins, content = Report(format=mapper.name), {}, hashlib.blake2b(digest_size=16)
    try:
        with pa.OSFile(str(aside / 'samples.arrow'), 'wb') as sink, pa.ipc.new_file(sink, SCHEMA) as writer:
            for batch, names, report in in_order(work, _chunks(rows), num_proc):
                total.add(report)
                content.update(content_of(batch))
                known = pa.array([origins.setdefault(name, len(origins)) for name in names], pa.int32())
                writer.write_batch(batch.set_column(3, SCHEMA.field('origin'), known.take(batch.column('origin'))))
        total.require_usable(rows.source.path, max_bad_rows)
        found = list(rows.found)
        saved = dict(report=total.to_json(), origins=list(origins), content=content.hexdigest(), not_read=found)
        (aside / 'report.json').write_text(json.dumps(saved, ensure_ascii=False), encoding='utf-8')
        if folder.exists():  # another run was faster
            return
        aside.rename(folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _encoded_batch(chunk: list[Row], mapper: RowMapper, encoder: Encoder) -> tuple[pa.RecordBatch, list[str], Report]:
    """Return the samples of a chunk in `SCHEMA`, whose `origin` counts in the names that follow, and the report."""
    samples, rows, report = encode_rows(chunk, mapper, encoder)
    names = list(dict.fromkeys(row.origin for row in rows))
    places = {name: i for i, name in enumerate(names)}
    return to_batch(samples, [row.number for row in rows], [places[row.origin] for row in rows]), names, report


def _chunks(rows: RowSource) -> Iterator[list[Row]]:
    iterator = iter(rows)
    while chunk := list(itertools.islice(iterator, CHUNK)):
        yield chunk
