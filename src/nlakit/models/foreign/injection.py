"""How a foreign AV takes in the vector: what its files say, or what the user states about them.

A wrong way in gives fluent texts about nothing, so none is guessed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from nlakit.core.contract import UNKNOWN_INJECTION, Contract
from nlakit.core.injection import NORM_MATCHED
from nlakit.errors import ConfigError, ContractError

# What a user can state: the reference's way, and that of EasyNLA and nanoNLA.
STATED = {"reference": None, "add": NORM_MATCHED}
MEANINGS = (
    "reference: in place of the marker's embedding, at norm √d where no scale is named; "
    "add: behind block 1, at the norm of the marker's row (EasyNLA, nanoNLA)"
)
# Foreign keys for a way in other than the reference's, which has no word for it.
LAYOUT = re.compile(
    r"inject(?:ion)?(?:_(?:block|hook|kind|layer|layout|method|mode|op|site|style|type|where)s?)?",
    re.IGNORECASE,
)


def settle_injection(
    contract: Contract, role: str, folder: Path, stated: str | None, ours: bool
) -> None:
    """Record in a half's contract how the vector is put in and where that comes from. stated: a
    word of `STATED`, by the user, which counts where the files leave it open. An AR injects
    nothing: what its sidecar leaves out stays unsaid.

    Raises ContractError for an AV whose files leave it open, ConfigError for another word.
    """
    if stated is not None and stated not in STATED:
        raise ConfigError("unknown --injection", found=stated, do=MEANINGS)
    record, left_open = contract.nlakit, unsaid(contract)
    if left_open is None:
        if not ours and record.injection_source is None:
            given = "injection_scale" in contract.extraction.model_fields_set
            record.injection_source = (
                "the sidecar" if given else "left out of a model's sidecar: sqrt_d_model"
            )
        return
    if role != "av":
        record.injection_source = UNKNOWN_INJECTION
        return
    if stated is None:
        raise ContractError(
            f"the files in {folder} leave open how this AV takes the vector in",
            found=left_open,
            do=f"give --injection as its author trained it ({MEANINGS}), or use the AR alone",
        )
    record.injection = STATED[stated]
    record.injection_source = f"--injection {stated}; the files say: {left_open}"


def unsaid(contract: Contract) -> str | None:
    """What in a sidecar leaves open how the vector is put in; None if nothing does.

    A model's sidecar without a scale means √d. A data set's says nothing of the models that were
    trained on it, and null there is no scale either: it stands beside AVs that add.
    """
    record = contract.nlakit
    if record.injection is not None or record.injection_source not in (None, UNKNOWN_INJECTION):
        return None  # settled when it was read, or written by nlakit
    if record.injection_source == UNKNOWN_INJECTION:
        return "the sidecar of the half that it was imported from named no injection scale"
    if named := sorted(_layouts(contract)):
        return f"{', '.join(named)}, which the reference does not have"
    scale = contract.extraction.injection_scale
    given = "injection_scale" in contract.extraction.model_fields_set and scale is not None
    if contract.kind == "nla_dataset" and not given:
        return "nla_meta.yaml is a data set's (kind: nla_dataset) and names no injection scale"
    return None


def _layouts(contract: Contract) -> Iterator[str]:
    for part in (contract, contract.extraction, contract.tokens):
        for name, value in (part.model_extra or {}).items():
            if LAYOUT.fullmatch(name) and value not in (None, "", False, "reference"):
                yield f"{name}: {value}"
