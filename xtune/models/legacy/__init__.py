"""Checkpoints of 2023 whose repositories carry their own code, loaded into classes of transformers without that code.

| variant         | repositories                            | class                  |
|-----------------|-----------------------------------------|------------------------|
| internlm        | InternLM 7B and 20B, first generation   | LlamaForCausalLM       |
| baichuan_7b     | Baichuan 7B                             | LlamaForCausalLM       |
| baichuan2_7b    | Baichuan 2 7B                           | LlamaForCausalLM       |
| baichuan_13b    | Baichuan 13B                            | BaichuanAlibiForCausalLM |
| baichuan2_13b   | Baichuan 2 13B                          | BaichuanAlibiForCausalLM |
| qwen            | Qwen 1.8B to 72B, first generation      | Qwen2ForCausalLM       |
| chatglm2        | ChatGLM2 6B                             | GlmForCausalLM         |
| chatglm3        | ChatGLM3 6B                             | GlmForCausalLM         |

`recognise` decides the variant from config.json alone, `families` makes the native config, `tensors` holds the names
in both directions, `load` builds the model, `vocabulary` the tokenizer, which `tokenizers` keeps, `save` writes either
layout.
"""
