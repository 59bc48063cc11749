"""Configuration and provider files: what is refused, the error messages, and the command line."""

import json
import os
import subprocess
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BINARY = os.environ.get("TASKPROXY_BINARY") or ROOT / "build/asan/taskproxy"

CONFIG = """{
  // what is asked, and who
  "providers_dir": "providers",
  "upstreams": { "main": {
    "base_url": "https://api.example.com",
    "key_files": ["key"]
  } },
  "routes": [
    { "provider": "toy", "upstream": "main" }
  ],
  "redis": {
    "address": "127.0.0.1:6379"
  },
  "cache": {
    "memory": "64MiB" /* for snapshots,
                         in each worker */
  }
}
"""
PROVIDER = """{
  "name": "toy",
  "path": "/toy/{task_id}",
  "task_id": "[a-z0-9]+",
  "auth": { "header": "Authorization", "value": "Bearer {key}" },
  "status": {
    "at": "/status",
    "running": ["RUNNING"],
    "succeeded": ["DONE"]
  },
  "keep": ["/status"],
  "poll": { "min": "2s", "max": "5s" }
}
"""
KEY = "sk-0123456789abcdef"
FILES = {  # beside the configuration: text and mode
    "key": (KEY + "\n", 0o600),
    "crlf": (KEY + "\r\n", 0o400),
    "open": (KEY + "\n", 0o644),
    "group": (KEY + "\n", 0o640),
    "empty": ("", 0o600),
    "short": ("sk-1\n", 0o600),
    "two": (f"{KEY}\n{KEY}\n", 0o600),
    "blank": ("sk-0123 456789\n", 0o600),
    "big": ("x" * 5000, 0o600),
}


class Place:
    """A directory with a configuration, on which the binary is run."""

    def __init__(self, folder: Path):
        self.folder = folder
        (folder / "providers").mkdir()
        for name, (text, mode) in FILES.items():
            (folder / name).write_text(text)
            (folder / name).chmod(mode)
        self.write()

    def write(self, config: str = CONFIG, provider: str = PROVIDER) -> None:
        (self.folder / "taskproxy.json").write_text(config)
        (self.folder / "providers" / "toy.json").write_text(provider)

    def run(self, *arguments: str, config: str = "taskproxy.json") -> tuple:
        """(exit status, stdout, stderr), both without the directory's name."""
        done = subprocess.run(
            [BINARY, "-c", self.folder / config, *arguments], capture_output=True, text=True, timeout=30,
        )
        return done.returncode, *(text.replace(f"{self.folder}/", "") for text in (done.stdout, done.stderr))


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


def changed(text: str, old: str, new: str) -> str:
    assert text.count(old) == 1
    return text.replace(old, new)


PROVIDERS, URL, NAMED = '"providers_dir": "providers"', "https://api.example.com", '["key"]'
MEMORY, REDIS = '"memory": "64MiB"', '"127.0.0.1:6379"'
ROUTE = '{ "provider": "toy", "upstream": "main" }'
SECOND_PATH = ', "path": "/b/{task_id}" }'
NO_DURATION = 'must be a duration: a number and ms, s, m, h or d, such as "250ms"'
NO_SIZE = 'must be a size: a number and B, KiB, MiB or GiB, such as "64MiB"'
JSON_C_SAYS = "…"  # json-c's own message, which differs between its versions
NO_URL = 'must be a scheme, a host and optionally a port, such as "https://api.example.com"'
NO_ADDRESS = "must be IP:PORT or unix:PATH; host names are not supported, because resolving them would block"
READABLE = "can be read by others (mode {}); restrict it with chmod 600"

WRONG_CONFIGS = [  # in CONFIG: text, replacement, resulting message
    # names
    ('"redis": {', '"rediss": {', '11: /rediss: unknown key; did you mean "redis"?'),
    ('"base_url"', '"base_uri"', '5: /upstreams/main/base_uri: unknown key; did you mean "base_url"?'),
    ('"cache"', '"qwertyuiop"', "14: /qwertyuiop: unknown key"),
    (f'    "base_url": "{URL}",\n', "", '4: /upstreams/main: the key "base_url" is missing'),
    (f'"address": {REDIS}', "", '11: /redis: needs "address", or "sentinels" and "master_name"'),
    ('"main": {', '"ma in": {', "4: /upstreams/ma in: a name must have 1 to 64 letters, digits, '_' and '-'"),
    # types and bounds
    (PROVIDERS, '"workers": "2"', "3: /workers: must be a whole number"),
    (PROVIDERS, '"workers": 1.5', "3: /workers: must be a whole number"),
    (PROVIDERS, '"workers": 65', "3: /workers: must be from 0 to 64"),
    (PROVIDERS, '"log_level": "loud"', '3: /log_level: must be one of "debug", "info", "warn", "error"'),
    (PROVIDERS, '"access": { "mode": "any" }', '3: /access/mode: must be one of "open", "teams", "nginx"'),
    (PROVIDERS, '"socket_dir": 7', "3: /socket_dir: must be a string, not int"),
    (PROVIDERS, '"socket_dir": ""', "3: /socket_dir: must be the name of a file"),
    (PROVIDERS, f'"socket_dir": "/{"x" * 90}"', "3: /socket_dir: is too long for the path of a UNIX socket"),
    (PROVIDERS, '"user": "a\\nb"', "3: /user: must not contain control characters"),
    (f'"{URL}"', "null", "5: /upstreams/main/base_url: must be a string, not null"),
    (NAMED, '"key"', "6: /upstreams/main/key_files: must be an array"),
    (NAMED, "[7]", "6: /upstreams/main/key_files/0: must be a string, not int"),
    (NAMED, "[]", "6: /upstreams/main/key_files: must have 1 to 64 members"),
    (NAMED, '["key"], "timeout": "6m"', '6: /upstreams/main/timeout: must be from "10ms" to "5m"'),
    (ROUTE, "", "8: /routes: must have 1 to 4096 members"),
    (ROUTE, '"toy"', "9: /routes/0: must be an object"),
    (MEMORY, '"memory": 64', f"15: /cache/memory: {NO_SIZE}"),
    (MEMORY, '"memory": "64MB"', f"15: /cache/memory: {NO_SIZE}"),
    (MEMORY, '"memory": "1KiB"', '15: /cache/memory: must be from "1MiB" to "1024GiB"'),
    (MEMORY, '"missing_ttl": 5', f"15: /cache/missing_ttl: {NO_DURATION}"),
    (MEMORY, '"missing_ttl": "5"', f"15: /cache/missing_ttl: {NO_DURATION}"),
    (MEMORY, '"missing_ttl": "-1s"', f"15: /cache/missing_ttl: {NO_DURATION}"),
    (MEMORY, '"missing_ttl": "2h"', '15: /cache/missing_ttl: must be from "0ms" to "1h"'),
    (MEMORY, '"terminal_ttl": "99999999999999999999h"', f"15: /cache/terminal_ttl: {NO_DURATION}"),
    # syntax
    (MEMORY, f"{MEMORY},\n    {MEMORY}", "16: a duplicate key"),
    (MEMORY, f"{MEMORY},", f"17: {JSON_C_SAYS}"),
    (MEMORY, '"memory" "64MiB"', f"15: {JSON_C_SAYS}"),
    (MEMORY, '"memory": NaN', "15: not a JSON value"),
    (MEMORY, '"memory": 064', "15: a malformed number"),
    (MEMORY, "'memory': 1", "15: not a JSON value"),
    (MEMORY, '"memory": "64\\xMiB"', "15: a bad escape sequence"),
    (MEMORY, '"memory": "64MiB', "15: a control character inside a string"),
    ("each worker */", "each worker", "15: not a JSON value"),
    ("/* for", "/ for", "15: not a JSON value"),
    (CONFIG, "", "1: unexpected end of file"),
    (CONFIG, "[]", "1: must be an object"),
    (CONFIG, CONFIG + "{}", "19: unexpected text after the value"),
    (CONFIG, CONFIG[:-3], "17: unexpected end of file"),
    # upstreams and their keys
    (URL, "http://api.example.com",
     "5: /upstreams/main/base_url: http:// would send the key unencrypted; it is allowed for loopback addresses only"),
    (URL, "http://127.evil.example",
     "5: /upstreams/main/base_url: http:// would send the key unencrypted; it is allowed for loopback addresses only"),
    (URL, "ftp://127.0.0.1", "5: /upstreams/main/base_url: must begin with https:// (or http:// for a loopback address)"),
    (URL, f"{URL}/v1", f"5: /upstreams/main/base_url: {NO_URL}"),
    (URL, f"{URL}/", f"5: /upstreams/main/base_url: {NO_URL}"),
    (URL, "https://me@api.example.com", f"5: /upstreams/main/base_url: {NO_URL}"),
    (URL, "https://", f"5: /upstreams/main/base_url: {NO_URL}"),
    (URL, "https://[::1]evil", f"5: /upstreams/main/base_url: {NO_URL}"),
    (URL, f"{URL}:99999", "5: /upstreams/main/base_url: has an invalid port"),
    (NAMED, '["nowhere"]', '6: /upstreams/main/key_files/0: "nowhere" cannot be read: No such file or directory'),
    (NAMED, '["open"]', f'6: /upstreams/main/key_files/0: "open" {READABLE.format("0644")}'),
    (NAMED, '["key", "group"]', f'6: /upstreams/main/key_files/1: "group" {READABLE.format("0640")}'),
    (NAMED, '["empty"]', '6: /upstreams/main/key_files/0: "empty" must contain at least 8 characters'),
    (NAMED, '["short"]', '6: /upstreams/main/key_files/0: "short" must contain at least 8 characters'),
    (NAMED, '["two"]', '6: /upstreams/main/key_files/0: "two" must contain one line of visible ASCII characters'),
    (NAMED, '["blank"]', '6: /upstreams/main/key_files/0: "blank" must contain one line of visible ASCII characters'),
    (NAMED, '["big"]', '6: /upstreams/main/key_files/0: "big" is larger than 4096 bytes'),
    (NAMED, '["providers"]', '6: /upstreams/main/key_files/0: "providers" is not a regular file'),
    (NAMED, '["key"], "ca_file": "nowhere"',
     '6: /upstreams/main/ca_file: "nowhere" cannot be read: No such file or directory'),
    (NAMED, '["key"], "ca_file": "key"', '6: /upstreams/main/ca_file: "key" contains no certificate'),
    # routes
    ('"upstream": "main"', '"upstream": "mein"', "9: /routes/0/upstream: no upstream has this name"),
    ('"provider": "toy"', '"provider": "joy"',
     "9: /routes/0/provider: providers/joy.json: cannot be read: No such file or directory"),
    ('"provider": "toy"', '"provider": "../key"', "9: /routes/0/provider: a name must have 1 to 64 letters, digits, '_' and '-'"),
    (PROVIDERS, '"providers_dir": "nowhere"',
     "9: /routes/0/provider: nowhere/toy.json: cannot be read: No such file or directory"),
    (ROUTE, f"{ROUTE},\n    {ROUTE}",
     '10: /routes/1/provider: another route has the same path: give one of them a "path"'),
    ('"main" }', '"main", "path": "/x" }', "9: /routes/0/path: contains no variable"),
    ('"main" }', '"main", "path": "/a{task_id}" }',
     "9: /routes/0/path: may contain variables only as a whole part, such as /{task_id}/"),
    # Redis
    (REDIS, '"redis.example.com:6379"', f"12: /redis/address: {NO_ADDRESS}"),
    (REDIS, '"127.0.0.1"', f"12: /redis/address: {NO_ADDRESS}"),
    (REDIS, '"127.0.0.1:0"', f"12: /redis/address: {NO_ADDRESS}"),
    (REDIS, '"unix:redis.sock"', f"12: /redis/address: {NO_ADDRESS}"),
    (REDIS, f'{REDIS},\n    "username": "me"', "13: /redis/username: needs a password_file"),
    (REDIS, f'{REDIS}, "timeout": "1m"', '12: /redis/timeout: must be from "1ms" to "10s"'),
    (REDIS, f'{REDIS}, "password_file": "open"', f'12: /redis/password_file: "open" {READABLE.format("0644")}'),
]

NO_POINTER = 'is not a JSON pointer of 1 to 16 segments, such as "/data/status"'
WRONG_PROVIDERS = [  # the same, in PROVIDER
    ('"name": "toy"', '"name": "joy"', '2: /name: must be the file\'s name without ".json"'),
    ('"path"', '"paht"', '3: /paht: unknown key; did you mean "path"?'),
    ('  "path": "/toy/{task_id}",\n', "", '1: the key "path" is missing'),
    ("/toy/{task_id}", "/toy/{task}", '3: /path: names a variable that is neither "task_id" nor in "variables"'),
    ("/toy/{task_id}", "/toy", "3: /path: contains no variable"),
    ("/toy/{task_id}", "toy/{task_id}", "3: /path: must begin with '/'"),
    ("/toy/{task_id}", "/{task_id}/{task_id}", "3: /path: names a variable twice"),
    ("[a-z0-9]+", "[a-z0-9", "4: /task_id: is not an extended regular expression"),
    ('"Authorization"', '"Author ization"', "5: /auth/header: a name must have 1 to 64 letters, digits, '_' and '-'"),
    ('"at": "/status"', '"at": "status"', f'7: /status/at: "status" {NO_POINTER}'),
    ('"running"', '"ranning"', '8: /status/ranning: unknown key; did you mean "running"?'),
    ('["DONE"]', '["DONE", "RUNNING"]', '6: /status: "RUNNING" is both running and succeeded'),
    ('["DONE"]', '["DONE", 1.5]', "9: /status/succeeded/1: must be a string, a whole number, true, false or null"),
    ('["/status"]', '["/status", "/a~2"]', f'11: /keep/1: "/a~2" {NO_POINTER}'),
    ('["/status"],', '["/status"],,', f"11: {JSON_C_SAYS}"),
    ('"min": "2s"', '"min": "6s"', "12: /poll/max: must not be less than min"),
    ('"min": "2s"', '"min": "1ms"', '12: /poll/min: must be from "100ms" to "1h"'),
]


def assert_refused(place, line):
    status, printed, errors = place.run("--check-config")
    assert (status, printed) == (1, "")
    before, json_c, _ = line.partition(JSON_C_SAYS)
    assert errors.startswith(before) and errors.count("\n") == 1 if json_c else errors == line


@pytest.mark.parametrize("old, new, message", WRONG_CONFIGS, ids=lambda text: text[:40])
def test_invalid_configuration_is_refused_with_its_location(place, old, new, message):
    place.write(config=changed(CONFIG, old, new))
    assert_refused(place, f"taskproxy: taskproxy.json:{message}\n")


@pytest.mark.parametrize("old, new, message", WRONG_PROVIDERS, ids=lambda text: text[:40])
def test_invalid_provider_file_is_refused_with_its_location(place, old, new, message):
    place.write(provider=changed(PROVIDER, old, new))
    assert_refused(place, f"taskproxy: providers/toy.json:{message}\n")


@pytest.mark.parametrize("old, new", [
    (CONFIG, CONFIG.replace("\n", "\r\n")),
    (URL, "http://localhost:8080"), (URL, "http://127.1.2.3"), (URL, "http://[::1]:8080"), (URL, "https://[2001:db8::1]"),
    (NAMED, '["crlf", "key"]'), (REDIS, '"unix:/run/redis.sock"'), (REDIS, '"[::1]:6379"'),
    (MEMORY, '"missing_ttl": "0s"'), (ROUTE, f'{ROUTE}, {ROUTE.replace("}", SECOND_PATH)}'),
], ids=lambda text: text[:40])
def test_valid_configuration_is_ok(place, old, new):
    place.write(config=changed(CONFIG, old, new))
    assert place.run("--check-config") == (0, "taskproxy.json: ok\n", "")


def test_check_warns_of_a_provider_that_retires_soon_or_has_retired(place):
    today = datetime.now(timezone.utc).date()
    for days, words in ((-1000, "retired"), (10, "retires"), (100, None)):
        day = today + timedelta(days=days)
        place.write(provider=changed(PROVIDER, '"keep"', f'"retires": "{day}", "keep"'))
        warning = f"taskproxy: warning: provider toy {words} on {day}\n" if words else ""
        assert place.run("--check-config") == (0, "taskproxy.json: ok\n", warning)
    place.write()
    (place.folder / "providers" / "other.json").write_text(  # no route names it
        PROVIDER.replace('"toy"', '"other"').replace('"keep"', '"retires": "2001-01-01", "keep"'))
    assert place.run("--check-config") == (0, "taskproxy.json: ok\n", "")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_key_owned_by_another_user_is_refused(place):
    os.chown(place.folder / "key", 33, 33)
    message = 'taskproxy.json:6: /upstreams/main/key_files/0: "key" belongs to another user'
    assert place.run("--check-config") == (1, "", f"taskproxy: {message}\n")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can check as another user")
def test_check_as_a_user_reads_files_as_its_service_does(place):
    ok, other = (0, "taskproxy.json: ok\n", ""), '/upstreams/main/key_files/0: "key" belongs to another user'
    place.folder.chmod(0o700)  # the capability lets the service read root's files
    assert place.run("--check-config", "--as", "www-data") == ok
    os.chown(place.folder / "key", 33, 33)
    assert place.run("--check-config", "--as", "33") == ok
    os.chown(place.folder / "key", 1, 1)
    assert place.run("--check-config", "--as", "www-data") == (1, "", f"taskproxy: taskproxy.json:6: {other}\n")
    assert place.run("--check-config", "--as", "nobody-here") == (
        1, "", 'taskproxy: there is no user "nobody-here" to run as\n')
    for command in ("-T", "--print-nginx"):
        assert place.run(command, "--as", "www-data") == (1, "", "taskproxy: --as is an option of --check-config\n")


@pytest.mark.parametrize("old", [f'  "redis": {{\n    "address": {REDIS}\n  }},\n', '  // what is asked, and who\n'])
def test_output_of_print_config_is_an_equivalent_configuration(place, old):
    place.write(config=changed(CONFIG, old, ""))
    status, printed, errors = place.run("--print-config")
    assert (status, errors) == (0, "")
    assert KEY not in printed
    assert json.loads(printed)["upstreams"]["main"]["key_files"] == ["key"]
    assert json.loads(printed)["cache"] == {
        "memory": "64MiB", "terminal_ttl": "1d", "missing_ttl": "5s", "stale_for": "10m",
    }
    (place.folder / "again.json").write_text(printed)
    assert place.run("-T", config="again.json") == (0, printed, "")


def test_command_line(place):
    assert place.run("--version") == place.run("-V") == (0, "taskproxy 0.2\n", "")
    status, usage, errors = place.run("--help")
    assert (status, errors) == (0, "")
    for option in ("config", "check-config", "print-config", "print-nginx", "version", "help"):
        assert f"--{option}" in usage
    for unknown in ("--chek", "-x"):
        status, output, errors = place.run(unknown)
        assert (status, output) == (1, "")
        assert errors.endswith(usage)
    assert place.run("-t", "more") == (1, "", 'taskproxy: unexpected argument "more"\n')
    assert place.run("--status", "more") == (2, "", 'taskproxy: unexpected argument "more"\n')
    assert place.run("--status", config="nowhere.json") == (
        2, "", "taskproxy: nowhere.json: cannot be read: No such file or directory\n")
    for option in ("-t", "-T", "--print-nginx"):
        assert place.run(option, config="nowhere.json") == (
            1, "", "taskproxy: nowhere.json: cannot be read: No such file or directory\n"
        )
    assert place.run("-t", config="providers")[1:] == ("", "taskproxy: providers: is not a regular file\n")


def test_printing_reads_no_keys_secrets_and_teams(place):
    """Its caller may be unable to read them, and systemd gives credentials to the service only."""
    place.write(config=changed(CONFIG, PROVIDERS, f'{PROVIDERS}, "access": {{ "mode": "teams", "teams_file": "key" }}'))
    expected = place.run("--print-nginx")
    assert expected[0] == 0
    config = changed(changed(CONFIG, NAMED, '["credential:main", "nowhere"]'), REDIS, f'{REDIS}, "password_file": "nowhere"')
    access = '"access": { "mode": "teams", "teams_file": "nowhere", "ownership": "first-reader" }'
    second = f'"other": {{ "base_url": "{URL}", "key_files": ["nowhere"] }}, "main"'
    place.write(config=changed(changed(config, PROVIDERS, f"{PROVIDERS}, {access}"), '"main": {', f"{second}: {{"),
                provider=changed(PROVIDER, '"status": {', '"identity": "/id", "status": {'))
    assert place.run("--print-nginx") == expected
    status, printed, errors = place.run("--print-config")
    assert (status, errors) == (0, "") and json.loads(printed)["upstreams"]["main"]["key_files"] == ["credential:main", "nowhere"]
    status, _, errors = place.run("--check-config")
    assert status == 1 and "/upstreams/" in errors and "cannot be" in errors


def test_print_nginx_lists_every_worker_and_route(place):
    place.write(config=changed(CONFIG, PROVIDERS, f'{PROVIDERS}, "workers": 3, "socket_dir": "/run/there"'))
    status, printed, errors = place.run("--print-nginx")
    assert (status, errors) == (0, "")
    assert [line.split()[1] for line in printed.splitlines() if line.strip().startswith("server ")] == [
        *(f"unix:/run/there/worker-{index}.sock" for index in range(3)), "unix:/run/there/status.sock",
    ]
    assert '"~^/v1/tasks/toy/(?<tp1>[^/?]+)(?:/content(?:/[0-9]+)?)?$" "/' in printed
    assert "hash $taskproxy_task consistent;" in printed
    assert place.run("--print-nginx=blue") == (0, printed.replace("taskproxy_", "blue_").replace("upstream taskproxy", "upstream blue"), "")
    for name in ("", "9", "blue-1", "Blue"):
        assert place.run(f"--print-nginx={name}")[0] == 1
