"""Hosts in network namespaces of their own, connected by a bridge; two of them can be cut off from each other.

    with Network({"a": "10.0.0.1", "b": "10.0.0.2"}) as network:
        process = subprocess.Popen([*network.inside("a"), "nginx", …])
        network.cut("a", "b")      # packets between them are lost from now on, without an error
        network.mend()

Root makes the namespaces; another user needs permission to make user namespaces. The network has no connection to any other.
"""

import contextlib
import os
import shlex
import socket
import subprocess
import sys

# A namespace lives as long as its process. All end with the shell in the namespace of the bridge, which has the capabilities
# for all of them, and executes the commands that it reads.
AS_ITSELF = ["--user", "--map-current-user", "--keep-caps"]
NAMESPACE = "unshare --net sh -c 'echo $$; exec setpriv --pdeathsig KILL sleep infinity > /dev/null 2>&1' &"
MAKE_SOCKET = """
import socket, sys
made = socket.socket()
socket.send_fds(socket.socket(fileno=int(sys.argv[1])), [b" "], [made.fileno()])
"""
NOWHERE = "02:00:00:00:00:00"  # no host has this address
DONE = "done"  # and the status, printed after each command


class Network:
    """Hosts by name, with their addresses, in one /24."""

    def __init__(self, addresses: dict):
        self.addresses = addresses
        self._pids = {}
        self._physical = {name: f"02:00:00:00:01:{number:02x}" for number, name in enumerate(addresses)}
        self._shell = None

    def __enter__(self):
        user = [] if os.geteuid() == 0 else AS_ITSELF
        self._shell = subprocess.Popen(["unshare", *user, "--net", "setpriv", "--pdeathsig", "KILL", "sh"], text=True,
                                       stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        try:
            self._run("ip link add name bridge type bridge", "ip link set bridge up")
            for name in self.addresses:
                self._add(name)
            for name in self.addresses:
                self._set_route(name, *(self.addresses.keys() - {name}))
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_):
        self.close()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._shell.stdin.close()
        self._shell.wait()
        self._shell.stdout.close()

    def _send(self, command: str) -> None:
        self._shell.stdin.write(command + "\n")
        self._shell.stdin.flush()

    def _run(self, *commands: str) -> None:
        self._send("{ " + " && ".join(commands) + f"; }} < /dev/null; echo {DONE} $?")
        output = []
        while not (line := self._shell.stdout.readline()).startswith(DONE):
            if not line:
                raise RuntimeError(f"this machine does not make network namespaces: {''.join(output)}")
            output.append(line)
        if line != f"{DONE} 0\n":
            raise RuntimeError(f"{commands}: {''.join(output)}")

    def _add(self, name: str) -> None:
        self._send(NAMESPACE)
        self._pids[name] = pid = int(self._shell.stdout.readline())
        within = f"nsenter --net=/proc/{pid}/ns/net ip"
        self._run(
            f"ip link add name {name} type veth peer name eth0 address {self._physical[name]} netns {pid}",
            f"ip link set dev {name} master bridge up", f"{within} link set lo up", f"{within} link set eth0 up",
            f"{within} address add {self.addresses[name]}/24 dev eth0",
        )

    def _set_route(self, name: str, *others: str, physical: str | None = None) -> None:
        """Where packets from this host to the others go."""
        lines = [f"neigh replace {self.addresses[other]} lladdr {physical or self._physical[other]} nud permanent dev eth0"
                 for other in others]
        self._run(f"printf '%s\\n' {shlex.join(lines)} | nsenter --net=/proc/{self._pids[name]}/ns/net ip -batch -")

    def cut(self, name: str, *others: str) -> None:
        """From now on, packets between this host and the others are lost."""
        self._set_route(name, *others, physical=NOWHERE)
        for other in others:
            self._set_route(other, name, physical=NOWHERE)

    def mend(self) -> None:
        """Connects all hosts again."""
        for name in self.addresses:
            self._set_route(name, *(self.addresses.keys() - {name}))

    def inside(self, name: str) -> list[str]:
        """A command that executes its arguments on the host, as the present user."""
        namespaces = f"/proc/{self._pids[name]}/ns"
        user = [] if os.geteuid() == 0 else [f"--user={namespaces}/user", "--preserve-credentials"]
        return ["nsenter", *user, f"--net={namespaces}/net", "--"]

    def socket(self, name: str) -> socket.socket:
        """A TCP socket of the host, for this process."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with ours, theirs:
            subprocess.run([*self.inside(name), sys.executable, "-c", MAKE_SOCKET, str(theirs.fileno())], check=True,
                           pass_fds=[theirs.fileno()])
            return socket.socket(fileno=socket.recv_fds(ours, 1, 1)[1][0])
