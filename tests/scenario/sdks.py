"""The chapter conf/clients.md: its sections, with the code and the rows of each, and their execution in Node.js."""

import json
import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import needs
from parts import ROOT

CHAPTER = ROOT / "conf" / "clients.md"
PROXY = "https://taskproxy.example.com"  # in the chapter
TOKEN = "a-client"

# Prints a line for each of the rows: {"result": …}, or {"error": …} with the classes of the error from its own up. Bytes become
# base64.
EXECUTE = """
const printed = (outcome) => console.log(JSON.stringify(outcome, (_, value) =>
  value instanceof Uint8Array ? Buffer.from(value).toString('base64') : value));

async function received(result) {
  if (!(result instanceof Response))
    return result;
  return { status: result.status, type: result.headers.get('content-type'), bytes: new Uint8Array(await result.arrayBuffer()) };
}

function classesOf(error) {
  const classes = [];
  for (let at = Object.getPrototypeOf(error); at && at.constructor !== Object; at = Object.getPrototypeOf(at))
    classes.push(at.constructor.name);
  return classes;
}

for (const execute of rows) {
  try {
    printed({ result: await received(await execute()) });
  } catch (error) {
    const { name, message, taskDetails: details, fieldErrors: fields } = error;
    const status = error.status ?? error.statusCode ?? error.response?.status;
    printed({ error: { name, classes: classesOf(error), status, message, details, fields } });
  }
}
"""


@dataclass
class Section:
    code: str  # makes the client
    rows: dict  # {code of the row: what the table says about it}


def split(text: str) -> Section:
    code = "".join(re.findall(r"^```js\n(.*?)^```$", text, re.MULTILINE | re.DOTALL))
    return Section(code, dict(re.findall(r"^\| `(await .*?)`[^`]*? \| (.*) \|$", text, re.MULTILINE)))


FIRST, *REST = re.split(r"^## ", CHAPTER.read_text(), flags=re.MULTILINE)
VERSIONS = dict(re.findall(r"^\| \[?`(.*?)`.*? \| ([\d.]+) \|", FIRST, re.MULTILINE))
SECTIONS = {text.split("\n", 1)[0]: split(text) for text in REST}


def execute(stack, section: str, task_id: str, *rows: str, before: str = "") -> list:
    """Executes these rows of the section, or other code of that form, for the task; `before` comes after the section's code."""
    code = split(FIRST).code.replace(PROXY, stack.nginx.url) + SECTIONS[section].code + before
    program = f"{code}\nconst rows = [{', '.join(f'async () => {row}' for row in rows)}];\n{EXECUTE}"
    modules = Path(needs.npm_modules())
    done = subprocess.run(["node", "--input-type=module", "-", task_id], input=program, cwd=modules.parent, capture_output=True,
                          text=True, timeout=120, env={**os.environ, "TASKPROXY_TOKEN": TOKEN, "NODE_EXTRA_CA_CERTS": stack.standin.ca_file})
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]
