"""From a change of the Setup page to its new answer: `python -m benchmarks.forecast_page`.

In this process for every field and every model of the catalogue, on a GPU with 12 GiB and on this
computer; and in a browser from a typed number to the changed text, where a Chromium is installed.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil

from engine.contract.bundled import catalogue
from engine.contract.durable import write_json
from engine.contract.launch import PROJECT, engine_environment
from engine.contract.presets import METHOD_CHOICES
from engine.memory.devices import Device, choose_device
from engine.memory.machine_rates import MachineRates
from qft_gui import forecasts as forecasts_module
from qft_gui.forecasts import Forecasts
from qft_gui.form import Form
from qft_gui.setup_frames import setup_frames
from qft_gui.surroundings import Surroundings

GIB = 1 << 30
GPU = Device("cuda:0", "cuda", "a GPU with 12 GiB", 12 * GIB, 11 * GIB)
CHANGES: dict[str, Any] = {
    "data": "support",
    "steps": 200,
    "batch_size": 32,
    "batching": "packed",
    "grad_accumulation": 4,
    "sequence_length": 1024,
    "learning_rate": "1e-4",
    "schedule": "cosine",
    "weight_decay": 0.1,
    "max_grad_norm": "1",
    "activation_checkpointing": True,
    "eval_percent": 20,
    "seed": 7,
    "name": "otto",
}
TYPED = 12  # numbers that are typed for each model in the browser
BROWSER_MODELS = ("Starter", "SmolLM2 1.7B", "Llama 2 13B")
# One frame after the other until the page shows the number that was typed.
TYPE_AND_WAIT = """
(number) => new Promise((done) => {
  const input = [...document.querySelectorAll('label')]
    .find((one) => one.innerText.trim().startsWith('Batch size')).querySelector('input');
  const shows = () => document.querySelector('.q-facts.sm.q-note dd').innerText === String(number);
  const began = performance.now();
  Object.getOwnPropertyDescriptor(HTMLInputElement.prototype, 'value').set.call(input, number);
  input.dispatchEvent(new Event('input', { bubbles: true }));
  const look = () => shows() ? done(performance.now() - began) : requestAnimationFrame(look);
  look();
})
"""


def forms(model: str) -> Iterator[tuple[str, Form]]:
    """The page with one thing changed at a time."""
    form = Form(model=model)
    for name, value in CHANGES.items():
        yield name, replace(form, **{name: value})
    for choice in METHOD_CHOICES:
        yield "method", form.with_method(*choice)
        yield "method, large batch", replace(form.with_method(*choice), batch_size=64)


def in_process(device: Device) -> dict[str, Any]:
    """Seconds of every change, for every model."""
    rates = MachineRates(device.id, {"float32": 1e11, "bfloat16": 1e12}, 1e10, 1e-5)
    forecasts_module.choose_device = lambda wish: device
    forecasts_module.rates_of = lambda device: rates
    forecasts, surroundings = (
        Forecasts(),
        Surroundings(lambda: "a run, so that nothing is measured"),
    )
    seconds: dict[tuple[str, str], float] = {}
    for model in ("starter", *catalogue()):
        setup_frames(Form(model=model), forecasts, surroundings=surroundings)
        for number, (name, form) in enumerate(forms(model)):
            began = time.perf_counter()
            setup_frames(form, forecasts, surroundings=surroundings)
            seconds[model, f"{number} {name}"] = time.perf_counter() - began
    slowest = max(seconds, key=lambda key: seconds[key])
    return {"device": device.name, **summary(seconds.values()), "slowest": " ".join(slowest)}


def summary(seconds: Iterable[float]) -> dict[str, Any]:
    """In milliseconds."""
    values = sorted(1000 * one for one in seconds)
    return {
        "changes": len(values),
        "median_ms": round(statistics.median(values), 1),
        "p95_ms": round(values[min(len(values) - 1, int(0.95 * len(values)))], 1),
        "most_ms": round(values[-1], 1),
    }


def in_browser(chromium: str) -> dict[str, Any]:
    """From a typed batch size to the changed text, by model."""
    from playwright.sync_api import sync_playwright

    found: dict[str, Any] = {}
    with served() as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page(viewport={"width": 1280, "height": 860})
        page.goto(url)
        page.get_by_role("button", name="More").click()
        for model in BROWSER_MODELS:
            page.get_by_label("Model").first.click()
            page.get_by_role("option", name=model).first.click()
            page.wait_for_timeout(3_000)
            taken = [page.evaluate(TYPE_AND_WAIT, number) for number in range(20, 20 + TYPED)]
            found[model] = summary(one / 1000 for one in taken)
        browser.close()
    return found


@contextmanager
def served() -> Iterator[str]:
    """The app's address, for as long as it runs."""
    with tempfile.TemporaryDirectory() as runs:
        app = subprocess.Popen(
            [sys.executable, "app.py", "--no-browser", "--offline", "--port", "0", "--runs", runs],
            cwd=PROJECT,
            env=engine_environment(),
            stdout=subprocess.PIPE,
            text=True,
        )
        assert app.stdout is not None
        try:
            yield next(line.split()[1] for line in app.stdout if line.startswith("Open "))
        finally:
            app.terminate()
            app.wait()


def main() -> None:
    """Measure and print; write the result file if asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--save", type=Path)
    options = parser.parse_args()
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    result: dict[str, Any] = {
        "benchmark": "forecast_page",
        "hardware": f"{os.cpu_count()}-core {platform.machine()} CPU",
        # Of other programs too: above the number of cores everything takes longer.
        "load_average": round(psutil.getloadavg()[0], 1),
        "browser": in_browser(chromium) if chromium else None,
        "in_process": [in_process(device) for device in (GPU, choose_device("cpu"))],
    }
    for name, numbers in (result["browser"] or {}).items():
        print(f"browser, {name}: {numbers}")
    for numbers in result["in_process"]:
        print(f"in process: {numbers}")
    if options.save:
        write_json(options.save, result)


if __name__ == "__main__":
    main()
