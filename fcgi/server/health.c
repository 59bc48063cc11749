/* health: see health.h. */
#include "server/health.h"

#include <stdarg.h>
#include <stdio.h>

#include "lib/stats.h"
#include "upstream/upstream_stats.h"

enum { TROUBLE_MAX = 200 };

struct listener {
    void (*say)(void *ctx, const char *trouble);
    void *ctx;
    int said;
};

static PRINTF(2, 3) void say(struct listener *listener, const char *format, ...)
{
    char text[TROUBLE_MAX];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    listener->say(listener->ctx, text);
    listener->said++;
}

static void look_at_workers(const struct health *health, struct listener *listener)
{
    int wanted = (int)health->conf->workers, missing = wanted - health->workers_ready - health->workers_hung;
    if (health->workers_hung > 0)
        say(listener, "%d of %d workers stand still", health->workers_hung, wanted);
    if (missing > 0)
        say(listener, "%d of %d workers are missing", missing, wanted);
}

static void look_at_redis(const struct health *health, const struct shm_counters *total,
                          struct listener *listener)
{
    const struct conf_redis *redis = &health->conf->redis;
    if (redis->address == NULL || stat_read(total, STAT_REDIS_UP) >= health->workers_ready)
        return;
    if (stat_read(total, STAT_REDIS_REJECTED) == 0)
        say(listener, "Redis is unavailable");
    else
        say(listener, redis->password ? "Redis rejects our password" : "Redis requires a password");
}

static void look_at_keys(const struct conf_upstream *upstream, const struct shm_counters *total,
                         struct listener *listener)
{
    for (size_t i = 0; i < upstream->keys.n; i++) {
        struct key_reading key;
        upstream_stats_read_key(upstream, i, total, &key);
        if (key.aside > 0)
            say(listener, "upstream %s refuses the key of %s", upstream->name, key.name);
    }
}

static void look_at_upstreams(const struct conf *conf, const struct shm_counters *total,
                              struct listener *listener)
{
    for (size_t i = 0; i < conf->upstreams.n; i++) {
        const struct conf_upstream *upstream = conf_upstream(conf, i);
        struct upstream_reading reading;
        upstream_stats_read(upstream, total, &reading);
        if (reading.breaker_open > 0)
            say(listener, "upstream %s fails", upstream->name);
        look_at_keys(upstream, total, listener);
    }
}

int health_troubles(const struct health *health, const struct shm_counters *total,
                    void (*say_trouble)(void *ctx, const char *trouble), void *ctx)
{
    struct listener listener = {.say = say_trouble, .ctx = ctx};
    look_at_workers(health, &listener);
    look_at_redis(health, total, &listener);
    look_at_upstreams(health->conf, total, &listener);
    if (stat_read(total, STAT_RELOADED_OK) == 0)
        say(&listener, "the last reload was refused");
    return listener.said;
}
