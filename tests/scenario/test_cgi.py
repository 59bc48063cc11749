"""taskproxy as a plain CGI program: one process per request; the processes share only Redis."""

import json
import subprocess

import fastcgi
from stack import PATIENT

TASK = "/sora/v1/videos/task_1"


def run_cgi(stack, *arguments, **environment):
    """Runs the program: its exit status, its parsed answer, and its stderr."""
    done = subprocess.run(
        [stack.daemon.binary, *arguments], env=stack.daemon.environment(GATEWAY_INTERFACE="CGI/1.1", **environment),
        stdin=subprocess.DEVNULL, capture_output=True, timeout=30,
    )
    return done.returncode, fastcgi.parse_answer(done.stdout), done.stderr.decode()


def test_arguments_from_the_query_string_are_ignored(make_stack):
    """A web server passes the words of a query string without '=' as arguments (RFC 3875, 4.4)."""
    stack = lone_program(make_stack, redis=False)
    config = {"TASKPROXY_CONFIG": str(stack.daemon.config_file)}
    for words in (["--worker", "0", "0", "x"], ["--worker", "0", "0", str(stack.daemon.config_file)], ["--new-token"], ["-V"]):
        status, answer, errors = run_cgi(stack, *words, **config, **fastcgi.task_params(f"{TASK}?{'+'.join(words)}"))
        assert (status, answer[0], errors) == (0, 200, ""), words


def lone_program(make_stack, **settings):
    """A stack without daemon and web server: Redis and the stand-in only."""
    return make_stack(daemon=False, nginx=False, **settings)


def test_processes_share_results_through_redis(make_stack):
    stack = lone_program(make_stack)
    stack.standin.switch(state="SUCCESS")
    first = stack.daemon.cgi(TASK)
    assert (first.status, first.headers["x-cache"]) == (200, "MISS")
    assert first.headers["content-type"] == "application/json"
    assert int(first.headers["content-length"]) == len(first.body)
    assert stack.redis.stored() == ["taskproxy:main:sora:task_1"]

    second = stack.daemon.cgi(TASK)
    assert (second.headers["x-cache"], second.body) == ("HIT", first.body)
    assert stack.standin.count() == 1
    unchanged = stack.daemon.cgi(TASK, HTTP_IF_NONE_MATCH=first.headers["etag"])
    assert (unchanged.status, unchanged.body) == (304, b"")
    head = stack.daemon.cgi(TASK, method="HEAD")
    assert (head.status, head.headers["content-length"], head.body) == (200, first.headers["content-length"], b"")


def test_each_process_queries_without_redis(make_stack):
    stack = lone_program(make_stack)
    stack.redis.stop()
    assert [stack.daemon.cgi(TASK).headers["x-cache"] for _ in range(2)] == ["MISS", "MISS"]
    stack.configure(redis=None)
    assert stack.daemon.cgi(TASK).status == 200
    assert stack.standin.count("task_1") == 3


def test_unanswerable_request_is_a_problem_with_exit_status_0(make_stack):
    stack = lone_program(make_stack)
    stack.standin.switch("slow", hang=True)
    stack.standin.switch("broken", status=500)
    for target, method, status, code in (
        ("/nothing/here", "GET", 404, "not_found"),
        ("/sora/v1/videos/not!an!id", "GET", 400, "bad_request"),
        (TASK, "POST", 405, "method_not_allowed"),
        ("/sora/v1/videos/missing", "GET", 404, "task_not_found"),
        ("/sora/v1/videos/broken", "GET", 502, "upstream_error"),
        ("/sora/v1/videos/slow", "GET", 504, "upstream_timeout"),
    ):
        if code == "upstream_timeout":
            stack.configure(upstreams={"main": {"timeout": "200ms"}})
        answer = stack.daemon.cgi(target, method)  # raises if the exit status is not 0
        assert (answer.status, answer.json()["code"]) == (status, code)
        assert answer.headers["content-type"] == "application/problem+json"
    assert "task_1" not in stack.standin.counts()["tasks"]
    assert stack.redis.stored() == []

    stack.configure(upstreams={"main": PATIENT})
    stack.standin.stop()
    assert stack.daemon.cgi(TASK).status == 502


def test_invalid_configuration_is_a_500_and_a_log_line(make_stack):
    stack = lone_program(make_stack, redis=False)
    stack.configure(workers="many")
    for config, said in (
        (stack.folder / "nowhere.json", "nowhere.json: cannot be read: No such file or directory"),
        (stack.daemon.config_file, "/workers: must be a whole number"),
    ):
        status, answer, errors = run_cgi(stack, TASKPROXY_CONFIG=str(config), **fastcgi.task_params(TASK))
        assert (status, answer[0]) == (1, 500)
        assert str(stack.folder).encode() not in answer[2]
        assert errors.startswith("taskproxy: ") and errors.endswith(f"{said}\n")


def test_nearly_empty_environment_is_answered(make_stack):
    stack = lone_program(make_stack, redis=False)
    config = {"TASKPROXY_CONFIG": str(stack.daemon.config_file)}
    for environment, expected in (
        ({}, 405),
        ({"REQUEST_METHOD": "GET"}, 400),
        ({"REQUEST_URI": TASK}, 405),
        ({"REQUEST_METHOD": "GET", "REQUEST_URI": TASK, "REQUEST_ID": "bad id\nX-Evil: 1"}, 200),
    ):
        status, answer, errors = run_cgi(stack, **config, **environment)
        assert (status, answer[0], errors) == (0, expected, "")
        assert len(answer[1]["x-request-id"]) == 32 and "x-evil" not in answer[1]
        if expected != 200:
            assert json.loads(answer[2])["request_id"] == answer[1]["x-request-id"]
