#!/usr/bin/python3
"""`make run`, after the build: runs taskproxy with everything it needs, until Ctrl-C.

Environment: PORT (default 8080); UPSTREAM=https://… and KEY_FILE=… for a real upstream instead of the stand-in;
ORIGIN=http://127.0.0.1:3000 for pages of that origin, for which there is a team with a token and a signed link.
"""

import hashlib
import json
import os
import re
import secrets
import shutil
import signal
import socket
import sys
from pathlib import Path

import demo
import stack

BINARY = stack.ROOT / "build" / "taskproxy"
PROGRAMS = ("nginx", "redis-server", "redis-cli", "openssl")
TASK_SECONDS = 20
TASKS = ("sora/task_demo", "sora/task_two", "kling/text2video/demo", "runway/demo_missing", "veo/veo-3.0/demo_fail")


class Refusal(Exception):
    """The reason why it cannot start, in one sentence."""


def main() -> int:
    signal.signal(signal.SIGINT, interrupt)  # shells start background jobs with SIGINT ignored
    signal.signal(signal.SIGTERM, interrupt)
    signal.signal(signal.SIGHUP, interrupt)
    try:
        port, upstream, origin = wanted_port(), wanted_upstream(), wanted_origin()
        check_parts()
        print("starting …", flush=True)
        with stack.Stack(binary=BINARY, port=port, upstream=upstream, every_provider=not upstream,
                         task_seconds=TASK_SECONDS, daemon=not origin, nginx=False) as running:
            if origin:
                tell(running, token=start_with_team(running, origin))
                tell_link(running, origin)
            else:
                tell(running, page=demo.serve(running))
            print("\nCtrl-C stops everything.", flush=True)
            return wait(running)
    except KeyboardInterrupt:
        return 0
    except (Refusal, RuntimeError, AssertionError, TimeoutError) as reason:
        print(f"make run: {reason}", file=sys.stderr)
        return 1


def interrupt(*_) -> None:
    raise KeyboardInterrupt


def wanted_port() -> int:
    text = os.environ.get("PORT") or "8080"
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise Refusal(f"PORT={text} is not a port number.")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", int(text)))
        except PermissionError:
            raise Refusal(f"port {text} requires root; choose another one with PORT=…") from None
        except OSError:
            raise Refusal(f"port {text} of 127.0.0.1 is in use; choose another one with PORT=…") from None
    return int(text)


def wanted_upstream() -> dict | None:
    base_url, key_file = os.environ.get("UPSTREAM"), os.environ.get("KEY_FILE")
    if not base_url:
        if key_file:
            raise Refusal("KEY_FILE is for a real upstream and needs UPSTREAM=https://…")
        return None
    if not base_url.startswith(("https://", "http://127.0.0.1", "http://localhost", "http://[::1]")):
        raise Refusal(f"UPSTREAM={base_url} does not begin with https://")
    if not key_file:
        raise Refusal("UPSTREAM needs KEY_FILE=…, a file with the upstream's key.")
    check_key_file(Path(key_file))
    return {"base_url": base_url, "key_file": os.path.abspath(key_file)}


def wanted_origin() -> str | None:
    origin = os.environ.get("ORIGIN") or None
    if origin and not re.fullmatch(r"https?://[^/]+", origin):
        raise Refusal(f"ORIGIN={origin} is not an origin, such as http://127.0.0.1:3000")
    return origin


def start_with_team(running: stack.Stack, origin: str) -> str:
    """Starts the daemon and nginx with one team, which may use every provider. Returns its token."""
    token = f"tp-{secrets.token_hex(16)}"
    team = {"token_sha256": [hashlib.sha256(token.encode()).hexdigest()], "origins": [origin], "link_secret_file": "links",
            "providers": sorted({route["provider"] for route in running.config["routes"]})}
    running.write_key(secrets.token_hex(32), file=running.folder / "links")
    (running.folder / "teams.json").write_text(json.dumps({"demo": team}, indent=2))
    running.configure(access={"mode": "teams", "teams_file": "teams.json"})
    running.daemon.start()
    demo.serve(running)  # its page is not for teams, but its results are those of the stand-in
    return token


def check_key_file(path: Path) -> None:
    if not path.is_file():
        raise Refusal(f"KEY_FILE={path} does not exist or is not a file.")
    if path.stat().st_mode & 0o077:
        raise Refusal(f"KEY_FILE={path} is accessible by users other than its owner; run chmod 600.")
    if not os.access(path, os.R_OK):
        raise Refusal(f"KEY_FILE={path} cannot be read by this user.")


def check_parts() -> None:
    for file in (BINARY, stack.ROOT / "nginx" / "taskproxy.conf", stack.ROOT / "conf" / "providers"):
        if not file.exists():
            name = file.relative_to(stack.ROOT)
            raise Refusal(f"{name} is missing; `make` builds the program, `git status` shows lost files.")
    for program in PROGRAMS:
        if not shutil.which(program):
            raise Refusal(f"the program {program} is missing; `tests/install-packages run` installs it.")


def tell(running: stack.Stack, page: str | None = None, token: str | None = None) -> None:
    curl = f"curl -H 'Authorization: Bearer {token}'" if token else "curl"
    if page:
        print(f"\nOpen this page in a browser to follow tasks to their videos:\n\n  {page}")
    if running.config["upstreams"]["main"]["base_url"] == running.standin.url:
        upstream = f"{running.standin.url}  (a stand-in; a new task takes {TASK_SECONDS} s)"
        task = "task_demo"
        more = f"""
  {curl} -i {running.nginx.url}/v1/tasks/fal/fal-ai/pika/demo
  {curl} -i '{running.nginx.url}/v1/tasks?ids=sora/{task},kling/text2video/demo,runway/demo_missing,veo/veo-3.0/demo_fail'

Results, without the upstream's key: nginx sends it, or redirects to a signed URL

  {curl} -L '{running.nginx.url}/v1/tasks/openai/video_demo/content/0?wait=60' -o keyed.mp4
  {curl} -L '{running.nginx.url}/v1/tasks/sora/{task}/content/0?wait=60' -o redirected.mp4"""
    else:
        upstream = running.config["upstreams"]["main"]["base_url"]
        task = "task_01jhjp54x0f759wceyasz6xrge"
        more = f"""
  {curl} -i {running.nginx.url}/v1/tasks/sora/{task}
  {curl} -i '{running.nginx.url}/v1/tasks?ids=sora/{task}'"""
    workers = ", ".join(str(pid) for pid in running.daemon.workers())
    print(f"""
What is running:

  nginx      {running.nginx.url}
  console    {running.nginx.console_url}
  taskproxy  master {running.daemon.pid}, workers {workers}
             configuration {running.daemon.config_file}
             log           {running.daemon.log_path}
  redis      {running.redis.socket}
  upstream   {upstream}

The same on the command line (repeatedly):

  {curl} -i {running.nginx.url}/sora/v1/videos/{task}{more}""", flush=True)


def tell_link(running: stack.Stack, origin: str) -> None:
    served = {route["provider"] for route in running.config["routes"]}
    tasks = ",".join(task for task in TASKS if task.partition("/")[0] in served)
    signed = running.daemon.run("--sign", "--team", "demo", "--tasks", tasks, "--ttl", "24h")
    if signed.returncode:
        raise Refusal(signed.stderr)
    link = signed.stdout.strip()
    print(f"""
From a page of {origin}, for 24 hours, with this link for {tasks}:

  link = '{link}'
  new EventSource('{running.nginx.url}/v1/tasks/sora/task_demo?' + link).addEventListener('status', e => console.log(e.data))
  (await fetch('{running.nginx.url}/v1/tasks?ids={tasks}&' + link)).json()""", flush=True)


def wait(running: stack.Stack) -> int:
    """Waits for Ctrl-C, or for an unexpected end of the daemon."""
    try:
        running.daemon.process.wait()
    except KeyboardInterrupt:
        print("\nstopping …", flush=True)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        return 0
    raise Refusal(f"the daemon exited:\n{running.daemon.log()}")


if __name__ == "__main__":
    sys.exit(main())
