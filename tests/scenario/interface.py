"""Reads conf/openapi.yaml and records which parts of it the tests have seen."""

import json
import re
from pathlib import Path

import jsonschema
import yaml

from parts import ROOT, Answer

FILE = ROOT / "conf" / "openapi.yaml"
TRANSPORT = {"server", "date", "connection", "keep-alive", "transfer-encoding", "content-type", "content-length"}
METHODS = ("get", "head", "options", "post")


class Interface:
    """Compares each exchange with the document, and records what was seen, to find what never occurs."""

    def __init__(self, file: Path = FILE):
        self.document = yaml.safe_load(file.read_text())
        self._resolver = jsonschema.RefResolver(file.as_uri(), self.document)
        self.statuses = set()  # (path, method, status)
        self.headers = set()  # (name of a shared response, or path, method and status; name of a header in it)
        self.codes = set()

    def documented(self) -> tuple:
        """Everything that should be seen: statuses, headers, codes."""
        statuses, headers = set(), set()
        for path, method, status, response in self._responses():
            statuses.add((path, method, status))
            place, response = self._found(response, (path, method, status))
            headers |= {(place, name.lower()) for name in response.get("headers", {})}
        return statuses, headers, set(self.document["components"]["schemas"]["Code"]["enum"])

    def _responses(self):
        for path, item in self.document["paths"].items():
            for method in METHODS:
                for status, response in item.get(method, {}).get("responses", {}).items():
                    yield path, method, status, response

    def _found(self, thing: dict, place) -> tuple:
        """Resolves a $ref: the name and the object; anything else is returned as it is."""
        if "$ref" not in thing:
            return place, thing
        return thing["$ref"].rsplit("/", 1)[1], self._resolver.resolve(thing["$ref"])[1]

    def _valid(self, value, schema: dict) -> None:
        checker = jsonschema.FormatChecker()
        jsonschema.Draft202012Validator(schema, resolver=self._resolver, format_checker=checker).validate(value)

    def saw(self, path: str, method: str, answer: Answer, shared: str | None = None) -> Answer:
        """Checks an answer against a path of the document; `shared` names the shared response for an undocumented method."""
        status = str(answer.status)
        if shared:
            place, response = shared, self.document["components"]["responses"][shared]
        else:
            responses = self.document["paths"][path][method]["responses"]
            status = next(known for known in (status, f"{status[0]}XX", "default") if known in responses or known == "default")
            assert status in responses, f"{method} {path} is answered with {answer.status}, which is not documented"
            self.statuses.add((path, method, status))
            place, response = self._found(responses[status], (path, method, status))
        self._check_headers(place, response.get("headers", {}), answer)
        if answer.body:
            self._check_body(place, response["content"], answer)
        elif method == "get" and answer.status not in (204, 302, 304):
            raise AssertionError(f"{method} {path} has no body")
        return answer

    def _check_headers(self, place, documented: dict, answer: Answer) -> None:
        known = {name.lower(): self._found(header, name)[1] for name, header in documented.items()}
        unknown = answer.headers.keys() - known.keys() - TRANSPORT
        assert not unknown, f"{place} has {unknown}, which is not documented: {answer}"
        for name, header in known.items():
            if name in answer.headers:
                self._valid(answer.headers[name], header["schema"])
                self.headers.add((place, name))
            else:
                assert not header.get("required"), f"{place} has no {name}: {answer}"

    def _check_body(self, place, documented: dict, answer: Answer) -> None:
        kind = answer.headers["content-type"].partition(";")[0]
        if "*/*" in documented:
            return
        assert kind in documented, f"{place} is {kind}, which is not documented"
        if kind == "text/event-stream":
            view = documented["application/json"]["schema"]
            many = view.get("$ref") == "#/components/schemas/TaskList"
            schemas = {"status": {"$ref": "unified-view.schema.json"} if many else view,
                       "problem": {"$ref": "#/components/schemas/StreamProblem"}}
            for event in re.findall(r"^event: (\w+)(?s:.*?)^data: (.*)$", answer.body.decode(), re.M):
                self._valid(json.loads(event[1]), schemas[event[0]])
            return
        text = kind == "text/plain"
        document = answer.body.decode() if text else answer.json()
        self._valid(document, documented[kind]["schema"])
        if kind == "application/problem+json":
            self.codes.add(document["code"])
            assert document["status"] == answer.status
        if not text and "tasks" in document:
            self.codes |= {task["code"] for task in document["tasks"] if "code" in task}
