"""The upstream's key is sent in one header of queries to one origin and appears nowhere else."""

import base64
import contextlib
import json
import os
import re
from pathlib import Path

import pytest

from helpers import PLAIN_BINARY, memory
from switches import SWITCHES

PATH = "/sora/v1/videos/"
AWKWARD = 'sk-"a\\b/c{key}%41<d>&e=canary'
TROUBLES = {
    "succeeded": {"state": "SUCCESS", "own_urls": True}, "failed": {"state": "FAILURE"}, "running": {"state": "IN_PROGRESS"},
    "unknown": {"state": "ON_HOLIDAY"}, "missing": {}, "error": {"status": 500}, "auth": {"status": 401},
    "forbidden": {"status": 403}, "not-found": {"status": 404}, "no-json": {"garbage": True},
    "huge": {"huge": 5 * 1024 * 1024}, "deep": {"deep": True, "repeat_key": False},
    "truncated": {"truncated": True}, "reset": {"reset": True}, "swallowed": {"swallow": True},
    "hang": {"hang": True}, "endless": {"endless": True},
    "chunked": {"state": "SUCCESS", "chunked": True}, "slow": {"endless": True, "pace": 0.05},
    "late": {"delay": 0.1, "seconds": 5, "progress": "7%", "expires": 2e9, "times": 1},
}
IN_THE_TEST = {"repeat_key", "headers", "raw", "redirect", "wire", "retry_after"}  # these have the key, or come last


def escaped(key: str, form: str = "\\u{:04x}") -> str:
    return "".join(form.format(ord(char)) for char in key)


def odd_documents(key: str) -> dict:
    """Bodies with the key in unusual places, by task id; %s is replaced by each JSON spelling of the key."""
    forms = {
        "plain": json.dumps(key)[1:-1],
        "escaped": escaped(key),
        "capitals": escaped(key, "\\u{:04X}"),
        "half": json.dumps(key[:9])[1:-1] + escaped(key[9:]),
    }
    documents = {
        "value": '{"code":"success","data":{"status":"IN_PROGRESS","text":"a%s%sb","list":["%s",{"deep":["%s"]}]}}',
        "member": '{"code":"success","data":{"status":"IN_PROGRESS","%s":1,"x%sy":{"%s":"z"}}}',
        "status": '{"code":"success","data":{"status":"%s"}}',
        "long-status": '{"code":"success","data":{"status":"' + 40 * "x" + '%s"}}',
        "code": '{"code":"%s","data":{"status":"SUCCESS"}}',
        "fail-reason": '{"code":"success","data":{"status":"FAILURE","fail_reason":"wrong key %s!"}}',
        "no-status": '{"code":"success","%s":{"status":"%s"}}',
        "broken": '{"code":"success","data":{"status":"%s"',
    }
    return {
        f"{place}-{form}": text.replace("%s", written)
        for place, text in documents.items() for form, written in forms.items()
    }


def spellings(key: str) -> list:
    """The encodings in which the key, or a large part of it, could appear."""
    half = len(key) // 2
    parts = (key[:half], key[half:])
    return [
        spelling for part in parts
        for spelling in (part, json.dumps(part)[1:-1], escaped(part), escaped(part, "\\u{:04X}"), part.encode().hex())
    ] + [base64.b64encode(text.encode()).decode().rstrip("=")[:-1] for text in (key, f"Bearer {key}")]


def files(stack, *secret_files):
    """All files in the stack's folder except those that hold secrets."""
    for file in stack.folder.rglob("*"):
        if file.is_file() and file not in (stack.key_file, *secret_files):
            yield str(file), file.read_text(errors="replace")


def processes(stack):
    for pid in (stack.daemon.pid, *stack.daemon.workers()):
        for name in ("cmdline", "environ"):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # a replaced worker has just exited
                yield f"{name} of {pid}", Path(f"/proc/{pid}/{name}").read_text(errors="replace")


def printed(stack):
    for option in ("--print-config", "--print-nginx", "--check-config", "--version"):
        done = stack.daemon.run(option)
        assert done.returncode == 0
        yield option, done.stdout + done.stderr


def pages(stack):
    for path in ("/metrics", "/healthz", "/readyz", "/status"):
        yield path, repr(stack.get(path))


def redis_values(stack):
    for key in stack.redis.keys():
        yield "a key of Redis", key
        yield f"the value of {key} in Redis", stack.redis.cli("GET", key)


def assert_nowhere(places, key: str) -> None:
    wanted = spellings(key)
    assert [(place, spelling) for place, text in places for spelling in wanted if spelling in text] == []


def make_nosy_stack(make_stack, key: str | None):
    """A stack that logs at debug level and keeps every member of the upstream's answers, with this key or its default one."""
    stack = make_stack(
        config={"log_level": "debug", "upstreams": {"main": {"timeout": "1s"}}},
        providers={"sora": {"keep": ["/code", "/message", "/data"]}}, daemon=False, nginx=False,
    )
    if key:
        stack.key = key
        stack.write_key(key)
        stack.standin.keys = {key}
    stack.daemon.start()
    stack.nginx.start()
    return stack


@pytest.mark.parametrize("key", [None, AWKWARD], ids=["plain", "awkward"])
def test_key_never_leaks_whatever_the_upstream_does_with_it(make_stack, key):
    stack = make_nosy_stack(make_stack, key)
    stack.standin.switch(repeat_key=True, headers={"X-Key": stack.key, "Set-Cookie": f"key={stack.key}"})
    for task_id, switches in TROUBLES.items():
        stack.standin.switch(task_id, **switches)
    for task_id, body in odd_documents(stack.key).items():
        stack.standin.switch(task_id, raw=body, repeat_key=False)
    stack.standin.switch("redirect", redirect=f"https://127.0.0.1:1/{stack.key}")
    stack.standin.switch("wire", wire=f"HTTP/1.1 200 {stack.key}\r\n{stack.key}: {stack.key}\r\n\r\n{stack.key}")
    assert IN_THE_TEST | {name for switches in TROUBLES.values() for name in switches} == SWITCHES
    tasks = [*TROUBLES, *odd_documents(stack.key), "redirect", "wire"]

    # On a busy machine, this query may exceed its time-out among all the others.
    stack.wait_until(lambda: "[redacted]" in stack.task("succeeded").body.decode(), what="an answer with the key")
    asks = [(task_id, stack.background(stack.task, task_id)) for task_id in 2 * tasks]
    answers = [(f"the answer to {task_id}", repr(ask.result()) + ask.result().body.decode()) for task_id, ask in asks]
    stack.standin.switch("busy", retry_after=1, raw=stack.key)
    answers.append(("the answer to busy", repr(stack.task("busy"))))
    answers.append(("CGI", repr(stack.daemon.cgi(PATH + "succeeded"))))
    assert any("[redacted]" in text for _, text in answers)
    stack.wait_until(stack.redis.stored, what="results in Redis")
    assert all(query.headers["authorization"] == f"Bearer {stack.key}" for query in stack.standin.seen())

    for places in (answers, files(stack), processes(stack), printed(stack), pages(stack), redis_values(stack)):
        assert_nowhere(places, stack.key)


def test_repeated_key_is_redacted_and_the_rest_of_the_view_is_unchanged(stack):
    stack.standin.switch("t", raw=json.dumps({"code": "success", "message": f"<{stack.key}|{stack.key}>", "data": {
        "status": "IN_PROGRESS", "progress": stack.key[:-1], "fail_reason": stack.key}}))
    document = stack.task("t").json()
    assert document["message"] == "<[redacted]|[redacted]>"
    assert document["data"] == {"status": "IN_PROGRESS", "progress": stack.key[:-1], "fail_reason": "[redacted]"}


def test_key_never_leaks_after_a_reload_with_another_one(make_stack):
    stack = make_nosy_stack(make_stack, None)
    old, new = stack.key, "sk-another-canary-0123456789abcdef"
    stack.write_key(new)
    stack.standin.keys = {new}
    stack.daemon.reload()
    stack.standin.switch("t", state="SUCCESS", repeat_key=True)
    stack.wait_until(lambda: stack.task("t").status == 200, what="workers with the new key")
    for key in (old, new):
        for places in (files(stack), processes(stack), printed(stack), redis_values(stack)):
            assert_nowhere(places, key)


def repeat(stack, keys):
    """The upstream repeats all keys that it knows, whichever one the query had."""
    message = " ".join(keys)
    stack.standin.switch(raw=json.dumps({"code": "success", "message": message, "data": {"status": "IN_PROGRESS"}}))


def test_keys_of_a_pool_never_leak_even_when_their_files_are_replaced(make_stack):
    stack = make_nosy_stack(make_stack, None)
    keys = [f"sk-canary-{number}-{stack.key[3:]}" for number in range(4)]
    secret_files = [stack.folder / f"key-{number}" for number in range(3)]
    for file, key in zip(secret_files, keys):
        stack.write_key(key, file=file)
    stack.configure(upstreams={"main": {"key_files": [str(file) for file in secret_files]}})
    stack.standin.keys, stack.standin.busy = set(keys), {keys[0]: 1}
    repeat(stack, keys[:3])
    stack.daemon.reload()
    answers = [("an answer", repr(stack.task(f"task_{number}"))) for number in range(6)]

    stack.standin.keys = {keys[3]}
    repeat(stack, [keys[0], keys[1], keys[3]])
    stack.write_key(keys[3], file=secret_files[2])
    stack.wait_metric("rotations_total", 1, result="done")
    stack.write_key(f"{keys[3]}\n{keys[3]}", file=secret_files[1])
    stack.wait_metric("rotations_total", 1, result="refused")
    stack.wait_until(lambda: stack.task("another").status == 200, what="an answer with the new key")
    answers += [("an answer", repr(stack.task(f"task_{number}"))) for number in range(6, 12)]
    assert all("[redacted] [redacted] [redacted]" in text for _, text in answers if "status=200" in text)
    for key in keys:
        for places in (answers, files(stack, *secret_files), processes(stack), pages(stack), redis_values(stack)):
            assert_nowhere(places, key)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may look into the processes")
def test_key_is_only_in_locked_memory_and_replaced_keys_are_wiped(make_stack):
    """Uses the production binary: the sanitizer locks no memory and keeps freed blocks."""
    stack = make_stack(binary=PLAIN_BINARY, redis=False)
    old, new = stack.key, "sk-another-canary-0123456789abcdef"
    assert stack.task("t").status == 200
    stack.standin.keys = {new}
    stack.write_key(new)
    stack.wait_until(lambda: stack.task("another").status == 200, what="workers with the new key")
    stack.wait_until(lambda: len(stack.daemon.workers()) == 2, what="the end of the old workers")
    assert {stack.task(f"task_{number}").status for number in range(20)} == {200}
    for pid in (stack.daemon.pid, *stack.daemon.workers()):
        found = [(key, locked, place) for place, locked, data in memory(pid) for key in (old, new) if key.encode() in data]
        assert {(key, locked) for key, locked, _ in found} == {(new, True)}, found


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may look into the processes")
def test_worker_has_no_key_of_an_upstream_without_a_route(make_stack):
    stack = make_stack(binary=PLAIN_BINARY, redis=False, daemon=False, nginx=False)
    unused = "sk-unused-canary-0123456789abcdef"
    stack.write_key(unused, file=stack.folder / "unused-key")
    upstream = {"base_url": "https://unused.example", "key_files": [str(stack.folder / "unused-key")]}
    stack.configure(upstreams={"unused": upstream})
    stack.daemon.start()
    assert stack.ask_worker("/sora/v1/videos/t").status == 200

    def holds(pid, key):
        return any(key.encode() in data for _, _, data in memory(pid))

    assert holds(stack.daemon.pid, unused)
    for pid in stack.daemon.workers():
        assert holds(pid, stack.key) and not holds(pid, unused)


# The key file


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o620, 0o601, 0o660], ids=oct)
def test_key_file_accessible_by_others_is_refused(make_stack, mode):
    stack = make_stack(daemon=False, nginx=False, redis=False)
    stack.write_key(stack.key, mode)
    for arguments in (["--check-config"], []):
        done = stack.daemon.run(*arguments)
        assert done.returncode != 0
        assert str(stack.key_file) in done.stderr and f"{mode:04o}" in done.stderr
        assert stack.key not in done.stdout + done.stderr
    stack.write_key(stack.key, 0o400)
    assert stack.daemon.run("--check-config").returncode == 0


def test_malformed_key_file_is_refused_without_quoting_it(make_stack):
    stack = make_stack(daemon=False, nginx=False, redis=False)
    for text in (f"{stack.key}\n{stack.key}", f"{stack.key} {stack.key}", f"{stack.key}\r\nX-Injected: 1", f"{stack.key}\0", "",
                 "short", f"{stack.key}é", stack.key + "x" * 100000):
        stack.write_key(text)
        done = stack.daemon.run("--check-config")
        assert done.returncode != 0, text
        assert str(stack.key_file) in done.stderr
        assert stack.key not in done.stdout + done.stderr and "short\"" not in done.stderr


def test_reload_with_a_key_file_readable_by_others_keeps_the_old_key(stack):
    stack.key_file.chmod(0o644)
    stack.daemon.hup()
    assert str(stack.key_file) in stack.wait_log("reload refused")
    assert stack.task("t").status == 200


# The processes


def test_processes_cannot_be_dumped_or_traced(stack):
    for pid in (stack.daemon.pid, *stack.daemon.workers()):
        assert re.search(r"^Max core file size +0 +0 ", Path(f"/proc/{pid}/limits").read_text(), re.MULTILINE)
        # The /proc files of a process that is not dumpable belong to root, whatever user it runs as.
        assert os.stat(f"/proc/{pid}/environ").st_uid == 0
    worker = stack.daemon.workers()[0]
    (uid,) = re.findall(r"^Uid:\t(\d+)", Path(f"/proc/{worker}/status").read_text(), re.MULTILINE)
    assert int(uid) != 0 or os.geteuid() != 0
