/* quota: what each team uses up - queries that it causes at the upstream, and requests that it has waiting.
 *
 * Queries are counted in Redis, for all workers and hosts together, in windows of a minute, each of which
 * begins with the first query in it; while Redis is away a worker goes on counting alone. Requests that wait
 * are counted by each worker for itself.
 *
 *     #queries:TEAM     how many there were in this window (behind the prefix)     PX 60000  */
#ifndef QUOTA_H
#define QUOTA_H

#include "net/redis.h"

struct quotas;
struct quota; /* of one team; as long-lived as the quotas */

/* Both (ref), and outlive the quotas. */
struct quotas *quotas_new(const struct conf *conf, struct redis *redis);
void quotas_free(struct quotas *quotas); /* NULL is allowed */

/* The team's quota; NULL for no team, which may use up as much as it likes. */
struct quota *quotas_of(struct quotas *quotas, const struct team *team);

/* ---- queries ---- */

/* Whether the quota is known to have no query left in this window; and when that is over. */
bool quota_is_spent(const struct quota *quota, int64_t now_ms);
int64_t quota_left_ms(const struct quota *quota, int64_t now_ms);

/* One query, embedded in whoever is about to make it. */
struct charge {
    struct quota *quota;           /* (ref) */
    struct redis_command *command; /* under way, or NULL */
    bool granted;                  /* it may be made */
    void (*on_charged)(struct charge *charge);
};

/* Counts a query. False: `granted` says already whether it may be made; true: it will when on_charged is
 * called, once, later. */
bool quota_charge(struct quota *quota, struct charge *charge, void (*on_charged)(struct charge *charge));
void quota_cancel(struct charge *charge);

/* Counts a query that follows another, whether there are any left or not; and takes one back that was not
 * made after all. */
void quota_charge_again(struct quota *quota);
void quota_give_back(struct quota *quota);

/* ---- waiting ---- */

/* Embedded in whoever may come to wait; zeroed, but for the quota. */
struct slot {
    struct quota *quota; /* (ref) NULL: there is always room */
    bool taken;
};

/* False when as many wait as may. Who has the slot keeps it. */
MUST_CHECK bool slot_take(struct slot *slot);
void slot_leave(struct slot *slot);

/* The limits of its team; 0: none. */
int64_t quota_queries_limit(const struct quota *quota);
int64_t quota_watchers_limit(const struct quota *quota);

#endif
