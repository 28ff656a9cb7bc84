"""A folder in which every command of the documents finds what it names, at toy size."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM

from nlakit.files.parquet import vector_array, write_table
from tests.commands import call
from tests.conftest import LAYERS, D, toy_config, toy_corpus, toy_settings, toy_tokenizer
from tests.documents import EXAMPLES

EMBEDDED_BLOCKS = 18  # so that documents may name layers of the embedded model
STEPS = {"phases": [{"steps": 2, "lr": 0.01}]}
SENTENCE = "The {} waits near mark {}, and the river turns."
# Names of the documents that stand for something of the reader's → what they are here.
SAME = {
    **dict.fromkeys(
        ("RUN", "runs/a", "runs/b", "runs/mine", "runs/ONE", "runs/OTHER", "runs/gemma3-270m"),
        "runs/demo",
    ),
    "mine": "demo",
    **dict.fromkeys(("EVAL", "runs/eval-demo"), "eval"),
    "runs/NAME": "runs/labels-two-services",
    "SOURCE": "OTHERS/PAIR",
    "CONFIG": "examples/labels-two-services.yaml",
    "MODEL": "my-model",
    "CORPUS": "texts",
    "SAE/sae_weights.safetensors": "SAE",
    "their_rows.jsonl": "rows.jsonl",
    "activations.parquet": "vectors.parquet",
}
OUTPUTS = ("--out", "--run", "--json", "--save")
# Outputs that a command goes on with.
BEGUN = {"DIR/run": "runs/labels-local", "runs/demo": "runs/demo"}


def toy_model(folder: Path, blocks: int) -> Path:
    """A toy of the embedded model's family."""
    torch.manual_seed(1)
    shape = toy_config("gemma3").to_dict() | {"num_hidden_layers": blocks, "layer_types": None}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**shape))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    toy_tokenizer().save_pretrained(folder)
    return folder


def merged(data: Any, over: Any) -> Any:
    if not isinstance(data, dict) or not isinstance(over, dict):
        return over
    both = {key: merged(data[key], over[key]) for key in data.keys() & over.keys()}
    return data | over | both


def toy_example(path: Path, model: Path, labels_url: str) -> dict[str, Any]:
    """An example's configuration with everything that takes time made small."""
    data = yaml.safe_load(path.read_text(encoding="utf-8"))
    toy = toy_settings(model, Path("corpus.jsonl"))
    del toy["name"], toy["split"]
    toy["subject"] |= {"quantisation": None, "ple_on_cpu": False}
    toy["activations"]["skip_first"] = 50
    if data.get("corpus", {}).get("sources"):
        del toy["corpus"]["sources"]
        toy["corpus"]["min_characters"] = 1
    for section in ("ar", "av", "pair"):
        toy[section] |= {"optimizer": "adamw", "trackers": [], "gradient_checkpointing": False}
        toy[section] |= STEPS
    toy["ar"]["blocks"] = None
    if "rl" in data:
        few = {"batch_rows": 2, "samples": 2, "ar_samples": 1, "measure_rows": 2}
        toy["rl"] = {"phases": [{"steps": 1, "lr": 1e-3}], "learn_on": None, **few}
    data = merged(data, toy)
    services = data["labels"].get("services", [])
    auditor = [data["labels"]["auditor"]] if data["labels"].get("auditor") else []
    for one in (*services, *auditor):
        one.update(kind="compatible", base_url=labels_url, options={})
    if services:
        data["requests"] = {**data.get("requests", {}), "prices": "my-prices.yaml"}
    return data


def write_lines(path: Path, records: Sequence[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(one) + "\n" for one in records), encoding="utf-8")


def write_inputs(root: Path) -> None:
    """Vectors, texts, rows and tables as other people have them."""
    rng = np.random.default_rng(0)
    vectors = ((rng.standard_normal((3, D)) + 1.5) * 20).astype(np.float32)
    np.save(root / "vectors.npy", vectors)
    import pyarrow as pa

    write_table(root / "vectors.parquet", pa.table({"activation_vector": vector_array(vectors)}))
    texts = [SENTENCE.format(word, row) for row, word in enumerate(("whale", "tax", "psalm"))]
    (root / "explanations.txt").write_text("\n".join(texts) + "\n", encoding="utf-8")
    (root / "SAE").mkdir()
    save_file({"W_dec": torch.eye(D)}, root / "SAE" / "sae_weights.safetensors")
    settings = {"d_in": D, "metadata": {"model_name": "my-model", "hook_name": "model.layers.1"}}
    (root / "SAE" / "cfg.json").write_text(json.dumps(settings), encoding="utf-8")
    rows = [
        {"doc_id": f"d{i // 2}", "explanation": SENTENCE.format("ledger", i), "cosine": 0.1 * i,
         "source_text": SENTENCE.format("violin", i)} for i in range(8)
    ]  # fmt: skip
    write_lines(root / "rows.jsonl", rows)
    edit = {"text": "The whale waits", "original": "About rain.", "edited": "About zebras."}
    write_lines(root / "edits.jsonl", [edit, edit | {"text": "A psalm"}])
    lines = [f"{SENTENCE.format('tax', i)!r},{'even' if i % 2 else 'odd'}" for i in range(40)]
    lines = [line.replace("'", '"') for line in lines]
    (root / "table.csv").write_text("\n".join(["text,label", *lines]) + "\n", encoding="utf-8")
    documents = [json.loads(line) for line in (root / "corpus.jsonl").read_text().splitlines()]
    records = [{"id": f"n{i}", **one} for i, one in enumerate(documents)]
    write_lines(root / "documents.jsonl", records)
    for folder in ("texts", "notes"):
        for i, one in enumerate(documents[:40]):
            (root / folder).mkdir(exist_ok=True)
            (root / folder / f"{i}.txt").write_text(f"{folder} {one['text']}", encoding="utf-8")
    talk = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "It turns."}]
    (root / "talk.json").write_text(json.dumps(talk), encoding="utf-8")
    prices = {"date": "2026-11-22", "models": {}}
    for name in ("claude-haiku-4-5", "gpt-4o-mini", "gemini-2.5-flash", "gemma-3-270m"):
        prices["models"][f"compatible:{name}"] = {"input": 1.0, "output": 5.0}
    (root / "my-prices.yaml").write_text(yaml.safe_dump(prices), encoding="utf-8")


def build(root: Path, labels_url: str) -> Path:
    """Everything once: inputs, toy examples, and what finished runs leave."""
    model = toy_model(root / "my-model", LAYERS)
    toy_corpus(root / "corpus.jsonl")
    write_inputs(root)
    (root / "examples").mkdir()
    for path in EXAMPLES:
        text = yaml.safe_dump(toy_example(path, model, labels_url), sort_keys=False)
        (root / "examples" / path.name).write_text(text, encoding="utf-8")
    with contextlib.chdir(root):
        done("run", "examples/demo.yaml")
        # A folder of this name is taken before the pair in the box.
        for part in ("av", "ar"):
            shutil.copytree(f"runs/demo/08_pair/{part}", f"demo/{part}")
        shutil.copytree("runs/demo/05_tables", "demo/05_tables")
        # Other tools feed an AV at the embedding: one that is trained so.
        shutil.copytree("runs/demo", "runs/plain")
        done("av", "examples/demo.yaml", "--out", "runs/plain", "--set",
             "av.injection=reference",
             "--redo")  # fmt: skip
        shutil.copytree("runs/plain/07_av", "PAIR/av")
        shutil.copytree("runs/plain/06_ar", "PAIR/ar")
        done("export", "PAIR", "OTHERS/PAIR")
        done("eval", "demo", "--set", "eval.permutations=100", "--out", "eval")
        done("card", "runs/demo", "--out", "card")
        done("archive", "runs/demo", "archived")
        for stage in ("corpus", "activations", "split", "labels"):
            done(stage, "examples/labels-two-services.yaml")
        for stage in ("corpus", "activations", "split"):
            done(stage, "examples/labels-local.yaml")
    return root


def done(*words: str) -> None:
    said = call(*words)
    assert (said.code, said.crash) == (0, ""), (words, said)


def copied(master: Path, root: Path, words: Sequence[str]) -> None:
    """Copy into `root` what the words name, and what every command may look for. What follows an
    option for output is not there yet."""
    wanted = {"examples", "corpus.jsonl", "demo", "my-prices.yaml"}
    for option, word in zip(("", *words), words, strict=False):
        if option not in OUTPUTS or word in BEGUN:
            wanted.add(word.removeprefix("./").rstrip("/"))
        if word.startswith("examples/") and option not in OUTPUTS:
            wanted.add(f"runs/{Path(word).stem}")
    for name in wanted:
        source = master / (SAME | BEGUN).get(name, name)
        if not name or len(name) > 255 or (source.is_absolute() and master not in source.parents):
            continue
        if source.is_dir():
            shutil.copytree(source, root / name, dirs_exist_ok=True)
        elif source.is_file():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, root / name)
    if (master / "runs" / "answers.sqlite").exists():
        for folder in ("runs", "DIR"):
            (root / folder).mkdir(exist_ok=True)
            shutil.copyfile(master / "runs/answers.sqlite", root / folder / "answers.sqlite")
    (root / "docs" / "results").mkdir(parents=True)


@contextlib.contextmanager
def at(root: Path) -> Iterator[Path]:
    """Work in a folder; the variables of the environment are those of before afterwards."""
    before = dict(os.environ)
    with contextlib.chdir(root):
        yield root
    os.environ.clear()
    os.environ.update(before)
