"""The Gradio theme: every colour is a CSS variable of style.css, so light and dark meet there.

Gradio emits the theme twice, for :root and for dark. Both copies must name our tokens, or
`gr.themes.Base` keeps its own dark greys; `_both` does that.
"""

from __future__ import annotations

from gradio.themes import Base
from gradio.themes.utils.sizes import Size

SANS = ["Inter", "system-ui", "-apple-system", "Segoe UI", "Noto Sans", "sans-serif"]
MONO = ["ui-monospace", "SF Mono", "Cascadia Mono", "Consolas", "DejaVu Sans Mono", "monospace"]

# Blocks carry no box of their own: cards do.
SURFACES = {
    "body_background_fill": "var(--paper)",
    "body_text_color": "var(--ink)",
    "body_text_color_subdued": "var(--ink-2)",
    "body_text_size": "15px",
    "background_fill_primary": "var(--card)",
    "background_fill_secondary": "var(--well)",
    "border_color_primary": "var(--line)",
    "border_color_accent": "var(--accent)",
    "color_accent": "var(--accent)",
    "color_accent_soft": "var(--accent-soft)",
    "link_text_color": "var(--accent)",
    "link_text_color_hover": "var(--accent)",
    "link_text_color_visited": "var(--accent)",
    "block_background_fill": "transparent",
    "block_border_width": "0px",
    "block_padding": "0px",
    "block_radius": "8px",
    "block_shadow": "none",
    "block_label_background_fill": "transparent",
    "block_label_border_width": "0px",
    "block_label_text_color": "var(--ink-2)",
    "block_title_text_color": "var(--ink)",
    "block_title_text_size": "13px",
    "block_title_text_weight": "500",
    "block_info_text_color": "var(--ink-2)",
    "block_info_text_size": "13px",
    "panel_background_fill": "transparent",
    "panel_border_width": "0px",
    "layout_gap": "16px",
    "form_gap_width": "0px",
}
# A drawn edge of 3:1, no shadow.
INPUTS = {
    "input_background_fill": "var(--card)",
    "input_background_fill_focus": "var(--card)",
    "input_border_color": "var(--control)",
    "input_border_color_focus": "var(--accent)",
    "input_border_width": "1px",
    "input_radius": "8px",
    "input_padding": "10px 12px",
    "input_shadow": "none",
    "input_shadow_focus": "0 0 0 3px var(--accent-soft)",
    "input_placeholder_color": "var(--ink-2)",
    "input_text_size": "15px",
}
# One filled, the rest outlined.
BUTTONS = {
    "button_large_radius": "8px",
    "button_medium_radius": "8px",
    "button_small_radius": "8px",
    "button_large_text_size": "15px",
    "button_medium_text_size": "15px",
    "button_large_text_weight": "600",
    "button_medium_text_weight": "500",
    "button_large_padding": "12px 20px",
    "button_medium_padding": "10px 16px",
    "button_border_width": "1px",
    "button_primary_background_fill": "var(--accent)",
    "button_primary_background_fill_hover": "var(--accent-strong)",
    "button_primary_border_color": "var(--accent)",
    "button_primary_text_color": "var(--on-accent)",
    "button_secondary_background_fill": "var(--card)",
    "button_secondary_background_fill_hover": "var(--well)",
    "button_secondary_border_color": "var(--control)",
    "button_secondary_text_color": "var(--ink)",
    "button_cancel_background_fill": "var(--card)",
    "button_cancel_background_fill_hover": "var(--bad-soft)",
    "button_cancel_border_color": "var(--control)",
    "button_cancel_text_color": "var(--bad)",
    "button_primary_shadow": "none",
    "button_secondary_shadow": "none",
    "button_cancel_shadow": "none",
}
# Sliders, loaders and errors.
SIGNALS = {
    "slider_color": "var(--accent)",
    "loader_color": "var(--accent)",
    "error_background_fill": "var(--bad-soft)",
    "error_border_color": "var(--bad)",
    "error_text_color": "var(--bad)",
}


def _both(**values: str) -> dict[str, str]:
    """The same value for the light and the dark variant of every variable that has one."""
    known = Base.set.__code__.co_varnames
    return {
        name: value
        for key, value in values.items()
        for name in (key, f"{key}_dark")
        if name in known
    }


def make_theme() -> Base:
    """The look of Gradio's own components; ours are in style.css."""
    return Base(
        font=SANS,
        font_mono=MONO,
        text_size=Size("12px", "13px", "14px", "15px", "18px", "24px", "32px"),
        spacing_size=Size("2px", "4px", "8px", "8px", "16px", "24px", "32px"),
        radius_size=Size("2px", "4px", "6px", "8px", "12px", "12px", "12px"),
    ).set(**_both(**SURFACES, **INPUTS, **BUTTONS, **SIGNALS))
