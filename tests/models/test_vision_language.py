"""Vision-language checkpoints, trained on text: the class is detected, and exports are complete."""

import json
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel
from safetensors.torch import load_file, save_file
from transformers import CONFIG_MAPPING, AutoModelForMultimodalLM

from xtune.config.load import load
from xtune.config.wire import wire
from xtune.data.collate import collate
from xtune.engine import checkpoint_io
from xtune.errors import ModelError
from xtune.export.processor_files import NAMES, copy_processor_files
from xtune.models.loading.model_class import auto_class, model_class
from xtune.optimizations.mrope_positions import expand_positions_to_axes
from xtune.optimizations.packed_attention import install_packed_attention
from xtune.planning.estimator import MemoryEstimator
from xtune.tasks.lm_head import find_lm_head
from xtune.tasks.loss import summed_loss
from xtune.utils.language_model import (
    describe_non_text_modules,
    exclude_non_text_modules,
    freeze_non_text_modules,
    non_text_modules,
)
from xtune.utils.model_structure import layers_of

TEXT = dict(
    **dict(vocab_size=512, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4),
    **dict(num_key_value_heads=2, head_dim=8, max_position_embeddings=256),
    **dict(pad_token_id=0, bos_token_id=1, eos_token_id=2),
)
AXES = {**TEXT, 'rope_parameters': dict(rope_type='default', rope_theta=10000.0, mrope_section=[2, 1, 1])}
SLIDING = dict(sliding_window=8, layer_types=['sliding_attention', 'full_attention'])
TOWER = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4)
CLIP = dict(TOWER, image_size=28, patch_size=14)
BLOCKS = dict(depth=2, hidden_size=32, intermediate_size=64, num_heads=4, out_hidden_size=32)
QWEN_TOKENS = dict(image_token_id=500, video_token_id=501, vision_start_token_id=502, vision_end_token_id=503)
KINDS = {
    'qwen2_5_vl': dict(text_config=AXES, vision_config=dict(BLOCKS, fullatt_block_indexes=[1]), **QWEN_TOKENS),
    'qwen3_vl': dict(
        text_config=AXES,
        vision_config=dict(BLOCKS, num_position_embeddings=16, deepstack_visual_indexes=[0]),
        **QWEN_TOKENS,
    ),
    'gemma3': dict(text_config=dict(TEXT, **SLIDING), vision_config=CLIP, mm_tokens_per_image=4, image_token_index=500),
    'mistral3': dict(
        text_config=dict(TEXT, model_type='mistral'),
        vision_config=dict(CLIP, head_dim=8, model_type='pixtral'),
        image_token_index=500,
    ),
    'llama4': dict(
        text_config=dict(
            TEXT, intermediate_size_mlp=64, num_local_experts=2, interleave_moe_layer_step=2, attention_chunk_size=64
        ),
        vision_config=dict(
            CLIP, intermediate_size=128, vision_output_dim=32, projector_input_dim=32, projector_output_dim=32
        ),
        image_token_index=500,
    ),
}
SIBLINGS = {
    'qwen2_vl': dict(
        text_config=AXES,
        vision_config=dict(depth=2, embed_dim=32, hidden_size=32, num_heads=4, mlp_ratio=2),
        **QWEN_TOKENS,
    ),
    'qwen3_vl_moe': dict(
        text_config=dict(AXES, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=16),
        vision_config=dict(BLOCKS, num_position_embeddings=16, deepstack_visual_indexes=[0]),
        **QWEN_TOKENS,
    ),
    'glm4v': dict(
        text_config=dict(AXES, rope_parameters=dict(AXES['rope_parameters'], partial_rotary_factor=1.0)),
        vision_config=dict(BLOCKS, image_size=28),
        **dict(image_token_id=500, video_token_id=501),
    ),
    'llava': dict(
        text_config=dict(TEXT, model_type='llama'),
        vision_config=dict(CLIP, model_type='clip_vision_model'),
        image_token_index=500,
    ),
    'internvl': dict(
        text_config=dict(TEXT, model_type='qwen2'),
        vision_config=dict(TOWER, image_size=[28, 28], patch_size=[14, 14], model_type='internvl_vision'),
        image_token_id=500,
    ),
    'mllama': dict(
        text_config=dict(
            {key: value for key, value in TEXT.items() if key != 'head_dim'},
            cross_attention_layers=[1],
            rope_parameters=dict(rope_type='default', rope_theta=10000.0),
        ),
        vision_config=dict(
            **dict(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_global_layers=1, attention_heads=4),
            **dict(vision_output_dim=64, image_size=28, patch_size=14, max_num_tiles=2),
            **dict(intermediate_layers_indices=[0], supported_aspect_ratios=[[1, 1], [1, 2]]),
        ),
        image_token_index=500,
    ),
    'smolvlm': dict(text_config=dict(TEXT, model_type='llama'), vision_config=CLIP, image_token_id=500),
}
ALL = KINDS | SIBLINGS
KINDS_AND_SLOW_SIBLINGS = [*KINDS, *(pytest.param(kind, marks=pytest.mark.slow) for kind in SIBLINGS)]
# One of each method in the default suite
RUNS = [
    pytest.param(kind, method, marks=() if (kind, method) in FAST else pytest.mark.slow)
    for FAST in [{('qwen2_5_vl', 'lora'), ('gemma3', 'full')}]
    for kind in ALL
    for method in ('lora', 'full')
]


def config_of(kind, **text):
    given = ALL[kind]
    return CONFIG_MAPPING[kind](**{**given, 'text_config': {**given['text_config'], **text}})


def tiny(kind, **text):
    torch.manual_seed(0)
    config = config_of(kind, **text)
    return auto_class(config).from_config(config, dtype=torch.float32)


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory, tokenizer):
    """Return a function that returns the folder of a tiny checkpoint with SmolLM2's tokenizer."""
    made = {}

    def make(kind):
        if kind not in made:
            made[kind] = tmp_path_factory.mktemp('models') / kind
            tiny(kind, vocab_size=len(tokenizer)).save_pretrained(made[kind])
            tokenizer.save_pretrained(made[kind])
            (made[kind] / 'preprocessor_config.json').write_text('{"image_processor_type": "Any"}')
            (made[kind] / 'chat_template.json').write_text('{"chat_template": "of the base"}')
            if kind == 'gemma3':  # the names on the hub
                weights = load_file(made[kind] / 'model.safetensors')
                weights = {name.replace('tower.', 'tower.vision_model.'): t for name, t in weights.items()}
                save_file(weights, made[kind] / 'model.safetensors', metadata={'format': 'pt'})
        return made[kind]

    return make


class Samples:
    """Samples of the given lengths, all of whose tokens are trained."""

    def __init__(self, lengths):
        made = np.random.default_rng(0)
        self._ids = [made.integers(3, 400, n) for n in lengths]

    def ids(self, index):
        return self._ids[index]

    def spans(self, index):
        return np.array([[0, len(self._ids[index])]])

    def place(self, index):
        return f'row {index}'


@pytest.mark.parametrize('kind', KINDS_AND_SLOW_SIBLINGS)
def test_packed_samples_have_the_logits_of_single_ones(kind):
    llm = tiny(kind, initializer_range=0.3)
    expand_positions_to_axes(llm)
    store = Samples([9, 14, 20])
    packed = [np.array([(0, 0, 9), (1, 0, 14), (2, 0, 20)])]
    batch = collate(store, packed, pad_id=0)
    alone = sum(summed_loss(llm, collate(store, [piece[None]], pad_id=0)).item() for piece in packed[0])
    assert summed_loss(llm, batch).item() == pytest.approx(alone, rel=1e-5)
    head = find_lm_head(llm)
    assert summed_loss(llm, batch, head).item() == pytest.approx(alone, rel=1e-5)
    attention = install_packed_attention(llm, torch.float32, torch.device('cpu'), 64, nullcontext())
    assert (attention is None) == (kind == 'llama4')  # its layers use chunked attention
    if attention is not None:
        assert summed_loss(llm, batch, head, **attention.model_kwargs(batch)).item() == pytest.approx(alone, rel=1e-5)


def test_qwen2_5_vl_does_not_separate_samples_by_positions_of_one_axis():
    """If this fails, transformers tells them apart: `expand_positions_to_axes` is not needed for it any more."""
    llm = tiny('qwen2_5_vl', initializer_range=0.3)
    store = Samples([9, 14])
    packed = [np.array([(0, 0, 9), (1, 0, 14)])]
    alone = sum(summed_loss(llm, collate(store, [piece[None]], pad_id=0)).item() for piece in packed[0])
    assert summed_loss(llm, collate(store, packed, pad_id=0)).item() != pytest.approx(alone, rel=1e-3)


def weights_of(folder):
    return {name: tensor for path in sorted(folder.glob('*.safetensors')) for name, tensor in load_file(path).items()}


def logits(llm):
    with torch.no_grad():
        return llm.eval()(input_ids=torch.arange(3, 30)[None], use_cache=False).logits


@pytest.mark.parametrize(('kind', 'method'), RUNS)
def test_exports_are_complete(kind, method, checkpoint, make_config, xtune, tmp_path):
    base, adapter, out = checkpoint(kind), tmp_path / 'adapter', tmp_path / 'out'
    options = {'base_model': str(base), 'schedule.max_epochs': 2, 'optimizer.lr': 1e-2}
    # bf16: trained parameters have fp32 master weights, frozen ones have none
    options |= {'optimizer.weight_decay': 0.1, 'precision': 'bf16'} if method == 'full' else {}
    options |= {'lora.target_modules': ['q_proj', 'v_proj']} if (kind, method) == ('llama4', 'lora') else {}
    config = make_config(method, **options)
    code, printed, err = xtune('train', config)
    assert code == 0 and 'text only' in printed, err
    path = config.with_suffix('') / 'epoch_2.pth'
    code, _, err = xtune('convert', 'pth_to_hf', config, path, out if method == 'full' else adapter)
    assert code == 0, err
    trained = AutoModelForMultimodalLM.from_pretrained(base)
    if method == 'full':
        trained.load_state_dict(checkpoint_io.load(path)['state_dict'], strict=False)
    else:
        code, _, err = xtune('convert', 'merge', base, adapter, out)
        assert code == 0, err
        trained = PeftModel.from_pretrained(trained, adapter)

    before, after = weights_of(base), weights_of(out)
    assert after.keys() == before.keys()
    text = ('language_model.', 'text_model.', 'model.layers.', 'model.embed_tokens.', 'model.norm.', 'lm_head.')
    other = [name for name in before if not any(part in name for part in text) or 'cross_attn' in name]
    assert other and all(torch.equal(before[name], after[name]) for name in other)
    assert any(not torch.equal(before[name], after[name]) for name in before)
    llm, info = AutoModelForMultimodalLM.from_pretrained(out, output_loading_info=True)
    assert not any(info.values()) and [type(llm).__name__] == llm.config.architectures
    torch.testing.assert_close(logits(llm), logits(trained), rtol=0, atol=1e-4)

    assert (out / 'preprocessor_config.json').is_file() and not (out / 'chat_template.json').exists()
    code, _, err = xtune('chat', out, '--prompt', 'Hi', '--max-new-tokens', 2)
    assert code == 0, err


def test_the_class_is_chosen_from_the_config():
    for kind in ALL:
        assert model_class(config_of(kind)).__name__.endswith('ForConditionalGeneration')
    language = config_of('llama4')
    language.architectures = ['Llama4ForCausalLM']  # as one saves who loads the language model alone
    assert model_class(language).__name__ == 'Llama4ForCausalLM'
    assert model_class(CONFIG_MAPPING['llama4_text']()).__name__ == 'Llama4ForCausalLM'
    assert model_class(CONFIG_MAPPING['qwen3_5']()).__name__ == 'Qwen3_5ForConditionalGeneration'
    assert model_class(CONFIG_MAPPING['llama']()).__name__ == 'LlamaForCausalLM'
    with pytest.raises(ModelError, match='`qwen2_5_omni_thinker`'):  # all of it has no forward pass
        model_class(CONFIG_MAPPING['qwen2_5_omni']())


@pytest.mark.parametrize('kind', ['t5', 'no_such_type'])
def test_a_type_without_a_class_is_refused_briefly(kind, tmp_path, tokenizer, make_config, xtune):
    (tmp_path / 'config.json').write_text(json.dumps(dict(model_type=kind)))
    save_file({'a': torch.zeros(1)}, tmp_path / 'model.safetensors', metadata={'format': 'pt'})
    tokenizer.save_pretrained(tmp_path)
    config = make_config(base_model=str(tmp_path))
    for command in (('train', config), ('plan', config), ('chat', tmp_path, '--prompt', 'Hi')):
        code, _, err = xtune(*command)
        assert code == 2 and f'`{kind}`' in err and len(err) < 500, err


def test_adapters_are_limited_to_the_language_model_unless_another_module_is_named():
    llm = tiny('gemma3')
    parts = ['model.vision_tower', 'model.multi_modal_projector']
    assert non_text_modules(llm) == parts
    names = [name for name, _ in llm.named_modules()]

    def excluded(targets, **given):
        config = LoraConfig(target_modules=targets, **given)
        exclude_non_text_modules(llm, config)
        if config.target_modules == 'all-linear' or config.exclude_modules is None:
            return config.exclude_modules
        from peft.tuners.tuners_utils import check_target_module_exists

        return {name for name in names if check_target_module_exists(config, name) is True}

    assert excluded('all-linear') == '|'.join(rf'{p.replace(".", chr(92) + ".")}(\..*)?' for p in parts)
    language = {n for n in names if n.endswith('.q_proj') and 'language_model' in n}
    assert excluded(['q_proj']) == language
    assert excluded(['q_proj'], exclude_modules=['layers.0.self_attn.q_proj']) == {n for n in language if '.1.' in n}
    first = 'vision_tower.encoder.layers.0.self_attn.q_proj'
    assert excluded([first]) is None  # not excluded
    assert excluded(r'.*vision_tower.*q_proj') is None
    assert excluded(['gate_proj']) is None  # the vision tower has none, and peft refuses patterns without a match


def test_full_finetuning_freezes_modules_that_text_does_not_reach():
    llm = tiny('mllama')
    freeze_non_text_modules(llm)
    frozen = {name.rpartition('.')[0] for name, p in llm.named_parameters() if not p.requires_grad}
    assert any(name.startswith('model.language_model.layers.1.') for name in frozen)  # which attends to images
    assert not any(name.startswith('model.language_model.layers.0.') for name in frozen)
    assert 'model.vision_model, model.multi_modal_projector' in describe_non_text_modules(llm)
    llm(input_ids=torch.arange(3, 20)[None]).logits.sum().backward()
    missing = [name for name, p in llm.named_parameters() if p.requires_grad and p.grad is None]
    assert not missing


def test_targets_and_settings_without_effect_are_refused(checkpoint, make_config, xtune):
    base = str(checkpoint('qwen2_5_vl'))
    code, _, err = xtune('train', make_config(base_model=base, **{'lora.target_modules': r'.*visual.*\.qkv'}))
    assert code == 2 and 'lora.target_modules' in err
    config = make_config(base_model=base, **{'llm.rope_parameters': dict(rope_type='linear', factor=2.0)})
    for command in ('train', 'plan'):
        code, _, err = xtune(command, config)
        assert code == 2 and 'llm.rope_parameters' in err


def test_processor_files_are_copied(tmp_path, capsys):
    base, out, bare = tmp_path / 'base', tmp_path / 'out', tmp_path / 'bare'
    for folder in (base, out, bare):
        folder.mkdir()
        (folder / 'config.json').write_text('{"text_config": {}}')
    (base / 'preprocessor_config.json').write_text('{"of": "the base"}')
    (base / 'processor_config.json').write_text('{"of": "the base"}')
    (base / 'chat_template.json').write_text('{"of": "the base"}')
    (out / 'processor_config.json').write_text('{"of": "the run"}')
    assert copy_processor_files(str(base), out) == ['preprocessor_config.json', 'chat_template.json']
    assert 'the run' in (out / 'processor_config.json').read_text() and not capsys.readouterr().out
    (bare / 'chat_template.jinja').write_text('of the run')
    assert copy_processor_files(str(base), bare) == ['preprocessor_config.json', 'processor_config.json']
    for name in NAMES:
        (bare / name).unlink(missing_ok=True)
        (base / name).unlink(missing_ok=True)
    assert copy_processor_files(str(base), bare) == [] and 'accepts only text' in capsys.readouterr().out
    assert copy_processor_files('nobody/nothing', bare) == []  # offline: no error


def test_decoder_layers_are_those_of_the_language_model_even_if_the_vision_tower_is_larger():
    config = config_of('gemma3')
    config.vision_config.num_hidden_layers = 9
    assert len(layers_of(auto_class(config).from_config(config))) == 2


def test_a_plan_counts_the_vision_tower_as_frozen(checkpoint, make_config):
    llm = tiny('qwen2_5_vl', vocab_size=49152)
    freeze_non_text_modules(llm)
    config = make_config('full', base_model=str(checkpoint('qwen2_5_vl')))
    size = MemoryEstimator(wire(load(config), 'run').step).sizes
    assert size.parameters == sum(p.numel() for p in llm.parameters())
    assert size.trained == sum(p.numel() for p in llm.parameters() if p.requires_grad) < size.parameters


def test_a_tokenizer_with_more_tokens_than_the_text_part_is_refused(tmp_path, tokenizer, make_config, xtune):
    tiny('qwen3_vl').save_pretrained(tmp_path)  # 512 rows
    tokenizer.save_pretrained(tmp_path)
    code, _, err = xtune('train', make_config(base_model=str(tmp_path)))
    assert code == 2 and '512 rows' in err


def test_a_text_model_has_no_non_text_modules():
    config = CONFIG_MAPPING['llama'](**TEXT)
    llm = auto_class(config).from_config(config)
    assert non_text_modules(llm) == [] and describe_non_text_modules(llm) is None
    with pytest.raises(ModelError, match='`vit`'):
        model_class(CONFIG_MAPPING['vit']())
