"""The frame of all pages: brand, free memory, tabs, and the handles between them."""

from __future__ import annotations

import gradio as gr

from engine.memory.devices import choose_device
from qft_gui.chat_room import ChatRoom
from qft_gui.forecasts import Forecasts
from qft_gui.fragments import render
from qft_gui.navigation import QUIETLY, Navigation, run_picker
from qft_gui.pages import compare, run, runs, setup, xray
from qft_gui.pages.parts import slot
from qft_gui.service import Service
from qft_gui.view.top import gauge
from qft_gui.xrays import Xrays

GAUGE_S = 5


def build_blocks(
    service: Service, room: ChatRoom, plotly_url: str, *, is_for_others: bool = False
) -> gr.Blocks:
    """The whole page.

    Args:
        service: The runs.
        room: The chat.
        plotly_url: Where the page gets plotly.js from: this server.
        is_for_others: Whether other computers can reach the page.
    """
    with gr.Blocks(title="QFT Workbench", analytics_enabled=False, fill_width=True) as blocks:
        _top_bar(blocks)
        talk = gr.State(None)  # inside, it would be counted as a tab
        with gr.Tabs(elem_id="nav", selected="setup") as tabs:
            navigation = Navigation(
                blocks=blocks,
                tabs=tabs,
                run=run_picker("run-picker"),
                talk=talk,
            )
            with gr.Tab("Setup", id="setup"):
                setup.build(service, Forecasts(), navigation)
            with gr.Tab("Run", id="run"):
                run.build(service, room, navigation, plotly_url)
            with gr.Tab("Compare", id="compare"):
                compare.build(service, room, navigation, is_for_others=is_for_others)
            with gr.Tab("X-ray", id="xray") as xray_tab:
                xray.build(service, Xrays(service.runs), navigation, xray_tab, plotly_url)
            with gr.Tab("Runs", id="runs") as runs_tab:
                runs.build(service, navigation, runs_tab)
    return blocks


def _top_bar(blocks: gr.Blocks) -> None:
    def measure() -> str:
        return render("top", **gauge(choose_device("auto")))

    top = slot(measure())
    clock = gr.Timer(GAUGE_S)
    gr.on([clock.tick, blocks.load], measure, None, top, **QUIETLY)
