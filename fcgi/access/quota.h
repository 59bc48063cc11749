/* quota: the limits of a team - upstream queries per minute, tasks that its requests wait for, and its share
 * of what all teams use.
 *
 * Queries are counted in Redis for all workers and hosts, in windows of one minute that begin with their
 * first query. While Redis is unavailable, each worker counts on its own. Waiting requests are counted per
 * worker.
 *
 * Each of the first QUOTA_SERIES_MAX teams of the file has its own metrics; the others share those of team "".
 *
 *     #queries:TEAM     the number of queries in this window (behind the prefix)     PX 60000 */
#ifndef QUOTA_H
#define QUOTA_H

#include "lib/stats.h"
#include "net/redis.h"

enum { QUOTA_SERIES_MAX = 100 };

enum quota_limit { LIMIT_QUERIES, LIMIT_WATCHERS, LIMITS };

struct quotas;
struct quota; /* of one team; lives as long as the quotas */

/* All (ref), and outlive the quotas. */
struct quotas *quotas_new(uv_loop_t *loop, const struct conf *conf, struct redis *redis);
void quotas_free(struct quotas *quotas); /* NULL is allowed */

/* The team's quota; NULL without a team, which has no limits. And the inverse. */
struct quota *quotas_of(struct quotas *quotas, const struct team *team);
const struct team *quota_team(const struct quota *quota);

/* Counts a refusal because of this limit of the team. */
void quota_refused(struct quota *quota, enum quota_limit limit);

/* The label of the metrics of the team with that index in the file. */
const char *quota_series_name(const struct conf *conf, size_t i);

/* ---- shares of what all teams use ---- */

/* Whether a team that has `own` of something may have `n` more while `left` are free. If several teams share
 * it, none gets more than three times as many as it leaves to the others. */
static inline bool quota_may_take(int64_t own, int64_t n, int64_t left, bool shared)
{
    return n <= left && (!shared || own + n <= 3 * (left - n + 1));
}

/* Things that a team has in this worker. */
enum quota_use { QUOTA_FETCHES, QUOTA_WAITERS, QUOTA_UNSENT_BYTES, QUOTA_USES };

/* Whether the team may have `n` more while `left` are free. Without a quota (NULL), only those count. */
bool quota_has_room(const struct quota *quota, enum quota_use use, int64_t n, int64_t left);

/* Counts `n` more, or fewer if it is negative. NULL is allowed. */
void quota_add(struct quota *quota, enum quota_use use, int64_t n);

/* (ref) the counter itself, for a module below this one; NULL without a quota. */
int64_t *quota_counter(struct quota *quota, enum quota_use use);

/* The index of the team's account in the cache, 0 for no team (NULL); and the number of accounts. */
size_t quota_account(const struct quota *quota);
size_t quota_accounts(const struct conf *conf);

/* ---- queries ---- */

/* Whether the quota has no query left in this window, by this worker's latest count; and the time until the
 * window ends. */
bool quota_is_spent(const struct quota *quota);
int64_t quota_left_ms(const struct quota *quota);

/* The charge for queries; embedded in the object that makes them. */
struct charge {
    struct quota *quota;           /* (ref) */
    int64_t n;                     /* queries */
    struct redis_command *command; /* under way, or NULL */
    bool granted;                  /* the queries may be sent */
    void (*on_charged)(struct charge *charge);
};

/* Counts `n` queries. False: `granted` is set already; true: on_charged will be called once, later, when it is
 * set. */
bool quota_charge(struct quota *quota, int64_t n, struct charge *charge,
                  void (*on_charged)(struct charge *charge));
void quota_cancel(struct charge *charge);

/* Count a further query even if none is left; and take back the charge for a query that was not sent. */
void quota_charge_again(struct quota *quota);
void quota_give_back(struct quota *quota);

/* ---- waiting ---- */

/* Embedded in an object that may wait; zeroed except for the quota. */
struct wait_slot {
    struct quota *quota; /* (ref) NULL: no limit */
    int64_t taken;       /* tasks that the object waits for */
};

/* Returns false if the team may not wait for `n` more tasks. No effect if the object already waits. */
MUST_CHECK bool wait_slot_take(struct wait_slot *slot, int64_t n);
void wait_slot_release(struct wait_slot *slot);

/* The team's limit; 0: none. */
int64_t quota_limit_of(const struct quota *quota, enum quota_limit limit);

#endif
