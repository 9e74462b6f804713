"""Names of columns, keys and speakers, compared as people read them."""

from __future__ import annotations

import unicodedata
from functools import lru_cache


@lru_cache(maxsize=4096)
def folded(name: str) -> str:
    """A name without case, spaces, underscores and hyphens."""
    if not name.isascii():  # a letter and its accent may be one character or two
        name = unicodedata.normalize("NFKC", name)
    return name.strip().lower().replace("_", "").replace(" ", "").replace("-", "")
