"""The chapter conf/production.md and its test: what can be checked without executing it (`make test-production`)."""

import json
import re
import subprocess

import production
from chapter import CHAPTER, blocks
from parts import ROOT

TEXT = CHAPTER.read_text()
BLOCKS = blocks()
FILES = {name: text for block in BLOCKS for name, text in block.files().items()}


def test_every_block_is_executed():
    assert sum(len(block.commands) for block in BLOCKS) == sum(map(len, re.findall(r"^```\w*\n(.*?)^```", TEXT, re.M | re.S)))
    assert list(dict.fromkeys(block.section for block in BLOCKS)) == list(production.CHECKS)
    assert {block.host for block in BLOCKS} == {0, 1}
    for block in BLOCKS:
        subprocess.run(["bash", "-n", "-c", block.commands], check=True)


def test_every_substitution_matches():
    commands = "".join(block.commands for block in BLOCKS)
    for text in production.SUBSTITUTIONS:
        assert text in commands
    for name in (production.SERVICE, production.UPSTREAM, *production.HOSTS):
        assert name in commands


def test_configuration_is_accepted(tmp_path, make_stack):
    stack = make_stack(daemon=False, nginx=False, redis=False, standin=False)
    config = tmp_path / "taskproxy.json"
    config.write_text(FILES["/etc/taskproxy/taskproxy.json"])
    digest = f'"token_sha256": ["{64 * "0"}"]'
    (tmp_path / "teams.json").write_text(FILES["/etc/taskproxy/teams.json"].replace("$(tail -n 1 new-token)", digest))
    (tmp_path / "providers").symlink_to(ROOT / "conf" / "providers")
    (tmp_path / "keys").mkdir()
    (tmp_path / "secrets").mkdir()
    for number, file in enumerate(("keys/main-1", "keys/main-2", "secrets/redis")):
        stack.write_key(f"sk-production-{number}", file=tmp_path / file)
    done = subprocess.run([stack.daemon.binary, "-c", config, "--check-config"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(FILES["/etc/taskproxy/taskproxy.json"])["workers"] == 2  # as in the unit, see conf/install.mk


def test_redis_permissions_are_those_of_the_manual():
    page = (ROOT / "conf" / "man" / "taskproxy.8").read_text()
    words = re.search(r"^ACL SETUSER (.*?)\n\.EE", page, re.M | re.S)[1].replace("\\-", "-").replace("\\e\n", " ").split()
    rules = re.search(r"^user (taskproxy .*)$", "".join(block.commands for block in BLOCKS), re.M)[1]
    rules = re.sub(r"#\$\(.*?\)", ">PASSWORD", rules).split()
    assert rules == words


def test_alert_rules_are_those_of_the_package():
    assert "/usr/share/taskproxy/prometheus/taskproxy.rules.yml" in FILES["/etc/prometheus/prometheus.yml"]
    assert (ROOT / "conf" / "prometheus" / "taskproxy.rules.yml").exists()


def test_every_link_leads_somewhere():
    headings = re.findall(r"^#+ (.*)$", (ROOT / "README.md").read_text(), re.M)
    anchors = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    for file, anchor in re.findall(r"\]\(([\w./-]+)(?:#([\w-]+))?\)", TEXT):
        assert (CHAPTER.parent / file).exists() and (not anchor or anchor in anchors)
