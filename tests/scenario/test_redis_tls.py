"""TLS to Redis, where hiredis has it: both sides prove who they are, and the reason of a failure is logged."""

import json
import os
import re
import shutil

import pytest

from helpers import REDIS_KEY, clients, readiness, said
from redises import HAS_TLS, Certificates, Server, with_tls
from sharing import wait_hearing
from standin import authority

def without_tls(test):
    return None if HAS_TLS else test


class Encrypted:
    """A Redis that requires certificates, and a daemon that has one."""

    def __init__(self, stack):
        self.stack, self.certificates = stack, Certificates(stack)
        self.redis = Server(stack, "redis-tls", self.certificates)
        self.redis.start()

    def configure(self, **tls) -> None:
        self.stack.configure(redis={"address": self.redis.address, "timeout": "5s", "tls": {**self.certificates.for_daemon, **tls}})


def wait_attempts(stack, server) -> None:
    """Waits for some connections. The log counts those whose handshake fails, too."""
    server.cli("CONFIG", "SET", "loglevel", "verbose")

    def accepted():
        return len(re.findall("Accepted|Error accepting a client", server.log()))

    before = accepted()
    stack.wait_until(lambda: accepted() >= before + 4, what="further attempts")


@pytest.fixture
def encrypted(make_stack):
    made = Encrypted(make_stack(daemon=False, nginx=False))
    yield made
    made.redis.stop()


@without_tls
def test_tls_is_refused_with_words_that_name_alternatives(make_stack):
    stack = make_stack(daemon=False, nginx=False)
    stack.configure(redis={"address": "127.0.0.1:6379", "tls": {"ca_file": "ca.pem"}})
    checked = stack.daemon.run("--check-config")
    assert checked.returncode == 1
    assert "/redis/tls: this build's hiredis library has no TLS" in checked.stderr and "stunnel" in checked.stderr


@with_tls
def test_results_are_stored_and_announced_over_tls(encrypted):
    stack = encrypted.stack
    encrypted.configure()
    stack.daemon.start()
    stack.nginx.start()
    wait_hearing(stack)
    stack.standin.switch(state="SUCCESS")
    assert stack.task("task_1").status == 200
    stack.wait_until(lambda: encrypted.redis.cli("EXISTS", f"{REDIS_KEY}task_1") == "1", what="the result")


@with_tls
def test_large_results_pass_through_tls(encrypted):
    """Larger than TLS records and than what hiredis reads at once, in both directions."""
    stack = encrypted.stack
    encrypted.configure()
    stack.daemon.start()
    stack.nginx.start()
    wait_hearing(stack)
    sizes = [8_000, 16_000, 16_384, 33_000, 1_000_000]
    for size in sizes:
        data = {"task_id": f"task_{size}", "status": "SUCCESS", "data": {"prompt": "x" * size}}
        stack.standin.switch(f"task_{size}", raw=json.dumps({"code": "success", "message": "", "data": data}))
        assert len(stack.ask_worker(f"/sora/v1/videos/task_{size}", 0).body) > size
        stack.wait_until(lambda: encrypted.redis.cli("EXISTS", f"{REDIS_KEY}task_{size}") == "1", what="the result")  # noqa: B023
    asked = [stack.background(stack.ask_worker, f"/sora/v1/videos/task_{size}", 1) for size in sizes]
    for size, answer in zip(sizes, asked):
        assert answer.result().body.count(b"x") >= size and "detail=redis" in answer.result().headers["cache-status"]
        assert stack.standin.count(f"task_{size}") == 1


@with_tls
@pytest.mark.problem("The TLS handshake with Redis fails")
def test_servers_and_clients_without_the_right_certificate_are_refused(encrypted):
    """No request fails. A server that refuses the client's certificate closes the connection, and its reason may be lost."""
    stack = encrypted.stack
    other = stack.folder / "other"
    other.mkdir()
    authority.make_ca(other)
    authority.issue(other, "client", "DNS:client.test", usage="clientAuth")
    wrong = [
        ({"server_name": None}, "IP address mismatch"),
        ({"server_name": "127.0.0.1"}, "IP address mismatch"),
        ({"server_name": "other.test"}, "hostname mismatch"),
        ({"ca_file": str(other / "ca.pem")}, "self-signed certificate in certificate chain"),
        ({"cert_file": None, "key_file": None}, None),
        ({"cert_file": str(other / "client.pem"), "key_file": str(other / "client.key")}, None),
    ]
    for settings, reason in wrong:
        encrypted.configure(**settings)
        stack.daemon.start()
        stack.wait_log(f"Redis at {encrypted.redis.address} is unavailable: ")
        if reason:
            assert {line.partition("unavailable: ")[2].partition(";")[0] for line in said(stack)} == {reason}
        assert readiness(stack)["status"] == "degraded"
        assert stack.ask_worker("/sora/v1/videos/task_1").status == 200
        stack.daemon.stop()
        os.truncate(stack.daemon.log_path, 0)


@with_tls
@pytest.mark.problem("The TLS handshake with Redis fails")
def test_server_without_tls_and_client_without_tls(encrypted):
    """One of the two does not encrypt. No request fails, and each worker logs one reason."""
    stack = encrypted.stack
    plain = Server(stack, "redis-plain")
    try:
        plain.start()
        for server, settings in ((plain, {"tls": encrypted.certificates.for_daemon}), (encrypted.redis, {"tls": None})):
            stack.configure(redis={"address": server.address, **settings})
            stack.daemon.start()
            stack.nginx.start()
            stack.wait_until(lambda: len(said(stack)) == 2, what="the reasons")
            asked = stack.metric("redis_commands_total")
            with clients(stack) as failures:
                wait_attempts(stack, server)
            assert failures == [] and stack.metric("redis_commands_total") == asked  # no request has waited for Redis
            print(said(stack))
            assert len(said(stack)) == 2
            stack.nginx.stop()
            stack.daemon.stop()
            os.truncate(stack.daemon.log_path, 0)
    finally:
        plain.stop()


@with_tls
def test_renewed_client_certificate_is_used_without_a_restart(encrypted):
    """The key is replaced first. Until its certificate is there, too, the previous ones stay in use."""
    stack = encrypted.stack
    encrypted.configure()
    stack.daemon.start()
    stack.nginx.start()
    wait_hearing(stack)
    certificates = encrypted.certificates
    authority.issue(certificates.folder, "new", "DNS:client.test", usage="clientAuth")
    for end, line in (("key", "is not the private key of cert_file"), ("pem", "starting new workers")):
        shutil.move(certificates.file(f"new.{end}"), certificates.file(f"client.{end}"))
        stack.wait_log(line)
    wait_hearing(stack)
