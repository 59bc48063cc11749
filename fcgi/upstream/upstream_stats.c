/* upstream_stats: see upstream_stats.h. */
#include "upstream/upstream_stats.h"

#include <stdlib.h>
#include <string.h>

#include "lib/stats.h"

/* The name of the key's file, without its folder. */
static const char *key_name(const struct conf_upstream *conf, size_t i)
{
    const char *path = conf_key_name(conf, i), *slash = strrchr(path, '/');
    return slash != NULL ? slash + 1 : path;
}

static int64_t *key_series(enum family_id family, const struct conf_upstream *conf, size_t i,
                           const char *mark)
{
    return stat_series(family, "upstream", conf->name, "key", key_name(conf, i), "digest", mark);
}

static void init_keys(struct upstream_stats *s, const struct conf_upstream *conf, const struct keypool *pool)
{
    s->keys = xcalloc(pool->n, sizeof(*s->keys));
    for (size_t i = 0; i < pool->n; i++) {
        const char *mark = pool->keys[i].mark;
        s->keys[i] = (struct key_stats){.refusals = key_series(FAMILY_KEY_REFUSALS, conf, i, mark),
                                        .rejected = key_series(FAMILY_KEYS_REJECTED, conf, i, mark),
                                        .aside = key_series(FAMILY_KEYS_ASIDE, conf, i, mark),
                                        .resting = key_series(FAMILY_KEYS_RESTING, conf, i, mark),
                                        .unproven = key_series(FAMILY_KEYS_UNPROVEN, conf, i, mark),
                                        .queried_at = key_series(FAMILY_KEY_QUERIED_AT, conf, i, mark)};
    }
}

static int64_t *outcome_series(const char *upstream, const struct outcome_row *row)
{
    return row->kind == KIND_UNSENT
               ? stat_series(FAMILY_UPSTREAM_UNASKED, "upstream", upstream, "reason", row->label)
               : stat_series(FAMILY_UPSTREAM_OUTCOMES, "upstream", upstream, "outcome", row->label);
}

void upstream_stats_init(struct upstream_stats *s, const struct conf_upstream *conf,
                         const struct keypool *pool)
{
    const char *name = conf->name;
    *s = (struct upstream_stats){.queries = stat_series(FAMILY_UPSTREAM_QUERIES, "upstream", name),
                                 .failures = stat_series(FAMILY_UPSTREAM_FAILURES, "upstream", name),
                                 .in_flight = stat_series(FAMILY_UPSTREAM_IN_FLIGHT, "upstream", name),
                                 .time = stat_series(FAMILY_UPSTREAM_TIME, "upstream", name),
                                 .breaker_open = stat_series(FAMILY_BREAKER_OPEN, "upstream", name),
                                 .breaker_unproven = stat_series(FAMILY_BREAKER_UNPROVEN, "upstream", name),
                                 .exhausted = stat_series(FAMILY_KEYS_EXHAUSTED, "upstream", name)};
    for (enum outcome i = 0; i < OUTCOME_COUNT; i++)
        s->outcomes[i] = outcome_series(name, outcome_row(i));
    init_keys(s, conf, pool);
}

void upstream_stats_done(struct upstream_stats *s)
{
    free(s->keys);
}

void upstream_stats_sent(struct upstream_stats *s, size_t key)
{
    series_set(s->keys[key].queried_at, wall_ms() / 1000);
    series_add(s->queries, 1);
    series_add(s->in_flight, 1);
}

void upstream_stats_left(struct upstream_stats *s, int64_t took_ns)
{
    series_observe(s->time, took_ns);
    series_add(s->in_flight, -1);
}

void upstream_stats_count(struct upstream_stats *s, enum outcome outcome)
{
    series_add(s->outcomes[outcome], 1);
    if (outcome_row(outcome)->kind == KIND_FAILED)
        series_add(s->failures, 1);
}

void upstream_stats_keys(struct upstream_stats *s, const struct keypool *pool, int64_t now_ms)
{
    bool any_proven = false;
    for (size_t i = 0; i < pool->n; i++) {
        const struct pool_key *key = &pool->keys[i];
        bool proven = now_ms - key->taken_ms < PROVEN_MS;
        any_proven |= proven;
        series_set(s->keys[i].rejected, proven && key->refusals > 0);
        series_set(s->keys[i].aside, proven && key->aside);
        series_set(s->keys[i].unproven, !proven && key->refusals > 0);
        series_set(s->keys[i].resting, key->rests_until_ms > now_ms);
    }
    series_set(s->exhausted, any_proven && keypool_is_exhausted(pool, now_ms));
}

static int64_t read_key(const struct conf_upstream *conf, const struct key_reading *key,
                        const struct shm_counters *sum, enum family_id family)
{
    return series_read(sum, family, "upstream", conf->name, "key", key->name, "digest", key->mark);
}

void upstream_stats_read_key(const struct conf_upstream *conf, size_t i, const struct shm_counters *sum,
                             struct key_reading *ret)
{
    *ret = (struct key_reading){.name = key_name(conf, i)};
    key_mark(conf_keys(conf)[i].text, ret->mark);
    ret->refusals = read_key(conf, ret, sum, FAMILY_KEY_REFUSALS);
    ret->rejected = read_key(conf, ret, sum, FAMILY_KEYS_REJECTED);
    ret->aside = read_key(conf, ret, sum, FAMILY_KEYS_ASIDE);
    ret->resting = read_key(conf, ret, sum, FAMILY_KEYS_RESTING);
    ret->unproven = read_key(conf, ret, sum, FAMILY_KEYS_UNPROVEN);
    ret->queried_at = read_key(conf, ret, sum, FAMILY_KEY_QUERIED_AT);
}
