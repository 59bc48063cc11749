/* request: handles clients' requests, from the request line to the answer. */
#ifndef REQUEST_H
#define REQUEST_H

#include "net/fcgi.h"
#include "fetch/fetch.h"
#include "access/ownership.h"

struct requests; /* of one worker */

/* All (ref), and outlive the requests. */
struct requests_parts {
    uv_loop_t *loop;
    const struct conf *conf;
    struct fetches *fetches;
    struct quotas *quotas;
    struct ownership *ownership;
    /* Tells the other workers that the task with this key may have changed. NULL: there is no other worker to
     * tell. */
    void (*pass_hint)(const char *key, size_t key_len);
    void (*on_idle)(void *ctx); /* called when requests_are_busy becomes false after requests_release */
    void *ctx;
};

struct requests *requests_new(struct requests_parts parts);

/* Drops waiting requests without an answer. NULL is allowed. */
void requests_free(struct requests *requests);

/* Called when the worker starts to drain: held requests get the current view, streams end, no request is held
 * any more, and tasks that webhooks have named are fetched at once. */
void requests_release(struct requests *requests);

/* Passes on a webhook that another worker has received. Polls the task with this key if this worker knows
 * it. */
void requests_take_hint(struct requests *requests, const char *key);

/* Whether tasks that webhooks have named are still to be fetched. */
bool requests_are_busy(const struct requests *requests);

/* Answers `client`, now or later. */
void request_serve(struct requests *requests, struct fcgi_request *client);

#endif
