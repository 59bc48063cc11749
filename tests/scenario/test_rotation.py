"""Keys and other secrets are reloaded when their files change, without a restart and without a failed request."""

import itertools
import json
import os
import signal

import pytest

from helpers import NOT_TAKEN, clients, put, wait_gone

NEW = "sk-the-new-key-0123456789"
numbers = itertools.count()


def key_in_use(stack):
    """The key with which a new task is queried."""
    task_id = f"task_{next(numbers)}"
    assert stack.task(task_id).status == 200
    return stack.standin.seen(task_id)[-1].headers["authorization"].removeprefix("Bearer ")


def wait_key(stack, key):
    stack.wait_until(lambda: key_in_use(stack) == key, what=f"queries with {key}")


def rotations(stack):
    return stack.metric("rotations_total", result="done")


def relink(link, target):
    fresh = link.with_name(".link")
    fresh.symlink_to(target)
    fresh.rename(link)


@pytest.fixture
def rotating(make_stack):
    stack = make_stack(redis=False)
    stack.standin.keys = {stack.key, NEW}
    return stack


# Ways to replace a file


def write_in_place(stack):
    stack.write_key(NEW)


def rename_onto_it(stack):
    put(stack.key_file, NEW + "\n")


def remove_and_write(stack):
    stack.key_file.unlink()
    stack.write_key(NEW)


@pytest.mark.parametrize("change", [write_in_place, rename_onto_it, remove_and_write])
def test_replaced_key_file_is_reloaded_however_it_is_replaced(rotating, change):
    old_workers = rotating.daemon.workers()
    assert key_in_use(rotating) == rotating.key
    change(rotating)
    wait_key(rotating, NEW)
    wait_gone(rotating, *old_workers)
    assert rotations(rotating) == 1
    assert f"{rotating.key_file} has changed: starting new workers" in rotating.daemon.log()
    assert rotating.metric("reloads_total") == 0


@pytest.mark.parametrize("link", ["..data", "key"], ids=["as Kubernetes does it", "of the file itself"])
def test_replaced_symbolic_link_is_followed(rotating, link):
    mounted = rotating.folder / "mounted"
    for version, key in (("..1", rotating.key), ("..2", NEW)):
        (mounted / version).mkdir(parents=True)
        rotating.write_key(key, file=mounted / version / "key")
    relink(mounted / "..data", "..1")
    relink(mounted / "key", "..data/key")
    rotating.configure(upstreams={"main": {"key_files": [str(mounted / "key")]}})
    rotating.daemon.reload()
    assert key_in_use(rotating) == rotating.key
    relink(mounted / link, "..2" if link == "..data" else "..2/key")
    wait_key(rotating, NEW)
    assert rotations(rotating) == 1


def test_change_without_inotify_event_is_found_by_polling(rotating):
    """Replaces the directory: the watched one does not change."""
    for version, key in (("1", rotating.key), ("2", NEW)):
        (rotating.folder / version).mkdir()
        rotating.write_key(key, file=rotating.folder / version / "key")
    relink(rotating.folder / "link", "1")
    (rotating.folder / "keys").mkdir()
    relink(rotating.folder / "keys" / "current", "../link")
    rotating.configure(upstreams={"main": {"key_files": [str(rotating.folder / "keys" / "current" / "key")]}})
    rotating.daemon.reload()
    assert key_in_use(rotating) == rotating.key
    relink(rotating.folder / "link", "2")
    wait_key(rotating, NEW)


def test_systemd_credential_is_reloaded(make_stack):
    stack = make_stack(redis=False, daemon=False)
    credentials = stack.folder / "credentials"
    credentials.mkdir()
    put(credentials / "main", stack.key, 0o440)
    stack.configure(upstreams={"main": {"key_files": ["credential:main"]}})
    done = stack.daemon.run("--check-config")
    assert done.returncode == 1
    assert "/key_files/0: \"credential:main\" cannot be found: CREDENTIALS_DIRECTORY is not set" in done.stderr
    stack.daemon.variables["CREDENTIALS_DIRECTORY"] = str(credentials)
    stack.daemon.start()
    assert key_in_use(stack) == stack.key
    assert '"credential:main"' in stack.daemon.run("--print-config").stdout
    stack.standin.keys.add(NEW)
    put(credentials / "main", NEW, 0o440)
    wait_key(stack, NEW)


def test_simultaneous_changes_are_one_rotation(make_stack):
    stack = make_stack(redis=False)
    files = [stack.folder / f"key-{number}" for number in range(5)]
    for file in files:
        stack.write_key(stack.key, file=file)
    stack.configure(upstreams={"main": {"key_files": [str(file) for file in files]}})
    stack.daemon.reload()
    stack.standin.keys.add(NEW)
    for file in files:
        put(file, NEW)
    wait_key(stack, NEW)
    assert rotations(stack) == 1
    assert "has changed, and others: starting new workers" in stack.daemon.log()
    assert stack.metric("worker_starts_total") == 3 * 2


def test_redis_password_is_reloaded(make_stack):
    stack = make_stack(daemon=False)
    stack.redis.stop()
    stack.redis.start(password="the-first-password")
    password = stack.folder / "password"
    put(password, "the-first-password")
    stack.configure(redis={"password_file": str(password)})
    stack.daemon.start()
    stack.wait_metric("redis_up", 2)
    stack.redis.cli("CONFIG", "SET", "requirepass", "the-second-password")
    put(password, "the-second-password")
    stack.wait_metric("rotations_total", 1, result="done")
    stack.wait_metric("workers_ready", 2)
    stack.wait_metric("redis_up", 2)
    assert "NOAUTH" not in stack.daemon.log() and "WRONGPASS" not in stack.daemon.log()


@pytest.mark.problem("The service is started with an unusable `password_file`")
def test_unusable_redis_password_does_not_keep_the_service_down(make_stack):
    """A reload and --check-config refuse it, but a start continues without Redis until the file is mended."""
    stack = make_stack(daemon=False)
    stack.redis.stop()
    stack.redis.start(password="the-first-password")
    password = stack.folder / "password"
    put(password, "the-first-password", 0o644)
    stack.configure(redis={"password_file": str(password)})
    done = stack.daemon.run("--check-config")
    assert done.returncode == 1 and f'/redis/password_file: "{password}" can be read by others' in done.stderr
    stack.daemon.start()
    stack.wait_log(f"{password} refused, continuing without it: ")
    assert stack.task("task_1").status == 200
    why = json.loads(stack.get("/readyz").body)["why"]
    assert why[0] == "Redis is unavailable" and why[1].startswith(f"{password} refused: ")
    assert [stack.metric("redis_wanted"), stack.metric("redis_up"), stack.metric("files_refused")] == [2, 0, 1]
    stack.daemon.hup()
    stack.wait_metric("reloads_total", 1, result="refused")

    password.chmod(0o600)
    stack.wait_metric("redis_up", 2)
    assert stack.metric("files_refused") == 0
    assert f"{password} is no longer refused" in stack.daemon.log()


# Refused changes


BAD = {
    "empty": ("", 0o600, "must contain at least 8 characters"),
    "short": ("short", 0o600, "must contain at least 8 characters"),
    "two lines": (f"{NEW}\n{NEW}\n", 0o600, "must contain one line of visible ASCII characters"),
    "a control character": (f"{NEW}\t", 0o600, "must contain one line of visible ASCII characters"),
    "a zero byte": (f"{NEW}\0", 0o600, "must contain one line of visible ASCII characters"),
    "a header": (f"{NEW}\r\nX-Injected: 1", 0o600, "must contain one line of visible ASCII characters"),
    "no ASCII": (f"{NEW}é", 0o600, "must contain one line of visible ASCII characters"),
    "too large": (NEW * 1000, 0o600, "is larger than 4096 bytes"),
    "readable by others": (NEW, 0o644, "can be read by others (mode 0644); restrict it with chmod 600"),
}


@pytest.mark.problem("A changed teams file, key or secret is refused")
@pytest.mark.parametrize("name", BAD)
def test_invalid_content_keeps_the_old_key_and_is_logged_once(rotating, name):
    text, mode, why = BAD[name]
    workers = rotating.daemon.workers()
    put(rotating.key_file, text, mode)
    assert rotating.wait_log(NOT_TAKEN).endswith(f'key_files/0: "{rotating.key_file}" {why}')
    os.utime(rotating.key_file)
    rotating.wait_metric("rotations_total", 2, result="refused")
    assert rotating.daemon.log().count(NOT_TAKEN) == 1
    assert NEW not in rotating.daemon.log()
    assert key_in_use(rotating) == rotating.key

    os.kill(workers[0], signal.SIGKILL)  # its replacement also has the key in force
    rotating.wait_metric("worker_starts_total", 3)
    rotating.wait_metric("workers_ready", 2)
    assert {key_in_use(rotating) for _ in range(4)} == {rotating.key}

    put(rotating.key_file, NEW)
    wait_key(rotating, NEW)


def test_removed_and_restored_key_file_changes_nothing(rotating):
    workers = rotating.daemon.workers()
    away = rotating.key_file.with_name("away")
    rotating.key_file.rename(away)
    assert "cannot be read: No such file or directory" in rotating.wait_log(NOT_TAKEN)
    assert key_in_use(rotating) == rotating.key
    away.rename(rotating.key_file)
    rotating.wait_log(f"{rotating.key_file} is no longer refused")
    assert rotating.daemon.workers() == workers
    assert rotations(rotating) == 0


def test_refused_key_is_logged_again_after_a_reload_with_a_good_one(rotating):
    for refused in (1, 2):
        put(rotating.key_file, "two words")
        rotating.wait_metric("rotations_total", refused, result="refused")
        assert rotating.daemon.log().count(NOT_TAKEN) == refused
        put(rotating.key_file, NEW)
        rotating.daemon.reload()  # before the change of the file is noticed
        assert key_in_use(rotating) == NEW


def test_rotation_does_not_reload_the_rest_of_the_configuration(rotating):
    rotating.daemon.config_file.write_text("no configuration")
    (rotating.providers_dir / "sora.json").write_text("no provider")
    put(rotating.key_file, NEW)
    wait_key(rotating, NEW)
    rotating.wait_until(lambda: len(rotating.daemon.workers()) == rotating.config["workers"], what="the exit of the old workers")
    rotating.daemon.hup()
    rotating.wait_metric("reloads_total", 1, result="refused")
    assert key_in_use(rotating) == NEW


def test_touched_or_already_reloaded_file_is_not_a_rotation(rotating):
    put(rotating.key_file, rotating.key)
    os.utime(rotating.key_file)
    rotating.write_key(NEW)
    rotating.daemon.reload()
    assert key_in_use(rotating) == NEW
    put(rotating.key_file, rotating.key)
    wait_key(rotating, rotating.key)
    assert rotations(rotating) == 1


# Queries and requests during a rotation


def test_query_in_flight_finishes_with_its_key(rotating):
    with rotating.standin.hold("held") as barrier:
        held = rotating.background(rotating.task, "held")
        barrier.wait_arrived(1)
        put(rotating.key_file, NEW)
        wait_key(rotating, NEW)
    assert held.result().status == 200
    assert [query.headers["authorization"] for query in rotating.standin.seen("held")] == [f"Bearer {rotating.key}"]


def test_continuous_key_changes_fail_no_request(rotating):
    rotating.standin.switch(state="SUCCESS")
    with clients(rotating) as failures:
        for rotation in range(1, 6):
            put(rotating.key_file, NEW if rotation % 2 else rotating.key)
            rotating.wait_metric("rotations_total", rotation, result="done")
    assert failures == []
    assert rotating.metric("worker_deaths_total") == 0
