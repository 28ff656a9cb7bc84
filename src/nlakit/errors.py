"""What a user can get wrong, as typed errors.

Each message says what is wrong, what was found, and what to do. The command line prints it
without a traceback and ends with an `ExitCode`. `assert` is for nlakit's own invariants only.
"""

from __future__ import annotations

from enum import IntEnum
from typing import cast


class ExitCode(IntEnum):
    """How every command ends."""

    DONE = 0
    PROBLEM = 1  # `doctor` found one
    MISTAKE = 2  # what was asked for cannot be done; the one line on standard error says why
    GATE = 3  # `eval --gate`, `audit --gate` or `verify` found less than was asked for
    LIMIT = 4  # a limit that the user set is reached; the same command goes on
    STOPPED = 130  # Ctrl-C; finished work is kept


class NlakitError(Exception):
    """Base of every error that a user can cause and mend."""

    def __init__(self, what: str, *, found: object = None, do: str = "") -> None:
        self.what, self.found, self.do = what, found, do
        parts = [what]
        if found is not None:
            parts.append(f"found: {found}")
        if do:
            parts.append(f"do: {do}")
        # What was found may hold line breaks of any kind, and a message is one line.
        super().__init__(" ".join("; ".join(parts).splitlines()))


class ConfigError(NlakitError):
    """A setting is unknown, misspelt, out of range or contradicts another."""


class DataError(NlakitError):
    """A corpus, table or vector file cannot be used as it is."""


class ModelError(NlakitError):
    """A model, tokenizer or checkpoint cannot be used as it is."""


class ContractError(ModelError):
    """A checkpoint or table disagrees with its nla_meta.yaml or with the live tokenizer."""


class RunError(NlakitError):
    """The run folder is stale, locked, incomplete or of another version."""


class ServiceError(NlakitError):
    """A language-model service or a hub cannot be used: key, name, address, account."""


class LimitReached(NlakitError):
    """Work stopped at a limit that the user set; what is done is kept."""


def first_line(error: Exception) -> str:
    """What an error says, in a line; its kind if it says nothing."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def network_error() -> type[Exception]:
    """The base of the hub client's network errors, which come from a library below it that has
    changed twice."""
    from huggingface_hub.errors import HfHubHTTPError

    return cast("type[Exception]", HfHubHTTPError.__bases__[0])
