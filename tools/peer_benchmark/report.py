"""The results of all runs as a Markdown table and as JSON."""

from dataclasses import asdict
from typing import Any

from common.markdown_table import markdown_table

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
    """Return the speed of xtune for the same work divided by that of `result`; None if a speed is missing."""
    xtune_results = (r for r in results if r.case.contender == 'xtune' and r.case.work == result.case.work)
    xtune = next(xtune_results, None)
    return xtune.speed / result.speed if xtune and xtune.speed and result.speed else None


def json_record(result: Result, results: list[Result]) -> dict[str, Any]:
    """Return the entry of a run in benchmark.json."""
    values = {name: value for name, value in asdict(result).items() if name != 'case'}
    return asdict(result.case) | values | dict(xtune_to_it=ratio(result, results))


def results_table(results: list[Result]) -> str:
    """Return the Markdown table."""
    rows = []
    for result in results:
        case = result.case
        checkpointing = case.checkpointing + (f' ({result.checkpointed})' if result.checkpointed else '')
        cells = [case.model, case.method, f'{case.length:,}', checkpointing, case.contender]
        if result.problem:
            rows.append([*cells, f'**{result.problem}**'])
            continue
        xtune_to_it = ratio(result, results)
        cells += [f'{result.speed:,.0f}', f'{result.memory:.1f}', '-' if xtune_to_it is None else f'{xtune_to_it:.3f}']
        rows.append([*cells, f'{result.first_loss:.4f}', f'{result.last_loss:.4f}', f'{result.first_step:.1f}'])
    return markdown_table(COLUMNS, rows)
