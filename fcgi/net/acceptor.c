/* acceptor: see acceptor.h. */
#include "net/acceptor.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lib/log.h"

enum { BATCH = 64, PAUSE_MS = 100 };

struct acceptor {
    int fd;
    void (*on_connection)(void *ctx, int fd);
    void *ctx;
    bool starved; /* the last accept found no descriptor, as logged */
    int open_handles;
    uv_poll_t poll;
    uv_timer_t timer; /* ends a pause */
};

static void on_listening(uv_poll_t *poll, int status, int events);

static void on_pause_over(uv_timer_t *timer)
{
    struct acceptor *a = timer->data;
    uv_poll_start(&a->poll, UV_READABLE, on_listening);
}

static void pause_accepting(struct acceptor *a)
{
    if (!a->starved)
        log_warn("cannot accept connections: %s; trying again every %d ms", strerror(errno), PAUSE_MS);
    a->starved = true;
    uv_poll_stop(&a->poll);
    uv_timer_start(&a->timer, on_pause_over, PAUSE_MS, 0);
}

static bool is_starvation(int error)
{
    return error == EMFILE || error == ENFILE || error == ENOBUFS || error == ENOMEM;
}

static void on_listening(uv_poll_t *poll, int status, int events)
{
    (void)status, (void)events;
    struct acceptor *a = poll->data;
    for (int i = 0; i < BATCH; i++) {
        int fd = accept4(a->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0) {
            a->starved = false;
            a->on_connection(a->ctx, fd);
        } else if (is_starvation(errno)) {
            return pause_accepting(a);
        } else if (errno != EINTR && errno != ECONNABORTED) {
            return; /* EAGAIN: all taken */
        }
    }
}

struct acceptor *acceptor_new(uv_loop_t *loop, int fd, void (*on_connection)(void *ctx, int fd), void *ctx)
{
    struct acceptor *a = xcalloc(1, sizeof(*a));
    *a = (struct acceptor){.fd = fd, .on_connection = on_connection, .ctx = ctx, .open_handles = 2};
    a->poll.data = a->timer.data = a;
    if (uv_poll_init(loop, &a->poll, fd) < 0)
        abort(); /* a listening socket is always pollable */
    uv_timer_init(loop, &a->timer);
    uv_poll_start(&a->poll, UV_READABLE, on_listening);
    return a;
}

static void on_closed(uv_handle_t *handle)
{
    struct acceptor *a = handle->data;
    if (--a->open_handles == 0)
        free(a);
}

void acceptor_free(struct acceptor *a)
{
    if (a == NULL)
        return;
    uv_close((uv_handle_t *)&a->poll, on_closed);
    uv_close((uv_handle_t *)&a->timer, on_closed);
    close(a->fd);
}
