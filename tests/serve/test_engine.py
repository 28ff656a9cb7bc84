"""The engine: every caller gets the text that it would get alone."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError
from typing import Any

import numpy as np
import pytest

from nlakit.errors import DataError
from nlakit.models.decode import Decoding
from nlakit.models.nla import NLA
from nlakit.models.verbalizer import Verbalizer
from nlakit.serve.engine import Busy, Closed, Engine
from tests.conftest import SMALL_LORA, D, build_contract


@pytest.fixture
def nla(toy_subject: Any) -> NLA:
    subject = toy_subject("llama")
    av = Verbalizer(subject, build_contract(subject), np.zeros(D), SMALL_LORA, 0).eval()
    return NLA(subject, av, None, np.zeros(D))


@pytest.fixture
def engine(nla: NLA) -> Iterator[Engine]:
    made = Engine(nla, batch=3, queue=100)
    yield made
    made.close()


def texts_of(nla: NLA, vectors: np.ndarray) -> list[str]:
    return [item.explanation for item in nla.explain(vectors)]


def test_each_text_is_that_of_its_own(engine: Engine, vectors: np.ndarray) -> None:
    """More rows than places, so rows join those that run; some sampled ones among them."""
    alone = texts_of(engine.nla, vectors)
    warm = Decoding(20, temperature=1.0, seed=4)
    assert engine.nla.av is not None
    sampled = engine.nla.av.explain(vectors[:1], decoding=warm)[0]
    drawn = engine.submit(vectors[0], decoding=warm)
    found = [engine.submit(vector, client=at % 2) for at, vector in enumerate(vectors)]
    assert [future.result(60) for future in found] == alone
    assert drawn.result(60) == sampled
    assert engine.waiting == engine.writing == 0


def test_a_text_is_told_as_it_grows(engine: Engine, vectors: np.ndarray) -> None:
    told: list[str] = []
    text = engine.submit(vectors[0], on_text=told.append).result(60)
    assert told[-1] == text and len(told) > 3
    assert all(text.startswith(part) for part in told)


class Gate:
    """Holds the engine's thread until it is opened."""

    def __init__(self, engine: Engine) -> None:
        self.reached, self.opened = threading.Event(), threading.Event()
        engine.call(self._hold)
        assert self.reached.wait(60)

    def _hold(self) -> None:
        self.reached.set()
        assert self.opened.wait(60)


def test_who_leaves_costs_no_further_token(engine: Engine, vectors: np.ndarray) -> None:
    told: list[str] = []
    first = threading.Event()

    def listen(text: str) -> None:
        told.append(text)
        first.set()

    gone = engine.submit(vectors[0], on_text=listen)
    assert first.wait(60)
    gate = Gate(engine)
    said = len(told)
    assert gone.cancel()
    stays = engine.submit(vectors[1])
    gate.opened.set()
    assert stays.result(60) == texts_of(engine.nla, vectors[1:2])[0]
    assert len(told) == said
    with pytest.raises(CancelledError):
        gone.result(1)


def test_a_listener_that_fails_is_alone(engine: Engine, vectors: np.ndarray) -> None:
    def broken(text: str) -> None:
        raise RuntimeError("gone")

    gone = engine.submit(vectors[0], on_text=broken)
    assert engine.submit(vectors[1]).result(60) == texts_of(engine.nla, vectors[1:2])[0]
    assert gone.cancelled()


def test_a_full_queue_says_so(nla: NLA, vectors: np.ndarray) -> None:
    engine = Engine(nla, batch=1, queue=2)
    gate = Gate(engine)
    waiting = [engine.submit(vector) for vector in vectors[:2]]
    with pytest.raises(Busy, match="too many explanations wait; found: 2"):
        engine.submit(vectors[2])
    gate.opened.set()
    assert [future.result(60) for future in waiting] == texts_of(nla, vectors[:2])
    engine.close()


def test_a_long_request_does_not_hold_up_a_short_one(nla: NLA, vectors: np.ndarray) -> None:
    engine = Engine(nla, batch=1)
    gate, order = Gate(engine), []
    for at, vector in enumerate(vectors):
        engine.submit(vector, client="long").add_done_callback(lambda _, at=at: order.append(at))
    short = engine.submit(vectors[0], client="short")
    short.add_done_callback(lambda _: order.append("short"))
    gate.opened.set()
    short.result(60)
    assert engine.call(lambda: order.index("short")).result(60) == 1
    engine.close()


def test_what_fails_is_told_and_the_engine_goes_on(engine: Engine, vectors: np.ndarray) -> None:
    with pytest.raises(DataError, match="without a direction"):
        engine.submit(np.full(D, np.nan))
    with pytest.raises(ZeroDivisionError):
        engine.call(lambda: 1 // 0).result(60)
    running = engine._running
    assert running is not None
    step, running.step = running.step, lambda: 1 // 0  # type: ignore[method-assign, return-value]
    with pytest.raises(ZeroDivisionError):
        engine.submit(vectors[0]).result(60)
    assert engine.submit(vectors[0]).result(60) == texts_of(engine.nla, vectors[:1])[0]
    running.step = step  # type: ignore[method-assign]


def test_a_vector_that_overflows_fails_alone(
    nla: NLA, vectors: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert nla.av is not None
    bad, begin = nla.av.scaled(vectors[1:2]), nla.av.begin

    def overflowing(running: Any, injected: Any, texts: Any) -> Any:
        if bool((injected == bad).all(dim=-1).any()):
            raise DataError("the verbalizer's outputs are not finite")
        return begin(running, injected, texts)

    monkeypatch.setattr(nla.av, "begin", overflowing)
    engine = Engine(nla, batch=4)
    gate = Gate(engine)
    futures = [engine.submit(vector) for vector in vectors[:3]]
    gate.opened.set()
    with pytest.raises(DataError, match="not finite"):
        futures[1].result(60)
    monkeypatch.undo()
    alone = texts_of(nla, vectors[:3])
    assert [futures[0].result(60), futures[2].result(60)] == [alone[0], alone[2]]
    engine.close()


def test_activations_are_kept(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    ids, vectors = engine.activations("some text").result(60)
    monkeypatch.setattr(engine.nla, "activations", None)
    again, kept = engine.activations("some text").result(60)
    assert again == ids and kept is vectors and vectors.shape == (len(ids), D)


def test_a_closed_engine_leaves_nobody_waiting(nla: NLA, vectors: np.ndarray) -> None:
    engine = Engine(nla, batch=1)
    gate = Gate(engine)
    waiting = [engine.submit(vector) for vector in vectors[:2]]
    closing = threading.Thread(target=engine.close)
    closing.start()
    gate.opened.set()
    closing.join(60)
    for future in waiting:
        with pytest.raises(Closed):
            future.result(60)
    with pytest.raises(Closed):
        engine.submit(vectors[0])
