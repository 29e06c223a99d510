"""`xtune chat`."""

import argparse

from .options import add_variant


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f'must be at least 1, got {value}')
    return value


def _between(low: float, high: float):
    def check(text: str) -> float:
        value = float(text)
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f'must be between {low:g} and {high:g}, got {value:g}')
        return value

    return check


def _add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('model', help='model folder or hub name')
    parser.add_argument('--adapter', help='adapter folder to put on the model')
    parser.add_argument('--bits', type=int, choices=(4, 8), help='quantise the weights while loading')
    parser.add_argument('--system', help='system message')
    parser.add_argument('--prompt', help='answer this once and leave')
    parser.add_argument('--template', default='auto', help="chat template (default: the model's own)")
    parser.add_argument('--max-new-tokens', type=_positive, default=512, help='tokens per reply at most (default: 512)')
    parser.add_argument(
        '--temperature', type=_between(0, 10), default=0.0, help='0 always takes the likeliest token (default: 0)'
    )
    parser.add_argument(
        '--top-p', type=_between(0, 1), default=0.9, help='with a temperature: nucleus size (default: 0.9)'
    )
    parser.add_argument('--seed', type=int, help='with a temperature: makes replies repeatable')
    add_variant(parser)


def _run(args: argparse.Namespace) -> int:
    from ..chat.session import ChatSettings
    from ..chat.terminal import open_session, talk

    settings = ChatSettings(args.max_new_tokens, args.temperature, args.top_p)
    how = args.bits, args.system, args.template, settings, args.seed, args.variant
    session = open_session(args.model, args.adapter, *how)
    if args.prompt is not None:
        session.ask(args.prompt, stream=True)
    else:
        talk(session)
    return 0


COMMANDS = {
    'chat': (
        'talk to a model, with an adapter or merged, in full precision or 4 bits',
        'xtune chat ./merged --bits 4 --prompt "Who are you?"',
        _add,
        _run,
    )
}
