"""Write the generated tables of docs/en/devices.md and docs/zh/devices.md.

    python tools/devices_page.py           write the pages that are outdated
    python tools/devices_page.py --check   write nothing; exit with 1 if a page is outdated

Runs on a CPU in seconds and prints nothing. The tables are the compatible methods and strategies
(xtune/parallel/compatibility.py), and the estimates of `xtune plan --gpus` for the presets of Llama 3 70B.
"""

import argparse
import sys
from functools import cache
from pathlib import Path

from xtune.config.load import load
from xtune.config.presets import find
from xtune.config.wire import wire
from xtune.parallel.compatibility import METHODS, REFUSED, STRATEGIES
from xtune.planning.estimator import MemoryEstimator
from xtune.planning.sharding import ShardedSizes
from xtune.planning.strategies import Cluster, fsdp2_memory
from xtune.planning.units import GIB

PAGES = [Path(__file__).resolve().parents[1] / 'docs' / language / 'devices.md' for language in ('en', 'zh')]
MODEL, DATA = 'llama3_70b_chat', 'oasst1_e3'
# Number of GPUs, and GB per GPU; at most eight GPUs per host.
MACHINES = [(2, 40), (4, 24), (8, 80), (16, 80)]


def compatibility() -> str:
    """Return the table of methods and strategies, and the reasons of incompatible combinations below it."""
    strategies = [name for name in STRATEGIES if name != 'one_device']
    text = '| | ' + ' | '.join(f'`{name}`' for name in strategies) + ' |\n' + '|---' * (len(strategies) + 1) + '|\n'
    reasons: dict[str, list[tuple[str, str]]] = {}
    for method in METHODS:
        cells = []
        for strategy in strategies:
            reason = REFUSED.get((method, strategy))
            cells.append('no' if reason else 'yes')
            if reason:
                reasons.setdefault(reason, []).append((method, strategy))
        text += f'| `{method}` | {" | ".join(cells)} |\n'
    lines = []
    for reason, pairs in reasons.items():
        method_names = ', '.join(dict.fromkeys(f'`{method}`' for method, _ in pairs))
        strategy_names = ', '.join(dict.fromkeys(f'`{strategy}`' for _, strategy in pairs))
        lines.append(f'- {method_names}, {strategy_names}: {reason}.\n')
    return text + '\n' + ''.join(lines)


def sharded_sizes(method: str) -> ShardedSizes:
    """Return the sharded sizes of the preset of the 70B model with `method`."""
    path = find(f'{MODEL}_{method}_{DATA}')
    return MemoryEstimator(wire(load(path), path.stem).step).sharded_sizes()


@cache
def memory() -> str:
    """Return the memory table of a 70B model: GiB per GPU + GiB per host, by machine and method; bold if it fits."""
    methods = {method: sharded_sizes(method) for method in ('qlora', 'lora', 'full')}
    text = '| | ' + ' | '.join(f'`{method}`' for method in methods) + ' |\n|---|---|---|---|\n'
    for gpus, gb in MACHINES:
        for strategy in ('fsdp2', 'fsdp2_offload'):
            cells = []
            for sizes in methods.values():
                need = fsdp2_memory(strategy, sizes, Cluster(gpus, -(-gpus // 8)))
                device = f'{need.device / GIB:,.1f}'
                cells.append((f'**{device}**' if need.fits(gb) else device) + f' + {need.host / GIB:,.0f}')
            text += f'| {gpus} x {gb} GB, `{strategy}` | {" | ".join(cells)} |\n'
    return text


def with_tables(text: str) -> str:
    """Return the text of a page with its tables replaced.

    Raises:
        ValueError: A table has no markers.
    """
    for name, table in (('compatibility', compatibility()), ('memory', memory())):
        start, end = f'<!-- {name}: tools/devices_page.py -->', f'<!-- end of {name} -->'
        before, start_found, rest = text.partition(start)
        _, end_found, after = rest.partition(end)
        if not start_found or not end_found:
            raise ValueError(f'the page has no lines `{start}` and `{end}`')
        text = f'{before}{start}\n\n{table}\n{end}{after}'
    return text


def main() -> None:
    """Write the outdated pages, or only check for them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--check', action='store_true', help='write nothing; exit with 1 if a page is outdated')
    args = parser.parse_args()
    texts = {page: page.read_text(encoding='utf-8') for page in PAGES}
    outdated = {page: with_tables(text) for page, text in texts.items() if text != with_tables(text)}
    if args.check:
        sys.exit(bool(outdated))
    for page, text in outdated.items():
        page.write_text(text, encoding='utf-8')


if __name__ == '__main__':
    main()
