"""What is said of a method's quality is what was measured, and nothing where nothing was."""

from __future__ import annotations

import json
import statistics

import pytest

from benchmarks.quality_table import RESULTS, quality_table
from engine.contract.bundled import ASSETS
from engine.contract.presets import METHOD_CHOICES, MethodChoice
from engine.memory.quality import Quality, measured_parameters, quality_of


def test_the_file_is_what_the_results_say() -> None:
    assert json.loads((ASSETS / "quality.json").read_text(encoding="utf-8")) == quality_table()


def test_full_adamw_is_the_yardstick_and_the_unmeasured_has_no_number() -> None:
    full = quality_of(MethodChoice("full"))
    assert full is not None
    assert full.share_percent == 100
    assert quality_of(MethodChoice("qlora", "paper")) is None
    measured = [choice for choice in METHOD_CHOICES if quality_of(choice)]
    assert len(measured) == len(METHOD_CHOICES) - 1
    assert measured_parameters() == 3_934_464


def test_a_preset_that_loses_small_updates_says_so() -> None:
    """The lowest rate of the ablation: LION in float32 falls from 5.88 to 4.95 there."""
    found = json.loads((RESULTS / "qft_ablation_cpu.json").read_text(encoding="utf-8"))
    outcomes = {
        one["variant"]: one
        for one in found["models"]["starter"]["outcomes"]
        if one["learning_rate"] == 1e-5
    }
    start = outcomes["fp32 Lion"]["before"][0]
    fell = [start - end for end in outcomes["QFT paper"]["after"]]
    most = [start - end for end in outcomes["fp32 Lion"]["after"]]
    share = statistics.fmean(100 * own / best for own, best in zip(fell, most, strict=True))
    paper = quality_of(MethodChoice("qft", "paper"))
    assert paper is not None
    assert paper.low_rate_share_percent == pytest.approx(share, abs=0.06)
    assert paper.words.endswith("% at low rates")
    assert Quality(101.6, 99.2, 40, "-").words == "102 % of AdamW's"
