/* A connection to a Redis that answers every command with the same error. */
#include "unit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/stats.h"
#include "net/redis.h"
#include "monotonic.h"

static char folder[] = "/tmp/test_redis.XXXXXX", prefix[] = "taskproxy:", *path;
static struct conf_redis conf;
static struct endpoint no_endpoint;
static uv_loop_t loop;
static uv_pipe_t server, client; /* the server's listening socket, and its connection */
static struct redis *redis;

static void on_room(uv_handle_t *handle, size_t wanted, uv_buf_t *ret)
{
    static char room[4096];
    (void)handle, (void)wanted;
    *ret = uv_buf_init(room, sizeof(room));
}

/* Every argument count, "*N\r\n", begins a command. */
static void on_commands(uv_stream_t *stream, ssize_t n, const uv_buf_t *commands)
{
    static char reply[] = "-OOM command not allowed\r\n";
    uv_buf_t buf = uv_buf_init(reply, sizeof(reply) - 1);
    for (ssize_t i = 0; i < n; i++) {
        if (commands->base[i] == '*')
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
    conf.endpoints = &no_endpoint;
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(probe_that_is_due_is_not_sent_by_a_freed_connection),
        cmocka_unit_test(handshake_may_be_answered_with_any_error),
    };
    return cmocka_run_group_tests_name("redis", tests, NULL, NULL);
}
