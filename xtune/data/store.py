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
    columns = [
        pa.array([s.ids for s in samples], SCHEMA.field('ids').type),
        pa.array([[x for span in s.spans for x in span] for s in samples], SCHEMA.field('spans').type),
        pa.array(rows, pa.int64()),
        pa.array(origins, pa.int32()),
    ]
    return pa.record_batch(columns, schema=SCHEMA)


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
