"""Storage for the tensors of a frame: random values, or under FakeTensorMode none, so that the same model is measured
on a GPU and counted anywhere."""

import torch

from ..ops.float8_linear import Float8Linear
from ..ops.float8_matmul import FLOAT8


def fill(model: torch.nn.Module, device: torch.device) -> None:
    """Give the tensors of a frame storage on `device`, with random values; what is to be quantised is.

    Values are such that a loss and its gradients are finite, no more.
    """
    made: dict[int, torch.nn.Parameter] = {}
    for module in model.modules():
        for name, parameter in list(module._parameters.items()):
            if parameter is not None:
                if id(parameter) not in made:  # tied ones stay tied
                    made[id(parameter)] = _filled(parameter, device)
                module._parameters[name] = made[id(parameter)]
        for name, buffer in list(module._buffers.items()):
            if buffer is not None:
                module._buffers[name] = torch.ones(buffer.shape, device=device).to(buffer.dtype)
        if isinstance(module, Float8Linear):
            module.columns_KN = module.rows_NK.data.t().contiguous()


def _filled(parameter: torch.nn.Parameter, device: torch.device) -> torch.nn.Parameter:
    kind = torch.bfloat16 if parameter.dtype == FLOAT8 else parameter.dtype
    values = torch.empty(parameter.shape, dtype=kind, device=device)
    values = (values.fill_(1.0) if values.dim() < 2 else values.normal_(0, 0.02)).to(parameter.dtype)
    settings = vars(parameter)
    if 'quant_type' in settings:
        names = ('blocksize', 'compress_statistics', 'quant_type', 'quant_storage')
        from bitsandbytes.functional import quantize_4bit

        packed, state = quantize_4bit(values, **{name: settings[name] for name in names})
        made = torch.nn.Parameter(packed, requires_grad=False)
        made.quant_state, made.bnb_quantized = state, True
        return made
    if 'SCB' in settings:
        from bitsandbytes.functional import int8_vectorwise_quant

        packed, scales, _ = int8_vectorwise_quant(values.half())
        made = torch.nn.Parameter(packed, requires_grad=False)
        made.CB, made.SCB = made.data, scales
        return made
    return torch.nn.Parameter(values, parameter.requires_grad)


def packed_bytes(parameter: torch.nn.Parameter) -> int:
    """Return the bytes that a frozen parameter of a frame takes at least, once it is filled."""
    settings, count = vars(parameter), parameter.numel()
    if 'quant_type' in settings:
        return count // 2  # and the scales
    return count if 'SCB' in settings else count * parameter.element_size()
