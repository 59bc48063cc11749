"""`make install` puts every file in its place, and the installed files work."""

import re
import shutil
import subprocess

import pytest

from installing import copy_tree, run
from stack import ROOT, read_json

UNITS = ("taskproxy.service", "taskproxy@.service", "taskproxy.socket")


def files(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()}


@pytest.fixture(scope="module")
def install(tmp_path_factory):
    """install(VARIABLE=value, …) runs `make install` in a copy, because the variables change what is built."""
    tree = copy_tree(tmp_path_factory.mktemp("tree"))
    return lambda **variables: run("make", "-s", "install", *(f"{name}={value}" for name, value in variables.items()), cwd=tree)


@pytest.fixture(scope="module")
def prefix(install, tmp_path_factory):
    """An installation in one directory, as an unprivileged user would make it; no test changes it."""
    folder = tmp_path_factory.mktemp("installed")
    install(PREFIX=folder, SYSCONFDIR=folder / "etc")
    return folder


def test_all_files_are_installed_below_destdir(install, tmp_path):
    install(DESTDIR=tmp_path, PREFIX="/usr")
    providers = {f"etc/taskproxy/providers/{path.name}" for path in ROOT.glob("conf/providers/*.json")}
    nginx = {f"usr/share/taskproxy/nginx/{path.name}" for path in ROOT.glob("nginx/*.conf")}
    pages = {f"usr/share/taskproxy/www/{name}" for name in ("console.css", "console.html", "console.js", "taskproxy.js")}
    expected = providers | nginx | pages | {
        "etc/taskproxy/taskproxy.json",
        "usr/sbin/taskproxy",
        "usr/lib/sysusers.d/taskproxy.conf",
        "usr/lib/tmpfiles.d/taskproxy.conf",
        *(f"usr/lib/systemd/system/{unit}" for unit in UNITS),
        "usr/share/taskproxy/unified-view.schema.json",
        "usr/share/doc/taskproxy/README.md",
        "usr/share/doc/taskproxy/production.md",
        "usr/share/doc/taskproxy/clients.md",
    }
    assert expected <= files(tmp_path)
    others = files(tmp_path) - expected
    assert all(name.startswith(("usr/share/man/man", "usr/share/taskproxy/", "usr/share/doc/taskproxy/")) for name in others)
    assert (tmp_path / "etc/taskproxy/keys").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "usr/sbin/taskproxy").stat().st_mode & 0o777 == 0o755
    assert {(tmp_path / name).stat().st_mode & 0o777 for name in expected - {"usr/sbin/taskproxy"}} == {0o644}


def test_existing_configuration_is_kept_and_the_new_one_installed_beside_it(install, tmp_path):
    install(DESTDIR=tmp_path)
    before = files(tmp_path)
    conf = tmp_path / "etc/taskproxy/taskproxy.json"
    shipped = conf.read_text()
    install(DESTDIR=tmp_path)
    assert files(tmp_path) == before

    conf.write_text("{}")
    (conf.parent / "providers/sora.json").write_text("{}")
    install(DESTDIR=tmp_path)
    assert files(tmp_path) - before == {"etc/taskproxy/taskproxy.json.new", "etc/taskproxy/providers/sora.json.new"}
    assert conf.read_text() == "{}" and conf.with_name("taskproxy.json.new").read_text() == shipped


def test_installed_program_finds_its_configuration_and_needs_one_key_file(prefix):
    taskproxy, keys = prefix / "sbin/taskproxy", prefix / "etc/taskproxy/keys"
    refused = subprocess.run([taskproxy, "-t"], capture_output=True, text=True, timeout=30)
    assert refused.returncode == 1
    assert re.search(r'etc/taskproxy/taskproxy.json:\d+: /upstreams/main/key_files/0: "\S*/keys/main" cannot be read',
                     refused.stderr)
    key = keys / "main"
    key.touch(mode=0o600)
    key.write_text("sk-0123456789\n")
    assert run(taskproxy, "-t") == f"{prefix}/etc/taskproxy/taskproxy.json: ok\n"
    key.unlink()


def test_installed_configuration_differs_only_in_the_number_of_workers(prefix):
    shipped = read_json(ROOT / "conf/taskproxy.json")
    shipped["workers"] = 2
    assert read_json(prefix / "etc/taskproxy/taskproxy.json") == shipped


# The units


def unit(prefix, name):
    return prefix / "lib/systemd/system" / name


def test_systemd_analyze_verify_is_silent(prefix):
    assert run("systemd-analyze", "verify", "--man=no", *(unit(prefix, name) for name in UNITS)) == ""


def test_systemd_analyze_security_is_good(prefix):
    told = run("systemd-analyze", "security", "--offline=true", "--no-pager", unit(prefix, "taskproxy.service"))
    assert float(re.search(r"Overall exposure level for taskproxy.service: (\S+)", told)[1]) <= 2.0


def test_unit_starts_the_installed_binary(prefix):
    service = unit(prefix, "taskproxy.service").read_text()
    assert f"\nExecStart={prefix}/sbin/taskproxy -c {prefix}/etc/taskproxy/taskproxy.json\n" in service
    assert f"\nLoadCredential=keys:{prefix}/etc/taskproxy/keys\n" in service


@pytest.mark.problem("A start is refused")
def test_unit_checks_before_a_reload_and_is_started_again_without_a_limit(prefix):
    service = unit(prefix, "taskproxy.service").read_text()
    check = f"{prefix}/sbin/taskproxy -c {prefix}/etc/taskproxy/taskproxy.json --check-config --as "
    user = re.search("^User=(.*)$", service, re.MULTILINE)[1]
    reload = re.findall("^ExecReload=(.*)$", service, re.MULTILINE)
    assert reload[0].endswith(f" {check}{user}") and reload[1:] == ["/bin/kill -HUP $MAINPID"]
    assert "\nStartLimitIntervalSec=0\n" in service.partition("[Service]")[0]
    assert "\nRestart=on-failure\nRestartSec=2s\n" in service


def test_template_unit_differs_only_in_paths_and_sockets(prefix):
    service, template = (set(unit(prefix, name).read_text().splitlines()) for name in UNITS[:2])
    paths = {line.replace("/taskproxy.json", "/%i.json") for line in service if "/taskproxy.json" in line}
    assert len(paths) == 2
    assert {line for line in template - service if not line.startswith("#")} == paths | {
        "Description=FastCGI proxy for task statuses (%i)",
        "After=network.target nss-lookup.target redis-server.service",
        "RuntimeDirectory=taskproxy-%i",
    }
    assert {line.split("=")[0] for line in service - template if not line.startswith("#")} == {
        "Description", "After", "ExecStart", "ExecReload", "Requires", "ReadWritePaths", "Also",
    }


def test_socket_units_cover_the_master_and_each_worker(prefix):
    conf = read_json(prefix / "etc/taskproxy/taskproxy.json")
    listens = re.findall(r"^ListenStream=(.*)$", unit(prefix, "taskproxy.socket").read_text(), re.MULTILINE)
    workers = [f"{conf['socket_dir']}/worker-{index}.sock" for index in range(conf["workers"])]
    assert listens == [f"{conf['socket_dir']}/status.sock", *workers]


# nginx


def site_of_another_instance(site):
    """The changes that README.md asks for."""
    for name in ("upstream", "taskproxy", "taskproxy-status"):
        site = site.replace(f"taskproxy/{name}.conf;", f"taskproxy/{name.replace('taskproxy', 'blue').replace('ups', 'blue-ups')}.conf;")
    site = site.replace("include taskproxy/taskproxy-http.conf;", "")
    site = site.replace("    listen 80;\n", "", 1)
    return site.replace("server_name localhost 127.0.0.1; # and", "server_name blue.example.com; # and").replace("9180", "9181")


def test_nginx_accepts_the_installed_files_also_for_two_instances(prefix, tmp_path):
    key = prefix / "etc/taskproxy/keys/main"
    key.touch(mode=0o600)
    key.write_text("sk-0123456789\n")
    folder = tmp_path / "taskproxy"
    shutil.copytree(prefix / "share/taskproxy/nginx", folder)
    (folder / "upstream.conf").write_text(run(prefix / "sbin/taskproxy", "--print-nginx"))
    commands = re.findall(r"^    ((?:taskproxy|sed) .* > blue\S*\.conf)$", (ROOT / "README.md").read_text(), re.MULTILINE)
    script = "; ".join(commands).replace("taskproxy -c /etc/taskproxy/blue.json", str(prefix / "sbin/taskproxy"))
    run("sh", "-ec", script, cwd=folder)
    key.unlink()
    site = (folder / "site.conf").read_text().replace("/var/log/nginx", str(tmp_path))
    (tmp_path / "nginx.conf").write_text(f"pid {tmp_path}/pid; events {{}} http {{ include site; include blue; }}")
    for name, text in (("site", site), ("blue", site_of_another_instance(site))):
        (tmp_path / name).write_text(text.replace("listen 80;", f"listen unix:{tmp_path}/nginx.sock;")
                                     .replace("listen 127.0.0.1:91", f"listen unix:{tmp_path}/status.sock-"))
    told = run("nginx", "-T", "-p", tmp_path, "-c", "nginx.conf", "-e", tmp_path / "error.log")
    assert "[warn]" not in told
    for name in ("taskproxy", "blue"):
        assert len(re.findall(rf"fastcgi_pass {name};", told)) == 4 and len(re.findall(rf"fastcgi_pass {name}_status;", told)) == 2
        assert f"proxy_pass $taskproxy_scheme://{name}_$taskproxy_target;" in told
