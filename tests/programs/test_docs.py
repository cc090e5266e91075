"""What the README and the pages in assets/ and docs/ point to is there."""

import re
from pathlib import Path

import pytest

import eval as eval_program
import train

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted(page for room in ("assets", "docs") for page in (ROOT / room).glob("*.md"))]
SOURCES = [ROOT / "train.py", ROOT / "eval.py", ROOT / "tests/benchmarks/scoring.py",
           *(path for room in ("data", "utils") for path in (ROOT / room).glob("*.py"))]  # fmt: skip
OTHERS = {"--help", "--requeue", "--signal", "--nnodes", "--nproc_per_node", "--rdzv_backend", "--rdzv_endpoint",
          "--signals-to-handle"}  # fmt: skip
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def text_of(page: Path) -> str:
    """A page without the commands that begin by going to another commit: that one has their programs and flags."""
    return re.sub(r"^```bash\ngit worktree add .*?^```", "", page.read_text(), flags=re.M | re.S)


def anchors(page: Path) -> set[str]:
    """Of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S), flags=re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@each_page
def test_links_lead_somewhere(page: Path):
    for target in re.findall(r"\]\(([^)\s]+)", page.read_text()):
        if target.startswith("https://"):
            continue
        file, _, anchor = target.partition("#")
        goal = page.parent / file if file else page
        assert goal.exists(), f"{page.name}: {target}"
        assert not anchor or anchor in anchors(goal), f"{page.name}: {target}"


@each_page
def test_flags_are_known(page: Path):
    """Every --flag that a page names is one of a program here, or of Slurm and torchrun."""
    added = re.compile(r'\w\(\s*"(--\w+)"')
    known = OTHERS.union(*(added.findall(source.read_text()) for source in SOURCES))
    known |= {f"--no-{flag[2:]}" for flag in known}
    named = set(re.findall(r"(?<![\w-])--[a-z][\w-]*", text_of(page)))
    assert named <= known, f"{page.name}: {sorted(named - known)}"


@each_page
def test_launchers_take_the_flags_they_are_given(page: Path):
    text = re.sub(r"\\\n\s*", " ", text_of(page))
    for name, rest in re.findall(r"(start_rgb|start_eval|train|eval)\.(?:sh|py) ([^`\n#]*)", text):
        parser = (train if name in ("start_rgb", "train") else eval_program).make_parser()
        named = set(re.findall(r"(?<![\w-])--[a-z][\w-]*", rest))
        assert named <= set(parser._option_string_actions), f"{page.name}: {name} {rest}"


@each_page
def test_files_and_programs_exist(page: Path):
    """`model/attention.py` and the like, recipes, and the programs that commands start."""
    text = text_of(page)
    files = re.findall(r"(?<![\w./])(?:model|data|utils|configs|tests)/[\w/]+\.(?:py|yaml|sh)", text)
    files += re.findall(r"(?:bash|python|srun bash) (\w+\.(?:py|sh))", text)
    files += [f"{module.replace('.', '/')}.py" for module in re.findall(r"python -m (\w+\.\w+)", text)]
    for file in files:
        assert (ROOT / file).exists(), f"{page.name}: {file}"
