"""Models behind HTTP APIs, through pydantic-ai; one call is one request, and never more."""

from __future__ import annotations

import asyncio
import os
import re
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol

from pydantic import BaseModel

from nlakit.config.labels import ServiceConfig
from nlakit.data.labels.services.answers import schema
from nlakit.data.labels.services.client import TOO_LARGE, bodies, client, mapping
from nlakit.data.labels.services.faults import UNKNOWN, Fault, Tokens
from nlakit.data.labels.services.prompts import Prompt
from nlakit.data.labels.services.waits import asked_to_wait
from nlakit.errors import ConfigError, ServiceError

MOST_TOKENS = 10**9  # a server that says more has not counted
QUOTA_SECONDS = 600.0  # a service that asks to wait longer is out of quota
KEYS = {
    "anthropic": ("ANTHROPIC_API_KEY",),
    "openai": ("OPENAI_API_KEY",),
    "google": ("GEMINI_API_KEY", "GOOGLE_API_KEY"),
}
DAILY = re.compile(r"per.?day|daily|\b[RT]PD\b|PerDay", re.IGNORECASE)


@dataclass(frozen=True)
class Reply:
    """What a service answered. whole: the response around an empty text, for whoever must see
    why."""

    text: str
    model: str | None
    tokens: Tokens
    whole: str = ""


class Service(Protocol):
    """One labeler or auditor. `identity` is what, besides the prompt, decides its answers."""

    name: str
    identity: dict[str, Any]

    async def ask(self, prompt: Prompt, kind: type[BaseModel]) -> Reply:
        """Send one request. Raises Fault where another may do better, ServiceError where none
        can."""
        ...

    async def close(self) -> None: ...


class ModelService:
    """A model of pydantic-ai, asked once a call: its own retries and the SDK's are off, since a
    request that is not counted could exceed a limit.

    model: built from the configuration unless given.
    """

    def __init__(
        self, config: ServiceConfig, timeout: float, connections: int, model: Any = None
    ) -> None:
        self.config, self.timeout, self.name = config, timeout, config.name
        self.identity = config.identity
        self.client: Any = None
        self.secret = ""  # struck out of what errors say
        if model is None:
            check_installed(config)
            self.secret = key_of(config)
            self.client = client(timeout, connections)
            model = build_model(config, self.secret, self.client)
        self.model = model
        self.settings: dict[str, Any] = {
            "max_tokens": config.max_tokens,
            "timeout": timeout,
            "max_retries": 0,
            **({} if config.temperature is None else {"temperature": config.temperature}),
            **config.options,
        }

    async def ask(self, prompt: Prompt, kind: type[BaseModel]) -> Reply:
        from pydantic_ai.direct import model_request
        from pydantic_ai.exceptions import AgentRunError, UserError
        from pydantic_ai.messages import ModelRequest

        request = ModelRequest.user_text_prompt(prompt.message, instructions=prompt.instructions)
        settings: Any = self.settings
        heard: list[bytes] = []
        bodies.set(heard)
        try:
            # The client's own limit is for each read: a server that drips would never end.
            async with asyncio.timeout(self.timeout):
                answer = await model_request(
                    self.model,
                    [request],
                    model_settings=settings,
                    model_request_parameters=self._parameters(kind),
                )
            return self._reply(answer, heard)
        except TimeoutError as error:
            raise Fault("timeout", f"no answer in {self.timeout:.0f} s") from error
        except AgentRunError as error:
            raise self._as_sent(translated(error, self.name, self.secret), heard) from error
        except UserError as error:
            raise ServiceError(
                f"{self.name} does not take these settings",
                found=plain(str(error), self.secret),
                do="change them in the service's entry of the configuration",
            ) from error
        except Exception as error:
            if isinstance(error, Fault) or type(error) is RuntimeError:
                raise  # RuntimeError: requests are blocked, or the client is closed
            # An SDK that meets a body it did not expect fails in its own ways.
            said = plain(f"{type(error).__name__}: {error}", self.secret)
            raise self._as_sent(Fault("protocol", said), heard) from error

    def _as_sent(self, error: Exception, heard: list[bytes]) -> Exception:
        """The error with what was heard. A whole JSON object that holds no answer is a useless
        answer; the service is there, and waiting does not help."""
        if not isinstance(error, Fault) or error.kind != "protocol" or not heard:
            return error
        kind = "invalid" if mapping(heard[-1]) is not None else "protocol"
        return Fault(kind, error.detail, said=self._shown(heard))

    def _shown(self, heard: list[bytes]) -> str:
        return plain(heard[-1].decode(errors="replace"), self.secret) if heard else ""

    def _parameters(self, kind: type[BaseModel]) -> Any:
        from pydantic_ai.models import ModelRequestParameters
        from pydantic_ai.output import OutputObjectDefinition
        from pydantic_ai.tools import ToolDefinition

        form = schema(kind)
        profile: Any = self.model.profile
        if self.config.kind == "compatible" or profile.get("supports_json_schema_output"):
            output = OutputObjectDefinition(json_schema=form, name=kind.__name__)
            return ModelRequestParameters(output_mode="native", output_object=output)
        tool = ToolDefinition(
            name="answer", parameters_json_schema=form, description="Give the answer."
        )
        return ModelRequestParameters(
            output_mode="tool", output_tools=[tool], allow_text_output=False
        )

    def _reply(self, answer: Any, heard: list[bytes]) -> Reply:
        from pydantic_ai.messages import TextPart, ToolCallPart

        usage = answer.usage
        counts = (usage.input_tokens, usage.output_tokens)
        known = any(counts) and all(0 <= count < MOST_TOKENS for count in counts)
        tokens = counts if known else UNKNOWN
        calls = [part.args_as_json_str() for part in answer.parts if isinstance(part, ToolCallPart)]
        texts = [part.content for part in answer.parts if isinstance(part, TextPart)]
        text = calls[0] if calls else "".join(texts)
        if answer.finish_reason == "content_filter" or "refusal" in (answer.provider_details or {}):
            raise Fault("refusal", text[:200], tokens=tokens, said=plain(text))
        if answer.finish_reason == "length":
            cut = f"longer than max_tokens: {text[-80:]!r}"
            raise Fault("cut_off", cut, tokens=tokens, said=plain(text))
        model = (answer.model_name or "").encode(errors="replace").decode()
        return Reply(text, model or None, tokens, "" if text.strip() else self._shown(heard))

    async def close(self) -> None:
        if self.client is not None:
            await self.client.aclose()


def check_installed(config: ServiceConfig) -> None:
    """Raise ConfigError if the packages of the extra `labels` are missing."""
    packages = {"anthropic": "anthropic", "google": "google.genai"}
    for name in ("pydantic_ai", "httpx2", packages.get(config.kind, "openai")):
        try:
            import_module(name)
        except ImportError as error:
            raise ConfigError(
                f"labelling with {config.name} needs packages that are not installed",
                found=error.name or error,
                do='pip install "nlakit[labels]"',
            ) from error


def build_model(config: ServiceConfig, key: str, client: Any) -> Any:
    """The model of a configuration."""
    if config.kind == "anthropic":
        from pydantic_ai.models.anthropic import AnthropicModel
        from pydantic_ai.providers.anthropic import AnthropicProvider

        provider = AnthropicProvider(api_key=key, base_url=config.base_url, http_client=client)
        return AnthropicModel(config.model, provider=provider)
    if config.kind == "google":
        from pydantic_ai.models.google import GoogleModel
        from pydantic_ai.providers.google import GoogleProvider

        google = GoogleProvider(api_key=key, base_url=config.base_url, http_client=client)
        return GoogleModel(config.model, provider=google)
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider
    from pydantic_ai.providers.openai_compatible import OpenAICompatibleProvider

    if config.kind == "openai":
        own = OpenAIProvider(api_key=key, base_url=config.base_url, http_client=client)
        return OpenAIChatModel(config.model, provider=own, profile=limit_field(config))
    assert config.base_url is not None, "checked in the configuration"
    profile: Any = {"supports_json_schema_output": True, **limit_field(config)}
    server = OpenAICompatibleProvider(
        "compatible",
        base_url=config.base_url,
        api_key=key or "none",
        http_client=client,
        # What a vendor's own API cannot do, its model behind vLLM or OpenRouter may.
        profile=profile,
    )
    return OpenAIChatModel(config.model or "default", provider=server)


def limit_field(config: ServiceConfig) -> Any:
    """The name under which the longest answer is asked for: OpenAI has renamed it, and most servers
    that speak its API read the first name alone."""
    usual = "max_completion_tokens" if config.kind == "openai" else "max_tokens"
    renamed = (config.token_limit_field or usual) == "max_completion_tokens"
    return {"openai_chat_supports_max_completion_tokens": renamed}


def key_of(config: ServiceConfig) -> str:
    """The service's key from the environment; empty for a server that asks for none.

    Raises ConfigError if it is not there.
    """
    names = (config.key_variable,) if config.key_variable else KEYS.get(config.kind, ())
    if not names:
        return ""
    keys = [os.environ.get(name, "").strip() for name in names]
    if not any(keys):
        raise ConfigError(
            f"no key for {config.name}",
            found=f"the environment variable {names[0]} is not set",
            do=f"set {names[0]} in the environment; nlakit never writes it down",
        )
    key = next(filter(None, keys))
    if not (key.isascii() and key.isprintable()):
        raise ConfigError(
            f"the key for {config.name} cannot be one",
            found="characters that no key has",
            do=f"set {names[0]} to the key alone",
        )
    return key


def translated(error: Exception, name: str, secret: str = "") -> Exception:
    """pydantic-ai's error as a Fault, if asking again may help, else as a ServiceError."""
    from pydantic_ai import exceptions as e

    told = asked_to_wait(getattr(error, "headers", None))
    wait = getattr(error, "retry_after", None)
    wait = told if wait is None else wait
    text = plain(str(error), secret)
    if isinstance(error, e.ContentFilterError):
        return Fault("refusal", text)
    if isinstance(error, e.ModelRateLimitError | e.ModelQuotaExceededError):
        if DAILY.search(str(error)):
            # About a daily quota the headers tell the truth; Gemini's body says "36s" all day.
            return Fault("quota", text, retry_after=told)
        if (wait or 0) > QUOTA_SECONDS:
            return Fault("quota", text, retry_after=wait)
        if isinstance(error, e.ModelRateLimitError):
            return Fault("rate_limit", text, retry_after=wait)
        return ServiceError(
            f"the account behind {name} has no credit left",
            found=text,
            do="top it up, or set another service; what is labelled is kept",
        )
    if isinstance(error, e.ModelContextWindowExceededError):
        return ServiceError(
            f"a text is longer than {name} takes",
            found=text,
            do="lower labels.max_characters, or use a model with a longer context",
        )
    if isinstance(error, e.ModelAuthenticationError):
        return ServiceError(f"{name} does not accept the key", found=text, do="check the key")
    if isinstance(error, e.ModelNotFoundError):
        return ServiceError(
            f"{name} is not known to the service", found=text, do="check model and base_url"
        )
    if isinstance(error, e.ModelUnavailableError):
        return Fault("overloaded", text, retry_after=wait)
    if isinstance(error, e.ModelServerError):
        return Fault("server", text, retry_after=wait)
    if isinstance(error, e.ModelTimeoutError | e.ModelRequestTimeout):
        return Fault("timeout", text)
    if isinstance(error, e.ModelConnectionError):
        if TOO_LARGE in root(error):
            return Fault("too_large", root(error))
        return Fault(
            "connection", plain(root(error), secret), sent=error.phase not in ("pool", "connect")
        )
    if isinstance(error, e.ModelRequestRejectedError):
        return ServiceError(f"{name} rejects the request", found=text, do="see the answer")
    return Fault("protocol", text)


def root(error: BaseException) -> str:
    """What an error said before others wrapped it."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    return str(error)


def plain(text: str, secret: str = "") -> str:
    """A service's words on one line, short, without the key or what looks like one."""
    if secret:
        text = text.replace(secret, "[key]").replace(repr(secret)[1:-1], "[key]")
    text = re.sub(r"\b(sk|key|AIza|gsk|xai|pk)[-_A-Za-z0-9]{12,}", "[key]", " ".join(text.split()))
    return text[:300]
