"""Queries go only to the configured origin, at an allowed address, and carry nothing but the task and the key."""

import gzip
import re
import socket
import zlib

import pytest

import needs

INSIDE = {
    "127.0.0.1": "a loopback address", "127.8.8.8": "a loopback address", "10.1.2.3": "a private address",
    "172.31.0.1": "a private address", "192.168.1.1": "a private address", "100.64.0.1": "a private address",
    "169.254.169.254": "a link-local address",
    "0.0.0.0": "an address that no host can have", "224.0.0.1": "an address that no host can have",
    "::1": "a loopback address", "fd00::1": "a private address", "fe80::1": "a link-local address",
    "::ffff:127.0.0.1": "a loopback address", "64:ff9b::10.0.0.1": "a private address",
}


def outcome(answer) -> tuple:
    return answer.status, answer.json()["code"]


def start_with_hosts(stack, hosts: dict, *, network: bool) -> None:
    """Starts the daemon where NAME.test resolves to its address, in a namespace without a network."""
    file = stack.folder / "hosts"
    file.write_text("".join(f"{address} {name}.test\n" for name, address in hosts.items()))
    namespaces = ["--mount"] if network else ["--mount", "--net"]
    needs.namespaces(*namespaces)
    stack.daemon.wrapper = ["unshare", *namespaces, "sh", "-c", f'mount --bind {file} /etc/hosts && exec "$@"', "sh"]
    stack.daemon.start()
    stack.nginx.start()


def of_names(names, **upstream) -> dict:
    """A configuration with an upstream NAME.test for each name, and a route to it at /NAME/{task_id}."""
    return {
        "workers": 1,
        "upstreams": {"main": None, **{name: upstream | {"base_url": f"https://{name}.test"} for name in names}},
        "routes": [{"provider": "sora", "upstream": name, "path": f"/{name}/{{task_id}}"} for name in names],
    }


# Addresses


@needs.root
def test_name_that_resolves_to_an_internal_address_is_not_queried_and_logged_once(make_stack):
    stack = make_stack(daemon=False, nginx=False)
    hosts = {f"name-{number}": address for number, address in enumerate(INSIDE) if ":" not in address or has_ipv6()}
    key = {"key_files": [str(stack.key_file)], "breaker_failures": 0}
    stack.configure(**of_names(hosts, **key))
    start_with_hosts(stack, hosts, network=False)
    for name, address in hosts.items():
        answers = [stack.get(f"/{name}/task_{number}") for number in range(3)]
        assert [outcome(answer) for answer in answers] == 3 * [(502, "upstream_error")]
        assert not [answer for answer in answers if address in repr(answer) or name in repr(answer)]
        said = [line for line in stack.daemon.log().splitlines() if f"upstream {name}:" in line]
        assert len(said) == 1 and f"resolves to {INSIDE[address]}" in said[0]


def has_ipv6() -> bool:
    try:
        socket.socket(socket.AF_INET6).close()
    except OSError:
        return False
    return True


@needs.root
@pytest.mark.parametrize("addresses, status", [(None, 502), ("public", 502), ("private", 502), ("any", 200)])
def test_loopback_is_allowed_only_with_addresses_any(make_stack, addresses, status):
    stack = make_stack(daemon=False, nginx=False)
    url = stack.standin.url.replace("127.0.0.1", "upstream.test")
    stack.configure(upstreams={"main": {"base_url": url, "addresses": addresses}})
    start_with_hosts(stack, {"upstream": "127.0.0.1"}, network=True)
    assert stack.task("t").status == status
    assert stack.standin.counts()["connections"] == (1 if status == 200 else 0)


@needs.root
def test_private_networks_are_allowed_with_addresses_private(make_stack):
    """The address is allowed, although nothing answers there."""
    stack = make_stack(daemon=False, nginx=False)
    stack.configure(**of_names(["inside"], key_files=[str(stack.key_file)], addresses="private"))
    start_with_hosts(stack, {"inside": "10.1.2.3"}, network=False)
    assert outcome(stack.get("/inside/t")) == (502, "upstream_error")
    line = stack.wait_log("upstream inside: could not be reached")
    assert "resolves to" not in line


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_literal_address_in_base_url_is_queried(make_stack, host):
    stack = make_stack(daemon=False, nginx=False)
    stack.configure(upstreams={"main": {"base_url": stack.standin.url.replace("127.0.0.1", host)}})
    stack.daemon.start()
    stack.nginx.start()
    assert stack.task("t").status == 200


def test_unknown_value_of_addresses_is_refused(make_stack):
    stack = make_stack(config={"upstreams": {"main": {"addresses": "all"}}}, daemon=False, nginx=False)
    done = stack.daemon.run("--check-config")
    assert done.returncode != 0
    assert re.search(r"taskproxy\.json:\d+: /upstreams/main/addresses: .*public.*private.*any", done.stderr)


# The environment


def test_proxy_variables_are_ignored(make_stack, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        for name in ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.getsockname()[1]}")
        stack = make_stack()
        assert stack.task("t").status == 200
        proxy.setblocking(False)
        with pytest.raises(BlockingIOError):
            proxy.accept()


def test_sslkeylogfile_is_ignored(make_stack, monkeypatch, tmp_path):
    tmp_path.chmod(0o777)
    for folder in list(tmp_path.parents)[:-2]:
        folder.chmod(folder.stat().st_mode | 0o011)
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "keys"))
    stack = make_stack()
    assert stack.task("t").status == 200
    assert list(tmp_path.iterdir()) == []


# Contents of queries and answers


def test_query_has_only_the_task_the_key_and_nothing_from_the_client(stack):
    theirs = {"Authorization": "Bearer theirs", "Cookie": "a=b", "X-Api-Key": "theirs", "Accept-Encoding": "gzip, br",
              "User-Agent": "theirs", "X-Forwarded-For": "192.0.2.1", "Referer": "https://theirs.example/"}
    assert stack.task("t", theirs).status == 200
    (query,) = stack.standin.seen("t")
    assert query.headers == {
        "host": stack.standin.url.removeprefix("https://"), "user-agent": "taskproxy", "accept": "application/json",
        "authorization": f"Bearer {stack.key}",
    }


def test_cookies_of_the_upstream_are_not_returned(make_stack):
    stack = make_stack(config={"workers": 1})
    stack.standin.switch(headers={"Set-Cookie": "session=1; Path=/"})
    answers = [stack.task(task_id) for task_id in ("one", "two", "three")]
    assert not [answer for answer in answers if answer.status != 200 or "set-cookie" in answer.headers]
    assert not [query for query in stack.standin.seen() if "cookie" in query.headers]


def test_unrequested_compression_is_invalid(stack):
    packed = gzip.compress(b'{"code":"success","data":{"status":"SUCCESS"}}')
    for coding in ("gzip", "deflate", "br", "gzip, gzip"):
        stack.standin.switch(coding[-4:], raw=packed, headers={"Content-Encoding": coding})
        assert outcome(stack.task(coding[-4:])) == (502, "upstream_invalid")


def test_compression_bomb_is_cut_off_at_max_body(stack):
    bomb = zlib.compressobj(wbits=31)
    packed = bomb.compress(b'{"code":"success","data":{"status":"SUCCESS","x":"' + bytes(256 << 20)) + bomb.flush()
    head = "HTTP/1.1 200 OK\r\nConnection: close\r\nTransfer-Encoding: gzip\r\n\r\n"
    stack.standin.switch("bomb", wire=head.encode() + packed)
    stack.standin.switch("content", raw=packed, headers={"Content-Encoding": "gzip"})
    before = peak_memory(stack)
    for task_id in ("bomb", "content"):
        assert outcome(stack.task(task_id)) == (502, "upstream_invalid")
    assert peak_memory(stack) < before + (64 << 10)


def peak_memory(stack) -> int:
    """Resident memory of the largest worker, in KiB."""
    texts = [open(f"/proc/{pid}/status").read() for pid in stack.daemon.workers()]
    return max(int(re.search(r"VmHWM:\s+(\d+) kB", text)[1]) for text in texts)
