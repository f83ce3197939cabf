"""Rules of the whole tree for which import-linter has no contract: third-party imports, and the budgets of lines."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import grimp
import pytest

import anydit

ROOT = Path(anydit.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))

ALLOWED = {
    "anydit.model": {"torch", "einops", "jaxtyping"},
    "anydit.diffusion": {"torch", "einops", "jaxtyping"},
    "anydit.kernels": {"torch", "triton", "jaxtyping"},
    "anydit.tensors": {"torch", "jaxtyping"},
    "anydit.weights": {"torch", "safetensors"},
    "anydit.config": {"pydantic", "pydantic_core", "tyro"},
}
"""Third-party packages that may be imported, by part of anydit; level 0 may be, by model and diffusion."""

FILE_LINES, FUNCTION_LINES = 300, 50

EXCEPTIONS: dict[str, str] = {}
"""What goes over a budget, as the test names it, and why it may."""


def name_of(file: Path) -> str:
    return str(file.relative_to(ROOT))


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    return grimp.build_graph("anydit", include_external_packages=True, cache_dir=None)


@pytest.mark.parametrize("part", ALLOWED)
def test_third_party_imports(part: str, graph: grimp.ImportGraph):
    modules = {part} | graph.find_descendants(part)
    imported = {name for m in modules for name in graph.find_modules_directly_imported_by(m)}
    third_party = {name for name in imported if name != "anydit" and not name.startswith("anydit.")}
    assert third_party - sys.stdlib_module_names <= ALLOWED[part]
    assert third_party, "the graph has external packages in it"


@pytest.mark.parametrize("folder", sorted({f.parent for f in FILES}), ids=lambda p: p.name)
def test_each_package_says_what_it_is(folder: Path):
    assert ast.get_docstring(ast.parse((folder / "__init__.py").read_text()))


def over_budget() -> Iterator[str]:
    for file in FILES:
        text = file.read_text()
        if len(text.splitlines()) > FILE_LINES:
            yield name_of(file)
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                last = node.end_lineno or node.lineno
                if last - node.lineno + 1 > FUNCTION_LINES:
                    yield f"{name_of(file)}:{node.name}"


def test_budgets():
    assert set(over_budget()) == set(EXCEPTIONS)
