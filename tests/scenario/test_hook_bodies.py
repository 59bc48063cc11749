"""The bodies of webhooks are untrusted: their size is limited and none is stored. The secret in the URL is never
logged."""

import functools
import json
import os
from pathlib import Path

import pytest

from fastcgi import PARAMS, STDIN, Closed, Connection, begin, pairs, record, stream, task_params
from hooking import (
    HOOK, SECRET, hook, hooked_maker, naming, one_hooked, post, post_to_worker, problem, secret_file, settings,
)
from recorded import expectation
from shipped import PROVIDERS, cases
from watching import NATIVE, run

make_hooked = pytest.fixture(hooked_maker)
hooked = pytest.fixture(scope="module")(one_hooked)
BAD, LARGE = (400, "bad_request"), 413
LIMIT = 32 * 1024


# The task named in the body


@pytest.mark.parametrize("body", [
    '{"task_id": "named-%d"}', '{"data": {"task_id": "named-%d"}}', ' \r\n\t{ "task_id" :\n"named-%d" } \n',
    '{"x": [1, {"task_id": "other"}], "task_id": "named-%d", "task_ids": ["other"]}',
    '{"task_id": null, "data": {"task_id": "named-%d"}}', '{"task_id": "no good", "data": {"task_id": "named-%d"}}',
    '{"task_id": {"task_id": "x"}, "data": {"task_id": "named-%d"}}', '{"task_id": "named-%d", "data": {"task_id": "other"}}',
    '{"task_id": "named-%d", "data": "x"}', '{"task_id": "\\u006eamed-%d"}', '{"task_id": "named-%d", "ä": "€ \\u20ac 😀"}',
], ids=range(11))
def test_first_matching_pointer_names_the_task(hooked, body, request):
    number = request.node.callspec.indices["body"]
    run(hooked, "7%", f"named-{number}")
    assert post(hooked, (body % number).encode()).status == 204
    hooked.standin.wait_count(1, f"named-{number}")
    assert hooked.standin.count("other") == 0


def test_numeric_id_is_accepted(hooked):
    run(hooked, "7%", "12345")
    assert post(hooked, b'{"task_id": 12345}').status == 204
    hooked.standin.wait_count(1, "12345")


def test_shipped_providers_find_the_task_where_their_file_says(make_stack, tmp_path):
    stack = make_stack(every_provider=True, daemon=False, nginx=False)
    settings(tmp_path)
    taking = {name: provider["hook"] for name, provider in PROVIDERS.items() if provider.get("hook")}
    stack.configure(routes=[
        {**route, "hook_secret_file": str(secret_file(tmp_path))} if route["provider"] in taking else route
        for route in stack.config["routes"]])
    stack.daemon.start()
    stack.nginx.start()
    for provider, pointers in taking.items():
        *variables, task = expectation(provider, cases(provider)[0])["task"].split("/")
        others = "".join("/" + variable for variable in variables)
        for pointer in [pointers] if isinstance(pointers, str) else pointers:
            body = json.dumps(functools.reduce(lambda inner, name: {name: inner}, reversed(pointer.split("/")[1:]), task))
            assert post(stack, body.encode(), f"/v1/hooks/{provider}/{SECRET}{others}").status == 204, (provider, pointer)
        stack.wait_until(lambda: any(f"{others}/" in query.target and task in query.target or not others and task in query.target
                                     for query in stack.standin.seen()), what=f"{provider}'s query")
        stack.standin.reset_counts()
    assert len(taking) >= 20
    assert_variables_of_the_url_count(stack)


def assert_variables_of_the_url_count(stack):
    """The other variables of a task stand in the URL: as many as the path has, and valid ones."""
    def status(path: str, task="bad") -> int:
        return post(stack, json.dumps({"request_id": task, "task_id": task}).encode(), "/v1/hooks/" + path).status

    assert status(f"fal/{SECRET}/fal-ai/pika?x=/y") == status(f"kling/{SECRET}/motion-control") == 204
    stack.wait_until(lambda: stack.standin.count("bad") >= 2, what="the queries")
    for path in ("fal/SECRET", "fal/SECRET/fal-ai", "fal/SECRET/fal-ai/pika/", "fal/SECRET/fal-ai/pika/x", "fal/SECRET/?/fal-ai/pika",
                 "fal/wrong/fal-ai/pika", "kling/SECRET/text2video/x", "kling/text2video/SECRET"):
        assert status(path.replace("SECRET", SECRET)) == 404, path
    for path in ("fal/SECRET//pika", "fal/SECRET/fal-ai/..", "fal/SECRET/fal-ai/p%69ka", "kling/SECRET/nonsense", "kling/SECRET/",
                 "kling/SECRET/" + 300 * "x"):
        assert status(path.replace("SECRET", SECRET)) == 400, path
    assert status(f"kling/{SECRET}/text2video", "text2video/bad") == status(f"fal/{SECRET}/fal-ai/pika", 300 * "x") == 400


@pytest.mark.parametrize("content_type", [None, "", "text/plain", "application/x-www-form-urlencoded", "x" * 1000, "é"])
def test_content_type_does_not_matter(hooked, content_type):
    headers = {} if content_type is None else {"Content-Type": content_type.encode()}
    assert hooked.get(HOOK, headers, "POST", naming("typed")).status == 204


@pytest.mark.parametrize("body", [
    b"", b" ", b"\n", b"\0", b"{", b"}", b"[]", b"{}", b"null", b"true", b"1", b'"task_id"', b"task_id=bad", b"\xff\xfe{}",
    b"\xef\xbb\xbf" + naming("bad"), naming("bad") + b"x", naming("bad") * 2, naming("bad")[:-1], b"<task_id>bad</task_id>",
    b'{"task_id": "bad", "task_id": "bad"}', b'{"task_id": "bad" /* x */}', b"{'task_id': 'bad'}", b'{"task_id": NaN}',
    b'{"task_id": null}', b'{"task_id": true}', b'{"task_id": 1.5}', b'{"task_id": []}', b'{"task_id": ["bad"]}',
    b'{"task_id": ""}', b'{"task_id": "b d"}', b'{"task_id": "../bad"}', b'{"task_id": "bad/../bad"}',
    b'{"task_id": "b\\u0000d"}',
    b'{"task_id": "bad\xff"}', b'{"task_id": "\xc3\xa9"}', b'{"task_id": "%s"}' % (b"x" * 129), b'{"taskid": "bad"}',
    b'{"task_id": "bad\\ud800"}', b'{"data": "bad"}', b'{"data": [{"task_id": "bad"}]}',
    b'{"data": {"data": {"task_id": "bad"}}}', b"[" * 8000, b'{"data":' * 1000 + b"1" + b"}" * 1000,
    b'{"task_id": %b}' % (b"[" * 5000 + b"]" * 5000), bytes(range(256)) * 60,
    b'[{"task_id": "bad"}]',
], ids=range(46))
def test_body_without_a_task_is_rejected(hooked, body):
    before = hooked.metric("hooks_total")
    for answer in (post(hooked, body), post_to_worker(hooked, body)):
        assert problem(answer) == BAD
        assert "bad" not in answer.json()["detail"]
    assert hooked.metric("hooks_total") == before
    assert hooked.standin.count("bad") == 0


# Size limits


def padded(task: str, size: int) -> bytes:
    head, tail = naming(task)[:-1] + b', "padding": "', b'"}'
    return head + b"x" * (size - len(head) - len(tail)) + tail


def too_large(answer) -> bool:
    assert answer.headers["content-type"] == "application/problem+json"
    return answer.status == answer.json()["status"] == LARGE and answer.json()["code"] == "bad_request"


def test_body_up_to_the_limit_is_accepted(hooked):
    run(hooked, "7%", "sized")
    assert post(hooked, padded("sized", LIMIT)).status == 204
    assert post_to_worker(hooked, padded("sized", LIMIT)).status == 204
    hooked.standin.wait_count(1, "sized")


def test_larger_body_is_rejected_by_nginx_and_by_the_worker(hooked):
    for size in (LIMIT + 1, LIMIT + 1024, 50_000):
        assert too_large(post(hooked, padded("too-large", size)))
        assert too_large(post_to_worker(hooked, padded("too-large", size)))
    assert too_large(post(hooked, padded("too-large", 1_000_000)))
    with pytest.raises((Closed, OSError)):  # longer than any request may be
        post_to_worker(hooked, padded("too-large", 1_000_000))
    hook(hooked, "still-there")
    hooked.standin.wait_count(1, "still-there")
    assert hooked.standin.count("too-large") == 0


def test_endless_body_is_cut_off_and_not_buffered(make_hooked):
    stack = make_hooked()
    with Connection(stack.worker_socket()) as connection:
        connection.send(begin() + stream(PARAMS, pairs(task_params(HOOK, "POST"))))
        with pytest.raises(OSError):
            for _ in range(2000):
                connection.send(record(STDIN, b" " * 65535))
    assert post(stack, naming("after")).status == 204


def test_body_in_pieces_is_read_completely(hooked):
    run(hooked, "7%", "in-pieces")
    body = naming("in-pieces")
    with Connection(hooked.worker_socket()) as connection:
        connection.send(begin() + stream(PARAMS, pairs(task_params(HOOK, "POST", CONTENT_LENGTH=str(len(body))))))
        for at in range(len(body)):
            connection.send(record(STDIN, body[at : at + 1]))
        connection.send(record(STDIN))
        assert connection.read_answer()[0] == 204
    hooked.standin.wait_count(1, "in-pieces")


def test_chunked_body_is_read_completely(hooked):
    run(hooked, "7%", "chunked")
    connection = hooked.nginx.connection()
    connection.request("POST", HOOK, iter([naming("chunked")[:7], naming("chunked")[7:]]), encode_chunked=True,
                       headers={"Transfer-Encoding": "chunked"})
    response = connection.getresponse()
    response.read()
    assert response.status == 204
    connection.close()
    hooked.standin.wait_count(1, "chunked")


# Storage and logs


def texts(folder: Path) -> bytes:
    """The contents of all files in the stack's directory except configuration and certificates."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.suffix not in (".json", ".pem", ".key"))
    return b"".join(path.read_bytes() for path in files)


def test_body_and_secret_are_written_nowhere(hooked):
    canary = "canary-4f1d"
    run(hooked, "7%", "kept-quiet")
    body = json.dumps({"task_id": "kept-quiet", "note": canary, "data": {"x": [canary] * 100}}).encode()
    answers = [
        post(hooked, body), post(hooked, body[:-1]), post(hooked, body, method="GET"), post(hooked, body * 100),
        post(hooked, body, HOOK + "/" + canary), post(hooked, body, HOOK + "?x=1"), post_to_worker(hooked, body * 30),
    ]
    assert [answer.status for answer in answers] == [204, 400, 405, LARGE, 404, 204, LARGE]
    hooked.standin.wait_count(1, "kept-quiet")
    assert hooked.task("kept-quiet").status == 200
    printed = hooked.daemon.run("--print-config").stdout.encode() + hooked.get("/metrics").body
    written = texts(hooked.folder) + b"".join(answer.body for answer in answers) + printed
    for key in hooked.redis.keys():
        written += hooked.redis.cli("GET", key).encode()
    assert b"kept-quiet" in written  # or the test looked at nothing
    assert canary.encode() not in written
    assert SECRET.encode() not in written


def test_nginx_logs_no_webhooks_but_other_requests(hooked):
    hook(hooked, "unlogged")
    assert hooked.task("logged").status == 200
    log = hooked.folder / "access.log"
    hooked.wait_until(lambda: NATIVE + "logged" in log.read_text(), what="a line in nginx's log")
    assert "/v1/hooks" not in log.read_text()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs another process's memory map")
def test_secret_is_in_no_argument_or_environment(hooked):
    for pid in (hooked.daemon.pid, *hooked.daemon.workers()):
        for name in ("cmdline", "environ"):
            assert SECRET.encode() not in Path(f"/proc/{pid}/{name}").read_bytes()
