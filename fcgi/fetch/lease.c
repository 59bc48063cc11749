/* lease: see lease.h. */
#include "fetch/lease.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <utlist.h>

#include "lib/log.h"
#include "lib/stats.h"

enum {
    VALUE_MAX = 16 * 1024 * 1024,
    RENEW_MS = 1000,
    WAIT_MORE_MS = 2000,
    RETRY_AFTER_MAX_MS = 5 * 60 * 1000
};
enum { CLOCKS_APART_MS = 5000 };
enum { PAST_MS = 3000, PAST_MAX = 4096 }; /* see struct past_lease; a lease expires within that time */

/* In a notification, in place of a problem's code: a snapshot that Redis does not have. */
static const char unstored[] = "unstored";

#define LEASE_MS "3000"

/* KEYS: the lease. ARGV: the token, the time to live. */
static const char renew_script[] = "if redis.call('GET',KEYS[1])==ARGV[1] then "
                                   "return redis.call('PEXPIRE',KEYS[1],ARGV[2]) end return 0";

/* KEYS: the lease. ARGV: unused, the time to live. A holder that lives renews the lease within the new time. */
static const char cap_script[] = "local left=redis.call('PTTL',KEYS[1]) "
                                 "if left==-1 or left>tonumber(ARGV[2]) then "
                                 "return redis.call('PEXPIRE',KEYS[1],2000) end return 0";

/* KEYS: the lease, the snapshot. ARGV: the token, the channel, the notification and, if there is a snapshot, its
 * value and its time to live. The snapshot of a worker that has lost its lease is neither stored nor announced: the
 * next holder may have a newer one, which would be outdated in its cache. */
static const char publish_script[] = "if redis.call('GET',KEYS[1])==ARGV[1] then redis.call('DEL',KEYS[1]) "
                                     "if ARGV[4] then redis.call('SET',KEYS[2],ARGV[4],'PX',ARGV[5]) end "
                                     "elseif ARGV[4] then return 0 end "
                                     "return redis.call('PUBLISH',ARGV[2],ARGV[3])";

/* KEYS: the snapshot. */
static const char remove_script[] = "return redis.call('DEL',KEYS[1])";

/* KEYS: the lease. ARGV: the token. */
static const char release_script[] = "if redis.call('GET',KEYS[1])==ARGV[1] then "
                                     "return redis.call('DEL',KEYS[1]) end return 0";

/* A lease that was released, or perhaps acquired, a short time ago. After a lost connection or a failover, Redis may still
 * have the lease, which would delay the task's next query until it expires. */
struct past_lease {
    char *key;
    char token[TOKEN_MAX];
    uint64_t until_ms; /* loop time */
    struct past_lease *prev, *next;
};

struct lease {
    const struct conf *conf; /* (ref) */
    struct redis *redis;     /* (ref) */
    struct redis *listener;  /* NULL: this worker receives no notifications */
    lease_callback *on_notification;
    void *ctx;
    char *channel;
    char *scope;                 /* begins the task's key in Redis */
    char sender[17];             /* identifies this worker in notifications; the prefix of its tokens */
    unsigned long long n_tokens; /* so far */
    struct lease_lookup *held;   /* the lookups that hold a lease */
    struct past_lease *past;     /* the oldest one first */
    size_t n_past;
    uv_timer_t renew_timer;
    struct log_once bad_values; /* reasons why values were not used */
};

static void on_renew(uv_timer_t *timer);

/* Instances with other rules for access must not read these snapshots, even if they share the prefix. No upstream's name
 * contains '#'. */
static char *scope_of(const struct conf_access *access)
{
    static const char *const modes[] = {[ACCESS_TEAMS] = "teams", [ACCESS_NGINX] = "nginx"};
    if (access->mode == ACCESS_OPEN)
        return xstrdup("");
    return xasprintf("%s%s#", modes[access->mode], access->ownership == OWNERSHIP_NONE ? "" : "-owned");
}

/* The key of a task's snapshot, or with the suffix "#lease" that of its lease. No task id contains '#', because
 * it ends a path. In a cluster, the braces are a hash tag: both keys are in the same slot. The caller frees the key. */
static char *key_of(const struct lease *s, const struct task *task, const char *suffix)
{
    const char *form = s->conf->redis.cluster ? "%s{%s%s}%s" : "%s%s%s%s";
    return xasprintf(form, s->conf->redis.prefix, s->scope, task->key, suffix);
}

/* ---- lookups ---- */

/* Clocks that differ do not matter here, but they do for signed links and for URLs that expire. */
static void check_clocks(struct lease *s, const struct snapshot *found, struct moment now)
{
    int64_t apart_ms = (found->fetched_ms - now.date_ms) - (found->since_ms - now.ms);
    if ((apart_ms > CLOCKS_APART_MS || apart_ms < -CLOCKS_APART_MS) && log_once(&s->bad_values, "clocks", 0))
        log_warn("the clocks of the hosts that share Redis differ by %lld s, or one of them was set",
                 (long long)(apart_ms < 0 ? -apart_ms : apart_ms) / 1000);
}

/* The snapshot in a reply. NULL if the value cannot be used, which is logged once. */
static struct snapshot *read_value(const struct lease_lookup *lookup, const struct redis_reply *reply)
{
    struct lease *s = lookup->lease;
    const struct snapshot_rules rules = task_rules(lookup->task, &s->conf->cache);
    const struct provider *provider = lookup->task->route->provider;
    const struct snapshot_reading reading = {provider->digest, &rules, moment_now(s->renew_timer.loop),
                                             lookup->ttl_ms};
    const char *why = "a value of another type";
    struct snapshot *snapshot =
        reply->value ? snapshot_decode(reply->value, reply->len, &reading, &why) : NULL;
    if (snapshot == NULL && log_once(&s->bad_values, why, 0))
        log_warn("ignoring values in Redis for provider %s: %s", provider->name, why);
    if (snapshot != NULL)
        check_clocks(s, snapshot, reading.now);
    return snapshot;
}

/* Replies come in the order of the commands, except from a Redis Cluster that is moving one of the keys. */
static void finish_if_complete(struct lease_lookup *lookup)
{
    if (lookup->acquire == NULL && lookup->age == NULL && lookup->get == NULL)
        lookup->on_lookup_done(lookup);
}

static void on_age(void *user, const struct redis_reply *reply)
{
    struct lease_lookup *lookup = user;
    lookup->age = NULL;
    lookup->ttl_ms = reply->result == REDIS_FOUND ? reply->number : -1;
    finish_if_complete(lookup);
}

static void on_value(void *user, const struct redis_reply *reply)
{
    struct lease_lookup *lookup = user;
    lookup->get = NULL;
    if (reply->result == REDIS_FOUND)
        lookup->found = read_value(lookup, reply);
    finish_if_complete(lookup);
}

static void forget(struct lease *s, struct past_lease *past)
{
    DL_DELETE(s->past, past);
    s->n_past--;
    free(past->key);
    free(past);
}

static void forget_expired(struct lease *s)
{
    while (s->past != NULL && (s->n_past > PAST_MAX || s->past->until_ms <= uv_now(s->renew_timer.loop)))
        forget(s, s->past);
}

static void remember(const struct lease_lookup *lookup)
{
    struct lease *s = lookup->lease;
    struct past_lease *past = xcalloc(1, sizeof(*past));
    past->key = key_of(s, lookup->task, "#lease");
    past->until_ms = uv_now(s->renew_timer.loop) + PAST_MS;
    snprintf(past->token, sizeof(past->token), "%s", lookup->token);
    DL_APPEND(s->past, past);
    s->n_past++;
    forget_expired(s);
}

static void hold(struct lease_lookup *lookup)
{
    struct lease *s = lookup->lease;
    lookup->held = true;
    if (s->held == NULL)
        uv_timer_start(&s->renew_timer, on_renew, RENEW_MS, RENEW_MS);
    DL_APPEND(s->held, lookup);
}

static void on_lease(void *user, const struct redis_reply *reply)
{
    static const enum lease_holder holders[] = {[REDIS_FOUND] = LEASE_OURS,
                                                [REDIS_NOTHING] = LEASE_THEIRS,
                                                [REDIS_UNAVAILABLE] = LEASE_UNAVAILABLE,
                                                [REDIS_DIVIDED] = LEASE_UNAVAILABLE};
    struct lease_lookup *lookup = user;
    lookup->acquire = NULL;
    lookup->holder = holders[reply->result];
    if (lookup->holder == LEASE_OURS)
        hold(lookup);
    if (lookup->holder == LEASE_UNAVAILABLE)
        remember(lookup);
    if (lookup->holder == LEASE_THEIRS)
        stat_inc(STAT_LEASES_REFUSED);
    finish_if_complete(lookup);
}

/* Returns false if Redis is unavailable. */
static bool send_acquire(struct lease_lookup *lookup)
{
    char *key = key_of(lookup->lease, lookup->task, "#lease");
    const char *const words[] = {key, lookup->token, "NX", "PX", LEASE_MS, NULL};
    lookup->acquire = redis_send(lookup->lease->redis, REDIS_SET, words, on_lease, lookup);
    free(key);
    return lookup->acquire != NULL;
}

bool lease_lookup(struct lease *s, struct lease_lookup *lookup, const struct task *task, bool acquire,
                  void (*on_lookup_done)(struct lease_lookup *lookup))
{
    if (s->conf->redis.name == NULL)
        return false;
    *lookup = (struct lease_lookup){
        .lease = s, .task = task, .holder = LEASE_NOT_WANTED, .on_lookup_done = on_lookup_done};
    snprintf(lookup->token, sizeof(lookup->token), "%s-%llu", s->sender, ++s->n_tokens);
    if (acquire && !send_acquire(lookup))
        return false;
    char *key = key_of(s, task, "");
    const char *const get[] = {key, NULL};
    lookup->age = redis_send(s->redis, REDIS_PTTL, get, on_age, lookup);
    if (lookup->age != NULL)
        lookup->get = redis_send(s->redis, REDIS_GET, get, on_value, lookup);
    free(key);
    if (lookup->get == NULL) {
        redis_cancel(&lookup->acquire);
        redis_cancel(&lookup->age);
    }
    return lookup->get != NULL;
}

int64_t lease_wait_ms(const struct task *task)
{
    return task_timeout_ms(task) + WAIT_MORE_MS;
}

/* ---- leases held by this worker ---- */

static void eval(const struct lease *s, const char *script, const char *key, const char *token)
{
    const char *const words[] = {script, "1", key, token, LEASE_MS, NULL};
    redis_send(s->redis, REDIS_EVAL, words, NULL, NULL);
}

/* Runs a script about the lease. */
static void send_script(const struct lease_lookup *lookup, const char *script)
{
    char *key = key_of(lookup->lease, lookup->task, "#lease");
    eval(lookup->lease, script, key, lookup->token);
    free(key);
}

/* Releases past leases again, because Redis may have lost their release. */
static void release_past(struct lease *s)
{
    const struct past_lease *past;
    forget_expired(s);
    DL_FOREACH(s->past, past)
    {
        eval(s, release_script, past->key, past->token);
    }
}

void lease_cap(const struct lease_lookup *lookup)
{
    send_script(lookup, cap_script);
}

static void on_renew(uv_timer_t *timer)
{
    const struct lease *s = timer->data;
    const struct lease_lookup *lookup;
    DL_FOREACH(s->held, lookup)
    {
        send_script(lookup, renew_script);
    }
}

static bool let_go(struct lease_lookup *lookup)
{
    struct lease *s = lookup->lease;
    if (!lookup->held)
        return false;
    lookup->held = false;
    remember(lookup);
    DL_DELETE(s->held, lookup); // NOLINT(clang-analyzer-core.NullDereference): it is in the list
    if (s->held == NULL)
        uv_timer_stop(&s->renew_timer);
    return true;
}

/* How long Redis keeps the snapshot; 0: it does not. */
static int64_t ttl_of(const struct lease *s, const struct snapshot *snapshot)
{
    if (snapshot == NULL)
        return 0;
    return state_ended(snapshot->state) ? snapshot->fresh_until_ms - snapshot->since_ms
                                        : s->conf->cache.stale_for_ms;
}

enum { SCRIPT, N_KEYS, LEASE_KEY, KEY, TOKEN, CHANNEL, MESSAGE, VALUE, TTL, PUBLICATION_WORDS };

/* The words of the command that runs publish_script. They outlive the lease, because Redis may reply after that is freed. */
struct publication {
    struct redis *redis;                /* (ref) */
    char *words[PUBLICATION_WORDS + 1]; /* a NULL ends them: VALUE, if there is no snapshot to store */
};

static void publication_free(struct publication *p)
{
    for (size_t i = 0; i < PUBLICATION_WORDS; i++)
        free(p->words[i]);
    free(p);
}

/* A Redis Cluster that moves the slot rejects scripts with two keys, but not commands with one. Unlike the script, the
 * first command also stores the snapshot of a worker that has lost its lease within this moment. */
static void on_published(void *user, const struct redis_reply *reply)
{
    struct publication *p = user;
    char **w = p->words;
    const char *const set[] = {w[KEY], w[VALUE], "PX", w[TTL], NULL};
    const char *const release[] = {w[SCRIPT], "1", w[LEASE_KEY], w[TOKEN], w[CHANNEL], w[MESSAGE], NULL};
    if (reply->result == REDIS_DIVIDED && w[VALUE] != NULL)
        redis_send(p->redis, REDIS_SET, set, NULL, NULL);
    if (reply->result == REDIS_DIVIDED)
        redis_send(p->redis, REDIS_EVAL, release, NULL, NULL);
    publication_free(p);
}

void lease_publish(struct lease_lookup *lookup, const struct snapshot *snapshot, enum problem problem,
                   int64_t retry_after_ms)
{
    const struct lease *s = lookup->lease;
    if (!let_go(lookup))
        return;
    struct buf value;
    int64_t ttl_ms = ttl_of(s, snapshot);
    buf_init(&value, VALUE_MAX);
    if (ttl_ms > 0)
        snapshot_encode(snapshot, lookup->task->route->provider->digest, ttl_ms, &value);
    if (value.failed)
        buf_done(&value);
    const char *code = value.data || problem != PROBLEM_NONE ? problem_code(problem) : unstored;
    struct publication *p = xcalloc(1, sizeof(*p));
    p->redis = s->redis;
    p->words[SCRIPT] = xstrdup(publish_script);
    p->words[N_KEYS] = xstrdup("2");
    p->words[LEASE_KEY] = key_of(s, lookup->task, "#lease");
    p->words[KEY] = key_of(s, lookup->task, "");
    p->words[TOKEN] = xstrdup(lookup->token);
    p->words[CHANNEL] = xstrdup(s->channel);
    p->words[MESSAGE] =
        xasprintf("%s %s %lld %s%s", s->sender, code, (long long)retry_after_ms, s->scope, lookup->task->key);
    p->words[VALUE] = value.data;
    p->words[TTL] = xasprintf("%lld", (long long)ttl_ms);
    if (redis_send(s->redis, REDIS_EVAL, (const char *const *)p->words, on_published, p) == NULL)
        publication_free(p);
}

void lease_remove(struct lease *s, const struct task *task)
{
    if (s->conf->redis.name == NULL)
        return;
    char *key = key_of(s, task, "");
    const char *const words[] = {remove_script, "1", key, NULL};
    redis_send(s->redis, REDIS_EVAL, words, NULL, NULL);
    free(key);
}

void lease_abandon(struct lease_lookup *lookup)
{
    redis_cancel(&lookup->age);
    redis_cancel(&lookup->get);
    if (lookup->acquire != NULL)
        hold(lookup); /* the lease may still be granted */
    redis_cancel(&lookup->acquire);
    snapshot_unref(lookup->found);
    lookup->found = NULL;
    if (let_go(lookup))
        send_script(lookup, release_script);
}

/* ---- notifications ---- */

/* Accepts only problems that a query to the upstream can cause. */
static bool read_code(const char *code, struct notification *ret)
{
    ret->problem = PROBLEM_NONE;
    ret->stored = strcmp(code, problem_code(PROBLEM_NONE)) == 0;
    if (ret->stored || strcmp(code, unstored) == 0)
        return true;
    for (enum problem p = PROBLEM_NONE; p < PROBLEM_COUNT; p++) {
        bool known = p == PROBLEM_TASK_NOT_FOUND || problem_status(p) >= 500;
        if (known && strcmp(code, problem_code(p)) == 0) {
            ret->problem = p;
            return true;
        }
    }
    return false;
}

static void on_message(void *ctx, const char *text)
{
    struct lease *s = ctx;
    char sender[sizeof(s->sender)], code[40];
    struct notification n;
    long long ms;
    int key_at = 0;
    if (text == NULL) {
        release_past(s);
        s->on_notification(s->ctx, NULL);
        return;
    }
    if (sscanf(text, "%16[^ ] %39[^ ] %15lld %n", sender, code, &ms, &key_at) != 3 || ms < 0 ||
        text[key_at] == '\0' || strncmp(text + key_at, s->scope, strlen(s->scope)) != 0 ||
        !read_code(code, &n) || strcmp(sender, s->sender) == 0)
        return;
    n.retry_after_ms = ms < RETRY_AFTER_MAX_MS ? ms : RETRY_AFTER_MAX_MS;
    n.key = text + key_at + strlen(s->scope);
    n.key_len = strlen(n.key);
    stat_inc(STAT_REDIS_NEWS);
    s->on_notification(s->ctx, &n);
}

void lease_subscribe(struct lease *s, lease_callback *on_notification, void *ctx)
{
    s->on_notification = on_notification;
    s->ctx = ctx;
    s->listener = redis_subscribe(s->redis, s->channel, on_message, s);
}

/* ---- the lease ---- */

struct lease *lease_new(uv_loop_t *loop, const struct conf *conf, struct redis *redis)
{
    struct lease *s = xcalloc(1, sizeof(*s));
    unsigned char random[(sizeof(s->sender) - 1) / 2];
    *s = (struct lease){.conf = conf, .redis = redis};
    random_bytes(random, sizeof(random));
    hex_encode(random, sizeof(random), s->sender);
    s->scope = scope_of(&conf->access);
    s->channel = xasprintf("%snews", conf->redis.prefix ? conf->redis.prefix : "");
    uv_timer_init(loop, &s->renew_timer);
    s->renew_timer.data = s;
    return s;
}

static void on_closed(uv_handle_t *handle)
{
    struct lease *s = handle->data;
    while (s->past != NULL)
        forget(s, s->past);
    free(s->channel);
    free(s->scope);
    free(s);
}

void lease_free(struct lease *s)
{
    if (s == NULL)
        return;
    redis_free(s->listener);
    uv_close((uv_handle_t *)&s->renew_timer, on_closed);
}
