/* fcgi: see fcgi.h.
 *
 *     IDLE --readable, whole--> BUSY --fcgi_send--> WRITING --all out--> IDLE, or closed
 *      |                         |                 (left out when the socket takes all of it at once)
 *      |                         '--fcgi_stream--> STREAMING --fcgi_stream_end--> WRITING
 *      '--readable, partial--> PARTIAL --timer, whole--> BUSY
 *
 * While data that is no whole request lies in the socket, it would poll readable all the time; so in PARTIAL
 * only a hang-up is waited for, and a timer looks again. A connection carries one request at a time, so the
 * two are one object: struct fcgi_request. */
#include "net/fcgi.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <fcgiapp.h>
#include <utlist.h>

#include "net/acceptor.h"
#include "lib/log.h"
#include "net/fcgi_parse.h"
#include "lib/stats.h"

enum {
    LOOK_FIRST_MS = 2,      /* a partial request: looked at again after this, */
    LOOK_LAST_MS = 250,     /* doubled up to this, */
    PARTIAL_MAX_MS = 60000, /* for so long */
    LINGER_MS = 300,        /* draining: what has been idle for so long is not about to be used */
    WRITE_MAX_MS = 60000,   /* how long a reader may take none of an answer */
    WRITE_PIECE = 8000,     /* fits one record of libfcgi's with its header */
    ANSWER_MAX = 64 * 1024 * 1024,
    STREAM_PENDING_MAX = 256 * 1024 /* of a stream that is read slowly */
};

enum connection_state { IDLE, PARTIAL, BUSY, STREAMING, WRITING, CLOSING };

struct fcgi_request {
    struct fcgi_server *server; /* (ref) */
    struct fcgi_request *prev, *next;
    enum connection_state state;
    int fd;
    bool refused;       /* past max_connections: one answer, then closed */
    int events;         /* what the poll handle waits for now */
    uint64_t since_ms;  /* loop time at which PARTIAL or WRITING last made progress */
    uint64_t look_ms;   /* the next wait of PARTIAL */
    struct buf pending; /* BUSY: the body that came; WRITING: the answer */
    size_t pending_at;  /* how much of it is out */
    void (*on_gone)(void *user);
    void *user;
    int open_handles;
    uv_poll_t poll;
    uv_timer_t timer;
    FCGX_Request fcgx;
};

struct fcgi_server {
    uv_loop_t *loop; /* (ref) */
    struct fcgi_handlers handlers;
    struct acceptor *acceptor; /* NULL for CGI, and once draining */
    bool cgi;
    size_t max_connections;
    size_t n_connections;
    struct fcgi_request *connections; /* those that are closing included */
    bool draining;
    bool drained; /* on_drained was called */
    bool freed;   /* goes with its last connection */
};

static void look(struct fcgi_request *c);

/* ---- opening and closing ---- */

static void free_server_when_closed(struct fcgi_server *s)
{
    if (s->freed && s->connections == NULL)
        free(s);
}

static void tell_when_drained(struct fcgi_server *s)
{
    if (!s->draining || s->drained || s->freed || s->n_connections > 0)
        return;
    s->drained = true;
    s->handlers.on_drained(s->handlers.ctx);
}

static void on_connection_closed(uv_handle_t *handle)
{
    struct fcgi_request *c = handle->data;
    struct fcgi_server *s = c->server;
    if (--c->open_handles > 0)
        return;
    DL_DELETE(s->connections, c);
    buf_done(&c->pending);
    free(c);
    free_server_when_closed(s);
}

/* Closes the connection from any state. A request under way is gone, and its owner is told. */
static void close_connection(struct fcgi_request *c, const char *why)
{
    struct fcgi_server *s = c->server;
    if (c->state == CLOSING)
        return;
    if (why != NULL) {
        log_debug("connection closed: %s", why);
        stat_inc(STAT_CONNECTIONS_REFUSED);
    }
    bool gone = c->on_gone != NULL;
    if (c->state == BUSY || c->state == STREAMING || c->state == WRITING)
        FCGX_Free(&c->fcgx, 0);
    c->state = CLOSING;
    uv_poll_stop(&c->poll);
    uv_close((uv_handle_t *)&c->poll, on_connection_closed);
    uv_close((uv_handle_t *)&c->timer, on_connection_closed);
    if (c->fd >= 0)
        close(c->fd);
    s->n_connections--;
    stat_dec(STAT_CONNECTIONS);
    if (gone)
        c->on_gone(c->user);
    tell_when_drained(s);
}

static void on_poll(uv_poll_t *poll, int status, int events);

static void wait_for(struct fcgi_request *c, int events)
{
    if (c->events == events)
        return; /* uv_poll_start costs two system calls, even for what it does already */
    c->events = events;
    uv_poll_start(&c->poll, events, on_poll);
}

static void on_connection(void *ctx, int fd)
{
    struct fcgi_server *s = ctx;
    struct fcgi_request *c = xcalloc(1, sizeof(*c));
    c->server = s;
    c->fd = fd;
    c->refused = s->n_connections >= s->max_connections;
    c->open_handles = 2;
    c->poll.data = c->timer.data = c;
    buf_init(&c->pending, ANSWER_MAX);
    uv_timer_init(s->loop, &c->timer);
    if (uv_poll_init(s->loop, &c->poll, fd) < 0)
        abort(); /* a fresh socket is always pollable */
    FCGX_InitRequest(&c->fcgx, -1, 0);
    c->fcgx.ipcFd = fd;
    c->fcgx.keepConnection = 1; /* or FCGX_Accept_r closes it before the first request */
    FCGX_Detach(&c->fcgx);      /* and if it ever closes it: at once */
    DL_APPEND(s->connections, c);
    s->n_connections++;
    stat_inc(STAT_CONNECTIONS);
    c->state = IDLE;
    wait_for(c, UV_READABLE);
}

/* ---- reading ---- */

static void on_look_again(uv_timer_t *timer)
{
    look(timer->data);
}

static void wait_for_the_rest(struct fcgi_request *c)
{
    uint64_t now = uv_now(c->server->loop);
    if (c->state == IDLE) {
        c->state = PARTIAL;
        c->since_ms = now;
        c->look_ms = LOOK_FIRST_MS;
        wait_for(c, UV_DISCONNECT);
    }
    if (now - c->since_ms > PARTIAL_MAX_MS)
        return close_connection(c, "a request was begun and not ended");
    uv_timer_start(&c->timer, on_look_again, c->look_ms, 0);
    c->look_ms = c->look_ms * 2 < LOOK_LAST_MS ? c->look_ms * 2 : LOOK_LAST_MS;
}

/* A body that is left unread would be taken for the beginning of the next request. */
static void read_off_stdin(struct fcgi_request *c)
{
    char piece[4096];
    int n;
    buf_reset(&c->pending);
    while ((n = FCGX_GetStr(piece, sizeof(piece), c->fcgx.in)) > 0) {
        const char *method = FCGX_GetParam("REQUEST_METHOD", c->fcgx.envp);
        if (method != NULL && strcmp(method, "POST") == 0)
            buf_add(&c->pending, piece, (size_t)n);
    }
}

/* A whole request lies in the socket: none of these calls waits. */
static void take_request(struct fcgi_request *c)
{
    if (FCGX_Accept_r(&c->fcgx) < 0) {
        c->fd = -1; /* libfcgi has closed it */
        return close_connection(c, "libfcgi refused the request");
    }
    c->state = BUSY;
    c->on_gone = NULL;
    uv_timer_stop(&c->timer);
    read_off_stdin(c);
    stat_inc(STAT_REQUESTS);
    c->server->handlers.on_request(c->server->handlers.ctx, c);
}

/* Readable while a request is under way: the web server has left, or sends what it should not send yet. */
static void look_for_end(struct fcgi_request *c)
{
    char byte;
    ssize_t n = recv(c->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
    if (n > 0)
        wait_for(c, UV_DISCONNECT);
    else if (n == 0 || (errno != EAGAIN && errno != EINTR))
        close_connection(c, NULL);
}

/* Looks at what lies in the socket without taking it out. */
static void look(struct fcgi_request *c)
{
    static unsigned char peeked[FCGI_PARSE_MAX + 1];
    ssize_t n = recv(c->fd, peeked, sizeof(peeked), MSG_PEEK | MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0)
        return close_connection(c, NULL);
    switch (fcgi_parse_check(peeked, (size_t)n)) {
    case FCGI_PARSE_WHOLE:
        return take_request(c);
    case FCGI_PARSE_PARTIAL:
        return wait_for_the_rest(c);
    case FCGI_PARSE_BAD:
        return close_connection(c, "no well-formed request");
    }
}

/* ---- writing ---- */

static bool has_room(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLOUT};
    return poll(&p, 1, 0) == 1 && (p.revents & POLLOUT) != 0;
}

/* The answer is out, or will never be: the connection is free for the next request, or closes. */
static void end_request(struct fcgi_request *c, bool failed)
{
    /* FCGX_Finish_r would close the socket behind the poll handle's back; these are its parts without that.
     */
    bool keep = c->fcgx.keepConnection && !c->refused && !c->server->draining;
    failed |= FCGX_FClose(c->fcgx.err) != 0;
    failed |= FCGX_FClose(c->fcgx.out) != 0;
    failed |= FCGX_GetError(c->fcgx.in) != 0;
    FCGX_Free(&c->fcgx, 0);
    c->state = IDLE;
    if (failed)
        return close_connection(c, "the web server does not read its answer");
    if (!keep)
        return close_connection(c, NULL);
    uv_timer_stop(&c->timer);
    buf_done(&c->pending);
    wait_for(c, UV_READABLE);
}

static void on_write_timeout(uv_timer_t *timer)
{
    close_connection(timer->data, "the web server does not read its answer");
}

/* Puts out piece by piece, each only where the socket has room. False when the connection is broken. */
static bool put_out(struct fcgi_request *c)
{
    while (c->pending_at < c->pending.len && has_room(c->fd)) {
        size_t left = c->pending.len - c->pending_at;
        int piece = left < WRITE_PIECE ? (int)left : WRITE_PIECE;
        if (FCGX_PutStr(c->pending.data + c->pending_at, piece, c->fcgx.out) != piece ||
            FCGX_FFlush(c->fcgx.out) != 0)
            return false;
        c->pending_at += (size_t)piece;
    }
    return true;
}

/* Goes on with an answer or a stream, and waits for room where there is none. */
static void write_on(struct fcgi_request *c)
{
    bool good = put_out(c), all = c->pending_at == c->pending.len;
    if (c->state == WRITING && (!good || all))
        return end_request(c, !good);
    if (!good)
        return close_connection(c, "the web server does not read its stream");
    if (all) {
        buf_reset(&c->pending);
        c->pending_at = 0;
        uv_timer_stop(&c->timer);
        return wait_for(c, UV_DISCONNECT);
    }
    uv_timer_start(&c->timer, on_write_timeout, WRITE_MAX_MS, 0);
    wait_for(c, UV_WRITABLE | UV_DISCONNECT);
}

static void send_cgi(struct fcgi_request *c, const char *head, size_t head_len, const char *body,
                     size_t body_len)
{
    if (write_full(STDOUT_FILENO, head, head_len) < 0 || write_full(STDOUT_FILENO, body, body_len) < 0)
        log_warn("the answer could not be written to standard output");
    c->server->n_connections--;
    tell_when_drained(c->server);
}

void fcgi_send(struct fcgi_request *c, const char *head, size_t head_len, const char *body, size_t body_len)
{
    if (c->server->cgi)
        return send_cgi(c, head, head_len, body, body_len);
    c->on_gone = NULL;
    if (head_len + body_len <= WRITE_PIECE) { /* one record: it goes out when the streams are closed */
        bool failed = FCGX_PutStr(head, (int)head_len, c->fcgx.out) < 0 ||
                      (body_len > 0 && FCGX_PutStr(body, (int)body_len, c->fcgx.out) < 0);
        return end_request(c, failed);
    }
    buf_reset(&c->pending);
    buf_add(&c->pending, head, head_len);
    buf_add(&c->pending, body, body_len);
    c->pending_at = 0;
    if (c->pending.failed)
        return close_connection(c, "an answer is too large to be sent");
    c->state = WRITING;
    write_on(c);
}

void fcgi_stream(struct fcgi_request *c, const char *head, size_t head_len)
{
    c->state = STREAMING;
    c->pending_at = 0;
    buf_reset(&c->pending);
    buf_add(&c->pending, head, head_len);
}

bool fcgi_stream_send(struct fcgi_request *c, const char *data, size_t len)
{
    size_t unread = c->pending.len - c->pending_at;
    if (unread > STREAM_PENDING_MAX) {
        c->on_gone = NULL;
        close_connection(c, "a stream is read too slowly");
        return false;
    }
    memmove(c->pending.data, c->pending.data + c->pending_at, unread);
    c->pending.len = unread;
    c->pending_at = 0;
    buf_add(&c->pending, data, len);
    void (*on_gone)(void *) = c->on_gone;
    c->on_gone = NULL; /* what happens within this call is told by its result */
    write_on(c);
    if (c->state == STREAMING)
        c->on_gone = on_gone;
    return c->state == STREAMING;
}

void fcgi_stream_end(struct fcgi_request *c)
{
    c->on_gone = NULL;
    c->state = WRITING;
    write_on(c);
}

static void on_poll(uv_poll_t *poll, int status, int events)
{
    struct fcgi_request *c = poll->data;
    if (status < 0 || (events & UV_DISCONNECT))
        close_connection(c, NULL);
    else if (c->state == IDLE)
        look(c);
    else if (c->state == BUSY)
        look_for_end(c);
    else if (c->state == WRITING || c->state == STREAMING)
        write_on(c);
}

/* ---- requests ---- */

const char *fcgi_param(const struct fcgi_request *c, const char *name)
{
    const char *value = c->server->cgi ? getenv(name) : FCGX_GetParam(name, c->fcgx.envp);
    return value != NULL && value[0] != '\0' ? value : NULL;
}

const char *fcgi_body(const struct fcgi_request *c, size_t *ret_len)
{
    *ret_len = c->pending.len;
    return c->pending.data;
}

bool fcgi_can_stream(const struct fcgi_request *c)
{
    return !c->server->cgi;
}

bool fcgi_is_refused(const struct fcgi_request *c)
{
    return c->refused;
}

void fcgi_on_gone(struct fcgi_request *c, void (*on_gone)(void *user), void *user)
{
    c->on_gone = on_gone;
    c->user = user;
}

/* ---- servers ---- */

static struct fcgi_server *new_server(uv_loop_t *loop, struct fcgi_handlers handlers)
{
    struct fcgi_server *s = xcalloc(1, sizeof(*s));
    *s = (struct fcgi_server){.loop = loop, .handlers = handlers};
    return s;
}

struct fcgi_server *fcgi_listen(uv_loop_t *loop, int fd, size_t max_connections,
                                struct fcgi_handlers handlers)
{
    struct fcgi_server *s = new_server(loop, handlers);
    s->max_connections = max_connections;
    setenv("LIBFCGI_OS_CLOSE_POLL_TIMEOUT", "0",
           1); /* should libfcgi ever close a socket, it does not linger */
    if (FCGX_Init() != 0)
        abort(); /* out of memory */
    s->acceptor = acceptor_new(loop, fd, on_connection, s);
    return s;
}

struct fcgi_server *fcgi_serve_cgi(uv_loop_t *loop, struct fcgi_handlers handlers)
{
    struct fcgi_server *s = new_server(loop, handlers);
    struct fcgi_request *c = xcalloc(1, sizeof(*c));
    c->server = s;
    s->connections = c;
    s->n_connections = 1;
    s->cgi = s->draining = true;
    stat_inc(STAT_REQUESTS);
    handlers.on_request(handlers.ctx, c);
    return s;
}

static void stop_accepting(struct fcgi_server *s)
{
    acceptor_free(s->acceptor);
    s->acceptor = NULL;
    s->draining = true;
}

static void on_linger_over(uv_timer_t *timer)
{
    struct fcgi_request *c = timer->data;
    if (c->state == IDLE)
        look(c); /* what has come in the meantime is still served */
    if (c->state == IDLE)
        close_connection(c, NULL);
}

/* A web server may be just about to write on a connection that is idle. When those to all workers end at one
 * moment, it finds none that works; so they live on for a while, and each closes after its next answer. */
void fcgi_drain(struct fcgi_server *s)
{
    stop_accepting(s);
    struct fcgi_request *c, *next;
    DL_FOREACH_SAFE(s->connections, c, next)
    {
        if (c->state == IDLE)
            uv_timer_start(&c->timer, on_linger_over, LINGER_MS, 0);
    }
    tell_when_drained(s);
}

void fcgi_free(struct fcgi_server *s)
{
    if (s == NULL)
        return;
    if (s->cgi) {
        free(s->connections);
        free(s);
        return;
    }
    s->freed = true;
    stop_accepting(s);
    struct fcgi_request *c, *next;
    DL_FOREACH_SAFE(s->connections, c, next)
    {
        c->on_gone = NULL;
        close_connection(c, NULL);
    }
    free_server_when_closed(s);
}
