"""The programs that taskproxy is compared with, each as its documentation recommends it for this job. See peers/.

Each queries the same upstream, keeps results in the same Redis, and listens on a port on loopback."""

import getpass
import grp
import json
import os
import shutil
import subprocess
import urllib.error
import urllib.request
from pathlib import Path

from measure import ROOT, free_port
from parts import WEB_GROUP, Process, children_of

HERE = ROOT / "tests" / "bench" / "peers"
NODE_MODULES = ROOT / "build" / "bench" / "npm"
CONNECTIONS = 8000
LUA_MODULES = ("ndk_http_module", "ngx_http_lua_module")


def tree(pid: int) -> list:
    """The process and all its descendants."""
    return [pid] + [found for child in children_of(pid) for found in tree(child)]


class Peer(Process):
    """One of the programs; subclasses say how it is started."""

    name = ""
    title = ""
    lacks = ""  # parts of the job that it cannot do

    def __init__(self, place):
        """`place` has what all peers share: folders, redis, token, key, and the port of the upstream."""
        super().__init__(place)
        self.port = free_port()
        self.prefix = place.folder / f"peer-{self.name}"

    def start(self) -> None:
        self.prefix.mkdir()
        self.prefix.chmod(0o755)
        self.launch()
        self.wait_ready(self._answers)

    def launch(self) -> None:
        raise NotImplementedError

    def pids(self) -> list:
        return tree(self.pid)

    def keep_kib(self) -> float:
        """The size of the files in which it keeps answers."""
        return 0

    def text(self, file: str) -> str:
        """A file of peers/ for this peer: each @NAME@ is replaced."""
        root = os.geteuid() == 0
        values = {
            "PORT": self.port, "UPSTREAM": self.stack.upstream_port, "REDIS": self.stack.redis, "TOKEN": self.stack.token,
            "KEY": self.stack.key, "HERE": HERE, "FOLDER": self.prefix, "MEMORY": self.stack.memory,
            "USER": WEB_GROUP if root else getpass.getuser(),
            "GROUP": WEB_GROUP if root else grp.getgrgid(os.getegid()).gr_name,
        }
        text = (HERE / file).read_text()
        for name, value in values.items():
            text = text.replace(f"@{name}@", str(value))
        return text

    def environment(self) -> dict:
        return {**os.environ, "PEER_PORT": str(self.port), "PEER_REDIS": self.stack.redis, "PEER_TOKEN": self.stack.token,
                "PEER_KEY": self.stack.key, "PEER_UPSTREAM": f"http://127.0.0.1:{self.stack.upstream_port}"}

    def spawn_nginx(self, http: str, modules: tuple = ()) -> None:
        """Starts an nginx with one worker process and these lines in its http block."""
        loads = "".join(f"load_module /usr/lib/nginx/modules/{module}.so;\n" for module in modules)
        places = "".join(f"{kind}_temp_path {kind}; " for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        user = f"user {WEB_GROUP};\n" if os.geteuid() == 0 else ""
        (self.prefix / "nginx.conf").write_text(
            f"{loads}{user}daemon off; pid nginx.pid; worker_processes 1; worker_rlimit_nofile 16384; pcre_jit on;\n"
            f"env PEER_REDIS; env PEER_TOKEN;\nevents {{ worker_connections {CONNECTIONS}; }}\n"
            f"http {{\n{places}\naccess_log off; keepalive_requests 1000000; keepalive_timeout 1h;\n{http}}}\n"
        )
        self.spawn(["nginx", "-p", str(self.prefix), "-c", "nginx.conf", "-e", str(self.log_path)], self.environment())

    def _answers(self) -> bool:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{self.port}/", timeout=5)
        except urllib.error.HTTPError:
            pass  # that is an answer, too
        return True


class Upstream(Peer):
    """nginx in front of the stand-in, because Varnish does not query an upstream over TLS."""

    name = "upstream"

    def __init__(self, place, standin: int, answer: str):
        super().__init__(place)
        self._standin, self._answer = standin, answer

    def launch(self) -> None:
        self.spawn_nginx(self.text("upstream.conf").replace("@STANDIN@", str(self._standin)).replace("@ANSWER@", self._answer))


class OpenResty(Peer):
    name = "openresty"
    title = "OpenResty: nginx with Lua, shared dictionary, Redis"

    def launch(self) -> None:
        self.spawn_nginx(self.text("openresty.conf"), LUA_MODULES)


class NginxCache(Peer):
    name = "nginx-cache"
    title = "nginx's proxy_cache in front of the upstream"
    lacks = "trim, ETag, TTL by state"

    def launch(self) -> None:
        self.spawn_nginx(self.text("cache.conf"))

    def keep_kib(self) -> float:
        return sum(file.stat().st_blocks / 2 for file in (self.stack.memory / "cache").rglob("*") if file.is_file())


class Varnish(Peer):
    name = "varnish"
    title = "Varnish in front of the upstream"
    lacks = "trim, ETag, TTL by state"

    def launch(self) -> None:
        (self.prefix / "default.vcl").write_text(self.text("varnish.vcl"))
        self.spawn(["varnishd", "-F", "-j", "none", "-n", str(self.prefix / "work"), "-a", f"127.0.0.1:{self.port}", "-T", "none",
                    "-f", str(self.prefix / "default.vcl"), "-s", "malloc,4g", "-p", "thread_pool_min=10"])


class Node(Peer):
    name = "node"
    title = "Node.js: fastify, ioredis"

    def launch(self) -> None:
        for file in ("server.mjs", "package.json"):
            shutil.copy(HERE / file, NODE_MODULES)
        self.spawn(["node", str(NODE_MODULES / "server.mjs")], self.environment())


class Php(Peer):
    name = "php"
    title = "nginx and PHP-FPM, php-redis"

    def __init__(self, place):
        super().__init__(place)
        self._fpm = PhpFpm(place)

    def launch(self) -> None:
        self._fpm.prefix = self.prefix
        self._fpm.start()
        self.spawn_nginx(self.text("php.conf"))

    def pids(self) -> list:
        return super().pids() + tree(self._fpm.pid)

    def stop(self) -> None:
        super().stop()
        self._fpm.stop()


class PhpFpm(Peer):
    name = "php-fpm"

    def start(self) -> None:
        (self.prefix / "php-fpm.conf").write_text(self.text("php-fpm.conf"))
        (program,) = Path("/usr/sbin").glob("php-fpm[0-9]*")
        self.spawn([str(program), "--nodaemonize", "--allow-to-run-as-root", "-y", str(self.prefix / "php-fpm.conf")])
        self.wait_ready((self.prefix / "php-fpm.sock").exists)


PEERS = (OpenResty, NginxCache, Varnish, Node, Php)


def install_node_modules() -> None:
    """Installs the locked packages, unless they are there."""
    lock, done = (HERE / "package-lock.json").read_text(), NODE_MODULES / "done"
    if done.exists() and done.read_text() == lock:
        return
    NODE_MODULES.mkdir(parents=True, exist_ok=True)
    for file in ("package.json", "package-lock.json"):
        shutil.copy(HERE / file, NODE_MODULES)
    subprocess.run(["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts", "--silent"], cwd=NODE_MODULES, check=True)
    done.write_text(lock)


def answer_of_kept_task() -> str:
    """The upstream's answer for an ended task: its view has about 1 KiB. $task is nginx's variable of the id."""
    media = {"ld": "mp4", "md": "mp4", "source": "mp4", "thumbnail": "webp"}
    assets = "https://videos.example.com/assets/$task"
    generation = {
        "encodings": {name: {"path": f"{assets}/{name}.{suffix}", "ssim": 0.98} for name, suffix in media.items()},
        "height": 480, "id": "gen_$task", "moderation": {"scores": [0.1, 0.2], "decision": "allow"},
        "url": f"{assets}/{'v' * 120}.mp4", "width": 854,
    }
    return json.dumps({"code": "success", "message": "", "data": {
        "task_id": "$task", "notify_hook": "", "action": "sora-video", "status": "SUCCESS", "fail_reason": "",
        "submit_time": 1736867805, "start_time": 1736867811, "finish_time": 1736867860, "progress": "100%",
        "data": {"generations": [generation], "id": "$task", "model": "turbo", "prompt": "A ship in a storm, " * 4,
                 "user": "user-0123456789"},
    }})
