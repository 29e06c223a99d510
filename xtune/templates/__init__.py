"""Chat templates: named .jinja files with generation marks, and the model's own.

| name          | format                              | end of a reply | source                                    |
|---------------|-------------------------------------|----------------|-------------------------------------------|
| chatml        | OpenAI ChatML                       | <|im_end|>     | teknium/OpenHermes-2.5, Yi-34B-Chat       |
| llama3        | Llama 3 headers                     | <|eot_id|>     | meta-llama/Meta-Llama-3-8B-Instruct       |
| internlm_chat | InternLM 7B/20B chat, later form    | <eoa>          | internlm/internlm-chat-7b                 |
| plain         | no roles: text, or question + reply | eos token      | for pretraining and base models           |
"""

from pathlib import Path

FOLDER = Path(__file__).parent
NAMES = tuple(sorted(path.stem for path in FOLDER.glob('*.jinja')))
