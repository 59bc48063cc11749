/* keypool: the API keys of one upstream - the state of each, and which one a query uses.
 *
 *     in use --refused three times in a row--> suspended --pause over--> a query probes --good--> in use
 *       |  ^                                                             '--refused, a longer pause--> suspended
 *       '--'--- rate limited (429): pauses as long as the upstream says
 *
 * After any refusal a key is the last choice for a minute. A refusal that may concern the task alone (KEY_DOUBTED) has
 * no other effect: otherwise a client that requests another account's task could suspend every key. */
#ifndef KEYPOOL_H
#define KEYPOOL_H

#include "lib/backoff.h"
#include "lib/files.h"
#include "upstream/outcome.h"

struct pool_key {
    char mark[KEY_MARK_SIZE]; /* identifies the key: the first digits of its SHA-256 */
    int64_t refusals;         /* in a row */
    bool aside;               /* suspended: it was refused too often, without a good answer since */
    int64_t aside_until_ms;   /* if suspended: when it may be probed */
    struct backoff pause;     /* between probes */
    int64_t rests_until_ms;   /* rate limited until then */
    int64_t doubted_until_ms; /* the last choice until then */
    int64_t taken_ms;         /* when a query used it last */
    int64_t trusted_until_ms; /* a minute after its last good answer */
};

struct keypool {
    size_t n;
    size_t next; /* the key whose turn it is */
    struct pool_key keys[POOL_KEYS_MAX];
};

/* The keys that the queries about one task have tried. Starts all zero, or with the owner set. */
struct key_choice {
    char owner[KEY_MARK_SIZE]; /* the mark of the key that answered for the task last; "": unknown */
    size_t key;                /* the key taken last */
    bool probes;               /* that key was suspended */
    bool stays;                /* that key has answered for the task: no other is tried */
    uint64_t tried;            /* one bit for each key */
    uint64_t missing;          /* the keys whose account has no such task */
};

/* At most POOL_KEYS_MAX keys. */
void keypool_init(struct keypool *pool, const struct secret *keys, size_t n);

/* Takes the next key for a task, beginning with the owner. Returns false if every usable key was tried. */
bool keypool_take(struct keypool *pool, struct key_choice *choice, int64_t now_ms);

/* Whether keypool_take would find a key. */
bool keypool_has(const struct keypool *pool, const struct key_choice *choice, int64_t now_ms);

/* Whether every key is suspended or rate limited. */
bool keypool_is_exhausted(const struct keypool *pool, int64_t now_ms);

/* Whether the taken key is in use and has given a good answer within the last minute. A 401 for a task that was never
 * seen may then concern the task alone. */
bool keypool_trusts(const struct keypool *pool, const struct key_choice *choice, int64_t now_ms);

/* Reports how the query with the taken key ended; `rest_ms` is used with KEY_BUSY. Returns true if the key
 * was suspended or recovered. */
bool keypool_learn(struct keypool *pool, struct key_choice *choice, enum key_lesson lesson, int64_t rest_ms,
                   int64_t now_ms);

/* The outcome for the task when no key is left: MISSING, REFUSED or BUSY, and after which time it may change
 * (0: unknown). */
enum outcome keypool_outcome(const struct keypool *pool, const struct key_choice *choice, int64_t now_ms,
                             int64_t *ret_retry_after_ms);

#endif
