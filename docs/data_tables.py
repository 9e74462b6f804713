"""What the document on data takes from result files: how fast it is checked, what it survived."""

from __future__ import annotations

from docs.tables import result, table


def check_table() -> str:
    """Time and memory of checks, and one line about damaged files."""
    found, damaged = result("check_speed"), result("data_fuzz")
    outcomes = damaged["outcomes"]
    rows = [
        (
            f"{one['rows']:,}",
            f"{one['tokens']:,}",
            f"{one['seconds']:.1f} s",
            f"{one['memory_grown_bytes'] / 2**20:.0f} MiB",
        )
        for one in found["results"]
    ]
    headings = ("rows", "tokens", "time of a check", "memory it takes")
    return (
        f"{table(headings, rows)}\n\nOn a {found['hardware']}, once the tokenizer is loaded, "
        "without a store from before.\n\n"
        f"Of {damaged['cases']:,} files of random bytes, cut off or changed at random, "
        f"{outcomes['read']:,} could be read and {outcomes['refused']:,} were refused in a "
        f"sentence; the slowest took {damaged['seconds']['max']:.1f} s, and no process more than "
        f"{damaged['peak_bytes'] / 1e6:.0f} MB."
    )
