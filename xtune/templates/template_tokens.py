"""The tokens that each built-in template requires, and the features that it supports."""

from collections.abc import Iterable

from . import NAMES

_CHATML = ('<|im_start|>', '<|im_end|>')
_GLM = ('<|user|>', '<|assistant|>', '<|observation|>')
_DEEPSEEK = ('<｜User｜>', '<｜Assistant｜>')
# Template -> the special tokens around turns, each of which must be one token. The other templates stop at the eos.
REQUIRED_TOKENS: dict[str, tuple[str, ...]] = {
    'baichuan_chat': ('<reserved_102>', '<reserved_103>'),
    'baichuan2_chat': ('<reserved_106>', '<reserved_107>'),
    'chatglm3': _GLM,
    'chatml': _CHATML,
    'code_llama_70b_chat': ('<step>',),
    'cohere_chat': ('<|START_OF_TURN_TOKEN|>', '<|END_OF_TURN_TOKEN|>'),
    'deepseek_coder': ('<|EOT|>',),
    'deepseek_r1': _DEEPSEEK,
    'deepseek_v3': _DEEPSEEK,
    'deepseek_v3_1': (
        *_DEEPSEEK,
        *(
            '<｜tool▁calls▁begin｜>',
            '<｜tool▁call▁begin｜>',
            '<｜tool▁sep｜>',
            '<｜tool▁call▁end｜>',
            '<｜tool▁calls▁end｜>',
        ),
    ),
    'gemma': ('<start_of_turn>', '<end_of_turn>'),
    'glm4': _GLM,
    'gpt_oss': ('<|start|>', '<|channel|>', '<|message|>', '<|end|>', '<|return|>', '<|call|>'),
    'internlm_chat': ('<eoa>',),
    'internlm2_chat': _CHATML,
    'lfm2_5': (*_CHATML, '<|tool_call_start|>', '<|tool_call_end|>'),
    'llama3_chat': ('<|start_header_id|>', '<|end_header_id|>', '<|eot_id|>'),
    'mistral_nemo': ('[INST]', '[/INST]', '[TOOL_CALLS]'),
    'mistral_v3': ('[INST]', '[/INST]', '[TOOL_CALLS]'),
    'nemotron3': (*_CHATML, '<think>', '</think>'),
    'phi3_chat': ('<|user|>', '<|assistant|>', '<|end|>'),
    'qwen3': _CHATML,
    'qwen3_5': (*_CHATML, '<think>', '</think>'),
    'qwen_chat': _CHATML,
}
# Templates that support several tool calls in one message, and all that support tools, calls and results.
SUPPORT_SEVERAL_CALLS = (
    'chatml',
    'qwen_chat',
    'qwen3',
    'qwen3_5',
    'nemotron3',
    'internlm2_chat',
    'mistral_v3',
    'mistral_nemo',
    'deepseek_v3_1',
    'lfm2_5',
)
SUPPORT_TOOLS = (*SUPPORT_SEVERAL_CALLS, 'llama3_chat', 'glm4', 'chatglm3', 'gpt_oss')
# Accepted name -> its file, for the templates that support reasoning.
SUPPORT_REASONING = {
    'qwen3_thinking': 'qwen3',
    'qwen3_5_thinking': 'qwen3_5',
    'nemotron3_thinking': 'nemotron3',
    'deepseek_r1': 'deepseek_r1',
    'deepseek_v3_1_thinking': 'deepseek_v3_1',
    'lfm2_5': 'lfm2_5',
    'gpt_oss_thinking': 'gpt_oss',
}
# Compatible with any tokenizer that has an eos.
_FALLBACK = 'default'


def suggestions(end_tokens: Iterable[str]) -> str:
    """Return the compatible names, separated by commas: those that require tokens, and the fallback."""
    return ', '.join([*compatible(end_tokens, REQUIRED_TOKENS), _FALLBACK])


def compatible(end_tokens: Iterable[str], names: Iterable[str] = NAMES) -> list[str]:
    """Return those of `names` whose required tokens are all in `end_tokens`, the added tokens of a tokenizer."""
    known = set(end_tokens)
    return [name for name in names if known.issuperset(REQUIRED_TOKENS.get(SUPPORT_REASONING.get(name, name), ()))]
