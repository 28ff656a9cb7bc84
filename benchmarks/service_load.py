"""The service under load: many clients at once against one, and whether each gets the same answer.

    python benchmarks/service_load.py demo --clients 32 --seconds 300 --json load.json

One client first asks each request alone; then all clients ask them by turns, streamed, for so many
seconds. Service and clients are two processes of one machine.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import uvicorn

from nlakit import NLA
from nlakit.run.folder import library_versions
from nlakit.serve.app import create_app
from nlakit.serve.engine import Engine
from nlakit.serve.settings import Settings

SENTENCES = (
    "The orchestra rehearsed the second movement until the trumpets were in time.",
    "She opened the letter and began to read it aloud to her brother.",
    "The committee raised the tax on imported wine by three per cent.",
    "Water boils at a lower temperature on a high mountain than by the sea.",
    "The captain ordered the crew to lower the boats before the storm.",
    "A function that calls itself needs a case in which it does not.",
    "The old king divided his land among his daughters and kept nothing.",
    "He planted beans along the fence and watered them every evening.",
)
SETTLED = 0.2  # of the time; what memory grows to in it is warm-up


@dataclass
class Answer:
    """What one request got, and when."""

    text: str = ""
    centred_cosine: float | None = None
    first: float = 0.0  # seconds to the first token
    whole: float = 0.0
    status: int = 0


@dataclass
class Report:
    clients: int
    seconds: float
    alone_a_minute: float
    together_a_minute: float
    gain: float
    answers: int
    busy: int
    failed: int
    other_texts: int
    largest_score_difference: float
    alone_first_token_seconds: dict[str, float]
    first_token_seconds: dict[str, float]
    resident_mb: dict[str, float]
    tokens: float
    versions: dict[str, Any] = field(default_factory=dict)


def ask(client: httpx.Client, body: dict[str, Any]) -> Answer:
    """One streamed explanation."""
    found, began = Answer(), time.monotonic()
    with client.stream("POST", "/explain", json={**body, "stream": True}) as answer:
        found.status = answer.status_code
        for line in answer.iter_lines():
            if not line.startswith("data: {"):
                continue
            event = json.loads(line[6:])
            found.first = found.first or ("text" in event) * (time.monotonic() - began)
            if "description" in event:
                found.text, found.centred_cosine = event["description"], event["centred_cosine"]
            if "error" in event:
                found.status = 500
    found.whole = time.monotonic() - began
    return found


def requests(count: int) -> list[dict[str, Any]]:
    """Distinct requests: a position of a sentence each."""
    places = ((text, at) for at in range(3, 12) for text in SENTENCES)
    made = [{"text": text, "positions": [at], "temperature": 0} for text, at in places]
    return made[:count]


def ask_all(url: str, bodies: list[dict[str, Any]], clients: int, seconds: float) -> dict[str, Any]:
    """What clients that keep asking get, each with the number of its request, and the seconds until
    the last is served. One client asks each request once."""
    found: list[tuple[int, dict[str, Any]]] = []
    begun = time.monotonic()

    def keep_asking(start: int) -> None:
        with httpx.Client(base_url=url, timeout=seconds + 600) as client:
            for nth, at in enumerate(islice(cycle(range(len(bodies))), start, None)):
                over = nth == len(bodies) if clients == 1 else time.monotonic() >= begun + seconds
                if over:
                    return
                found.append((at, asdict(ask(client, bodies[at]))))

    threads = [threading.Thread(target=keep_asking, args=(n,)) for n in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {"answers": found, "took": time.monotonic() - begun}


def asked(
    url: str, distinct: int, clients: int, seconds: float, memory: list[float]
) -> tuple[list[tuple[int, Answer]], float]:
    """The same by a process of its own, as clients are elsewhere: in this one the service's threads
    would wait for theirs."""
    words = ["--ask", url, "--distinct", str(distinct), "--clients", str(clients)]
    words += ["--seconds", str(seconds)]
    process = psutil.Process()
    command = [sys.executable, __file__, *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None, "it is a pipe"
        lines: list[str] = []
        reader = threading.Thread(target=lambda: lines.extend(child.stdout or ()))
        reader.start()
        while reader.is_alive():
            memory.append(process.memory_info().rss / 2**20)
            reader.join(min(1.0, seconds / 10))
    told = json.loads("".join(lines))
    return [(at, Answer(**one)) for at, one in told["answers"]], told["took"]


def measure(app: Any, url: str, distinct: int, clients: int, seconds: float) -> Report:
    """Alone, then together."""
    with httpx.Client(base_url=url, timeout=600) as client:
        ask(client, requests(1)[0])  # the first one pays for what is made once
    memory: list[float] = []
    first, spent = asked(url, distinct, 1, seconds, [])
    alone, single = dict(first), 60 * len(first) / spent
    found, took = asked(url, distinct, clients, seconds, memory)
    good = [(at, one) for at, one in found if one.status == 200]
    differences = [
        abs((one.centred_cosine or 0.0) - (alone[at].centred_cosine or 0.0)) for at, one in good
    ]
    return Report(
        clients=clients,
        seconds=round(took, 1),
        alone_a_minute=round(single, 2),
        together_a_minute=round(60 * len(good) / took, 2),
        gain=round(60 * len(good) / took / single, 2),
        answers=len(good),
        busy=sum(one.status == 503 for _, one in found),
        failed=sum(one.status not in (200, 503) for _, one in found),
        other_texts=sum(one.text != alone[at].text for at, one in good),
        largest_score_difference=float(max(differences, default=0.0)),
        alone_first_token_seconds=quantiles([one.first for one in alone.values()]),
        first_token_seconds=quantiles([one.first for _, one in good]),
        resident_mb={
            "start": round(memory[0], 1),
            "after warm-up": round(max(memory[: max(int(len(memory) * SETTLED), 1)]), 1),
            "end": round(memory[-1], 1),
            "highest": round(max(memory), 1),
        },
        tokens=app.state.metrics.tokens._value.get(),
        versions=library_versions(),
    )


def quantiles(values: list[float]) -> dict[str, float]:
    if not values:
        return {}
    found = np.quantile(values, [0.5, 0.95, 1.0])
    return dict(zip(("median", "p95", "slowest"), found.round(3).tolist(), strict=True))


@contextmanager
def serving(app: Any) -> Iterator[str]:
    """The application on a free port, in a thread; gives its address."""
    config = uvicorn.Config(app, port=0, log_level="critical", access_log=False, ws="none")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started and thread.is_alive():
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pair", nargs="?", default="demo", help="a pair, as for nlakit serve")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--distinct", type=int, default=64, help="requests that differ")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--precision", default="float32", help="of the subject")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--ask", metavar="URL", help="be the clients of a service that runs")
    given = parser.parse_args()
    if given.ask:
        found = ask_all(given.ask, requests(given.distinct), given.clients, given.seconds)
        print(json.dumps(found))
        return
    engine = Engine(NLA.load(given.pair, precision=given.precision), batch=given.batch)
    app = create_app({"pair": engine}, Settings(rate=0, seconds=3600))
    try:
        with serving(app) as url:
            report = measure(app, url, given.distinct, given.clients, given.seconds)
    finally:
        engine.close()
    text = json.dumps(asdict(report), indent=2)
    print(text)
    if given.json:
        given.json.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
