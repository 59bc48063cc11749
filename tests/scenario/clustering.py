"""Hosts that pass requests on to each other, with nginx/cluster.conf and the certificates of README.md."""

import re
import subprocess

from stack import ROOT

PORT = 9443
TLS_FILES = {"ca": "/etc/ssl/certs/taskproxy-hosts-ca.pem", "cert": "/etc/ssl/certs/taskproxy-host.pem",
             "key": "/etc/ssl/private/taskproxy-host.key"}
SHIPPED = ("10.0.0.1", "10.0.0.2", "10.0.0.3")  # the hosts in cluster.conf


def make_certificates(folder) -> None:
    """Executes the commands of the README: hosts-ca.pem, hosts-ca.key, host.pem, host.key."""
    chapter = (ROOT / "README.md").read_text().partition("### Several hosts\n")[2].partition("\n### ")[0]
    commands = re.findall(r"^    (openssl (?:.*\\\n)*.*)", chapter, re.MULTILINE)
    assert len(commands) == 2
    for command in commands:
        subprocess.run(["sh", "-ec", command], cwd=folder, check=True, capture_output=True)


def connect(stack, certificates, **changes) -> None:
    """From its next start on, nginx is that of a host of the cluster."""
    stack.nginx.sites = ["site.conf", "cluster.conf"]
    stack.nginx.changes.update({
        TLS_FILES["ca"]: f"{certificates}/hosts-ca.pem",
        TLS_FILES["cert"]: f"{certificates}/host.pem",
        TLS_FILES["key"]: f"{certificates}/host.key",
        "/var/log/nginx/taskproxy-peers.log": f"{stack.folder}/peers.log",
        "#include taskproxy/taskproxy-cluster.conf;": "include taskproxy/taskproxy-cluster.conf;",
    })


def passed_on(stack, request_id: str) -> list:
    """The lines about this request in the log of what this host has got from others, or from itself."""
    log = stack.folder / "peers.log"
    return [line for line in log.read_text().splitlines() if f" id={request_id} " in line] if log.exists() else []
