"""The README, docs/*.md and assets/README.md name links, flags, files and programs that exist."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest

import eval as eval_program
import train
from data.check import format_table
from utils.errors import UserError

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "assets/README.md", *sorted((ROOT / "docs").glob("*.md"))]
SOURCES = [ROOT / "train.py", ROOT / "eval.py"]
SOURCES += [path for folder in ("data", "model", "utils", "tests/benchmarks") for path in (ROOT / folder).rglob("*.py")]
# Of argparse, Slurm, torchrun and TensorBoard.
FOREIGN_FLAGS = {"--help", "--requeue", "--signal", "--nnodes", "--nproc_per_node", "--rdzv_backend", "--rdzv_endpoint",
                 "--signals-to-handle", "--logdir", "--samples_per_plugin"}  # fmt: skip
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def text_of(page: Path) -> str:
    """Return a page without the commands that begin by checking out another commit, whose flags are that commit's."""
    return re.sub(r"^```bash\ngit worktree add .*?^```", "", page.read_text(), flags=re.M | re.S)


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S), flags=re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@each_page
def test_links_lead_somewhere(page: Path):
    for target in re.findall(r'(?:\]\(|src=")([^)\s"]+)', page.read_text()):  # links, and images of both kinds
        if target.startswith("https://"):
            continue
        file, _, anchor = target.partition("#")
        goal = page.parent / file if file else page
        assert goal.exists(), f"{page.name}: {target}"
        assert not anchor or anchor in anchors(goal), f"{page.name}: {target}"


@each_page
def test_flags_are_known(page: Path):
    """Every --flag that a page names is one of a program here, or one of `FOREIGN_FLAGS`."""
    added = re.compile(r'\w\(\s*"(--\w+)"')
    known = FOREIGN_FLAGS.union(*(added.findall(source.read_text()) for source in SOURCES))
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


# Lets bash expand the commands of a page, with its variables and loops, and print the words of those that start Python
# or a launcher. Nothing else can run either, since no program is found.
RECORD = r"""
PATH=/nowhere
for name in bash python; do eval "$name() { printf '%s\0' $name \"\$@\"; printf '\n'; }"; done
srun() { "$@"; }
"""


def expand_commands(page: Path, folder: Path) -> list[list[str]]:
    """Return the words of the commands in a page's blocks of bash; each may use the variables of those before it."""
    blocks = re.findall(r"^```bash\n(.*?)^```", text_of(page), flags=re.M | re.S)
    script = RECORD + "".join(blocks)
    done = subprocess.run(["bash", "-uc", script], cwd=folder, capture_output=True, text=True)
    assert not re.search("unbound variable|syntax error", done.stderr), f"{page.name}: {done.stderr}"
    return [line.split("\0")[:-1] for line in done.stdout.splitlines()]


def test_commands_have_flags_and_values_that_the_programs_take(tmp_path, monkeypatch):
    """All of them are parsed, with the recipes that they name, and none is run."""
    monkeypatch.chdir(ROOT)
    programs = {"bash start_eval.sh": eval_program, "python eval.py": eval_program,
                "bash start_rgb.sh": train, "python train.py": train}  # fmt: skip
    parsed, faults = 0, []
    for page in PAGES:
        for command in expand_commands(page, tmp_path):
            if program := programs.get(" ".join(command[:2])):
                parsed += 1
                try:
                    program.make_parser().parse(command[2:])
                except UserError as error:
                    faults.append(f"{page.name}: {shlex.join(command)}: {error}")
    assert not faults, "\n".join(faults)
    assert parsed >= 20


@each_page
def test_files_and_programs_exist(page: Path):
    """`model/attention.py` and the like, recipes, and the programs and modules that commands start."""
    text = text_of(page)
    files = re.findall(r"(?<![\w./])(?:model|data|utils|selfvos|docs|configs|tests)/[\w/]+\.(?:py|yaml|sh)", text)
    files += re.findall(r"(?:bash|python|srun bash) (\w+\.(?:py|sh))", text)
    for file in files:
        assert (ROOT / file).exists(), f"{page.name}: {file}"
    for module in set(re.findall(r"python\s+-m\s+([\w.]+\w)", text)) - {"pip"}:
        path = ROOT / module.replace(".", "/")
        assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), f"{page.name}: {module}"


@each_page
def test_nothing_outside_the_repository_is_named(page: Path):
    """A stranger has the repository alone."""
    assert "../shared" not in page.read_text()


def test_the_data_page_has_the_table_of_the_registry():
    assert format_table() in (ROOT / "docs/data.md").read_text()


def test_sections_of_the_method_that_the_code_names_exist():
    numbers = set(re.findall(r"^## (\d+)\. ", (ROOT / "docs/method.md").read_text(), flags=re.M))
    folders = ("model", "data", "utils", "configs", "tests")
    paths = [path for folder in folders for path in (ROOT / folder).rglob("*") if path.suffix in (".py", ".yaml")]
    cited = set()
    for path in (ROOT / "train.py", ROOT / "eval.py", *paths):
        text = re.sub(r"\s*\n\s*#?\s*", " ", path.read_text())
        for sections in re.findall(r"docs/method\.md,? sections? (\d+(?:(?:, | and | to )\d+)*)", text):
            cited |= (found := set(re.findall(r"\d+", sections)))
            assert found <= numbers, f"{path.relative_to(ROOT)}: docs/method.md has no section {found - numbers}"
    assert len(cited) > 5  # the pattern still finds them


def test_the_readme_is_short():
    """It has at most 900 words, those of code and tables included, so that a stranger reads it to the end."""
    assert len((ROOT / "README.md").read_text().split()) <= 900
