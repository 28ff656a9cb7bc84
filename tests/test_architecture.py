"""The package is a layered graph: who may import whom, and how large folders and modules get."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "src" / "nlakit"
MODULES = {
    ".".join(("nlakit", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(
        ".__init__"
    ): path
    for path in sorted(ROOT.rglob("*.py"))
}
Graph = Mapping[str, set[str]]


def imported(source: str) -> Iterator[str]:
    """Names of nlakit that a source imports anywhere in it: at the top, in functions, for types."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (one.name for one in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{one.name}" for one in node.names)


def module_of(name: str, modules: Mapping[str, object]) -> str | None:
    """The module that a dotted name stands for or lies in; None outside the package."""
    while name and name not in modules:
        name = name.rpartition(".")[0]
    return name or None


def graph_of(sources: Mapping[str, str]) -> dict[str, set[str]]:
    """Module → modules that it imports."""
    return {
        name: {found for one in imported(text) if (found := module_of(one, sources))} - {name}
        for name, text in sources.items()
    }


def circles(graph: Graph) -> list[list[str]]:
    """Groups of nodes that reach each other (Tarjan): a graph without circles has none."""
    found: list[list[str]] = []
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    path: list[str] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        path.append(node)
        for target in sorted(graph[node]):
            if target not in index:
                visit(target)
                low[node] = min(low[node], low[target])
            elif target in path:
                low[node] = min(low[node], index[target])
        if low[node] == index[node]:
            group = path[path.index(node) :]
            del path[path.index(node) :]
            if len(group) > 1:
                found.append(sorted(group))

    for node in sorted(graph):
        if node not in index:
            visit(node)
    return found


@pytest.fixture(scope="module")
def graph() -> dict[str, set[str]]:
    return graph_of({name: path.read_text(encoding="utf-8") for name, path in MODULES.items()})


def folder(module: str) -> str:
    """The first folder below the package, or the module's own name in its root."""
    return module.split(".")[1] if "." in module else module


def between(graph: Graph, sources: set[str], targets: set[str]) -> list[str]:
    return [
        f"{module} imports {target}"
        for module, found in graph.items()
        for target in sorted(found)
        if folder(module) in sources and folder(target) in targets
        if folder(module) != folder(target)
    ]


def test_a_planted_circle_is_found() -> None:
    planted = {
        "p": "",
        "p.a": "from p.b import x",
        "p.b": "def f():\n    from p import c",
        "p.c": "import os\nif TYPE_CHECKING:\n    import p.a",
        "p.d": "from p.a import y",
    }
    assert graph_of(planted)["p.a"] == {"p.b"}
    assert circles(graph_of(planted)) == [["p.a", "p.b", "p.c"]]
    assert circles(graph_of(planted | {"p.c": "from p import x"})) == []


def test_no_module_imports_itself_by_way_of_others(graph: Graph) -> None:
    assert circles(graph) == []


def test_core_knows_nothing_of_what_stands_on_it(graph: Graph) -> None:
    """Errors apart: `core` raises them like everything else."""
    others = {folder(name) for name in graph} - {"core", "errors"}
    assert between(graph, {"core"}, others) == []


def test_stages_meet_in_the_run_folder_alone(graph: Graph) -> None:
    parts = {"data", "train", "evaluate"}
    assert between(graph, parts, parts) == []


def test_what_serves_does_not_know_what_is_served(graph: Graph) -> None:
    """The command line is known to none; studies, which put parts together, to it alone."""
    everything = {folder(name) for name in graph}
    assert between(graph, everything - {"__main__"}, {"cli"}) == []
    assert between(graph, {"core", "files", "models", "data", "train", "evaluate"},
                   {"studies", "publish"}) == []  # fmt: skip


@pytest.mark.parametrize(
    "place", [path for path in (ROOT, *ROOT.rglob("*")) if any(path.glob("*.py"))],
    ids=lambda path: path.relative_to(ROOT.parent).as_posix(),
)  # fmt: skip
def test_a_folder_is_seen_at_a_glance(place: Path) -> None:
    modules = [path.stem for path in place.glob("*.py")]
    assert len(set(modules) - {"__init__"}) <= (5 if place == ROOT else 14), modules


def test_a_module_is_read_in_one_sitting() -> None:
    lines = {name: len(path.read_text("utf-8").splitlines()) for name, path in MODULES.items()}
    assert {name: count for name, count in lines.items() if count > 400} == {}
