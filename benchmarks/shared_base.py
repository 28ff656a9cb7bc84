"""How much memory a subject, an AV and an AR take together: the base must be there once.

python benchmarks/shared_base.py [--quantisation nf4] [--rank 32]
"""

from __future__ import annotations

import argparse
import gc
import json

import numpy as np
import psutil
import torch

from nlakit.config.sections import LoraConfig, SubjectConfig
from nlakit.core.contract import read_contract
from nlakit.models.foreign.folders import find_halves
from nlakit.models.reconstructor import Reconstructor
from nlakit.models.subject import load_subject
from nlakit.models.verbalizer import Verbalizer


def tensors(module: torch.nn.Module) -> dict[int, int]:
    """Bytes of each storage that a module's weights, buffers and 4-bit scales lie in."""
    found = [*module.parameters(), *module.buffers()]
    for part in module.modules():
        state = getattr(part, "quant_state", None)
        if state is not None:
            found += [state.absmax, state.code]
            found += [state.state2.absmax, state.state2.code] if state.nested else []
    storages = [tensor.untyped_storage() for tensor in found]
    return {storage.data_ptr(): storage.nbytes() for storage in storages}


def resident() -> float:
    gc.collect()
    return psutil.Process().memory_info().rss / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quantisation", choices=["nf4"])
    parser.add_argument("--rank", type=int, default=32)
    chosen = parser.parse_args()
    lora = LoraConfig(r=chosen.rank, alpha=2 * chosen.rank)
    contract = read_contract(find_halves("demo")["av"])
    given = {"quantisation": chosen.quantisation, "layer": contract.layer, "device": "cpu"}
    subject = load_subject(SubjectConfig.model_validate(given))
    base = tensors(subject.model)
    for tensor in subject.model.state_dict().values():
        if tensor.is_floating_point():
            tensor.float().sum()  # weights are mapped from the file: read every page
    before = resident()
    ar = Reconstructor(subject, contract, lora, 0)
    av = Verbalizer(subject, contract, np.zeros(subject.d_model), lora, 0)
    after = resident()
    everything = base | tensors(av) | tensors(ar)
    own = sum(p.numel() * p.element_size() for h in (av, ar) for p in h.parameters()
              if p.requires_grad)  # fmt: skip
    mib = 2**20
    print(json.dumps({
        "subject": f"{subject.config.model}, {subject.config.precision}",
        "MiB of the base's tensors": round(sum(base.values()) / mib, 1),
        "MiB of all tensors of base, AV and AR": round(sum(everything.values()) / mib, 1),
        "MiB of both halves' trained tensors": round(own / mib, 1),
        "MiB resident with the base": round(before, 1),
        "MiB resident with the base, AV and AR": round(after, 1),
    }, indent=1))  # fmt: skip


if __name__ == "__main__":
    main()
