/* redis: GET and SET, on hiredis, never later than the time-out of the configuration.
 *
 * Redis is a help, not a part: while it is away nothing here starts, and the reason is logged once. A
 * time-out drops the connection, since replies are told apart only by their order; it is made anew with
 * growing pauses. */
#ifndef REDIS_H
#define REDIS_H

#include <uv.h>

#include "conf.h"

struct redis;
struct redis_command; /* one GET under way */

enum redis_result {
    REDIS_FOUND,
    REDIS_NOTHING, /* no such key */
    REDIS_AWAY     /* no answer in time, or an error: says nothing about the key */
};

struct redis_reply {
    enum redis_result result;
    const char *value; /* REDIS_FOUND; (ref) during the callback */
    size_t len;
};

typedef void redis_callback(void *user, const struct redis_reply *reply);

/* Begins to connect. `conf` must outlive it. Without an address it is away for ever, silently. */
struct redis *redis_new(uv_loop_t *loop, const struct conf_redis *conf);

/* Pending GETs are forgotten without a callback; freed when the loop has run its closing callbacks. NULL is
 * allowed. */
void redis_free(struct redis *redis);

/* NULL: away, no callback will come. Otherwise exactly one will, later, unless the command is cancelled. */
struct redis_command *redis_get(struct redis *redis, const char *key, redis_callback *on_reply, void *user);
void redis_cancel(struct redis_command *command);

/* Stores without waiting; what fails is counted and logged once. */
void redis_set(struct redis *redis, const char *key, const char *value, size_t len, int64_t ttl_ms);

/* Whether commands are under way; each ends by its time-out at the latest. */
bool redis_is_busy(const struct redis *redis);

#endif
