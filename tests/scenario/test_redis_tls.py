"""TLS to Redis, where hiredis has it: both sides prove who they are, and the reason of a failure is logged."""

import os
import shutil

import pytest

from helpers import REDIS_KEY, readiness, said
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
