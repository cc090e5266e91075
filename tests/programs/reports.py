"""Read and write the reports of the tests."""

import json
import sys
from pathlib import Path

from utils import compare
from utils.report import __main__ as report_program

ODD = """d'o"g #1 & <b>50%"""  # a name that a user may give a folder


def read_data(report: Path, name: str) -> dict:
    text = (report / "report/videos" / name / "data.js").read_text()
    return json.loads(text[len("addRun(") : -len(");\n")])


def read_index(report: Path) -> dict:
    text = (report / "report/data.js").read_text()
    return json.loads(text[len("const REPORT = ") : -len(";\n")])


def run_report(monkeypatch, *arguments) -> None:
    monkeypatch.setattr(sys, "argv", ["report", *map(str, arguments)])
    report_program.main()


def run_compare(monkeypatch, *arguments) -> None:
    monkeypatch.setattr(sys, "argv", ["compare", *map(str, arguments)])
    compare.main()
