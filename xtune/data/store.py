"""Tokenized samples in a memory-mapped Arrow file, whose size is not limited by memory."""

from pathlib import Path

import numpy as np
import pyarrow as pa

from .sample import Sample

# spans: start0, end0, start1, end1, ... in token positions; row: number of the source row; origin: index of its file.
SCHEMA = pa.schema(
    [('ids', pa.large_list(pa.int32())), ('spans', pa.list_(pa.int32())), ('row', pa.int64()), ('origin', pa.int32())]
)


def to_batch(samples: list[Sample], rows: list[int], origins: list[int]) -> pa.RecordBatch:
    """Return samples, with the row number and origin of each, as one record batch of `SCHEMA`."""
    counts = np.cumsum([0, *(2 * len(s.spans) for s in samples)], dtype=np.int32)
    spans = np.array([position for s in samples for span in s.spans for position in span], dtype=np.int32)
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
    """Return bytes that determine all tokens and trained spans, to be hashed."""
    ids, spans = batch.column('ids'), batch.column('spans')
    arrays = (ids.values, ids.offsets, spans.values, spans.offsets)
    return b''.join(array.to_numpy(zero_copy_only=False).tobytes() for array in arrays)


class TokenStore:
    """Random access to the samples of one Arrow file.

    Args:
        path: The file.
        origins: Files or hub data sets of the samples, indexed by the column `origin`.
        content_hash: Hash of all tokens and spans.

    Attributes:
        lengths: Tokens of each sample [N].
    """

    def __init__(self, path: Path, origins: list[str], content_hash: str) -> None:
        self.path, self.origins, self.content_hash = path, origins, content_hash
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
        # A memory map cannot be pickled.
        return dict(path=self.path, origins=self.origins, content_hash=self.content_hash)

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
        """Return for every sample [N] a number of its source row that is unique across files."""
        return self._rows + (self._origins.astype(np.int64) << 40)

    def place(self, index: int) -> str:
        """Return file and row number of a sample."""
        return f'{self.origins[self._origins[index]]}, row {self._rows[index]}'

    def _cell(self, chunks: list, index: int) -> np.ndarray:
        chunk = int(np.searchsorted(self._starts, index, side='right')) - 1
        array, at = chunks[chunk], index - int(self._starts[chunk])
        offsets = array.offsets
        return array.values.slice(offsets[at].as_py(), offsets[at + 1].as_py() - offsets[at].as_py()).to_numpy()


class ConcatStore:
    """Concatenated stores: the samples of one run from several sources.

    Attributes:
        lengths: Tokens of each sample [N].
        offsets: Index of each store's first sample, then N: [len(stores) + 1].
        content_hash: The hashes of the stores.
    """

    def __init__(self, stores: list[TokenStore]) -> None:
        self.stores = stores
        self.offsets = np.cumsum([0, *map(len, stores)])
        self.lengths = np.concatenate([store.lengths for store in stores])
        self.content_hash = ' '.join(store.content_hash for store in stores)

    def __len__(self) -> int:
        return int(self.offsets[-1])

    def ids(self, index: int) -> np.ndarray:
        """Return the token ids [S] of a sample, without copying."""
        store, local = self._find(index)
        return store.ids(local)

    def spans(self, index: int) -> np.ndarray:
        """Return the trained spans [n, 2] of a sample, in token positions."""
        store, local = self._find(index)
        return store.spans(local)

    def rows(self) -> np.ndarray:
        """Return for every sample [N] a number of its source row that is unique across sources."""
        numbers, offset = [], 0
        for store in self.stores:
            rows, inverse = np.unique(store.rows(), return_inverse=True)
            numbers.append(inverse + offset)
            offset += len(rows)
        return np.concatenate(numbers)

    def place(self, index: int) -> str:
        """Return file and row number of a sample."""
        store, local = self._find(index)
        return store.place(local)

    def _find(self, index: int) -> tuple[TokenStore, int]:
        """Return the store of a sample, and its index there."""
        number = int(np.searchsorted(self.offsets, index, side='right')) - 1
        return self.stores[number], index - int(self.offsets[number])
