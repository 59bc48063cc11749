"""The memory of a worker's cache after many more finished tasks than it can hold.

The stand-in is too slow for 100,000 tasks. So one task is fetched from it, a Lua script in Redis multiplies the value that
the worker has stored, in portions, and then each task is requested once, through nginx."""

from measure import Table, ask, bench_stack, free_port, resident_mib, server, worker

TASKS = 100_000
PORTION = 10_000
CONNECTIONS = 32
MODEL = "task_sample"  # as long as the other names, task_000000 to task_099999
KEY = "taskproxy:main:sora:"

MULTIPLY = """
    local value = redis.call('GET', KEYS[1] .. ARGV[1])
    local ttl = redis.call('PTTL', KEYS[1] .. ARGV[1])
    redis.call('FLUSHDB')
    redis.call('SET', KEYS[1] .. ARGV[1], value, 'PX', ttl)
    for i = ARGV[2], ARGV[2] + ARGV[3] - 1 do
        local id = string.format('task_%06d', i)
        redis.call('SET', KEYS[1] .. id, (value:gsub(ARGV[1], id)), 'PX', ttl)
    end
    return ARGV[3]
"""


def ask_portion(stack, port: int, first: int) -> None:
    if stack.redis.cli("EVAL", MULTIPLY, 1, KEY, MODEL, first, PORTION) != str(PORTION):
        raise RuntimeError("Redis did not create the tasks: has the format of keys or values changed?")
    ask(port, CONNECTIONS, [f"/sora/v1/videos/task_{i:06d}" for i in range(first, first + PORTION)])


def measure() -> Table:
    port = free_port()
    with bench_stack(server(port, more="location = /warm { return 204; }"), config={"cache": {"memory": "64MiB"}}) as stack:
        stack.standin.switch(MODEL, state="SUCCESS")
        size = len(stack.task(MODEL).body)
        stack.wait_metric("redis_commands_total", 1, command="set")
        before = resident_mib(worker(stack))
        for first in range(0, TASKS, PORTION):
            ask_portion(stack, port, first)
        stack.wait_metric("cache_hits_total", TASKS, level="redis")
        after, metrics, queries = resident_mib(worker(stack)), stack.metrics(), stack.standin.count()
    table = Table(f"A worker after {TASKS:,} finished tasks of {size:,} bytes, \"cache.memory\" 64 MiB")
    table.row("resident before", f"{before:.1f} MiB")
    table.row("resident after", f"{after:.1f} MiB")
    table.row("cache_bytes", f"{metrics.sum('cache_bytes') / 2**20:.1f} MiB")
    table.row("cache_entries", f"{metrics.sum('cache_entries'):,.0f}")
    table.row("cache_evictions_total", f"{metrics.sum('cache_evictions_total'):,.0f}")
    table.row("upstream queries", str(queries))
    return table
