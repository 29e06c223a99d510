"""`xtune convert pth_to_hf | merge | split | legacy`."""

import argparse
from pathlib import Path
from typing import Any

from .options import add_variant


def _add(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest='action', metavar='ACTION', required=True)
    _add_pth_to_hf(
        _add_action(
            actions,
            'pth_to_hf',
            'convert a .pth checkpoint to a Hugging Face folder',
            'xtune convert pth_to_hf my_cfg.py work_dirs/my_cfg/epoch_3.pth ./adapter',
        )
    )
    _add_merge(
        _add_action(
            actions,
            'merge',
            'merge an adapter into its base model and compare the logits',
            'xtune convert merge HuggingFaceTB/SmolLM2-135M-Instruct ./adapter ./merged',
        )
    )
    _add_legacy(
        _add_action(
            actions,
            'legacy',
            'convert a 2023 remote-code checkpoint (InternLM, Baichuan, Qwen, ChatGLM2 and 3) to the native layout',
            'xtune convert legacy internlm/internlm-7b ./internlm-7b-hf',
        )
    )
    _add_split(
        _add_action(
            actions,
            'split',
            'rewrite a model with smaller weight files',
            'xtune convert split ./merged ./small --max-shard-size 1GB',
        )
    )


def _add_action(actions: Any, name: str, summary: str, example: str) -> argparse.ArgumentParser:
    return actions.add_parser(
        name,
        help=summary,
        description=summary,
        epilog=f'example:\n  {example}',
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def _add_max_shard_size(parser: argparse.ArgumentParser, default: str) -> None:
    parser.add_argument(
        '--max-shard-size',
        default=default,
        metavar='SIZE',
        help='maximum size of a weight file, such as 2GB (default: %(default)s)',
    )


def _add_no_verify(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        '--no-verify',
        dest='verify',
        action='store_false',
        help='skip the comparison with the logits saved in training',
    )


def _add_pth_to_hf(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('config', help='config file or preset name that the checkpoint was trained with')
    parser.add_argument('checkpoint', help='the .pth file')
    parser.add_argument('target', help='new folder')
    _add_max_shard_size(parser, '5GB')
    _add_no_verify(parser)


def _add_merge(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('base', help='base model: folder or Hub name')
    parser.add_argument('adapter', help='adapter folder')
    parser.add_argument('target', help='new folder')
    _add_max_shard_size(parser, '5GB')
    parser.add_argument(
        '--device', choices=('cpu', 'cuda'), default='cpu', help='device to merge on (default: %(default)s)'
    )
    parser.add_argument(
        '--dtype',
        choices=('auto', 'bfloat16', 'float16', 'float32'),
        default='auto',
        help='dtype of the merged weights; auto: dtype of the base (default)',
    )
    parser.add_argument(
        '--layout',
        choices=('native', 'original'),
        default='native',
        help='native: the layout of transformers (default); original: that of a 2023 remote-code checkpoint',
    )
    add_variant(parser)
    parser.add_argument('--revision', help='branch, tag or commit of the base on the Hub')
    _add_no_verify(parser)


def _add_legacy(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('source', help='model folder or Hub name')
    parser.add_argument('target', help='new folder')
    _add_max_shard_size(parser, '5GB')
    add_variant(parser)


def _add_split(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('source', help='model folder')
    parser.add_argument('target', help='new folder')
    _add_max_shard_size(parser, '2GB')
    _add_no_verify(parser)


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
