/* fcgi: the FastCGI edge, on libfcgi.
 *
 * libfcgi blocks, so it is called only where it cannot: a request is looked at in the socket (MSG_PEEK) and
 * given to libfcgi once it is whole; the socket never blocks; and an answer goes out in records that each
 * wait for room.
 *
 * The same requests and answers serve a plain CGI program: one request, from the environment to standard
 * output. */
#ifndef FCGI_H
#define FCGI_H

#include <uv.h>

#include "lib/buf.h"

struct fcgi_server;  /* a listening socket and its connections */
struct fcgi_request; /* one question of a web server's, until it is answered or gone */

struct fcgi_handlers {
    /* A request is there. It is answered with fcgi_send, now or later. */
    void (*on_request)(void *ctx, struct fcgi_request *request);
    /* The server is draining (or was a CGI program) and its last connection is closed. */
    void (*on_drained)(void *ctx);
    void *ctx;
};

/* Serves the listening socket `fd`, which the server owns from here on. Connections past `max_connections`
 * are taken, marked as refused, and closed after their answer. */
struct fcgi_server *fcgi_listen(uv_loop_t *loop, int fd, size_t max_connections,
                                struct fcgi_handlers handlers);

/* The one request of a CGI program; on_request is called before this returns. */
struct fcgi_server *fcgi_serve_cgi(uv_loop_t *loop, struct fcgi_handlers handlers);

/* No new connections; those that are idle close after a moment, the others after their answer. Then
 * on_drained, once. */
void fcgi_drain(struct fcgi_server *server);

/* Closes everything that is still open, answered or not. The server is freed when the loop has run its
 * closing callbacks. NULL is allowed. */
void fcgi_free(struct fcgi_server *server);

/* A parameter (REQUEST_URI, HTTP_...), or NULL when there is none or it is empty: web servers pass headers
 * that were not sent as empty ones. (ref) until the request is answered. */
const char *fcgi_param(const struct fcgi_request *request, const char *name);

/* Whether the connection stands past max_connections: the answer should say so. */
bool fcgi_is_refused(const struct fcgi_request *request);

/* What came with a POST; with any other method, and for a CGI program, a body is not kept. (ref) until the request is
 * answered. */
const char *fcgi_body(const struct fcgi_request *request, size_t *ret_len);

/* What on_gone is called with, once, when the web server closes the connection before the answer. The request
 * is gone then and must be forgotten. */
void fcgi_on_gone(struct fcgi_request *request, void (*on_gone)(void *user), void *user);

/* The answer: a head of CGI header lines with the empty line at its end, and a body. All of it is taken (what
 * does not fit into the socket at once is copied); the request must be forgotten. */
void fcgi_send(struct fcgi_request *request, const char *head, size_t head_len, const char *body,
               size_t body_len);

/* Whether an answer may come bit by bit: not from a CGI program. */
bool fcgi_can_stream(const struct fcgi_request *request);

/* Begins an answer whose body comes bit by bit. The request stays its owner's, and on_gone in force. */
void fcgi_stream(struct fcgi_request *request, const char *head, size_t head_len);

/* The next bytes. False: the web server is gone, or reads so slowly that it was dropped; the request must be
 * forgotten, and on_gone is not called. */
MUST_CHECK bool fcgi_stream_send(struct fcgi_request *request, const char *data, size_t len);

/* That was all; the request must be forgotten. */
void fcgi_stream_end(struct fcgi_request *request);

#endif
