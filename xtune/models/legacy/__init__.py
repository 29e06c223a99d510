"""2023 remote-code checkpoints, loaded into native classes of transformers without running their code.

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

`variants` detects the variant from the JSON files, `families` builds the native config, `tensors` maps tensor names in
both directions, `load` loads the model, `vocabulary` converts the tokenizer, and `tokenizers` caches it.
"""
