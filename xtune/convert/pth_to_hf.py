"""`xtune convert pth_to_hf`: a checkpoint -> a Hugging Face folder, without building the model it was trained on."""

import json
import tempfile
from pathlib import Path

import torch

from ..config.load import load
from ..config.wire import wire
from ..data.build import load_tokenizer
from ..engine import files
from ..errors import CheckpointError
from ..models.compat_config import readable_by_v4
from ..models.config_overrides import note_overrides
from ..models.export import ExportInfo, write_adapter, write_extras
from ..models.quiet import quiet
from .target import new_folder


def pth_to_hf(config: Path, checkpoint: Path, target: Path, max_shard_size: str = '5GB') -> Path:
    """Write `checkpoint` as an adapter folder, or, after full fine-tuning, as a model folder; return it.

    Weights of a whole model are written in the type in which the base's are stored.

    Raises:
        XtuneError: The config, the checkpoint or the target cannot be used.
    """
    with new_folder(target) as folder:
        content = files.load(checkpoint)
        info = ExportInfo(**content['meta']['export'])
        job = wire(load(config), config.stem)
        if (job.lora is None) != (info.adapter_config is None):
            kinds = ('all weights', 'an adapter')
            raise CheckpointError(
                f'{checkpoint} holds {kinds[info.adapter_config is not None]}, but {config} trains '
                f'{kinds[job.lora is not None]}; name the config that wrote it (a copy is beside it)'
            )
        tokenizer = load_tokenizer(job)
        if info.adapter_config is not None:
            write_adapter(folder, content['state_dict'], info, tokenizer)
            note_overrides(json.loads(info.config_overrides), info.base_model)
        else:
            write_model(folder, content['state_dict'], info, max_shard_size)
            write_extras(folder, info, tokenizer)
    return target


def write_model(folder: Path, state: dict[str, torch.Tensor], info: ExportInfo, max_shard_size: str) -> None:
    """Write config.json and the weights as safetensors."""
    from transformers import AutoConfig, AutoModelForCausalLM

    with tempfile.TemporaryDirectory() as place:
        (Path(place) / 'config.json').write_text(info.model_config, encoding='utf-8')
        config = AutoConfig.from_pretrained(place, trust_remote_code=False)
    dtype = getattr(torch, json.loads(info.model_config)['dtype'])
    with torch.device('meta'):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype, trust_remote_code=False)
    weights = {name: tensor.to(dtype) for name, tensor in state.items()}
    with quiet():
        model.save_pretrained(folder, state_dict=weights, max_shard_size=max_shard_size)
    readable_by_v4(folder)
