/* keypool: the keys of one upstream - with which of them a task is asked, and what has become of each.
 *
 *     in use --refused three times in a row--> set aside --pause over--> a query probes --good--> in use
 *       |  ^                                                             '--refused, a longer pause--> set aside
 *       '--'--- busy (429): rests until it may be used again
 *
 * After any refusal a key is the last choice for a while. One that may be about the task alone (403) has no other
 * consequence: else anyone who asks for a task that is not ours could set every key aside. */
#ifndef KEYPOOL_H
#define KEYPOOL_H

#include "lib/secret.h"

struct pool_key {
    char mark[KEY_MARK_SIZE]; /* by which it is told from others: the first digits of its SHA-256 */
    int64_t refusals;         /* in a row */
    bool aside;               /* it was refused too often, and has not been good since */
    int64_t aside_until_ms;   /* then: when it may be probed */
    int64_t rests_until_ms;
    int64_t doubted_until_ms; /* the last choice until then */
};

struct keypool {
    size_t n;
    size_t next; /* whose turn it is */
    struct pool_key keys[POOL_KEYS_MAX];
};

/* One task's way through the pool. All zero: it is unknown whose task it is. */
struct key_turn {
    char owner[KEY_MARK_SIZE]; /* the mark of the key that answered for the task last; "": none has */
    size_t key;                /* the one that was taken */
    bool probes;               /* that one had been set aside */
    bool stays;                /* that one has answered for the task: no other is asked in this turn */
    uint64_t tried;            /* one bit for each key */
    uint64_t missing;          /* those that know no such task */
    uint64_t refused;
};

/* What an answer says of the key. */
enum key_word { KEY_GOOD, KEY_MISSING, KEY_REFUSED, KEY_DOUBTED, KEY_BUSY };

/* What all of them said of the task, when none is left to ask. */
enum key_end { KEY_END_MISSING, KEY_END_REFUSED, KEY_END_BUSY };

/* At most POOL_KEYS_MAX keys. */
void keypool_init(struct keypool *pool, char *const *keys, size_t n);

/* Takes the next key for a task, its owner first; false when there is none that it has not been asked with and
 * that may be used now. */
bool keypool_take(struct keypool *pool, struct key_turn *turn, int64_t now_ms);

/* Whether keypool_take would find one. */
bool keypool_has(const struct keypool *pool, const struct key_turn *turn, int64_t now_ms);

/* The answer to the key that was taken; `rest_ms` is of KEY_BUSY. True when the key was set aside or came back. */
bool keypool_said(struct keypool *pool, struct key_turn *turn, enum key_word word, int64_t rest_ms,
                  int64_t now_ms);

/* No key is left: what that means for the task, and in how long it may be otherwise (0: unknown). */
enum key_end keypool_end(const struct keypool *pool, const struct key_turn *turn, int64_t now_ms,
                         int64_t *ret_retry_after_ms);

#endif
