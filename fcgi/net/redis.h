/* redis: commands and messages, on hiredis, never later than the time-out of the configuration.
 *
 * Redis is a help, not a part: while it is away nothing here starts, and the reason is logged once. A
 * time-out drops the connection, since replies are told apart only by their order; it is made anew with
 * growing pauses. */
#ifndef REDIS_H
#define REDIS_H

#include <uv.h>

#include "config/conf.h"
#include "net/redis_notes.h"

struct redis;         /* one connection */
struct redis_command; /* one command under way */

enum redis_result {
    REDIS_FOUND,   /* a value, a number, "OK" */
    REDIS_NOTHING, /* no such key; a SET NX came too late */
    REDIS_AWAY     /* no answer in time, or an error: says nothing about the key */
};

struct redis_reply {
    enum redis_result result;
    const char *value; /* REDIS_FOUND: text, or NULL for a number; (ref) during the callback */
    size_t len;
    long long number;
};

typedef void redis_callback(void *user, const struct redis_reply *reply);

/* Begins to connect. `conf` must outlive it. Without an address it is away for ever, silently. */
struct redis *redis_new(uv_loop_t *loop, const struct conf_redis *conf);

typedef void redis_message(void *ctx, const char *data, size_t len);

/* A second connection, which hears what is published on `channel` (all of these (ref)). While `commands`, the
 * first one, is away, nothing is logged of it. */
struct redis *redis_listen(struct redis *commands, const char *channel, redis_message *on_message, void *ctx);

/* Pending commands are forgotten without a callback; freed when the loop has run its closing callbacks. NULL
 * is allowed. */
void redis_free(struct redis *redis);

enum { REDIS_WORDS_MAX = 12 };

/* A word of a command: any bytes. */
struct redis_word {
    const char *data;
    size_t len;
};

/* Sends the verb and the words behind it. NULL: away, no callback will come. Otherwise exactly one will,
 * later, unless the command is cancelled; `on_reply` may be NULL: what fails is counted and logged once. */
struct redis_command *redis_send(struct redis *redis, enum redis_verb verb, const struct redis_word *words,
                                 size_t n_words, redis_callback *on_reply, void *user);
void redis_cancel(struct redis_command *command);

/* Whether commands are under way; each ends by its time-out at the latest. */
bool redis_is_busy(const struct redis *redis);

#endif
