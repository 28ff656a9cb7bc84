"""Decoding with a cache against whole forwards, for every way that a vector enters."""

from __future__ import annotations

import torch

from nlakit.models.decode import Decoding, decode
from nlakit.models.verbalizer import Verbalizer


@torch.no_grad()
def greedy_is_whole_forwards(av: Verbalizer, injected: torch.Tensor, steps: int) -> None:
    """Assert that cached decoding of injected vectors `(n, d)` is uncached greedy decoding, and
    that the loss of each token is −log p by the logits that chose it."""
    ids, losses = torch.tensor([av.prompt] * len(injected)), []
    with av.injecting(injected):
        found = decode(av.model, av.decoder, ids, [], Decoding(steps))
        for _ in range(steps):
            chances = av.model(input_ids=ids, use_cache=False).logits[:, -1].log_softmax(dim=-1)
            best = chances.max(dim=-1)
            losses.append(-best.values)
            ids = torch.cat([ids, best.indices[:, None]], dim=1)
    assert any(found)
    for row, tokens in enumerate(found):
        assert tokens == ids[row, len(av.prompt) :].tolist()[: len(tokens)]
        nll = av.nll(injected[row : row + 1], [tokens])
        assert torch.allclose(nll, torch.stack(losses)[: len(tokens), row], atol=1e-4)
