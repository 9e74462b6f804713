"""Lion does what its paper's algorithm 2 says."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from engine.optim.lion import BETA1, BETA2, lion_direction, lion_momentum


def published(gradients: list[Tensor], rate: float, decay: float, weight: Tensor) -> Tensor:
    """Algorithm 2 of "Symbolic Discovery of Optimization Algorithms", element by element."""
    values = weight.double().flatten().tolist()
    momenta = [0.0] * len(values)
    for gradient in gradients:
        for index, slope in enumerate(gradient.double().flatten().tolist()):
            mixed = 0.9 * momenta[index] + (1 - 0.9) * slope
            sign = (mixed > 0) - (mixed < 0)
            values[index] -= rate * (sign + decay * values[index])
            momenta[index] = 0.99 * momenta[index] + (1 - 0.99) * slope
    return torch.tensor(values).view_as(weight)


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_ten_steps_equal_the_published_algorithm(decay: float) -> None:
    generator = torch.Generator().manual_seed(1)
    gradients = [torch.randn(7, 11, generator=generator) for _ in range(10)]
    start = torch.randn(7, 11, generator=generator)
    weight, momentum = start.double(), torch.zeros(7, 11, dtype=torch.float64)
    for gradient in gradients:
        change = lion_direction(gradient.double(), momentum) + decay * weight
        weight -= 0.01 * change
        momentum = lion_momentum(gradient.double(), momentum)
    expected = published(gradients, 0.01, decay, start)
    assert torch.allclose(weight, expected.double(), rtol=1e-6, atol=0)


def test_single_precision_is_as_good() -> None:
    generator = torch.Generator().manual_seed(2)
    momentum = torch.randn(50, 50, generator=generator)
    gradient = torch.randn(50, 50, generator=generator)
    exact = BETA2 * momentum.double() + (1 - BETA2) * gradient.double()
    assert torch.allclose(lion_momentum(gradient, momentum).double(), exact, rtol=1e-6, atol=1e-7)
    mixed = BETA1 * momentum.double() + (1 - BETA1) * gradient.double()
    clear = mixed.abs() > 1e-6
    assert torch.equal(lion_direction(gradient, momentum)[clear].double(), mixed.sign()[clear])


def test_the_direction_changes_nothing_and_nothing_moves_without_a_slope() -> None:
    gradient, momentum = torch.tensor([1.0, -2.0, 0.0]), torch.tensor([0.5, 0.5, 0.0])
    assert lion_direction(gradient, momentum).tolist() == [1.0, 1.0, 0.0]
    assert momentum.tolist() == [0.5, 0.5, 0.0]
    assert lion_momentum(gradient, momentum) is momentum
    assert momentum.tolist() == pytest.approx([0.505, 0.475, 0.0])
    assert gradient.tolist() == [1.0, -2.0, 0.0]
