"""What the launchers ask of an interpreter before they use it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "utils/requirements.py"


@pytest.fixture
def environment(tmp_path):
    """`install(name, version, code)` puts a package where `check(requirements)` looks; `tried` counts its imports."""

    class Environment:
        cache, packages, tried = tmp_path / "cache", tmp_path / "packages", tmp_path / "tried"

        def install(self, name: str, version: str, code: str = "") -> None:
            for old in self.packages.glob(f"{name}-*"):
                (old / "METADATA").unlink()
                old.rmdir()
            info = self.packages / f"{name}-{version}.dist-info"
            info.mkdir(parents=True)
            (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
            (self.packages / f"{name}.py").write_text(f"open({str(self.tried)!r}, 'a').write('.')\n{code}\n")

        def check(self, requirements: str) -> subprocess.CompletedProcess:
            (tmp_path / "requirements.txt").write_text(requirements)
            variables = {**os.environ, "PYTHONPATH": str(self.packages), "XDG_CACHE_HOME": str(self.cache)}
            command = [sys.executable, SCRIPT, tmp_path / "requirements.txt"]
            return subprocess.run(command, env=variables, capture_output=True, text=True, timeout=60)

        def count(self) -> int:
            return len(self.tried.read_text()) if self.tried.exists() else 0

    return Environment()


def test_importable_packages_are_remembered_until_one_changes(environment):
    environment.install("solid", "1.5")
    for _ in range(2):
        assert environment.check("solid>=1.5  # for tests\n").returncode == 0
    assert environment.count() == 1
    environment.install("other", "1.0")
    assert environment.check("solid>=1.5").returncode == 0
    assert environment.count() == 2


def test_a_package_that_cannot_be_imported_is_named_with_the_mend(environment):
    code = "import sys\nprint('noise', file=sys.stderr)\nraise ValueError('numpy.dtype size changed\\nand more')"
    environment.install("brittle", "1.3", code)
    for _ in range(2):  # what failed is tried again
        failed = environment.check("brittle>=1.3")
        assert failed.returncode == 1
        assert failed.stderr.startswith("not satisfied: brittle 1.3 (installed, but cannot be imported: numpy.dtype")
        assert f"{sys.executable} -m pip install --upgrade brittle" in failed.stderr
        assert failed.stderr.count("\n") == 1
    environment.install("brittle", "1.4")
    assert environment.check("brittle>=1.3").returncode == 0


def test_nothing_is_imported_where_a_version_is_too_low(environment):
    environment.install("solid", "1.5.0.9")
    failed = environment.check("solid>=1.5.0.10\nabsent>=1\n")
    assert failed.returncode == 1
    assert "solid>=1.5.0.10 (installed: 1.5.0.9), absent>=1 (not installed)" in failed.stderr
    assert environment.count() == 0


def test_a_cache_that_cannot_be_written_is_no_fault(environment):
    environment.install("solid", "1.5")
    environment.cache.write_text("a file")
    assert environment.check("solid>=1").returncode == 0
