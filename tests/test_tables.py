"""Tables in text: delimiters, quotes, headers and ragged rows, told by line."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.contract.errors import RequestError
from engine.data.containers import byte_source
from engine.data.containers.record_file import RowError
from engine.data.records import open_records


def read(path: Path, content: str) -> tuple[list[Any], list[str]]:
    path.write_bytes(content.encode())
    records = open_records(path)
    found = list(records)
    assert records.unit == "line"
    return found, records.notes


def refusal(path: Path, content: str) -> str:
    with pytest.raises(RequestError) as caught:
        read(path, content)
    assert caught.value.field == "data.source"
    return caught.value.message


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "rows.csv"


@pytest.mark.parametrize(
    ("delimiter", "container"),
    [(",", "CSV"), ("\t", "TSV"), (";", "CSV with semicolons"), ("|", "a table with |")],
)
def test_the_delimiter_is_found_by_even_rows(path: Path, delimiter: str, container: str) -> None:
    others = "".join(mark for mark in ",;|" if mark != delimiter)
    rows = [["question", "answer"], [f"a{others}b", "Hi"], [f"{others}c", "Ho"], ["d", "Hu"]]
    found, notes = read(path, "\n".join(delimiter.join(row) for row in rows))
    assert found == [
        (number, {"question": row[0], "answer": row[1]}) for number, row in enumerate(rows[1:], 2)
    ]
    assert notes == []
    assert open_records(path).container == container


def test_quoted_cells_hold_line_ends_and_quotes(path: Path) -> None:
    content = 'question,answer\n"Say ""go"",\nnow","1.\n2."\n\nplain,"a,b"\n'
    for line_end in ("\n", "\r\n", "\r"):
        found, _ = read(path, content.replace("\n", line_end))
        assert found == [
            (2, {"question": 'Say "go",\nnow', "answer": "1.\n2."}),
            (6, {"question": "plain", "answer": "a,b"}),
        ]


def test_quotes_behind_a_backslash_are_understood(path: Path) -> None:
    found, _ = read(path, 'question,answer\n"Say \\"go, now\\"","yes"\n"a, \\"b\\"","no"\n')
    assert [row["question"] for _, row in found] == ['Say "go, now"', 'a, "b"']


def test_words_that_mean_nothing_elsewhere_stay_text(path: Path) -> None:
    found, _ = read(path, "question,answer\na,NA\nb,None\nc,null\nd,nan\ne,\n")
    assert [row["answer"] for _, row in found] == ["NA", "None", "null", "nan", None]


def test_ragged_rows_are_refused_by_line(path: Path) -> None:
    found, _ = read(path, 'question,answer\na,b\nc\nd,e,f\ng,h,,\n"i\nj",k\nl,m\n')
    assert [number for number, _ in found] == [2, 3, 4, 5, 6, 8]
    assert [str(row) for _, row in found if isinstance(row, RowError)] == [
        "it has 1 cell, and the table has 2 columns",
        "it has 3 cells, and the table has 2 columns (is a quotation mark missing?)",
    ]
    assert [row.snippet for _, row in found if isinstance(row, RowError)] == ["c", "d,e,f"]
    assert found[3][1] == {"question": "g", "answer": "h"}


def test_a_header_alone_is_refused_with_its_columns(path: Path) -> None:
    for content in ("prompt,completion", "prompt,completion\n", "prompt,completion\n\n\n"):
        assert refusal(path, content) == (
            "rows.csv has a header and no rows; its columns are prompt, completion."
        )
    assert read(path, "question,answer\nc\n")[0]


def test_an_index_is_left_out_and_a_double_name_is_told(path: Path) -> None:
    found, notes = read(path, ",question,answer,answer\n0,Hi,Ho,No\n1,He,Hu,No\n")
    assert [row for _, row in found] == [
        {"question": "Hi", "answer": "Ho"},
        {"question": "He", "answer": "Hu"},
    ]
    assert notes == [
        'The header names "answer" twice: the first of these columns is used.',
        "Column 1 has no name and is left out.",
    ]


def test_a_table_without_a_header_keeps_its_first_row(path: Path) -> None:
    content = "What is a cat?,A small animal.\nWhat is a dog?,A larger animal.\n"
    found, (note,) = read(path, content)
    assert found[0] == (1, {"column 1": "What is a cat?", "column 2": "A small animal."})
    assert len(found) == 2
    assert note.endswith("is no header, so its columns are called column 1, column 2.")
    assert read(path, "Frage,Antwort\nHi,Ho\n") == ([(2, {"Frage": "Hi", "Antwort": "Ho"})], [])


def test_one_column_is_not_cut_at_its_commas(path: Path) -> None:
    found, _ = read(path, 'text\nOnce, upon a time\n"The end,\nfinally"\n')
    assert found == [(2, {"text": "Once, upon a time"}), (3, {"text": "The end,\nfinally"})]
    assert open_records(path).container == "CSV with one column"


def test_excels_own_first_line_is_no_row(path: Path) -> None:
    assert read(path, "sep=;\nquestion;answer\nHi;Ho\n")[0] == [
        (3, {"question": "Hi", "answer": "Ho"})
    ]


def test_a_quotation_without_an_end_is_refused_with_its_line(path: Path) -> None:
    message = refusal(path, 'question,answer\na,b\n"c,d\ne,f\n')
    assert message.startswith("line 3 of rows.csv opens a quotation that has no end")
    huge = 'question,answer\na,"' + "x\n" * (9 << 20)
    assert refusal(path, huge).startswith("line 2 of rows.csv opens a quotation")


def test_what_can_be_no_table_is_refused(path: Path) -> None:
    many = ",".join(f"c{number}" for number in range(1001))
    assert refusal(path, f"{many}\n{many}\n").startswith("rows.csv has 1,001 columns")
    assert refusal(path, "a,b\n" + "x," * (9 << 20)).startswith("a line of rows.csv is longer")


CELL = st.text(st.characters(exclude_categories=["Cs", "Cc"], include_characters="\n"), max_size=12)


@settings(deadline=None, derandomize=True, max_examples=150)
@given(
    st.lists(st.tuples(CELL, CELL, CELL), min_size=1, max_size=6),
    st.sampled_from([",", "\t", ";", "|"]),
    st.sampled_from(["\n", "\r\n"]),
    st.integers(1, 50),
)
def test_what_the_csv_module_writes_is_read_back(
    tmp_path_factory: Any, rows: list[Any], delimiter: str, line_end: str, piece: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.csv"
    names = ("question", "input", "answer")
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter, lineterminator=line_end, quoting=csv.QUOTE_ALL)
    writer.writerows([names, *rows])
    path.write_bytes(text.getvalue().encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(byte_source, "PIECE", piece)
        found = [row for _, row in open_records(path)]
    assert found == [
        {name: cell or None for name, cell in zip(names, row, strict=True)} for row in rows
    ]
