"""Tables show a metric as papers do, in the console as in Markdown."""

from __future__ import annotations

import numpy as np
import pytest
from blindsr_agents.evaluation.scores import Scores
from blindsr_agents.evaluation.tables import columns, console_table, heading, markdown_table, score_table
from rich.console import Console

from sr_env.metrics import create_metric


@pytest.mark.parametrize(
    ("name", "title", "shown"),
    [
        ("psnr", "PSNR-Y ↑", "27.12"),
        ("ssim", "SSIM-Y ↑", "27.1234"),
        ("lpips", "LPIPS ↓", "27.1234"),
        ("niqe", "NIQE ↓", "27.12"),
    ],
)
def test_columns(name: str, title: str, shown: str) -> None:
    column = columns([name], {name: create_metric(name)})[name]
    assert heading(column) == title
    assert column.format(27.12341) == shown
    assert column.format(None) == "-"


def test_columns_of_terms_that_are_no_metric() -> None:
    found = columns(["consistency", "psnr"], {"psnr": create_metric("psnr")})
    assert list(found) == ["consistency", "psnr"]
    assert heading(found["consistency"]) == "consistency ↑"


def test_markdown_keeps_stars() -> None:
    assert markdown_table([["method", "", "a"], ["AMGAN*", "x", "1"]]) == [
        "| method |  | a |",
        "| --- | --- | ---: |",
        "| AMGAN\\* | x | 1 |",
    ]


def test_score_table_by_hand() -> None:
    start = Scores({"score": np.array([[1.0, 3.0], [5.0, 5.0]]), "psnr": np.array([[30.0, 31.0], [20.0, 21.0]])})
    better = Scores({"score": start.values["score"] + [[0.5], [0.25]], "psnr": start.values["psnr"] + 1})
    table = score_table({"start": start, "better": better}, "start", (0.2, 2.6), {"psnr": create_metric("psnr")}, "T")
    rows = list(zip(*(list(column.cells) for column in table.columns), strict=True))
    assert [column.header for column in table.columns] == ["kernel width", "", "reward ↑", "PSNR-Y ↑"]
    assert rows == [
        ("mean", "start", "+0.000", "25.50"),
        ("", "better", "+0.375", "26.50"),
        ("0.2", "start", "+0.000", "30.50"),
        ("", "better", "+0.500", "31.50"),
        ("2.6", "start", "+0.000", "20.50"),
        ("", "better", "+0.250", "21.50"),
    ]


def test_console_table(console: Console) -> None:
    console.print(console_table("Title", [["method", "", "a"], ["x", "", "1"], ["y", "", "22"]]))
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert lines[0].strip() == "Title"
    one, two = (next(line for line in lines if line.strip().startswith(name)) for name in "xy")
    assert one.rstrip().index("1") + 1 == len(two.rstrip())  # numbers stand on the right
