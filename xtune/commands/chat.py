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
    parser.add_argument('model', help='model folder or Hub name')
    parser.add_argument('--adapter', help='adapter folder to load on top of the model')
    parser.add_argument('--bits', type=int, choices=(4, 8), help='quantize the weights while loading')
    parser.add_argument('--system', help='system message')
    parser.add_argument('--prompt', help='answer this prompt and exit')
    parser.add_argument('--template', default='auto', help="chat template (default: the model's own)")
    parser.add_argument(
        '--max-new-tokens', type=_positive, default=512, help='maximum new tokens per response (default: 512)'
    )
    parser.add_argument(
        '--temperature', type=_between(0, 10), default=0.0, help='sampling temperature; 0: greedy decoding (default: 0)'
    )
    parser.add_argument(
        '--top-p',
        type=_between(0, 1),
        default=0.9,
        help='nucleus sampling threshold, used with --temperature (default: 0.9)',
    )
    parser.add_argument('--seed', type=int, help='random seed for sampling, used with --temperature')
    add_variant(parser)


def _run(args: argparse.Namespace) -> int:
    from ..chat.session import ChatSettings
    from ..chat.terminal import open_session, talk

    settings = ChatSettings(args.max_new_tokens, args.temperature, args.top_p)
    session = open_session(
        args.model,
        args.adapter,
        bits=args.bits,
        system=args.system,
        template=args.template,
        settings=settings,
        seed=args.seed,
        variant=args.variant,
    )
    if args.prompt is not None:
        session.ask(args.prompt, stream=True)
    else:
        talk(session)
    return 0


COMMANDS = {
    'chat': (
        'chat with a model, with an adapter or merged, in full precision or quantized',
        'xtune chat ./merged --bits 4 --prompt "Who are you?"',
        _add,
        _run,
    )
}
