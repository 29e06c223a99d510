"""Tokenise a source once, in parallel, into a cached Arrow file.

This runs before a process group or a GPU context exists. Chunks of rows are numbered and written in order, so the
number of processes changes nothing but the time. The cache's key is the content: rows, map function, template,
tokenizer, length.
"""

import hashlib
import inspect
import itertools
import json
import multiprocessing
import os
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pyarrow as pa
from tqdm import tqdm

from ..config.lazy import named
from ..config.sections import Source
from ..errors import DataError
from ..registry import MAP_FNS, lookup
from .cache import cache_root
from .conversation import Message, RowError, checked
from .detect import fitting, require
from .encode import Encoder
from .report import EXAMPLES, Report
from .sources import Row, RowSource
from .store import SCHEMA, TokenStore, to_batch

FORMAT = 2  # raise it when what is cached changes its meaning
CHUNK = 500  # rows
# Below this a pool costs more than it saves.
POOL_FROM = 4 * CHUNK


def prepare(source: Source, encoder: Encoder, num_proc: int | None, max_bad_rows: float) -> tuple[TokenStore, Report]:
    """Return the samples of `source` and what happened to its rows.

    Raises:
        DataError: The source is missing, broken, or has too many unusable rows.
    """
    rows = RowSource(source)
    map_fn = bound_map_fn(source, rows.head(5))
    folder = cache_root() / 'data' / _key(rows, map_fn, encoder)
    if not (folder / 'report.json').is_file():
        _write(rows, map_fn, encoder, num_proc or os.cpu_count() or 1, max_bad_rows, folder)
    saved = json.loads((folder / 'report.json').read_text(encoding='utf-8'))
    report = Report.from_json(saved['report'])
    report.require_usable(source.path, max_bad_rows)
    return TokenStore(folder / 'samples.arrow', saved['origins'], saved['content']), report


def bound_map_fn(source: Source, head: list[Row]) -> Callable[[dict], list[Message]]:
    """Return the map function of `source` with its arguments, tried on the first rows.

    Raises:
        ConfigError: No function is registered, or can be imported, under that name.
        DataError: It fits none of the rows; the message names the one that would.
    """
    name = source.map_fn
    if name == 'auto':
        name = require(head[0].values, source.path)
    is_registered = isinstance(name, str) and '.' not in name
    function = lookup(MAP_FNS, name) if is_registered else named(name)
    try:
        inspect.signature(function).bind({}, **(source.map_args or {}))
    except TypeError as error:
        raise DataError(f'map function `{_label(function)}`: {error}; see train_dataset.map_args') from error
    bound = partial(function, **source.map_args) if source.map_args else function
    errors = []
    for row in head:
        try:
            _mapped(bound, row.values)
            return bound
        except RowError as error:
            errors.append(error)
    if all(error.reason.startswith(('no column', 'column', 'no "###')) for error in errors):
        better = fitting(head[0].values)
        hint = f"; map_fn='{better}' fits these columns" if better and lookup(MAP_FNS, better) is not function else ''
        raise DataError(f'{head[0].place} does not fit the map function `{_label(function)}`: {errors[0]}{hint}')
    return bound


def _label(function: Callable) -> str:
    return getattr(function, '__name__', str(function))


def _key(rows: RowSource, map_fn: Callable, encoder: Encoder) -> str:
    function = getattr(map_fn, 'func', map_fn)
    try:
        code = inspect.getsource(inspect.getmodule(function) or function)
    except (OSError, TypeError):
        code = repr(function)
    backend = getattr(encoder.tokenizer, 'backend_tokenizer', None)
    vocabulary = backend.to_str() if backend is not None else json.dumps(encoder.tokenizer.get_vocab(), sort_keys=True)
    settings = (
        FORMAT,
        rows.fingerprint(),
        _label(function),
        code,
        repr(getattr(map_fn, 'keywords', None)),
        encoder.template.source,
        sorted(encoder.template.variables.items()),
        encoder.max_length,
        encoder.overlong,
        vocabulary,
    )
    return hashlib.blake2b(repr(settings).encode(), digest_size=16).hexdigest()


def _write(rows, map_fn, encoder: Encoder, num_proc: int, max_bad_rows: float, folder: Path) -> None:
    """Encode all rows into `folder`, which appears only when it is whole."""
    work = partial(_encode_chunk, map_fn=map_fn, encoder=encoder)
    aside = folder.with_name(f'{folder.name}.{os.getpid()}.tmp')
    aside.mkdir(parents=True)
    total, origins, content = Report(), {}, hashlib.blake2b(digest_size=16)
    try:
        with pa.OSFile(str(aside / 'samples.arrow'), 'wb') as sink, pa.ipc.new_file(sink, SCHEMA) as writer:
            for samples, numbers, places, report in _results(work, _chunks(rows), num_proc):
                total.add(report)
                for sample in samples:
                    content.update(sample.ids.tobytes() + repr(sample.spans).encode())
                indices = [origins.setdefault(place, len(origins)) for place in places]
                writer.write_batch(to_batch(samples, numbers, indices))
        total.require_usable(rows.source.path, max_bad_rows)
        saved = dict(report=total.to_json(), origins=list(origins), content=content.hexdigest())
        (aside / 'report.json').write_text(json.dumps(saved, ensure_ascii=False), encoding='utf-8')
        if folder.exists():  # another run was faster
            return
        aside.rename(folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _chunks(rows: RowSource) -> Iterator[list[Row]]:
    iterator = iter(rows)
    while chunk := list(itertools.islice(iterator, CHUNK)):
        yield chunk


def _results(work: Callable, chunks: Iterator[list[Row]], num_proc: int) -> Iterator[tuple]:
    head = list(itertools.islice(chunks, POOL_FROM // CHUNK))
    everything = itertools.chain(head, chunks)
    bar = partial(tqdm, desc='tokenising', unit=' chunks of rows', disable=None, leave=False)
    if num_proc == 1 or len(head) < POOL_FROM // CHUNK:
        yield from bar(map(work, everything))
        return
    os.environ.setdefault('TOKENIZERS_PARALLELISM', 'false')  # processes, not threads below each of them
    # Set before the fork, so that the tokenizer is not pickled for every chunk.
    global _work
    _work = work
    with multiprocessing.get_context('fork').Pool(num_proc) as pool:
        yield from bar(pool.imap(_in_pool, everything))


_work: Callable | None = None


def _in_pool(chunk: list[Row]) -> tuple:
    return _work(chunk)


def _mapped(map_fn: Callable, row: dict) -> list[Message]:
    """Return `map_fn(row)`; a row that the function did not expect is a bad row, not the end of the run."""
    try:
        return map_fn(row)
    except RowError:
        raise
    except (TypeError, ValueError, LookupError, AttributeError) as error:
        raise RowError('the map function fails', f'{type(error).__name__}: {error}') from error


def _encode_chunk(chunk: list[Row], map_fn: Callable, encoder: Encoder) -> tuple:
    """Return (samples, row numbers, origins, report) of a chunk of rows."""
    report, samples, numbers, places = Report(rows=len(chunk)), [], [], []
    encoder.notes.clear()
    for row in chunk:
        try:
            made = encoder(checked(_mapped(map_fn, row.values)))
        except RowError as error:
            report.bad[error.reason] += 1
            if len(report.examples) < EXAMPLES:
                report.examples.append((row.place, str(error)))
            continue
        except DataError as error:
            raise DataError(f'{row.place}: {error}') from error
        samples += made
        numbers += [row.number] * len(made)
        places += [row.origin] * len(made)
    report.notes.update(encoder.notes)
    report.samples = len(samples)
    report.tokens = sum(len(s.ids) for s in samples)
    report.trained_tokens = sum(end - start for s in samples for start, end in s.spans)
    return samples, numbers, places, report
