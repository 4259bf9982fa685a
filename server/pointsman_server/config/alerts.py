"""Reads where budget alerts are sent."""

from __future__ import annotations

from collections.abc import Mapping

from pointsman_server.config.base_url import parse_base_url
from pointsman_server.config.key_reference import KeyReading, KeyReference, key_reference, read_key
from pointsman_server.config.scalars import switch
from pointsman_server.config.section import Keys, Section, Spot, UnacceptableError
from pointsman_server.domain.governance import Webhook

ALERT_KEYS: Keys = {
    "webhook": 'webhook: {url: "https://alerts.example.com/pointsman"}',
}
WEBHOOK_KEYS: Keys = {
    "url": 'url: "https://alerts.example.com/pointsman"',
    "secret": 'secret: "${ALERT_WEBHOOK_SECRET}"',
    "allow_private_network": "allow_private_network: false",
}

_BEGINS_A_REFERENCE = "${"
_WITHOUT = Webhook("")


def read_alerts(spot: Spot, environ: Mapping[str, str]) -> Webhook:
    """Compiles the section. A missing address or secret makes the webhook unusable, not the policy wrong."""
    section = Section(spot, ALERT_KEYS)
    webhook = section.required("webhook", lambda value: _webhook(value, environ), _WITHOUT)
    if webhook.unusable_because:
        spot.warn(f"cannot be sent: {webhook.unusable_because}", "Set it, or remove the webhook.")
    return webhook


def _webhook(spot: Spot, environ: Mapping[str, str]) -> Webhook:
    section = Section(spot, WEBHOOK_KEYS)
    private = section.optional("allow_private_network", switch, False)
    place, address = section.required("url", lambda value: _address(value, environ, private), ("", KeyReading()))
    reference = section.optional("secret", _secret_reference, None)
    secret = read_key(reference, environ) if reference else KeyReading()
    unusable_because = address.unusable_because or secret.unusable_because
    return Webhook(
        place=place,
        secret_reference=str(reference or ""),
        url="" if unusable_because else address.value,
        secret="" if unusable_because else secret.value,
        unusable_because=unusable_because,
    )


def _address(spot: Spot, environ: Mapping[str, str], private: bool) -> tuple[str, KeyReading]:
    """As it is written, and as it is used. A reference is told from an address by its first two characters."""
    if not spot.text().startswith(_BEGINS_A_REFERENCE):
        url = parse_base_url(spot.text(), allow_private_network=private).url
        return url, KeyReading(url)
    reference = key_reference(spot)
    found = read_key(reference, environ)
    if not found.value:
        return str(reference), found
    try:
        return str(reference), KeyReading(parse_base_url(found.value, allow_private_network=private).url)
    except UnacceptableError as error:
        return str(reference), KeyReading(unusable_because=f"the address in {reference.place} {error.message}")


def _secret_reference(spot: Spot) -> KeyReference:
    try:
        return key_reference(spot)
    except UnacceptableError as error:
        raise UnacceptableError(
            "is not a reference to a secret (the value is not shown)",
            'Put the secret into the environment and write `secret: "${VARIABLE_NAME}"`, '
            'or into a file and write `secret: "${file:/run/secrets/name}"`.',
        ) from error
