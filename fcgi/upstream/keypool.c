/* keypool: see keypool.h. */
#include "upstream/keypool.h"

#include <string.h>

enum { PAUSE_FIRST_MS = 1000, PAUSE_LAST_MS = 5 * 60 * 1000, DOUBT_MS = 60 * 1000, REFUSALS_ASIDE = 3 };
enum { REST_LEAST_MS = 1000, REST_MOST_MS = 5 * 60 * 1000 };

void keypool_init(struct keypool *pool, const struct secret *keys, size_t n)
{
    *pool = (struct keypool){.n = n};
    for (size_t i = 0; i < n; i++) {
        key_mark(keys[i].text, pool->keys[i].mark);
        pool->keys[i].pause = (struct backoff){.first_ms = PAUSE_FIRST_MS, .max_ms = PAUSE_LAST_MS};
    }
}

static bool has_bit(uint64_t bits, size_t i)
{
    return (bits >> i & 1) != 0;
}

static bool is_resting(const struct pool_key *key, int64_t now_ms)
{
    return key->rests_until_ms > now_ms;
}

static bool is_usable(const struct pool_key *key, int64_t now_ms)
{
    return !is_resting(key, now_ms) && !(key->aside && key->aside_until_ms > now_ms);
}

/* The key that answered for the task last; pool->n: the pool has no such key. */
static size_t owner_of(const struct keypool *pool, const struct key_choice *choice)
{
    size_t i = 0;
    while (i < pool->n && strcmp(pool->keys[i].mark, choice->owner) != 0)
        i++;
    return i;
}

/* The owner; else the next key in turn that is not doubted; else the next key in turn; pool->n: none. */
static size_t choose(const struct keypool *pool, const struct key_choice *choice, int64_t now_ms)
{
    size_t owner = owner_of(pool, choice), chosen = pool->n;
    for (size_t k = 0; k < pool->n; k++) {
        size_t i = (pool->next + k) % pool->n;
        const struct pool_key *key = &pool->keys[i];
        if (has_bit(choice->tried, i) || !is_usable(key, now_ms))
            continue;
        if (i == owner)
            return i;
        bool better = chosen == pool->n ||
                      (pool->keys[chosen].doubted_until_ms > now_ms && key->doubted_until_ms <= now_ms);
        if (better)
            chosen = i;
    }
    return chosen;
}

bool keypool_take(struct keypool *pool, struct key_choice *choice, int64_t now_ms)
{
    if (choice->stays)
        return true;
    size_t i = choose(pool, choice, now_ms);
    if (i == pool->n)
        return false;
    struct pool_key *key = &pool->keys[i];
    key->taken_ms = now_ms;
    choice->probes = key->aside;
    if (choice->probes) /* one query at a time */
        key->aside_until_ms = now_ms + key->pause.last_ms;
    if (i != owner_of(pool, choice))
        pool->next = (i + 1) % pool->n;
    choice->key = i;
    choice->tried |= (uint64_t)1 << i;
    return true;
}

bool keypool_has(const struct keypool *pool, const struct key_choice *choice, int64_t now_ms)
{
    return !choice->stays && choose(pool, choice, now_ms) < pool->n;
}

bool keypool_is_exhausted(const struct keypool *pool, int64_t now_ms)
{
    size_t i = 0;
    while (i < pool->n && (pool->keys[i].aside || is_resting(&pool->keys[i], now_ms)))
        i++;
    return i == pool->n;
}

bool keypool_trusts(const struct keypool *pool, const struct key_choice *choice, int64_t now_ms)
{
    const struct pool_key *key = &pool->keys[choice->key];
    return !key->aside && key->trusted_until_ms > now_ms;
}

/* Queries that were under way when the key was suspended show nothing new; the probe does. */
static void note_refusal(struct pool_key *key, bool probe, int64_t now_ms)
{
    if (key->aside && !probe)
        return;
    key->refusals++;
    key->doubted_until_ms = now_ms + DOUBT_MS;
    key->aside = key->refusals >= REFUSALS_ASIDE;
    if (key->aside)
        key->aside_until_ms = now_ms + backoff_next(&key->pause);
}

static void bring_back(struct pool_key *key, int64_t now_ms)
{
    key->aside = false;
    key->refusals = key->doubted_until_ms = 0;
    key->trusted_until_ms = now_ms + DOUBT_MS;
    backoff_reset(&key->pause);
}

bool keypool_learn(struct keypool *pool, struct key_choice *choice, enum key_lesson lesson, int64_t rest_ms,
                   int64_t now_ms)
{
    struct pool_key *key = &pool->keys[choice->key];
    const bool was_aside = key->aside;
    switch (lesson) {
    case KEY_NOTHING:
        break;
    case KEY_GOOD:
        choice->stays = true;
        memcpy(choice->owner, key->mark, sizeof(choice->owner));
        bring_back(key, now_ms);
        break;
    case KEY_MISSING:
        choice->missing |= (uint64_t)1 << choice->key;
        bring_back(key, now_ms);
        break;
    case KEY_REFUSED:
        note_refusal(key, choice->probes, now_ms);
        break;
    case KEY_DOUBTED:
        key->doubted_until_ms = now_ms + DOUBT_MS;
        break;
    case KEY_BUSY:
        key->rests_until_ms = now_ms + min64(max64(rest_ms, REST_LEAST_MS), REST_MOST_MS);
        break;
    }
    return key->aside != was_aside;
}

static int64_t sooner(int64_t a, int64_t b)
{
    return a == 0 || b < a ? b : a;
}

enum outcome keypool_outcome(const struct keypool *pool, const struct key_choice *choice, int64_t now_ms,
                             int64_t *ret_retry_after_ms)
{
    size_t owner = owner_of(pool, choice);
    int64_t rests_ms = 0, aside_ms = 0;
    bool missing = owner < pool->n ? has_bit(choice->missing, owner) : choice->missing != 0;
    for (size_t i = 0; i < pool->n; i++) {
        const struct pool_key *key = &pool->keys[i];
        if (owner < pool->n && owner != i)
            continue;
        if (is_resting(key, now_ms))
            rests_ms = sooner(rests_ms, key->rests_until_ms - now_ms);
        else if (key->aside && key->aside_until_ms > now_ms)
            aside_ms = sooner(aside_ms, key->aside_until_ms - now_ms);
    }
    *ret_retry_after_ms = rests_ms > 0 ? rests_ms : missing ? 0 : aside_ms;
    return rests_ms > 0 ? OUTCOME_BUSY : missing ? OUTCOME_MISSING : OUTCOME_REFUSED;
}
