"""The event log loses nothing but a torn line, whatever happens to its file."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.contract.events import Event, EventReader, EventWriter, decode, encode
from engine.contract.history import RunHistory

CHUNK = 1 << 20
PROJECT = Path(__file__).parents[1]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "events.jsonl"


def line(number: int, **fields: Any) -> bytes:
    return encode({"seq": number, "attempt": 1, "kind": "step", "step": number, **fields})


def steps(events: list[Event]) -> list[int]:
    return [event["step"] for event in events]


def write(path: Path, *numbers: int) -> None:
    with EventWriter(path, 1) as writer:
        for number in numbers:
            writer.emit("step", step=number)


def script_command(log: Path, *lines: str) -> list[str]:
    """A process of its own that works on a log."""
    imports = "import resource, sys; from pathlib import Path; from engine.contract.events import *"
    script = "\n".join([imports, "log = Path(sys.argv[1])", *lines])
    return [sys.executable, "-c", script, str(log)]


def run_script(log: Path, *lines: str) -> str:
    command = script_command(log, *lines)
    return subprocess.run(
        command, cwd=PROJECT, check=True, stdout=subprocess.PIPE, text=True
    ).stdout


def test_what_was_emitted_is_read_in_order_and_heard(log: Path) -> None:
    heard: list[Event] = []
    with EventWriter(log, 3, heard.append) as writer:
        writer.emit("phase", phase="training", steps=9)
        writer.emit("step", step=1, loss_nats=0.5, nested={"a": [1, (2, None)]}, text="é ☃ 😀")
    reader = EventReader(log)
    events = reader.read()
    assert [event["kind"] for event in events] == ["phase", "step"]
    assert [event["seq"] for event in events] == [1, 2]
    assert {event["attempt"] for event in events} == {3}
    assert events[1]["nested"] == {"a": [1, [2, None]]}
    assert events[1]["text"] == "é ☃ 😀"
    assert events == heard
    assert reader.read() == []
    assert abs(events[0]["time"] - time.time()) < 60
    assert events[0]["uptime"] <= events[1]["uptime"] <= time.monotonic() + 0.001


def test_a_reader_goes_on_where_it_stopped(log: Path) -> None:
    reader = EventReader(log)
    assert reader.read() == []
    with EventWriter(log, 1) as writer:
        for number in (1, 2, 3):
            writer.emit("step", step=number)
            assert steps(reader.read()) == [number]


def test_what_json_lacks_becomes_null_and_separators_survive(log: Path) -> None:
    text = "a\u2028b\u2029c\x85d\r\ne\x00\ud800"
    with EventWriter(log, 1) as writer:
        writer.emit("step", step=1, loss_nats=float("nan"), deep=[{"x": float("-inf")}], text=text)
        writer.emit("step", step=2)
    assert log.read_bytes().count(b"\n") == 2
    assert b"NaN" not in log.read_bytes()
    assert b"Infinity" not in log.read_bytes()
    first, second = EventReader(log).read()
    assert (first["loss_nats"], first["deep"], first["text"]) == (None, [{"x": None}], text)
    assert second["step"] == 2


def test_a_torn_last_line_waits_for_its_end(log: Path) -> None:
    log.write_bytes(line(1) + line(2)[:-7])
    reader = EventReader(log)
    assert steps(reader.read()) == [1]
    with log.open("ab") as file:
        file.write(line(2)[-7:])
    assert steps(reader.read()) == [2]
    assert reader.bad_lines == 0


def test_a_new_writer_closes_a_torn_line(log: Path) -> None:
    log.write_bytes(line(1) + line(2)[:-7])
    write(log, 3)
    reader = EventReader(log)
    assert steps(reader.read()) == [1, 3]
    assert reader.bad_lines == 1
    before = log.read_bytes()
    write(log)
    assert log.read_bytes() == before


@pytest.mark.parametrize(
    ("damaged", "kept", "bad"),
    [
        (line(1) + line(2).replace(b'"step":2', b'"step":7') + line(3), [1, 3], 1),
        (line(1) + bytes(4096) + b"\n" + line(3), [1, 3], 1),
        (line(1) + bytes(100) + line(2) + line(3), [1, 3], 1),
        (line(1) + b"[1]\nnull\n{}\n\xff\xfe\n" + line(3), [1, 3], 4),
        (b"\xef\xbb\xbf" + line(1) + line(2), [2], 1),
        ((line(1) + line(2)).replace(b"\n", b"\r\n"), [1, 2], 0),
        (b"\n\n" + line(1) + b"\r\n \n" + line(2), [1, 2], 0),
        (line(1)[20:] + line(2), [2], 1),
        (line(1) + line(2) + line(2), [1, 2, 2], 0),
    ],
    ids=["bit", "NUL-line", "NUL-start", "garbage", "BOM", "CRLF", "blank", "head-cut", "doubled"],
)
def test_bad_lines_are_skipped_and_counted(
    log: Path, damaged: bytes, kept: list[int], bad: int
) -> None:
    log.write_bytes(damaged)
    reader = EventReader(log)
    assert steps(reader.read()) == kept
    assert reader.bad_lines == bad


def test_every_flipped_bit_is_noticed() -> None:
    whole = line(1, loss_nats=0.25)
    assert decode(whole[:-1]) is not None
    for bit in range(8 * (len(whole) - 1)):
        altered = bytearray(whole[:-1])
        altered[bit // 8] ^= 1 << bit % 8
        assert decode(bytes(altered)) is None, bit


@pytest.mark.parametrize("length", [CHUNK - 100, CHUNK, CHUNK + 1, 3 * CHUNK + 17])
def test_long_lines_neither_hang_nor_hide_what_follows(log: Path, length: int) -> None:
    log.write_bytes(line(1) + line(2, text="x" * length) + line(3))
    reader = EventReader(log)
    assert steps(reader.read()) == [1, 2, 3]
    assert reader.offset == log.stat().st_size
    log.write_bytes(log.read_bytes() + b"y" * (CHUNK + 5))
    assert reader.read() == []
    with log.open("ab") as file:
        file.write(b"\n" + line(4))
    assert steps(reader.read()) == [4]
    assert reader.bad_lines == 1


def test_chunk_borders_anywhere_in_a_line_lose_nothing(log: Path) -> None:
    filler = line(0, text="x" * (CHUNK - 300))
    for shift in range(len(line(1)) + 2):
        log.write_bytes(filler + b" " * shift + b"\n" + line(1) * 4)
        assert steps(EventReader(log).read()) == [0, 1, 1, 1, 1]


def test_a_line_without_end_is_given_up_within_bounded_memory(log: Path) -> None:
    with log.open("wb") as file:
        file.write(line(1))
        file.truncate(200 << 20)  # NULs that take no disk space
        file.seek(0, os.SEEK_END)
        file.write(b"\n" + line(2))
    said = run_script(
        log,
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss",
        "reader = EventReader(log)",
        "steps = [event['step'] for event in reader.read()]",
        "grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before",
        "print(steps, reader.bad_lines, grown < 100 * 1024)",
    )
    assert said == "[1, 2] 1 True\n"


def test_a_log_that_was_replaced_or_cut_is_read_anew(log: Path, tmp_path: Path) -> None:
    log.write_bytes(line(1) + line(2) + b"bad\n")
    reader = EventReader(log)
    assert steps(reader.read()) == [1, 2]
    other = tmp_path / "other"
    other.write_bytes(line(7) + line(8) + line(9) + line(10))
    other.replace(log)
    assert steps(reader.read()) == [7, 8, 9, 10]
    assert reader.bad_lines == 0
    log.write_bytes(line(5))
    assert steps(reader.read()) == [5]
    log.unlink()
    assert reader.read() == []
    assert reader.offset == 0  # a new log of the same length may even have the same inode
    log.write_bytes(line(6))
    assert steps(reader.read()) == [6]


@pytest.mark.parametrize("kind", ["folder", "pipe", "loop"])
def test_what_is_no_file_holds_no_events_and_nobody_up(log: Path, kind: str) -> None:
    if kind == "folder":
        log.mkdir()
    elif kind == "pipe":
        os.mkfifo(log)
    else:
        log.symlink_to(log)
    assert EventReader(log).read() == []


def test_two_threads_write_whole_lines_with_growing_numbers(log: Path) -> None:
    with EventWriter(log, 1) as writer:

        def emit(name: str) -> None:
            for number in range(500):
                writer.emit("step", step=number, by=name, text="x" * (number % 97))

        threads = [threading.Thread(target=emit, args=(name,)) for name in ("a", "b")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    reader = EventReader(log)
    events = reader.read()
    assert reader.bad_lines == 0
    assert [event["seq"] for event in events] == list(range(1, 1001))
    for name in ("a", "b"):
        assert steps([event for event in events if event["by"] == name]) == list(range(500))


def test_a_full_disk_loses_events_but_tells_how_many(log: Path) -> None:
    run_script(
        log,
        "_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)",
        "writer = EventWriter(log, 1)",
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))",
        "[writer.emit('step', step=number) for number in range(40)]",
        "resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))",
        "[writer.emit('step', step=number) for number in (100, 101)]",
    )
    reader = EventReader(log)
    events = reader.read()
    assert reader.bad_lines == 0
    kept = steps([event for event in events if event["kind"] == "step"])
    (gap,) = [event for event in events if event["kind"] == "gap"]
    assert 0 < len(kept) - 2 < 40
    assert kept == [*range(len(kept) - 2), 100, 101]
    assert gap["lost"] == 40 - (len(kept) - 2)
    assert [event["seq"] for event in events] == sorted({event["seq"] for event in events})


def test_kills_at_any_moment_tear_at_most_the_last_line(log: Path) -> None:
    script = (
        "writer = EventWriter(log, 1)",
        "for n in range(10**9): writer.emit('step', step=n, text='x' * 5000)",
    )
    child = subprocess.Popen(script_command(log, *script), cwd=PROJECT)
    deadline = time.monotonic() + 30
    while not log.exists() or log.stat().st_size < 300_000:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    child.wait()
    reader = EventReader(log)
    events = reader.read()
    assert reader.bad_lines == 0
    assert steps(events) == list(range(len(events)))
    assert log.stat().st_size - reader.offset < 5200


@settings(deadline=None, derandomize=True, max_examples=300)
@given(st.lists(st.binary(max_size=60) | st.sampled_from([line(1), line(2), b"\n"]), max_size=8))
def test_no_bytes_at_all_make_a_reader_raise(tmp_path_factory: Any, parts: list[bytes]) -> None:
    path = tmp_path_factory.getbasetemp() / "any.jsonl"
    path.write_bytes(b"".join(parts))
    reader = EventReader(path)
    history = RunHistory()
    history.add(reader.read())
    assert set(history.steps) <= {1, 2}
    assert reader.offset <= path.stat().st_size


@settings(deadline=None, derandomize=True, max_examples=200)
@given(st.binary(max_size=80), st.sampled_from([b"", b"[" * 100_000, b'{"kind":1', b'{"a":']))
def test_a_right_checksum_alone_makes_no_event(body: bytes, start: bytes) -> None:
    content = start + body
    event = decode(content + b',"crc":' + str(zlib.crc32(content)).encode() + b"}")
    assert event is None or json.loads(content + b"}")["kind"] == event["kind"]
