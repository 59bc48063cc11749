"""The Debian package, from its making to its end, as an administrator meets it."""

import contextlib
import json
import os
import re
import shutil
import signal
from pathlib import Path

import pytest

from installing import FreshRoot, copy_tree, run
from managing import Manager
from parts import Process, UnixConnection

HERE = Path(__file__).parent
# What dpkg and others keep of all packages and users.
ADMINISTRATION = ("/var/lib/dpkg/", "/var/log/", "/var/cache/", "/etc/passwd-", "/etc/group-", "/etc/shadow-", "/etc/gshadow-")


class Service(Process):
    """A program in a fresh root, under a service manager."""

    def __init__(self, stack, name, command):
        self.name = name
        super().__init__(stack)
        self.command = command

    def start(self):
        self.spawn(self.command)


@pytest.fixture
def root(tmp_path):
    if os.geteuid() != 0:
        pytest.skip("only root can install packages")
    fresh = FreshRoot(tmp_path)
    yield fresh
    fresh.close()


@pytest.fixture
def deb(tmp_path_factory, root):
    """The package, built from a copy of the sources: its path inside of the root."""
    tree = copy_tree(tmp_path_factory.mktemp("tree"))
    run("conf/build-deb", cwd=tree)
    assert not (tree / "debian").exists()
    (package,) = (tree / "build").glob("taskproxy_*.deb")
    shutil.copy(package, root.path / "root")
    return f"/root/{package.name}"


# What an administrator does


def edit(path, old, new):
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))


def configure(etc, stack):
    """One edit and one key file."""
    edit(etc / "taskproxy/taskproxy.json", "https://api.example.com", stack.standin.url)
    key = etc / "taskproxy/keys/main"
    key.touch(mode=0o600)
    key.write_text(stack.key + "\n")


def make_nginx_folders(root):
    """nginx makes its folders, such as /var/lib/nginx/body, when it first reads a configuration; they are not ours."""
    (root.path / "root/empty.conf").write_text("events {}\nhttp {}\n")
    root.run("nginx", "-t", "-c", "/root/empty.conf")


def enable_site(etc, stack):
    (etc / "nginx/sites-enabled/default").unlink(missing_ok=True)
    (etc / "nginx/sites-enabled/taskproxy").symlink_to("../sites-available/taskproxy")
    edit(etc / "nginx/sites-available/taskproxy", "listen 80;", f"listen unix:{stack.folder}/site.sock;")


def ask(stack, target):
    connection = UnixConnection(f"{stack.folder}/site.sock", 20)
    connection.request("GET", target)
    response = connection.getresponse()
    return response.status, response.read()


@contextlib.contextmanager
def running(root, stack):
    """The service under a manager, and nginx; all has ended well when this has."""
    manager, script = Manager(stack), (HERE / "as_systemd.py").read_text()
    service = Service(stack, "service", [*root.inside, "python3", "-c", script, "taskproxy", manager.variables["NOTIFY_SOCKET"]])
    web = Service(stack, "web", [*root.inside, "nginx", "-g", "daemon off;"])
    try:
        service.start()
        manager.wait("READY")
        web.start()
        web.wait_ready(lambda: ask(stack, "/readyz")[0] == 200)
        yield service
        service.signal(signal.SIGTERM)
        assert service.process.wait(20) == 0, service.log()
        assert manager.states() == ["READY", "STOPPING"]
    finally:
        print(service.log(), web.log())
        web.stop()
        service.stop()
        manager.close()


def user_of(root, pid):
    """The name, inside of the root, of whom the process runs as."""
    (uid,) = set(re.search(r"^Uid:(.*)$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)[1].split())
    return re.search(rf"^(.*?):.*?:{uid}:", (root.path / "etc/passwd").read_text(), re.MULTILINE)[1]


def test_the_package_installs_serves_after_one_edit_and_goes_without_a_trace(deb, root, make_stack):
    root.run("lintian", "--allow-root", "--fail-on", "error", deb)
    stack = make_stack(redis=False, daemon=False, nginx=False)
    with open(root.path / "etc/ssl/certs/ca-certificates.crt", "a") as certificates:
        certificates.write(Path(stack.standin.ca_file).read_text())
    etc = root.path / "etc"
    make_nginx_folders(root)
    before, users = root.new_files(), (etc / "passwd").read_text()

    root.run("dpkg", "-i", deb)
    assert root.run("stat", "-c", "%U", "/run/taskproxy") == "taskproxy\n"
    assert root.run("taskproxy", "--version") == f"taskproxy {deb.split('_')[1]}\n"
    configure(etc, stack)
    by_hand = ["env", "CREDENTIALS_DIRECTORY=/etc/taskproxy/keys", "taskproxy"]
    assert root.run(*by_hand, "-t") == "/etc/taskproxy/taskproxy.json: ok\n"
    assert root.run(*by_hand, "--print-nginx") == (etc / "nginx/taskproxy/upstream.conf").read_text()
    enable_site(etc, stack)
    root.run("nginx", "-t")

    with running(root, stack) as service:
        status, body = ask(stack, "/sora/v1/videos/task_1")
        assert status == 200 and json.loads(body)["data"]["task_id"] == "task_1"
        assert stack.standin.seen("task_1")[0].headers["authorization"] == f"Bearer {stack.key}"
        assert user_of(root, service.pid) == "taskproxy"
        assert not re.search("error|passed by|sandbox|locked", service.log())

    root.run("dpkg", "--purge", "taskproxy")
    left = {path for path in root.new_files() - before if not path.startswith(ADMINISTRATION)}
    assert left == set()
    assert (etc / "passwd").read_text() == users
