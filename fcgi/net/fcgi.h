/* fcgi: the FastCGI server, on top of libfcgi.
 *
 * libfcgi's reads and writes block, so it is called only when they cannot: a request is checked in the socket
 * buffer (MSG_PEEK) and passed to libfcgi when it is complete, and an answer is written record by record,
 * each when the socket is writable.
 *
 * A plain CGI program uses the same interface: one request from the environment, one answer to standard
 * output. */
#ifndef FCGI_H
#define FCGI_H

#include <uv.h>

#include "lib/blob.h"
#include "lib/buf.h"

struct fcgi_server;  /* a listening socket and its connections */
struct fcgi_request; /* one request of a web server, until it is answered or its connection is closed */

struct fcgi_handlers {
    /* A request has arrived. Answer it with fcgi_send, now or later. */
    void (*on_request)(void *ctx, struct fcgi_request *request);
    /* The last connection of a server that drains or is a CGI program is closed. */
    void (*on_drained)(void *ctx);
    void *ctx;
};

/* Serves the listening socket `fd` and takes ownership of it. Connections over `max_connections` are
 * accepted, marked as refused, and closed after one answer. When accepting fails, for example because the
 * system has no free descriptor, it pauses. Call this with a handler for SIGTERM installed: otherwise
 * libfcgi installs its own, which would swallow the signal. */
struct fcgi_server *fcgi_listen(uv_loop_t *loop, int fd, size_t max_connections,
                                struct fcgi_handlers handlers);

/* Serves the one request of a CGI program; calls on_request before it returns. */
struct fcgi_server *fcgi_serve_cgi(uv_loop_t *loop, struct fcgi_handlers handlers);

/* Accepts no more connections. Idle ones are closed after a moment, the others after their answer; then
 * on_drained is called once. */
void fcgi_drain(struct fcgi_server *server);

/* Closes all connections, answered or not. The server is freed when the loop has run the closing callbacks.
 * NULL is allowed. */
void fcgi_free(struct fcgi_server *server);

/* A parameter (REQUEST_URI, HTTP_...), or NULL if it is missing or empty: web servers pass headers that the
 * client did not send as empty ones. (ref) until the request is answered. */
const char *fcgi_param(const struct fcgi_request *request, const char *name);

/* Whether the connection is over max_connections. The answer should be a 503. */
bool fcgi_is_refused(const struct fcgi_request *request);

/* The body of a POST. The bodies of other methods, and of a CGI request, are discarded. (ref) until the
 * request is answered. */
const char *fcgi_body(const struct fcgi_request *request, size_t *ret_len);

/* Sets the callback for a connection that the web server closes before the answer. It is called once; after
 * that the request must not be used. */
void fcgi_on_gone(struct fcgi_request *request, void (*on_gone)(void *user), void *user);

/* The longest answer that is sent without being kept. */
enum { FCGI_RECORD_MAX = 8000 };

/* Sets a counter (ref) of the bytes that are kept for this request because the web server has not read them.
 * It outlives the request. NULL: there is none. STAT_UNSENT_BYTES counts the memory for all requests: there,
 * a blob that several answers share counts once; in these counters, it counts for each request. */
void fcgi_account(struct fcgi_request *request, int64_t *unsent_bytes);

/* Sends the answer: CGI header lines with an empty line at the end, and a body. An answer longer than
 * FCGI_RECORD_MAX is kept until it is sent, at most for two minutes: its text is copied, its blobs are
 * referenced. The request must not be used afterwards. */
void fcgi_send(struct fcgi_request *request, const char *head, size_t head_len, const struct body *body);

/* Whether the request can be answered with a stream. A CGI program cannot. */
bool fcgi_can_stream(const struct fcgi_request *request);

/* Starts a streamed answer. The caller keeps the request, and on_gone stays set. */
void fcgi_stream(struct fcgi_request *request, const char *head, size_t head_len);

/* Sends the next bytes of a stream. Returns false if the web server has closed the connection, or reads so
 * slowly that the connection was closed here; then the request must not be used, and on_gone is not called.
 * Without `may_keep`, it is closed if earlier bytes are still unread. */
MUST_CHECK bool fcgi_stream_send(struct fcgi_request *request, const char *data, size_t len, bool may_keep);

/* Ends the stream. The request must not be used afterwards. */
void fcgi_stream_end(struct fcgi_request *request);

#endif
