"""Settings of a service: one frozen object, parsed once, every fault reported at once.

Where a value comes from, first found wins: explicit keyword > ``EASEL_<SERVICE>_<FIELD>`` in the
environment > section ``<service>:`` of the YAML file named by ``EASEL_CONFIG`` > the default.
This is the only module that reads ``os.environ``.
"""

from __future__ import annotations

import ipaddress
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final, Literal, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, Field, SecretBytes, SecretStr, ValidationError, ValidationInfo
from pydantic import field_validator as validates
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

PREFIX: Final = "EASEL"
FILE_VARIABLE: Final = f"{PREFIX}_CONFIG"
# The file is shared by all services and each reads its own section, so only this list can tell a
# section of another service from a misspelt one.
SECTIONS: Final = frozenset({"classifier", "generator", "ranker", "gateway", "trainer"})
_MAX_SHOWN_CHARS: Final = 120
_STRUCTURED: Final = (list, tuple, set, frozenset, dict)

LogLevel = Literal["DEBUG", "INFO", "WARNING", "ERROR"]


@dataclass(frozen=True, slots=True)
class Fault:
    """One bad setting: its name as it was written, what was given, what is allowed."""

    name: str
    given: str
    allowed: str

    def __str__(self) -> str:
        return f"{self.name}: given {self.given}; {self.allowed}"


class ConfigError(Exception):
    """Settings that cannot be used; ``faults`` has every one of them."""

    def __init__(self, service: str, faults: tuple[Fault, ...]) -> None:
        self.service = service
        self.faults = faults
        lines = "\n".join(f"  {fault}" for fault in faults)
        super().__init__(f"{len(faults)} bad setting(s) for {service}:\n{lines}")


class ServiceSettings(BaseSettings):
    """What every service can be told. Subclasses set ``service`` and add fields of their own."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", validate_default=True, protected_namespaces=()
    )
    service: ClassVar[str] = "service"

    host: str = Field("127.0.0.1", min_length=1, description="address to listen on")
    port: int = Field(0, ge=0, le=65535, description="gRPC port; 0 takes a free one")
    metrics_port: int = Field(
        0, ge=0, le=65535, description="port of /metrics, /healthz, /readyz; 0 takes a free one"
    )
    allow_insecure: bool = Field(
        False, description="listen beyond loopback though callers are not authenticated"
    )
    max_message_bytes: int = Field(
        32 * 2**20, ge=2**10, le=2**30, description="largest message accepted and sent"
    )
    max_concurrent_rpcs: int | None = Field(
        None, ge=1, description="calls served at a time; more get RESOURCE_EXHAUSTED"
    )
    max_connection_age_seconds: float | None = Field(
        None, gt=0, description="age at which connections are renewed, to spread over replicas"
    )
    max_connection_age_grace_seconds: float | None = Field(
        None, ge=0, description="time that its calls get then; unset, as long as they take"
    )
    max_stall_seconds: float = Field(
        300.0, gt=0, description="how long a stream's reader may take nothing before its call ends"
    )
    drain_notice_seconds: float = Field(
        0.0, ge=0, le=600, description="time between NOT_SERVING and refusing new calls"
    )
    drain_timeout_seconds: float = Field(
        30.0, ge=0, le=3600, description="time for what was admitted to finish"
    )
    log_level: LogLevel = Field("INFO", description="least severe level that is logged")
    ready_file: Path | None = Field(
        None, description="file that gets the bound ports as JSON once the service is ready"
    )

    @validates("log_level", mode="before")
    @classmethod
    def _upper(cls, value: object) -> object:
        return value.upper() if isinstance(value, str) else value

    @validates("allow_insecure")
    @classmethod
    def _only_loopback_without_auth(cls, allow_insecure: bool, info: ValidationInfo) -> bool:
        host = info.data.get("host", "")
        if host and not allow_insecure and not is_loopback(host):
            raise ValueError(
                f"host {host} can be reached from outside and callers are not authenticated: "
                "use a loopback address, or set this to true"
            )
        return allow_insecure

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take values from ``load_settings`` alone: the stock sources pass over unknown names."""
        del settings_cls, env_settings, dotenv_settings, file_secret_settings
        return (init_settings,)


class AdministeredSettings(ServiceSettings):
    """Of a service that has calls which need the scope ``admin``."""

    administration: bool | None = Field(
        None,
        description=(
            "serve what changes the models that are served or catalogued; unset, on loopback alone"
        ),
    )

    @property
    def administered(self) -> bool:
        return is_loopback(self.host) if self.administration is None else self.administration

    @classmethod
    def administration_variable(cls) -> str:
        """The environment's name for the setting."""
        return f"{_prefix(cls.service)}ADMINISTRATION"


S = TypeVar("S", bound=ServiceSettings)


def load_settings(
    cls: type[S],
    service: str | None = None,
    /,
    *,
    environ: Mapping[str, str] | None = None,
    **values: object,
) -> S:
    """Build the settings of ``service`` (``cls.service`` by default).

    ``environ`` stands in for ``os.environ``; ``values`` win over every other source. Raises
    ``ConfigError`` with every bad and every unknown setting of all sources.
    """
    name = service or cls.service
    variables = os.environ if environ is None else environ
    faults: list[Fault] = []
    given = {
        **_from_file(variables.get(FILE_VARIABLE, ""), name, faults),
        **_from_environment(cls, variables, name),
        **{key: _Given(key, value) for key, value in values.items()},
    }
    try:
        settings = cls.model_validate({key: item.value for key, item in given.items()})
    except ValidationError as error:
        faults += [_fault(cls, given, detail) for detail in error.errors()]
    if faults:
        raise ConfigError(name, tuple(faults))
    return settings


def environment_names(cls: type[ServiceSettings], service: str | None = None) -> dict[str, str]:
    """Return ``{variable: description}`` of every setting, for help texts and docs."""
    prefix = _prefix(service or cls.service)
    return {
        f"{prefix}{field.upper()}": info.description or ""
        for field, info in cls.model_fields.items()
    }


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True, slots=True)
class _Given:
    name: str
    value: Any


def _prefix(service: str) -> str:
    return f"{PREFIX}_{service.upper().replace('-', '_')}_"


def _from_environment(
    cls: type[ServiceSettings], variables: Mapping[str, str], service: str
) -> dict[str, _Given]:
    prefix = _prefix(service)
    found = {}
    for variable, text in sorted(variables.items()):
        if variable.startswith(prefix):
            key = variable.removeprefix(prefix).lower()
            found[key] = _Given(variable, _decoded(cls.model_fields.get(key), text))
    return found


def _decoded(field: FieldInfo | None, text: str) -> object:
    """Read JSON, or for sequences a comma-separated list, where the field is not a scalar."""
    kinds = [get_origin(kind) or kind for kind in _alternatives(field.annotation if field else str)]
    if not any(isinstance(k, type) and issubclass(k, (*_STRUCTURED, BaseModel)) for k in kinds):
        return text
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return [part.strip() for part in text.split(",") if part.strip()]


def _alternatives(annotation: Any) -> Iterator[Any]:
    if get_origin(annotation) in _STRUCTURED or not get_args(annotation):
        yield annotation
        return
    for part in get_args(annotation):
        yield from _alternatives(part)


def _from_file(path: str, service: str, faults: list[Fault]) -> dict[str, _Given]:
    if not path:
        return {}
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        faults.append(Fault(FILE_VARIABLE, repr(path), f"must name a readable YAML file ({error})"))
        return {}
    if isinstance(content, dict):
        faults += _unknown_sections(content, path, service)
    section = (content or {}).get(service) if isinstance(content or {}, dict) else content
    if not isinstance(section or {}, dict):
        faults.append(
            Fault(f"{service} in {path}", _shown(section), "must be a mapping of settings")
        )
        return {}
    return {
        str(key): _Given(f"{service}.{key} in {path}", value)
        for key, value in (section or {}).items()
    }


def _unknown_sections(content: Mapping[object, object], path: str, service: str) -> Iterator[Fault]:
    known = SECTIONS | {service}
    for key in content:
        if key not in known:
            allowed = f"no such section; there are: {', '.join(sorted(known))}"
            yield Fault(f"section in {path}", _shown(key), allowed)


def _fault(cls: type[ServiceSettings], given: Mapping[str, _Given], detail: ErrorDetails) -> Fault:
    key, *inner = (str(part) for part in detail["loc"])
    item = given.get(key)
    name = ".".join([item.name if item else f"{_prefix(cls.service)}{key.upper()}", *inner])
    field = cls.model_fields.get(key)
    if field is None:
        known = ", ".join(sorted(cls.model_fields))
        return Fault(name, _shown(detail["input"]), f"no such setting; there are: {known}")
    text = "***" if _is_secret(field) else _shown(detail["input"])
    allowed = detail["msg"].removeprefix("Value error, ")
    about = f" ({field.description})" if field.description else ""
    return Fault(name, text, f"{allowed}{about}")


def _is_secret(field: FieldInfo) -> bool:
    kinds = _alternatives(field.annotation)
    return any(isinstance(k, type) and issubclass(k, SecretStr | SecretBytes) for k in kinds)


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _MAX_SHOWN_CHARS else f"{text[:_MAX_SHOWN_CHARS]}…"
