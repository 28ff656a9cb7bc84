"""The tokenizer of a foreign half, and the form of its prompt: whether an AV's is the user's turn
of a chat, and whether an AR's begins with a BOS.

A wrong form of the prompt gives fluent texts about nothing, as a wrong injection does, so none is
guessed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nlakit.core.contract import FILE, Contract
from nlakit.core.prompts import encode
from nlakit.errors import ConfigError, ContractError, first_line

# What a user can state: options of the chat template, or None for a prompt that is plain text.
Options = Mapping[str, Any]
CHATS: dict[str, Options | None] = {
    "plain": None, "turn": {}, "no-thinking": {"enable_thinking": False},
}  # fmt: skip
MEANINGS = (
    "plain: the prompt is plain text; turn: it is the user's turn of the chat template; "
    "no-thinking: the same with enable_thinking=False (EasyNLA)"
)
BOS = {"yes": True, "no": False}
# Foreign keys that say whether the prompt is a turn.
KEY = re.compile(r"(?:use_|apply_)?chat(?:_template|_turn|_prompt)?", re.IGNORECASE)


@dataclass(frozen=True)
class Stated:
    """What a user says of foreign halves, which counts where their files leave it open: a word of
    `STATED` in `injection`, of `CHATS`, of `BOS`, and how deep the AR is."""

    injection: str | None = None
    chat: str | None = None
    ar_bos: str | None = None
    ar_blocks: int | None = None


def settle_prompt(
    contract: Contract, folder: Path, role: str, tokenizer: Any, stated: Stated, *, reference: bool
) -> Options | None:
    """What `settle_bos` does for an AR, and `chat_options` says for an AV; errors as there."""
    if role == "av":
        return chat_options(contract, folder, tokenizer, stated.chat, reference)
    settle_bos(contract, folder, tokenizer, stated.ar_bos)
    return None


def chat_options(
    contract: Contract, folder: Path, tokenizer: Any, stated: str | None, reference: bool
) -> Options | None:
    """Options of the chat template in which a foreign AV's prompt is the user's turn; None where
    the prompt is plain text. stated: a word of `CHATS`, by the user, which counts where the files
    leave it open. reference: whether the folder is one of the reference's, whose prompts are turns.

    Raises ContractError if the files leave it open, or there is no such template.
    """
    has = bool(getattr(tokenizer, "chat_template", None))
    if "nlakit" in contract.model_fields_set:  # ours wrote the whole prompt
        return {} if reference and has else None
    known = next(_recorded(contract), stated)
    if known is not None:
        if CHATS[known] is not None and not has:
            raise ContractError(
                f"the prompt of the AV in {folder} is a turn of a chat, and no tokenizer has a "
                "chat template",
                do="copy chat_template.jinja into the folder, beside its tokenizer",
            )
        return CHATS[known]
    if not has:
        return None
    if contract.kind == "nla_dataset":  # the prompts of a table are turns
        if len({_filled(tokenizer, options) for options in ({}, CHATS["no-thinking"])}) == 1:
            return {}
        left_open = "the chat template knows enable_thinking, and nothing says which was used"
    elif reference:
        return {}
    else:
        left_open = f"there is a chat template, and {FILE} does not say whether it was used"
    raise ContractError(
        f"the files in {folder} leave open what this AV's prompt is",
        found=left_open,
        do=f"give --chat as its author trained it ({MEANINGS}), or use the AR alone",
    )


def check_stated(chat: str | None, ar_bos: str | None) -> None:
    """Raise ConfigError for a word that `CHATS` or `BOS` does not have."""
    if chat is not None and chat not in CHATS:
        raise ConfigError("unknown --chat", found=chat, do=MEANINGS)
    if ar_bos is not None and ar_bos not in BOS:
        raise ConfigError("unknown --ar-bos", found=ar_bos, do="yes or no")


def settle_bos(contract: Contract, folder: Path, tokenizer: Any, stated: str | None) -> None:
    """Record in a foreign AR's contract whether its prompt begins with what the tokenizer puts in
    front. stated: a word of `BOS`, by the user, which counts where the files leave it open: those
    who leave the sidecar of a data set beside an AR have trained it without and read it with.

    Raises ContractError if the files leave it open.
    """
    if "nlakit" in contract.model_fields_set or contract.kind != "nla_dataset":
        return
    bare, full = (encode(tokenizer, "x", special=special) for special in (False, True))
    if bare == full:
        return
    if stated is None:
        raise ContractError(
            f"the files in {folder} leave open whether this AR's prompt begins with a BOS",
            found=f"{FILE} is a data set's, and the tokenizer puts {full[: -len(bare)]} in front",
            do="give --ar-bos yes or no, as its author trained it (EasyNLA: no)",
        )
    contract.nlakit.ar_bos = BOS[stated]


def _recorded(contract: Contract) -> Iterator[str]:
    for part in (contract, contract.extraction, contract.tokens):
        for name, value in (part.model_extra or {}).items():
            if not KEY.fullmatch(name):
                continue
            if isinstance(value, bool):
                yield "turn" if value else "plain"
            elif value in CHATS:
                yield str(value)


def _filled(tokenizer: Any, options: Options | None) -> str:
    return fill_turn(tokenizer, "x", options or {})


def fill_turn(tokenizer: Any, content: str, options: Options) -> str:
    """The text of a user's turn with the beginning of the answer; ContractError if the template
    cannot be filled in."""
    turns = [{"role": "user", "content": content}]
    try:
        return tokenizer.apply_chat_template(
            turns, tokenize=False, add_generation_prompt=True, **options
        )
    except Exception as error:  # whatever the file's own template does
        raise ContractError(
            "the chat template of the foreign AV cannot be filled in",
            found=first_line(error),
            do="mend chat_template.jinja in the folder, or use the AR alone",
        ) from error


def own_tokenizer(folder: Path, ours: Any) -> Any:
    """The tokenizer in a folder, or the subject's if there is none.

    Raises ContractError unless every token of the subject's has the same id in it.
    """
    from transformers import AutoTokenizer

    if not (folder / "tokenizer_config.json").exists():
        return ours
    try:
        theirs: Any = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # The tokenizers library raises nothing more exact.
        raise ContractError(
            f"cannot use the tokenizer in {folder}",
            found=first_line(error),
            do="copy the tokenizer's files again, or remove them: the subject's is then used",
        ) from error
    known = theirs.get_vocab()
    other = [token for token, at in ours.get_vocab().items() if known.get(token) != at]
    if other:
        raise ContractError(
            f"the tokenizer in {folder} is not the subject's",
            found=f"{len(other)} tokens differ, first {other[0]!r}",
            do="name the model it was made from with --base-model",
        )
    return theirs


def check_ids(contract: Contract, role: str, theirs: Any, ours: Any, folder: Path) -> None:
    """The half is fed by the subject's tokenizer: one vocabulary can be cut up in two ways."""
    sample = "One text, 2 lines.\nOr more?"
    prompt = contract.av_prompt() if role == "av" else contract.ar_prompt(sample)
    wanted, live = (encode(one, prompt, special=True, parse=True) for one in (theirs, ours))
    if wanted != live:
        raise ContractError(
            f"the subject's tokenizer makes other ids of a prompt than the one in {folder}",
            found=f"{len(live)} ids instead of {len(wanted)}, from {live[:4]} and {wanted[:4]}",
            do="name the model it was made from with --base-model",
        )
