"""nlakit trains, audits and uses natural language autoencoders (NLAs)."""

from __future__ import annotations

from importlib import metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nlakit.models.nla import NLA

__all__ = ["NLA", "__version__"]
__version__ = metadata.version("nlakit")


def __getattr__(name: str) -> Any:
    # NLA is loaded on first use, so that `nlakit --help` does not wait for torch.
    if name == "NLA":
        from nlakit.models.nla import NLA

        return NLA
    raise AttributeError(f"module 'nlakit' has no attribute {name!r}")
