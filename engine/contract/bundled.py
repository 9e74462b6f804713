"""What ships with the app: the starter model, the sample datasets, the catalogue of shapes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ASSETS = Path(__file__).resolve().parents[2] / "assets"
STARTER = ASSETS / "starter"
DATASETS = ASSETS / "datasets"
MODELS = ASSETS / "models"


@dataclass(frozen=True)
class SampleDataset:
    """One line of `assets/datasets/index.json`, where `prompts` are called samples."""

    title: str
    description: str
    rows: int
    heldout_rows: int
    scorer: str
    prompts: tuple[str, ...]


@dataclass(frozen=True)
class CatalogueModel:
    """One line of `assets/models/index.json`: a well-known model whose shape ships with the app."""

    title: str
    hub_id: str
    num_parameters: int


@cache
def catalogue() -> dict[str, CatalogueModel]:
    """Well-known models by catalogue name, the smallest first."""
    index = json.loads((MODELS / "index.json").read_text(encoding="utf-8"))
    models = {name: CatalogueModel(**entry) for name, entry in index.items()}
    return dict(sorted(models.items(), key=lambda item: item[1].num_parameters))


@cache
def sample_datasets() -> dict[str, SampleDataset]:
    """The bundled datasets by name."""
    index = json.loads((DATASETS / "index.json").read_text(encoding="utf-8"))
    return {
        name: SampleDataset(prompts=tuple(entry.pop("samples")), **entry)
        for name, entry in index.items()
    }


def sample_path(name: str) -> Path:
    """The training rows of a bundled dataset."""
    return DATASETS / f"{name}.jsonl"


def heldout_path(name: str) -> Path:
    """The held-out prompts of a bundled dataset; never trained on."""
    return DATASETS / f"{name}.heldout.jsonl"


@cache
def _starter_lengths() -> dict[str, int]:
    return json.loads((MODELS / "starter_lengths.json").read_text(encoding="utf-8"))


def known_longest_tokens(model: str, data: str) -> int | None:
    """Tokens in the longest row, where model and data both ship with the app."""
    return _starter_lengths().get(data) if model == "starter" else None
