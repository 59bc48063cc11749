/* quota: see quota.h. */
#include "access/quota.h"

#include <stdio.h>
#include <stdlib.h>

enum { WINDOW_MS = 60000 };

#define WINDOW_TEXT "60000"

/* KEYS: the counter. ARGV: the window in ms, the number of queries. Returns "COUNT MS" with the milliseconds left in
 * the window. A window that ends too late was opened before the clock of Redis was set back; a new one is opened. */
static const char charge_script[] =
    "local n,ms=0,redis.call('PTTL',KEYS[1]) "
    "if ms<0 or ms>tonumber(ARGV[1]) then redis.call('SET',KEYS[1],0,'PX',ARGV[1]) ms=ARGV[1] end "
    "for _=1,ARGV[2] do n=redis.call('INCR',KEYS[1]) end return n..' '..ms";

/* KEYS: the counter, which may be that of a later window than the charge. */
static const char give_back_script[] = "if tonumber(redis.call('GET',KEYS[1]) or 0)>0 then "
                                       "return redis.call('DECR',KEYS[1]) end return 0";

struct quota {
    struct quotas *quotas;   /* (ref) */
    const struct team *team; /* (ref) */
    int64_t queries;         /* queries in the window, as known to this worker */
    int64_t window_ends_ms;  /* loop time */
    int64_t waiting;
    int64_t used[QUOTA_USES];
    int64_t refunds; /* deducted from the next charges in the metric, which never decreases */
    int64_t *charged, *held, *refused[LIMITS]; /* series */
};

struct quotas {
    uv_loop_t *loop;         /* (ref) */
    const struct conf *conf; /* (ref) */
    struct redis *redis;     /* (ref) */
    size_t n;
    struct quota items[]; /* in the order of the teams */
};

static const char *const limit_names[LIMITS] = {[LIMIT_QUERIES] = "queries", [LIMIT_WATCHERS] = "watchers"};

const char *quota_series_name(const struct conf *conf, size_t i)
{
    return i < QUOTA_SERIES_MAX ? teams_at(&conf->teams, i)->name : "";
}

static void quota_init(struct quota *a, struct quotas *quotas, size_t i)
{
    const char *name = quota_series_name(quotas->conf, i);
    *a = (struct quota){.quotas = quotas,
                        .team = teams_at(&quotas->conf->teams, i),
                        .charged = stat_series(FAMILY_TEAM_QUERIES, "team", name),
                        .held = stat_series(FAMILY_TEAM_HELD, "team", name)};
    for (size_t k = 0; k < LIMITS; k++)
        a->refused[k] = stat_series(FAMILY_RATE_LIMITED, "team", name, "limit", limit_names[k]);
}

struct quotas *quotas_new(uv_loop_t *loop, const struct conf *conf, struct redis *redis)
{
    size_t n = conf->teams.list.n;
    struct quotas *quotas = xcalloc(1, sizeof(*quotas) + n * sizeof(struct quota));
    *quotas = (struct quotas){.loop = loop, .conf = conf, .redis = redis, .n = n};
    for (size_t i = 0; i < n; i++)
        quota_init(&quotas->items[i], quotas, i);
    return quotas;
}

void quotas_free(struct quotas *quotas)
{
    free(quotas);
}

struct quota *quotas_of(struct quotas *quotas, const struct team *team)
{
    return team ? &quotas->items[team - teams_at(&quotas->conf->teams, 0)] : NULL;
}

const struct team *quota_team(const struct quota *a)
{
    return a ? a->team : NULL;
}

/* ---- metrics ---- */

void quota_refused(struct quota *a, enum quota_limit limit)
{
    series_add(a->refused[limit], 1);
}

static void count_charged(struct quota *a, int64_t n)
{
    if (a == NULL)
        return;
    int64_t refunded = n < a->refunds ? n : a->refunds;
    a->refunds -= refunded;
    series_add(a->charged, n - refunded);
}

/* ---- shares ---- */

bool quota_has_room(const struct quota *a, enum quota_use use, int64_t n, int64_t left)
{
    return quota_may_take(a ? a->used[use] : 0, n, left, a != NULL && a->quotas->n > 1);
}

void quota_add(struct quota *a, enum quota_use use, int64_t n)
{
    if (a != NULL)
        a->used[use] += n;
}

int64_t *quota_counter(struct quota *a, enum quota_use use)
{
    return a ? &a->used[use] : NULL;
}

size_t quota_account(const struct quota *a)
{
    return a ? (size_t)(a - a->quotas->items) + 1 : 0;
}

size_t quota_accounts(const struct conf *conf)
{
    return 1 + conf->teams.list.n;
}

/* ---- queries ---- */

static bool is_limited(const struct quota *a)
{
    return a != NULL && a->team->queries_per_minute > 0;
}

static int64_t now_ms(const struct quota *a)
{
    return (int64_t)uv_now(a->quotas->loop);
}

int64_t quota_left_ms(const struct quota *a)
{
    int64_t left_ms = a != NULL ? a->window_ends_ms - now_ms(a) : 0;
    return left_ms > 0 ? left_ms : 0;
}

bool quota_is_spent(const struct quota *a)
{
    return is_limited(a) && quota_left_ms(a) > 0 && a->queries >= a->team->queries_per_minute;
}

static void count_here(struct quota *a, int64_t n)
{
    if (quota_left_ms(a) == 0) {
        a->window_ends_ms = now_ms(a) + WINDOW_MS;
        a->queries = 0;
    }
    a->queries += n;
}

/* Parses "COUNT MS"; false if it is malformed. */
static bool take_count(struct quota *a, const struct redis_reply *reply)
{
    long long count, left_ms;
    if (reply->result != REDIS_FOUND || reply->value == NULL ||
        sscanf(reply->value, "%lld %lld", &count, &left_ms) != 2 || left_ms > WINDOW_MS)
        return false;
    a->queries = count;
    a->window_ends_ms = now_ms(a) + left_ms;
    return true;
}

static void decide(struct charge *charge)
{
    const struct quota *a = charge->quota;
    charge->granted = !is_limited(a) || a->queries <= a->team->queries_per_minute;
    if (charge->granted)
        count_charged(charge->quota, charge->n);
}

static struct redis_command *send_script(struct quota *a, const char *script, int64_t n,
                                         redis_callback *on_reply, void *user)
{
    char *count = xasprintf("%lld", (long long)n);
    char *key = xasprintf("%s#queries:%s", a->quotas->conf->redis.prefix, a->team->name);
    const char *const words[] = {script, "1", key, WINDOW_TEXT, count, NULL};
    struct redis_command *command = redis_send(a->quotas->redis, REDIS_EVAL, words, on_reply, user);
    free(key);
    free(count);
    return command;
}

static void on_count(void *user, const struct redis_reply *reply)
{
    struct charge *charge = user;
    charge->command = NULL;
    if (!take_count(charge->quota, reply))
        count_here(charge->quota, charge->n);
    decide(charge);
    charge->on_charged(charge);
}

bool quota_charge(struct quota *a, int64_t n, struct charge *charge,
                  void (*on_charged)(struct charge *charge))
{
    *charge = (struct charge){.quota = a, .n = n, .on_charged = on_charged};
    if (is_limited(a)) {
        charge->command = send_script(a, charge_script, n, on_count, charge);
        if (charge->command != NULL)
            return true;
        count_here(a, n);
    }
    decide(charge);
    return false;
}

void quota_cancel(struct charge *charge)
{
    redis_cancel(&charge->command);
}

void quota_charge_again(struct quota *a)
{
    count_charged(a, 1);
    if (!is_limited(a))
        return;
    count_here(a, 1);
    send_script(a, charge_script, 1, NULL, NULL);
}

void quota_give_back(struct quota *a)
{
    if (a != NULL)
        a->refunds++;
    if (!is_limited(a) || a->queries == 0)
        return;
    a->queries--;
    send_script(a, give_back_script, 1, NULL, NULL);
}

/* ---- waiting ---- */

bool wait_slot_take(struct wait_slot *slot, int64_t n)
{
    struct quota *a = slot->quota;
    if (slot->taken > 0 || a == NULL)
        return true;
    if (a->team->watchers > 0 && a->waiting + n > a->team->watchers)
        return false;
    a->waiting += n;
    series_add(a->held, 1);
    slot->taken = n;
    return true;
}

void wait_slot_release(struct wait_slot *slot)
{
    if (slot->taken == 0)
        return;
    series_add(slot->quota->held, -1);
    slot->quota->waiting -= slot->taken;
    slot->taken = 0;
}

int64_t quota_limit_of(const struct quota *a, enum quota_limit limit)
{
    if (a == NULL)
        return 0;
    return limit == LIMIT_QUERIES ? a->team->queries_per_minute : a->team->watchers;
}
