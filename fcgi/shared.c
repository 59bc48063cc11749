/* shared: see shared.h. */
#include "shared.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CLOCKS_APART_MS = 5000, VALUE_MAX = 16 * 1024 * 1024 };

struct shared {
    const struct conf *conf; /* (ref) */
    struct redis *redis;     /* (ref) */
    struct buf key;          /* of the call at hand */
    char bad_value[64];      /* why the last value was not used, as logged */
};

struct shared *shared_new(const struct conf *conf, struct redis *redis)
{
    struct shared *s = xcalloc(1, sizeof(*s));
    *s = (struct shared){.conf = conf, .redis = redis};
    buf_init(&s->key, TASK_KEY_MAX);
    return s;
}

void shared_free(struct shared *s)
{
    if (s == NULL)
        return;
    buf_done(&s->key);
    free(s);
}

struct snapshot_rules shared_rules(const struct conf *conf, const struct task *task)
{
    const struct provider_poll *poll = &task->route->provider->poll;
    return (struct snapshot_rules){.terminal_ttl_ms = conf->cache.terminal_ttl_ms,
                                   .stale_for_ms = conf->cache.stale_for_ms,
                                   .poll_min_ms = poll->min_ms,
                                   .poll_max_ms = poll->max_ms};
}

static bool has_redis(const struct shared *s)
{
    return s->conf->redis.address != NULL;
}

static const char *key_of(struct shared *s, const struct task *task)
{
    buf_reset(&s->key);
    buf_puts(&s->key, s->conf->redis.prefix);
    task_key(task, &s->key);
    return s->key.data;
}

struct redis_command *shared_get(struct shared *s, const struct task *task, redis_callback *on_reply,
                                 void *user)
{
    return has_redis(s) ? redis_get(s->redis, key_of(s, task), on_reply, user) : NULL;
}

struct snapshot *shared_read(struct shared *s, const struct task *task, const struct redis_reply *reply)
{
    const struct snapshot_rules rules = shared_rules(s->conf, task);
    const struct provider *provider = task->route->provider;
    const char *why;
    struct snapshot *snapshot = snapshot_decode(reply->value, reply->len, provider->digest, &rules, &why);
    if (snapshot != NULL && snapshot->fetched_ms > wall_ms() + CLOCKS_APART_MS) {
        snapshot_unref(snapshot);
        snapshot = NULL;
        why = "values from the future (do the hosts' clocks agree?)";
    }
    if (snapshot == NULL && strcmp(why, s->bad_value) != 0) {
        log_warn("Redis holds %s under the keys of provider %s; such values are not used", why,
                 provider->name);
        snprintf(s->bad_value, sizeof(s->bad_value), "%s", why);
    }
    return snapshot;
}

void shared_keep(struct shared *s, const struct task *task, const struct snapshot *snapshot)
{
    bool ended = state_ended(snapshot->state);
    int64_t ttl_ms = ended ? snapshot->fresh_until_ms - snapshot->fetched_ms : s->conf->cache.stale_for_ms;
    struct buf value;
    if (ttl_ms <= 0 || !has_redis(s))
        return;
    buf_init(&value, VALUE_MAX);
    snapshot_encode(snapshot, task->route->provider->digest, &value);
    if (!value.failed)
        redis_set(s->redis, key_of(s, task), value.data, value.len, ttl_ms);
    buf_done(&value);
}
