/* http: GET requests on libcurl, one after the other on connections that are kept.
 *
 * A name that leads to an address of a kind that is not allowed is not connected to. TLS is verified; a redirect
 * is never followed; no proxy, cookie or compression is taken from anywhere; a body has a cap. What to ask, and whether, is decided elsewhere (upstream.c). */
#ifndef HTTP_H
#define HTTP_H

#include <uv.h>

#include "lib/buf.h"

struct http;
struct http_call; /* one query under way */

/* All (ref), needed only during http_get; but the certificates as long as the query runs. */
struct http_question {
    const char *url;
    const char *const *headers; /* lines, "Name: value", and NULL; wiped by their owner */
    const char *ca;             /* certificates to trust, PEM; NULL: the system's */
    size_t ca_len;
    unsigned allowed;   /* kinds of addresses (address.h) that may be connected to, as bits */
    int64_t timeout_ms; /* for the whole query */
    int64_t connect_timeout_ms;
    int64_t max_body; /* bytes */
    bool multiplexes; /* the last answer came over HTTP/2: wait for a connection that takes more queries */
};

enum http_outcome {
    HTTP_ANSWERED, /* with any status */
    HTTP_TIMED_OUT,
    HTTP_FAILED,      /* no connection, no TLS, or no byte of an answer */
    HTTP_UNUSABLE,    /* an answer that breaks off, too large, or no HTTP */
    HTTP_OUT_OF_MEANS /* we have no descriptor left */
};

struct http_answer {
    enum http_outcome outcome;
    int status;
    const char *body; /* (ref) during the callback */
    size_t len;
    int64_t retry_after_ms; /* 0: none was given */
    const char *etag;       /* (ref) during the callback; NULL: none was given */
    bool multiplexed;       /* over HTTP/2 */
    const char *trouble;    /* not HTTP_ANSWERED: what happened, static text */
};

typedef void http_callback(void *user, const struct http_answer *answer);

struct http *http_new(uv_loop_t *loop);

/* No query may be under way. Freed when the loop has run its closing callbacks. NULL is allowed. */
void http_free(struct http *http);

/* Exactly one callback comes, later, unless the call is cancelled. */
struct http_call *http_get(struct http *http, const struct http_question *question, http_callback *on_answer,
                           void *user);
void http_cancel(struct http_call *call);

#endif
