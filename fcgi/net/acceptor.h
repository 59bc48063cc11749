/* acceptor: takes connections from a listening socket, and waits for a while where the system has no
 * descriptor left. */
#ifndef ACCEPTOR_H
#define ACCEPTOR_H

#include <uv.h>

#include "lib/util.h"

struct acceptor;

/* `fd` belongs to the acceptor from here on. Each connection, non-blocking, belongs to on_connection. */
struct acceptor *acceptor_new(uv_loop_t *loop, int fd, void (*on_connection)(void *ctx, int fd), void *ctx);

/* Takes no more; the socket is closed, the memory freed when the loop has run its closing callbacks. NULL is
 * allowed. */
void acceptor_free(struct acceptor *acceptor);

#endif
