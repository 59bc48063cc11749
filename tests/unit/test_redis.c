/* A connection to a Redis that answers commands with the same error, also as the only node of a cluster. */
#include "unit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/stats.h"
#include "net/redis.h"
#include "net/redis_slots.h"
#include "monotonic.h"

static char folder[] = "/tmp/test_redis.XXXXXX", prefix[] = "taskproxy:", *path;
static struct conf_redis conf;
static struct endpoint endpoint = {.host = "127.0.0.1", .port = 7000, .loopback = true};
static uv_loop_t loop;
static uv_pipe_t server, client; /* the server's listening socket, and its connection */
static struct redis *redis;
static int n_probes, n_hashed;

/* Replaces the hash function: the slot is the number at the end of the key. */
int redis_slot(const char *key)
{
    n_hashed++;
    return (int)strtol(strrchr(key, ':') + 1, NULL, 10);
}

static void on_room(uv_handle_t *handle, size_t wanted, uv_buf_t *ret)
{
    static char room[4096];
    (void)handle, (void)wanted;
    *ret = uv_buf_init(room, sizeof(room));
}

/* Every argument count, "*N\r\n", begins a command. */
static void on_commands(uv_stream_t *stream, ssize_t n, const uv_buf_t *commands)
{
    static char error[] = "-OOM command not allowed\r\n",
                table[] = "$59\r\n0123 127.0.0.1:7000@1 myself,master - 0 0 1 connected 9999\n\r\n",
                question[] = "*2\r\n$7\r\nCLUSTER\r\n", probe[] = "*4\r\n$3\r\nSET\r\n";
    for (const char *at = commands->base, *end = at + n; (at = memchr(at, '*', (size_t)(end - at))); at++) {
        bool asks = strncmp(at, question, sizeof(question) - 1) == 0;
        uv_buf_t buf = asks ? uv_buf_init(table, sizeof(table) - 1) : uv_buf_init(error, sizeof(error) - 1);
        n_probes += strncmp(at, probe, sizeof(probe) - 1) == 0;
        assert_int_equal(uv_try_write(stream, &buf, 1), buf.len);
    }
}

static void on_connection(uv_stream_t *stream, int status)
{
    assert_int_equal(status, 0);
    uv_pipe_init(&loop, &client, 0);
    assert_int_equal(uv_accept(stream, (uv_stream_t *)&client), 0);
    uv_read_start((uv_stream_t *)&client, on_room, on_commands);
}

static void begin(struct conf_redis settings)
{
    assert_non_null(mkdtemp(folder));
    path = xasprintf("%s/socket", folder);
    conf = settings;
    conf.name = conf.address = path;
    conf.socket = path;
    conf.endpoints = &endpoint;
    conf.prefix = prefix;
    conf.timeout_ms = 60000;
    uv_loop_init(&loop);
    uv_pipe_init(&loop, &server, 0);
    assert_int_equal(uv_pipe_bind(&server, path), 0);
    assert_int_equal(uv_listen((uv_stream_t *)&server, 1, on_connection), 0);
    redis = redis_new(&loop, &conf);
}

static void run_until_up(void)
{
    while (stat_get(STAT_REDIS_UP) == 0)
        uv_run(&loop, UV_RUN_ONCE);
}

static void end(void)
{
    redis_free(redis);
    uv_close((uv_handle_t *)&client, NULL);
    uv_close((uv_handle_t *)&server, NULL);
    uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&loop), 0);
    stat_set(STAT_REDIS_UP, 0);
    rmdir(folder);
    memcpy(folder + strlen(folder) - 6, "XXXXXX", 6);
    free(path);
}

TEST(probe_that_is_due_is_not_sent_by_a_freed_connection)
{
    begin((struct conf_redis){0});
    run_until_up();
    assert_int_equal(stat_get(STAT_REDIS_NO_WRITES), 1);
    skipped_s = 3600; /* as if freeing the cache had taken so long */
    end();
    skipped_s = 0;
}

TEST(handshake_may_be_answered_with_any_error)
{
    begin((struct conf_redis){.database = 1});
    run_until_up();
    assert_int_equal(stat_get(STAT_REDIS_NO_WRITES), 1);
    end();
}

static void run_until_next_probe(void)
{
    int before = n_probes;
    while (n_probes == before || redis_is_busy(redis))
        uv_run(&loop, UV_RUN_ONCE);
    skipped_s += 5; /* another one is due */
}

TEST(probe_key_of_a_node_is_searched_for_only_once)
{
    begin((struct conf_redis){.cluster = true});
    while (n_hashed == 0) /* the node's slot is not known yet */
        run_until_next_probe();
    assert_int_equal(n_hashed, 10000);
    run_until_next_probe();
    assert_int_equal(n_hashed, 10001);
    end();
    skipped_s = 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(probe_that_is_due_is_not_sent_by_a_freed_connection),
        cmocka_unit_test(handshake_may_be_answered_with_any_error),
        cmocka_unit_test(probe_key_of_a_node_is_searched_for_only_once),
    };
    return cmocka_run_group_tests_name("redis", tests, NULL, NULL);
}
