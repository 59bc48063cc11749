"""The container: the program as process 1 under Docker's default restrictions, and the files that build the images."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import needs
from helpers import clients, sockets, status_of, wait_gone
from parts import WEB_GROUP, children_of, process_state, workers_of
from stack import ROOT, read_json

FOLDER = ROOT / "conf" / "container"
AS_DOCKER = [sys.executable, str(Path(__file__).parent / "as_docker.py")]
NEW_NAMESPACES = ["--pid", "--mount-proc", "--fork"]


def contain(stack, *wrapper):
    """Starts the stack's daemon as process 1 of new namespaces; returns its pid outside when it is ready."""
    daemon = stack.daemon
    daemon.wrapper = ["unshare", *NEW_NAMESPACES, "--kill-child", "--", *wrapper]

    def process_1():
        return next(iter(children_of(daemon.pid)), None)

    def send(number):
        if pid := process_1():
            os.kill(pid, number)

    daemon.signal = send  # unshare does not forward signals
    daemon.start()
    return process_1()


@pytest.fixture
def make_contained(make_stack):
    needs.namespaces(*NEW_NAMESPACES)

    def make(*wrapper, **settings):
        stack = make_stack(daemon=False, redis=False, **settings)
        return stack, contain(stack, *wrapper)

    return make


# Process 1


def test_process_1_reloads_on_hup_without_failed_requests(make_contained):
    stack, master = make_contained()
    assert status_of(master, "NSpid") == [[str(master), "1"]]
    old = workers_of(master)
    assert len(old) == 2
    with clients(stack) as failures:
        stack.configure(workers=3)
        stack.daemon.hup()
        stack.wait_metric("workers_ready", 3)
        wait_gone(stack, *old)
    assert failures == []
    assert len(workers_of(master)) == 3


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_process_1_drains_on_term(make_contained, number):
    stack, master = make_contained()
    with stack.standin.hold("held") as barrier:
        held = stack.background(stack.task, "held")
        barrier.wait_arrived(1)
        stack.daemon.signal(number)
        stack.wait_log("stopping")
        assert process_state(master)[0] not in "ZX"
    assert held.result().status == 200
    assert stack.daemon.process.wait(20) == 0
    assert sockets(stack) == []


def test_process_1_reaps_orphans(make_contained):
    stack, master = make_contained()
    known = set(children_of(master))
    fifo = stack.folder / "fifo"
    os.mkfifo(fifo)
    inside = ["nsenter", "--target", str(master), "--pid", "sh", "-c", f"read line < {fifo} &"]
    subprocess.run(inside, check=True, timeout=20, stdin=subprocess.DEVNULL)
    orphans = stack.wait_until(lambda: set(children_of(master)) - known, what="an orphan")
    fifo.write_text("end\n")
    stack.wait_until(lambda: {process_state(pid)[0] for pid in orphans} == {"X"}, what="the orphan to be reaped")
    assert stack.task("task_1").status == 200


def test_process_1_replaces_a_dead_worker(make_contained):
    stack, master = make_contained()
    worker = workers_of(master)[0]
    os.kill(worker, signal.SIGKILL)
    stack.wait_metric("worker_deaths_total", 1)
    stack.wait_metric("workers_ready", 2)
    wait_gone(stack, worker)
    assert len(workers_of(master)) == 2


def test_process_1_logs_why_it_cannot_start_and_exits(make_contained):
    stack, _ = make_contained()
    stack.daemon.stop()
    stack.configure(workers="many")
    command = [*stack.daemon.wrapper, stack.daemon.binary, "-c", str(stack.daemon.config_file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, env=stack.daemon.environment())
    assert done.returncode == 1
    assert re.search(r":\d+: /workers: must be a whole number\n$", done.stderr)


# Docker's system call filter


@needs.root
def test_workers_load_their_filter_under_dockers_default_one(make_stack):
    needs.namespaces(*NEW_NAMESPACES)
    user = ["setpriv", "--reuid=10001", f"--regid={WEB_GROUP}", "--clear-groups", "--no-new-privs", "--bounding-set=-all", "--"]
    probe = subprocess.run([*user, *AS_DOCKER, "unshare", "--user", "true"], capture_output=True, text=True, timeout=20)
    assert "Operation not permitted" in probe.stderr
    stack = make_stack(daemon=False, redis=False)
    stack.socket_dir.mkdir()
    for path in (stack.socket_dir, stack.key_file):
        os.chown(path, 10001, -1)
    master = contain(stack, *user, *AS_DOCKER)
    assert status_of(master, "Uid", "CapPrm", "Seccomp_filters") == [4 * ["10001"], [16 * "0"], ["1"]]
    stack.wait_metric("workers_ready", 2)
    assert [status_of(pid, "Seccomp", "Seccomp_filters") for pid in workers_of(master)] == 2 * [[["2"], ["2"]]]
    assert "sandbox" not in stack.daemon.log()
    with clients(stack) as failures:
        stack.daemon.hup()
        stack.wait_metric("reloads_total", 1, result="done")
    assert failures == []


# The files


@pytest.fixture(scope="module")
def compose():
    return yaml.safe_load((FOLDER / "compose.yaml").read_text())


@pytest.fixture(scope="module")
def stages():
    """{stage: [instruction, …]} of the Dockerfile, continuation lines joined."""
    text = re.sub(r"^#.*\n", "", (FOLDER / "Dockerfile").read_text(), flags=re.MULTILINE)
    found = {}
    for line in filter(None, text.replace("\\\n", " ").splitlines()):
        if match := re.fullmatch(r"FROM \S+ AS (\w+)", line):
            stage = found[match[1]] = []
        elif found:
            stage.append(line)
    return found


def instructions(stage, word):
    return [line.removeprefix(word).strip() for line in stage if line.startswith(f"{word} ")]


def seconds(text):
    return int(re.fullmatch(r"(\d+)s", text)[1])


def test_dockerfile_copies_existing_files(stages):
    for stage in stages.values():
        for line in instructions(stage, "COPY"):
            *sources, _ = [word for word in line.split() if not word.startswith("--")]
            if origin := re.search(r"--from=(\w+)", line):
                assert origin[1] in stages
            else:
                assert all(list(ROOT.glob(source)) for source in sources), line


def test_image_runs_as_unprivileged_user_without_a_shell(stages):
    (user,) = instructions(stages["taskproxy"], "USER")
    assert re.fullmatch(r"[1-9]\d*:33", user)  # Debian's number of www-data, nginx's group
    for name in ("taskproxy", "nginx"):
        (entry,) = instructions(stages[name], "ENTRYPOINT")
        assert json.loads(entry)[0].startswith("/usr/sbin/")
    assert not instructions(stages["taskproxy"], "RUN")


def test_image_build_fails_with_an_invalid_configuration(stages):
    (check,) = [line for line in instructions(stages["check"], "RUN") if "--check-config" in line]
    made = re.search(r"--print-nginx > (\S+)", check)[1]
    for name in ("taskproxy", "nginx"):
        assert any(line.startswith(f"--from=check {made} ") for line in instructions(stages[name], "COPY"))


def test_compose_builds_existing_stages(compose, stages):
    built = [service["build"] for service in compose["services"].values() if "build" in service]
    assert {build["target"] for build in built} == {"taskproxy", "nginx"} <= stages.keys()
    for build in built:
        assert (FOLDER / build["context"]).resolve() == ROOT
        assert (ROOT / build["dockerfile"]) == FOLDER / "Dockerfile"


def test_compose_and_configuration_use_the_same_paths(compose, stages):
    services, conf, shipped = compose["services"], read_json(FOLDER / "taskproxy.json"), read_json(ROOT / "conf/taskproxy.json")
    mounts = {name: dict(volume.split(":")[:2] for volume in service["volumes"]) for name, service in services.items()}
    assert set().union(*mounts.values()) == compose["volumes"].keys()
    assert mounts["taskproxy"]["sockets"] == mounts["nginx"]["sockets"] == shipped["socket_dir"]

    valkey = services["valkey"]["entrypoint"]
    assert conf["redis"]["address"] == f"unix:{valkey[valkey.index('--unixsocket') + 1]}"
    assert mounts["valkey"]["valkey"] == mounts["taskproxy"]["valkey"] == os.path.dirname(conf["redis"]["address"][5:])

    (secrets,) = [line.split("=")[1] for line in instructions(stages["taskproxy"], "ENV")]
    assert secrets == "/run/secrets"
    assert conf["upstreams"]["main"]["key_files"] == [f"credential:{name}" for name in compose["secrets"]]
    assert services["taskproxy"]["secrets"] == list(compose["secrets"])


def test_compose_gives_each_user_its_socket_directory(compose, stages):
    (user,) = instructions(stages["taskproxy"], "USER")
    users = {"sockets": user, "valkey": compose["services"]["valkey"]["user"]}
    for name, volume in compose["volumes"].items():
        uid, gid = users[name].split(":")
        assert volume["driver_opts"]["o"] == f"mode=0750,uid={uid},gid={gid}"
    assert len(set(users.values())) == 2


def test_compose_stop_grace_period_exceeds_drain(compose):
    assert seconds(compose["services"]["taskproxy"]["stop_grace_period"]) > seconds(read_json(ROOT / "conf/taskproxy.json")["drain"])


def test_container_configuration_is_valid_with_the_secrets_of_compose(make_stack, tmp_path, compose):
    stack = make_stack(daemon=False, redis=False, nginx=False)
    conf = tmp_path / "taskproxy.json"
    conf.write_text((FOLDER / "taskproxy.json").read_text())
    (tmp_path / "providers").symlink_to(ROOT / "conf/providers")
    for name in compose["secrets"]:
        stack.write_key("sk-0123456789", file=tmp_path / name)
    stack.daemon.config_file = conf
    done = stack.daemon.run("--check-config", CREDENTIALS_DIRECTORY=str(tmp_path))
    assert (done.stdout, done.stderr) == (f"{conf}: ok\n", "")
    printed = stack.daemon.run("--print-nginx", CREDENTIALS_DIRECTORY=str(tmp_path)).stdout
    assert printed.count("server unix:/run/taskproxy/worker-") == read_json(conf)["workers"]
