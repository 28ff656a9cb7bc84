"""What the pages hold while the service runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from nlakit.errors import ContractError, DataError
from nlakit.serve.engine import Engine
from nlakit.serve.pages.pairs import Pair, Reading
from nlakit.serve.pages.streams import Jobs


class Explorer:
    """The pairs by name, the first one being shown first, and what visitors wait for."""

    def __init__(
        self, engines: Mapping[str, Engine], sources: Mapping[str, str | Path] | None = None
    ) -> None:
        places = sources or {}
        self.pairs = {
            name: Pair(name, engine, places.get(name, name)) for name, engine in engines.items()
        }
        for name, pair in self.pairs.items():
            if pair.nla.av is None:
                raise ContractError(f"{name} holds no AV", do="explore a pair, or the AV's folder")
        self.jobs = Jobs()

    def pair(self, name: str) -> Pair:
        """The pair of a name, the first one for none; DataError for an unknown one."""
        found = self.pairs.get(name) if name else next(iter(self.pairs.values()))
        if found is None:
            raise DataError("no such pair is loaded", found=name[:80], do="reload the page")
        return found

    async def read(self, pair: str, text: str, kind: str) -> Reading:
        return await self.pair(pair).read(text, kind)
