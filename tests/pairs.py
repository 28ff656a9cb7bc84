"""Pairs of toys with random weights, saved as a training leaves them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from nlakit.config.sections import SubjectConfig
from nlakit.models.loading import MEAN_FILE
from nlakit.models.reconstructor import Reconstructor
from nlakit.models.subject import load_subject
from nlakit.models.verbalizer import Verbalizer
from tests.conftest import SMALL_LORA, D, build_contract


def save_pair(model: Path, folder: Path, seed: int = 3, **record: Any) -> Path:
    """`folder/av` and `folder/ar` over the toy at `model`, whose texts depend on the vector;
    `record` goes into the nlakit block of both contracts."""
    settings = {"model": str(model), "dtype": "float32", "device": "cpu", "layer": 1}
    subject = load_subject(SubjectConfig.model_validate(settings))
    mean = np.full(D, 0.1)
    given = {"max_new_tokens": 8, "mean_unit_file": MEAN_FILE, **record}
    av = Verbalizer(subject, build_contract(subject, **given), mean, SMALL_LORA, 0)
    ar = Reconstructor(subject, build_contract(subject, **given | {"role": "ar"}), SMALL_LORA, 0)
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, parameter in [*av.named_parameters(), *ar.named_parameters()]:
            if "lora_" in name:
                parameter.add_(torch.randn_like(parameter))
    for role, half in (("av", av), ("ar", ar)):
        half.save(folder / role)
        save_file({"mean_unit": torch.tensor(mean).float()}, folder / role / MEAN_FILE)
    return folder
