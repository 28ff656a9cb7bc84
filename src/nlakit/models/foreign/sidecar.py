"""Foreign sidecars to contracts of ours, and back.

The reference's AV reads its prompt as the user's turn of the tokenizer's chat template and writes
`<explanation>` itself. A contract of ours holds the whole prompt, encoded as plain text with
special tokens; so the chat template is filled in once, when a foreign half is read.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import yaml

from nlakit.core.contract import FILE, UNKNOWN_INJECTION, Contract
from nlakit.core.prompts import encode, suffix_ids
from nlakit.errors import ContractError
from nlakit.models.foreign.turn import Options, fill_turn

OPEN, CLOSE = "<explanation>", "</explanation>"
PLAIN_NORMS = ("none", "raw", "")
NEW_TOKENS = 200  # what the reference allows an explanation
MAX_TOKENS = 512  # of a prompt with its text; the reference does not cut, and its texts are shorter


def unescaped(template: str) -> str:
    """A template of `str.format` as one of plain replacement."""
    return template.replace("{{", "{").replace("}}", "}")


def escaped(template: str, field: str, foreign: str) -> str:
    """A template of plain replacement as one of `str.format`, with `{field}` named `{foreign}`."""
    if not template:  # a half that stores its own template alone
        return ""
    before, _, after = template.partition(f"{{{field}}}")
    doubled = [text.replace("{", "{{").replace("}", "}}") for text in (before, after)]
    return f"{{{foreign}}}".join(doubled)


def whole_prompt(content: str, marker: str, tokenizer: Any, turn: Options | None) -> str:
    """The AV's template with `{marker}`, which encodes to the ids that its own reader makes. turn:
    options of the chat template in which it is the user's turn; None for plain text.

    Raises ContractError if the marker does not stand in it once, or no plain text has those ids.
    """
    if content.count(marker) != 1:
        raise ContractError(
            "the foreign AV template must hold the marker once",
            found=f"{content.count(marker)} times {marker!r}",
            do="write {injection_char} once into prompt_templates of nla_meta.yaml",
        )
    if turn is None:
        return content.replace(marker, "{marker}")
    text = fill_turn(tokenizer, content, turn)
    wanted = encode(tokenizer, text, special=False, parse=True)
    # Where the tokenizer adds the first special token itself, the text must not hold it too.
    for first in ("", tokenizer.bos_token or ""):
        plain = text.removeprefix(first)
        ids = encode(tokenizer, plain, special=True, parse=True)
        if ids == wanted and plain.count(marker) == 1:
            return plain.replace(marker, "{marker}")
    raise ContractError(
        "the chat template of the foreign AV cannot be written as a plain prompt",
        found=f"{len(wanted)} ids that no plain text encodes to",
        do="report the model's name to nlakit",
    )


def completed(
    contract: Contract, folder: Path, role: str, tokenizer: Any, blocks: int, turn: Options | None
) -> Contract:
    """A foreign sidecar as a contract of ours. blocks: depth of the AR as its weights say. turn: as
    in `whole_prompt`.

    Raises ContractError if it leaves out what its half needs, or disagrees with the weights.
    """
    made = contract.model_copy(deep=True)
    record, tokens, templates = made.nlakit, made.tokens, made.prompt_templates
    ours = "nlakit" in contract.model_fields_set
    made.kind, record.role = "nla_model", "av" if role == "av" else "ar"
    if not ours and made.extraction.norm not in PLAIN_NORMS:
        raise ContractError(
            f"{folder / FILE} is of vectors that were changed after they were read",
            found=f"extraction.norm: {made.extraction.norm}",
            do="only raw activations (norm: none) are read",
        )
    needed = templates.av if role == "av" else templates.ar
    if not needed:
        raise ContractError(
            f"{folder / FILE} holds no template for the {role.upper()}",
            do=f"write prompt_templates.{role} into it, as its author trained it",
        )
    if not tokens.injection_char and tokens.injection_token_id >= 0:
        tokens.injection_char = tokenizer.decode([tokens.injection_token_id])
    marker = tokens.injection_char
    if templates.av and marker:
        content = unescaped(templates.av.replace("{injection_char}", marker))
        templates.av = whole_prompt(content.replace("<INJECT>", marker), marker, tokenizer, turn)
    elif role == "av":
        raise ContractError(f"{folder / FILE} names no marker", do="add tokens.injection_char")
    else:  # An AR never reads this template, and without a marker no AV can either.
        templates.av = ""
    templates.ar = unescaped(templates.ar)
    if templates.ar and not tokens.critic_suffix_ids:
        tokens.critic_suffix_ids = suffix_ids(tokenizer, templates.ar)
    if not ours:
        record.av_open = "" if templates.av.rstrip().endswith(OPEN) else f"{OPEN}\n"
        record.av_close, record.max_new_tokens = CLOSE, NEW_TOKENS
        record.max_tokens = MAX_TOKENS
    if record.centred_scale is not None:
        made.extraction.injection_scale, record.centred_scale = record.centred_scale, None
    if role == "ar":
        _set_depth(made, folder, blocks)
    made.check_tokenizer(tokenizer)
    return made


def _set_depth(contract: Contract, folder: Path, blocks: int) -> None:
    named = contract.ar.get("num_hidden_layers")
    for what, says in (
        ("ar.num_hidden_layers (K)", named + 1 if isinstance(named, int) else None),
        ("nlakit.ar_blocks", contract.nlakit.ar_blocks),
    ):
        # A shallower AR keeps K in the first of these; the second then says how deep it is.
        if says not in (None, blocks) and contract.nlakit.ar_blocks != blocks:
            raise ContractError(
                f"the AR in {folder} is not as deep as its sidecar says",
                found=f"{blocks} blocks of weights, {what} stands for {says}",
                do="copy the files again, or correct nla_meta.yaml",
            )
    contract.nlakit.ar_blocks = blocks


def chat_template(tokenizer: Any, template: str) -> str:
    """A chat template that makes of the AV's content exactly the ids we feed.

    Raises ContractError if the tokenizer puts special tokens behind a text.
    """
    plain, full = (encode(tokenizer, template, special=s, parse=True) for s in (False, True))
    first = full[: len(full) - len(plain)]
    if full[len(first) :] != plain:
        raise ContractError(
            "the tokenizer ends a text with special tokens, which the reference does not write",
            found=full[-1:],
            do="export it with --format peft",
        )
    return f"{{{{ {json.dumps(tokenizer.decode(first))} }}}}{{{{ messages[0]['content'] }}}}"


def foreign_sidecar(contract: Contract, role: str) -> dict[str, Any]:
    """The sidecar in the reference's words, with our block kept for what it has no word for.

    The scale of a centred AV goes into our block alone: the reference stops at a missing scale,
    where it would otherwise feed vectors that the AV has never seen.
    """
    made = contract.model_copy(deep=True)
    record = made.nlakit
    scale = made.scaling.scale
    if role == "av" and made.nlakit.centring != "none":
        record.centred_scale, scale = scale, None
        made.extraction.norm = "unit vector less mean_unit (nlakit.mean_unit_file)"
    made.extraction.injection_scale = scale if made.injection.plain else None
    made.extraction.mse_scale = math.sqrt(made.d_model)
    templates = made.prompt_templates
    data = made.model_dump(mode="json")
    if record.injection_source == UNKNOWN_INJECTION:
        del data["extraction"]["injection_scale"]
    data["prompt_templates"] = {
        "av": escaped(templates.av, "marker", "injection_char"),
        "ar": escaped(templates.ar, "explanation", "explanation"),
    }
    if not made.injection.plain:  # for readers that do not know our block
        data["extraction"] |= {"injection_mode": "norm_matched_add", "injection_layer": 1}
    data["ar"] = {"num_hidden_layers": made.ar_blocks - 1 if role == "ar" else made.layer}
    return {**data, "kind": "nla_model", "role": role}


def write_sidecar(contract: Contract, role: str, folder: Path) -> None:
    text = yaml.safe_dump(foreign_sidecar(contract, role), sort_keys=False, allow_unicode=True)
    (folder / FILE).write_text(text, encoding="utf-8", newline="\n")
