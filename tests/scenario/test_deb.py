"""The Debian package, from its build to its removal."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from helpers import clients, status_of
from installing import FreshRoot, copy_tree, run
from managing import Manager
from parts import ROOT, Process, children_of, workers_of

HERE = Path(__file__).parent
# Databases of dpkg and others about all packages and users.
ADMINISTRATION = ("/var/lib/dpkg/", "/var/log/", "/var/cache/", "/etc/passwd-", "/etc/group-", "/etc/shadow-", "/etc/gshadow-")


class Service(Process):
    """A program in a fresh root, under a service manager."""

    def __init__(self, stack, name, command):
        self.name = name
        super().__init__(stack)
        self.command = command

    def start(self):
        self.spawn(self.command)


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """The package, built from a copy of the sources."""
    if os.geteuid() != 0:
        pytest.skip("only root can install packages")
    tree = copy_tree(tmp_path_factory.mktemp("tree"))
    run("conf/build-deb", cwd=tree, seconds=600)  # it compiles everything
    assert not (tree / "debian").exists()
    (built,) = (tree / "build").glob("taskproxy_*.deb")
    return built


@pytest.fixture
def root(tmp_path):
    fresh = FreshRoot(tmp_path)
    yield fresh
    fresh.close()


@pytest.fixture
def deb(package, root):
    """Its path inside the root."""
    shutil.copy(package, root.path / "root")
    return f"/root/{package.name}"


# Administration


def edit(path, old, new, count=1):
    text = path.read_text()
    assert text.count(old) == count
    path.write_text(text.replace(old, new))


def configure(etc, stack):
    """One edit and one key file."""
    edit(etc / "taskproxy/taskproxy.json", "https://api.example.com", stack.standin.url)
    key = etc / "taskproxy/keys/main"
    key.touch(mode=0o600)
    key.write_text(stack.key + "\n")


def make_nginx_folders(root):
    """nginx creates directories such as /var/lib/nginx/body when it first reads a configuration with a server; they are not the package's."""
    (root.path / "root/empty.conf").write_text("events {}\nhttp { server { listen 127.0.0.1:1; } }\n")
    root.run("nginx", "-t", "-c", "/root/empty.conf")


def enable_site(etc, stack):
    (etc / "nginx/sites-enabled/default").unlink(missing_ok=True)
    (etc / "nginx/sites-enabled/taskproxy").symlink_to("../sites-available/taskproxy")
    site = etc / "nginx/sites-available/taskproxy"
    edit(site, "listen 80;", f"listen unix:{stack.nginx.socket};", count=2)
    edit(site, "listen 127.0.0.1:9180;", f"listen unix:{stack.nginx.status_socket};", count=2)


def trust(root, stack):
    with open(root.path / "etc/ssl/certs/ca-certificates.crt", "a") as certificates:
        certificates.write(Path(stack.standin.ca_file).read_text())


@contextlib.contextmanager
def running(root, stack, states=("READY", "STOPPING")):
    """Runs nginx and the service under a manager that must receive these states; checks on exit that both stopped cleanly."""
    manager, script = Manager(stack), (HERE / "as_systemd.py").read_text()
    service = Service(stack, "service", [*root.inside, "python3", "-c", script, "taskproxy", manager.variables["NOTIFY_SOCKET"]])
    web = Service(stack, "web", [*root.inside, "nginx", "-g", "daemon off;"])
    try:
        service.start()
        manager.wait("READY")
        web.start()
        web.wait_ready(lambda: stack.get("/readyz").status == 200)
        yield service, manager
        service.signal(signal.SIGTERM)
        assert service.process.wait(20) == 0, service.log()
        manager.wait("STOPPING")  # the report may be read later than the exit status
        assert manager.states() == [*states]
    finally:
        print(service.log(), web.log())
        web.stop()
        service.stop()
        manager.close()


@pytest.fixture
def installed(deb, root, make_stack):
    """The upstream of an installed and configured package; the test starts the service itself."""
    stack = make_stack(redis=False, daemon=False, nginx=False)
    trust(root, stack)
    root.run("dpkg", "-i", deb)
    configure(root.path / "etc", stack)
    enable_site(root.path / "etc", stack)
    return stack


def user_of(root, pid):
    """The name, inside the root, of the user that the process runs as."""
    (uid,) = set(status_of(pid, "Uid")[0])
    return re.search(rf"^(.*?):.*?:{uid}:", (root.path / "etc/passwd").read_text(), re.MULTILINE)[1]


def test_package_installs_serves_after_one_edit_and_purges_cleanly(deb, root, make_stack):
    root.run("lintian", "--allow-root", "--fail-on", "error", deb)
    stack = make_stack(redis=False, daemon=False, nginx=False)
    trust(root, stack)
    etc = root.path / "etc"
    make_nginx_folders(root)
    before, users = root.new_files(), (etc / "passwd").read_text()

    root.run("dpkg", "-i", deb)
    assert root.run("stat", "-c", "%U", "/run/taskproxy") == "taskproxy\n"
    assert root.run("taskproxy", "--version") == f"taskproxy {deb.split('_')[1]}\n"
    configure(etc, stack)
    assert root.run("taskproxy", "-t") == "/etc/taskproxy/taskproxy.json: ok\n"
    assert (etc / "nginx/sites-available/taskproxy-cluster").read_text() == (ROOT / "nginx/cluster.conf").read_text()
    assert root.run("taskproxy", "--print-nginx") == (etc / "nginx/taskproxy/upstream.conf").read_text()
    enable_site(etc, stack)
    root.run("nginx", "-t")

    with running(root, stack) as (service, _):
        answer = stack.task("task_1")
        assert answer.status == 200 and answer.json()["data"]["task_id"] == "task_1"
        assert stack.standin.seen("task_1")[0].headers["authorization"] == f"Bearer {stack.key}"
        assert user_of(root, service.pid) == "taskproxy"
        assert not re.search("error|passed by|Operation not permitted|locked", service.log())

    root.run("dpkg", "--purge", "taskproxy")
    left = {path for path in root.new_files() - before if not path.startswith(ADMINISTRATION)}
    assert left == set()
    assert (etc / "passwd").read_text() == users


# Key files

NO_CAPABILITY, READS_ALL = "0000000000000000", "0000000000000004"  # CAP_DAC_READ_SEARCH


def write_secret(path, text):
    path.parent.mkdir(mode=0o700, exist_ok=True)
    path.touch(mode=0o600)
    path.write_text(text + "\n")


def test_service_starts_with_any_key_files_that_the_configuration_names(installed, root):
    stack, etc = installed, root.path / "etc"
    (etc / "taskproxy/keys/main").unlink()
    files = {"keys/second": etc / "taskproxy/keys/second", "/etc/elsewhere/key": etc / "elsewhere/key",
             "credential:third": etc / "taskproxy/keys/third"}
    for number, path in enumerate(files.values()):
        stack.standin.keys.add(f"sk-of-file-{number}")
        write_secret(path, f"sk-of-file-{number}")
    edit(etc / "taskproxy/taskproxy.json", '["keys/main"]', str([*files]).replace("'", '"'))

    with running(root, stack) as (service, _):
        for number in range(6):
            assert stack.task(f"task_{number}").status == 200
        used = {stack.standin.seen(f"task_{number}")[0].headers["authorization"] for number in range(6)}
        assert used == {f"Bearer sk-of-file-{number}" for number in range(3)}
        assert status_of(service.pid, "CapPrm", "CapEff") == [[READS_ALL]] * 2
        for pid in children_of(service.pid):
            assert user_of(root, pid) == "taskproxy"
            assert status_of(pid, "CapPrm", "CapEff", "CapInh", "CapAmb") == [[NO_CAPABILITY]] * 4


# Upgrade

# Replaces systemctl for the maintainer scripts: runs the unit's ExecReload= and records every command.
SYSTEMCTL = """#!/bin/sh
echo "$*" >> /root/systemctl.log
case "$*" in
    *is-enabled*) echo enabled ;;
    *"reload taskproxy.service")
        [ ! -e /root/reload-fails ] || exit 1
        MAINPID={pid} CREDENTIALS_DIRECTORY=/run/credentials sh -ec "$(sed -n 's/^ExecReload=+*//p' /lib/systemd/system/taskproxy.service)" ;;
esac
"""


def stand_in_for_systemctl(root, pid):
    systemctl = root.path / "usr/local/sbin/systemctl"
    systemctl.write_text(SYSTEMCTL.format(pid=pid))
    systemctl.chmod(0o755)
    (root.path / "run/systemd/system").mkdir(parents=True)
    (root.path / "usr/sbin/policy-rc.d").unlink(missing_ok=True)


def chown(root, path, user):
    root.run("chown", user, f"/{path.relative_to(root.path)}")


def newer(root, deb):
    """The same package with a higher version."""
    root.run("sh", "-ec", f"""
        cd /root
        dpkg-deb --raw-extract {deb} newer
        sed -i 's/^Version: .*/&+newer/' newer/DEBIAN/control
        dpkg-deb --build --root-owner-group newer newer.deb
    """)
    return "/root/newer.deb"


def test_package_upgrade_reloads_without_failed_requests(installed, deb, root):
    stack, key, upgrade = installed, root.path / "etc/taskproxy/keys/main", newer(root, deb)

    with running(root, stack, states=("READY", "RELOADING", "READY", "STOPPING")) as (service, manager):
        stand_in_for_systemctl(root, service.pid)
        old = children_of(service.pid)
        key.chmod(0o644)
        told = root.run("dpkg", "-i", upgrade)
        assert "/keys/main\" can be read by others" in told and "the service continues with the old" in told
        refused = subprocess.run([*root.inside, "systemctl", "reload", "taskproxy.service"], capture_output=True, text=True)
        assert refused.returncode == 1 and "/keys/main\" can be read by others" in refused.stderr
        assert children_of(service.pid) == old and stack.task("task_1").status == 200
        key.chmod(0o600)
        (root.path / "root/reload-fails").touch()
        told = root.run("dpkg", "-i", upgrade)
        assert "the reload failed" in told and "journalctl -u taskproxy" in told and "refuses the configuration" not in told
        (root.path / "root/reload-fails").unlink()
        chown(root, key, "taskproxy")  # the service may read it, but a check as root refuses it
        with clients(stack) as failures:
            root.run("dpkg", "-i", upgrade)
            manager.wait("READY", count=2)
            stack.wait_until(lambda: not set(old) & set(children_of(service.pid)), what="the exit of the old workers")
        assert failures == []
        assert Path(f"/proc/{service.pid}/exe").samefile(root.path / "usr/sbin/taskproxy")
        assert len(workers_of(service.pid)) == 2
        asked = (root.path / "root/systemctl.log").read_text().splitlines()
        assert asked.index("--system daemon-reload") < asked.index("reload taskproxy.service")
        assert not [line for line in asked if re.search(r"restart|\bstop\b", line)]
