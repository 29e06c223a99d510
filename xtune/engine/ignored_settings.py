"""Settings without effect on the outputs of a trained model, which a comparison of two runs ignores."""

# Keys of an adapter config that select modules. The names of the adapter tensors identify the modules exactly.
MODULE_KEYS = (
    'target_modules',
    'exclude_modules',
    'target_parameters',
    'modules_to_save',
    'layers_to_transform',
    'layers_pattern',
    'ensure_weight_tying',
)
# Keys without effect on the outputs: training, initialization, provenance, the location of the base.
_IGNORED_KEYS = {
    'adapter': (
        'base_model_name_or_path',
        'revision',
        'inference_mode',
        'task_type',
        'auto_mapping',
        'peft_version',
        'megatron_config',
        'megatron_core',
        'runtime_config',
    ),
    'model': (
        'transformers_version',
        '_name_or_path',
        'architectures',
        'auto_map',
        'torch_dtype',
        'attn_implementation',
        'use_cache',
        'id2label',
        'label2id',
        'problem_type',
        'return_dict',
        'initializer_range',
        'bos_token_id',
        'eos_token_id',
        'pad_token_id',
        'quantization_config',
        'pretraining_tp',
    ),
    'llm': (),
    'quantization': ('bnb_4bit_compute_dtype', 'bnb_4bit_quant_storage', 'llm_int8_enable_fp32_cpu_offload'),
}
# Prefixes and suffixes of keys that affect only training.
_IGNORED_PREFIXES, _IGNORED_SUFFIXES = ('output_', 'init_'), ('dropout', '_pdrop', '_aux_loss_coef')
# Values of init_lora_weights that do not matter after training, and those that change the weights of the base.
PLAIN_INITS = (True, False, 'gaussian', 'orthogonal', 'eva')
BASE_CHANGING_INITS = ('pissa', 'olora', 'corda', 'loftq', 'lora_ga')
INIT_KEYS = ('init_lora_weights', 'loftq_config', 'corda_config', 'eva_config', 'lora_ga_config')


def is_ignored(group: str, key: str) -> bool:
    """Return whether a key of `group` ('adapter', 'model', 'llm' or 'quantization') has no effect on the outputs."""
    return key in _IGNORED_KEYS[group] or key.startswith(_IGNORED_PREFIXES) or key.endswith(_IGNORED_SUFFIXES)
