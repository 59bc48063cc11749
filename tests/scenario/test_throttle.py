"""Refused tokens, links and webhook secrets: counted, logged without the secret, and throttled for each client address."""

import pytest

from hooking import HOOK, SECRET, naming, post, settings
from teaming import TOKENS, bearer, link, refusal, teams_stack
from watching import NATIVE

LIMIT = 20
UNAUTHORIZED, FORBIDDEN, LIMITED = (401, "unauthorized"), (403, "forbidden"), (429, "rate_limited")


def token_from(stack, address, token):
    return stack.ask_worker(NATIVE + "t", HTTP_AUTHORIZATION=f"Bearer {token}", REMOTE_ADDR=address)


@pytest.fixture
def stack(make_stack):
    running = teams_stack(make_stack, redis=False, config={"workers": 1})
    running.standin.switch(state="SUCCESS")
    return running


def test_guesses_of_one_address_are_throttled(stack):
    answers = [token_from(stack, "192.0.2.1", f"guess-{number}") for number in range(LIMIT + 5)]
    assert [refusal(answer) for answer in answers] == LIMIT * [UNAUTHORIZED] + 5 * [LIMITED]
    assert 0 < int(answers[-1].headers["retry-after"]) <= 60
    assert stack.metric("credentials_refused_total", kind="token") == LIMIT + 5
    assert stack.metric("credentials_throttled_total") == 5


def test_valid_credential_passes_from_a_throttled_address(stack):
    for number in range(LIMIT + 1):
        token_from(stack, "192.0.2.1", f"guess-{number}")
    assert refusal(token_from(stack, "192.0.2.1", "guess")) == LIMITED
    assert token_from(stack, "192.0.2.1", TOKENS["web"]).status == 200
    assert stack.ask_worker(f"{NATIVE}t?{link('sora/t')}", REMOTE_ADDR="192.0.2.1").status == 200
    assert refusal(token_from(stack, "192.0.2.2", "guess")) == UNAUTHORIZED


def test_refusals_are_logged_once_per_address_and_without_the_credential(stack):
    wrong = link("sora/t", secret="another-secret-0123456789-0123456789")
    for _ in range(LIMIT + 5):
        token_from(stack, "192.0.2.1", "guess-0123456789")
        assert refusal(stack.ask_worker(f"{NATIVE}t?{wrong}", REMOTE_ADDR="2001:db8::1")) in (FORBIDDEN, LIMITED)
    log = stack.daemon.log()
    assert log.count("refused a token from 192.0.2.1\n") == log.count("refused a signed link from 2001:db8::1\n") == 1
    assert log.count("192.0.2.1 has sent 20 invalid credentials; throttling it\n") == 1
    assert "guess" not in log and wrong.rpartition("=")[2] not in log


def test_nginx_passes_the_clients_address(make_stack):
    stack = teams_stack(make_stack, redis=False, config={"workers": 1}, port=0)
    answers = [stack.get(NATIVE + "t", {"Authorization": "Bearer wrong"}) for _ in range(LIMIT + 1)]
    assert [refusal(answer) for answer in answers[-2:]] == [UNAUTHORIZED, LIMITED]
    assert stack.get(NATIVE + "t", bearer("web")).status == 200
    stack.wait_log("refused a token from 127.0.0.1")


def test_wrong_webhook_secrets_are_throttled(make_stack, tmp_path):
    stack = make_stack(**settings(tmp_path), port=0, redis=False)
    answers = [post(stack, naming("t"), f"{HOOK[:-5]}{number:05}") for number in range(LIMIT + 1)]
    assert [refusal(answer) for answer in answers] == LIMIT * [(404, "not_found")] + [LIMITED]
    assert post(stack, naming("t")).status == 204
    assert stack.metric("credentials_refused_total", kind="hook") == LIMIT + 1
    assert SECRET[:-5] not in stack.daemon.log()


def test_missing_credential_and_expired_link_are_no_guesses(stack):
    for _ in range(LIMIT + 1):
        assert refusal(stack.ask_worker(NATIVE + "t", REMOTE_ADDR="192.0.2.1")) == UNAUTHORIZED
        expired = stack.ask_worker(f"{NATIVE}t?{link('sora/t', exp=1)}", REMOTE_ADDR="192.0.2.1")
        assert refusal(expired) == FORBIDDEN
    assert stack.metric("credentials_refused_total") == 0
