"""Which folders of an old layout hold a chat model, its template, and what ends a reply there."""

from pathlib import Path

from ...templates import FOLDER
from .recognise import read_config, read_json

# variant -> template of its chat models, and the tokens besides eos that end a reply there.
CHAT = {
    'internlm': ('internlm_chat', ('<eoa>',)),
    'baichuan_7b': ('baichuan_chat', ('<reserved_102>',)),
    'baichuan_13b': ('baichuan_chat', ('<reserved_102>',)),
    'baichuan2_7b': ('baichuan2_chat', ('<reserved_106>',)),
    'baichuan2_13b': ('baichuan2_chat', ('<reserved_106>',)),
    'qwen': ('qwen_chat', ('<|im_end|>',)),
    'chatglm2': ('chatglm2', ()),
    'chatglm3': ('chatglm3', ('<|user|>', '<|observation|>')),
}


def chat_template(folder: Path, variant: str) -> str | None:
    """Return the chat template of a chat model; None for a base model."""
    if not is_chat(folder, variant):
        return None
    return (FOLDER / f'{CHAT[variant][0]}.jinja').read_text(encoding='utf-8')


def is_chat(folder: Path, variant: str) -> bool:
    """Tell whether the folder's name, its config or its generation settings say that it is a chat model."""
    generation = read_json(folder / 'generation_config.json')
    names = [folder.resolve().name, str(read_config(folder).get('_name_or_path') or '')]
    parent = folder.resolve().parent.parent.name  # a hub snapshot is models--OWNER--NAME/snapshots/HASH
    text = ' '.join([*names, parent if parent.startswith('models--') else '']).lower()
    if variant.startswith('chatglm'):
        return 'base' not in text.replace('-', ' ').replace('_', ' ').split()
    return 'chat' in text or 'user_token_id' in generation or generation.get('chat_format') == 'chatml'
