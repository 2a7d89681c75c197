"""Which model is asked, and where: OpenAI, or any server that speaks its protocol.

Groq        https://api.groq.com/openai/v1           Ollama      http://127.0.0.1:11434/v1
llama.cpp   http://127.0.0.1:8080/v1                 vLLM        http://127.0.0.1:8000/v1
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import Any
from urllib.parse import urlsplit

from voiceflow.errors import DeclarationError
from voiceflow.vendor import Key, base_url

URL = "https://api.openai.com/v1"
KEYS = "https://platform.openai.com/api-keys"


@dataclass(slots=True, frozen=True)
class Model:
    """A model of another server, or with other options, than the rest of a ChatLLM.

    With a `base_url` of its own it is sent no key but its own `api_key`: one vendor is never shown another's.
    `options` replace those of the ChatLLM, which another server may not know.
    """

    name: str
    _: KW_ONLY
    base_url: str | None = None
    api_key: str | None = field(default=None, repr=False)
    options: Mapping[str, Any] | None = None


@dataclass(slots=True, frozen=True)
class Address:
    """A server and the key it is shown."""

    url: str = field(repr=False)  # it may hold a password
    key: Key

    @property
    def host(self) -> str:
        """With the port, without user and password."""
        return urlsplit(self.url).netloc.rpartition("@")[2]

    @property
    def official(self) -> bool:
        """Whether it is OpenAI's own, which asks everybody for a key."""
        host = urlsplit(self.url).hostname or ""
        return host == "openai.com" or host.endswith(".openai.com")

    @property
    def vendor(self) -> str:
        return "OpenAI" if self.official else self.host


@dataclass(slots=True, frozen=True)
class Target:
    """A model at its address, with the options its requests carry."""

    model: str
    address: Address
    options: Mapping[str, Any]

    @property
    def vendor(self) -> str:
        return f"{self.address.vendor} ({self.model})"


def address_of(url: str | None, api_key: str | None) -> Address:
    """The address of a ChatLLM: parameters, or OPENAI_BASE_URL and OPENAI_API_KEY, or OpenAI's own."""
    found = base_url("OPENAI_BASE_URL", url, URL)
    official = Address(found, Key("", "")).official
    where = KEYS if official else urlsplit(found).hostname or ""
    return Address(found, Key.of("OPENAI_API_KEY", api_key, where))


def targets_of(
    models: list[str | Model], url: str | None, api_key: str | None, options: Mapping[str, Any]
) -> tuple[Target, ...]:
    """The models in the order in which they are asked. Raises DeclarationError for one that is none."""
    own = address_of(url, api_key)
    return tuple(_target(Model(each) if isinstance(each, str) else each, own, options) for each in models)


def _target(model: Model, own: Address, options: Mapping[str, Any]) -> Target:
    if not model.name.strip():
        raise DeclarationError("ChatLLM needs the name of a model, such as gpt-4o-mini")
    chosen = options if model.options is None else model.options
    if model.base_url is not None:
        address = Address(base_url(f"the base_url of {model.name}", model.base_url, URL), Key("", ""))
        if address.official:
            key = Key.of("OPENAI_API_KEY", model.api_key, KEYS)
        else:
            key = Key.of(f"the api_key of {model.name}", model.api_key or "", address.host)
        return Target(model.name, Address(address.url, key), chosen)
    if model.api_key is not None:
        key = Key.of(f"the api_key of {model.name}", model.api_key, own.key.where)
        return Target(model.name, Address(own.url, key), chosen)
    return Target(model.name, own, chosen)
