"""Tokenised samples on disk: an Arrow file, memory-mapped, so its size is not bounded by memory."""

from pathlib import Path

import numpy as np
import pyarrow as pa

from .encode import Sample

# spans: start0, end0, start1, end1, ... in token positions; row: the source row's number.
SCHEMA = pa.schema(
    [('ids', pa.large_list(pa.int32())), ('spans', pa.list_(pa.int32())), ('row', pa.int64()), ('origin', pa.int32())]
)


def to_batch(samples: list[Sample], rows: list[int], origins: list[int]) -> pa.RecordBatch:
    """Return samples as one record batch of `SCHEMA`."""
    counts = np.cumsum([0, *(2 * len(s.spans) for s in samples)], dtype=np.int32)
    spans = np.array([border for s in samples for span in s.spans for border in span], dtype=np.int32)
    lengths = np.cumsum([0, *(len(s.ids) for s in samples)], dtype=np.int64)
    ids = np.concatenate([s.ids for s in samples]) if samples else np.zeros(0, np.int32)
    columns = [
        pa.LargeListArray.from_arrays(lengths, ids),
        pa.ListArray.from_arrays(counts, spans),
        pa.array(rows, pa.int64()),
        pa.array(origins, pa.int32()),
    ]
    return pa.record_batch(columns, schema=SCHEMA)


def content_of(batch: pa.RecordBatch) -> bytes:
    """Return bytes that differ if any token or trained span does."""
    ids, spans = batch.column('ids'), batch.column('spans')
    arrays = (ids.values, ids.offsets, spans.values, spans.offsets)
    return b''.join(array.to_numpy(zero_copy_only=False).tobytes() for array in arrays)


class TokenStore:
    """Random access to the samples of one Arrow file.

    `origins` names the files the samples come from, `content` is a hash of all tokens and spans; `lengths` [N] is in
    tokens.
    """

    def __init__(self, path: Path, origins: list[str], content: str) -> None:
        self.path, self.origins, self.content = path, origins, content
        self._open()

    def _open(self) -> None:
        table = pa.ipc.open_file(pa.memory_map(str(self.path))).read_all()
        chunks = {name: table.column(name).combine_chunks() for name in ('row', 'origin')}
        self._rows, self._origins = (chunks[name].to_numpy() for name in ('row', 'origin'))
        self._ids, self._spans = table.column('ids').chunks, table.column('spans').chunks
        counts = [len(chunk) for chunk in self._ids]
        self._starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        self.lengths = np.concatenate([np.diff(c.offsets.to_numpy()) for c in self._ids] or [np.zeros(0, np.int64)])

    def __getstate__(self) -> dict:
        return dict(
            path=self.path, origins=self.origins, content=self.content
        )  # a memory map does not travel between processes

    def __setstate__(self, state: dict) -> None:
        self.__init__(**state)

    def __len__(self) -> int:
        return len(self.lengths)

    def ids(self, index: int) -> np.ndarray:
        """Return the token ids [S] of a sample, without copying."""
        return self._cell(self._ids, index)

    def spans(self, index: int) -> np.ndarray:
        """Return the trained spans [n, 2] of a sample, in token positions."""
        return self._cell(self._spans, index).reshape(-1, 2)

    def rows(self) -> np.ndarray:
        """Return the source row's number of every sample, unique across files."""
        return self._rows + (self._origins.astype(np.int64) << 40)

    def place(self, index: int) -> str:
        """Return where a person finds the row of a sample."""
        return f'{self.origins[self._origins[index]]}, row {self._rows[index]}'

    def _cell(self, chunks: list, index: int) -> np.ndarray:
        chunk = int(np.searchsorted(self._starts, index, side='right')) - 1
        array, at = chunks[chunk], index - int(self._starts[chunk])
        offsets = array.offsets
        return array.values.slice(offsets[at].as_py(), offsets[at + 1].as_py() - offsets[at].as_py()).to_numpy()


class JoinedStore:
    """Several stores laid end to end: the samples of one run from several sources.

    `offsets` [len(stores) + 1] is the index of each store's first sample.
    """

    def __init__(self, stores: list[TokenStore]) -> None:
        self.stores = stores
        self.offsets = np.cumsum([0, *map(len, stores)])
        self.lengths = np.concatenate([store.lengths for store in stores])
        self.content = ' '.join(store.content for store in stores)

    def __len__(self) -> int:
        return int(self.offsets[-1])

    def ids(self, index: int) -> np.ndarray:
        """Return the token ids [S] of a sample, without copying."""
        store, at = self._find(index)
        return store.ids(at)

    def spans(self, index: int) -> np.ndarray:
        """Return the trained spans [n, 2] of a sample, in token positions."""
        store, at = self._find(index)
        return store.spans(at)

    def rows(self) -> np.ndarray:
        """Return the source row's number of every sample, unique across sources."""
        numbers, base = [], 0
        for store in self.stores:
            rows, which = np.unique(store.rows(), return_inverse=True)
            numbers.append(which + base)
            base += len(rows)
        return np.concatenate(numbers)

    def place(self, index: int) -> str:
        """Return where a person finds the row of a sample."""
        store, at = self._find(index)
        return store.place(at)

    def _find(self, index: int) -> tuple[TokenStore, int]:
        number = int(np.searchsorted(self.offsets, index, side='right')) - 1
        return self.stores[number], index - int(self.offsets[number])
