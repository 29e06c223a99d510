"""Give a meta model storage with random values; under FakeTensorMode the storage has none. The same model is then
profiled on a GPU or counted anywhere."""

import torch

from ..ops.float8_linear import Float8Linear
from ..ops.float8_matmul import FLOAT8


def materialize(model: torch.nn.Module, device: torch.device) -> None:
    """Give the tensors of a meta model storage on `device`, and quantize the weights that are to be quantized.

    Values are random, such that the loss and its gradients are finite.
    """
    created: dict[int, torch.nn.Parameter] = {}
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False, remove_duplicate=False)):
            if id(parameter) not in created:  # tied parameters stay tied
                created[id(parameter)] = _materialized(parameter, device)
            setattr(module, name, created[id(parameter)])
        for name, buffer in list(module.named_buffers(recurse=False, remove_duplicate=False)):
            setattr(module, name, torch.ones(buffer.shape, device=device).to(buffer.dtype))
        if isinstance(module, Float8Linear):
            module.columns_KN = module.rows_NK.data.t().contiguous()


def _materialized(parameter: torch.nn.Parameter, device: torch.device) -> torch.nn.Parameter:
    dtype = torch.bfloat16 if parameter.dtype == FLOAT8 else parameter.dtype
    values = torch.empty(parameter.shape, dtype=dtype, device=device)
    values = (values.fill_(1.0) if values.dim() < 2 else values.normal_(0, 0.02)).to(parameter.dtype)
    settings = vars(parameter)
    if 'quant_type' in settings:
        names = ('blocksize', 'compress_statistics', 'quant_type', 'quant_storage')
        from bitsandbytes.functional import quantize_4bit

        packed, state = quantize_4bit(values, **{name: settings[name] for name in names})
        weight = torch.nn.Parameter(packed, requires_grad=False)
        weight.quant_state, weight.bnb_quantized = state, True
        return weight
    if 'SCB' in settings:
        from bitsandbytes.functional import int8_vectorwise_quant

        packed, scales, _ = int8_vectorwise_quant(values.half())
        weight = torch.nn.Parameter(packed, requires_grad=False)
        weight.CB, weight.SCB = weight.data, scales
        return weight
    return torch.nn.Parameter(values, parameter.requires_grad)


def quantized_bytes(parameter: torch.nn.Parameter) -> int:
    """Return the minimum bytes of a frozen parameter of a meta model once it is materialized."""
    settings, count = vars(parameter), parameter.numel()
    if 'quant_type' in settings:
        return count // 2  # without the scales
    return count if 'SCB' in settings else count * parameter.element_size()
