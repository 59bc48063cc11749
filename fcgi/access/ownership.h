/* ownership: with "ownership": "first-reader", a task belongs to the first team that reads it.
 *
 * A task is known by the identity that the upstream's answers give it, within the account at the upstream: however a
 * request spells its id, and whichever route it takes, the task has one owner.
 *
 * Redis stores the owner for all workers and hosts. A worker caches owners, which never change; while Redis
 * is unavailable or rejects writes, claims on tasks whose owners are unknown remain undecided. A configuration with
 * ownership and without Redis is refused: owners would differ between workers, and be lost when they exit.
 *
 *     ACCOUNT:IDENTITY#owner     the team's name (behind the prefix)     PX 30 days, renewed while the team uses the task
 */
#ifndef OWNERSHIP_H
#define OWNERSHIP_H

#include "net/redis.h"
#include "task/route.h"

struct ownership;

/* Both (ref), and outlive the ownership. */
struct ownership *ownership_new(const struct conf *conf, struct redis *redis);
void ownership_free(struct ownership *ownership); /* NULL is allowed */

enum claim_event { CLAIM_NO_EVENT, CLAIM_TAKEN, CLAIM_CONFIRMED, CLAIM_REFUSED };

/* The claim of a team on an existing task; embedded in the object that makes it. */
struct claim {
    struct ownership *ownership;   /* (ref) */
    const struct task *task;       /* (ref) */
    const struct team *team;       /* (ref) */
    char identity[IDENTITY_SIZE];  /* of the task; "": it was not claimed, or has none */
    struct redis_command *command; /* under way, or NULL */
    bool granted;                  /* the task is the team's */
    bool undecided;                /* not granted, because Redis is unavailable or rejects writes */
    enum claim_event event;        /* for the audit; a claim that the cache grants is none */
    void (*on_claimed)(struct claim *claim);
};

/* Claims the task of a snapshot. False: `granted` is set already; true: on_claimed will be called once, later, when it
 * is set. Without ownership, every claim is granted; with it, none on a task whose answers have no identity. */
bool ownership_claim(struct ownership *ownership, struct claim *claim, const struct task *task,
                     const struct snapshot *snapshot, const struct team *team,
                     void (*on_claimed)(struct claim *claim));
void ownership_cancel(struct claim *claim);

/* Whether a claim on one snapshot of a task holds for another one, too. The name of a task may come to mean another
 * one. */
bool ownership_covers(const struct claim *claim, const struct snapshot *snapshot);

#endif
