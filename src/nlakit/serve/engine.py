"""One thread that does a pair's work for many callers, and writes their texts together."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from dataclasses import dataclass, replace
from threading import Condition, Thread
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from nlakit.errors import ContractError, DataError, NlakitError
from nlakit.models.decode import Decoding, Running, Text
from nlakit.models.nla import NLA, SpecialTokens
from nlakit.models.verbalizer import Verbalizer

T = TypeVar("T")
CACHED_BYTES = 256 * 2**20  # of activations of recent texts
OnText = Callable[[str], None]


class Busy(NlakitError):
    """As many explanations wait as the queue takes."""


class Closed(NlakitError):
    """The engine was closed before the work was done."""


@dataclass(eq=False)
class _Wanted:
    """An explanation that somebody waits for."""

    injected: torch.Tensor
    text: Text
    future: Future[str]
    on_text: OnText | None

    def tell(self, so_far: str) -> None:
        """Say what is written; who cannot listen no longer waits."""
        try:
            if self.on_text and not self.future.cancelled():
                self.on_text(so_far)
        except Exception:
            self.future.cancel()


class Engine:
    """A loaded pair, and the one thread in which its models run.

    batch: how many explanations are written at once; queue: how many may wait. Who waits comes in
    turn by `client`, a row each, so that one long request does not hold up the others.
    """

    def __init__(self, nla: NLA, *, batch: int = 32, queue: int = 256) -> None:
        self.nla, self.batch, self.queue = nla, batch, queue
        self._running = nla.av.running() if nla.av else None
        self._wanted: dict[Text, _Wanted] = {}
        self._waiting: OrderedDict[Hashable, deque[_Wanted]] = OrderedDict()
        self._calls: deque[tuple[Callable[[], Any], Future[Any]]] = deque()
        self._cache: OrderedDict[Hashable, tuple[list[int], NDArray[np.float32]]] = OrderedDict()
        self._wake, self._closed = Condition(), False
        self._thread = Thread(target=self._work, name="nlakit-engine", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Explanations that wait for a place."""
        return sum(map(len, list(self._waiting.values())))

    @property
    def writing(self) -> int:
        """Explanations that are being written."""
        return len(self._wanted)

    def submit(
        self,
        vector: NDArray[Any],
        *,
        decoding: Decoding | None = None,
        row: int = 0,
        client: Hashable = None,
        on_text: OnText | None = None,
    ) -> Future[str]:
        """The explanation of a raw activation `(d,)`.

        decoding: as the contract says unless given; its limit of tokens is never above the
        contract's. row: the key of the draws, with the seed. on_text gets the text so far after
        each token, in the engine's thread. To cancel the future, at any time, ends the work before
        the next token. Raises ContractError without an AV or for another width, DataError for a
        vector without a direction, Busy if the queue is full.
        """
        if self.nla.av is None:
            raise ContractError("this folder holds no AV", do="load a pair, or the AV's folder")
        usual = self.nla.av.decoding()
        decoding = decoding or usual
        limit = min(decoding.max_new_tokens, usual.max_new_tokens)
        injected = self.nla.av.scaled(np.atleast_2d(np.asarray(vector, dtype=np.float32)))
        text = Text(replace(decoding, max_new_tokens=limit), row)
        wanted = _Wanted(injected, text, _Cancellable(text), on_text)
        with self._wake:
            self._check_open()
            if self.waiting >= self.queue:
                raise Busy("too many explanations wait", found=self.waiting, do="try again soon")
            self._waiting.setdefault(client, deque()).append(wanted)
            self._wake.notify()
        return wanted.future

    def call(self, work: Callable[[], T]) -> Future[T]:
        """What `work` returns; it runs in the engine's thread, between two tokens of the texts."""
        future: Future[T] = Future()
        with self._wake:
            self._check_open()
            self._calls.append((work, future))
            self._wake.notify()
        return future

    def activations(
        self, text: str, special_tokens: SpecialTokens | None = None
    ) -> Future[tuple[list[int], NDArray[np.float32]]]:
        """Token ids of a text and its raw activations `(tokens, d)`; kept for a while."""
        return self.call(lambda: self._read(text, special_tokens))

    def close(self) -> None:
        """End the thread; what is not finished raises Closed."""
        with self._wake:
            self._closed = True
            self._wake.notify()
        self._thread.join()

    def _check_open(self) -> None:
        if self._closed:
            raise Closed("the engine is closed")

    def _read(
        self, text: str, special_tokens: SpecialTokens | None
    ) -> tuple[list[int], NDArray[np.float32]]:
        key = (text, special_tokens)
        if key not in self._cache:
            ids, _, vectors = self.nla.activations(text, "all", special_tokens)
            self._cache[key] = ids, vectors
            while sum(kept.nbytes for _, kept in self._cache.values()) > CACHED_BYTES:
                self._cache.popitem(last=False)
            return ids, vectors
        self._cache.move_to_end(key)
        return self._cache[key]

    @torch.no_grad()
    def _work(self) -> None:
        while True:
            with self._wake:
                self._wake.wait_for(self._has_work)
                if self._closed:
                    break
                called = self._calls.popleft() if self._calls else None
                joining = self._next()
            if called:
                _run(*called)
            try:
                self._write(joining)
            except Exception as error:  # an engine outlives what it cannot do
                self._fail(error, joining)
        self._fail(Closed("the engine is closed"), [])
        for _, future in self._calls:
            _settle(future, error=Closed("the engine is closed"))

    def _has_work(self) -> bool:
        return bool(self._closed or self._calls or self._waiting or self._wanted)

    def _next(self) -> list[_Wanted]:
        """Those that join now: a row of each client in turn, while there is room."""
        room = self.batch - len(self._wanted)
        taken: list[_Wanted] = []
        while self._waiting and len(taken) < room and self._may_join():
            client, rows = self._waiting.popitem(last=False)
            wanted = rows.popleft()
            if rows:
                self._waiting[client] = rows
            if not wanted.text.ended:
                taken.append(wanted)
        return taken

    def _may_join(self) -> bool:
        av, running = self.nla.av, self._running
        assert av is not None and running is not None, "rows wait for an AV alone"
        return running.joinable(len(av.prompt) + av.decoding().max_new_tokens)

    def _write(self, joining: list[_Wanted]) -> None:
        """Let rows join, and write a token of each."""
        av, running = self.nla.av, self._running
        if av is None or running is None:
            return
        gone = [*(self._begin(av, running, joining) if joining else []), *running.step()]
        for text in [*running.texts, *gone]:
            self._wanted[text].tell(av.text_of(text.ids))
        for text in gone:
            _settle(self._wanted.pop(text).future, av.text_of(text.ids))

    def _begin(self, av: Verbalizer, running: Running, joining: list[_Wanted]) -> list[Text]:
        """Texts that end at once. Where a vector makes the AV overflow, it fails alone."""
        texts = [wanted.text for wanted in joining]
        self._wanted |= dict(zip(texts, joining, strict=True))
        try:
            return av.begin(running, torch.cat([wanted.injected for wanted in joining]), texts)
        except DataError as error:
            if len(joining) > 1:
                return [text for one in joining for text in self._begin(av, running, [one])]
            _settle(self._wanted.pop(texts[0]).future, error=error)
            return []

    def _fail(self, error: Exception, joining: list[_Wanted]) -> None:
        """Nothing that runs can go on; what waits can, unless the engine is closed."""
        lost = {*self._wanted.values(), *joining}
        if self._closed:
            lost |= {wanted for rows in self._waiting.values() for wanted in rows}
        self._wanted.clear()
        self._running = self.nla.av.running() if self.nla.av else None
        for wanted in lost:
            _settle(wanted.future, error=error)


class _Cancellable(Future[str]):
    """A future whose text ends with it."""

    def __init__(self, text: Text) -> None:
        super().__init__()
        self._text = text

    def cancel(self) -> bool:
        self._text.ended = True
        return super().cancel()


def _run(work: Callable[[], Any], future: Future[Any]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(work())
    except Exception as error:
        future.set_exception(error)


def _settle(future: Future[Any], result: Any = None, error: Exception | None = None) -> None:
    if not future.set_running_or_notify_cancel():  # somebody no longer waits
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)
