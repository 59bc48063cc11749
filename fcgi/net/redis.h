/* redis: commands and subscriptions, on top of hiredis. Every command ends within the configured time-out.
 * With a Redis Cluster, the keys of one command share a hash tag.
 *
 * Redis is optional at run time: while it is unavailable, no command is sent, and the reason is logged once.
 * A time-out closes the connection, because replies are matched to commands only by their order. Reconnection
 * attempts back off exponentially. A replica counts as unavailable: the address, or the Sentinels, may lead to another
 * server soon. A Redis that rejects writes is used for reading; the gauges REDIS_NO_WRITES and others tell why it rejects commands. */
#ifndef REDIS_H
#define REDIS_H

#include <uv.h>

#include "config/conf.h"

struct redis;         /* one connection, or those to the nodes of a cluster */
struct redis_command; /* one command under way */

enum redis_verb { REDIS_GET, REDIS_PTTL, REDIS_SET, REDIS_EVAL, REDIS_VERBS };

enum redis_result {
    REDIS_FOUND,       /* a value, a number, "OK" */
    REDIS_NOTHING,     /* no such key; SET NX found the key set */
    REDIS_UNAVAILABLE, /* no reply in time, or an error: nothing is known about the key */
    REDIS_DIVIDED /* a cluster is moving the slot of an EVAL, so its keys may be on two nodes: nothing was done */
};

struct redis_reply {
    enum redis_result result;
    const char *value; /* REDIS_FOUND: text, or NULL for a number; (ref) during the callback */
    size_t len;
    int64_t number; /* REDIS_FOUND without a value */
};

typedef void redis_callback(void *user, const struct redis_reply *reply);

/* Starts to connect. `conf` must outlive the connection. Without a Redis it stays unavailable, and nothing
 * is logged. */
struct redis *redis_new(uv_loop_t *loop, const struct conf_redis *conf);

typedef void redis_message(void *ctx, const char *text);

/* Opens a second connection, which receives the messages published on `channel` (all (ref)). Its failures are
 * logged only while `first`, the connection for commands, is up. `text` is NULL when the subscription begins,
 * also after an interruption, and when a connection to a node of a cluster comes up: earlier messages may have been
 * lost. With Sentinels, also opens a third connection: to a Sentinel, so that `first` leaves the old master when a
 * failover is announced. */
struct redis *redis_subscribe(struct redis *first, const char *channel, redis_message *on_message, void *ctx);

/* Pending commands get no callback. Freed when the loop has run the closing callbacks. NULL is allowed. */
void redis_free(struct redis *redis);

/* Sends the verb and its arguments, of which the last is followed by NULL. Returns NULL if Redis is
 * unavailable: no callback follows. Otherwise exactly one follows, later, unless the command is cancelled.
 * `on_reply` may be NULL; failures are counted and logged once in any case. */
struct redis_command *redis_send(struct redis *redis, enum redis_verb verb, const char *const words[],
                                 redis_callback *on_reply, void *user);

/* The command gets no callback; *command becomes NULL, and may be NULL before. */
void redis_cancel(struct redis_command **command);

/* Whether commands wait for replies. None waits longer than the time-out. */
bool redis_is_busy(const struct redis *redis);

#endif
