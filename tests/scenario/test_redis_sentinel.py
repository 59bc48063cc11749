"""Workers use the master that Sentinels name. Failovers: test_redis_failover.py."""

import pytest

from helpers import REDIS_KEY, clients, said, step_until
from port import Port
from redises import MASTER, Scripted, Sentinel, bulk, guarded, servers_in_use, wait_uses


def assert_stored(stack, server, task) -> None:
    stack.standin.switch(state="SUCCESS")
    assert stack.task(task).status == 200
    stack.wait_until(lambda: server.cli("EXISTS", f"{REDIS_KEY}{task}") == "1", what=f"{task} in {server.name}")


@pytest.mark.problem("No Sentinel leads to a master")
def test_server_that_is_no_sentinel_is_logged_and_the_next_one_asked(make_stack):
    stack = make_stack(daemon=False, nginx=False)
    with guarded(stack) as redis:
        wrong, right = redis.servers[1], redis.sentinels[0]
        stack.configure(redis={"address": None, "sentinels": [wrong.address, right.address], "master_name": MASTER,
                               "timeout": "5s"})
        stack.daemon.start()
        stack.nginx.start()
        stack.wait_log("Redis at mymaster (Sentinel) is unavailable")
        wait_uses(stack, redis.master())
        stack.configure(redis={"sentinels": [right.address], "master_name": "other"})
        stack.daemon.reload()
        stack.wait_log("Redis at other (Sentinel) is unavailable: the Sentinel names no IP address for this master")
        assert stack.task("t").status == 200


def subscribers(sentinel) -> int:
    return sentinel.cli("CLIENT", "LIST").count(" sub=1 ")


def test_sentinel_that_names_a_lost_master_is_not_believed_again(make_stack):
    """Workers find the master through another one, whose announcements they hear from then on."""
    stack, lost = make_stack(daemon=False, nginx=False), Port()
    outdated = Sentinel(stack, "outdated")
    with guarded(stack, 1) as redis:
        try:
            outdated.start(lost.number, 1)
            [good] = redis.sentinels
            stack.configure(redis=redis.settings(sentinels=[outdated.address, good.address]))
            stack.daemon.start()
            stack.nginx.start()
            wait_uses(stack, redis.servers[0])
            stack.wait_until(lambda: (subscribers(outdated), subscribers(good)) == (0, 2), what="two subscribers")
            wait_uses(stack, redis.servers[0])
        finally:
            outdated.stop()
            lost.close()


@pytest.mark.problem("The Sentinels are lost")
def test_lost_sentinels_are_logged_once_and_asked_again(make_stack):
    """The server stays in use."""
    stack = make_stack(daemon=False, nginx=False)
    with guarded(stack, 1) as redis:
        stack.configure(redis=redis.settings(timeout="5s"))
        stack.daemon.start()
        stack.nginx.start()
        [server], [sentinel] = redis.servers, redis.sentinels
        wait_uses(stack, server)
        stack.wait_until(lambda: subscribers(sentinel) == 2, what="two subscribers")
        sentinel.kill()
        for worker in (0, 1):
            stack.wait_log(f"warn worker {worker}: Redis Sentinel subscription lost (mymaster (Sentinel)): Connection refused; ")
        with clients(stack) as failures:
            assert_stored(stack, server, "task_1")
        assert failures == [] and servers_in_use(stack) == {server.address: 2}
        sentinel.start(server.port.number, 1)
        for worker in (0, 1):
            stack.wait_log(f"info worker {worker}: Redis Sentinel subscription restored (mymaster (Sentinel))")
        assert subscribers(sentinel) == 2 and len(said(stack)) == 4


class Announcing(Scripted):
    """A Sentinel that announces a failover to each subscriber at once; also the master that it names."""

    def __init__(self):
        self.announcements = []
        super().__init__()

    def _reply(self, words) -> str:
        host, _, port = self.address.partition(":")
        return f"*2\r\n{bulk(host)}{bulk(port)}" if words[0] == b"SENTINEL" else "$-1\r\n"

    def _subscribed(self, channel: str) -> str:
        reply = super()._subscribed(channel)
        if channel == "+switch-master":
            self.announcements.append(f"*3\r\n{bulk('message')}{bulk(channel)}{bulk('a failover')}")
            reply += self.announcements[-1]
        return reply


def test_worker_pauses_after_each_announcement(make_stack):
    stack, sentinel = make_stack(daemon=False, nginx=False, clock=True), Announcing()
    stack.configure(workers=1, redis={"address": None, "sentinels": [sentinel.address], "master_name": MASTER})
    stack.daemon.start()
    stack.nginx.start()
    stack.freeze()
    began, before = stack.clock.time(), len(sentinel.announcements)
    step_until(stack, lambda: len(sentinel.announcements) >= before + 20, "20 announcements", 0.02)
    assert stack.clock.time() - began > 19 * 0.1 - 0.02
    assert said(stack) == []
    sentinel.stop()
