/* ownership: whose a task is, with "ownership": "first-reader" - the first team's that has read it.
 *
 * Redis keeps it, so that all workers and hosts agree. A worker remembers what it has heard, which never
 * changes; while Redis is away it goes by that, and by who came first to itself.
 *
 *     KEY#owner     the team's name     (the task's key, behind the prefix)     EX 30 days after it was last asked for
 */
#ifndef OWNERSHIP_H
#define OWNERSHIP_H

#include "net/redis.h"
#include "task/route.h"

struct ownership;

/* Both (ref), and outlive the ownership. */
struct ownership *ownership_new(const struct conf *conf, struct redis *redis);
void ownership_free(struct ownership *ownership); /* NULL is allowed */

/* A team wants to read a task, which is there; embedded in whoever asks for it. */
struct claim {
    struct ownership *ownership;   /* (ref) */
    const struct task *task;       /* (ref) */
    const struct team *team;       /* (ref) */
    struct redis_command *command; /* under way, or NULL */
    bool granted;                  /* the task is the team's */
    void (*on_claimed)(struct claim *claim);
};

/* False: `granted` has the answer already; true: it will when on_claimed is called, once, later. Where there is
 * no ownership every claim is granted. */
bool ownership_claim(struct ownership *ownership, struct claim *claim, const struct task *task,
                     const struct team *team, void (*on_claimed)(struct claim *claim));
void ownership_cancel(struct claim *claim);

#endif
