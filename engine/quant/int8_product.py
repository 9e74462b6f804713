"""Products of 8-bit numbers: activations are rounded too, one scale per token.

`torch._int_mm` multiplies int8 and adds up in int32, exactly; only the rounding of the activations
is lost. Faster than float32 where the hardware has instructions for it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from engine.contract.errors import RequestError
from engine.quant.int8 import LIMIT, SMALLEST_SCALE

# On CUDA the kernel wants more than 16 rows and multiples of 8.
_LEAST_TOKENS, _MULTIPLE = 17, 8
_TURING = (7, 5)


def int8_hardware(device: torch.device) -> bool:
    """Whether a device multiplies 8-bit numbers faster than others."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= _TURING
    return device.type == "cpu" and torch.cpu._is_vnni_supported()


def refuse_slow_products(device: torch.device) -> None:
    """8-bit products are for hardware that is faster at them.

    Raises:
        RequestError: The device is not.
    """
    if not int8_hardware(device):
        raise RequestError(
            "method.matmul",
            f"this {device.type} device has no fast 8-bit products.",
            "Choose dequantize.",
        )


def product_int8(inputs: Tensor, codes: Tensor, scales: Tensor) -> Tensor:
    """`inputs` times the weight transposed.

    Args:
        inputs: Any floating dtype, shape (tokens, in).
        codes: int8, shape (out, in).
        scales: One per row, shape (out, 1).

    Returns:
        Shape (tokens, out), dtype of the inputs.
    """
    rounded, steps = _rounded(inputs)
    product = _multiply(rounded, codes.T)
    return product.float().mul_(steps).mul_(scales.float().T).to(inputs.dtype)


def input_gradient_int8(grad_output: Tensor, codes: Tensor, scales: Tensor) -> Tensor:
    """`grad_output` times the weight; the scales go into what is rounded.

    Args:
        grad_output: Any floating dtype, shape (tokens, out).
        codes: int8, shape (out, in).
        scales: One per row, shape (out, 1).

    Returns:
        Shape (tokens, in), dtype of the gradient.
    """
    rounded, steps = _rounded(grad_output.float() * scales.float().T)
    return _multiply(rounded, codes).float().mul_(steps).to(grad_output.dtype)


def _rounded(values: Tensor) -> tuple[Tensor, Tensor]:
    """Codes, same shape, and one step per row."""
    low, high = torch.aminmax(values.float(), dim=-1, keepdim=True)
    steps = torch.maximum(low.neg_(), high).div_(LIMIT).clamp_(min=SMALLEST_SCALE)
    return (values / steps).round_().to(torch.int8), steps


def _multiply(left: Tensor, right: Tensor) -> Tensor:
    """int32 product of int8 matrices (m, k) and (k, n)."""
    if left.device.type != "cuda":
        return torch._int_mm(left, right)  # pyright: ignore[reportPrivateImportUsage]
    rows, columns = left.shape[0], right.shape[1]
    more_rows = max(0, _LEAST_TOKENS - rows)
    inner, outer = -left.shape[1] % _MULTIPLE, -columns % _MULTIPLE
    if inner or more_rows:
        left = torch.nn.functional.pad(left, (0, inner, 0, more_rows))
    if inner or outer:
        right = torch.nn.functional.pad(right, (0, outer, 0, inner))
    product = torch._int_mm(left, right)  # pyright: ignore[reportPrivateImportUsage]
    return product[:rows, :columns]
