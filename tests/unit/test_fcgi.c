/* The parameters of requests, answers that clients read slowly, or not at all, and connections that cannot be accepted. The
 * server and its clients run in this thread, in turns. */
#include "unit.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "lib/stats.h"
#include "monotonic.h"
#include "net/fcgi.h"

enum { TURNS = 1000000, LARGE = 1 << 20, CLIENTS = 4 };

static const char head[] = "Content-Type: text/plain\r\n\r\n";

static uv_loop_t loop;
static struct fcgi_server *server;
static struct sockaddr_un address;
static socklen_t address_len;
static struct body body;  /* of the next answers */
static int64_t *account;  /* of the next answers, or NULL */
static size_t n_answered; /* requests */
static bool has_method;   /* the last request had this method, and no parameters with similar names */
static bool drained;
static int clients[CLIENTS];
static int accept_error; /* 0: connections can be accepted */
static int n_accepts;    /* attempts */

/* Replaces the C library's function. */
int accept4(int fd, struct sockaddr *peer, socklen_t *peer_len, int flags)
{
    n_accepts++;
    if (accept_error == 0)
        return (int)syscall(SYS_accept4, fd, peer, peer_len, flags);
    errno = accept_error;
    return -1;
}

static void on_request(void *ctx, struct fcgi_request *request)
{
    (void)ctx;
    n_answered++;
    const char *method = fcgi_param(request, "REQUEST_METHOD");
    has_method = method != NULL && strcmp(method, "GET") == 0 &&
                 fcgi_param(request, "REQUEST_METHO") == NULL &&
                 fcgi_param(request, "REQUEST_METHODS") == NULL && fcgi_param(request, "") == NULL;
    fcgi_account(request, account);
    fcgi_send(request, head, strlen(head), &body);
}

static void on_drained(void *ctx)
{
    (void)ctx;
    drained = true;
}

static int begin(void **unused __attribute__((unused)))
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    address = (struct sockaddr_un){.sun_family = AF_UNIX}; /* an abstract address, which the kernel chooses */
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address.sun_family)), 0);
    assert_int_equal(listen(fd, CLIENTS), 0);
    uv_loop_init(&loop);
    server = fcgi_listen(&loop, fd, 100, (struct fcgi_handlers){on_request, on_drained, NULL});
    address_len = sizeof(address);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &address_len), 0);
    body = (struct body){0};
    account = NULL;
    n_answered = 0;
    drained = false;
    for (size_t i = 0; i < CLIENTS; i++)
        clients[i] = -1;
    return 0;
}

static void close_client(size_t i)
{
    if (clients[i] >= 0)
        close(clients[i]);
    clients[i] = -1;
}

static int end(void **unused __attribute__((unused)))
{
    for (size_t i = 0; i < CLIENTS; i++)
        close_client(i);
    fcgi_free(server);
    uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&loop), 0);
    assert_int_equal(stat_get(STAT_UNSENT_BYTES), 0);
    return 0;
}

static void turn(void)
{
    uv_run(&loop, UV_RUN_NOWAIT);
}

static void join(size_t i)
{
    clients[i] = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(clients[i], (struct sockaddr *)&address, address_len), 0);
}

static void ask(size_t i)
{
    static const unsigned char request[] = {
        1,   1,   0,   1,   0,   8,   0,   0, 0,  1, 1,   0,   0,   0,   0,   0, /* BEGIN_REQUEST, kept */
        1,   4,   0,   1,   0,   19,  0,   0, 14, 3, 'R', 'E', 'Q', 'U', 'E', 'S',
        'T', '_', 'M', 'E',                                                 /* PARAMS */
        'T', 'H', 'O', 'D', 'G', 'E', 'T', 1, 4,  0, 1,   0,   0,   0,   0, /* their end */
        1,   5,   0,   1,   0,   0,   0,   0};                              /* the end of STDIN */
    size_t before = n_answered;
    if (clients[i] < 0)
        join(i);
    assert_int_equal(send(clients[i], request, sizeof(request), 0), sizeof(request));
    for (int turns = 0; n_answered == before; turns++) {
        assert_in_range(turns, 0, TURNS);
        turn();
    }
}

/* An answer as it is received. */
struct reply {
    unsigned char header[8]; /* of the current record */
    size_t header_len, left, padding;
    struct buf out; /* the contents of its STDOUT records */
    bool ended;
};

static void take(struct reply *r, const unsigned char *data, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        if (r->header_len < sizeof(r->header)) {
            r->header[r->header_len++] = data[i];
            r->left = (size_t)r->header[4] << 8 | r->header[5];
            r->padding = r->header[6];
        } else if (r->left > 0) {
            r->left--;
            if (r->header[1] == 6) /* FCGI_STDOUT */
                buf_putc(&r->out, (char)data[i]);
        } else {
            r->padding--;
        }
        if (r->header_len == sizeof(r->header) && r->left + r->padding == 0) {
            r->ended |= r->header[1] == 3; /* FCGI_END_REQUEST */
            r->header_len = 0;
        }
    }
}

/* Reads an answer, up to `step` bytes in each turn, and checks that it is the head and `expected`. */
static void assert_reply(size_t i, size_t step, const char *expected)
{
    static unsigned char piece[1 << 16];
    struct reply r = {.ended = false};
    buf_init(&r.out, 4 * LARGE);
    for (int turns = 0; !r.ended; turns++) {
        assert_in_range(turns, 0, TURNS);
        ssize_t n = recv(clients[i], piece, step, 0);
        assert_int_not_equal(n, 0);
        if (n > 0)
            take(&r, piece, (size_t)n);
        turn();
    }
    assert_int_equal(r.out.len, strlen(head) + strlen(expected));
    assert_memory_equal(r.out.data, head, strlen(head));
    assert_memory_equal(r.out.data + strlen(head), expected, strlen(expected));
    buf_done(&r.out);
}

/* The caller frees. */
static char *text_of(size_t len)
{
    char *text = xcalloc(len + 1, 1);
    for (size_t i = 0; i < len; i++)
        text[i] = (char)('!' + i % 89);
    return text;
}

static struct blob *blob_of(size_t len)
{
    char *text = text_of(len);
    struct blob *b = blob_new(text, len);
    free(text);
    return b;
}

/* An answer with the first `cut` bytes as text, the others as a blob. */
static void assert_arrives(const char *text, size_t cut, size_t step)
{
    struct blob *blob = blob_new(text + cut, strlen(text) - cut);
    const struct body_blob blobs[] = {{cut, blob}};
    body = (struct body){text, cut, blobs, 1};
    ask(0);
    assert_reply(0, step, text);
    assert_int_equal(blob->refs, 1);
    assert_int_equal(stat_get(STAT_UNSENT_BYTES), 0);
    blob_unref(blob);
}

TEST(parameter_has_exactly_its_name)
{
    ask(0);
    assert_true(has_method);
}

TEST(answer_arrives_whole_whatever_its_length)
{
    static const size_t borders[] = {
        0, FCGI_RECORD_MAX - sizeof(head) + 1, FCGI_RECORD_MAX, 8192, 2 * FCGI_RECORD_MAX, 65535, 65536};
    for (size_t i = 0; i < NELEMS(borders); i++) {
        for (size_t len = borders[i] > 2 ? borders[i] - 2 : 0; len <= borders[i] + 2; len++) {
            char *text = text_of(len);
            assert_arrives(text, 0, 4096);
            assert_arrives(text, len / 2, 4096);
            assert_arrives(text, len, 4096);
            free(text);
        }
    }
}

TEST(blob_may_begin_at_any_byte_of_a_record)
{
    char *text = text_of(FCGI_RECORD_MAX + 100);
    for (size_t cut = FCGI_RECORD_MAX - 100; cut <= FCGI_RECORD_MAX + 100; cut++)
        assert_arrives(text, cut, 4096);
    free(text);
}

TEST(answer_is_written_as_far_as_the_socket_has_room)
{
    static const size_t steps[] = {1000, 7999, 65536};
    char *text = text_of(LARGE);
    for (size_t i = 0; i < NELEMS(steps); i++)
        assert_arrives(text, 10, steps[i]);
    free(text);
}

TEST(shared_blob_counts_once_in_memory_and_in_each_account)
{
    int64_t accounts[CLIENTS] = {0}, memory = 0;
    struct blob *blob = blob_of(LARGE);
    char *text = xasprintf("%s%s", blob->data, blob->data);
    const struct body_blob blobs[] = {{0, blob}, {0, blob}};
    body = (struct body){NULL, 0, blobs, 2};
    for (size_t i = 0; i < CLIENTS; i++) {
        account = &accounts[i];
        ask(i);
        assert_in_range(accounts[i], 2 * LARGE, 2 * LARGE + 8192);
        memory += accounts[i] - 2 * LARGE;
        assert_int_equal(stat_get(STAT_UNSENT_BYTES), LARGE + memory);
    }
    blob_unref(blob); /* its other owner */
    close_client(0);
    for (int turns = 0; accounts[0] != 0; turns++) {
        assert_in_range(turns, 0, TURNS);
        turn();
    }
    assert_in_range(stat_get(STAT_UNSENT_BYTES), LARGE, LARGE + memory);
    for (size_t i = 1; i < CLIENTS; i++) {
        assert_reply(i, 65536, text);
        assert_int_equal(accounts[i], 0);
    }
    assert_int_equal(stat_get(STAT_UNSENT_BYTES), 0);
    free(text);
}

TEST(connection_carries_the_next_request_after_a_long_answer)
{
    int64_t used = 0;
    struct blob *blob = blob_of(LARGE);
    const struct body_blob blobs[] = {{1, blob}};
    account = &used;
    for (int i = 0; i < 3; i++) {
        char *text = xasprintf("[%s]", blob->data);
        body = (struct body){"[]", 2, blobs, 1};
        ask(0);
        assert_true(used > 0);
        assert_reply(0, 65536, text);
        assert_int_equal(used, 0);
        free(text);
        body = (struct body){"short", 5, NULL, 0};
        ask(0);
        assert_reply(0, 65536, "short");
    }
    blob_unref(blob);
}

TEST(server_that_is_freed_releases_unread_answers)
{
    int64_t used = 0;
    struct blob *blob = blob_of(LARGE);
    const struct body_blob blobs[] = {{0, blob}};
    body = (struct body){NULL, 0, blobs, 1};
    account = &used;
    ask(0);
    ask(1);
    assert_int_equal(blob->refs, 3);
    fcgi_free(server);
    server = NULL;
    assert_int_equal(blob->refs, 1);
    assert_int_equal(used, 0);
    assert_int_equal(stat_get(STAT_UNSENT_BYTES), 0);
    blob_unref(blob);
}

TEST(server_drains_when_the_last_answer_is_read)
{
    struct blob *blob = blob_of(LARGE);
    char *text = text_of(LARGE);
    const struct body_blob blobs[] = {{0, blob}};
    body = (struct body){NULL, 0, blobs, 1};
    ask(0);
    blob_unref(blob);
    fcgi_drain(server);
    turn();
    assert_false(drained);
    assert_reply(0, 65536, text);
    assert_true(drained);
    free(text);
}

TEST(accepting_pauses_after_an_error)
{
    static const int errors[] = {EMFILE, ENOBUFS, EPERM};
    for (size_t i = 0; i < NELEMS(errors); i++) {
        accept_error = errors[i];
        n_accepts = 0;
        join(i);
        for (int turns = 0; turns < 100; turns++)
            turn();
        assert_in_range(n_accepts, 1, 9); /* 1, unless the machine is so slow that the pause ends meanwhile */
        accept_error = 0;
        skipped_s++; /* the pause is over */
        ask(i);
    }
}

#define SERVED(test) cmocka_unit_test_setup_teardown(test, begin, end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        SERVED(parameter_has_exactly_its_name),
        SERVED(answer_arrives_whole_whatever_its_length),
        SERVED(blob_may_begin_at_any_byte_of_a_record),
        SERVED(answer_is_written_as_far_as_the_socket_has_room),
        SERVED(shared_blob_counts_once_in_memory_and_in_each_account),
        SERVED(connection_carries_the_next_request_after_a_long_answer),
        SERVED(server_that_is_freed_releases_unread_answers),
        SERVED(server_drains_when_the_last_answer_is_read),
        SERVED(accepting_pauses_after_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
