"""Paths that a person typed: whatever they hold, looking at them never raises."""

from __future__ import annotations

from pathlib import Path


def typed_path(text: str) -> Path:
    """The path that a person means, `~` included, and without the quotes that Windows copies."""
    if len(text) > 2 and text[0] == text[-1] and text[0] in "\"'":
        text = text[1:-1]
    path = Path(text)
    try:
        return path.expanduser()
    except RuntimeError:  # `~nobody`
        return path


def is_file(path: Path) -> bool:
    """False too where the system refuses to look: a name too long, a folder that is closed."""
    try:
        return path.is_file()
    except OSError:
        return False


def is_folder(path: Path) -> bool:
    """False too where the system refuses to look."""
    try:
        return path.is_dir()
    except OSError:
        return False
