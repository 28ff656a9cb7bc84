"""Labelers over scripted models; a request to a real service is an error."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic_ai import models
from pydantic_ai.messages import ModelRequest, ModelResponse, TextPart
from pydantic_ai.models.function import AgentInfo, FunctionModel
from pydantic_ai.usage import RequestUsage

from nlakit.config.labels import LabelsConfig, RequestsConfig, ServiceConfig
from nlakit.data.labels.labeler import LabelRequest
from nlakit.data.labels.services.labeler import ServiceLabeler
from nlakit.data.labels.services.service import ModelService

FEATURES = [
    "The captain has begun to speak of the storm",
    "It stops after “that”; a clause follows.",
]
SCORES = {"integrated": 4, "specific": 4, "checkable": 5, "ending": 3}
# What a scripted model answers: from its name, the form asked for and the message, to the content
# of its answer, or an exception to raise.
Script = Callable[[str, str, str], Any]


@pytest.fixture(autouse=True)
def no_real_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "ALLOW_MODEL_REQUESTS", False)


def verdict(word: str = "KEEP", features: list[str] | None = None) -> dict[str, Any]:
    return {
        "reasons": "N: KEEP, says the auditor",
        "scores": SCORES,
        "verdict": word,
        "features": features or [],
    }


def rows(count: int, text: str = "The captain of ship number {} said that") -> list[LabelRequest]:
    return [LabelRequest(f"r{i}", text.format(i), "that") for i in range(count)]


class Scripted:
    """Builds labelers whose models follow a script, and remembers what was asked."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked: list[tuple[str, str, str]] = []
        self.script: Script = lambda name, form, message: (
            {"features": FEATURES} if form == "LabelAnswer" else verdict()
        )
        self.made: list[ServiceLabeler] = []

    def build(self, config: ServiceConfig, settings: RequestsConfig) -> ModelService:
        async def answer(messages: list[Any], info: AgentInfo) -> ModelResponse:
            form = info.model_request_parameters.output_object
            request = messages[-1]
            assert form is not None
            assert isinstance(request, ModelRequest)
            message = str(request.parts[-1].content)  # type: ignore[union-attr]
            name = str(form.name)
            self.asked.append((config.model, name, message))
            found = self.script(config.model, name, message)
            if isinstance(found, Exception):
                raise found
            text = found if isinstance(found, str) else json.dumps(found)
            usage = RequestUsage(input_tokens=100, output_tokens=20)
            return ModelResponse(parts=[TextPart(text)], usage=usage, finish_reason="stop")

        return ModelService(config, settings.timeout, 4, model=FunctionModel(answer))

    def labeler(
        self,
        models: tuple[str, ...] = ("chen",),
        auditor: str | None = "otsuka",
        labels: dict[str, Any] | None = None,
        run: str = "run",
        **requests: Any,
    ) -> ServiceLabeler:
        def service(name: str) -> dict[str, Any]:
            return {"kind": "compatible", "model": name, "base_url": "http://127.0.0.1:9/v1"}

        settings = LabelsConfig.model_validate(
            {
                "labeler": "services",
                "services": [service(name) for name in models],
                "auditor": service(auditor) if auditor else None,
                **(labels or {}),
            }
        )
        made = ServiceLabeler(
            settings,
            RequestsConfig.model_validate({"attempts": 3, "patience": 1} | requests),
            self.folder / "answers.sqlite",
            run,
            100,
            self.build,
        )
        self.made.append(made)
        return made

    def once(self, requests: list[LabelRequest], **settings: Any) -> list[Any]:
        """Labels of a labeler that is closed afterwards."""
        labeler = self.labeler(**settings)
        try:
            return labeler.label(requests)
        finally:
            self.made.remove(labeler)
            labeler.close()


@pytest.fixture
def scripted(tmp_path: Path) -> Iterator[Scripted]:
    made = Scripted(tmp_path)
    yield made
    for labeler in made.made:
        labeler.close()


@pytest.fixture
def price_table(tmp_path: Path) -> str:
    file = tmp_path / "prices.yaml"
    file.write_text(
        "date: 2026-02-01\nmodels:\n"
        "  'compatible:chen': {input: 10.0, output: 50.0}\n"
        "  'compatible:otsuka': {input: 10.0, output: 50.0}\n"
    )
    return str(file)
