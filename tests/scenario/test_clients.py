"""conf/clients.md: each row of its tables, executed."""

import base64
import functools
import json
import re

import pytest

import needs
import sdks
from players import Video
from shipped import PROVIDERS
from stack import Stack
from teaming import digest

VIDEO = base64.b64encode(Video.body).decode()

# What the results of the rows that work must contain.
RESULTS = {
    "await client.videos.retrieve(id)": '"status":"completed"',
    "await client.videos.downloadContent(id)": VIDEO,
    "await client.tasks.retrieve(id)": '"status":"SUCCEEDED"',
    "await client.tasks.retrieve(id).waitForTaskOutput()": '"output":["https://',
    "await client.generations.get(id)": '"state":"completed"',
    "await replicate.predictions.get(id)": '"status":"succeeded"',
    "await replicate.wait(await replicate.predictions.get(id), { interval: 1000 })": '"output":"https://',
    "await fal.queue.status(endpoint, { requestId: id })": '"status":"COMPLETED"',
    "await fal.queue.subscribeToStatus(endpoint, { requestId: id, pollInterval: 1000 })": '"status":"COMPLETED"',
    "await fal.queue.result(endpoint, { requestId: id })": '"requestId":""',
    "await ai.operations.getVideosOperation({ operation })": '"generatedVideos":[{"video":{"uri":"https://',
    "await fetch(proxy + '/v1beta/' + operation.name + '/content', { headers })": VIDEO,
    "await ai.interactions.get(id)": '"status":"completed"',
    "await fetch(proxy + '/v1beta/interactions/' + id + '/content', { headers })": VIDEO,
    "await generateVideo({ model: fal.video('pika'), prompt: 'A cat', providerOptions, download: download(request) })": VIDEO,
    "await generateVideo({ model: google.video('veo'), prompt: 'A cat', providerOptions, download: download('v1beta/' + operation) })":
        VIDEO,
}
ROWS = [pytest.param(title, row, id=f"{title}-{number}")
        for title, section in sdks.SECTIONS.items() for number, row in enumerate(section.rows, 1)]


@pytest.fixture(scope="module")
def outcomes():
    """Executes all rows of a section for a task that has ended, at a taskproxy that wants a team's token."""
    with Stack(every_provider=True, port=0, redis=False, daemon=False, nginx=False, config={
        "workers": 1, "access": {"mode": "teams", "teams_file": "teams.json"},
    }) as stack:
        team = {"token_sha256": [digest(sdks.TOKEN)], "providers": list(PROVIDERS)}
        (stack.folder / "teams.json").write_text(json.dumps({"clients": team}))
        stack.standin.switch(state="SUCCESS", own_urls=True)
        stack.daemon.start()
        stack.nginx.start()

        @functools.cache
        def execute(title: str) -> dict:
            rows = list(sdks.SECTIONS[title].rows)
            return dict(zip(rows, sdks.execute(stack, title, "task-1", *rows), strict=True))

        yield execute


@pytest.mark.parametrize("title, row", ROWS)
def test_row_is_true(outcomes, title, row):
    says, outcome = sdks.SECTIONS[title].rows[row], outcomes(title)[row]
    if says.startswith("yes"):
        assert RESULTS[row] in json.dumps(outcome, separators=(",", ":"))
    else:
        assert outcome["error"]["status"] == int(says)


def test_every_row_is_executed():
    known = {row: says for section in sdks.SECTIONS.values() for row, says in section.rows.items()}
    assert sdks.CHAPTER.read_text().count("\n| `await ") == len(ROWS) == len(known) > 20
    assert {row for row, says in known.items() if says.startswith("yes")} == RESULTS.keys()


def test_versions_are_those_that_are_tested():
    installed = json.loads((needs.LOCKED / "package.json").read_text())["dependencies"]
    assert len(sdks.VERSIONS) >= len(sdks.SECTIONS)
    assert {name: installed[name] for name in sdks.VERSIONS} == sdks.VERSIONS


def test_every_link_leads_somewhere():
    def anchors(text: str) -> set:
        return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in re.findall(r"^#+ (.*)$", text, re.M)}

    links = re.findall(r"\]\(([\w./-]*)(?:#([\w-]+))?\)", sdks.CHAPTER.read_text())
    assert len(links) > 5
    for name, anchor in links:
        file = sdks.CHAPTER.parent / name if name else sdks.CHAPTER
        assert file.exists() and (not anchor or anchor in anchors(file.read_text())), (name, anchor)
