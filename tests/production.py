#!/usr/bin/python3
"""`make test-production`: executes the chapter conf/production.md in two Debian systems, and checks what it promises.

  tests/production.py RELEASE

Both run systemd as process 1 and share an isolated network (machines.py), in which this process plays the upstream and the
clients. It downloads the packages first, so the first run takes several minutes. It requires root or sudo, and permission to
create namespaces and to mount.
"""

import contextlib
import fcntl
import http.client
import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import urllib.parse
from pathlib import Path

from chapter import blocks
from machines import Machine, enter_network, in_debian, mount_groups, run
from parts import ROOT, wait_until

sys.path.append(str(ROOT / "tests" / "standin"))
import authority
from standin import Standin

SERVICE, UPSTREAM = "tasks.example.com", "api.example.com"
HOSTS = ("10.0.0.1", "10.0.0.2")
OWN_ADDRESS, UPSTREAM_ADDRESS = "10.0.0.254", "1.2.3.4"  # a public one: by default, upstreams have no other
KEYS = ("sk-production-1", "sk-production-2")
PATIENCE = 120  # seconds
PACE = 0.02  # seconds between the requests of a client, so that the machine has time for the rest

# What the test replaces in the chapter's commands. Everything else is executed as it is written.
OLD, NEW = "taskproxy_old.deb", "taskproxy_new.deb"
SUBSTITUTIONS = {"taskproxy_0.2_amd64.deb": OLD, "taskproxy_0.3_amd64.deb": NEW}

# What a standard installation of Debian has and a minimal root lacks, and what the chapter's commands install.
STANDARD = ("systemd-sysv", "dbus", "procps", "openssl", "ca-certificates")
DOWNLOADED = ("curl", "nginx", "redis-server")
DOWNLOADED_ALONE = ("prometheus",)  # without the packages that it recommends


# Preparation: the packages and the root

# Builds the package, and then one with a higher version.
BUILD = """
    tests/install-packages build deb
    conf/build-deb
    rm -rf build/newer && mkdir build/newer && cp -a Makefile README.md conf fcgi nginx build/newer
    cd build/newer
    sed -i '/VERSION/s/"$/.1"/' fcgi/lib/version.h
    sed -i '1s/)/.1)/' conf/debian/changelog
    conf/build-deb
"""


def build_packages(release: str, folder: Path) -> None:
    say(f"building two versions of the package on {release}")
    subprocess.run([ROOT / "tests/in-debian", release, "sh", "-ec", BUILD], check=True, stdout=subprocess.DEVNULL)
    build = root_of(release) / (ROOT / "build").relative_to("/")
    for built, name in ((build, OLD), (build / "newer/build", NEW)):
        (package,) = built.glob("taskproxy_*.deb")
        shutil.copy(package, folder / name)


def root_of(release: str, kind: str = "") -> Path:
    return in_debian.CACHE / f"{release}-{in_debian.own_architecture()}{kind}"


@contextlib.contextmanager
def debian(release: str, package: Path):
    """A root with what a standard installation has, and with the packages that the chapter installs downloaded."""
    root = root_of(release, "-standard")
    with in_debian.Lock(f"{root}.lock", fcntl.LOCK_SH) as lock:
        in_debian.make_root(root, release, in_debian.own_architecture(), lock)
        lock.change(fcntl.LOCK_EX)
        in_debian.configure(root)
        shutil.copy(package, root / "package.deb")
        with mounted(root):
            download(root)
        lock.change(fcntl.LOCK_SH)
        yield root


@contextlib.contextmanager
def mounted(root: Path):
    in_debian.mount_all(root)
    run("mount", "-t", "proc", "proc", root / "proc")
    try:
        yield
    finally:
        run("umount", "--recursive", root)


def download(root: Path) -> None:
    say("downloading packages")
    apt = ["chroot", root, "apt-get", "-q", "-y", "-o", "Acquire::Retries=3"]
    settings = {"env": in_debian.environment(root) | {"DEBIAN_FRONTEND": "noninteractive"}, "stdout": subprocess.DEVNULL}
    run(*apt, "update", **settings)
    run(*apt, "install", "--no-install-recommends", *STANDARD, **settings)
    run(*apt, "install", "--download-only", "/package.deb", *DOWNLOADED, **settings)
    run(*apt, "install", "--download-only", "--no-install-recommends", *DOWNLOADED_ALONE, **settings)


# The two hosts, the upstream and the clients

# Copies files to the second host, whose directory of root is mounted there.
SCP = """#!/bin/sh -e
while [ $# -gt 1 ]; do cp "$1" /srv/second/; shift; done
[ "$1" = 10.0.0.2: ]
"""


class Production:
    """What the chapter sets up, as seen from its network."""

    def __init__(self, hosts: list, standin: Standin, authorities: Path):
        self.hosts, self.standin = hosts, standin
        self.context = ssl.create_default_context(cafile=authorities)
        self.outputs = []  # of the blocks of this section
        self.masters = []  # the process ids of the services, before the upgrade

    def token(self) -> str:
        return (self.hosts[0].path / "root/web.token").read_text().strip()

    def client(self, host: int) -> "Client":
        return Client(HOSTS[host], self.context)

    def ask(self, path: str, host: int = 0, token: str | None = None):
        """A client's request: status, headers, body."""
        with contextlib.closing(self.client(host)) as client:
            return client.ask(path, self.token() if token is None else token)

    def version(self, host: int) -> str:
        return re.search(r'^taskproxy_build_info{.*version="([^"]+)"', plain(HOSTS[host], 9180, "/metrics"), re.MULTILINE)[1]

    def redis(self, *command) -> str:
        return self.hosts[0].run("sh", "-c", 'REDISCLI_AUTH=$(cat redis-admin) exec redis-cli "$@"', "sh", *command).stdout

    def main_pids(self) -> list:
        return [host.systemctl("show", "-p", "MainPID", "--value", "taskproxy").stdout for host in self.hosts]

    def prometheus(self, path: str, **query):
        return json.loads(plain(HOSTS[0], 9090, f"/api/v1/{path}?{urllib.parse.urlencode(query)}"))["data"]

    def up(self) -> dict:
        """The scrapes' targets and whether they succeed; empty while Prometheus starts."""
        with contextlib.suppress(ConnectionRefusedError, AssertionError):
            return self._up()
        return {}

    def _up(self) -> dict:
        found = self.prometheus("query", query='up{job="taskproxy"}')["result"]
        return {row["metric"]["instance"]: row["value"][1] for row in found}


class Client(http.client.HTTPSConnection):
    """A connection to the service at one host."""

    def __init__(self, address: str, context: ssl.SSLContext):
        super().__init__(SERVICE, timeout=PATIENCE, context=context)
        self._address, self._context = address, context

    def connect(self):
        plain_socket = socket.create_connection((self._address, self.port), self.timeout)
        self.sock = self._context.wrap_socket(plain_socket, server_hostname=self.host)

    def ask(self, path: str, token: str = ""):
        """Like any client, it sends the request again if nginx, which is reloaded, has closed the connection in the meantime."""
        kept = self.sock is not None
        try:
            self.request("GET", path, headers={"Authorization": f"Bearer {token}"} if token else {})
            response = self.getresponse()
        except (http.client.RemoteDisconnected, BrokenPipeError):  # not a byte of an answer
            if not kept:
                raise
            self.close()
            return self.ask(path, token)
        return response.status, response.headers, response.read()


def plain(address: str, port: int, path: str) -> str:
    """The body of a page that is served without TLS."""
    with contextlib.closing(http.client.HTTPConnection(address, port, timeout=PATIENCE)) as connection:
        connection.request("GET", path)
        response = connection.getresponse()
        body = response.read().decode()
    assert response.status == 200, f"{address}:{port}{path}: status {response.status}: {body}"
    return body


# Checks, by section of the chapter: each is called after the commands of its section


def check_package(site: Production) -> None:
    host = site.hosts[0]
    assert host.systemctl("is-enabled", "taskproxy.service").stdout.strip() == "disabled"
    assert host.systemctl("is-active", "nginx.service", "redis-server.service").stdout.split() == ["active", "active"]


def check_redis(site: Production) -> None:
    refused = site.hosts[0].run("redis-cli", "PING").stdout
    assert "NOAUTH" in refused and site.redis("PING") == "PONG\n"


def check_keys(site: Production) -> None:
    files = site.hosts[0].run("sh", "-c", "stat -c '%a %U' /etc/taskproxy/keys/* /etc/taskproxy/secrets/* web.token").stdout
    assert files == "600 root\n" * 4
    assert re.fullmatch(r"tp-[0-9a-f]{64}", site.token())
    assert not (site.hosts[0].path / "root/key-1").exists()


def check_service(site: Production) -> None:
    state = site.outputs[-1]
    assert '"status":"ready"' in state and "/etc/taskproxy/taskproxy.json: ok" in state, state


def check_nginx(site: Production) -> None:
    good, refused = re.findall(r"HTTP/2 (\d+)", site.outputs[2])
    assert (good, refused) == ("200", "401")
    assert site.outputs[3].strip() == "", "Redis denies a permission"
    assert {site.ask(f"/sora/v1/videos/many_{number}")[0] for number in range(8)} == {200}
    keys = {query.headers["authorization"] for query in site.standin.seen()}
    assert keys == {f"Bearer {key}" for key in KEYS}
    assert site.redis("ACL", "LOG").strip() == "" and "taskproxy:teams#main:sora:many_1" in site.redis("KEYS", "*")
    assert not is_served(80) and is_served(443, SERVICE)
    assert not is_served(443, "unknown.example.com") and not is_served(443, SERVICE, ssl.TLSVersion.TLSv1_1)
    assert "taskproxy_workers_ready 2" in plain(HOSTS[0], 9180, "/metrics")
    limits = Path(f"/proc/{nginx_worker(site.hosts[0])}/limits").read_text()
    assert re.search(r"Max open files +20000 ", limits)


def is_served(port: int, name: str | None = None, version: ssl.TLSVersion | None = None) -> bool:
    """Whether the first host accepts connections and, with a name, TLS for it, of at most this version."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if version:
        context.minimum_version = context.maximum_version = version
        context.set_ciphers("DEFAULT:@SECLEVEL=0")
    try:
        with socket.create_connection((HOSTS[0], port), PATIENCE) as connection:
            if name:
                context.wrap_socket(connection, server_hostname=name)
    except (ConnectionRefusedError, ssl.SSLError):
        return False
    return True


def nginx_worker(host: Machine) -> int:
    """The process id, as this process sees it, of one of nginx's workers."""
    for name in Path("/proc").glob("[0-9]*/comm"):
        with contextlib.suppress(OSError):
            same_machine = os.readlink(name.parent / "ns/pid") == os.readlink(f"/proc/{host.init}/ns/pid")
            if same_machine and name.read_text() == "nginx\n" and b"worker process" in (name.parent / "cmdline").read_bytes():
                return int(name.parent.name)
    raise AssertionError("nginx has no workers")


def check_prometheus(site: Production) -> None:
    assert "SUCCESS" in site.outputs[0]
    wait_until(lambda: site.up() == {"10.0.0.1:9180": "1"}, PATIENCE, "the first scrape")
    rules = (ROOT / "conf/prometheus/taskproxy.rules.yml").read_text()
    loaded = [rule["name"] for group in site.prometheus("rules")["groups"] for rule in group["rules"]]
    assert loaded == re.findall(r"- alert: (\w+)", rules)
    assert site.prometheus("query", query="taskproxy_workers_ready")["result"][0]["value"][1] == "2"
    assert [alert for alert in site.prometheus("alerts")["alerts"] if alert["state"] == "firing"] == []


def check_second_host(site: Production) -> None:
    site.standin.switch("shared", state="SUCCESS")
    first, second = (site.ask("/v1/tasks/sora/shared", host) for host in (0, 1))
    assert (first[0], second[0]) == (200, 200) and first[2] == second[2]
    assert second[1]["X-Cache"] == "HIT" and site.standin.count("shared") == 1
    assert site.ask("/v1/tasks/sora/shared", 1, token="tp-unknown")[0] == 401
    wait_until(lambda: site.up() == {"10.0.0.1:9180": "1", "10.0.0.2:9180": "1"}, PATIENCE, "a scrape of both hosts")

    # "If the first one is lost, the second one works without Redis."
    site.hosts[0].systemctl("stop", "redis-server.service")
    assert site.ask("/v1/tasks/sora/shared", 1)[0] == site.ask("/v1/tasks/sora/alone", 1)[0] == 200
    site.hosts[0].systemctl("start", "redis-server.service")
    for host in site.hosts:
        wait_until(lambda: host.run("taskproxy", "--status", check=False).returncode == 0, PATIENCE, "the return of Redis")
    site.masters = site.main_pids()


def check_upgrade(site: Production) -> None:
    check_version(site, f"{version()}.1")


def check_rollback(site: Production) -> None:
    check_version(site, version())
    assert site.redis("ACL", "LOG").strip() == ""


def check_version(site: Production, wanted: str) -> None:
    for host, machine in enumerate(site.hosts):
        wait_until(lambda: site.version(host) == wanted, PATIENCE, f"version {wanted} on {machine.name}")
        assert machine.run("dpkg-query", "-W", "-f", "${Version}", "taskproxy").stdout == wanted
    assert site.main_pids() == site.masters, "the service was restarted, not reloaded"
    assert "taskproxy: " not in "".join(site.outputs), site.outputs  # a message of postinst


def version() -> str:
    return re.search(r'VERSION "(.*)"', (ROOT / "fcgi/lib/version.h").read_text())[1]


CHECKS = {
    "Install the package": check_package,
    "Set up Redis": check_redis,
    "Install the keys and create a team": check_keys,
    "Configure and start the service": check_service,
    "Set up nginx with TLS": check_nginx,
    "Set up Prometheus": check_prometheus,
    "Add the second host": check_second_host,
    "Upgrade": check_upgrade,
    "Roll back": check_rollback,
}
UNDER_LOAD = ("Upgrade", "Roll back")


@contextlib.contextmanager
def load(site: Production):
    """Clients of both hosts, which send requests and hold others until the end of the block. None of these may fail; the event
    streams, which are opened before, must have ended in an orderly way."""
    stop, failures, answered = threading.Event(), [], []

    def follow(host: int, paths: list) -> None:
        client = site.client(host)
        while not stop.is_set():
            for path in paths:
                try:
                    status, _, body = client.ask(path, site.token())
                    answered.append(status)
                    if status != 200 or not body.endswith(b"}"):
                        failures.append((host, path, status, body))
                except (OSError, http.client.HTTPException) as trouble:
                    failures.append((host, path, trouble))
                    client.close()
                stop.wait(PACE)
        client.close()

    site.standin.switch("held", state="IN_PROGRESS")
    short, held = [f"/sora/v1/videos/many_{number}" for number in range(8)], ["/v1/tasks/sora/held?wait=2"]
    threads = [threading.Thread(target=follow, args=(host, paths)) for host in range(len(HOSTS)) for paths in (short, held)]
    for thread in threads:
        thread.start()
    streams = [open_stream(site.client(host), site.token()) for host in range(len(HOSTS))]
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert failures == [] and len(answered) > 100, (len(answered), failures[:5])
    assert {stream.read()[:13] for stream in streams} == {b"event: status"}
    say(f"  {len(answered)} requests meanwhile, none failed")


def open_stream(client: Client, token: str) -> http.client.HTTPResponse:
    client.request("GET", "/v1/tasks/sora/held", headers={"Authorization": f"Bearer {token}", "Accept": "text/event-stream"})
    return client.getresponse()


# The run


def execute(site: Production) -> None:
    """Executes the chapter, section by section."""
    for section, check in CHECKS.items():
        say(section)
        site.outputs = []
        with load(site) if section in UNDER_LOAD else contextlib.nullcontext():
            for block in blocks():
                if block.section == section:
                    done = site.hosts[block.host].run("bash", "-euo", "pipefail", "-c", substituted(block.commands))
                    site.outputs.append(done.stdout)
            check(site)


def substituted(commands: str) -> str:
    for text, other in SUBSTITUTIONS.items():
        commands = commands.replace(text, other)
    return commands


def prepare(machine: Machine, work: Path) -> None:
    """What a host has before the chapter begins."""
    names = {UPSTREAM_ADDRESS: UPSTREAM, HOSTS[0]: SERVICE, "127.0.0.1": "localhost"}
    etc = machine.path / "etc"
    (etc / "hosts").write_text("".join(f"{address} {name}\n" for address, name in names.items()))
    (etc / "apt/apt.conf.d/yes").write_text('APT::Get::Assume-Yes "true";\n')
    shutil.copy(work / "ca.pem", machine.path / "usr/local/share/ca-certificates/test.crt")
    run("chroot", machine.path, "update-ca-certificates", stdout=subprocess.DEVNULL)


def prepare_first(machine: Machine, work: Path) -> None:
    home = machine.path / "root"
    for package in (OLD, NEW):
        shutil.copy(work / package, home)
    shutil.copy(work / "tasks.pem", home / "fullchain.pem")
    shutil.copy(work / "tasks.key", home / "privkey.pem")
    for number, key in enumerate(KEYS, 1):
        (home / f"key-{number}").write_text(f"{key}\n")
    scp = machine.path / "usr/local/bin/scp"
    scp.write_text(SCP)
    scp.chmod(0o755)


def share_home(first: Machine, second: Machine) -> None:
    (first.path / "srv/second").mkdir()
    run("mount", "--bind", second.path / "root", first.path / "srv/second")


@contextlib.contextmanager
def machines(root: Path, work: Path):
    """Both hosts, running."""
    (work / "groups").mkdir()
    mount_groups(work / "groups")
    groups = work / "groups" / f"taskproxy-{os.getpid()}"
    groups.mkdir()
    with contextlib.ExitStack() as stack:
        stack.callback(groups.rmdir)
        hosts = [Machine(name, root, work, groups) for name in ("first", "second")]
        for host in hosts:
            prepare(host, work)
        prepare_first(hosts[0], work)
        share_home(*hosts)
        for host, address in zip(hosts, HOSTS):
            stack.callback(host.stop)
            host.start(f"{address}/24", OWN_ADDRESS)
        yield hosts


def report(hosts: list) -> None:
    """The ends of the journals, after a failure."""
    units = [f"--unit={unit}" for unit in ("taskproxy", "taskproxy.socket", "nginx", "redis-server", "prometheus")]
    for host in hosts:
        print(f"--- {host.name}\n{host.run('journalctl', '-q', '--no-hostname', '-n', '40', *units, check=False).stdout}")


def main() -> int:
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        print(__doc__, file=sys.stderr)
        return 2
    if os.geteuid() != 0:
        os.execvp("sudo", ["sudo", *sys.orig_argv])
    release = sys.argv[1]
    in_debian.enter_namespace(in_debian.CLONE_NEWNS)
    run("mount", "--make-rprivate", "/")
    with tempfile.TemporaryDirectory() as folder:
        run("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", folder)
        try:
            return chapter(release, Path(folder))
        finally:
            run("umount", "--recursive", "--lazy", folder)


def chapter(release: str, work: Path) -> int:
    build_packages(release, work)
    authority.make_ca(work)
    authority.issue(work, "server", f"DNS:{UPSTREAM}")
    authority.issue(work, "tasks", f"DNS:{SERVICE}")
    with debian(release, work / OLD) as root:
        enter_network(f"{OWN_ADDRESS}/24", f"{UPSTREAM_ADDRESS}/32")
        with machines(root, work) as hosts, Standin(work, KEYS, port=443, host=UPSTREAM_ADDRESS) as standin:
            standin.switch(state="SUCCESS")
            try:
                execute(Production(hosts, standin, work / "ca.pem"))
            except BaseException:
                report(hosts)
                raise
    say(f"Debian {release}: all sections succeeded")
    return 0


def say(text: str) -> None:
    print(f"production: {text}", flush=True)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        sys.exit(main())
    except (in_debian.Refusal, subprocess.CalledProcessError) as reason:
        say(str(reason))
        sys.exit(125)
