"""What the values of one tensor look like, and what rounding them to 8 bits loses.

The questions are those of "QFT: Quantized Full-parameter Tuning of LLMs with Affordable Resources",
figure 2 and section 3.2: are there outliers, and what do they cost a uniform 8-bit code?

All of it is measured on `sampled_rows`, which is the whole tensor up to a million values; only the
largest value is always that of the whole tensor.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from engine.quant.int8 import dequantize, quantize_nearest, scales_of

SAMPLED_VALUES = 1 << 20
# In units of the tensor's own rms. A bin is as wide as the distance between two centres.
BIN_CENTRES = tuple(number / 4 for number in range(-32, 33))
OUTLIER_RMS = 4.0
LARGEST_PERCENT = 1.0
GROUP = 32


@dataclass(frozen=True)
class QuantizationErrors:
    """Length of what rounding to nearest int8 codes changes, relative to the values' length.

    Attributes:
        row: One scale per row.
        group: One scale per `GROUP` values of a row; per row where its length is no multiple.
        hybrid: As `group`, with the largest `LARGEST_PERCENT` of the tensor kept as they are.
    """

    row: float
    group: float
    hybrid: float


@dataclass(frozen=True)
class Distribution:
    """The values of one tensor, or of several taken together.

    Attributes:
        num_elements: Values of the whole tensor.
        num_sampled: Values that were looked at.
        rms: Root of the mean square, the unit of the histogram.
        largest: Largest absolute value of the whole tensor.
        kurtosis: Excess kurtosis about the mean, 0 for a normal distribution; None where all
            values are equal.
        outlier_share: Share of values beyond `OUTLIER_RMS` times the rms, from 0 to 1.
        top_share: Share of the sum of squares that the largest `LARGEST_PERCENT` hold.
        shares: Share of values in each bin of `BIN_CENTRES`.
        outside_share: Share of values beyond all bins; with `shares` it adds up to 1.
        errors: None for a vector or an all-zero tensor.
    """

    num_elements: int
    num_sampled: int
    rms: float
    largest: float
    kurtosis: float | None
    outlier_share: float
    top_share: float
    shares: tuple[float, ...]
    outside_share: float
    errors: QuantizationErrors | None

    def as_json(self) -> dict[str, Any]:
        """Shares in percent, to six digits."""
        errors = self.errors
        return {
            "num_elements": self.num_elements,
            "num_sampled": self.num_sampled,
            "rms": _short(self.rms),
            "largest": _short(self.largest),
            "kurtosis": None if self.kurtosis is None else _short(self.kurtosis),
            "outlier_percent": _short(100 * self.outlier_share),
            "top_percent": _short(100 * self.top_share),
            "histogram_percent": [_short(100 * share) for share in self.shares],
            "outside_percent": _short(100 * self.outside_share),
            "error_percent": errors
            and {
                "row": _short(100 * errors.row),
                "group": _short(100 * errors.group),
                "hybrid": _short(100 * errors.hybrid),
            },
        }


def distribution_of(tensor: Tensor) -> Distribution | None:
    """Look at one tensor; None if it holds NaN or infinity, or nothing.

    Args:
        tensor: Any floating format and shape. More than two dimensions are a matrix whose row is
            the last dimension, a vector is one row.
    """
    if tensor.numel() == 0:
        return None
    tensor = tensor.detach()
    largest = max(abs(float(end)) for end in torch.aminmax(tensor))
    if not math.isfinite(largest):
        return None
    values = sampled_rows(tensor)
    exact = values.double().flatten()
    square = float(exact.square().mean())
    rms = math.sqrt(square)
    shares, outside = _histogram(exact, rms)
    return Distribution(
        num_elements=tensor.numel(),
        num_sampled=values.numel(),
        rms=rms,
        largest=largest,
        kurtosis=_excess_kurtosis(exact),
        outlier_share=float((exact.abs() > OUTLIER_RMS * rms).double().mean()),
        top_share=_top_share(exact),
        shares=shares,
        outside_share=outside,
        errors=quantization_errors(values) if tensor.ndim > 1 and rms > 0 else None,
    )


def sampled_rows(tensor: Tensor) -> Tensor:
    """Whole rows in float32, evenly spaced and always the same, `SAMPLED_VALUES` values or less.

    One row at least. Shape (rows, columns).
    """
    matrix = tensor.reshape(-1, tensor.shape[-1] if tensor.ndim else 1)
    num_rows = matrix.shape[0]
    kept = min(num_rows, max(1, SAMPLED_VALUES // matrix.shape[1]))
    if kept < num_rows:
        matrix = matrix[torch.arange(kept, device=matrix.device) * num_rows // kept]
    return matrix.to(device="cpu", dtype=torch.float32)


def quantization_errors(values: Tensor) -> QuantizationErrors:
    """Three ways to store a matrix in 8 bits, compared.

    Args:
        values: Float32, shape (rows, columns), not all zero.
    """
    columns = values.shape[1]
    num_groups = columns // GROUP if columns % GROUP == 0 else 1
    spared = _largest(values)
    return QuantizationErrors(
        row=_relative_error(values, _stored(values, 1)),
        group=_relative_error(values, _stored(values, num_groups)),
        hybrid=_relative_error(
            values,
            torch.where(spared, values, _stored(values.masked_fill(spared, 0), num_groups)),
        ),
    )


def merged(parts: Sequence[Distribution]) -> Distribution:
    """Several tensors as one, each counted in units of its own rms and weighted by its size.

    Errors are those of the tensors laid end to end; the kurtosis is the mean of those known.
    """
    total = sum(part.num_elements for part in parts)

    def mean(of: Callable[[Distribution], float]) -> float:
        return sum(of(part) * part.num_elements for part in parts) / total

    curved = [part.kurtosis for part in parts if part.kurtosis is not None]
    return Distribution(
        num_elements=total,
        num_sampled=sum(part.num_sampled for part in parts),
        rms=math.sqrt(mean(lambda part: part.rms**2)),
        largest=max(part.largest for part in parts),
        kurtosis=sum(curved) / len(curved) if curved else None,
        outlier_share=mean(lambda part: part.outlier_share),
        top_share=mean(lambda part: part.top_share),
        shares=tuple(
            mean(lambda part, at=number: part.shares[at]) for number in range(len(BIN_CENTRES))
        ),
        outside_share=mean(lambda part: part.outside_share),
        errors=_merged_errors(parts),
    )


def _merged_errors(parts: Sequence[Distribution]) -> QuantizationErrors | None:
    known = [(part.errors, part.num_elements * part.rms**2) for part in parts if part.errors]
    total = sum(weight for _, weight in known)
    if not total:
        return None

    def root(of: Callable[[QuantizationErrors], float]) -> float:
        return math.sqrt(sum(of(errors) ** 2 * weight for errors, weight in known) / total)

    return QuantizationErrors(
        root(lambda errors: errors.row),
        root(lambda errors: errors.group),
        root(lambda errors: errors.hybrid),
    )


def _histogram(values: Tensor, rms: float) -> tuple[tuple[float, ...], float]:
    """Share of values per bin, and of those beyond all bins. An all-zero tensor is all centre."""
    width, count = BIN_CENTRES[1] - BIN_CENTRES[0], len(BIN_CENTRES)
    places = (values / (rms or 1.0) / width + count / 2).floor_()
    inside = places[(places >= 0) & (places < count)].long()
    counts = torch.bincount(inside, minlength=count).tolist()
    size = values.numel()
    return tuple(number / size for number in counts), (size - inside.numel()) / size


def _excess_kurtosis(values: Tensor) -> float | None:
    centred = values - values.mean()
    variance = float(centred.square().mean())
    # Equal values differ from their mean by rounding alone.
    if variance <= 1e-24 * float(values.square().mean()):
        return None
    return float((centred / math.sqrt(variance)).pow(4).mean()) - 3


def _num_largest(count: int) -> int:
    return max(1, round(count * LARGEST_PERCENT / 100))


def _largest(values: Tensor) -> Tensor:
    """A mask of the largest `LARGEST_PERCENT`, so many exactly even where some are equal."""
    sizes = values.abs().flatten()
    mask = torch.zeros_like(sizes, dtype=torch.bool)
    mask[sizes.topk(_num_largest(sizes.numel()), sorted=False).indices] = True
    return mask.view_as(values)


def _top_share(values: Tensor) -> float:
    squares = values.square()
    total = float(squares.sum())
    largest = squares.topk(_num_largest(squares.numel()), sorted=False).values
    return float(largest.sum()) / total if total else 0.0


def _stored(values: Tensor, num_groups: int) -> Tensor:
    """The values as int8 codes give them back."""
    scales = scales_of(values, num_groups, torch.float32, headroom=1.0)
    return dequantize(quantize_nearest(values, scales), scales, torch.float32)


def _relative_error(values: Tensor, stored: Tensor) -> float:
    lost = torch.linalg.vector_norm(values - stored, dtype=torch.float64)
    return float(lost / torch.linalg.vector_norm(values, dtype=torch.float64))


def _short(value: float) -> float:
    return float(f"{value:.6g}")
