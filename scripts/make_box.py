"""Keep a run's pair in the package: the pair in the box.

python scripts/make_box.py runs/gemma3-270m
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

from nlakit.run.folder import RunDir

BOX = Path("src/nlakit/box")
MOST_BYTES = 25_000_000
FILES = {
    "av": ("adapter_model.safetensors", "adapter_config.json", "nla_meta.yaml"),
    "ar": (
        "adapter_model.safetensors",
        "adapter_config.json",
        "nla_meta.yaml",
        "head.safetensors",
    ),
}
NOTICE = """\
Gemma is provided under and subject to the Gemma Terms of Use found at ai.google.dev/gemma/terms

These adapters were trained with nlakit on activations of Gemma 3 270M and are Gemma Model
Derivatives under those terms. They hold no weights of Gemma itself.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    rundir = RunDir(parser.parse_args().run)
    pair, evaluated = rundir.need("pair"), rundir.need("eval")
    shutil.rmtree(BOX, ignore_errors=True)
    for half, names in FILES.items():
        (BOX / half).mkdir(parents=True)
        for name in (*names, "mean_unit.safetensors"):
            shutil.copyfile(pair / half / name, BOX / half / name)
    (BOX / "NOTICE").write_text(NOTICE, encoding="utf-8")
    results = json.loads((evaluated / "results.json").read_text(encoding="utf-8"))
    kept = {name: results[name] for name in ("verdict", "rows", "scores", "gains", "provenance")}
    (BOX / "results.json").write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    weights = sum(path.stat().st_size for path in BOX.rglob("*.safetensors"))
    assert weights <= MOST_BYTES, f"{weights} bytes of weights are too many for the package"


if __name__ == "__main__":
    main()
