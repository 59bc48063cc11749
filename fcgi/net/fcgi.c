/* fcgi: see fcgi.h.
 *
 *     IDLE --readable, whole--> BUSY --fcgi_send--> WRITING --all out--> IDLE, or closed
 *      |                         |                 (skipped if the socket takes the whole answer)
 *      |                         '--fcgi_stream--> STREAMING --fcgi_stream_end--> WRITING
 *      '--readable, partial--> PARTIAL --timer, whole--> BUSY
 *
 * A socket that holds part of a request would poll as readable all the time, so PARTIAL waits for a hang-up
 * only, and a timer checks the socket again. A connection carries one request at a time, so struct
 * fcgi_request is both. */
#include "net/fcgi.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <fcgiapp.h>
#include <utlist.h>

#include "lib/backoff.h"
#include "lib/descriptors.h"
#include "lib/log.h"
#include "net/fcgi_parse.h"
#include "lib/stats.h"

enum {
    RECHECK_FIRST_MS = 2,          /* the first pause before a partial request is checked again */
    RECHECK_MAX_MS = 250,          /* the longest such pause */
    PARTIAL_MAX_MS = 60000,        /* a request that is still incomplete after this is dropped */
    LINGER_MS = 300,               /* draining: idle connections are closed after this */
    WRITE_MAX_MS = 60000,          /* a connection that accepts no data for this long is closed, */
    UNSENT_MAX_MS = 120000,        /* and one that has unread data for this long */
    WRITE_PIECE = FCGI_RECORD_MAX, /* fits one record of libfcgi with its header */
    ANSWER_MAX = 64 * 1024 * 1024,
    STREAM_PENDING_MAX = 256 * 1024, /* unread bytes at which a slow stream is closed */
    ACCEPT_BATCH = 64,               /* connections accepted in one loop iteration */
    ACCEPT_PAUSE_MS = 100            /* after an error, for example without free descriptors */
};

enum connection_state { IDLE, PARTIAL, BUSY, STREAMING, WRITING, CLOSING };

struct fcgi_request {
    struct fcgi_server *server; /* (ref) */
    struct fcgi_request *prev, *next;
    enum connection_state state;
    int fd;
    bool refused;            /* over max_connections: gets one answer, then is closed */
    int events;              /* the events that the poll handle waits for */
    uint64_t since_ms;       /* loop time at which PARTIAL began */
    struct backoff recheck;  /* the pauses of PARTIAL */
    struct buf pending;      /* BUSY: the request body; WRITING, STREAMING: data to be written */
    struct body_blob *blobs; /* WRITING: the blobs in this data, each kept; or NULL */
    size_t n_blobs;
    struct body_position written; /* up to where this data has been written */
    int64_t unsent;               /* memory for this data without the blobs, as last counted */
    int64_t *account;             /* (ref) a counter that includes it and the blobs, or NULL */
    uint64_t unsent_since_ms; /* loop time at which the socket was full for the first time; 0: it was not */
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
    bool cgi;
    int fd;           /* the listening socket; -1 for CGI, and while draining */
    bool failing;     /* the last accept failed, which was logged; accepting pauses */
    int open_handles; /* of the listening socket */
    uv_poll_t poll;
    uv_timer_t timer; /* ends a pause */
    size_t max_connections;
    size_t n_connections;
    struct fcgi_request *connections; /* including those that are closing */
    bool draining;
    bool drained; /* on_drained was called */
    bool freed;   /* the memory is released with the last handle */
};

static void check_socket(struct fcgi_request *c);

/* ---- opening and closing ---- */

static void free_server_when_closed(struct fcgi_server *s)
{
    if (s->freed && s->connections == NULL && s->open_handles == 0)
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
    free(c);
    free_server_when_closed(s);
}

/* ---- pending data ---- */

static struct body pending_body(const struct fcgi_request *c)
{
    return (struct body){c->pending.data, c->pending.len, c->blobs, c->n_blobs};
}

/* Adds to the memory of all unread answers, and to the request's account. */
static void count(const struct fcgi_request *c, int64_t memory, int64_t of_account)
{
    stat_add(STAT_UNSENT_BYTES, memory);
    if (c->account != NULL)
        *c->account += of_account;
}

static void count_unsent(struct fcgi_request *c)
{
    int64_t now = c->state == WRITING || c->state == STREAMING ? (int64_t)c->pending.cap : 0;
    count(c, now - c->unsent, now - c->unsent);
    c->unsent = now;
}

/* Makes an answer the pending data: copies its text and references its blobs. */
static void keep(struct fcgi_request *c, const char *head, size_t head_len, const struct body *body)
{
    buf_reset(&c->pending);
    buf_add(&c->pending, head, head_len);
    buf_add(&c->pending, body->text, body->text_len);
    c->written = (struct body_position){0};
    c->blobs = xcalloc(body->n_blobs, sizeof(*c->blobs));
    for (size_t i = 0; i < body->n_blobs; i++) {
        struct blob *blob = body->blobs[i].blob;
        count(c, (int64_t)blob_keep(blob), (int64_t)blob->len);
        c->blobs[c->n_blobs++] = (struct body_blob){head_len + body->blobs[i].at, blob};
    }
}

static void drop_pending(struct fcgi_request *c)
{
    for (size_t i = 0; i < c->n_blobs; i++) {
        int64_t len = (int64_t)c->blobs[i].blob->len;
        count(c, -(int64_t)blob_release(c->blobs[i].blob), -len);
    }
    free(c->blobs);
    c->blobs = NULL;
    c->n_blobs = 0;
    buf_done(&c->pending);
    c->written = (struct body_position){0};
    c->unsent_since_ms = 0;
    count_unsent(c);
}

/* Closes the connection in any state. If it has a request under way, on_gone tells the request's owner. */
static void close_connection(struct fcgi_request *c, const char *why)
{
    struct fcgi_server *s = c->server;
    if (c->state == CLOSING)
        return;
    if (why != NULL) {
        log_debug("connection closed: %s", why);
        stat_inc(STAT_CONNECTIONS_REFUSED);
    }
    if (c->state == BUSY || c->state == STREAMING || c->state == WRITING)
        FCGX_Free(&c->fcgx, 0);
    c->state = CLOSING;
    drop_pending(c);
    uv_poll_stop(&c->poll);
    uv_close((uv_handle_t *)&c->poll, on_connection_closed);
    uv_close((uv_handle_t *)&c->timer, on_connection_closed);
    if (c->fd >= 0)
        close(c->fd);
    s->n_connections--;
    stat_dec(STAT_CONNECTIONS);
    if (c->on_gone != NULL)
        c->on_gone(c->user);
    tell_when_drained(s);
}

static void on_poll(uv_poll_t *poll, int status, int events);

static void wait_for(struct fcgi_request *c, int events)
{
    if (c->events == events)
        return; /* uv_poll_start costs two system calls even if nothing changes */
    c->events = events;
    uv_poll_start(&c->poll, events, on_poll);
}

static void open_connection(struct fcgi_server *s, int fd)
{
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
    c->fcgx.keepConnection = 1; /* otherwise FCGX_Accept_r closes it before the first request */
    FCGX_Detach(&c->fcgx);      /* if libfcgi closes the socket, it must not linger */
    DL_APPEND(s->connections, c);
    s->n_connections++;
    stat_inc(STAT_CONNECTIONS);
    c->state = IDLE;
    wait_for(c, UV_READABLE);
}

/* ---- reading ---- */

static void on_recheck(uv_timer_t *timer)
{
    check_socket(timer->data);
}

static void wait_for_the_rest(struct fcgi_request *c)
{
    uint64_t now = uv_now(c->server->loop);
    if (c->state == IDLE) {
        c->state = PARTIAL;
        c->since_ms = now;
        c->recheck = (struct backoff){.first_ms = RECHECK_FIRST_MS, .max_ms = RECHECK_MAX_MS};
        wait_for(c, UV_DISCONNECT);
    }
    if (now - c->since_ms > PARTIAL_MAX_MS)
        return close_connection(c, "a request stayed incomplete");
    uv_timer_start(&c->timer, on_recheck, (uint64_t)backoff_next(&c->recheck), 0);
}

/* Reads the body whatever the method: an unread rest would be parsed as the next request. */
static void read_body(struct fcgi_request *c)
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

/* The socket holds a complete request, so none of these calls blocks. */
static void take_request(struct fcgi_request *c)
{
    if (FCGX_Accept_r(&c->fcgx) < 0) {
        c->fd = -1; /* libfcgi has closed the descriptor */
        return close_connection(c, "libfcgi refused the request");
    }
    c->state = BUSY;
    c->on_gone = NULL;
    uv_timer_stop(&c->timer);
    read_body(c);
    stat_inc(STAT_REQUESTS);
    c->server->handlers.on_request(c->server->handlers.ctx, c);
}

/* The socket is readable while a request is under way: the web server has closed the connection, or has sent
 * data too early. */
static void check_for_end(struct fcgi_request *c)
{
    char byte;
    ssize_t n = recv(c->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
    if (n > 0)
        wait_for(c, UV_DISCONNECT);
    else if (n == 0 || (errno != EAGAIN && errno != EINTR))
        close_connection(c, NULL);
}

/* Checks the data in the socket without consuming it. */
static void check_socket(struct fcgi_request *c)
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
        return close_connection(c, "a malformed request");
    }
}

/* ---- writing ---- */

/* Called when the answer is written or the write has failed: keeps the connection for its next request, or
 * closes it. */
static void end_request(struct fcgi_request *c, bool failed)
{
    /* Like FCGX_Finish_r, which would also close the socket while it is polled. */
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
    drop_pending(c);
    c->account = NULL; /* it need not outlive the request */
    wait_for(c, UV_READABLE);
}

/* Adds up to WRITE_PIECE bytes to libfcgi's current record. Returns false if the connection is broken. */
static bool put_body(struct fcgi_request *c, const struct body *body, struct body_position *at)
{
    const char *data;
    int n;
    for (int room = WRITE_PIECE; room > 0 && !body_is_read(body, at); room -= n) {
        n = (int)body_read(body, at, (size_t)room, &data);
        if (FCGX_PutStr(data, n, c->fcgx.out) != n)
            return false;
    }
    return true;
}

/* Writes pending data record by record while the socket has room. Returns false if the connection is broken. */
static bool write_pending(struct fcgi_request *c)
{
    const struct body body = pending_body(c);
    while (!body_is_read(&body, &c->written) && is_writable(c->fd, 0)) {
        if (!put_body(c, &body, &c->written) || FCGX_FFlush(c->fcgx.out) != 0)
            return false;
    }
    return true;
}

static void on_write_timeout(uv_timer_t *timer);

static void wait_for_room(struct fcgi_request *c)
{
    uint64_t now = uv_now(c->server->loop), since_ms = c->unsent_since_ms ? c->unsent_since_ms : now;
    uint64_t left_ms = since_ms + UNSENT_MAX_MS > now ? since_ms + UNSENT_MAX_MS - now : 0;
    c->unsent_since_ms = since_ms;
    count_unsent(c);
    uv_timer_start(&c->timer, on_write_timeout, left_ms < WRITE_MAX_MS ? left_ms : WRITE_MAX_MS, 0);
    wait_for(c, UV_WRITABLE | UV_DISCONNECT);
}

/* Continues an answer or a stream, and waits while the socket has no room. */
static void continue_writing(struct fcgi_request *c)
{
    const struct body body = pending_body(c);
    bool good = write_pending(c), all = body_is_read(&body, &c->written);
    if (c->state == WRITING && (!good || all))
        return end_request(c, !good);
    if (!good)
        return close_connection(c, "the web server does not read its stream");
    if (!all)
        return wait_for_room(c);
    drop_pending(c);
    uv_timer_stop(&c->timer);
    wait_for(c, UV_DISCONNECT);
}

/* Tries once more: the web server may have read while this process was descheduled. */
static void on_write_timeout(uv_timer_t *timer)
{
    struct fcgi_request *c = timer->data;
    bool late = uv_now(c->server->loop) >= c->unsent_since_ms + UNSENT_MAX_MS;
    if (!late && is_writable(c->fd, 0))
        continue_writing(c);
    else
        close_connection(c, "the web server does not read its answer");
}

static void send_cgi(struct fcgi_request *c, const char *head, size_t head_len, const struct body *body)
{
    struct body_position at = {0};
    const char *data;
    bool good = write_full(STDOUT_FILENO, head, head_len) >= 0;
    while (good && !body_is_read(body, &at)) {
        size_t n = body_read(body, &at, SIZE_MAX, &data);
        good = write_full(STDOUT_FILENO, data, n) >= 0;
    }
    if (!good)
        log_warn("the answer could not be written to standard output");
    c->server->n_connections--;
    tell_when_drained(c->server);
}

void fcgi_send(struct fcgi_request *c, const char *head, size_t head_len, const struct body *body)
{
    if (c->server->cgi)
        return send_cgi(c, head, head_len, body);
    c->on_gone = NULL;
    if (head_len + body_len(body) <= WRITE_PIECE) { /* one record, written when the streams are closed */
        struct body_position at = {0};
        bool failed = FCGX_PutStr(head, (int)head_len, c->fcgx.out) < 0 || !put_body(c, body, &at);
        return end_request(c, failed);
    }
    keep(c, head, head_len, body);
    if (c->pending.failed)
        return close_connection(c, "an answer is too large to be sent");
    c->state = WRITING;
    continue_writing(c);
}

void fcgi_stream(struct fcgi_request *c, const char *head, size_t head_len)
{
    c->state = STREAMING;
    c->written = (struct body_position){0};
    buf_reset(&c->pending);
    buf_add(&c->pending, head, head_len);
}

bool fcgi_stream_send(struct fcgi_request *c, const char *data, size_t len, bool may_keep)
{
    size_t unread = c->pending.len - c->written.text;
    if (unread > STREAM_PENDING_MAX || (!may_keep && c->unsent_since_ms != 0)) {
        c->on_gone = NULL;
        close_connection(c, "a stream is read too slowly");
        return false;
    }
    if (unread > 0)
        memmove(c->pending.data, c->pending.data + c->written.text, unread);
    c->pending.len = unread;
    c->written.text = 0;
    buf_add(&c->pending, data, len);
    void (*on_gone)(void *) = c->on_gone;
    c->on_gone = NULL; /* the return value reports a connection that is closed during this call */
    continue_writing(c);
    if (c->state == STREAMING)
        c->on_gone = on_gone;
    return c->state == STREAMING;
}

void fcgi_stream_end(struct fcgi_request *c)
{
    c->on_gone = NULL;
    c->state = WRITING;
    continue_writing(c);
}

static void on_poll(uv_poll_t *poll, int status, int events)
{
    struct fcgi_request *c = poll->data;
    if (status < 0 || (events & UV_DISCONNECT))
        close_connection(c, NULL);
    else if (c->state == IDLE)
        check_socket(c);
    else if (c->state == BUSY)
        check_for_end(c);
    else if (c->state == WRITING || c->state == STREAMING)
        continue_writing(c);
}

/* ---- requests ---- */

/* Most of the parameters that are read for each request are missing. FCGX_GetParam compares each with strncmp, which took
 * a tenth of the instructions of a hit. */
static const char *find_param(const struct fcgi_request *c, const char *name)
{
    for (char **param = c->fcgx.envp; *param != NULL; param++) {
        size_t len = 0;
        while (name[len] != '\0' && (*param)[len] == name[len])
            len++;
        if (name[len] == '\0' && (*param)[len] == '=')
            return *param + len + 1;
    }
    return NULL;
}

const char *fcgi_param(const struct fcgi_request *c, const char *name)
{
    const char *value = c->server->cgi ? getenv(name) : find_param(c, name);
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

void fcgi_account(struct fcgi_request *c, int64_t *unsent_bytes)
{
    c->account = unsent_bytes;
}

void fcgi_on_gone(struct fcgi_request *c, void (*on_gone)(void *user), void *user)
{
    c->on_gone = on_gone;
    c->user = user;
}

/* ---- accepting ---- */

static void on_listening(uv_poll_t *poll, int status, int events);

static void on_accept_pause_over(uv_timer_t *timer)
{
    struct fcgi_server *s = timer->data;
    uv_poll_start(&s->poll, UV_READABLE, on_listening);
}

static void pause_accepting(struct fcgi_server *s)
{
    if (!descriptors_exhausted(errno) && !s->failing)
        log_warn("cannot accept connections: %s; trying again every %d ms", strerror(errno), ACCEPT_PAUSE_MS);
    s->failing = true;
    uv_poll_stop(&s->poll);
    uv_timer_start(&s->timer, on_accept_pause_over, ACCEPT_PAUSE_MS, 0);
}

static void on_listening(uv_poll_t *poll, int status, int events)
{
    (void)status, (void)events;
    struct fcgi_server *s = poll->data;
    for (int i = 0; i < ACCEPT_BATCH; i++) {
        int fd = accept4(s->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0) {
            s->failing = false;
            open_connection(s, fd);
        } else if (errno == EAGAIN) {
            return; /* no connection is left to accept */
        } else if (errno != EINTR && errno != ECONNABORTED) {
            return pause_accepting(s);
        }
    }
}

static void on_listener_closed(uv_handle_t *handle)
{
    struct fcgi_server *s = handle->data;
    s->open_handles--;
    free_server_when_closed(s);
}

static void stop_listening(struct fcgi_server *s)
{
    s->draining = true;
    if (s->fd < 0)
        return;
    uv_close((uv_handle_t *)&s->poll, on_listener_closed);
    uv_close((uv_handle_t *)&s->timer, on_listener_closed);
    close(s->fd);
    s->fd = -1;
}

/* ---- servers ---- */

static struct fcgi_server *new_server(uv_loop_t *loop, struct fcgi_handlers handlers)
{
    struct fcgi_server *s = xcalloc(1, sizeof(*s));
    *s = (struct fcgi_server){.loop = loop, .handlers = handlers, .fd = -1};
    return s;
}

struct fcgi_server *fcgi_listen(uv_loop_t *loop, int fd, size_t max_connections,
                                struct fcgi_handlers handlers)
{
    struct fcgi_server *s = new_server(loop, handlers);
    s->max_connections = max_connections;
    setenv("LIBFCGI_OS_CLOSE_POLL_TIMEOUT", "0", 1); /* if libfcgi closes a socket, it must not linger */
    if (FCGX_Init() != 0)
        abort(); /* out of memory */
    s->fd = fd;
    s->open_handles = 2;
    s->poll.data = s->timer.data = s;
    if (uv_poll_init(loop, &s->poll, fd) < 0)
        abort(); /* a listening socket is always pollable */
    uv_timer_init(loop, &s->timer);
    uv_poll_start(&s->poll, UV_READABLE, on_listening);
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

static void on_linger_over(uv_timer_t *timer)
{
    struct fcgi_request *c = timer->data;
    if (c->state == IDLE)
        check_socket(c); /* a request that has arrived is still served */
    if (c->state == IDLE)
        close_connection(c, NULL);
}

/* The web server may be about to write to an idle connection. If all workers closed their connections at the
 * same moment, it would find none that works. So each stays open for LINGER_MS, or until its next answer. */
void fcgi_drain(struct fcgi_server *s)
{
    stop_listening(s);
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
    stop_listening(s);
    struct fcgi_request *c, *next;
    DL_FOREACH_SAFE(s->connections, c, next)
    {
        c->on_gone = NULL;
        close_connection(c, NULL);
    }
    free_server_when_closed(s);
}
