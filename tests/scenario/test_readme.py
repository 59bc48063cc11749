"""The examples and statements of the README and the manual are true."""

import re
import subprocess

import demo
import run
from helpers import marked, use_documented_rights
from interface import TRANSPORT
from parts import ROOT
from players import Video
from shipped import PROVIDERS, UNIFIED_VIEW
from teaming import bearer, teams_stack

README = (ROOT / "README.md").read_text()
PAGE = (ROOT / "conf" / "man" / "taskproxy.8").read_text()
SOURCES = "".join(file.read_text() for file in (ROOT / "fcgi").rglob("*.[ch]"))


def section(title: str) -> str:
    return re.search(rf"^#+ {title}\n(.*?)(?=^#+ |\Z)", README, re.MULTILINE | re.DOTALL)[1]


def test_first_answer_has_the_headers_of_the_example(make_stack):
    shown = re.findall(r"^    ([A-Z][A-Za-z-]+): (.*)$", section("Try it"), re.MULTILINE)
    answer = make_stack(providers={}).task("task_demo")
    names = [name.lower() for name, _ in shown]
    assert set(names) - TRANSPORT == answer.headers.keys() - TRANSPORT
    for name, value in shown:
        if name not in ("X-Request-Id", "ETag"):
            assert answer.headers[name.lower()] == value


def test_unified_view_example_has_the_actual_members():
    example = re.search(r'{"provider":"sora","task_id".*?"results_expire_at"', README, re.DOTALL)[0]
    listed = re.sub(r"\[.*\]", "", example, flags=re.DOTALL)
    assert re.findall(r'"(\w+)":', listed) + ["results_expire_at"] == UNIFIED_VIEW.schema["required"]


def test_error_example_is_the_actual_message(tmp_path, make_stack):
    stack = make_stack(daemon=False, nginx=False, redis=False, standin=False)
    shown = re.search(r"^    taskproxy: conf/(taskproxy\.json:.*)$", README, re.MULTILINE)[1]
    text = (ROOT / "conf" / "taskproxy.json").read_text()
    (tmp_path / "keys").mkdir()
    stack.write_key(stack.key, file=tmp_path / "keys" / "main")
    (tmp_path / "taskproxy.json").write_text(text.replace('"timeout": "50ms"', '"timeout": 50'))
    done = subprocess.run([stack.daemon.binary, "-c", "taskproxy.json", "-t"], cwd=tmp_path, capture_output=True, text=True)
    without_line = re.compile(r"(?<=json:)\d+")
    assert (done.returncode, without_line.sub("", done.stderr)) == (1, f"taskproxy: {without_line.sub('', shown)}\n")


def test_error_table_has_every_code_with_its_status():
    table = {}
    for codes, statuses in re.findall(r"^\| (`.*?`) \| ([0-9, ]+) \|", section("HTTP interface"), re.MULTILINE):
        for code in re.findall(r"`(\w+)`", codes):
            table[code] = set(map(int, statuses.split(", ")))
    for code, status in re.findall(r'X\([A-Z_]+, "(\w+)", (\d+),', SOURCES):
        assert int(status) in table[code]
    assert table.keys() == set(re.findall(r'X\([A-Z_]+, "(\w+)", \d+,', SOURCES))


def test_every_named_metric_exists(make_stack):
    stack = make_stack()
    stack.task("t")
    stack.wait_metric("workers_ready", 2)
    known = set(re.findall(r"^# TYPE (\S+)", stack.get("/metrics").body.decode(), re.MULTILINE))
    cells = re.findall(r"^\| (`[^|]*) \|", section("Monitoring"), re.MULTILINE)
    named = set(re.findall(r"`(\w+)`", " ".join(cells))) | set(re.findall(r"`(\w+_total)`", README))
    assert len(named) > 15
    assert {f"taskproxy_{name}" for name in named} <= known


def test_every_quoted_log_line_exists():
    formats = re.sub(r"%[-.*0-9]*l*[dsu]|\{\w+\}", "…", SOURCES)  # printf(3) and outcome.h
    phrases = [phrase for row in re.findall(r"^\| ([^|]*) \|", section("Troubleshooting"), re.MULTILINE)
               for phrase in re.findall(r'"([^"]+)"', row)]
    assert len(phrases) > 6
    for phrase in phrases:
        assert re.sub(r"\d+", "…", phrase) in formats


def test_downloads_that_make_run_prints_work(make_stack, capsys, tmp_path):
    stack = make_stack(every_provider=True, port=0, task_seconds=0, nginx=False)
    run.tell(stack, page=demo.serve(stack))
    commands = re.findall(r"^  (curl -L .*)$", capsys.readouterr().out, re.MULTILINE)
    for number, command in enumerate(commands, 1):
        subprocess.run(["sh", "-ec", command], cwd=tmp_path, check=True)
        assert [file.read_bytes() for file in tmp_path.iterdir()] == number * [Video.body]
    assert len(commands) == 2


def test_page_of_the_origin_of_make_run_can_read_with_the_link_and_curl_with_the_token(make_stack, capsys):
    origin = "http://127.0.0.1:3000"
    stack = make_stack(every_provider=True, port=0, daemon=False, nginx=False)
    run.tell(stack, token=run.start_with_team(stack, origin))
    run.tell_link(stack, origin)
    told = capsys.readouterr().out
    link = re.search(r"^  link = '(\S+)'$", told, re.MULTILINE)[1]
    urls = re.findall(r"'http://[^/]+(/v1/tasks\S+)' \+ link", told)
    assert len(urls) == 2
    for url in urls:
        answer = stack.get(url + link, {"Origin": origin})
        assert (answer.status, answer.headers["access-control-allow-origin"]) == (200, origin)
        assert "forbidden" not in answer.body.decode()
    commands = re.findall(r"^  (curl .* -i .*)$", told, re.MULTILINE)
    assert len(commands) == 3
    for command in commands:
        done = subprocess.run(["sh", "-ec", command], capture_output=True, text=True, check=True)
        assert done.stdout.startswith("HTTP/1.1 200 "), command


def test_every_problem_is_caused_by_a_test():
    _, *rows = re.findall(r"^\| ([^|]*) \|", section("Troubleshooting"), re.MULTILINE)
    assert len(rows) > 20
    begins = marked("problem")
    assert [row for row in rows if sum(row.startswith(text) for text in begins) != 1] == []
    assert [text for text in begins if sum(row.startswith(text) for row in rows) != 1] == []


def test_every_named_file_exists():
    for name in re.findall(r"\]\(([\w./-]+)\)", README):
        assert (ROOT / name).exists()
    modules = re.findall(r"`([a-z_]+\.[ch])`", section("Reading the code"))
    assert len(modules) > 5
    assert not [name for name in modules if not list((ROOT / "fcgi").rglob(name))]
    rooms = re.findall(r"^\d+\. `([a-z]+)/`", section("Reading the code"), re.MULTILINE)
    assert sorted(rooms) == sorted(path.name for path in (ROOT / "fcgi").iterdir() if path.is_dir())
    assert f"has {len(PROVIDERS)} files" in README and f"; {len(PROVIDERS)} come with" in (
        ROOT / "conf" / "man" / "taskproxy.json.5.in").read_text()


def test_documented_redis_permissions_are_sufficient(make_stack):
    stack = teams_stack(make_stack, {"web": {"queries_per_minute": 100}}, access={"ownership": "first-reader"}, daemon=False,
                        providers={"sora": {"poll": {"min": "100ms", "max": "100ms"}}})
    use_documented_rights(stack, database=1)
    stack.daemon.start()
    stack.nginx.start()
    stack.wait_metric("redis_listening", 2)
    stack.standin.switch("runs", state="IN_PROGRESS")
    assert stack.task("runs?wait=1", bearer("web")).status == 200
    stack.standin.switch("gone", status=500)
    assert stack.task("gone", bearer("web")).status == 502
    assert stack.redis.cli("ACL", "LOG") == "" and "NOPERM" not in stack.daemon.log()
