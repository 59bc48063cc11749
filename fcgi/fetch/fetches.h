/* fetches: the fetches under way, and all who wait for them.
 *
 * A fetch belongs to the worker, not to a client: a client that leaves cancels nothing. Any number of waiters
 * share one question. */
#ifndef FETCHES_H
#define FETCHES_H

#include "fetch/fetch.h"

struct fetches;
struct fetches_entry; /* one fetch and its waiters */

/* Embedded in whoever waits. */
struct fetch_waiter {
    struct fetches_entry *entry; /* (ref) NULL: does not wait */
    struct fetch_waiter *prev, *next;
    struct quota *payer; /* (ref) whose query it is, should one be made for it; NULL: nobody's */
    void (*on_fetched)(struct fetch_waiter *waiter, const struct fetch_result *result);
};

struct fetches_parts {
    uv_loop_t *loop;             /* (ref) */
    const struct conf *conf;     /* (ref) all of these outlive the fetches */
    struct lease *lease;         /* (ref) */
    struct upstreams *upstreams; /* (ref) */
};

struct fetches *fetches_new(struct fetches_parts parts);

/* Fetches under way end; their waiters are not called. NULL is allowed. */
void fetches_free(struct fetches *fetches);

/* Where fetches keep what they bring home. (ref) */
struct cache *fetches_cache(struct fetches *fetches);

/* Who wants to know what becomes of tasks; `ctx` is handed to both. */
struct fetches_listener {
    /* At the end of every fetch, after its waiters. */
    void (*on_fetched)(void *ctx, const struct fetch_result *result);
    /* Another worker has brought a view of that task home. True when the listener has taken care of it. */
    bool (*on_news)(void *ctx, const struct news *news);
    void *ctx;
};

void fetches_listen(struct fetches *fetches, struct fetches_listener listener);

/* Hears from other workers, over Redis, from here on. */
void fetches_hear(struct fetches *fetches);

enum fetches_join { FETCH_STARTED, FETCH_COLLAPSED, FETCH_REFUSED };

/* Waits for the fetch of a task, which is begun when there is none. FETCH_REFUSED: the limit of fetches is
 * reached, and no callback will come; otherwise exactly one will, later. */
enum fetches_join fetches_join(struct fetches *fetches, const struct task *task, struct fetch_waiter *waiter);

/* Starts a fetch of a task without waiting for it, unless one is under way. `anew`: only an ended task, or a query that
 * is sent from now on, will do. The query is charged to `payer` (NULL: to none). */
enum fetches_join fetches_refresh(struct fetches *fetches, const struct task *task, bool anew,
                                  struct quota *payer);

/* The number of the last query that was sent to an upstream. */
uint64_t fetches_sent(const struct fetches *fetches);

/* Waits no longer; the fetch goes on. */
void fetches_leave(struct fetch_waiter *waiter);

#endif
