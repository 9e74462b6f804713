"""What the GPU suite measures: jobs, the important first. No torch."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

_LENGTHS = ((1, 512), (1, 1024), (1, 2048))
_CAPS_GIB = (24.0, 16.0, 12.0)
# One measurement, as JSON.
Line = dict[str, Any]


@dataclass(frozen=True)
class Job:
    """What one process measures.

    Attributes:
        kind: `steps` measures each size without a limit; `caps` tries each limit; `claim` compares
            QFT's step with AdamW's; `checks` compares the device with a CPU.
        geometry: A key of `GEOMETRIES`.
        method: A key of `METHODS`; empty for `checks`.
        sizes: Conversations and tokens in each.
        caps_gib: Limits, for `caps`.
        device: Where.
    """

    kind: Literal["checks", "claim", "steps", "caps"]
    geometry: str
    method: str
    sizes: tuple[tuple[int, int], ...]
    caps_gib: tuple[float, ...] = ()
    device: str = "cuda"

    @property
    def name(self) -> str:
        """For people."""
        return " ".join(part for part in (self.kind, self.geometry, self.method) if part)

    @property
    def places(self) -> list[dict[str, Any]]:
        """What names each measurement of this job, before it is done."""
        if self.kind in ("checks", "claim"):
            return [{"kind": self.kind}]
        caps = self.caps_gib or (None,)
        return [
            {
                "kind": self.kind,
                "geometry": self.geometry,
                "method": self.method,
                "batch_size": rows,
                "length": tokens,
                **({} if cap is None else {"cap_gib": cap}),
            }
            for cap in caps
            for rows, tokens in self.sizes
        ]

    @classmethod
    def from_json(cls, text: str) -> Job:
        """What `as_json` made."""
        fields = json.loads(text)
        sizes = tuple((rows, tokens) for rows, tokens in fields.pop("sizes"))
        return cls(**{**fields, "sizes": sizes, "caps_gib": tuple(fields["caps_gib"])})

    def as_json(self) -> str:
        """For the command line."""
        return json.dumps(asdict(self))


def jobs() -> list[Job]:
    """What to measure on a GPU, the important first."""
    seven, eight = "llama-2-7b", "llama-3.1-8b"
    published = ((8, 512),)
    torchtune = ((2, 2048),)
    return [
        Job("checks", "tiny", "", ()),
        Job("claim", seven, "qft-balanced", ((1, 1024),)),
        Job("steps", seven, "qft-balanced", _LENGTHS),
        Job("steps", seven, "lomo", _LENGTHS),
        Job("steps", seven, "lomo-unclipped", _LENGTHS + published),
        Job("steps", seven, "qlora", _LENGTHS),
        Job("steps", seven, "lora", _LENGTHS),
        Job("caps", seven, "qft-balanced", _LENGTHS, _CAPS_GIB),
        Job("steps", seven, "qft-paper", _LENGTHS),
        Job("steps", seven, "adalomo", _LENGTHS),
        Job("steps", seven, "qft-lean", _LENGTHS),
        Job("steps", eight, "qft-balanced", _LENGTHS + torchtune),
        Job("steps", eight, "lora", torchtune),
        Job("steps", eight, "qlora", torchtune),
        Job("steps", eight, "full-adamw-8bit", torchtune),
        Job("caps", seven, "qlora", _LENGTHS, _CAPS_GIB),
        Job("caps", seven, "lomo", _LENGTHS, _CAPS_GIB),
        Job("caps", seven, "qft-lean", _LENGTHS, _CAPS_GIB),
        Job("steps", seven, "full-sgd", _LENGTHS),
        Job("steps", seven, "full-adamw-8bit", _LENGTHS),
        Job("steps", seven, "full-lion", _LENGTHS),
        Job("steps", seven, "qft-quality", _LENGTHS),
        Job("steps", seven, "qft-int8-products", _LENGTHS),
        Job("steps", eight, "lomo", _LENGTHS),
        Job("caps", seven, "adalomo", _LENGTHS, _CAPS_GIB),
        Job("caps", seven, "lora", _LENGTHS, _CAPS_GIB),
        Job("steps", seven, "full-adamw", _LENGTHS),
        Job("steps", eight, "adalomo", _LENGTHS),
        Job("steps", eight, "qft-lean", _LENGTHS),
        Job("caps", eight, "qft-balanced", _LENGTHS, _CAPS_GIB),
        Job("steps", seven, "lomo", published),
        *(Job("steps", eight, name, _LENGTHS) for name in ("qlora", "lora", "full-adamw-8bit")),
        *(Job("steps", eight, name, _LENGTHS) for name in ("qft-quality", "qft-paper")),
        *(Job("steps", eight, name, _LENGTHS) for name in ("full-sgd", "full-lion")),
        *(Job("caps", eight, name, _LENGTHS, _CAPS_GIB) for name in ("qlora", "lomo", "qft-lean")),
        *(Job("caps", seven, name, _LENGTHS, _CAPS_GIB) for name in ("qft-paper", "qft-quality")),
        Job("caps", seven, "full-adamw-8bit", _LENGTHS, _CAPS_GIB),
    ]


def tiny_jobs() -> list[Job]:
    """One job of each kind for a CPU, and one that lacks a package where bitsandbytes is absent."""
    sizes = ((1, 16), (1, 32), (2, 64))
    kinds = [
        Job("checks", "tiny", "", ()),
        Job("claim", "tiny", "qft-balanced", ((1, 32),)),
        Job("steps", "tiny", "qft-paper", sizes),
        Job("steps", "tiny", "qlora", sizes),
        Job("caps", "tiny", "lomo", sizes[:2], _CAPS_GIB[:2]),
    ]
    return [replace(job, device="cpu") for job in kinds]
