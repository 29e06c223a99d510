"""Chat templates: one .jinja file per format, with `{% generation %}` blocks around the trained text.

| name                | model family                               | stop token                         | tools |
|---------------------|--------------------------------------------|------------------------------------|-------|
| baichuan_chat       | Baichuan 13B chat                          | <reserved_102>, last: eos          | no    |
| baichuan2_chat      | Baichuan 2 chat                            | <reserved_106>, last: eos          | no    |
| chatglm2            | ChatGLM2                                   | eos                                | no    |
| chatglm3            | ChatGLM3                                   | <|user|>, of a call: <|observation|> | yes |
| chatml              | OpenHermes, Yi chat, and for base models   | <|im_end|>                         | yes   |
| code_llama_70b_chat | Code Llama 70B instruct                    | <step>                             | no    |
| cohere_chat         | Command R                                  | <|END_OF_TURN_TOKEN|>              | no    |
| deepseek_coder      | DeepSeek Coder instruct                    | <|EOT|>                            | no    |
| deepseek_r1         | DeepSeek R1, distilled models              | eos                                | no    |
| deepseek_v2         | DeepSeek LLM, MoE and V2 chat              | eos                                | no    |
| deepseek_v3         | DeepSeek V3                                | eos                                | no    |
| deepseek_v3_1       | DeepSeek V3.1                              | eos                                | yes   |
| default             | base models without a chat format          | eos                                | no    |
| gemma               | Gemma and Gemma 2 instruct                 | <end_of_turn>                      | no    |
| glm4                | GLM-4 9B chat, GLM-4-0414                  | <|user|>, of a call: <|observation|> | yes |
| gpt_oss             | gpt-oss                                    | <|return|>, of a call: <|call|>    | yes   |
| internlm_chat       | InternLM chat, later form                  | <eoa>                              | no    |
| internlm2_chat      | InternLM2 and 2.5 chat                     | <|im_end|>                         | yes   |
| lfm2_5              | LFM2.5                                     | <|im_end|>                         | yes   |
| llama2_chat         | Llama 2 chat, Code Llama instruct to 34B   | eos                                | no    |
| llama3_chat         | Llama 3 and 3.1 instruct                   | <|eot_id|>                         | yes   |
| minicpm             | MiniCPM 1B and 2B                          | eos                                | no    |
| mistral             | Mistral instruct to v0.2, Mixtral instruct | eos                                | no    |
| mistral_nemo        | Mistral Nemo instruct                      | eos                                | yes   |
| mistral_v3          | Mistral instruct v0.3                      | eos                                | yes   |
| moss_sft            | MOSS records                               | eos                                | text  |
| nemotron3           | Nemotron 3                                 | <|im_end|>                         | yes   |
| phi3_chat           | Phi-3 instruct                             | <|end|>                            | no    |
| plain               | no roles: text, or question + answer       | eos                                | no    |
| qwen3               | Qwen3                                      | <|im_end|>                         | yes   |
| qwen3_5             | Qwen3.5, Qwen3.6                           | <|im_end|>                         | yes   |
| qwen_chat           | Qwen to 2.5 chat                           | <|im_end|>                         | yes   |
| vicuna              | Vicuna 1.1 and 1.5, WizardLM               | eos                                | no    |
| wizardcoder         | WizardCoder                                | eos                                | no    |
| zephyr              | Zephyr                                     | eos                                | no    |

`text`: tools are described in the system message, calls and results are messages. The first lines of a file list the
differences from the official text and their reasons.

Names ending in `_thinking` are templates whose prompts end before the reasoning, not after empty reasoning.
"""

from pathlib import Path

FOLDER = Path(__file__).parent
NAMES = tuple(sorted(path.stem for path in FOLDER.glob('*.jinja')))
# Other names of the same format -> its file.
ALIASES = {
    'code_llama_chat': 'llama2_chat',
    'deepseek_moe': 'deepseek_v2',
    'deepseekcoder': 'deepseek_coder',
    'llama3': 'llama3_chat',
    'mixtral': 'mistral',
    'wizardlm': 'vicuna',
}
# Template whose prompts end before the reasoning -> its file, rendered with `enable_thinking`.
THINKING = {
    'deepseek_v3_1_thinking': 'deepseek_v3_1',
    'gpt_oss_thinking': 'gpt_oss',
    'nemotron3_thinking': 'nemotron3',
    'qwen3_5_thinking': 'qwen3_5',
    'qwen3_thinking': 'qwen3',
}
ACCEPTED = tuple(sorted((*NAMES, *ALIASES, *THINKING)))
