"""Command lines gone wrong: each begins as one that works and is then made odd, by a seed."""

from __future__ import annotations

import contextlib
import gzip
import os
import random
import shlex
import shutil
import signal
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from huggingface_hub import constants

from nlakit.cli.main import app
from nlakit.files.parquet import read_table
from tests import toyplace
from tests.commands import Said, call
from tests.documents import commands
from tests.fuzz.damage import damage
from tests.test_documents import PAIRS, SHORT

SECONDS = 120  # a case that takes longer hangs
CODES = (0, 2, 3, 4, 130)
# Where no value is right, or of another type. None is large: work that was asked for is done.
WRONG = ["", " ", "x", "-1", "0", "1.5", "nan", "1e3", "٣", "é", "日本語", "\udcff", "-", "--",
         "a" * 300, "a=b", "[", "{", "null", "../x", "%s", "\x1b[1m", "[bold]"]  # fmt: skip
WORDS = ["table", "jsonl", "kitft", "peft", "auto", "cpu", "cuda", "meta", "mps", "float32",
         "bfloat16", "float16", "nf4+float32", "quick", "full", "pair", "av", "ar", "tables",
         "trajectory", "model", "dataset", "all", "last", "1", "2", "3", "owner/name", "corpus",
         "labels", "eval", "text", "label"]  # fmt: skip
SETS = ["seed=-1", "seed=x", "name=../x", "name=", "a", "a.b", "=", "a.b=", "seed=[", "seed={a: b}",
        "corpus.sources=[]", "corpus.sources=[{path: missing}]", "corpus.min_characters=100000",
        "subject.layer=99", "subject.layer=-1", "subject.dtype=int8", "subject.model=missing",
        "subject.device=cuda:9", "activations.skip_first=5000", "activations.max_tokens=2",
        "split.av=0", "split.test=0", "labels.labeler=services", "labels.labeler=file",
        "labels.min_words=90", "ar.batch_rows=1", "ar.lora=null", "ar.lora.r=1", "ar.blocks=1",
        "av.scale=0", "av.scale=1e9", "av.centring=maybe", "ar.phases=[]", "eval.rows=1",
        "eval.embedding=missing", "eval.profile=none", "decoding.max_new_tokens=1",
        "tables.source=missing", "tables.av_template=x", "start=missing", "report.rows=0",
        "requests.store=missing/x/y", "requests.prices=corpus.jsonl"]  # fmt: skip
# Inputs of every format that is read, beside those of the documents.
ODD = Path("odd")
INPUTS = ("rows.jsonl", "vectors.npy", "table.csv", "PAIR")
# Lines that work, beside those of the documents: one that documents do not have each.
LINES = [
    "audit odd/rows.jsonl", "card eval --correct card", "compare runs/demo --trajectory",
    "config examples/demo.yaml", "corpus examples/own-model.yaml",
    "eval --av demo --ar PAIR --data demo/05_tables/test.parquet", "explain PAIR words -p all",
    "explain demo --vectors odd/v.npz", "export demo new --allow-centring",
    "import PAIR/av new --with PAIR/ar", "import demo/05_tables/av.parquet new",
    "layers my-model odd/c.jsonl.gz --layers 1", "layers my-model odd/c.json --layers 0,1",
    "probe odd/rows.jsonl --pair demo", "pull ./mine new", "push demo ./there --send",
    "push runs/demo ./there --what tables --send", "reconstruct PAIR words",
    "reconstruct demo --file odd/rows.jsonl", "score demo --vectors vectors.npy one two three",
    "verify archived",
    *(f"corpus examples/demo.yaml --out new --set corpus.sources=[{{path:\\ odd/{name}}}]"
      for name in ("c.json", "c.jsonl.gz", "c.jsonl.zst", "c.txt", "t.csv")),
]  # fmt: skip


@dataclass(frozen=True)
class Case:
    """One command line, and what was done to the files it finds."""

    seed: int
    words: tuple[str, ...]
    damaged: tuple[str, ...]
    said: Said

    @property
    def problem(self) -> str:
        """What the property forbids; empty if it holds."""
        if self.said.crash:
            return self.said.crash
        allowed = (*CODES, 1) if self.words[:1] == ("doctor",) else CODES
        if self.said.code not in allowed:
            return f"exit code {self.said.code}: {self.said.err[-500:]}"
        lines = self.said.err.splitlines()
        told = [line for line in lines if line.startswith("error: ")]
        if self.said.code == 2 and (len(told) != 1 or lines[-1] != told[0] or told[0] == "error: "):
            return f"no one line says what is wrong: {self.said.err[-500:]!r}"
        return ""

    def __str__(self) -> str:
        return f"seed {self.seed}: nlakit {shlex.join(self.words)}  # {'; '.join(self.damaged)}"


@cache
def tree() -> dict[str, Any]:
    """Every command, by name, with its parameters."""
    group: Any = typer.main.get_command(app)
    return {name: one for name, one in group.commands.items() if not one.hidden}


def begin(name: str, group: dict[str, Any], rng: random.Random) -> list[str]:
    """Words of a command that work: of a document, or of a command with the same arguments; where
    there is none, a value an argument."""

    def shape(one: str) -> list[str]:
        arguments = [p for p in group[one].params if p.param_type_name == "argument"]
        return [str(p.metavar) for p in arguments]

    known = known_lines()
    lines = known.get(name) or [
        line for one, lines in known.items() if one in group and shape(one) == shape(name)
        for line in lines if not any(word.startswith("--") for word in line)
    ]  # fmt: skip
    if lines and rng.random() < 0.95:
        return list(rng.choice(lines))
    arguments = [p for p in group[name].params if p.param_type_name == "argument"]
    return [value_of(p, rng) for p in arguments if p.required or rng.random() < 0.5]


def value_of(parameter: Any, rng: random.Random) -> str:
    """A value of a parameter: mostly a name that a path or word could have, some of them wrong."""
    if parameter.name == "sets":
        return rng.choice(SETS)
    drawn = rng.random()
    if drawn < 0.3:
        return rng.choice(WRONG)
    if drawn < 0.5:
        return rng.choice(WORDS)
    return rng.choice(places())


def places() -> list[str]:
    """What lies in the working folder, and what does not."""
    there = [p.as_posix() for p in sorted(Path().glob("*")) + sorted(Path().glob("*/*"))]
    return [*there, "missing", "missing/x.jsonl", "corpus.jsonl/x", "demo/x.parquet", ".", "new",
            "new.jsonl", "new.parquet", "new.json", "new.csv", "new.npy",
            "/proc/nothing/x", "~nobody/x"]  # fmt: skip


def mutated(words: list[str], command: Any, rng: random.Random) -> list[str]:
    """The words with one of them dropped, swapped or wrong, or with one more option."""
    options = [one for one in command.params if one.param_type_name == "option"]
    kinds = ("drop", "again", "wrong", "place", "place", *["option"] * 6)
    kind = rng.choice(kinds)
    made = list(words)
    at = rng.randrange(len(made)) if made else 0
    if kind == "drop" and made:
        del made[at]
    elif kind == "wrong" and made:
        made[at] = rng.choice(WRONG)
    elif kind == "place" and made:
        made[at] = rng.choice(places())
    elif kind == "again" and made:
        made.insert(at, made[at])
    elif options:
        one = rng.choice(options)
        made += [rng.choice(one.opts)] + ([] if one.is_flag else [value_of(one, rng)])
    return made


def short(name: str, words: list[str]) -> list[str]:
    """The words with what makes them quick, where they do not say otherwise themselves."""
    extra = list(SHORT.get(name, []))
    if name == "eval" and words[:1] in (["demo"], ["--av"]):
        extra += PAIRS
    return [*extra, *words]


def fill_odd(root: Path) -> None:
    """One good file of every format, for damage to find."""
    folder = root / ODD
    folder.mkdir()
    text = (root / "corpus.jsonl").read_bytes()
    (folder / "c.jsonl.gz").write_bytes(gzip.compress(text))
    lines = text.decode().splitlines()
    (folder / "c.json").write_text(f"[{','.join(lines)}]", encoding="utf-8")
    (folder / "c.txt").write_text("\n\n".join(lines), encoding="utf-8")
    shutil.copyfile(root / "table.csv", folder / "t.csv")
    import pyarrow as pa

    with pa.output_stream(str(folder / "c.jsonl.zst"), compression="zstd") as stream:
        stream.write(text)
    vectors = np.load(root / "vectors.npy")
    np.savez(folder / "v.npz", activation_vector=vectors)
    np.save(folder / "v16.npy", vectors.astype(np.float16))
    pq_rows = read_table(root / "vectors.parquet").to_pylist()
    records = [row | {"explanation": f"about {n}", "text": "x", "label": str(n % 2)}
               for n, row in enumerate(pq_rows)]  # fmt: skip
    toyplace.write_lines(folder / "rows.jsonl", records)


@cache
def known_lines() -> dict[str, list[list[str]]]:
    """Command → word lists of the documents."""
    found: dict[str, list[list[str]]] = {}
    lines = [one.words[1:] for one in commands() if one.words[0] == "nlakit"]
    for name, *words in (*lines, *map(shlex.split, LINES)):
        if "gemma-3-270m" not in words:  # eighteen blocks take long
            found.setdefault(name, []).append(words)
    return found


@contextlib.contextmanager
def safe(embedded: Path) -> Iterator[None]:
    """No network, no embedded model, no figures by the dozen, nothing that is served until Ctrl-C,
    and an end to what hangs."""
    from nlakit.cli.use import serve
    from nlakit.models import gguf as module
    from nlakit.publish.compare import figure
    from nlakit.run.folder import atomic_write
    from nlakit.studies import layers
    from nlakit.studies.planning import calibrate

    def late(*args: Any) -> None:
        raise TimeoutError(f"the case took more than {SECONDS} seconds")

    before = signal.signal(signal.SIGALRM, late)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(constants, "HF_HUB_OFFLINE", True)
        patch.setattr(module, "embedded_model", lambda: embedded)
        patch.setattr(calibrate, "matmul_speed", lambda *args, **options: 1e11)
        patch.setattr(layers, "_draw", lambda *args: None)
        patch.setattr(serve, "run", lambda *args: None)
        patch.setattr(serve, "listening", lambda *args: socket.socket())
        patch.setattr(figure, "_save", lambda figure, path: atomic_write(path, "a figure"))
        yield
    signal.signal(signal.SIGALRM, before)


def run_case(seed: int, master: Path, scratch: Path) -> Case:
    """Make a case by its seed in a new folder of `scratch`, run it and clear up."""
    rng, group = random.Random(seed), tree()
    # Every command in turn; of one without parameters there is one case.
    names = sorted(one for one, command in group.items() if command.params or seed < len(group))
    name = names[seed % len(names)]
    root = scratch / f"case-{seed}"
    root.mkdir()
    with toyplace.at(root):
        words = begin(name, group, rng)
        toyplace.copied(master, root, [*words, ODD.name, *INPUTS])
        for _ in range(rng.choice((0, 1, 1, 2))):
            words = mutated(words, group[name], rng)
        damaged = []
        for _ in range(rng.choice((0, 1, 1, 2))):
            # `Path.exists` raises for names that are too long.
            named = [w for w in words if os.path.exists(w) and Path(w) != Path()]  # noqa: PTH110
            if named:
                damaged.append(damage(Path(rng.choice(named)), rng))
        words = short(name, words)
        signal.alarm(SECONDS)
        try:
            said = call(name, *words)
        finally:
            signal.alarm(0)
    shutil.rmtree(root, ignore_errors=True)
    return Case(seed, (name, *words), tuple(damaged), said)
