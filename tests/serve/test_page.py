"""What docs/service.md shows runs as it stands, against a toy at another port."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from typing import Any

import pytest

from nlakit.serve.answers import refusal
from nlakit.serve.api.examples import REFUSALS
from tests.documents import ROOT, blocks
from tests.serve.conftest import Client

PAGE = ROOT / "docs" / "service.md"
HERE = "http://127.0.0.1:8000"
BLOCKS = [block for block in blocks(PAGE) if block.language in ("sh", "python")]


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.place)
def test_an_example_runs(block: Any, serving: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = block.text.replace(HERE, serving)
    assert serving in text
    if block.language == "python":
        exec(compile(text, block.place, "exec"), {})
        assert len(capsys.readouterr().out.split()) >= 3
        return
    if shutil.which("curl") is None:
        pytest.skip("there is no curl")
    said = subprocess.run(["sh", "-c", text], capture_output=True, text=True, check=True).stdout
    if "stream" in text:
        assert said.startswith('data: {"layer_index": 1, "total": 1')
        assert said.rstrip().endswith("data: [DONE]")
    else:
        assert json.loads(said).keys() & {"sources", "results"}


def test_the_page_names_every_route_and_status(client: Client) -> None:
    page = PAGE.read_text(encoding="utf-8")
    for path in client.get("/openapi.json").json()["paths"]:
        assert f"{path}`" in page, path
    told = {int(code) for row in re.findall(r"^\| ([\d, ]+) \|", page, re.M)
            for code in row.split(",")}  # fmt: skip
    assert told == REFUSALS.keys()
    assert refusal(404, "x").status_code in told
