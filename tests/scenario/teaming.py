"""A stack in the access mode "teams", and the credentials of its teams."""

import contextlib
import hashlib
import hmac
import json
import time

from stack import Stack, merged

TOKENS = {team: f"tp-{team}-0123456789abcdef" for team in ("web", "film", "music")}
SECRET = "a-secret-for-links-of-64-characters-0123456789abcdef0123456789ab"
OLD_SECRET = SECRET[::-1]
TEAMS = {
    "web": {"providers": ["sora"], "origins": ["https://app.example.com"], "link_secret_file": "web-links"},
    "film": {"providers": ["sora"]},
}


def digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def write_teams(stack, changes: dict | None = None) -> None:
    """Writes the teams file, TEAMS merged with the changes, each team with its token; and the secrets that it names."""
    teams = merged(TEAMS, changes or {})
    for name, team in teams.items():
        team.setdefault("token_sha256", [digest(TOKENS[name])] if name in TOKENS else [])
    stack.write_key(SECRET, file=stack.folder / "web-links")
    stack.write_key(OLD_SECRET, file=stack.folder / "old-web-links")
    (stack.folder / "teams.json").write_text(json.dumps(teams, indent=2))


def written_tokens() -> dict:
    """The tokens of the teams that write_teams() writes by default."""
    return {team: TOKENS[team] for team in TEAMS}


def teams_stack(make_stack, teams: dict | None = None, mode: str = "teams", access: dict | None = None, daemon=True, **settings):
    """A running stack with teams; `teams` is merged into TEAMS, `access` into the settings of the mode."""
    config = {"access": {"mode": mode, "teams_file": "teams.json", **(access or {})}}
    stack = make_stack(**{**settings, "config": merged(config, settings.get("config", {}))}, daemon=False, nginx=False)
    write_teams(stack, teams)
    if daemon:
        stack.daemon.start()
        stack.nginx.start()
    return stack


def bearer(team: str) -> dict:
    return {"Authorization": f"Bearer {TOKENS[team]}"}


def given(team: str) -> dict:
    """The same for Stack.ask_worker()."""
    return {"HTTP_AUTHORIZATION": bearer(team)["Authorization"]}


def in_seconds(seconds: int) -> int:
    return int(time.time()) + seconds


def sign(task: str, exp: int, team: str = "web", secret: str = SECRET, kid: str = "", kind: str = "link") -> str:
    """The signature, as the documentation has it; of the kind "list", `task` is a list."""
    text = f"taskproxy-{kind}-v1\n{team}\n{task}\n{exp}\n" + (f"{kid}\n" if kid else "")
    return hmac.new(secret.encode(), text.encode(), hashlib.sha256).hexdigest()


def link(task: str, exp: int | None = None, team: str = "web", secret: str = SECRET, kid: str = "") -> str:
    """The query string of a link."""
    exp = in_seconds(3600) if exp is None else exp
    named = f"&kid={kid}" if kid else ""
    return f"team={team}&exp={exp}{named}&sig={sign(task, exp, team, secret, kid)}"


def list_link(tasks: str, exp: int | None = None, **rest) -> str:
    """The same for a list of tasks."""
    exp = in_seconds(3600) if exp is None else exp
    return f"tasks={tasks}&team=web&exp={exp}&sig={sign(tasks, exp, kind='list', **rest)}"


def refusal(answer) -> tuple:
    """Status and code of a problem; asserts that it repeats nothing of the request but its id."""
    assert answer.headers["content-type"] == "application/problem+json"
    document = answer.json()
    assert document["status"] == answer.status and document["detail"] == document["message"]
    return answer.status, document["code"]


def one_stack():
    """Makes a fixture: one stack for the tests that change nothing; all tasks have ended."""
    with contextlib.ExitStack() as stacks:
        stack = teams_stack(lambda **settings: stacks.enter_context(Stack(**settings)), redis=False)
        stack.standin.switch(state="SUCCESS")
        yield stack
