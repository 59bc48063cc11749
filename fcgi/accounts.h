/* accounts: what each team uses up - queries that it causes at the upstream, and requests that it has waiting.
 *
 * Queries are counted in Redis, for all workers and hosts together, in windows of a minute, each of which
 * begins with the first query in it; while Redis is away a worker goes on counting alone. Requests that wait
 * are counted by each worker for itself.
 *
 *     #queries:TEAM     how many there were in this window (behind the prefix)     PX 60000  */
#ifndef ACCOUNTS_H
#define ACCOUNTS_H

#include "redis.h"

struct accounts;
struct account; /* of one team; as long-lived as the accounts */

/* Both (ref), and outlive the accounts. */
struct accounts *accounts_new(const struct conf *conf, struct redis *redis);
void accounts_free(struct accounts *accounts); /* NULL is allowed */

/* The team's account; NULL for no team, which may use up as much as it likes. */
struct account *accounts_of(struct accounts *accounts, const struct team *team);

/* ---- queries ---- */

/* Whether the account is known to have no query left in this window; and when that is over. */
bool account_is_spent(const struct account *account, int64_t now_ms);
int64_t account_left_ms(const struct account *account, int64_t now_ms);

/* One query, embedded in whoever is about to make it. */
struct charge {
    struct account *account;       /* (ref) */
    struct redis_command *command; /* under way, or NULL */
    bool granted;                  /* it may be made */
    void (*on_charged)(struct charge *charge);
};

/* Counts a query. False: `granted` says already whether it may be made; true: it will when on_charged is
 * called, once, later. */
bool account_charge(struct account *account, struct charge *charge,
                    void (*on_charged)(struct charge *charge));
void account_cancel(struct charge *charge);

/* Counts a query that follows another, whether there are any left or not; and takes one back that was not
 * made after all. */
void account_charge_again(struct account *account);
void account_give_back(struct account *account);

/* ---- waiting ---- */

/* Embedded in whoever may come to wait; zeroed, but for the account. */
struct seat {
    struct account *account; /* (ref) NULL: there is always room */
    bool taken;
};

/* False when as many wait as may. Who has the seat keeps it. */
MUST_CHECK bool seat_take(struct seat *seat);
void seat_leave(struct seat *seat);

/* The limits of its team; 0: none. */
int64_t account_queries_limit(const struct account *account);
int64_t account_watchers_limit(const struct account *account);

#endif
