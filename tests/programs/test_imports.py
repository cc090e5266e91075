"""Imports go one way: train, eval, selfvos -> model, data, utils; model and data apart; utils below both; no cycles."""

import ast
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("model", "data", "utils", "selfvos")
ALLOWED = {"model": {"model", "utils"}, "data": {"data", "utils"}, "utils": {"utils"}, "selfvos": {*PACKAGES}}


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {name_of(path): path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))}


@cache
def imported_modules(path: Path) -> list[str]:
    """List the modules of this repository that a file imports, inside functions too."""
    return list(find_imports(path))


def find_imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports relatively"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            while name and name not in MODULES:
                name = name.rpartition(".")[0]
            if name:
                yield name


def test_the_modules_are_found():
    assert {"model.block", "model.engine.exact", "data.registry", "utils.errors", "utils.scoring"} <= set(MODULES)
    assert "utils.errors" in imported_modules(ROOT / "train.py")


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_import_only_what_is_below(package):
    wrong = [
        f"{name} imports {other}"
        for name, path in MODULES.items()
        for other in imported_modules(path)
        if name.split(".")[0] == package and other.split(".")[0] not in ALLOWED[package]
    ]
    assert not wrong


def test_there_is_no_cycle():
    graph = {name: {other for other in imported_modules(path) if other != name} for name, path in MODULES.items()}
    TopologicalSorter(graph).prepare()  # raises CycleError, which names one


def test_nothing_imports_programs_or_tests():
    for name, path in MODULES.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            modules += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            assert not {module.split(".")[0] for module in modules} & {"train", "eval", "tests"}, name
