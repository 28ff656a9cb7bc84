"""The subject continues a text, a token a turn of the engine, beside the explanations."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

import torch

from nlakit.core.text.characters import BROKEN, LONGEST, spelled
from nlakit.models.decode import Decoding, Running, Text
from nlakit.models.subject import decoder_of
from nlakit.models.using.reading import Token, Tokens
from nlakit.serve.answers import event
from nlakit.serve.api.wire import TokenInfo, TokenizeResponse
from nlakit.serve.pairs import Served


def info_of(token: Token) -> TokenInfo:
    return TokenInfo.model_validate(vars(token))


class Continuation:
    """At most `count` tokens behind a prompt of t token ids, fewer where the subject ends or its
    positions do."""

    def __init__(
        self, served: Served, prompt: Tokens, count: int, temperature: float, seed: int
    ) -> None:
        self.served, self.words, self.prompt = served, prompt, prompt.ids
        room = (served.nla.subject.positions or len(self.prompt) + count) - len(self.prompt)
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
        """The new tokens, in a conversation the assistant's; those of one character together."""
        tokenizer, told, going = self.served.nla.subject.tokenizer, 0, True
        whose: dict[str, Any] = (
            {} if self.words.spans is None else {"role": "assistant", "section": "content"}
        )
        while going:
            going = await self.served.do(self._step)
            while pending := self.text.ids[told:]:
                shown = await self.served.do(lambda ids=pending: spelled(tokenizer, ids))
                text, _, count = shown[0]
                if BROKEN in text and going and len(pending) < LONGEST:
                    break
                for part in range(count):
                    at = len(self.prompt) + told
                    yield info_of(Token(at, self.text.ids[told], text, part, count, **whose))
                    told += 1

    async def _full_text(self) -> str:
        ids, tokenizer = [*self.prompt, *self.text.ids], self.served.nla.subject.tokenizer
        return await self.served.do(lambda: tokenizer.decode(ids, skip_special_tokens=False))

    async def _prompt(self) -> list[TokenInfo]:
        return [info_of(token) for token in await self.served.described(self.words)]

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
