"""What each replica has in its environment: where it listens, what it is called, and one signing key for all."""

from __future__ import annotations

from pathlib import Path

from registry.errors import InvalidInput
from serving.settings import ServingSettings

# Behind a proxy nobody else has business with a replica.
_LOOPBACK = "127.0.0.1"


def ring_key(number: int) -> str:
    """A replica's key on Envoy's ring: the same whichever process and port it has, so its tenants stay with it."""
    return f"replica-{number}"


def replica_environments(
    settings: ServingSettings, replicas: int, *, separate_disks: bool = False
) -> list[dict[str, str]]:
    """The environment of each of several replicas without a proxy, beyond the supervisor's.

    Public ports are `port` and the next ones, operator ports `operator_port` and the next ones. Where nobody chose
    `operator_port` and its default lies among the public ports, the operator's begin after those.

    Args:
        settings: as for one server.
        replicas: how many.
        separate_disks: each has a folder of its own in the disk tier's, as machines would have.

    Raises:
        InvalidInput: there are not so many ports, or the two ranges overlap.
    """
    port, operator_port = settings.port, settings.operator_port
    overlap = port and operator_port and port < operator_port + replicas and operator_port < port + replicas
    if overlap and "operator_port" not in settings.model_fields_set:
        operator_port, overlap = port + replicas, False
    if overlap and settings.host == settings.operator_host:
        raise InvalidInput(
            f"{replicas} replicas from --port {port} and --operator-port {operator_port} on would share ports",
            remedy="Set them further apart.",
        )
    _check_ports(max(port, operator_port), replicas)
    return [
        {
            **_common(settings, number, separate_disks=separate_disks),
            "MACROFLEET_HOST": settings.host,
            "MACROFLEET_PORT": str(port and port + number),
            "MACROFLEET_OPERATOR_PORT": str(operator_port and operator_port + number),
        }
        for number in range(replicas)
    ]


def proxy_ports(settings: ServingSettings) -> tuple[int, int]:
    """Where a proxy listens: public and operator port.

    Raises:
        InvalidInput: they are the same.
    """
    port, operator_port = settings.port, settings.operator_port
    if port and port == operator_port:
        if "operator_port" not in settings.model_fields_set:
            return port, port + 1
        if settings.host == settings.operator_host:
            raise InvalidInput(f"--port and --operator-port are both {port}", remedy="Set them apart.")
    return port, operator_port


def proxied_environments(
    settings: ServingSettings, replicas: int, *, ring_file: Path, separate_disks: bool = False
) -> list[dict[str, str]]:
    """The same behind a proxy: public ports are whatever is free, since only the proxy asks there.

    Operator ports are those after the proxy's, so that who watches replicas finds them.

    Args:
        settings: as for one server; the addresses are the proxy's.
        replicas: how many there may be.
        ring_file: has the keys of those that are on the ring.
        separate_disks: see `replica_environments`.

    Raises:
        InvalidInput: there are not so many ports.
    """
    port, operator_port = proxy_ports(settings)
    operators = [0] * replicas
    if operator_port:
        _check_ports(operator_port, replicas + 2)
        operators = [number for number in range(operator_port + 1, operator_port + replicas + 2) if number != port]
    return [
        {
            **_common(settings, number, separate_disks=separate_disks),
            "MACROFLEET_HOST": _LOOPBACK,
            "MACROFLEET_PORT": "0",
            "MACROFLEET_OPERATOR_PORT": str(operators[number]),
            "MACROFLEET_RING": f"file:{ring_file}",
            "MACROFLEET_RING_KEY": ring_key(number),
        }
        for number in range(replicas)
    ]


def _common(settings: ServingSettings, number: int, *, separate_disks: bool) -> dict[str, str]:
    disk = {"MACROFLEET_DISK_FOLDER": str(settings.disk_folder / ring_key(number))} if separate_disks else {}
    return {
        "MACROFLEET_OPERATOR_HOST": settings.operator_host,
        "MACROFLEET_ACCESS": settings.access,
        "MACROFLEET_INSECURE": str(settings.insecure).lower(),
        "MACROFLEET_SIGNING_KEY": settings.signing_key.get_secret_value(),
        "MACROFLEET_REPLICA": str(number),
        **disk,
    }


def _check_ports(first: int, count: int) -> None:
    if first + count - 1 > 65_535:
        raise InvalidInput(
            f"there are no {count} ports from {first} on",
            remedy="Choose a lower --port or --operator-port, or fewer --replicas.",
        )
