"""The subject continues a text, a token a turn of the engine, beside the explanations."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence

import torch

from nlakit.core.text.characters import BROKEN
from nlakit.models.decode import Decoding, Running, Text
from nlakit.models.subject import decoder_of
from nlakit.serve.answers import event
from nlakit.serve.api.wire import TokenInfo, TokenizeResponse, token_fields
from nlakit.serve.pairs import LOOKAHEAD, Served, Token


def info_of(token: Token, position: int) -> TokenInfo:
    return TokenInfo.model_validate(token_fields(token, position))


class Continuation:
    """At most `count` tokens behind a prompt of t token ids, fewer where the subject ends or its
    positions do."""

    def __init__(
        self, served: Served, prompt: Sequence[int], count: int, temperature: float, seed: int
    ) -> None:
        self.served, self.prompt = served, list(prompt)
        room = (served.nla.subject.positions or len(prompt) + count) - len(prompt)
        self.text = Text(Decoding(max(min(count, room), 0), temperature, seed))
        self.running: Running | None = None

    @torch.no_grad()
    def _step(self) -> bool:
        """Write a token, in the engine's thread; whether there may be another."""
        subject = self.served.nla.subject
        if not self.text.decoding.max_new_tokens:
            return False
        if self.running is None:
            self.running = Running(subject.model, decoder_of(subject.model), [])
            self.running.join(torch.tensor([self.prompt], device=subject.device), [self.text])
        else:
            self.running.step()
        return not self.text.ended

    async def tokens(self) -> AsyncGenerator[TokenInfo]:
        """The new tokens; those of one character come together."""
        going, told = True, 0
        while going:
            going = await self.served.do(self._step)
            while told < len(self.text.ids):
                pending = self.text.ids[told:]
                first = (await self.served.tokens(pending))[0]
                if BROKEN in first.text and going and len(pending) < LOOKAHEAD:
                    break
                for token in (await self.served.tokens(pending))[: first.fragments]:
                    yield info_of(token, len(self.prompt) + told)
                    told += 1

    async def _full_text(self) -> str:
        ids, tokenizer = [*self.prompt, *self.text.ids], self.served.nla.subject.tokenizer
        return await self.served.do(lambda: tokenizer.decode(ids, skip_special_tokens=False))

    async def _prompt(self) -> list[TokenInfo]:
        found = await self.served.tokens(self.prompt)
        return [info_of(token, at) for at, token in enumerate(found)]

    async def whole(self) -> TokenizeResponse:
        """Prompt and continuation together."""
        tokens = await self._prompt()
        tokens += [token async for token in self.tokens()]
        return TokenizeResponse(
            tokens=tokens, prompt_length=len(self.prompt), text=await self._full_text()
        )

    async def events(self) -> AsyncGenerator[str]:
        """The prompt's tokens, then the new ones, then all as a text."""
        prompt = [token.model_dump() for token in await self._prompt()]
        yield event({"type": "prompt", "prompt_length": len(prompt), "tokens": prompt})
        async for token in self.tokens():
            yield event({"type": "token", "token": token.model_dump()})
        yield event({"type": "done", "text": await self._full_text()})
