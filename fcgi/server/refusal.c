/* refusal: see refusal.h. */
#include "server/refusal.h"

#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

struct refusal {
    int fd; /* (ref) the listening socket */
    uv_poll_t poll;
};

static void on_connection(uv_poll_t *poll, int status, int events)
{
    (void)status, (void)events;
    int fd = accept4(CONTAINER_OF(poll, struct refusal, poll)->fd, NULL, NULL, SOCK_CLOEXEC);
    if (fd >= 0)
        close(fd);
}

struct refusal *refusal_new(uv_loop_t *loop, int fd, bool closes)
{
    struct refusal *refusal = xcalloc(1, sizeof(*refusal));
    refusal->fd = fd;
    uv_poll_init(loop, &refusal->poll, fd);
    if (closes)
        uv_poll_start(&refusal->poll, UV_READABLE, on_connection);
    return refusal;
}

static void on_closed(uv_handle_t *handle)
{
    free(CONTAINER_OF((uv_poll_t *)handle, struct refusal, poll));
}

void refusal_free(struct refusal *refusal)
{
    uv_close((uv_handle_t *)&refusal->poll, on_closed);
}
