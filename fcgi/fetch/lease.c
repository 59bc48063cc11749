/* lease: see lease.h. */
#include "fetch/lease.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <utlist.h>

#include "lib/log_ratelimit.h"
#include "lib/stats.h"

enum {
    CLOCKS_APART_MS = 5000,
    VALUE_MAX = 16 * 1024 * 1024,
    RENEW_MS = 1000,
    RETRY_AFTER_MAX_MS = 5 * 60 * 1000,
    KEYS_MAX = 4 * TASK_KEY_MAX
};

#define LEASE_MS "3000"

/* KEYS: the lease. ARGV: the token, the time to live. */
static const char renew_script[] = "if redis.call('GET',KEYS[1])==ARGV[1] then "
                                   "return redis.call('PEXPIRE',KEYS[1],ARGV[2]) end return 0";

/* KEYS: the lease, the snapshot. ARGV: the token, the channel, the news and, if there is a snapshot, its
 * value and its time to live. The snapshot of a worker whose lease has expired is not stored. */
static const char tell_script[] = "if redis.call('GET',KEYS[1])==ARGV[1] then redis.call('DEL',KEYS[1]) "
                                  "if ARGV[4] then redis.call('SET',KEYS[2],ARGV[4],'PX',ARGV[5]) end end "
                                  "return redis.call('PUBLISH',ARGV[2],ARGV[3])";

/* KEYS: the snapshot. */
static const char remove_script[] = "return redis.call('DEL',KEYS[1])";

/* KEYS: the lease. ARGV: the token. */
static const char leave_script[] = "if redis.call('GET',KEYS[1])==ARGV[1] then "
                                   "return redis.call('DEL',KEYS[1]) end return 0";

struct lease {
    const struct conf *conf; /* (ref) */
    struct redis *redis;     /* (ref) */
    struct redis *listener;  /* NULL: this worker receives no news */
    lease_news *on_news;
    void *ctx;
    char *channel;
    char sender[17];             /* identifies this worker in news; the prefix of its tokens */
    unsigned long long n_tokens; /* so far */
    struct lease_look *held;     /* the looks that hold a lease */
    uv_timer_t renew_timer;
    struct log_once bad_values; /* reasons why values were not used */
};

static void on_renew(uv_timer_t *timer);

/* ---- arguments of commands ---- */

static struct redis_word word(const char *text)
{
    return (struct redis_word){.data = text, .len = strlen(text)};
}

static struct redis_word word_of(const struct buf *buf)
{
    return (struct redis_word){.data = buf->data, .len = buf->len};
}

/* The keys of a task's snapshot and lease. No task id contains '#', because it ends a path. */
struct keys {
    struct buf snapshot, lease;
};

static void keys_of(const struct lease *s, const struct task *task, struct keys *keys)
{
    buf_init(&keys->snapshot, KEYS_MAX);
    buf_addf(&keys->snapshot, "%s%s", s->conf->redis.prefix, task->key);
    buf_init(&keys->lease, KEYS_MAX);
    buf_addf(&keys->lease, "%s#lease", keys->snapshot.data);
}

static void keys_done(struct keys *keys)
{
    buf_done(&keys->snapshot);
    buf_done(&keys->lease);
}

/* ---- looking ---- */

/* The snapshot in a reply. NULL if the value cannot be used, which is logged once. */
static struct snapshot *read_value(struct lease *s, const struct task *task, const struct redis_reply *reply)
{
    const struct snapshot_rules rules = task_rules(task, &s->conf->cache);
    const struct provider *provider = task->route->provider;
    const char *why = "a value of another type";
    struct snapshot *snapshot =
        reply->value ? snapshot_decode(reply->value, reply->len, provider->digest, &rules, &why) : NULL;
    if (snapshot != NULL && snapshot->fetched_ms > wall_ms() + CLOCKS_APART_MS) {
        snapshot_unref(snapshot);
        snapshot = NULL;
        why = "values from the future (do the hosts' clocks agree?)";
    }
    if (snapshot == NULL && log_once(&s->bad_values, why, 0))
        log_warn("Redis holds %s under the keys of provider %s; such values are not used", why,
                 provider->name);
    return snapshot;
}

static void on_value(void *user, const struct redis_reply *reply)
{
    struct lease_look *look = user;
    look->get = NULL;
    if (reply->result == REDIS_FOUND)
        look->found = read_value(look->lease, look->task, reply);
}

static void hold(struct lease_look *look)
{
    struct lease *s = look->lease;
    look->held = true;
    if (s->held == NULL)
        uv_timer_start(&s->renew_timer, on_renew, RENEW_MS, RENEW_MS);
    DL_APPEND(s->held, look);
}

/* The second of the two replies: the look is complete. */
static void on_lease(void *user, const struct redis_reply *reply)
{
    static const enum lease_turn turns[] = {
        [REDIS_FOUND] = LEASE_OURS, [REDIS_NOTHING] = LEASE_THEIRS, [REDIS_AWAY] = LEASE_AWAY};
    struct lease_look *look = user;
    look->take = NULL;
    look->turn = turns[reply->result];
    if (look->turn == LEASE_OURS)
        hold(look);
    if (look->turn == LEASE_THEIRS)
        stat_inc(STAT_LEASES_REFUSED);
    look->on_looked(look);
}

bool lease_look(struct lease *s, struct lease_look *look, const struct task *task,
                void (*on_looked)(struct lease_look *look))
{
    struct keys keys;
    if (s->conf->redis.address == NULL)
        return false;
    *look = (struct lease_look){.lease = s, .task = task, .on_looked = on_looked};
    snprintf(look->token, sizeof(look->token), "%s-%llu", s->sender, ++s->n_tokens);
    keys_of(s, task, &keys);
    const struct redis_word get[] = {word_of(&keys.snapshot)};
    const struct redis_word take[] = {word_of(&keys.lease), word(look->token), word("NX"), word("PX"),
                                      word(LEASE_MS)};
    look->get = redis_send(s->redis, REDIS_GET, get, NELEMS(get), on_value, look);
    if (look->get != NULL)
        look->take = redis_send(s->redis, REDIS_SET, take, NELEMS(take), on_lease, look);
    keys_done(&keys);
    if (look->get != NULL && look->take == NULL) {
        redis_cancel(look->get);
        look->get = NULL;
    }
    return look->take != NULL;
}

/* ---- holding ---- */

static void on_renew(uv_timer_t *timer)
{
    struct lease *s = timer->data;
    const struct lease_look *look;
    struct keys keys;
    DL_FOREACH(s->held, look)
    {
        keys_of(s, look->task, &keys);
        const struct redis_word words[] = {word(renew_script), word("1"), word_of(&keys.lease),
                                           word(look->token), word(LEASE_MS)};
        redis_send(s->redis, REDIS_EVAL, words, NELEMS(words), NULL, NULL);
        keys_done(&keys);
    }
}

/* The arguments of tell_script: the encoded snapshot, its time to live, and the news. */
struct telling {
    struct buf value, news;
    char ttl[24];
};

static void write_telling(const struct lease_look *look, const struct snapshot *snapshot,
                          enum problem problem, int64_t retry_after_ms, struct telling *out)
{
    int64_t ttl_ms = 0;
    buf_init(&out->value, VALUE_MAX);
    buf_init(&out->news, KEYS_MAX);
    if (snapshot != NULL)
        ttl_ms = state_ended(snapshot->state) ? snapshot->fresh_until_ms - snapshot->fetched_ms
                                              : look->lease->conf->cache.stale_for_ms;
    if (ttl_ms > 0)
        snapshot_encode(snapshot, look->task->route->provider->digest, &out->value);
    snprintf(out->ttl, sizeof(out->ttl), "%lld", (long long)ttl_ms);
    buf_addf(&out->news, "%s %s %lld %s", look->lease->sender, problem_code(problem),
             (long long)retry_after_ms, look->task->key);
}

static bool let_go(struct lease_look *look)
{
    struct lease *s = look->lease;
    if (!look->held)
        return false;
    look->held = false;
    DL_DELETE(s->held, look); // NOLINT(clang-analyzer-core.NullDereference): it is in the list
    if (s->held == NULL)
        uv_timer_stop(&s->renew_timer);
    return true;
}

void lease_tell(struct lease_look *look, const struct snapshot *snapshot, enum problem problem,
                int64_t retry_after_ms)
{
    struct telling telling;
    struct keys keys;
    if (!let_go(look))
        return;
    write_telling(look, snapshot, problem, retry_after_ms, &telling);
    keys_of(look->lease, look->task, &keys);
    const struct redis_word words[] = {word(tell_script),      word("2"),
                                       word_of(&keys.lease),   word_of(&keys.snapshot),
                                       word(look->token),      word(look->lease->channel),
                                       word_of(&telling.news), word_of(&telling.value),
                                       word(telling.ttl)};
    bool stores = telling.value.len > 0 && !telling.value.failed;
    redis_send(look->lease->redis, REDIS_EVAL, words, stores ? NELEMS(words) : NELEMS(words) - 2, NULL, NULL);
    keys_done(&keys);
    buf_done(&telling.news);
    buf_done(&telling.value);
}

void lease_remove(struct lease *s, const struct task *task)
{
    struct keys keys;
    if (s->conf->redis.address == NULL)
        return;
    keys_of(s, task, &keys);
    const struct redis_word words[] = {word(remove_script), word("1"), word_of(&keys.snapshot)};
    redis_send(s->redis, REDIS_EVAL, words, NELEMS(words), NULL, NULL);
    keys_done(&keys);
}

void lease_leave(struct lease_look *look)
{
    struct keys keys;
    if (look->get != NULL)
        redis_cancel(look->get);
    if (look->take != NULL) {
        redis_cancel(look->take);
        hold(look); /* the lease may still be granted */
    }
    look->get = look->take = NULL;
    snapshot_unref(look->found);
    look->found = NULL;
    if (!let_go(look))
        return;
    keys_of(look->lease, look->task, &keys);
    const struct redis_word words[] = {word(leave_script), word("1"), word_of(&keys.lease),
                                       word(look->token)};
    redis_send(look->lease->redis, REDIS_EVAL, words, NELEMS(words), NULL, NULL);
    keys_done(&keys);
}

/* ---- news ---- */

/* Removes the next word from the text. Returns false if there is none or it is too long. */
static bool take_word(const char **text, const char *end, char *word_, size_t size)
{
    const char *space = memchr(*text, ' ', (size_t)(end - *text));
    if (space == NULL || space == *text || (size_t)(space - *text) >= size)
        return false;
    memcpy(word_, *text, (size_t)(space - *text));
    word_[space - *text] = '\0';
    *text = space + 1;
    return true;
}

/* Accepts only problems that a query to the upstream can cause. */
static bool read_code(const char *code, enum problem *ret_problem)
{
    static const enum problem known[] = {
        PROBLEM_NONE,          PROBLEM_TASK_NOT_FOUND, PROBLEM_UPSTREAM_ERROR, PROBLEM_UPSTREAM_INVALID,
        PROBLEM_UPSTREAM_AUTH, PROBLEM_OVERLOADED,     PROBLEM_UNAVAILABLE,    PROBLEM_UPSTREAM_TIMEOUT};
    for (size_t i = 0; i < NELEMS(known); i++) {
        if (strcmp(code, problem_code(known[i])) == 0) {
            *ret_problem = known[i];
            return true;
        }
    }
    return false;
}

static void on_message(void *ctx, const char *text, size_t len)
{
    struct lease *s = ctx;
    const char *end = text + len;
    char sender[sizeof(s->sender)], code[40], ms[16];
    struct news news;
    if (!take_word(&text, end, sender, sizeof(sender)) || !take_word(&text, end, code, sizeof(code)) ||
        !take_word(&text, end, ms, sizeof(ms)) || !read_code(code, &news.problem) ||
        parse_int(ms, &news.retry_after_ms) < 0 || news.retry_after_ms < 0 || text == end)
        return;
    if (news.retry_after_ms > RETRY_AFTER_MAX_MS)
        news.retry_after_ms = RETRY_AFTER_MAX_MS;
    news.key = text;
    news.key_len = (size_t)(end - text);
    if (strcmp(sender, s->sender) == 0)
        return;
    stat_inc(STAT_REDIS_NEWS);
    s->on_news(s->ctx, &news);
}

void lease_listen(struct lease *s, lease_news *on_news, void *ctx)
{
    s->on_news = on_news;
    s->ctx = ctx;
    s->listener = redis_listen(s->redis, s->channel, on_message, s);
}

/* ---- the lease ---- */

struct lease *lease_new(uv_loop_t *loop, const struct conf *conf, struct redis *redis)
{
    struct lease *s = xcalloc(1, sizeof(*s));
    unsigned char random[(sizeof(s->sender) - 1) / 2];
    *s = (struct lease){.conf = conf, .redis = redis};
    random_bytes(random, sizeof(random));
    hex_encode(random, sizeof(random), s->sender);
    s->channel = xasprintf("%snews", conf->redis.prefix ? conf->redis.prefix : "");
    uv_timer_init(loop, &s->renew_timer);
    s->renew_timer.data = s;
    return s;
}

static void on_closed(uv_handle_t *handle)
{
    struct lease *s = handle->data;
    free(s->channel);
    free(s);
}

void lease_free(struct lease *s)
{
    if (s == NULL)
        return;
    redis_free(s->listener);
    uv_close((uv_handle_t *)&s->renew_timer, on_closed);
}
