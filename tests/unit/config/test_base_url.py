"""Where a provider may be: the catalogue of addresses that lead elsewhere is refused."""

from __future__ import annotations

import pytest

from pointsman_server.config.base_url import Reach, parse_base_url
from pointsman_server.config.section import UnacceptableError

FORBIDDEN = [
    "http://127.1",
    "http://0.0.0.0",
    "https://0.0.0.0",
    "http://0x7f000001",
    "http://2130706433",
    "http://0177.0.0.1",
    "https://0x7f.0.0.1",
    "https://127.0.0.1.",
    "https://256.1.1.1",
    "https://1.2.3",
    "https://[::ffff:127.0.0.1]",
    "https://[::ffff:7f00:1]",
    "https://[64:ff9b::7f00:1]",
    "https://[2002:7f00:1::]",
    "https://[fe80::1%25eth0]",
    "https://[fe80::1]",
    "https://[fd00:ec2::254]",
    "https://[::]",
    "https://[::1",
    "https://169.254.169.254",
    "https://169.254.1.1",
    "https://100.100.100.200",
    "https://168.63.129.16",
    "https://224.0.0.1",
    "https://255.255.255.255",
    "https://metadata.google.internal",
    "https://metadata",
    "https://host.docker.internal",
    "https://printer.local",
    "https://a.localhost",
    "https://user@evil@host",
    "https://user:secret@good.example",
    "https://good.example#@evil",
    "https://good.example?x=1",
    "https://good.example\\@evil.example",
    "https://g\u043e\u043ed.example",
    "https://xn--gd-7bb.example",
    "https://good%2eexample",
    "https://good.example.",
    "https://.example",
    "https://good..example",
    "https://-good.example",
    "https://good_host.example",
    "https://" + "a" * 64 + ".example",
    "https://good.example:0",
    "https://good.example:99999",
    "https://good.example:25",
    "https://good.example:6379",
    "https://good.example:",
    "https://good.example:443x",
    "https://good.example/a b",
    "https://good.example/\r\nHost: evil",
    "https://good.example/..",
    "https://good.example/../v1",
    "https://good.example//evil",
    "https://good.example/%2e%2e",
    "file:///etc/passwd",
    "gopher://good.example",
    "unix:///run/x.sock",
    "ftp://good.example",
    "good.example",
    "//good.example",
    "https://",
    "https:good.example",
    "https:///v1",
    " https://good.example",
    "https://good.example\n",
    "",
    "http://good.example",
    "https://" + "a." * 300 + "example",
]


@pytest.mark.parametrize("text", FORBIDDEN)
@pytest.mark.parametrize("private", [False, True])
def test_forbidden_addresses(text: str, private: bool) -> None:
    with pytest.raises(UnacceptableError) as caught:
        parse_base_url(text, allow_private_network=private)
    assert caught.value.remedy
    hidden = text.partition("://")[2].strip("/ \r\n")
    assert len(hidden) < 5 or hidden not in str(caught.value)


PRIVATE = [
    "https://10.0.0.5:8000/v1",
    "https://192.168.1.10",
    "https://172.16.0.1",
    "https://100.64.0.1",
    "https://[fd12:3456::1]",
    "https://vllm:8000/v1",
    "https://gpu.lan",
    "https://vllm.default.svc",
]


@pytest.mark.parametrize("text", PRIVATE)
def test_private_addresses_need_permission(text: str) -> None:
    with pytest.raises(UnacceptableError, match="private network"):
        parse_base_url(text, allow_private_network=False)
    assert parse_base_url(text, allow_private_network=True).reach is Reach.PRIVATE


@pytest.mark.parametrize("text", [item.replace("https", "http") for item in PRIVATE])
def test_private_addresses_need_encryption(text: str) -> None:
    with pytest.raises(UnacceptableError, match="not encrypted"):
        parse_base_url(text, allow_private_network=True)


@pytest.mark.parametrize(
    ("text", "url", "reach"),
    [
        ("https://api.openai.com/v1", "https://api.openai.com/v1", Reach.PUBLIC),
        ("https://API.OpenAI.com/v1/", "https://api.openai.com/v1", Reach.PUBLIC),
        ("https://api.anthropic.com/", "https://api.anthropic.com", Reach.PUBLIC),
        ("https://8.8.8.8:8443/a/b-c_d~e.f", "https://8.8.8.8:8443/a/b-c_d~e.f", Reach.PUBLIC),
        ("https://[2606:4700::1111]", "https://[2606:4700::1111]", Reach.PUBLIC),
        ("http://localhost:11434/v1", "http://localhost:11434/v1", Reach.LOOPBACK),
        ("http://127.0.0.1:8089", "http://127.0.0.1:8089", Reach.LOOPBACK),
        ("http://127.8.9.1", "http://127.8.9.1", Reach.LOOPBACK),
        ("http://[::1]:8089", "http://[::1]:8089", Reach.LOOPBACK),
    ],
)
def test_good_addresses(text: str, url: str, reach: Reach) -> None:
    parsed = parse_base_url(text, allow_private_network=False)
    assert (parsed.url, parsed.reach) == (url, reach)
