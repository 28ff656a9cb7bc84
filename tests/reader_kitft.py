"""A reader of the reference's folders: plain transformers, safetensors and YAML, nothing of ours.

It follows the documented recipe. AV: the template's `{injection_char}` is filled in, the text is
the user's turn of the tokenizer's chat template, the marker's embedding (behind any scaling in
the embedding layer) is replaced by the activation at norm `injection_scale`. AR: BOS on, no final
norm, `value_head` on the last token's hidden state.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer


def load(folder: Path) -> tuple[Any, Any, dict[str, Any]]:
    meta = yaml.safe_load((folder / "nla_meta.yaml").read_text(encoding="utf-8"))
    loaded: Any = AutoModelForCausalLM.from_pretrained(
        folder, dtype="auto", output_loading_info=True
    )
    model, info = loaded
    assert not info["missing_keys"] and not info["unexpected_keys"], info
    return model.eval(), AutoTokenizer.from_pretrained(folder), meta


class ReferenceAV:
    def __init__(self, folder: Path) -> None:
        self.model, self.tokenizer, self.meta = load(folder)
        tokens, templates = self.meta["tokens"], self.meta["prompt_templates"]
        content = (templates.get("av") or templates["actor"]).format(
            injection_char=tokens["injection_char"]
        )
        text = self.tokenizer.apply_chat_template(
            [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
        )
        self.ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        assert self.ids.count(tokens["injection_token_id"]) == 1
        self.place = self.ids.index(tokens["injection_token_id"])
        assert self.ids[self.place - 1] == tokens["injection_left_neighbor_id"]
        assert self.ids[self.place + 1] == tokens["injection_right_neighbor_id"]
        scale = self.meta["extraction"].get("injection_scale", "sqrt_d_model")
        assert scale is not None, "the sidecar has no injection scale"
        self.scale = math.sqrt(self.meta["d_model"]) if scale == "sqrt_d_model" else float(scale)

    def explain(self, vector: np.ndarray, new_tokens: int, close: str = "</explanation>") -> str:
        raw = torch.from_numpy(np.asarray(vector, dtype=np.float32))
        injected = raw / raw.norm() * self.scale

        def hook(module: Any, args: Any, output: torch.Tensor) -> torch.Tensor | None:
            if output.shape[1] <= self.place:
                return None
            changed = output.clone()
            changed[0, self.place] = injected.to(output.dtype)
            return changed

        handle = self.model.get_input_embeddings().register_forward_hook(hook)
        try:
            made = self.model.generate(
                torch.tensor([self.ids]), do_sample=False, max_new_tokens=new_tokens
            )
        finally:
            handle.remove()
        text = self.tokenizer.decode(made[0, len(self.ids) :], skip_special_tokens=True)
        return text.split(close)[0].strip()


class ReferenceAR:
    def __init__(self, folder: Path, bos: bool = True, of_a_data_set: bool = False) -> None:
        """The last two for what EasyNLA leaves: no BOS, and a sidecar that knows no role."""
        self.model, self.tokenizer, self.meta = load(folder)
        self.bos = bos
        assert of_a_data_set or self.meta["role"] in ("ar", "critic")
        if not of_a_data_set:
            layers = (self.meta.get("ar") or self.meta["critic"])["num_hidden_layers"]
            assert self.model.config.num_hidden_layers == layers + 1
        body = getattr(self.model, self.model.base_model_prefix)
        names = ("norm", "final_layernorm", "final_layer_norm", "ln_f")
        norm = next(name for name in names if hasattr(body, name))
        setattr(body, norm, torch.nn.Identity())
        self.body = body
        head = load_file(folder / "value_head.safetensors")
        assert set(head) == {"weight"}
        self.head = head["weight"].to(self.model.dtype)

    def reconstruct(self, explanation: str) -> np.ndarray:
        templates = self.meta["prompt_templates"]
        prompt = (templates.get("ar") or templates["critic"]).format(explanation=explanation)
        ids = self.tokenizer(prompt, return_tensors="pt", add_special_tokens=self.bos)["input_ids"]
        with torch.no_grad():
            last = self.body(ids, use_cache=False).last_hidden_state[0, -1]
        return (self.head @ last).float().numpy()
