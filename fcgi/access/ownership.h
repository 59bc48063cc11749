/* ownership: with "ownership": "first-reader", a task belongs to the first team that reads it.
 *
 * Redis stores the owner for all workers and hosts. A worker caches owners, which never change; while Redis
 * is unavailable it uses its cache, and a task without an owner belongs to the first team in that worker.
 *
 *     KEY#owner     the team's name     (the task's key, behind the prefix)     EX 30 days, renewed at each lookup
 */
#ifndef OWNERSHIP_H
#define OWNERSHIP_H

#include "net/redis.h"
#include "task/route.h"

struct ownership;

/* Both (ref), and outlive the ownership. */
struct ownership *ownership_new(const struct conf *conf, struct redis *redis);
void ownership_free(struct ownership *ownership); /* NULL is allowed */

/* The claim of a team on an existing task; embedded in the object that makes it. */
struct claim {
    struct ownership *ownership;   /* (ref) */
    const struct task *task;       /* (ref) */
    const struct team *team;       /* (ref) */
    struct redis_command *command; /* under way, or NULL */
    bool granted;                  /* the task is the team's */
    void (*on_claimed)(struct claim *claim);
};

/* False: `granted` is set already; true: on_claimed will be called once, later, when it is set. Without
 * ownership, every claim is granted. */
bool ownership_claim(struct ownership *ownership, struct claim *claim, const struct task *task,
                     const struct team *team, void (*on_claimed)(struct claim *claim));
void ownership_cancel(struct claim *claim);

#endif
