"""Every file of benchmarks/, scripts/ and examples/ runs at toy size, and every call of one that a
document has is understood."""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from nlakit.config.load import load_config
from nlakit.core.contract import read_contract
from nlakit.files.parquet import read_table
from nlakit.run.folder import RunDir
from tests.commands import arguments, call
from tests.documents import EXAMPLES, ROOT, SCRIPTS, name
from tests.test_documents import of_kind
from tests.toyplace import write_lines

Patch = pytest.MonkeyPatch


@dataclass(frozen=True)
class Toy:
    """How a script runs in seconds: its words, what its names are set to, what it writes."""

    words: tuple[str, ...] = ()
    values: dict[str, Any] = field(default_factory=dict)
    writes: tuple[str, ...] = ()
    prepare: Callable[[Path], None] = lambda place: None


def in_process(module: ModuleType, patch: Patch) -> None:
    """Commands that the script starts as processes of their own run in this one."""

    def run(command: Sequence[str], **options: Any) -> None:
        said = call(*command[3:])
        assert (said.code, said.crash) == (0, ""), said

    patch.setattr(module, "subprocess", SimpleNamespace(run=run, DEVNULL=None))


def label_records(place: Path) -> None:
    """What the measurements of labels left."""
    (place / "runs/labels-two-services").rename(place / "DIR/run")
    killed = {"rows": 1, "kills": 1, "faults": {"500": 1}, "bound": 9}
    quota = {"rows": 1, "slept": 0.1, "before": {"requests": 1}, "log": "asleep\n"}
    quota |= dict.fromkeys(("requests", "answered", "answered_prompts"), 1)
    for part, record in (("killed", killed), ("quota", quota), ("labelling", {"commit": "abc"})):
        (place / f"DIR/{part}.json").write_text(json.dumps(record), encoding="utf-8")


def learnt(place: Path) -> None:
    """What joint RL left, a step after its start."""
    names = (
        "fve frozen_fve centred frozen_centred shuffle_centred paraphrase_centred within_family "
        "claim_precision unique repeated words"
    ).split()
    drawn = dict.fromkeys("reward_sum reward_spread entropy kl tokens truncated".split(), 0.5)
    best = {"step": 1, "frozen_centred": 0.5}
    (place / "RUN/rl").mkdir(parents=True)
    for file, record in (
        ("start.json", {measure: [0.5, 0.4] for measure in names}),
        ("kept.json", {"content": best, "fve": best}),
        ("training.json", {"stopped": None}),
        ("metrics.jsonl", {"step": 1, "skipped": False} | drawn | dict.fromkeys(names, 0.5)),
    ):
        (place / "RUN/rl" / file).write_text(json.dumps(record) + "\n", encoding="utf-8")


def surveyed(place: Path) -> None:
    words = ("--layers", "1,3", "--documents", "40", "--steps", "0", "--dtype", "float32")
    said = call("layers", "gemma-3-270m", "texts", *words, "--out", "runs/layers")
    assert said.code == 0, said


def in_full(place: Path) -> None:
    words = ("--profile", "full", "--set", "eval.permutations=100", "--set", "eval.rows=8")
    said = call("eval", "demo", *words, "--out", "runs/full")
    assert said.code == 0, said


def corpus_script(module: ModuleType, patch: Patch) -> None:
    """A family of made-up passages, in the place of those that are fetched from registries."""

    def passages(cache: Path) -> list[Any]:
        texts = [" ".join(f"word{n}-{i}" for i in range(40)) for n in (0, 1, 2, 2)]
        return [module.Passage("g", n, text) for n, text in enumerate(texts)]

    patch.setattr(module, "FAMILIES", (module.Family("toy", "toy", 2, passages),))


def in_this_place(module: ModuleType, patch: Patch) -> None:
    """Cases run in the place that is there: `tests/fuzz` has the real one."""

    def built(root: Path, labels_url: str) -> Path:
        return Path.cwd()

    patch.setattr(module.toyplace, "build", built)
    patch.setattr(module.toyplace, "toy_model", lambda folder, blocks: folder)


def few_edits(module: ModuleType, patch: Patch) -> None:
    """A toy's AV writes letters at random, which no rule can edit."""
    texts = {kind: f"A passage on {kind} and rain." for kind in module.KINDS}
    edits = [
        module.Edit("The whale waits.", text, text.replace("rain", "zebras"), document, kind)
        for document in ("a", "b")
        for kind, text in texts.items()
    ]
    patch.setattr(module, "contexts", lambda *given: edits)


def shortly(module: ModuleType, patch: Patch) -> None:
    """Continuations are drawn to any length."""
    from nlakit.serve.api import inference, web

    for routes in (inference, web):
        patch.setattr(routes, "MOST_COMPLETED", 2)


FLOAT32 = {"subject": {"dtype": "float32"}}
TOYS: dict[str, Toy | str] = {
    "benchmarks/audit.py": Toy(("--rows", "200", "--json", "OUT"), {"": in_process}, ("OUT",)),
    "benchmarks/batch.py": Toy(("--rows", "64", "--out", "OUT"), writes=("OUT",)),
    "benchmarks/coverage.py": Toy(("--simulations", "3", "--out", "c.md"), writes=("c.md",)),
    "benchmarks/fuzz.py": Toy(
        ("--cases", "1", "--out", "OUT"), {"": in_this_place}, ("OUT",)
    ),
    "benchmarks/gpu_memory.py": Toy((
        "--toy", "--set", "ar.max_tokens=60", "--set", "av.max_tokens=60",
        "--set", "ar.accumulation=1", "--set", "av.accumulation=1",
    ), {"ROWS": 8, "STEPS": 1}),
    "benchmarks/injection.py": Toy(
        ("examples/demo.yaml", "--out", "ways", "--seeds", "0", "--ways", "block K", "--rows", "8"),
        writes=("ways/block-K-0.json",),
    ),
    "benchmarks/labelling.py": Toy(
        ("--rows", "40", "--slice", "20", "--delay", "0.01", "--json", "OUT"), writes=("OUT",)
    ),
    "benchmarks/memory.py": Toy(
        ("examples/demo.yaml", "--out", "runs/m", "--json", "OUT"),
        {"COMMAND": [sys.executable, "-m", "nlakit", "corpus"]}, ("OUT",),
    ),
    "benchmarks/rollouts.py": Toy(
        ("--pair", "demo", "--rows", "demo/05_tables/test.parquet", "--vectors", "2",
         "--samples", "4", "--pairs", "1", "--json", "OUT"), writes=("OUT",),
    ),
    "benchmarks/service_cases.py": Toy(("demo", "--cases", "12"), {"": shortly}),
    "benchmarks/service_load.py": Toy(
        ("demo", "--clients", "2", "--seconds", "1", "--distinct", "2", "--json", "OUT"),
        writes=("OUT",),
    ),
    "benchmarks/shared_base.py": Toy(("--rank", "2")),
    "benchmarks/speed.py": Toy(
        ("--steps", "1", "--tokens", "4", "--json", "OUT"),
        {"DOCUMENTS": 8, "DECODE_BATCH": 4, "SETTINGS": {"name": "speed", **FLOAT32}}, ("OUT",),
    ),
    "benchmarks/steering.py": Toy(
        ("--pair", "demo", "--rows", "demo/05_tables/test.parquet", "--random", "3", "--others",
         "1", "--json", "OUT", "--out", "s.md"), {"": few_edits}, ("OUT", "s.md"),
    ),
    "benchmarks/where.py": Toy(("eval", "--rows", "6", "--out", "where.md"), writes=("where.md",)),
    "examples/llama_server.py": "serves a model; tests/data/labels/services/test_real_server.py",
    "examples/roundtrip.py": Toy(),
    "scripts/bring_back.py": Toy(("runs/demo", "OUT"), writes=("OUT/08_pair/av/nla_meta.yaml",)),
    "scripts/build_demo_corpus.py": Toy(
        ("cache", "--output", "corpus.parquet"), {"": corpus_script}, ("corpus.parquet",)
    ),
    "scripts/make_box.py": Toy(("runs/demo",), writes=("src/nlakit/box/av/nla_meta.yaml",)),
    "scripts/make_box_rows.py": Toy(
        ("runs/box-rows",), {"TRAINING_DOCUMENTS": 4}, ("src/nlakit/box/rows/test.parquet",)
    ),
    "scripts/package_texts.py": Toy(("texts.jsonl",), writes=("texts.jsonl",)),
    "scripts/record_evaluation.py": Toy(
        ("EVAL", "--name", "toy", "--command", "c", "--took", "t"), writes=("docs/results/toy.md",)
    ),
    "scripts/record_explanation.py": Toy(writes=("docs/explanation.svg",)),
    "scripts/record_labels.py": Toy(
        ("DIR",), writes=("docs/results/labels.md",), prepare=label_records
    ),
    "scripts/record_layers.py": Toy(
        ("runs/layers", "c"), writes=("docs/results/layers.md",), prepare=surveyed
    ),
    "scripts/record_memory.py": Toy(
        ("examples/demo.yaml", "--run", "runs/memory", "--out", "m.md"), {"": in_process}, ("m.md",)
    ),
    "scripts/record_recurrence.py": Toy(
        ("runs/full", "--name", "toy", "--command", "c"),
        writes=("docs/results/recurrence.md", "docs/results/recurrence.json"), prepare=in_full,
    ),
    "scripts/record_rl.py": Toy(
        ("RUN", "--command", "c", "--before", "eval", "--live", "eval"),
        writes=("docs/results/rl.md",), prepare=learnt,
    ),
    "scripts/record_result.py": Toy(
        ("runs/demo", "--command", "c"), writes=("docs/results/demo.md",)
    ),
    "scripts/refresh_card.py": Toy(
        ("card",), writes=("card/README.md", "card/results/findings.parquet")
    ),
}  # fmt: skip
ALSO = {"scripts/record_labels.py": ("runs/labels-two-services",),
        "benchmarks/fuzz.py": ("table.csv", "vectors.npy", "vectors.parquet", "rows.jsonl"),
        "scripts/record_layers.py": ("texts",)}  # fmt: skip


def load(script: str, patch: Patch) -> ModuleType:
    """A script as a module that finds those beside it, as `python FILE` does."""
    path = ROOT / script
    patch.syspath_prepend(str(path.parent))
    found = importlib.util.spec_from_file_location(path.stem, path)
    assert found is not None and found.loader is not None
    module = importlib.util.module_from_spec(found)
    patch.setitem(sys.modules, path.stem, module)
    found.loader.exec_module(module)
    return module


def begin(module: ModuleType, script: str, words: Sequence[str]) -> None:
    """What stands behind `if __name__ == "__main__"`."""
    if not hasattr(module, "main"):
        return  # it ran as it was loaded
    with arguments(script, *words):
        try:
            module.main() if module.main.__code__.co_argcount == 0 else module.main(
                Path(words[0]), *words[1:]
            )
        except SystemExit as end:
            if end.code:
                raise AssertionError(f"{script} ended with {end.code}") from end


def test_every_script_is_run_or_its_reason_is_given() -> None:
    assert {name(path) for path in SCRIPTS} == set(TOYS)


@pytest.mark.parametrize("script", [s for s, toy in TOYS.items() if isinstance(toy, Toy)])
def test_a_script_runs(script: str, place: Callable[..., Path], monkeypatch: Patch) -> None:
    toy = TOYS[script]
    assert isinstance(toy, Toy)
    folder = place(*toy.words, *ALSO.get(script, ()))
    toy.prepare(folder)
    module = load(script, monkeypatch)
    for attribute, value in toy.values.items():
        value(module, monkeypatch) if callable(value) else monkeypatch.setattr(
            module, attribute, value
        )
    if hasattr(module, "matmul_speed"):
        monkeypatch.setattr(module, "matmul_speed", lambda *args, **options: 1e11)
    begin(module, script, toy.words)
    for written in toy.writes:
        assert (folder / written).stat().st_size > 100, written


class Understood(Exception):
    pass


@pytest.mark.parametrize("command", of_kind("script"), ids=str)
def test_a_call_of_a_script_is_understood(
    command: Any, place: Callable[..., Path], monkeypatch: Patch
) -> None:
    """A call parses with every option, and files of the repository that it names are there."""
    script, *words = command.words[1:]
    assert (ROOT / script).is_file()
    whole = argparse.ArgumentParser.parse_args

    def parsed(self: Any, args: Any = None, namespace: Any = None) -> Any:
        raise Understood(whole(self, args, namespace))

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parsed)
    named = [w for w in words if w.startswith(("benchmarks/", "examples/", "scripts/", "tests/"))]
    assert [w for w in named if not (ROOT / w).exists()] == []
    module = load(script, monkeypatch)
    if not hasattr(module, "argparse"):  # it takes its arguments by place
        return
    with arguments(script, *words), pytest.raises(Understood):
        module.main()


UP_TO_TABLES = ("corpus", "activations", "split", "labels", "tables")


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_runs_up_to_its_tables(example: Path, place: Callable[..., Path]) -> None:
    """Its own corpus, columns and labeler, over a toy subject; training is the same for all."""
    folder, target = place("documents.jsonl", "notes"), f"examples/{example.name}"
    if example.stem == "labels-card-datasets":
        for half in ("ar", "av"):
            records = [
                {
                    "detokenized_text_truncated": " ".join([half, str(n), chr(97 + n) * 9] * 6),
                    "api_explanation": f"Row {n} of {half} is about the letter {chr(97 + n)}.",
                    "labeler_model": "somebody",
                }
                for n in range(24)
            ]
            write_lines(folder / "card-labels" / half / f"{half}.jsonl", records)
    for stage in UP_TO_TABLES:
        file = load_config(target).labels.file
        if stage == "labels" and file and not (folder / file.path).exists():
            publish(folder / file.path, example.stem, file.columns)
        said = call(stage, target)
        assert (said.code, said.crash) == (0, ""), (stage, said.err)
    tables = RunDir(folder / "runs" / example.stem).need("tables")
    assert read_table(tables / "av.parquet").num_rows
    assert read_contract(tables / "av.parquet.nla_meta.yaml").layer == 1


def publish(folder: Path, example: str, columns: dict[str, str]) -> None:
    """Labels of a run's rows, as somebody else publishes them."""
    rows = read_table(RunDir(Path("runs") / example).need("activations"))
    texts = rows["detokenized_text_truncated"].to_pylist()
    names = columns | {"verdict": columns.get("verdict", "verdict")}
    write_lines(folder / "labels.jsonl", [
        dict.fromkeys(names.values(), "KEEP") | {
            names["detokenized_text_truncated"]: text,
            names["api_explanation"]: f"Row {n} is about whale {n} and about the mark.",
        }
        for n, text in enumerate(texts)
    ])  # fmt: skip
