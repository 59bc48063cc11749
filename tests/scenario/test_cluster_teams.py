"""The access mode "nginx" on two hosts of a cluster: the nginx that has the client names the team, from the client's certificate,
and the host that serves the task decides what this team may do."""

import contextlib
import http.client
import re
import ssl
import subprocess

import pytest

from clustering import make_certificates, on_loopback, task_of
from parts import Answer, headers_of
from port import Port
from stack import Stack
from teaming import refusal, teams_stack
from watching import NATIVE, UNIFIED, Stream, end, run

FORBIDDEN = (403, "forbidden")
TEAMS = ("web", "film", "left", "unknown")  # "left" is a team only on the first host, "unknown" on none
NAMES = "".join(f'"CN={team},O=Example" {team}; ' for team in TEAMS)
KEY = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 1"
# As the comments in the files say.
CHANGES = {
    'fastcgi_param TASKPROXY_TEAM ""': "fastcgi_param TASKPROXY_TEAM $taskproxy_team",
    "#set $taskproxy_team": "set $taskproxy_team",
    "#proxy_set_header X-Taskproxy-Team": "proxy_set_header X-Taskproxy-Team",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Has the certificates of the hosts, and those of the teams: teams-ca.pem, TEAM.pem, TEAM.key."""
    folder = tmp_path_factory.mktemp("certificates")
    make_certificates(folder)
    commands = [f"openssl req -x509 {KEY} -subj '/CN=the teams' -keyout teams-ca.key -out teams-ca.pem"]
    commands += [f"openssl req -x509 -CA teams-ca.pem -CAkey teams-ca.key {KEY} -subj /O=Example/CN={team} "
                 f"-keyout {team}.key -out {team}.pem" for team in TEAMS]
    for command in commands:
        subprocess.run(["sh", "-ec", command], cwd=folder, check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def running(folder):
    """Each has an upstream of its own, and no Redis."""
    with contextlib.ExitStack() as stacks:
        def make(team):
            return teams_stack(lambda **settings: stacks.enter_context(Stack(**settings)), {team: {"providers": ["sora"]}}, "nginx",
                               daemon=False, redis=False, config={"workers": 1},
                               http=f"underscores_in_headers on;\nmap $ssl_client_s_dn $taskproxy_team {{ default ''; {NAMES} }}\n")

        made = [make("left"), make("music")]
        on_loopback(folder, *made)
        for stack in made:
            take_certificates(stack, folder)
            stack.daemon.start()
            stack.nginx.start()
        yield made


@pytest.fixture
def hosts(running):
    for host in running:
        end(host)
    return running


def take_certificates(stack, folder) -> None:
    """Clients reach the site over TLS."""
    port = Port()
    stack.nginx.ports.append(port)
    stack.client_port, stack.certificates = port.number, folder
    stack.nginx.changes |= CHANGES | {
        "server_name localhost 127.0.0.1; # and":
            f"listen 127.0.0.1:{port.number} ssl;\n    ssl_certificate {folder}/host.pem;\n    ssl_certificate_key {folder}/host.key;\n"
            f"    ssl_client_certificate {folder}/teams-ca.pem;\n    ssl_verify_client optional;\n    server_name localhost; # and",
    }


class Client:
    """A host, as clients with a team's certificate reach it. Stream and the like take it for a stack."""

    def __init__(self, host, team=None):
        self.host, self.nginx = host, self
        self._context = ssl.create_default_context(cafile=host.certificates / "hosts-ca.pem")
        self._context.check_hostname = False
        if team:
            self._context.load_cert_chain(host.certificates / f"{team}.pem", host.certificates / f"{team}.key")

    def connection(self, seconds=30, port=None):
        return http.client.HTTPSConnection("127.0.0.1", port or self.host.client_port, timeout=seconds, context=self._context)

    def get(self, path, headers=None, port=None):
        """Another port is that for other hosts."""
        with contextlib.closing(self.connection(port=port)) as connection:
            connection.request("GET", path, headers=headers or {})
            response = connection.getresponse()
            names = headers_of(response)
            assert port or not [name for name in names if name.startswith("x-taskproxy")]
            return Answer(response.status, names, response.read())

    def task(self, task, headers=None):
        return self.get(NATIVE + task, headers)


def logged_team(log, request_id) -> str:
    return next((re.search(r" team=(\S+) ", line)[1] for line in log.read_text().splitlines() if f" id={request_id} " in line), None)


def assert_logged(first, second, answer, team) -> None:
    """First has got the request, and passed it on to second."""
    request_id = answer.headers["x-request-id"]
    for log in (first.folder / "access.log", second.folder / "peers.log"):
        assert first.wait_until(lambda log=log: logged_team(log, request_id), what=f"the request in {log.name}") == team


@pytest.mark.parametrize("path", [NATIVE + "{}", UNIFIED + "{}", "/v1/tasks?ids=sora/{}", NATIVE + "{}?wait=5", UNIFIED + "{}/content/0"])
def test_team_gets_its_task_from_the_other_host(hosts, path):
    first, second = hosts
    path = path.format(task_of(second))
    answer = Client(first, "web").get(path)
    assert answer.status == (302 if "content" in path else 200)
    if "ids" not in path:
        assert_logged(first, second, answer, "web")
    refused = Client(first).get(path)
    assert refused.status == 403 or refused.json()["tasks"][0]["code"] == "forbidden"


def test_team_follows_its_task_on_the_other_host(hosts):
    first, second = hosts
    task = task_of(second)
    run(second, task_id=task)
    with Stream(Client(first, "web"), NATIVE + task) as stream:
        assert stream.next().data["data"]["status"] == "IN_PROGRESS"
        end(second, task)
        assert stream.next().data["data"]["status"] == "SUCCESS" and stream.next() is None


@pytest.mark.parametrize("name", ["X-Taskproxy-Team", "X_Taskproxy_Team", "TASKPROXY_TEAM", "Taskproxy-Team"])
def test_client_cannot_name_its_team(hosts, name):
    first, second = hosts
    task = task_of(second)
    for path in (NATIVE + task, f"{NATIVE}{task}?wait=1"):
        for host in hosts:
            assert refusal(Client(host).get(path, {name: "web"})) == FORBIDDEN
            answer = Client(host, "film").get(path, {name: "web"})
            assert answer.status == 200
            assert_logged(host, second, answer, "film")


def test_only_hosts_reach_the_listener_that_believes_the_header(hosts):
    first, _ = hosts
    host, team = {"Host": "taskproxy-hosts"}, {"X-Taskproxy-Team": "web"}
    for client in (Client(first), Client(first, "web")):
        assert client.get(NATIVE + "t", host | team, first.peer_port).status == 400
    assert Client(first, "host").get(NATIVE + "t", host | team, first.peer_port).status == 200
    assert Client(first, "host").get(NATIVE + "t", host, first.peer_port).status == 403


def test_host_that_serves_the_task_decides_about_the_team(hosts):
    first, second = hosts
    here, there = task_of(first), task_of(second)
    for host in hosts:
        assert Client(host, "left").task(here).status == 200
        assert refusal(Client(host, "left").task(there)) == FORBIDDEN
        assert refusal(Client(host, "unknown").task(here)) == refusal(Client(host, "unknown").task(there)) == FORBIDDEN
    assert first.standin.count(there) == second.standin.count(here) == 0


def test_own_workers_know_the_team_when_no_other_host_answers(hosts):
    first, second = hosts
    task = task_of(second)
    second.nginx.kill()
    assert Client(first, "web").task(task).status == 200
    assert refusal(Client(first).task(task, {"X-Taskproxy-Team": "web"})) == FORBIDDEN
    second.nginx.start()
    first.nginx.kill()  # or it would not use the second host for 10 s
    first.nginx.start()


def test_nginx_has_no_warning(hosts):
    assert [host for host in hosts if "[warn]" in host.nginx.log()] == []
