#!/usr/bin/python3
"""Writes the initial corpora of the fuzzers, one directory each, from the recorded answers and the shipped files.

    tests/fuzz/make_corpus.py FOLDER
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "tests"))
import fastcgi

STATUSES = [200, 202, 302, 400, 401, 404, 422, 429, 500]
CONFIGURATION = b"""{"workers": 2, "socket_dir": "run", "log_level": "debug", "providers_dir": "providers",
  "upstreams": {"main": {"base_url": "https://api.example.com:443", "key_files": ["key"], "timeout": "10s",
                         "max_body": "4MiB", "max_in_flight": 64}},
  "routes": [{"provider": "p", "upstream": "main", "path": "/other?id={task_id}"}], // a comment
  "redis": {"address": "127.0.0.1:6379", "timeout": "50ms", "database": 1, "prefix": "t:"},
  "cache": {"memory": "64MiB", "terminal_ttl": "24h"}, "limits": {"waiters": 10}, "access": {"mode": "open"}}"""
TEAMS = b"""{"web": {"token_sha256": ["%s"], "providers": ["sora"], "origins": ["https://a.example", "http://[::1]:81"],
  "link_secret_file": "s", "old_link_secret_file": "s", "link_secrets": {"2026-01": "s"},
  "queries_per_minute": 600, "watchers": 20}}""" % (32 * b"9f")
LINK = b"wait=30&team=web&exp=1767225600&kid=2026-01&sig=" + 32 * b"9f"
REDIRECTS = ["MOVED 16383 127.0.0.1:6381", "ASK 0 2001:db8::1:6381", "MOVED 1 :6381", "TRYAGAIN x", "CLUSTERDOWN x"]
NODES = """0123abcd 10.0.0.1:7001@17001,redis-1.example master - 0 1426238316232 2 connected 0-5460 [93-<-deadbeef]
4567cdef 2001:db8::2:7002@17002 master - 0 1426238316232 2 connected 5461 5463-16383
89abcdef :7005@17005 myself,master - 0 0 3 connected 5462
cdef0123 10.0.0.4:7004@17004 slave 0123abcd 0 1 3 connected
"""
URLS = ["https://x/a.mp4?" + query for query in (
    "se=2025-01-14T16%3A15%3A46Z&ske=2025-01-15T16%3A15%3A46Z", "X-Amz-Date=20250114T151546Z&X-Amz-Expires=3600",
    "X-Tos-Date=20250114T151546Z&X-Tos-Expires=3600", "x-oss-date=20250114T151546Z&x-oss-expires=3600",
    "Expires=1736871346", "ex=67868db2", "e=1736871346", "q-sign-time=1736867746%3B1736871346",
    "authorization=bce-auth-v1%2Fkey%2F2025-01-14T15%3A15%3A46Z%2F3600%2F%2Fsig", "_jwt=e30.eyJleHAiOjE3MzY4NzEzNDZ9.c2ln",
    "Policy=eyJTdGF0ZW1lbnQiOlt7IkNvbmRpdGlvbiI6eyJEYXRlTGVzc1RoYW4iOnsiQVdTOkVwb2NoVGltZSI6MTczNjg3MTM0Nn19fV19")]


def main(folder: Path) -> None:
    providers = sorted((ROOT / "conf" / "providers").glob("*.json"))
    for fuzzer, inputs in {
        "fuzz_view": views(providers),
        "fuzz_json": [b"\0" + body for body in bodies()] + [b"\1" + path.read_bytes() for path in providers],
        "fuzz_fcgi_parse": [fastcgi.request(fastcgi.task_params("/sora/v1/videos/x")),
                            fastcgi.request(fastcgi.task_params("/x", "POST", HTTP_X="y" * 300), b"body")],
        "fuzz_snapshot": snapshots(),
        "fuzz_expiry": [url.encode() for url in URLS],
        "fuzz_redis_slots": [*(b"\0" + text.encode() for text in REDIRECTS), b"\1" + NODES.encode()],
        "fuzz_teams": [b"\0" + TEAMS, b"\1" + LINK, b"\1tasks=sora/a%2Csora/b,sora/x&" + LINK],
        "fuzz_conf": [CONFIGURATION + b"\0" + as_p(path.read_text(), path.stem) for path in providers],
    }.items():
        (folder / fuzzer).mkdir(parents=True, exist_ok=True)
        for number, data in enumerate(inputs):
            (folder / fuzzer / f"seed-{number:03}").write_bytes(data)


def views(providers):
    for index, provider in enumerate(providers):
        for path in sorted((ROOT / "tests" / "answers" / provider.stem).glob("*.answer")):
            status, body = answer(path)
            body = body.replace(b"https://", b"https://canary-key/")  # must not leak
            if path.name.endswith(".result.answer"):
                first = path.with_name(path.name.replace(".result.answer", ".answer"))
                yield bytes([index, 0]) + answer(first)[1] + b"\0" + body
            else:
                yield bytes([index, STATUSES.index(status) if status in STATUSES else 0]) + body


def bodies():
    return [answer(path)[1] for path in sorted((ROOT / "tests" / "answers").glob("*/*.answer"))]


def answer(path: Path) -> tuple[int, bytes]:
    """Status and body of a file saved with `curl -i`, or of a body alone."""
    saved = path.read_bytes()
    if not saved.startswith(b"HTTP/"):
        return 200, saved
    head, body = saved.split(b"\r\n\r\n", 1)
    return int(head.split()[1]), body


def snapshots():
    for state in ("queued", "running", "succeeded", "failed", "cancelled"):
        head = f"taskproxy/7 0123456789abcdef {state} 1736867746000 1736867746000 600000 1736871346 5000 0123abcd {32 * 'a'} 7 2 0\n"
        yield head.encode() + b'{"a":1}' + b"{}"


def as_p(text: str, name: str) -> bytes:
    return text.replace(f'"name": "{name}"', '"name": "p"', 1).encode()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
