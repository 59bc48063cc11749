/* A query to a server of the same loop. */
#include "unit.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "lib/address.h"
#include "lib/util.h"
#include "upstream/http.h"
#include "monotonic.h"

static uv_loop_t loop;
static uv_tcp_t server, connection; /* the listening socket, and the connection of the query */
static bool asked;
static uint64_t answered_at; /* loop time; 0: not yet */

static void on_room(uv_handle_t *handle, size_t wanted, uv_buf_t *ret)
{
    static char room[4096];
    (void)handle, (void)wanted;
    *ret = uv_buf_init(room, sizeof(room));
}

static void on_query(uv_stream_t *stream, ssize_t n, const uv_buf_t *query)
{
    (void)stream, (void)query;
    asked = asked || n > 0;
}

static void on_connection(uv_stream_t *stream, int status)
{
    assert_int_equal(status, 0);
    uv_tcp_init(&loop, &connection);
    assert_int_equal(uv_accept(stream, (uv_stream_t *)&connection), 0);
    uv_read_start((uv_stream_t *)&connection, on_room, on_query);
}

/* Returns the server's URL. */
static char *listen_on_loopback(void)
{
    struct sockaddr_in address;
    int len = sizeof(address);
    uv_ip4_addr("127.0.0.1", 0, &address);
    uv_tcp_init(&loop, &server);
    assert_int_equal(uv_tcp_bind(&server, (struct sockaddr *)&address, 0), 0);
    assert_int_equal(uv_listen((uv_stream_t *)&server, 1, on_connection), 0);
    assert_int_equal(uv_tcp_getsockname(&server, (struct sockaddr *)&address, &len), 0);
    return xasprintf("http://127.0.0.1:%d/", ntohs(address.sin_port));
}

static void send_answer(void)
{
    char text[] = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
    uv_buf_t buf = uv_buf_init(text, sizeof(text) - 1);
    assert_int_equal(uv_try_write((uv_stream_t *)&connection, &buf, 1), buf.len);
}

static void on_answer(void *user, const struct http_answer *answer)
{
    (void)user;
    assert_int_equal(answer->outcome, OUTCOME_OK);
    answered_at = uv_now(&loop);
}

static void on_work(uv_poll_t *work, int status, int events)
{
    (void)status, (void)events;
    skipped_s += 60;
    uv_poll_stop(work);
}

TEST(loop_time_of_an_answer_includes_the_work_before_it)
{
    int work[2];
    uv_poll_t work_poll;
    uv_loop_init(&loop);
    char *url = listen_on_loopback();
    struct http *http = http_new(&loop);
    const struct http_request request = {
        .url = url, .headers = "", .allowed = 1U << ADDRESS_LOOPBACK, .max_body = 100};
    assert_non_null(http_get(http, &request, on_answer, NULL));
    while (!asked)
        uv_run(&loop, UV_RUN_ONCE);

    assert_int_equal(pipe(work), 0);
    uv_poll_init(&loop, &work_poll, work[0]);
    uv_poll_start(&work_poll, UV_READABLE, on_work);
    uv_run(&loop, UV_RUN_NOWAIT);
    uint64_t before = uv_now(&loop);
    assert_int_equal(write(work[1], "", 1), 1); /* earlier than the answer, so its callback runs first */
    send_answer();
    while (answered_at == 0)
        uv_run(&loop, UV_RUN_ONCE);
    assert_in_range(answered_at, before + 60000, UINT64_MAX);

    http_free(http);
    uv_close((uv_handle_t *)&work_poll, NULL);
    uv_close((uv_handle_t *)&connection, NULL);
    uv_close((uv_handle_t *)&server, NULL);
    uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&loop), 0);
    close(work[0]);
    close(work[1]);
    free(url);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(loop_time_of_an_answer_includes_the_work_before_it),
    };
    return cmocka_run_group_tests_name("http", tests, NULL, NULL);
}
