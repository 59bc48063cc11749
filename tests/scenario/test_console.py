"""The console, nginx/www/console.html: the operator's page about /status."""

import re

import pytest

from parts import ROOT

FILES = {"console.html": "text/html", "console.js": "text/javascript", "console.css": "text/css"}


def from_status_server(stack, path):
    connection = stack.nginx.connection(status=True)
    connection.request("GET", path, headers={"Host": "localhost"})
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, answer.headers, body


@pytest.mark.parametrize("name, kind", FILES.items())
def test_file_of_the_console_is_on_the_operators_server_only(stack, name, kind):
    status, headers, body = from_status_server(stack, f"/{name}")
    assert (status, headers["Content-Type"], body) == (200, f"{kind}; charset=utf-8", (ROOT / "nginx/www" / name).read_bytes())
    assert (headers["Cache-Control"], headers["X-Content-Type-Options"]) == ("no-cache", "nosniff")
    policy = headers["Content-Security-Policy"].split("; ")
    assert "default-src 'none'" in policy and "script-src 'self'" in policy and "frame-ancestors 'none'" in policy
    assert "unsafe" not in headers["Content-Security-Policy"]
    assert stack.get(f"/{name}").status == 404 == 404


def test_start_page_of_the_operators_server_is_the_console(stack):
    status, headers, _ = from_status_server(stack, "/")
    assert (status, headers["Location"]) == (302, "/console.html")


def test_page_has_no_inline_script_or_style():
    page = (ROOT / "nginx/www/console.html").read_text()
    assert re.findall(r"<script[^>]*>(?=[^<])|<style|\son\w+=|\sstyle=", page) == []
