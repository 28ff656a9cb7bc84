"""Useful FLOP/s of every kind of work, beside this machine's matmul speed, in one process.

python benchmarks/speed.py [--steps 8] [--tokens 64] [--pair runs/demo/08_pair] [--json OUT]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import torch
from rich.console import Console
from rich.table import Table
from transformers import StoppingCriteria, StoppingCriteriaList

from nlakit.config.load import parse_config
from nlakit.config.sections import RunConfig
from nlakit.core.contract import read_contract
from nlakit.data.corpus import order_key
from nlakit.data.labels.offline import Background, OfflineLabeler
from nlakit.data.sources import read_source
from nlakit.files.rows import TableRows, read_mean
from nlakit.models.decode import Decoding, decode
from nlakit.models.verbalizer import Verbalizer
from nlakit.run.folder import library_versions
from nlakit.studies.planning.calibrate import Work, matmul_speed

DOCUMENTS = 64
DECODE_BATCH = 32
SETTINGS = {
    "name": "speed",
    "activations": {"positions_per_document": 24, "max_tokens": 256},
    "ar": {"lora": {"r": 24, "alpha": 48}, "batch_rows": 24},
    "av": {"batch_rows": 16},
}


class Bench(Work):
    """The calibration's work at full batches, timed `steps` times."""

    def __init__(self, config: RunConfig, steps: int) -> None:
        super().__init__(config)
        self.steps = steps
        self.found: dict[str, dict[str, float]] = {}

    def fitting(self, kind: str, wanted: int, one: float) -> int:
        return wanted

    def measure(self, kind: str, work: Callable[[], float]) -> None:
        work()
        seconds, done = [], 0.0
        for _ in range(self.steps):
            started = time.perf_counter()
            done = work()
            self.wait()
            seconds.append(time.perf_counter() - started)
        middle = statistics.median(seconds)
        self.found[kind] = {
            "gflop": done / 1e9,
            "seconds": middle,
            "slowest": max(seconds),
            "gflops": done / middle / 1e9,
        }


class Closed(StoppingCriteria):
    """Stops a row of `generate()` at the closing tag, as nlakit's own decoding does."""

    def __init__(self, close: list[int], prompt: int) -> None:
        self.close, self.prompt = close, prompt

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> Any:
        tail = input_ids[:, self.prompt :][:, -len(self.close) :]
        if tail.shape[1] < len(self.close):
            return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)
        return (tail == torch.tensor(self.close, device=input_ids.device)).all(dim=1)


def with_generate(
    av: Verbalizer, ids: torch.Tensor, limit: int, *, stock: bool = False
) -> list[list[int]]:
    """The same texts from `transformers`: token ids a row, cut like nlakit's.

    Its prefill hands the head a slice that torch multiplies by a copy of the head for every row
    (10.7 GB here, and minutes) unless the slice is made contiguous: it is, unless `stock`.
    """
    if stock:
        return _generate(av, ids, limit)
    head = av.model.get_output_embeddings()
    hook = head.register_forward_pre_hook(lambda module, args: (args[0].contiguous(),))
    try:
        return _generate(av, ids, limit)
    finally:
        hook.remove()


def _generate(av: Verbalizer, ids: torch.Tensor, limit: int) -> list[list[int]]:
    made = av.model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=limit,
        do_sample=False,
        top_k=None,
        top_p=None,
        pad_token_id=av.tokenizer.pad_token_id or 0,
        stopping_criteria=StoppingCriteriaList([Closed(av.close, ids.shape[1])]),
    )
    ends = av.model.generation_config.eos_token_id
    ends = set(ends) if isinstance(ends, list) else {ends}
    return [cut(row, av.close, ends) for row in made[:, ids.shape[1] :].tolist()]


def cut(row: list[int], close: list[int], ends: set[int]) -> list[int]:
    """Tokens before the first end of sequence or closing tag."""
    for place in range(len(row)):
        if row[place] in ends:
            return row[:place]
        if row[place + 1 - len(close) : place + 1] == close and place + 1 >= len(close):
            return row[: place + 1 - len(close)]
    return row


def compare_decoding(av: Verbalizer, rows: TableRows, tokens: int, pairs: int) -> dict[str, Any]:
    """nlakit's decoding and `generate()` in alternating order: same model, vectors and limit."""
    injected = av.scaled(rows.vectors)[[i % len(rows) for i in range(DECODE_BATCH)]]
    ids = torch.tensor([av.prompt] * DECODE_BATCH, device=av.device)
    ways: dict[str, Callable[[], list[list[int]]]] = {
        "nlakit": lambda: decode(av.model, av.decoder, ids, av.close, Decoding(tokens)),
        "generate": lambda: with_generate(av, ids, tokens),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    texts: dict[str, list[list[int]]] = {}
    with torch.no_grad(), av.injecting(injected):
        for nth in range(pairs + 1):
            for name in sorted(ways, reverse=nth % 2 == 0):
                started = time.perf_counter()
                texts[name] = ways[name]()
                if nth:  # the first pair warms up
                    seconds[name].append(time.perf_counter() - started)
        started = time.perf_counter()
        with_generate(av, ids, tokens, stock=True)
        stock = time.perf_counter() - started
    made = {name: sum(map(len, found)) for name, found in texts.items()}
    equal = [a == b for a, b in zip(texts["nlakit"], texts["generate"], strict=True)]
    ratios = [g / n for n, g in zip(seconds["nlakit"], seconds["generate"], strict=True)]
    return {
        "batch": DECODE_BATCH,
        "limit": tokens,
        "tokens_a_second": {n: made[n] / statistics.median(s) for n, s in seconds.items()},
        "tokens": made,
        "seconds": seconds,
        "ratio": statistics.median(ratios),
        "ratios": ratios,
        "stock_generate_tokens_a_second": made["generate"] / stock,
        "equal_texts": sum(equal) / len(equal),
    }


def machine(device: torch.device) -> dict[str, float]:
    kinds = {"bf16": torch.bfloat16, "fp32": torch.float32}
    return {name: matmul_speed(device, kind, repeats=10) / 1e9 for name, kind in kinds.items()}


def documents_of(config: RunConfig) -> Any:
    """Some documents of the demo corpus, of all genres."""
    import pyarrow as pa

    found = sorted(read_source(config.corpus.sources[0]), key=lambda d: order_key(d.doc_id))
    columns = ("doc_id", "source_family", "text")
    return pa.table({name: [getattr(d, name) for d in found[:DOCUMENTS]] for name in columns})


def run(steps: int, tokens: int, pair: Path | None) -> dict[str, Any]:
    config = parse_config(SETTINGS)
    bench = Bench(config, steps)
    before = machine(bench.subject.device)
    documents = documents_of(config)
    texts = documents["text"].to_pylist()
    plain = config.activations.model_copy(update={"expected_tokens": 0})
    bench.config = config.model_copy(update={"activations": plain})
    bench.read(documents, bench.prepare(documents))
    early = bench.found.pop("read")
    bench.config = config
    table = bench.read(documents, bench.prepare(documents))
    rows, _, _ = bench.label(table, OfflineLabeler(Background(texts)))
    bench.train_ar(rows)
    av = bench.train_av(rows).module
    if pair is not None:
        folder = pair / "av" if (pair / "av").exists() else pair
        av = Verbalizer.load(bench.subject, read_contract(folder), read_mean(folder), folder)
    decoding = compare_decoding(av.eval(), rows, tokens, max(steps // 2, 1))
    after = machine(bench.subject.device)
    found = bench.found
    return {
        "matmul_gflops": {"before": before, "after": after},
        "work": {
            "extraction, layer 12, early exit": early,
            "extraction, layer 12, 5 expected tokens": found["read"],
            "AR step, batch 24, r=24": found["ar"],
            "AV step, batch 16, r=32": found["av"],
        },
        "decoding": decoding,
        "pair": str(pair) if pair else None,
        "threads": torch.get_num_threads(),
        "device": str(bench.subject.device),
        "versions": library_versions(),
    }


def show(results: dict[str, Any]) -> None:
    console, matmul = Console(highlight=False), results["matmul_gflops"]
    limit = max(matmul[when]["bf16"] for when in matmul)
    table = Table(title=f"{results['device']}, {results['threads']} threads")
    for column in ("work", "GFLOP", "seconds", "slowest", "GFLOP/s", "of bf16 matmul"):
        table.add_column(column, justify="left" if column == "work" else "right")
    for when, speeds in matmul.items():
        for kind, speed in speeds.items():
            table.add_row(f"{kind} matmul, {when}", "", "", "", f"{speed:.0f}", "")
    for name, found in results["work"].items():
        numbers = (f"{found['gflop']:.0f}", f"{found['seconds']:.2f}", f"{found['slowest']:.2f}")
        speed = found["gflops"]
        table.add_row(name, *numbers, f"{speed:.0f}", f"{speed / limit:.0%}")
    console.print(table)
    made = results["decoding"]
    speeds = ", ".join(f"{n} {s:.0f} tokens/s" for n, s in made["tokens_a_second"].items())
    console.print(
        f"greedy decoding, batch {made['batch']}, at most {made['limit']} tokens: {speeds}; "
        f"generate / nlakit time {made['ratio']:.2f} "
        f"({min(made['ratios']):.2f} to {max(made['ratios']):.2f}); "
        f"{made['equal_texts']:.0%} of texts equal; generate as installed, once: "
        f"{made['stock_generate_tokens_a_second']:.0f} tokens/s"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--steps", type=int, default=8, help="timed repeats of each kind of work")
    parser.add_argument("--tokens", type=int, default=64, help="limit of a decoded text")
    parser.add_argument("--pair", type=Path, help="decode with a trained AV: texts that close")
    parser.add_argument("--json", type=Path, help="write the figures here")
    given = parser.parse_args()
    warnings.filterwarnings("ignore")
    results = run(given.steps, given.tokens, given.pair)
    show(results)
    if given.json:
        given.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    if results["decoding"]["equal_texts"] < 0.9:
        raise SystemExit("the texts differ: the two ways are not doing the same work")


if __name__ == "__main__":
    main()
