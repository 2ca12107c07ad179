"""Two machines on one: each has its own network, host name, processes and mounts, and a cable connects them.

They share the file system, apart from folders that are asked to be their own. Linux only, and root.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

NAMES = ("node0", "node1")
ADDRESSES = ("10.213.7.1", "10.213.7.2")
CABLE = "eth0"
"""The name of the network device of each machine."""


def why_not() -> str:
    """Why this system can't have two machines; empty if it can."""
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        return "network namespaces need Linux and root"
    missing = [name for name in ("ip", "unshare", "mount", "hostname") if shutil.which(name) is None]
    if missing:
        return f"needs {', '.join(missing)}"
    name = f"poise-try-{os.getpid()}"
    if subprocess.run(["ip", "netns", "add", name], capture_output=True).returncode:
        return "this system does not allow network namespaces"
    subprocess.run(["ip", "netns", "delete", name], check=True)
    return ""


class TwoMachines:
    """A context in which commands can be started on either machine.

    Args:
        folder: a folder for the machines' `/etc/hosts`, and for what the commands print.
    """

    def __init__(self, folder: Path) -> None:
        self.hosts = folder / "hosts"
        lines = [f"{address} {name}\n" for address, name in zip(ADDRESSES, NAMES, strict=True)]
        self.hosts.write_text("".join(["127.0.0.1 localhost\n", *lines]))
        self.networks = [f"poise-{os.getpid()}-{name}" for name in NAMES]
        self.folder, self.processes = folder, list[subprocess.Popen[bytes]]()

    def __enter__(self) -> TwoMachines:
        first, second = self.networks
        for network in self.networks:
            _ip("netns", "add", network)
        _ip("-n", first, "link", "add", CABLE, "type", "veth", "peer", "name", CABLE, "netns", second)
        for network, address in zip(self.networks, ADDRESSES, strict=True):
            _ip("-n", network, "address", "add", f"{address}/24", "dev", CABLE)
            _ip("-n", network, "link", "set", "lo", "up")
            _ip("-n", network, "link", "set", CABLE, "up")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self.processes:
            process.kill()
            process.wait()
        for network in self.networks:
            _ip("netns", "delete", network)

    def start(
        self, machine: int, command: Sequence[str], *, own: Sequence[Path] = (), **environment: str
    ) -> subprocess.Popen[bytes]:
        """Start a command on a machine; see `text` for what it prints. To kill its process is to kill the machine.

        Args:
            machine: 0 or 1.
            command: the words of the command.
            own: folders which the command sees empty, and shares with nobody.
            environment: environment variables that are added to those of this process.
        """
        lines = [f"hostname {NAMES[machine]}", f"mount --bind {shlex.quote(str(self.hosts))} /etc/hosts"]
        lines += [f"mount -t tmpfs own {shlex.quote(str(folder))}" for folder in own]
        script = " && ".join([*lines, 'exec "$@"'])
        enter = ["ip", "netns", "exec", self.networks[machine]]
        leave = ["unshare", "--uts", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
        words = [*enter, *leave, "sh", "-c", script, "sh", *command]
        variables = os.environ | {"OMP_NUM_THREADS": "1"} | environment
        with self._output(len(self.processes)).open("wb") as output:
            process = subprocess.Popen(words, env=variables, stdout=output, stderr=subprocess.STDOUT)
        self.processes.append(process)
        return process

    def text(self, process: subprocess.Popen[bytes]) -> str:
        """What a process and its children have printed so far."""
        return self._output(self.processes.index(process)).read_text("utf-8", "replace")

    def _output(self, number: int) -> Path:
        return self.folder / f"output-{number}.txt"

    def cut(self) -> None:
        """Pull the cable: nothing arrives any more, and nobody is told."""
        _ip("-n", self.networks[1], "link", "set", CABLE, "down")


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)
