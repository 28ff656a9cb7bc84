"""Requests a second of the labeler beside a bare HTTP client, in one process, and its memory.

python benchmarks/labelling.py [--rows 20000] [--concurrency 32] [--delay 0.2] [--json OUT]

A loopback server answers after `--delay` seconds. Slices of rows go by turns through the labeler
(store on disk, both personas' checks, one request a row) and through a bare client that posts the
same bodies with the same number of requests in flight.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx2
import psutil

from nlakit.config.labels import LabelsConfig, RequestsConfig
from nlakit.data.labels.labeler import LabelRequest
from nlakit.data.labels.services.answers import LabelAnswer
from nlakit.data.labels.services.labeler import ServiceLabeler
from nlakit.data.labels.services.prompts import row_values
from nlakit.run.folder import git_commit, library_versions

SERVER = Path(__file__).parent.parent / "tests" / "labelserver.py"
TEXT = "The captain of ship number {} looked at the storm over the harbour, and slowly said that"


def body(labeler: ServiceLabeler, text: str) -> dict[str, Any]:
    """The request that the labeler sends for a text."""
    request = LabelRequest("r", text, "that")
    prompt = labeler.prompts.labeler.fill(row_values(request, labeler.settings.max_characters))
    form = {"name": "LabelAnswer", "schema": LabelAnswer.model_json_schema()}
    return {
        "model": "bench",
        "messages": [
            {"role": "system", "content": prompt.instructions},
            {"role": "user", "content": prompt.message},
        ],
        "response_format": {"type": "json_schema", "json_schema": form},
    }


async def bare(url: str, bodies: list[dict[str, Any]], concurrency: int) -> None:
    """Post the bodies and read the answers, `concurrency` at a time."""
    limits = httpx2.Limits(max_connections=concurrency, max_keepalive_connections=concurrency)
    waiting = iter(bodies)
    async with httpx2.AsyncClient(limits=limits, timeout=60) as client:

        async def work() -> None:
            for one in waiting:
                answer = await client.post(f"{url}/chat/completions", json=one)
                json.loads(answer.json()["choices"][0]["message"]["content"])

        await asyncio.gather(*(work() for _ in range(concurrency)))


def measure(url: str, options: argparse.Namespace) -> dict[str, Any]:
    service = {"kind": "compatible", "model": "bench", "base_url": url}
    settings = LabelsConfig.model_validate({"labeler": "services", "services": [service]})
    requests = RequestsConfig(concurrency=options.concurrency)
    process, rates, memory = psutil.Process(), {"labeler": [], "bare": []}, []
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "answers.sqlite"
        labeler = ServiceLabeler(settings, requests, store, "bench", options.rows)
        for start in range(0, options.rows, options.slice):
            texts = [TEXT.format(n) for n in range(start, min(start + options.slice, options.rows))]
            rows = [LabelRequest(f"r{n}", text, "that") for n, text in enumerate(texts, start)]
            began = time.perf_counter()
            labels = labeler.label(rows)
            rates["labeler"].append(len(rows) / (time.perf_counter() - began))
            assert all(label.explanation for label in labels)
            memory.append(process.memory_info().rss / 2**20)
            if start // options.slice % options.every == 0:
                some = [body(labeler, text) for text in texts]
                began = time.perf_counter()
                asyncio.run(bare(url, some, options.concurrency))
                rates["bare"].append(len(some) / (time.perf_counter() - began))
        cpu = process.cpu_times()
        labeler.close()
        size = store.stat().st_size / options.rows
    medians = {name: statistics.median(found) for name, found in rates.items()}
    return {
        "rows": options.rows,
        "concurrency": options.concurrency,
        "delay": options.delay,
        "possible_a_second": options.concurrency / options.delay,
        "requests_a_second": {name: round(rate, 1) for name, rate in medians.items()},
        "slowest_slice": {name: round(min(found), 1) for name, found in rates.items()},
        "labeler_share_of_bare": round(medians["labeler"] / medians["bare"], 3),
        "rss_mib_after_each_tenth": [round(m, 1) for m in memory[:: max(len(memory) // 10, 1)]],
        "rss_mib_last": round(memory[-1], 1),
        "store_bytes_a_row": round(size),
        "process_cpu_seconds": round(cpu.user + cpu.system, 1),
        "commit": git_commit(),
        "versions": library_versions(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--slice", type=int, default=2_000, help="rows at a time")
    parser.add_argument("--every", type=int, default=2, help="bare slices: one in so many")
    parser.add_argument("--concurrency", type=int, default=32)
    parser.add_argument("--delay", type=float, default=0.2)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    command = [sys.executable, str(SERVER), "--delay", str(options.delay)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            found = measure(server.stdout.readline().split()[-1], options)
        finally:
            server.kill()
    text = json.dumps(found, indent=1)
    print(text)
    if options.json:
        options.json.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
