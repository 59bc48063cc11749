"""Signed links: whoever has the link may read one task, or the tasks of a list, until the link expires."""

import pytest

from teaming import OLD_SECRET, SECRET, TOKENS, in_seconds, link, list_link, one_stack, refusal, sign, teams_stack, write_teams
from watching import NATIVE, UNIFIED, Stream, both_views, end, hold, run

UNAUTHORIZED, FORBIDDEN = (401, "unauthorized"), (403, "forbidden")
WEEK = 7 * 86400

shared = pytest.fixture(scope="module")(one_stack)


def ask(stack, query, path=NATIVE + "t", **headers):
    return stack.get(f"{path}?{query}", headers)


@both_views
def test_link_is_valid_for_both_views(shared, view):
    query = link("sora/t")
    assert ask(shared, query, view + "t").status == 200
    assert shared.get(f"{view}t?{query}", method="HEAD").status == 200
    assert refusal(ask(shared, query, view + "u")) == FORBIDDEN


@both_views
def test_link_is_valid_for_the_event_stream(make_stack, view):
    stack = teams_stack(make_stack, redis=False)
    run(stack, "7%", "t")
    with Stream(stack, f"{view}t?{link('sora/t')}") as stream:
        assert stream.response.status == 200 and stream.next().type == "status"
        end(stack, "t")
        assert [event.type for event in stream.rest()] == ["status"]


def test_link_may_wait(shared):
    answer = ask(shared, "wait=5&" + link("sora/t"))
    assert (answer.status, answer.headers["preference-applied"]) == (200, "wait=5")
    assert refusal(ask(shared, "wait=never&" + link("sora/t"))) == (400, "bad_request")


def test_link_for_a_task_is_not_valid_for_a_list(shared):
    assert refusal(ask(shared, "ids=sora/t&" + link("sora/t"), "/v1/tasks")) == FORBIDDEN
    assert refusal(ask(shared, "ids=sora/t&tasks=sora/t&" + link("sora/t"), "/v1/tasks")) == FORBIDDEN


# Lists


@pytest.mark.parametrize("ids", ["sora/t", "sora/t,sora/u", "sora/u,sora/t", "sora/t,sora/t", "sora%2Fu%2Csora%2Ft"])
def test_link_for_a_list_is_valid_for_any_of_its_tasks(shared, ids):
    query = list_link("sora/t,sora/u")
    for given in (query, query.replace("sora/", "sora%2F").replace(",", "%2c")):
        answer = ask(shared, f"wait=0&ids={ids}&{given}", "/v1/tasks")
        assert answer.status == 200
        assert {task["status"] for task in answer.json()["tasks"]} == {"succeeded"}
    assert ask(shared, f"ids={ids}&{query}", "/v1/tasks", **{"If-None-Match": answer.headers["etag"]}).status == 304


def test_link_for_a_list_is_valid_for_each_of_its_tasks(shared):
    query = list_link("sora/t,sora/u")
    for path in (NATIVE, UNIFIED):
        assert [ask(shared, query, path + task).status for task in ("t", "u")] == [200, 200]
        assert refusal(ask(shared, query, path + "v")) == FORBIDDEN
    assert ask(shared, query, UNIFIED + "t/content/0").status == 302
    assert refusal(ask(shared, query, UNIFIED + "v/content/0")) == FORBIDDEN
    assert refusal(shared.get(f"{NATIVE}t?{query}", method="POST")) == (405, "method_not_allowed")


def test_tasks_that_are_not_in_the_list_of_the_link_are_forbidden(shared):
    before = shared.standin.count()
    answer = ask(shared, "ids=sora/t,sora/secret,sora/T,kling/t,sora/u&" + list_link("sora/t,sora/u"), "/v1/tasks")
    assert [task.get("code") for task in answer.json()["tasks"]] == [None, "forbidden", "forbidden", "not_found", None]
    assert shared.standin.count() <= before + 2 and shared.standin.count("secret") == 0


@pytest.mark.parametrize("change", [
    lambda query: query.replace("sora/u", "sora/v"), lambda query: query.replace(",sora/u", ""),
    lambda query: query.replace("sora/u", "sora/u,sora/v"), lambda query: query.replace("sora/t", "SORA/t"),
    lambda query: query.replace("tasks=sora/t,sora/u&", ""), lambda query: query.replace("exp=", "exp=1"),
    lambda query: query.replace("team=web", "team=film"), lambda query: list_link("sora/t,sora/u", secret=OLD_SECRET),
    lambda query: list_link("sora/t,sora/u", exp=in_seconds(-40)),
], ids=["other", "fewer", "more", "case", "none", "exp", "team", "secret", "expired"])
def test_other_list_than_the_signed_one_is_forbidden(shared, change):
    query = change(list_link("sora/t,sora/u"))
    assert refusal(ask(shared, "ids=sora/t&" + query, "/v1/tasks")) == FORBIDDEN
    assert refusal(ask(shared, query)) == FORBIDDEN


@pytest.mark.parametrize("tasks", ["", ",", "sora/u,sora/t", "sora/t,sora/t", "sora/t,", "sora/t%0A1", "sora/t%00", "sora/t&tasks=sora/t"])
def test_malformed_list_is_unauthorized(shared, tasks):
    query = list_link(tasks)
    assert refusal(ask(shared, "ids=sora/t&" + query, "/v1/tasks")) == UNAUTHORIZED
    assert refusal(ask(shared, query)) == UNAUTHORIZED


def test_link_for_a_hundred_tasks_signed_by_the_command_line_is_valid(shared):
    names = [f"sora/task_01jhjp54x0f759wceyasz6{number:04}" for number in reversed(range(100))]
    done = shared.daemon.run("--sign", "--team", "web", "--tasks", ",".join(names), "--ttl", "1m")
    assert (done.returncode, done.stderr, done.stdout.count("\n")) == (0, "", 1)
    tasks = ask(shared, f"ids={','.join(names)}&{done.stdout.strip()}", "/v1/tasks").json()["tasks"]
    assert [f"sora/{task['task_id']}" for task in tasks if task["status"] == "succeeded"] == names


def test_order_of_the_parameters_does_not_matter(shared):
    team, exp, sig = link("sora/t").split("&")
    for query in (f"{sig}&{exp}&{team}", f"{exp}&wait=0&{team}&x=y&{sig}", f"&{team}&&{exp}&{sig}&"):
        assert ask(shared, query).status == 200


def test_missing_or_repeated_parameter_is_unauthorized(shared):
    parts = link("sora/t").split("&")
    for part in parts:
        others = [other for other in parts if other != part]
        for query in ("&".join(others), "&".join([*parts, part]), "&".join([*others, part.split("=")[0]]),
                      "&".join([*others, part.split("=")[0] + "="]), "&".join([*others, part.title()])):
            assert refusal(ask(shared, query)) == UNAUTHORIZED, query


@pytest.mark.parametrize("change", [
    lambda exp, sig: f"team=web&exp={exp}&sig={sig.upper()}", lambda exp, sig: f"team=web&exp={exp}&sig={sig[:-1]}",
    lambda exp, sig: f"team=web&exp={exp}&sig={sig}0", lambda exp, sig: f"team=web&exp=0{exp}&sig={sig}",
    lambda exp, sig: f"team=web&exp={exp}.0&sig={sig}", lambda exp, sig: f"team=web&exp=-1&sig={sig}",
    lambda exp, sig: f"team=web&exp={10 ** 30}&sig={sig}", lambda exp, sig: f"team=%77eb&exp={exp}&sig={sig}",
    lambda exp, sig: f"team={100 * 'w'}&exp={exp}&sig={sig}", lambda exp, sig: f"team=web&exp={exp}&sig={'x' * 64}",
], ids=["upper-case", "short", "long", "zero", "fraction", "negative", "huge", "percent", "long-team", "no-hex"])
def test_malformed_parameter_is_unauthorized(shared, change):
    exp = in_seconds(60)
    assert refusal(ask(shared, change(exp, sign("sora/t", exp)))) == UNAUTHORIZED


@pytest.mark.parametrize("query", [
    lambda: link("sora/u"), lambda: link("kling/t"), lambda: link("sora/t", secret="another secret"),
    lambda: link("sora/t", team="film"), lambda: link("sora/t", team="nobody"),
    lambda: link("sora/t").replace("team=web", "team=film"), lambda: link("sora/t", secret=OLD_SECRET),
    lambda: link("sora/t", exp=in_seconds(3600)).replace("exp=", "exp=1"),
    lambda: link("sora/t", exp=in_seconds(WEEK + 60)), lambda: link("sora/t", exp=in_seconds(-40)),
], ids=["task", "provider", "secret", "unlinked-team", "unknown-team", "other-team", "dropped-secret", "exp", "week", "expired"])
def test_wrong_signature_is_forbidden(shared, query):
    answer = ask(shared, query())
    assert refusal(answer) == FORBIDDEN and "www-authenticate" not in answer.headers


def test_only_an_expired_valid_link_is_reported_as_expired(shared):
    expired = link("sora/t", exp=in_seconds(-40))
    assert ask(shared, expired).json()["detail"] == "The link has expired."
    assert "expired" not in ask(shared, expired.replace("team=web", "team=film")).json()["detail"]


def test_thirty_seconds_of_clock_difference_are_tolerated(make_frozen):
    stack = teams_stack(make_frozen, redis=False)
    stack.standin.switch(state="SUCCESS")
    now = int(stack.clock.time())
    expiring, far = link("sora/t", exp=now), link("sora/t", exp=now + WEEK + 31)
    assert [ask(stack, query).status for query in (expiring, far)] == [200, 403]
    stack.step(1)
    assert [ask(stack, query).status for query in (expiring, far)] == [200, 200]
    stack.step(29)
    assert ask(stack, expiring).status == 200
    stack.step(1)
    assert refusal(ask(stack, expiring)) == FORBIDDEN


def test_longer_links_are_valid_where_the_configuration_allows_them(make_stack):
    stack = teams_stack(make_stack, access={"link_max_ttl": "366d"}, redis=False)
    assert ask(stack, link("sora/t", exp=in_seconds(366 * 86400))).status == 200
    answer = ask(stack, link("sora/t", exp=in_seconds(367 * 86400)))
    assert refusal(answer) == FORBIDDEN and "too far in the future" in answer.json()["detail"]


def test_wait_ends_with_its_link(make_frozen):
    stack = teams_stack(make_frozen, redis=False)
    run(stack, "7%", "t")
    query = link("sora/t", exp=int(stack.clock.time()) + 7)
    (held,) = hold(stack, (f"t?wait=30&{query}", {}))
    stack.step(8)
    answer = held.result()
    assert (answer.status, answer.headers["preference-applied"]) == (200, "wait=7")
    answer = ask(stack, f"wait=30&{query}")  # clocks may differ, but no wait is granted any more
    assert answer.status == 200 and "preference-applied" not in answer.headers


def test_stream_ends_with_its_link(make_frozen):
    stack = teams_stack(make_frozen, redis=False)
    run(stack, "7%", "t")
    stack.clock.run()
    exp = int(stack.clock.time()) + 40
    with Stream(stack, f"{UNIFIED}t?{link('sora/t', exp=exp)}") as stream, \
            Stream(stack, f"{UNIFIED}t", Authorization=f"Bearer {TOKENS['web']}") as other:
        assert stream.next().type == other.next().type == "status"
        stack.clock.freeze()
        stack.step(exp - stack.clock.time() - 0.5)
        stack.wait_metric("streams", 2)
        stack.step(1)
        (event,) = stream.rest()
        assert (event.type, event.data["detail"]) == ("problem", "The link has expired.")
        stack.wait_metric("streams", lambda open: open == 1)


def test_one_of_several_secrets_is_withdrawn(make_stack):
    both = {"new": "web-links", "old": "old-web-links"}
    stack = teams_stack(make_stack, {"web": {"link_secret_file": None, "link_secrets": both}}, redis=False)
    old, new = link("sora/t", secret=OLD_SECRET, kid="old"), link("sora/t", kid="new")
    assert [ask(stack, query).status for query in (old, new)] == [200, 200]
    for query in (link("sora/t"), link("sora/t", kid="old"), new.replace("kid=new", "kid=old"), link("sora/t", kid="x")):
        assert refusal(ask(stack, query)) == FORBIDDEN
    done = stack.daemon.run("--sign", "--team", "web", "--task", "sora/t", "--ttl", "1m")
    assert "&kid=new&" in done.stdout and ask(stack, done.stdout.strip()).status == 200
    write_teams(stack, {"web": {"link_secret_file": None, "link_secrets": {"new": "web-links"}}})
    stack.wait_until(lambda: ask(stack, old).status == 403, what="the old secret to be withdrawn")
    assert ask(stack, new).status == 200


def test_token_takes_precedence_over_a_link(shared):
    assert refusal(ask(shared, link("sora/t"), Authorization="Bearer wrong")) == UNAUTHORIZED
    assert ask(shared, link("sora/t"), Authorization="Basic dXNlcjpwYXNz").status == 200


def test_links_of_the_old_secret_are_valid_until_it_is_removed(make_stack):
    stack = teams_stack(make_stack, {"web": {"old_link_secret_file": "old-web-links"}}, redis=False)
    assert ask(stack, link("sora/t", secret=SECRET)).status == 200
    assert ask(stack, link("sora/t", secret=OLD_SECRET)).status == 200
    write_teams(stack)
    stack.wait_until(lambda: ask(stack, link("sora/t", secret=OLD_SECRET)).status == 403, what="the old secret to be dropped")
    assert ask(stack, link("sora/t", secret=SECRET)).status == 200


def test_link_signed_by_the_command_line_is_valid(shared):
    done = shared.daemon.run("--sign", "--team", "web", "--task", "sora/t", "--ttl", "1m")
    assert ask(shared, done.stdout.strip()).status == 200


def test_links_are_valid_in_mode_nginx(make_stack):
    stack = teams_stack(make_stack, mode="nginx", redis=False)
    assert ask(stack, link("sora/t")).status == 200
    assert ask(stack, "ids=sora/t&" + list_link("sora/t,sora/u"), "/v1/tasks").status == 200
    assert refusal(ask(stack, link("sora/u"))) == FORBIDDEN


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604], ids=oct)
def test_link_secret_readable_by_others_is_refused(make_stack, mode):
    stack = teams_stack(make_stack, daemon=False, redis=False)
    (stack.folder / "web-links").chmod(mode)
    done = stack.daemon.run("--check-config")
    assert done.returncode == 1 and "/web/link_secret_file:" in done.stderr and f"{mode:04o}" in done.stderr
    assert SECRET not in done.stderr
