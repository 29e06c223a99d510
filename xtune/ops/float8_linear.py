"""A frozen base model with linear layers in float8, whose matmuls run up to twice as fast as bf16 where the GPU has it.

A layer has two float8 copies of its weight, together as large as one in bf16: one with a scale per row, for
y = x W^T, and one with a scale per column, for the gradient of x. Inputs and gradients are quantized as they come, with
one scale per token.

Legend: M tokens, N output features, K input features.
"""

from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel

from ..compat.torch_private import ConversionHook
from ..errors import ModelError, did_you_mean
from ..utils.model_structure import layers_of
from .float8_matmul import MULTIPLE, scaled_matmul, to_float8

# Short accumulation loses less in one output than the eight bits of its inputs do. A gradient passes through all layers
# below, where the loss would add up.
FAST_FORWARD, FAST_BACKWARD = True, False


@dataclass(frozen=True)
class Float8Config:
    """A float8 base, for section `quantization`.

    Args:
        skip: Parts of module names (`down_proj`, or `layers.0.mlp`); linear layers with one of these stay in bf16. The
            routers of experts are skipped because small differences change their choice.
        last: Decoder layers at the end of the model that stay in bf16. Rounding in the last one reaches the logits
            directly: half of the loss that SmolLM2 has more in float8 comes from that layer.
    """

    skip: list[str] | tuple[str, ...] = ('router', 'gate')
    last: int = 1

    def skips(self, name: str) -> bool:
        """Return whether the layer `name` stays in bf16."""
        return any(f'.{part}.' in f'.{name}.' for part in self.skip)


class Float8Linear(ConversionHook, torch.nn.Linear):
    """A frozen linear layer in float8, made of one in bf16; its input and output are in bf16 as before.

    Args:
        linear: The bf16 layer; its weight is not changed, its bias is shared.
    """

    def __init__(self, linear: torch.nn.Linear) -> None:
        torch.nn.Module.__init__(self)  # that of Linear would allocate a weight
        self.in_features, self.out_features = linear.in_features, linear.out_features
        weight_NK = linear.weight.detach()
        rows_NK, scales_N1 = to_float8(weight_NK)
        columns_KN, scales_K1 = to_float8(weight_NK.t())
        # One copy is the parameter, so that the number of parameters of the model stays.
        self.rows_NK = torch.nn.Parameter(rows_NK, requires_grad=False)
        self.register_buffer('scales_1N', scales_N1.reshape(1, -1))
        self.register_buffer('columns_KN', columns_KN)
        self.register_buffer('scales_1K', scales_K1.reshape(1, -1))
        self.bias = linear.bias

    @property
    def weight(self) -> torch.Tensor:
        """The weight [N, K] in bf16, dequantized at each access: peft reads its type and device. Changing it has no
        effect."""
        return (self.rows_NK.float() * self.scales_1N.reshape(-1, 1)).to(torch.bfloat16)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Return x W^T + b [..., N] in bf16 of `input` x [..., K]."""
        x_MK = input.reshape(-1, self.in_features)
        y_MN = _Float8Matmul.apply(x_MK, self.rows_NK, self.scales_1N, self.columns_KN, self.scales_1K)
        y = y_MN.reshape(*input.shape[:-1], self.out_features)
        return y if self.bias is None else y + self.bias.to(y.dtype)

    def converted(self, before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
        """Let weights and scales move between devices, but keep their types: float8 means nothing without its scale."""
        keeps_dtype = before is not self.bias and after.dtype != before.dtype
        return before.to(after.device) if keeps_dtype else after


class _Float8Matmul(torch.autograd.Function):
    """x W^T and the gradient of x; nothing of x is saved."""

    @staticmethod
    def forward(
        ctx: Any,
        x_MK: torch.Tensor,
        rows_NK: torch.Tensor,
        scales_1N: torch.Tensor,
        columns_KN: torch.Tensor,
        scales_1K: torch.Tensor,
    ) -> torch.Tensor:
        ctx.save_for_backward(columns_KN, scales_1K)
        ctx.dtype = x_MK.dtype
        return scaled_matmul(*to_float8(x_MK), rows_NK, scales_1N, FAST_FORWARD)

    @staticmethod
    def backward(ctx: Any, grad_MN: torch.Tensor) -> tuple:
        columns_KN, scales_1K = ctx.saved_tensors
        grad_MK = scaled_matmul(*to_float8(grad_MN), columns_KN, scales_1K, FAST_BACKWARD)
        return grad_MK.to(ctx.dtype), None, None, None, None


def to_float8_base(model: PreTrainedModel, config: Float8Config) -> None:
    """Replace linear layers of `model` by float8 ones, one at a time; each frees its bf16 weight.

    These stay in bf16: lm_head, layers with a dimension that is no multiple of 16, layers that `config` skips,
    subclasses of Linear, and experts, which transformers keeps in 3-D tensors.

    Raises:
        ModelError: The base is quantized already, `config` skips a name that no module has, or no layer can be in
            float8.
    """
    if getattr(model, 'hf_quantizer', None) is not None:
        raise ModelError(
            'the weights of this base are quantized already and cannot be converted to float8: set quantization = '
            'None, or use the unquantized base'
        )
    layers = _layers_to_replace(model, config)
    if not layers:
        raise ModelError(
            f'no linear layer of {type(model).__name__} can be in float8: each has a dimension that is no multiple of '
            f'{MULTIPLE}, one of quantization.skip={list(config.skip)} in its name, or is in the last '
            f'quantization.last={config.last} layers; use a lora preset'
        )
    for names in layers:
        _replace(model, names)
    if next(model.parameters()).device.type == 'cuda':
        torch.cuda.empty_cache()


def _layers_to_replace(model: PreTrainedModel, config: Float8Config) -> list[list[str]]:
    """Return the names of each layer to replace; a shared layer has several."""
    _check_skip(model, config)
    last_layers = layers_of(model)[-config.last :] if config.last else []
    kept = {id(module) for layer in last_layers for module in layer.modules()} | {id(model.get_output_embeddings())}
    names: dict[int, list[str]] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        fits = type(module) is torch.nn.Linear and not any(size % MULTIPLE for size in module.weight.shape)
        if fits and id(module) not in kept and not config.skips(name):
            names.setdefault(id(module), []).append(name)
    return list(names.values())


def _check_skip(model: torch.nn.Module, config: Float8Config) -> None:
    for part in set(config.skip).difference(Float8Config.skip):
        if not any(Float8Config([part]).skips(name) for name, _ in model.named_modules()):
            known = {word for name, _ in model.named_modules() for word in name.split('.') if not word.isdigit()}
            raise ModelError(
                f'quantization.skip has {part!r}, but no module of {type(model).__name__} has it in its name; use '
                f'full words between dots, such as `down_proj` or `layers.0.mlp`{did_you_mean(part, known)}'
            )


def _replace(model: torch.nn.Module, names: list[str]) -> None:
    layer = Float8Linear(model.get_submodule(names[0]))
    for name in names:
        parent, _, attribute = name.rpartition('.')
        setattr(model.get_submodule(parent), attribute, layer)


def refuse_trained(model: torch.nn.Module) -> None:
    """Refuse an adapter that trains a float8 weight itself.

    Raises:
        ModelError: A float8 weight requires a gradient.
    """
    for name, module in model.named_modules():
        if isinstance(module, Float8Linear) and module.rows_NK.requires_grad:
            layer = name.removesuffix('.default').rpartition('.modules_to_save')[0].rpartition('.')[2] or name
            raise ModelError(
                f'{name} is in float8, which cannot be trained: remove it from lora.modules_to_save, or add '
                f'{layer!r} to quantization.skip'
            )
