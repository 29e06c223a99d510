"""The figures of all runs as a Markdown table and as JSON."""

from dataclasses import asdict
from typing import Any

from common.tables import markdown

from .cases import Result

COLUMNS = [
    'model',
    'method',
    'length',
    'checkpointing',
    'contender',
    'tokens/s',
    'peak GiB',
    'xtune to it',
    'first loss',
    'last loss',
    's to first step',
]


def ratio(result: Result, results: list[Result]) -> float | None:
    """Return the speed of xtune at the same work to that of `result`; None: one of them has none."""
    same = (r for r in results if r.case.contender == 'xtune' and r.case.work == result.case.work)
    ours = next(same, None)
    return ours.speed / result.speed if ours and ours.speed and result.speed else None


def compared(result: Result, results: list[Result]) -> dict[str, Any]:
    """Return what the JSON says of a run."""
    figures = {name: value for name, value in asdict(result).items() if name != 'case'}
    return asdict(result.case) | figures | dict(xtune_to_it=ratio(result, results))


def table(results: list[Result]) -> str:
    """Return the Markdown table."""
    rows = []
    for result in results:
        case = result.case
        way = f'{case.checkpointing} ({result.recomputed})' if result.recomputed else case.checkpointing
        cells = [case.model, case.method, f'{case.length:,}', way, case.contender]
        if result.problem:
            rows.append([*cells, f'**{result.problem}**'])
            continue
        share = ratio(result, results)
        cells += [f'{result.speed:,.0f}', f'{result.memory:.1f}', '-' if share is None else f'{share:.3f}']
        rows.append([*cells, f'{result.first_loss:.4f}', f'{result.last_loss:.4f}', f'{result.first_step:.1f}'])
    return markdown(COLUMNS, rows)
