/* http: GET requests with libcurl, over connections that are kept open and reused.
 *
 * Only addresses of allowed kinds are connected to. TLS is verified; redirects are not followed; proxies,
 * cookies and compression are not used; a body has a maximum size. */
#ifndef HTTP_H
#define HTTP_H

#include <uv.h>

#include "upstream/outcome.h"

struct http;
struct http_call; /* one query under way */

/* All (ref) during http_get; the certificates until the query ends. */
struct http_request {
    const char *url;
    const char *headers; /* lines, each with a NUL, and an empty one behind the last; wiped by their owner */
    const char *ca;      /* trusted certificates, PEM; NULL: the system's */
    size_t ca_len;
    unsigned allowed;   /* kinds of addresses (address.h) that may be connected to: bits */
    int64_t timeout_ms; /* 0: none, the caller cancels the query */
    int64_t connect_timeout_ms;
    int64_t max_body; /* bytes */
    bool multiplexes; /* the last answer came over HTTP/2: wait for a connection that takes more queries */
};

struct http_answer {
    enum outcome outcome; /* OK: a whole answer came, with any status; else TIMEOUT, UNREACHABLE, MALFORMED or
                             NO_DESCRIPTORS */
    int status;
    const char *body; /* (ref) during the callback */
    size_t len;
    int64_t retry_after_ms; /* 0: none was given */
    const char *etag;       /* (ref) during the callback; NULL: none was given */
    bool multiplexed;       /* over HTTP/2 */
    const char *why;        /* not OUTCOME_OK: the details, static text */
};

typedef void http_callback(void *user, const struct http_answer *answer);

struct http *http_new(uv_loop_t *loop);

/* No query may be under way. Freed when the loop has run its closing callbacks. NULL is allowed. */
void http_free(struct http *http);

/* Exactly one callback comes, later, unless the call is cancelled. */
struct http_call *http_get(struct http *http, const struct http_request *request, http_callback *on_answer,
                           void *user);
void http_cancel(struct http_call *call);

#endif
