"""Chat with 2023 remote-code checkpoints: stop tokens, and the option --variant."""

import json

import torch
from peft import LoraConfig, get_peft_model

from xtune.chat.terminal import open_session
from xtune.inference.load import load_for_inference


def test_stop_tokens_are_the_loaded_models_unless_an_adapter_names_its_own(with_tokenizer, tmp_path):
    chat = with_tokenizer('qwen_7b', 'Qwen-7B-Chat')
    assert open_session(str(chat)).stop_ids == [520, 522]
    # As published: eos is the end-of-document token, and <|im_end|> is only in stop_words_ids.
    published = dict(chat_format='chatml', eos_token_id=520, pad_token_id=520, stop_words_ids=[[520]])
    (chat / 'generation_config.json').write_text(json.dumps(published))
    assert open_session(str(chat)).stop_ids == [520, 522]

    base = load_for_inference(str(chat), None, torch.device('cpu'), torch.float32)
    get_peft_model(base, LoraConfig(target_modules=['q_proj'], r=2)).save_pretrained(tmp_path / 'adapter')
    assert open_session(str(chat), str(tmp_path / 'adapter')).stop_ids == [520, 522]
    (tmp_path / 'adapter' / 'generation_config.json').write_text(json.dumps(dict(eos_token_id=[522])))
    assert open_session(str(chat), str(tmp_path / 'adapter')).stop_ids == [522]


def test_variant_is_an_option_of_chat(with_tokenizer, xtune):
    base = with_tokenizer('baichuan2_7b', change_config=lambda values: values.pop('tokenizer_class'))
    ask = ('chat', base, '--template', 'default', '--prompt', 'hello', '--max-new-tokens', 3)
    code, _, err = xtune(*ask)
    assert code == 2 and '--variant NAME' in err and 'Traceback' not in err
    code, _, err = xtune(*ask, '--variant', 'baichuan2_7b')
    assert code == 0, err
    code, _, err = xtune(*ask, '--variant', 'baichuan2-7b')
    assert code == 2 and 'did you mean `baichuan2_7b`' in err


def test_a_prompt_with_invalid_utf8_is_refused(with_tokenizer, xtune):
    code, _, err = xtune('chat', with_tokenizer('qwen_7b', 'Qwen-7B-Chat'), '--prompt', 'caf\udce9')
    assert code == 2 and 'character 4 ' in err and 'UTF-8' in err
