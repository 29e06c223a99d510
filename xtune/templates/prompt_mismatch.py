"""Describe how the text before a `{% generation %}` block differs from the inference prompt, and what to change."""

from os.path import commonprefix

from .rendering import Span

_WIDTH = 60  # characters shown of a text


def prompt_mismatch(prompt: str, text: str, span: Span) -> str:
    """Return the difference between `prompt` and the text before `span`, and the change that removes it.

    Args:
        prompt: The inference prompt.
        text: The training text.
        span: The characters of the block in `text`.
    """
    equal = _before_cut_tag(len(commonprefix([prompt, text])), prompt)
    if equal < len(prompt):
        fault = f'writes an inference prompt that differs from the training text from character {equal + 1} on'
        fix = f'Write {prompt[equal:][:_WIDTH]!r} before {{% generation %}} in each message, or drop it from the prompt'
        first = max(equal - _WIDTH // 2, 0)
    elif span[0] < equal:
        inside = text[span[0] : equal]
        fault = f'has {inside!r} inside {{% generation %}}, although the inference prompt already contains it'
        fix = f'Write {inside!r} before {{% generation %}}'
        first = max(span[0] - _WIDTH // 2, 0)
    else:
        gap = text[equal : span[0]]
        fault = f'writes {gap!r} between the inference prompt and {{% generation %}}, which the model never learns'
        fix = f'Write {gap!r} for add_generation_prompt too, or after {{% generation %}}'
        first = max(equal - _WIDTH // 2, 0)
    return (
        f'{fault}:\n'
        f'  inference prompt  {_excerpt(prompt, first)}\n'
        f'  training text     {_excerpt(text, first)}\n'
        f'  trained           {_excerpt(text[: span[1]], span[0])}\n'
        f'{fix}.'
    )


def _before_cut_tag(position: int, text: str) -> int:
    """Return `position`, or the start of the <tag> that it would cut in two."""
    opened = text.rfind('<', 0, position)
    return opened if text.rfind('>', 0, position) < opened and position < len(text) else position


def _excerpt(text: str, first: int) -> str:
    """Return the characters of `text` from `first` on, cut to one line."""
    shown = text[first : first + 2 * _WIDTH]
    return ('...' if first else '') + repr(shown)[1:-1] + ('...' if first + len(shown) < len(text) else '')
