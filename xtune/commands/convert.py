"""`xtune convert pth_to_hf | merge | split | legacy`."""

import argparse
from pathlib import Path

from .options import add_variant


def _add(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest='action', metavar='ACTION', required=True)

    def action(name: str, summary: str, example: str) -> argparse.ArgumentParser:
        return actions.add_parser(
            name,
            help=summary,
            description=summary,
            epilog=f'example:\n  {example}',
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    unverified = dict(dest='verify', action='store_false', help='skip the comparison with the logits saved in training')
    size = dict(metavar='SIZE', help='maximum size of a weight file, such as 2GB (default: %(default)s)')
    to_hf = action(
        'pth_to_hf',
        'convert a .pth checkpoint to a Hugging Face folder',
        'xtune convert pth_to_hf my_cfg.py work_dirs/my_cfg/epoch_3.pth ./adapter',
    )
    to_hf.add_argument('config', help='config file or preset name that the checkpoint was trained with')
    to_hf.add_argument('checkpoint', help='the .pth file')
    to_hf.add_argument('target', help='new folder')
    to_hf.add_argument('--max-shard-size', default='5GB', **size)
    to_hf.add_argument('--no-verify', **unverified)

    merge = action(
        'merge',
        'merge an adapter into its base model and compare the logits',
        'xtune convert merge HuggingFaceTB/SmolLM2-135M-Instruct ./adapter ./merged',
    )
    merge.add_argument('base', help='base model: folder or Hub name')
    merge.add_argument('adapter', help='adapter folder')
    merge.add_argument('target', help='new folder')
    merge.add_argument('--max-shard-size', default='5GB', **size)
    merge.add_argument(
        '--device', choices=('cpu', 'cuda'), default='cpu', help='device to merge on (default: %(default)s)'
    )
    merge.add_argument(
        '--dtype',
        choices=('auto', 'bfloat16', 'float16', 'float32'),
        default='auto',
        help='dtype of the merged weights; auto: dtype of the base (default)',
    )

    merge.add_argument(
        '--layout',
        choices=('native', 'original'),
        default='native',
        help='native: the layout of transformers (default); original: that of a 2023 remote-code checkpoint',
    )
    add_variant(merge)
    merge.add_argument('--revision', help='branch, tag or commit of the base on the Hub')
    merge.add_argument('--no-verify', **unverified)

    legacy = action(
        'legacy',
        'convert a 2023 remote-code checkpoint (InternLM, Baichuan, Qwen, ChatGLM2 and 3) to the native layout',
        'xtune convert legacy internlm/internlm-7b ./internlm-7b-hf',
    )
    legacy.add_argument('source', help='model folder or Hub name')
    legacy.add_argument('target', help='new folder')
    legacy.add_argument('--max-shard-size', default='5GB', **size)
    add_variant(legacy)

    split = action(
        'split',
        'rewrite a model with smaller weight files',
        'xtune convert split ./merged ./small --max-shard-size 1GB',
    )
    split.add_argument('source', help='model folder')
    split.add_argument('target', help='new folder')
    split.add_argument('--max-shard-size', default='2GB', **size)
    split.add_argument('--no-verify', **unverified)


def _run(args: argparse.Namespace) -> int:
    from ..utils.cpu_threads import use_free_cores

    use_free_cores()  # the comparison of logits runs on the CPU
    return {'pth_to_hf': _pth_to_hf, 'merge': _merge, 'split': _split, 'legacy': _legacy}[args.action](args)


def _pth_to_hf(args: argparse.Namespace) -> int:
    from ..config.presets import find
    from ..export.pth_to_hf import pth_to_hf
    from ..export.shards import parse_size
    from ..export.verify import summary_line

    parse_size(args.max_shard_size)
    exported = pth_to_hf(find(args.config), Path(args.checkpoint), Path(args.target), args.max_shard_size, args.verify)
    print(f'wrote the {"adapter" if exported.is_adapter else "model"} to {args.target}')
    for note in exported.notes:
        print(f'note: {note}')
    print(summary_line(exported.report))
    return 0


def _merge(args: argparse.Namespace) -> int:
    from ..export.merge import merge
    from ..export.shards import parse_size
    from ..export.verify import summary_line

    parse_size(args.max_shard_size)
    report = merge(
        args.base,
        args.adapter,
        Path(args.target),
        args.max_shard_size,
        args.device,
        args.dtype,
        args.layout,
        args.variant,
        args.verify,
        args.revision,
    )
    dtype = report['dtype']
    cause = f'rounding to {dtype} is expected; --dtype float32 merges exactly'
    cause = 'float32 rounding' if dtype == 'float32' else cause
    print(
        f'wrote the merged model to {args.target} ({dtype}). Compared with base + adapter: largest logit '
        f'difference {report["max_abs_diff"]:.2e}, mean KL {report["mean_kl"]:.2e} nats, same top-1 token at '
        f'{report["same_first_choice"]:.1%} of positions ({cause}; figures in merge_report.json)'
    )
    print(summary_line(report['training']))
    return 0


def _legacy(args: argparse.Namespace) -> int:
    from ..export.legacy_layout import convert_legacy

    converted = convert_legacy(args.source, Path(args.target), args.max_shard_size, args.variant)
    files = f'{converted.files} weight file{"s" * (converted.files != 1)}'
    print(f'wrote {args.target}: {converted.variant} as {converted.model_class}, {files}')
    for note in converted.notes:
        print(f'note: {note}')
    return 0


def _split(args: argparse.Namespace) -> int:
    from ..export.split import split
    from ..export.verify import summary_line

    count, report = split(Path(args.source), Path(args.target), args.max_shard_size, args.verify)
    print(f'wrote {count} weight file{"s" * (count != 1)} to {args.target}')
    print(summary_line(report))
    return 0


COMMANDS = {
    'convert': (
        'convert checkpoints and models',
        'xtune convert merge HuggingFaceTB/SmolLM2-135M-Instruct ./adapter ./merged',
        _add,
        _run,
    )
}
