"""Map functions: one row of a data set -> a conversation.

Each docstring shows a row and its result; `xtune list-dataset-format` prints both.
"""

from .alpaca import alpaca_map_fn, alpaca_zh_map_fn, medical_map_fn
from .llava import llava_map_fn
from .moss import moss_sft_map_fn
from .msagent import msagent_react_map_fn
from .oasst1 import oasst1_map_fn
from .openai import openai_map_fn
from .preference import openai_preference_map_fn, orpo_dpo_mix_40k_map_fn, preference_map_fn
from .prompts import dolly_map_fn, pair_map_fn, prompt_completion_map_fn, query_response_map_fn
from .question_answer import (
    default_map_fn,
    medqa_map_fn,
    openorca_map_fn,
    prompt_response_map_fn,
    stack_exchange_map_fn,
)
from .self_cognition import self_cognition_map_fn
from .sharegpt import sharegpt_map_fn, wizardlm_map_fn
from .text import pretrain_map_fn, text_map_fn
from .tokenized import tokenized_map_fn
from .vendors import bedrock_map_fn, gemini_map_fn
from .with_system import (
    arxiv_map_fn,
    code_alpaca_map_fn,
    colors_map_fn,
    crime_kg_assitant_map_fn,
    law_reference_map_fn,
    sql_map_fn,
    tiny_codes_map_fn,
)
from .xlam import xlam_map_fn
from .xtuner import xtuner_map_fn

__all__ = [
    'alpaca_map_fn',
    'alpaca_zh_map_fn',
    'arxiv_map_fn',
    'bedrock_map_fn',
    'code_alpaca_map_fn',
    'colors_map_fn',
    'crime_kg_assitant_map_fn',
    'default_map_fn',
    'dolly_map_fn',
    'gemini_map_fn',
    'law_reference_map_fn',
    'llava_map_fn',
    'medical_map_fn',
    'medqa_map_fn',
    'moss_sft_map_fn',
    'msagent_react_map_fn',
    'oasst1_map_fn',
    'openai_map_fn',
    'openai_preference_map_fn',
    'openorca_map_fn',
    'orpo_dpo_mix_40k_map_fn',
    'pair_map_fn',
    'preference_map_fn',
    'pretrain_map_fn',
    'prompt_completion_map_fn',
    'prompt_response_map_fn',
    'query_response_map_fn',
    'self_cognition_map_fn',
    'sharegpt_map_fn',
    'sql_map_fn',
    'stack_exchange_map_fn',
    'text_map_fn',
    'tiny_codes_map_fn',
    'tokenized_map_fn',
    'wizardlm_map_fn',
    'xlam_map_fn',
    'xtuner_map_fn',
]
