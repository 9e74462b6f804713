"""Published figures beside the forecast: the file is what the code gives, row by row."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from benchmarks.published_forecast import GPU, RESULT, document, forecast_of, row, spec_of
from benchmarks.published_memory import FIGURES, PUBLISHED, Published
from engine.memory.catalogue import bundled_shape
from engine.memory.estimate import MODELLED
from engine.memory.units import GIB

EACH = pytest.mark.parametrize("figure", FIGURES, ids=lambda one: f"{one.name} {one.source[:20]}")


def figure_of(name: str, recomputed: bool = True) -> Published:
    return next(one for one in FIGURES if one.name == name and one.recomputed is recomputed)


def test_the_file_is_what_the_code_gives() -> None:
    assert json.loads(RESULT.read_text(encoding="utf-8")) == json.loads(json.dumps(document()))


@EACH
def test_a_figure_is_forecast_in_its_own_setting(figure: Published) -> None:
    spec, forecast = spec_of(figure), forecast_of(figure)
    shape = bundled_shape(figure.model)
    assert shape is not None
    assert shape.traces
    assert (spec.train.batch_size, spec.train.sequence_length) == (figure.batch_size, figure.tokens)
    assert spec.train.activation_checkpointing is figure.recomputed
    given = spec.method.model_dump()
    assert {name: given[name] for name in figure.method} == dict(figure.method)
    assert forecast.total_bytes < GPU.free_bytes
    assert figure.differs
    assert figure.source


@EACH
def test_the_difference_is_ours_less_theirs(figure: Published) -> None:
    found = row(figure)
    ours = sum(size for term, size in forecast_of(figure).terms.items() if term != "runtime") / GIB
    assert found["difference_gib"] == pytest.approx(ours - figure.gib, abs=0.006)
    assert found["difference_percent"] == pytest.approx(
        100 * (ours - figure.gib) / figure.gib, abs=0.06
    )


def test_what_both_sum_exactly_agrees() -> None:
    """LOMO, table 1: 12.55 of weights, and 75.31 of AdamW's states beside them."""
    lomo = forecast_of(figure_of("LOMO, recomputed"))
    assert lomo.terms["weights"] / GIB == pytest.approx(12.55, abs=0.005)
    adamw = forecast_of(figure_of("AdamW, recomputed"))
    exact = sum(size for term, size in adamw.terms.items() if term not in MODELLED | {"runtime"})
    assert exact / GIB == pytest.approx(12.55 + 12.55 + 75.31, abs=0.015)


def test_figures_measured_beside_are_of_the_list() -> None:
    named = [one for one in FIGURES if one.suite]
    assert list(PUBLISHED.values()) == named  # none takes another's place
    assert all(key == (one.model, one.suite, *key[2:]) for key, one in PUBLISHED.items())


def test_the_list_needs_no_package() -> None:
    code = (
        "import benchmarks.published_memory, sys;"
        "found = {'pydantic', 'torch', 'engine'} & sys.modules.keys();"
        "sys.exit(str(found) if found else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, '.');{code}"],
        cwd=RESULT.parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
