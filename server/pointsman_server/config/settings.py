"""The settings of a process, from its environment."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from enum import Enum

from pointsman_server.config.problems import nearest, shown

PREFIX = "POINTSMAN_"
API_KEY_VARIABLE = "POINTSMAN_API_KEY"
"""Read by the commands that ask a server; servers take no notice of it."""

_MAX_WORKERS = 256
_HOST_NAME = re.compile(r"(?=.{1,253}$)[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?(\.[A-Za-z0-9-]{1,63})*")
_ADDRESS = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+):(?P<port>[0-9]{1,5})")
_NUMBER = re.compile(r"[0-9]{1,6}(\.[0-9]{1,6})?")


class LogLevel(Enum):
    """How much is logged; the values are the standard library's names."""

    DEBUG = "DEBUG"
    INFO = "INFO"
    WARNING = "WARNING"
    ERROR = "ERROR"


class Authentication(Enum):
    """Whether calls need a caller: a key or a client certificate."""

    REQUIRED = "required"
    INSECURE = "insecure"
    """Everybody may do everything; on loopback addresses only."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server listens. Port 0 lets the system choose one."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"


@dataclass(frozen=True, slots=True)
class SettingProblem:
    """One environment variable that cannot be used. The message continues a sentence that begins with its name."""

    variable: str
    message: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.variable} {self.message}. {self.remedy}"


class SettingsError(Exception):
    """An environment that cannot be used, with everything that is wrong with it."""

    def __init__(self, problems: tuple[SettingProblem, ...]) -> None:
        self.problems = problems
        super().__init__("\n".join(str(problem) for problem in problems))


@dataclass(frozen=True, slots=True)
class Settings:
    """What a process is told by its environment; each field is `POINTSMAN_` and its name in capitals.

    The URLs of stores may carry passwords and are therefore never part of the representation. Without an
    `admin_address` AdminService is served at `grpc_address`. `authentication` None goes by circumstances; see
    `config.exposure.needs_callers`.
    """

    grpc_address: Address = Address("127.0.0.1", 50051)
    http_address: Address = Address("127.0.0.1", 8080)
    admin_address: Address | None = None
    tls_cert_file: str = ""
    tls_key_file: str = ""
    tls_client_ca_file: str = ""
    authentication: Authentication | None = None
    policy_file: str = "pointsman.yaml"
    database_url: str = field(default="sqlite:///var/pointsman.db", repr=False)
    redis_url: str = field(default="", repr=False)
    state_dir: str = "var"
    workers: int = 1
    log_level: LogLevel = LogLevel.INFO
    reflection: bool = True
    max_concurrent_calls: int = 256
    drain_notice_seconds: float = 0.0
    drain_grace_seconds: float = 30.0
    unary_timeout_seconds: float = 60.0
    stream_timeout_seconds: float = 300.0
    reader_idle_seconds: float = 30.0

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Settings:
        """Reads all variables; raises `SettingsError` with everything that is wrong, unknown variables included."""
        variables = {PREFIX + setting.name.upper(): setting.name for setting in fields(cls)}
        values: dict[str, object] = {}
        problems: list[SettingProblem] = []
        for variable in sorted(name for name in environ if name.startswith(PREFIX) and name != API_KEY_VARIABLE):
            try:
                setting = _known(variable, variables)
                values[setting] = _READERS[setting](environ[variable])
            except _UnusableError as error:
                problems.append(SettingProblem(variable, error.message, error.remedy))
        if problems:
            raise SettingsError(tuple(problems))
        return cls(**values)  # type: ignore[arg-type]

    @property
    def has_tls(self) -> bool:
        """Whether calls are encrypted."""
        return bool(self.tls_cert_file)

    @property
    def grpc_addresses(self) -> Mapping[str, Address]:
        """Where calls come in, by the variable that says so."""
        addresses = {"POINTSMAN_GRPC_ADDRESS": self.grpc_address}
        return addresses if self.admin_address is None else {**addresses, "POINTSMAN_ADMIN_ADDRESS": self.admin_address}


class _UnusableError(Exception):
    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy


def _known(variable: str, variables: Mapping[str, str]) -> str:
    if variable not in variables:
        raise _UnusableError("is not a known setting", nearest(variable, variables) or "Unset it.")
    return variables[variable]


def _address(text: str) -> Address:
    found = _ADDRESS.fullmatch(text)
    if not found or int(found["port"]) > 65535:
        raise _UnusableError(f"is not an address: {shown(text)}", "Write it as `127.0.0.1:50051` or `[::1]:50051`.")
    host = found["host"].strip("[]")
    if not _is_host(host):
        raise _UnusableError(f"has no valid host: {shown(text)}", "Write an IP address or a host name.")
    return Address(host, int(found["port"]))


def _is_host(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return bool(_HOST_NAME.fullmatch(host)) and not host.replace(".", "").isdigit() and ":" not in host
    return True


def _path(text: str) -> str:
    if not text.strip() or not text.isprintable():
        raise _UnusableError("is not a path", "Write the path of a file.")
    return text


def _url(*beginnings: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if not text.startswith(beginnings) or text in beginnings or not text.isprintable() or " " in text:
            raise _UnusableError("is not a usable URL (not shown)", f"Begin it with {' or '.join(beginnings)}.")
        return text

    return read


def _whole(lowest: int, highest: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not (text.isascii() and text.isdigit() and len(text) <= 9 and lowest <= int(text) <= highest):
            raise _UnusableError(f"is {shown(text)}", f"Write a whole number from {lowest} to {highest}.")
        return int(text)

    return read


def _seconds(lowest: float, highest: float) -> Callable[[str], float]:
    def read(text: str) -> float:
        if not _NUMBER.fullmatch(text) or not lowest <= float(text) <= highest:
            raise _UnusableError(f"is {shown(text)}", f"Write a number of seconds from {lowest:g} to {highest:g}.")
        return float(text)

    return read


def _switch(text: str) -> bool:
    if text not in ("on", "off"):
        raise _UnusableError(f"is {shown(text)}", "Write `on` or `off`.")
    return text == "on"


def _log_level(text: str) -> LogLevel:
    try:
        return LogLevel(text.upper())
    except ValueError:
        words = ", ".join(level.value for level in LogLevel)
        raise _UnusableError(f"is {shown(text)}", f"Write one of {words}.") from None


def _authentication(text: str) -> Authentication:
    try:
        return Authentication(text)
    except ValueError:
        raise _UnusableError(f"is {shown(text)}", "Write `required` or `insecure`.") from None


_READERS: dict[str, Callable[[str], object]] = {
    "grpc_address": _address,
    "http_address": _address,
    "admin_address": _address,
    "tls_cert_file": _path,
    "tls_key_file": _path,
    "tls_client_ca_file": _path,
    "authentication": _authentication,
    "policy_file": _path,
    "database_url": _url("sqlite:///", "postgresql://"),
    "redis_url": _url("redis://", "rediss://"),
    "state_dir": lambda text: _path(text) if text else "",
    "workers": _whole(1, _MAX_WORKERS),
    "log_level": _log_level,
    "reflection": _switch,
    "max_concurrent_calls": _whole(1, 100_000),
    "drain_notice_seconds": _seconds(0, 3600),
    "drain_grace_seconds": _seconds(0, 3600),
    "unary_timeout_seconds": _seconds(0.1, 3600),
    "stream_timeout_seconds": _seconds(0.1, 3600),
    "reader_idle_seconds": _seconds(0.1, 3600),
}
