"""Toy pairs in the layout of EasyNLA, and a reader of adapter folders: plain transformers and PEFT,
nothing of ours.

The AV's prompt is the user's turn of a chat template, or plain text. Its vector is added behind
block 1 at the norm of what is there, or takes the place of the marker's embedding at norm √d.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

ACTOR = "You see a vector: <concept>{injection_char}</concept>. What does the text say?"
CRITIC = "Summary of the following text: <text>{explanation}</text> <summary>"


def shaken(module: torch.nn.Module, but: str = "-") -> None:
    """Adapters as training leaves them: B is away from zero, except where a name holds `but`."""
    torch.manual_seed(7)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if parameter.requires_grad and but not in name:
                parameter.add_(0.1 * torch.randn_like(parameter))


def sidecar(base: Path, layer: int, **more: Any) -> dict[str, Any]:
    """What EasyNLA copies beside its weights: the sidecar of the training table."""
    tokenizer: Any = AutoTokenizer.from_pretrained(base)
    marker, left, right = (tokenizer.encode(c, add_special_tokens=False)[0] for c in "㊗><")
    tail = tokenizer.encode("</text> <summary>", add_special_tokens=False)
    width = AutoModelForCausalLM.from_pretrained(base).config.get_text_config().hidden_size
    return {
        "kind": "nla_dataset",
        "stage": "av_sft",
        "row_count": 250,
        "extraction": {
            "base_model": str(base), "d_model": width, "layer_index": layer, "norm": "none",
        },
        "tokens": {
            "injection_char": "㊗",
            "injection_token_id": marker,
            "injection_left_neighbor_id": left,
            "injection_right_neighbor_id": right,
            "critic_suffix_ids": tail,
        },
        "prompt_templates": {"actor": ACTOR, "critic": CRITIC},
        **more,
    }  # fmt: skip


def write_av(
    base: Path, folder: Path, modules: Any, layer: int = 1, idle: str = "-", **lora: Any
) -> None:
    """An AV as EasyNLA stores it: rank-stabilised adapters, the tokenizer, the table's sidecar."""
    _adapted(base, modules, idle, **lora).save_pretrained(str(folder))
    _beside(base, folder, layer)


def write_merged_av(base: Path, folder: Path, modules: Any, layer: int = 1, **lora: Any) -> None:
    """The same AV with its adapters merged: a plain model."""
    _adapted(base, modules, "-", **lora).merge_and_unload().save_pretrained(str(folder))
    _beside(base, folder, layer)


def _adapted(base: Path, modules: Any, idle: str, **lora: Any) -> Any:
    chosen = {"r": 8, "lora_alpha": 16, "use_rslora": True, "task_type": "CAUSAL_LM"} | lora
    model: Any = AutoModelForCausalLM.from_pretrained(base)
    model = get_peft_model(model, LoraConfig(target_modules=modules, **chosen))
    shaken(model, idle)
    return model


def _beside(base: Path, folder: Path, layer: int) -> None:
    AutoTokenizer.from_pretrained(base).save_pretrained(folder)
    text = yaml.safe_dump(sidecar(base, layer), allow_unicode=True)
    (folder / "nla_meta.yaml").write_text(text, encoding="utf-8")


class PeftAV:
    def __init__(self, folder: Path, base: Path, chat: dict[str, Any] | None = None) -> None:
        """chat: keyword arguments of the chat template in which the prompt is a turn; None where
        it is plain text."""
        self.meta = yaml.safe_load((folder / "nla_meta.yaml").read_text(encoding="utf-8"))
        self.tokenizer: Any = AutoTokenizer.from_pretrained(
            folder if (folder / "tokenizer_config.json").exists() else base
        )
        adapted = (folder / "adapter_config.json").exists()
        model: Any = AutoModelForCausalLM.from_pretrained(base if adapted else folder)
        self.model = (PeftModel.from_pretrained(model, folder) if adapted else model).eval()
        templates, tokens = self.meta["prompt_templates"], self.meta["tokens"]
        content = templates.get("actor") or templates["av"]
        content = content.format(injection_char=tokens["injection_char"])
        if chat is None:
            self.ids = self.tokenizer(content)["input_ids"]
        else:
            turn = [{"role": "user", "content": content}]
            text = self.tokenizer.apply_chat_template(
                turn, tokenize=False, add_generation_prompt=True, **chat
            )
            self.ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        self.place = self.ids.index(tokens["injection_token_id"])

    def logits(self, vector: np.ndarray, text: str, way: str) -> torch.Tensor:
        """Logits `(t, v)` from the last token of the prompt on. way: `add` or `embedding`."""
        ids = self.ids + self.tokenizer(text, add_special_tokens=False)["input_ids"]
        raw = torch.from_numpy(np.asarray(vector, dtype=np.float32))
        module = self.model.get_input_embeddings()
        if way == "add":
            module = next(m for n, m in self.model.named_modules() if n.endswith("layers.1"))

        def hook(module: Any, args: Any, output: Any) -> Any:
            hidden = (output[0] if isinstance(output, tuple) else output).clone()
            here = hidden[0, self.place]
            added = here + here.norm() * raw / raw.norm()
            hidden[0, self.place] = (
                added if way == "add" else raw / raw.norm() * math.sqrt(len(raw))
            )
            return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

        handle = module.register_forward_hook(hook)
        try:
            with torch.no_grad():
                found = self.model(input_ids=torch.tensor([ids])).logits[0]
        finally:
            handle.remove()
        return found[len(self.ids) - 1 :]
