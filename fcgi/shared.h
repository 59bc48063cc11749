/* shared: the snapshots that workers share through Redis. */
#ifndef SHARED_H
#define SHARED_H

#include "redis.h"
#include "route.h"

struct shared;

/* Both (ref), and outlive it. */
struct shared *shared_new(const struct conf *conf, struct redis *redis);
void shared_free(struct shared *shared); /* NULL is allowed */

/* Asks for the snapshot of a task; as redis_get. */
struct redis_command *shared_get(struct shared *shared, const struct task *task, redis_callback *on_reply,
                                 void *user);

/* The snapshot in a reply that found something; NULL when the value cannot be used, which is logged once. */
struct snapshot *shared_read(struct shared *shared, const struct task *task, const struct redis_reply *reply);

/* Stores a snapshot, without waiting, for as long as it is of use to others. */
void shared_keep(struct shared *shared, const struct task *task, const struct snapshot *snapshot);

/* How long snapshots of the task's route are fresh and kept. */
struct snapshot_rules shared_rules(const struct conf *conf, const struct task *task);

#endif
