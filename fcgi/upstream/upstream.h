/* upstream: asks the upstreams of the configuration, if they may be asked.
 *
 * Connections are kept and reused; TLS is verified; a redirect is never followed; a body has a cap; no more
 * than max_in_flight queries run at once at one upstream, the others wait for their turn within their
 * time-out. */
#ifndef UPSTREAM_H
#define UPSTREAM_H

#include <uv.h>

#include "config/conf.h"
#include "upstream/headers.h"
#include "upstream/upstream_stats.h"

struct upstreams;
struct upstream_call; /* one query */

enum upstream_outcome {
    UPSTREAM_ANSWERED, /* with any status */
    UPSTREAM_TIMED_OUT,
    UPSTREAM_FAILED,       /* no connection, no TLS, or no byte of an answer */
    UPSTREAM_UNUSABLE,     /* an answer that breaks off, too large, or no HTTP */
    UPSTREAM_OUT_OF_MEANS, /* we have no descriptor left */
    UPSTREAM_HELD,         /* not asked: it is down, or our own limit is reached */
    UPSTREAM_NO_KEY        /* not asked: no key is left for this task, see upstream_key_end */
};

struct upstream_answer {
    enum upstream_outcome outcome;
    int http_status;
    const char *body; /* (ref) during the callback */
    size_t len;
    int64_t retry_after_ms; /* 0: none was given; UPSTREAM_HELD: until it may be asked again */
    const char *key;        /* (ref) the mark of the key it was asked with */
};

typedef void upstream_callback(void *user, const struct upstream_answer *answer);

/* `conf` must outlive it. */
struct upstreams *upstreams_new(uv_loop_t *loop, const struct conf *conf);

/* Queries under way end without a callback. NULL is allowed. */
void upstreams_free(struct upstreams *upstreams);

/* Asks the route's upstream for `target`, a path and query, with the next key of the turn. It carries the
 * present trace. Exactly one callback comes, later, unless the call is cancelled; until then the turn must not move. */
struct upstream_call *upstream_get(struct upstreams *upstreams, const struct conf_route *route,
                                   const char *target, struct key_turn *turn, upstream_callback *on_answer,
                                   void *user);
void upstream_cancel(struct upstream_call *call);

/* What an answer says of the key of the turn; `rest_ms` is of KEY_BUSY. True: there is another key with which the
 * task may be asked for. */
bool upstream_judge_key(struct upstreams *upstreams, const struct conf_upstream *upstream,
                        struct key_turn *turn, enum key_word word, int64_t rest_ms);

/* What it comes to that there is none; as keypool_end. */
enum key_end upstream_key_end(struct upstreams *upstreams, const struct conf_upstream *upstream,
                              const struct key_turn *turn, int64_t *ret_retry_after_ms);

/* Counts what an answer came to, once it is read: one of the first six. What was no answer is counted already. */
void upstream_count(struct upstreams *upstreams, const struct conf_upstream *upstream, enum upstream_end end);

/* What is counted and changes by time alone. */
void upstreams_refresh_stats(struct upstreams *upstreams);

/* What the upstream was given to know us by: (ref) until the loop turns. */
void upstream_secrets(struct upstreams *upstreams, const struct conf_upstream *upstream,
                      struct secrets *ret_secrets);

/* What the last query of that upstream came to, in a few words, or NULL when all is well: logged when it
 * changes. */
void upstream_report(struct upstreams *upstreams, const struct conf_upstream *upstream, const char *trouble);

#endif
