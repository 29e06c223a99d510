"""The page of `xtune log-dataset --html`: one HTML file without scripts and external resources."""

from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from ..config.specs import DataSpec
from ..data.split import Split
from ..data.training_data import TrainingData
from ..utils.atomic import write_text
from ..utils.visible import parts, visible
from .statistics import efficiency, histogram, length_text, sample_lengths, trained_share
from .survey import RowLengths
from .view import Segment, Viewer

MAX_SEQUENCES = 200
MAX_TOKENS = 200_000  # about 10 MB


def write_page(
    path: Path,
    name: str,
    base_model: str,
    spec: DataSpec,
    data: TrainingData,
    split: Split,
    rows: int,
    surveys: list[RowLengths | None],
) -> int:
    """Write statistics and the first `rows` sequences of `split` to `path`; return the number of sequences written.

    Raises:
        OSError: The file could not be written.
    """
    viewer = Viewer(split, data.tokenizer)
    sequences = [viewer.sequence(index) for index in range(fitting_count(split, rows))]
    lengths = sample_lengths(split)
    bins = histogram(lengths)
    page = (
        _environment()
        .get_template('page.html.jinja')
        .render(
            name=name,
            model=base_model,
            template=data.template.name,
            stops=data.tokenizer.convert_ids_to_tokens(data.stop_ids),
            packing=spec.values.packing,
            max_length=data.max_length,
            kind='training' if split is data.train else 'validation',
            window=spec.data.streaming and split is data.train,
            split=split,
            sources=list(zip(spec.train, data.train.reports, data.train.repeats, surveys, strict=True)),
            lengths=length_text(lengths),
            trained=trained_share(split),
            efficiency=efficiency(split, data.max_length),
            bins=bins,
            max_count=max(one.count for one in bins),
            sequences=sequences,
            requested=rows,
        )
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, page)
    return len(sequences)


def fitting_count(split: Split, rows: int, max_tokens: int = MAX_TOKENS) -> int:
    """Return how many of the first `rows` sequences a browser can display: at least one if `rows` > 0."""
    ends = np.cumsum(split.sequences.lengths[: min(rows, MAX_SEQUENCES)])
    return max(int((ends <= max_tokens).sum()), min(rows, 1))


def _runs(segment: Segment) -> list[tuple[bool, list]]:
    return [(trained, list(tokens)) for trained, tokens in groupby(segment.tokens, key=lambda token: token.trained)]


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters: dict[str, Any] = dict(visible=visible, parts=parts, runs=_runs)
    environment.filters.update(filters)
    return environment
