"""Map functions: one row of a data set -> a conversation. Each module shows a row and its result."""

from .alpaca import alpaca_map_fn
from .medqa import medqa_map_fn
from .oasst1 import oasst1_map_fn
from .openai import openai_map_fn
from .self_cognition import self_cognition_map_fn
from .sharegpt import sharegpt_map_fn
from .text import text_map_fn

__all__ = [
    'alpaca_map_fn',
    'medqa_map_fn',
    'oasst1_map_fn',
    'openai_map_fn',
    'self_cognition_map_fn',
    'sharegpt_map_fn',
    'text_map_fn',
]
