"""Network namespaces that stand in for machines: hosts on one switch, each of which can be cut off from all others.

What runs in one has its own loopback and one address, 10.231.7.x; nothing reaches beyond the switch, which lies in a
namespace, too. The file system is everybody's, so tests tell what runs there what to do by files. Needs root and `ip`.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Self

_NETWORK = "10.231.7"
_HUB_ADDRESS = f"{_NETWORK}.1"
NOT_HERE = "network namespaces cannot be made here: they need root, and the command ip"


def available() -> bool:
    """Whether namespaces can be made on this machine."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        return False
    name = f"mf{os.getpid()}probe"
    if subprocess.run(["ip", "netns", "add", name], capture_output=True, check=False).returncode:
        return False
    _ip("netns", "del", name)
    return True


class Hosts:
    """A hub and hosts that can reach each other, as a context.

    Args:
        names: of the hosts beside the hub.

    Attributes:
        addresses: of each, and of the hub under `hub`.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._tag = f"mf{os.getpid() % 100_000}"
        self.addresses = {"hub": _HUB_ADDRESS} | {name: f"{_NETWORK}.{11 + n}" for n, name in enumerate(names)}

    def __enter__(self) -> Self:
        try:
            for name, address in self.addresses.items():
                self._make(name, address)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for name in self.addresses:
            # Whoever still runs in there; its interfaces go with it, once nobody does.
            found = subprocess.run(
                ["ip", "netns", "pids", self._space(name)], capture_output=True, text=True, check=False
            )
            for pid in found.stdout.split():
                with suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
            subprocess.run(["ip", "netns", "del", self._space(name)], capture_output=True, check=False)

    def command(self, host: str, *command: str) -> list[str]:
        """A command as it runs on a host; the process is the command's own."""
        return ["ip", "netns", "exec", self._space(host), *command]

    def cut_off(self, host: str) -> None:
        """Nothing gets to the host or away from it any more; whoever waits for it hears nothing."""
        _ip("-n", self._space("hub"), "link", "set", self._port(host), "down")

    def forbid(self, host: str, others: Iterable[str]) -> None:
        """Have a host reach none of some others: it hears at once that no way leads there."""
        lines = "".join(f"route add unreachable {self.addresses[other]}\n" for other in others)
        done = subprocess.run(
            ["ip", "-n", self._space(host), "-batch", "-"], input=lines, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr

    def connect(self, host: str) -> None:
        """Put it back on the switch."""
        _ip("-n", self._space("hub"), "link", "set", self._port(host), "up")

    def _make(self, name: str, address: str) -> None:
        space = self._space(name)
        _ip("netns", "add", space)
        _ip("-n", space, "link", "set", "lo", "up")
        if name == "hub":
            _ip("-n", space, "link", "add", "switch", "type", "bridge")
            _ip("-n", space, "addr", "add", f"{address}/24", "dev", "switch")
            _ip("-n", space, "link", "set", "switch", "up")
            return
        hub = self._space("hub")
        _ip("-n", space, "link", "add", "uplink", "type", "veth", "peer", "name", self._port(name), "netns", hub)
        _ip("-n", hub, "link", "set", self._port(name), "master", "switch", "up")
        _ip("-n", space, "addr", "add", f"{address}/24", "dev", "uplink")
        _ip("-n", space, "link", "set", "uplink", "up")

    def _port(self, name: str) -> str:
        """Of the switch, by the host's address: an interface's name has up to fifteen letters."""
        return f"port{self.addresses[name].rpartition('.')[2]}"

    def _space(self, name: str) -> str:
        return f"{self._tag}-{name}"


def _ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"ip {' '.join(arguments)}: {done.stderr}"
