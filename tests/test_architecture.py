"""The house (docs/architecture.md): imports point down, files stay short, importing melisma is cheap."""

import ast
import graphlib
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

import melisma

PACKAGE = Path(melisma.__file__).parent
ROOT = PACKAGE.parent

# From the top to the ground; a part may import from its own level (without cycles) and from those below.
LEVELS = (
    ("__main__",),
    ("cli", "commands", "web"),
    ("training", "evaluation", "export", "benchmarking", "studio"),
    ("inference",),
    ("interop",),
    ("generators", "discriminators", "losses", "f0", "data", "editing"),
    ("layers",),
    ("source", "noise", "even_noise", "phase", "pulse"),
    ("audio",),
    ("kernels",),
    ("config", "constants", "errors", "files"),
)
RANK = {part: -index for index, level in enumerate(LEVELS) for part in level}
LONGEST_FILE = 450

# Extras and test oracles: only these parts may import them.
GUESTS = {
    "librosa": set(),
    "scipy": {"evaluation"},
    "pesq": {"evaluation"},
    "mir_eval": {"evaluation"},
    "visqol": {"evaluation"},
    "matplotlib": {"inference", "evaluation"},
    "onnx": {"export"},
    "onnx_ir": {"export"},
    "onnxscript": {"export"},
    "mido": {"editing"},
    "av": {"audio"},
    "fastapi": {"web"},
    "starlette": {"web"},
    "uvicorn": {"web", "commands"},
    "prometheus_client": {"web"},
    "ray": {"data", "web"},
}
# What a plain ``import melisma`` must not pay for.
HEAVY = (
    "matplotlib", "librosa", "scipy", "pandas", "pesq", "mir_eval", "rich", "tyro", "onnx", "onnxscript", "onnxruntime",
    "pyworld", "numba", "triton", "fastapi", "mido", "av",
)  # fmt: skip

SOURCES = sorted(PACKAGE.rglob("*.py"))


def part_of(path: Path) -> str:
    """The part of the house that a file belongs to; empty for the package's own ``__init__``."""
    first = path.relative_to(PACKAGE).parts[0]
    return "" if first == "__init__.py" else first.removesuffix(".py")


def imported(path: Path) -> set[str]:
    """Dotted names of all that a file imports, in functions too (a lazy import is an arrow like any other)."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: line {node.lineno}: import by the full name, not relatively"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def arrows() -> dict[str, dict[str, str]]:
    """Part -> part that it imports -> one place where it does."""
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for path in SOURCES:
        for name in imported(path):
            pieces = name.split(".")
            if pieces[0] == "melisma" and part_of(path):
                target = pieces[1] if len(pieces) > 1 else ""
                where = f"{path.relative_to(ROOT)} imports {name}"
                assert target in RANK, f"{where}: take it from the part that defines it, or give {target!r} a level"
                if target != part_of(path):
                    found[part_of(path)][target] = where
    return found


def test_every_part_has_a_level() -> None:
    unknown = {part_of(path) for path in SOURCES} - set(RANK) - {""}
    assert not unknown, f"give these a level here and a place in docs/architecture.md: {unknown}"


def test_imports_point_down() -> None:
    wrong = [
        where for part, targets in arrows().items() for target, where in targets.items() if RANK[target] > RANK[part]
    ]
    assert not wrong, "\n".join(wrong)


def test_no_cycles_between_parts() -> None:
    graphlib.TopologicalSorter({part: set(targets) for part, targets in arrows().items()}).prepare()


@pytest.mark.parametrize("guest", GUESTS)
def test_guests_stay_in_their_rooms(guest: str) -> None:
    wrong = [
        str(path.relative_to(ROOT))
        for path in SOURCES
        if part_of(path) not in GUESTS[guest] and any(name.split(".")[0] == guest for name in imported(path))
    ]
    assert not wrong, f"{guest} belongs in {GUESTS[guest] or 'tests'}: {wrong}"


def test_files_are_short() -> None:
    lengths = {str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines()) for path in SOURCES}
    assert not {name: length for name, length in lengths.items() if length >= LONGEST_FILE}


def test_importing_melisma_is_cheap() -> None:
    code = "import sys, melisma; print('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in done.stdout.split()}
    assert not loaded & set(HEAVY)
    assert done.stderr == ""
