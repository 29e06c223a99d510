"""A frozen base whose linear layers multiply in float8, which GPUs that have it do up to twice as fast as bf16.

A layer holds its weight twice, which takes what bf16 takes: with a scale for each row, for y = x W^T, and with one for
each column, for the gradient of x. Inputs and gradients get a scale a row (a token) as they come.

Legend: M tokens, N outputs, K inputs of a layer.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel

from ..errors import ModelError, did_you_mean
from ..utils.model_structure import layers_of
from .float8_matmul import MULTIPLE, scaled_product, to_float8

# Short sums lose less than the numbers' eight bits do. A gradient goes through all layers below, where it would add up.
FAST_OUTPUT, FAST_GRADIENT = True, False


@dataclass(frozen=True)
class Float8Config:
    """A base in float8, for section `quantization`.

    Args:
        skip: Parts of names (`down_proj`, or `layers.0.mlp`): linear layers with one of these stay in bf16. Routers of
            experts choose with small differences.
        last: Layers of the model, from its end, that stay in bf16. What rounding costs in the last one goes into the
            logits as it is: half of the loss that SmolLM2 has more in float8 comes from that layer.
    """

    skip: list[str] | tuple[str, ...] = ('router', 'gate')
    last: int = 1

    def skips(self, name: str) -> bool:
        """Tell whether the layer `name` stays in bf16."""
        return any(f'.{part}.' in f'.{name}.' for part in self.skip)


class Float8Linear(torch.nn.Linear):
    """A frozen linear layer in float8, made of one in bf16; takes and gives what that one does, in bf16.

    Args:
        linear: Its weight is not changed; its bias is taken over.
    """

    def __init__(self, linear: torch.nn.Linear) -> None:
        torch.nn.Module.__init__(self)  # that of Linear would make a weight
        self.in_features, self.out_features = linear.in_features, linear.out_features
        weight_NK = linear.weight.detach()
        rows_NK, scales_N1 = to_float8(weight_NK)
        columns_KN, scales_K1 = to_float8(weight_NK.t())
        # One copy is the parameter, so that the parameters of a model are as many as before.
        self.rows_NK = torch.nn.Parameter(rows_NK, requires_grad=False)
        self.register_buffer('scales_1N', scales_N1.reshape(1, -1))
        self.register_buffer('columns_KN', columns_KN)
        self.register_buffer('scales_1K', scales_K1.reshape(1, -1))
        self.bias = linear.bias

    @property
    def weight(self) -> torch.Tensor:
        """The weight [N, K] in bf16, made anew each time: to look at (peft does for type and device), not to change."""
        return (self.rows_NK.float() * self.scales_1N.reshape(-1, 1)).to(torch.bfloat16)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Return x W^T + b [..., N] in bf16 of `input` x [..., K]."""
        x_MK = input.reshape(-1, self.in_features)
        y_MN = _Product.apply(x_MK, self.rows_NK, self.scales_1N, self.columns_KN, self.scales_1K)
        y = y_MN.reshape(*input.shape[:-1], self.out_features)
        return y if self.bias is None else y + self.bias.to(y.dtype)

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> 'Float8Linear':
        """Let weights and scales move between devices, but keep their types: without its scale float8 means nothing."""

        def kept(tensor: torch.Tensor) -> torch.Tensor:
            moved = fn(tensor)
            own = tensor is not self.bias and moved.dtype != tensor.dtype
            return tensor.to(moved.device) if own else moved

        return super()._apply(kept, recurse)


class _Product(torch.autograd.Function):
    """x W^T and its gradient to x; of x nothing is kept."""

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
        return scaled_product(*to_float8(x_MK), rows_NK, scales_1N, FAST_OUTPUT)

    @staticmethod
    def backward(ctx: Any, slope_MN: torch.Tensor) -> tuple:
        columns_KN, scales_1K = ctx.saved_tensors
        slope_MK = scaled_product(*to_float8(slope_MN), columns_KN, scales_1K, FAST_GRADIENT)
        return slope_MK.to(ctx.dtype), None, None, None, None


def to_float8_base(model: PreTrainedModel, config: Float8Config) -> None:
    """Put linear layers of `model` into float8, one after another, each of which frees its bf16 weight.

    The output layer stays, and so do layers whose dimensions are no multiples of 16, those that `config` skips,
    subclasses of Linear, and experts, which transformers keeps in tensors of three dimensions.

    Raises:
        ModelError: The base is quantised already, `config` skips what is not there, or no layer can be put into float8.
    """
    if getattr(model, 'hf_quantizer', None) is not None:
        raise ModelError(
            'the weights of this base are quantised already, so they cannot be put into float8: set quantization = '
            'None, or take the unquantised base'
        )
    places = _places(model, config)
    if not places:
        raise ModelError(
            f'no linear layer of {type(model).__name__} can be put into float8: each has a dimension that is no '
            f'multiple of {MULTIPLE}, one of quantization.skip={list(config.skip)} in its name, or is in the last '
            f'quantization.last={config.last} layers; take a lora preset'
        )
    for names in places:
        _replace(model, names)
    if next(model.parameters()).device.type == 'cuda':
        torch.cuda.empty_cache()


def _places(model: PreTrainedModel, config: Float8Config) -> list[list[str]]:
    """Return the names of each layer to replace; a layer that is used in several places has several."""
    _check_skip(model, config)
    ends = layers_of(model)[-config.last :] if config.last else []
    stay = {id(module) for layer in ends for module in layer.modules()} | {id(model.get_output_embeddings())}
    found: dict[int, list[str]] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        fits = type(module) is torch.nn.Linear and not any(size % MULTIPLE for size in module.weight.shape)
        if fits and id(module) not in stay and not config.skips(name):
            found.setdefault(id(module), []).append(name)
    return list(found.values())


def _check_skip(model: torch.nn.Module, config: Float8Config) -> None:
    for part in set(config.skip).difference(Float8Config.skip):
        if not any(Float8Config([part]).skips(name) for name, _ in model.named_modules()):
            known = {word for name, _ in model.named_modules() for word in name.split('.') if not word.isdigit()}
            raise ModelError(
                f'quantization.skip has {part!r}, and no module of {type(model).__name__} has it in its name; parts '
                f'are whole words between dots, such as `down_proj` or `layers.0.mlp`{did_you_mean(part, known)}'
            )


def _replace(model: torch.nn.Module, names: list[str]) -> None:
    layer = Float8Linear(model.get_submodule(names[0]))
    for name in names:
        parent, _, own = name.rpartition('.')
        setattr(model.get_submodule(parent), own, layer)


def refuse_trained(model: torch.nn.Module) -> None:
    """Refuse an adapter that trains a float8 weight itself.

    Raises:
        ModelError: It does.
    """
    for name, module in model.named_modules():
        if isinstance(module, Float8Linear) and module.rows_NK.requires_grad:
            own = name.removesuffix('.default').rpartition('.modules_to_save')[0].rpartition('.')[2] or name
            raise ModelError(
                f'{name} is in float8, which cannot be trained itself: leave it out of lora.modules_to_save, or add '
                f'{own!r} to quantization.skip'
            )
