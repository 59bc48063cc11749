/* poller: see poller.h. An entry has two due times, one for its watchers and one for its hint, and one timer
 * for both:
 *
 *     poller_join --> watch_due: no longer fresh --> fetches_refresh --> on_fetched --> the watchers' on_change, on_trouble
 *                      ^-------------------------------------------------'  |
 *     poller_hint --> hint_due: now --------------> fetches_refresh -------' '--> satisfied, or due again */
#include "fetch/poller.h"

#include <stdlib.h>

#include <uthash.h>
#include <utlist.h>

#include "lib/backoff.h"
#include "lib/stats.h"

enum {
    HINTS_MAX = 256, /* tasks with a hint */
    HINT_TRIES = 8,  /* polls that may fail before a hint is dropped */
    HINT_RETRY_MAX_MS = 60 * 1000,
    RETRY_MS = 1000,
    FETCH_MAX_MS = 5 * 60 * 1000, /* no fetch takes longer */
    JITTER_PART = 10,             /* up to a tenth of each pause is added at random, */
    JITTER_MAX_MS = 500,          /* but no more than this */
    REPORT_MS = 1000              /* between reports of the most watched tasks */
};

static const uint64_t never = UINT64_MAX;

struct poll_entry {
    struct poller *poller; /* (ref) */
    struct task task;
    struct watcher *watchers;
    struct watcher *next_watcher; /* the next one to call, while the watchers are called */
    int64_t n_watchers;
    bool notifying;        /* the watchers are being called: the entry must not be freed */
    int64_t created_ms;    /* since 1970: of the task, for its interval */
    uint64_t watch_due_ms; /* loop time of the next poll for the watchers */
    uint64_t
        hint_due_ms; /* loop time of the next poll for a hint, or the end of the pause after it; or never */
    bool hinted;     /* a hint is not satisfied: */
    uint64_t hint_number; /* the answer to a query with a higher number satisfies it */
    int hint_tries;       /* polls that may still fail */
    struct backoff hint_pause;
    uv_timer_t timer;
    UT_hash_handle hh;
};

struct poller {
    struct poller_parts parts;
    struct poll_entry *table;
    size_t n_hints; /* entries with a hint, satisfied or not */
    size_t n_unsatisfied;
    bool draining;
    uv_timer_t report_timer; /* active while there are entries */
};

static struct poll_entry *find(struct poller *p, const char *key, size_t key_len)
{
    struct poll_entry *e;
    HASH_FIND(hh, p->table, key, key_len, e);
    return e;
}

static struct cache_result cached(const struct poll_entry *e)
{
    return cache_get(fetches_cache(e->poller->parts.fetches), &e->task, moment_now(e->poller->parts.loop));
}

/* ---- the timer ---- */

static void on_time(uv_timer_t *timer);

static uint64_t in_ms(const struct poll_entry *e, int64_t ms)
{
    return uv_now(e->poller->parts.loop) + (uint64_t)(ms > 0 ? ms : 0);
}

/* The jitter spreads out tasks whose clients came at the same time. */
static void set_watch_due(struct poll_entry *e, int64_t ms)
{
    int64_t jitter_ms = ms / JITTER_PART < JITTER_MAX_MS ? ms / JITTER_PART : JITTER_MAX_MS;
    e->watch_due_ms = in_ms(e, ms > 0 ? ms + rand() % (jitter_ms + 1) : 1);
}

static void entry_free(struct poll_entry *e)
{
    HASH_DEL(e->poller->table, e);
    if (e->watchers != NULL)
        stat_dec(STAT_WATCHED);
    close_and_free((uv_handle_t *)&e->timer, e);
}

/* Sets the timer after any change; frees an entry that has neither watchers nor a hint. */
static void settle(struct poll_entry *e)
{
    uint64_t due_ms = e->watch_due_ms < e->hint_due_ms ? e->watch_due_ms : e->hint_due_ms;
    uint64_t now = uv_now(e->poller->parts.loop);
    if (e->notifying)
        return;
    if (due_ms == never)
        entry_free(e);
    else
        uv_timer_start(&e->timer, on_time, due_ms > now ? due_ms - now : 0, 0);
}

/* ---- polling for watchers ---- */

/* Finds the first watcher whose quota has a query left. Returns 0, or the time until one will have. */
static int64_t find_payer(const struct poll_entry *e, struct quota **ret_payer)
{
    int64_t soonest_ms = FETCH_MAX_MS;
    const struct watcher *watcher;
    DL_FOREACH(e->watchers, watcher)
    {
        *ret_payer = watcher->payer;
        if (!quota_is_spent(watcher->payer))
            return 0;
        soonest_ms = min64(soonest_ms, quota_left_ms(watcher->payer));
    }
    return soonest_ms;
}

static void report_trouble(struct watcher *watcher, enum problem problem, int64_t retry_after_ms)
{
    if (watcher->on_trouble != NULL)
        watcher->on_trouble(watcher, problem, retry_after_ms);
}

/* Like find_payer. If there is none, each watcher learns when its own quota has a query again. */
static int64_t wait_for_payer(const struct poll_entry *e, struct quota **ret_payer)
{
    int64_t wait_ms = find_payer(e, ret_payer);
    struct watcher *watcher = wait_ms > 0 ? e->watchers : NULL;
    for (; watcher != NULL; watcher = watcher->next)
        report_trouble(watcher, PROBLEM_RATE_LIMITED, quota_left_ms(watcher->payer));
    return wait_ms;
}

static void poll_for_watchers(struct poll_entry *e)
{
    struct quota *payer = NULL;
    int64_t wait_ms =
        cached(e).left_ms; /* 0, unless another request has just fetched the task, or failed to */
    if (wait_ms == 0)
        wait_ms = wait_for_payer(e, &payer);
    if (wait_ms == 0) { /* on_fetched sets the next due time; this one is a safeguard */
        enum fetches_join how = fetches_refresh(e->poller->parts.fetches, &e->task, false, payer);
        wait_ms = how == FETCH_REFUSED ? RETRY_MS : FETCH_MAX_MS;
    }
    set_watch_due(e, wait_ms);
}

static int64_t interval(const struct poll_entry *e)
{
    const struct snapshot_rules rules = task_rules(&e->task, &e->poller->parts.conf->cache);
    return snapshot_interval_ms(e->created_ms, &rules, wall_ms());
}

/* The pause after a fetch. A task whose queries fail is polled at its interval, even when its last snapshot
 * is too old to be kept. */
static int64_t pause_after(const struct poll_entry *e, const struct fetch_result *result)
{
    int64_t left_ms = cached(e).left_ms;
    if (result->snapshot != NULL && left_ms > 0)
        return left_ms;
    int64_t pause_ms = max64(left_ms, interval(e));
    return max64(pause_ms, result->retry_after_ms);
}

/* ---- polling for a hint ---- */

/* The next poll for a hint follows no earlier than the provider's shortest interval. */
static void poll_for_hint(struct poll_entry *e)
{
    int64_t pause_ms = e->task.route->provider->poll.min_ms;
    if (e->hinted && fetches_refresh(e->poller->parts.fetches, &e->task, true, NULL) == FETCH_REFUSED)
        pause_ms = RETRY_MS;
    e->hint_due_ms = in_ms(e, pause_ms);
}

static void on_hint_due(struct poll_entry *e)
{
    if (e->hinted)
        return poll_for_hint(e);
    e->hint_due_ms = never;
    e->poller->n_hints--;
}

static void end_hint(struct poll_entry *e)
{
    struct poller *p = e->poller;
    e->hinted = false;
    p->n_unsatisfied--;
    if (p->draining && p->n_unsatisfied == 0 && p->parts.on_idle != NULL)
        p->parts.on_idle(p->parts.ctx);
}

static bool satisfies_hint(const struct poll_entry *e, const struct fetch_result *result)
{
    if (result->snapshot != NULL && state_ended(result->snapshot->state))
        return true;
    bool answered =
        result->snapshot != NULL || (result->problem == PROBLEM_TASK_NOT_FOUND && !result->doubted);
    return answered && result->query > e->hint_number;
}

static int64_t pause_after_failure(struct poll_entry *e, const struct fetch_result *result)
{
    int64_t pause_ms = backoff_next(&e->hint_pause);
    if (e->poller->draining)
        return pause_ms;
    return max64(max64(pause_ms, cached(e).left_ms), result->retry_after_ms);
}

/* Queries for hints are of no team, so the refusal of a team's query says nothing about them. */
static bool concerns_hint(const struct fetch_result *result)
{
    return result->problem != PROBLEM_RATE_LIMITED && !(result->refusal && result->refused != NULL);
}

/* A query that was under way when the hint came may have been answered before the change. Its answer does not
 * satisfy the hint, which stays due after its pause. */
static void follow_hint(struct poll_entry *e, const struct fetch_result *result)
{
    bool failed = result->snapshot == NULL;
    if (!e->hinted || !concerns_hint(result))
        return;
    if (satisfies_hint(e, result)) {
        end_hint(e);
    } else if (failed && --e->hint_tries == 0) {
        stat_inc(STAT_HOOKS_DROPPED);
        end_hint(e);
    } else if (failed) {
        e->hint_due_ms = in_ms(e, pause_after_failure(e, result));
    } else if (e->poller->draining) {
        e->hint_due_ms = in_ms(e, 0);
    }
}

static void on_time(uv_timer_t *timer)
{
    struct poll_entry *e = CONTAINER_OF(timer, struct poll_entry, timer);
    uint64_t now = uv_now(e->poller->parts.loop);
    if (now >= e->hint_due_ms)
        on_hint_due(e);
    if (now >= e->watch_due_ms)
        poll_for_watchers(e);
    settle(e);
}

/* ---- the most watched tasks ---- */

static void on_report_time(uv_timer_t *timer)
{
    struct poller *p = CONTAINER_OF(timer, struct poller, report_timer);
    struct top_tasks_list list = {0};
    const struct poll_entry *e;
    for (e = p->table; e != NULL; e = e->hh.next) {
        if (e->watchers != NULL)
            top_tasks_offer(&list, e->task.route->provider->name, task_id(&e->task), e->n_watchers);
    }
    stats_publish_watched(&list);
    if (p->table == NULL)
        uv_timer_stop(timer);
}

static void start_reporting(struct poller *p)
{
    if (!uv_is_active((uv_handle_t *)&p->report_timer))
        uv_timer_start(&p->report_timer, on_report_time, 0, REPORT_MS);
}

/* ---- joining and leaving ---- */

static struct poll_entry *find_or_add(struct poller *p, const struct task *task)
{
    struct poll_entry *e = find(p, task->key, task->key_len);
    if (e != NULL)
        return e;
    e = xcalloc(1, sizeof(*e));
    *e = (struct poll_entry){.poller = p, .task = *task, .watch_due_ms = never, .hint_due_ms = never};
    uv_timer_init(p->parts.loop, &e->timer);
    HASH_ADD(hh, p->table, task.key, e->task.key_len, e);
    start_reporting(p);
    return e;
}

static void start_watching(struct poll_entry *e, const struct snapshot *known)
{
    const struct cache_result now = cached(e);
    stat_inc(STAT_WATCHED);
    e->created_ms = known->created_ms;
    set_watch_due(e, now.snapshot ? now.left_ms : snapshot_left_ms(known, moment_now(e->poller->parts.loop)));
    settle(e);
}

void poller_join(struct poller *p, const struct task *task, const struct snapshot *known,
                 struct watcher *watcher)
{
    struct poll_entry *e = find_or_add(p, task);
    watcher->entry = e;
    DL_APPEND(e->watchers, watcher);
    if (e->n_watchers++ == 0)
        start_watching(e, known);
}

void poller_leave(struct watcher *watcher)
{
    struct poll_entry *e = watcher->entry;
    if (e == NULL)
        return;
    watcher->entry = NULL;
    if (e->next_watcher == watcher)
        e->next_watcher = watcher->next;
    DL_DELETE(e->watchers, watcher);
    if (--e->n_watchers > 0)
        return;
    stat_dec(STAT_WATCHED);
    e->watch_due_ms = never;
    settle(e);
}

/* ---- hints ---- */

static bool has_ended(const struct poll_entry *e)
{
    const struct snapshot *known = cached(e).snapshot;
    return known != NULL && state_ended(known->state);
}

static void set_hint(struct poll_entry *e)
{
    e->poller->n_unsatisfied += !e->hinted;
    e->hinted = true;
    e->hint_number = fetches_sent(e->poller->parts.fetches);
    e->hint_tries = HINT_TRIES;
    e->hint_pause = (struct backoff){.first_ms = RETRY_MS, .max_ms = HINT_RETRY_MAX_MS};
}

void poller_hint(struct poller *p, const struct task *task)
{
    struct poll_entry *e = find(p, task->key, task->key_len);
    bool recent = e != NULL && e->hint_due_ms != never;
    if (!recent && p->n_hints >= HINTS_MAX) {
        stat_inc(STAT_HOOKS_DROPPED);
        return;
    }
    stat_inc(recent ? STAT_HOOKS_COLLAPSED : STAT_HOOKS_TAKEN);
    e = find_or_add(p, task);
    if (!has_ended(e))
        set_hint(e);
    p->n_hints += !recent;
    if (!recent || p->draining)
        poll_for_hint(e);
    settle(e);
}

void poller_drain(struct poller *p)
{
    struct poll_entry *e, *next;
    p->draining = true;
    HASH_ITER(hh, p->table, e, next)
    {
        if (e->hinted)
            poll_for_hint(e);
        settle(e);
    }
}

bool poller_is_busy(const struct poller *p)
{
    return p->n_unsatisfied > 0;
}

/* ---- results of fetches ---- */

/* A callback may remove its watcher and others. */
static void notify_watchers(struct poll_entry *e, struct snapshot *snapshot)
{
    struct watcher *watcher;
    e->notifying = true;
    e->next_watcher = e->watchers;
    while ((watcher = e->next_watcher) != NULL) {
        e->next_watcher = watcher->next;
        watcher->on_change(watcher, snapshot);
    }
    e->notifying = false;
}

/* The first watcher of a team other than the one that was refused; NULL: there is none, or no team was refused. */
static struct watcher *find_unconcerned(const struct poll_entry *e, const struct fetch_result *result)
{
    struct watcher *watcher = result->refusal ? e->watchers : NULL;
    while (watcher != NULL && watcher->payer == result->refused)
        watcher = watcher->next;
    return watcher;
}

/* What concerns another team must not delay the next poll, however often that team asks. */
static void plan_next_poll(struct poll_entry *e, const struct fetch_result *result)
{
    uint64_t planned_ms = e->watch_due_ms;
    struct watcher *unconcerned = find_unconcerned(e, result);
    struct quota *payer;
    if (result->problem == PROBLEM_RATE_LIMITED)
        return set_watch_due(e, wait_for_payer(e, &payer));
    if (unconcerned == NULL)
        return set_watch_due(e, pause_after(e, result));
    DL_DELETE(e->watchers, unconcerned);
    DL_PREPEND(e->watchers, unconcerned); /* it pays for the next poll */
    set_watch_due(e, max64(cached(e).left_ms, interval(e)));
    if (planned_ms < e->watch_due_ms)
        e->watch_due_ms = planned_ms;
}

/* Reports a failed poll; what concerns one team's share, only to the watchers of that team. */
static void report_failure(const struct poll_entry *e, const struct fetch_result *result)
{
    struct watcher *watcher = result->problem == PROBLEM_RATE_LIMITED ? NULL : e->watchers;
    int64_t wait_ms = (int64_t)(e->watch_due_ms - uv_now(e->poller->parts.loop));
    for (; watcher != NULL; watcher = watcher->next) {
        if (!result->refusal || watcher->payer == result->refused)
            report_trouble(watcher, result->problem, wait_ms);
    }
}

static void on_fetched(void *ctx, const struct fetch_result *result)
{
    struct poller *p = ctx;
    struct poll_entry *e = find(p, result->task->key, result->task->key_len);
    if (e == NULL)
        return;
    if (result->snapshot != NULL)
        e->created_ms = result->snapshot->created_ms;
    if (result->snapshot != NULL || (result->problem == PROBLEM_TASK_NOT_FOUND && !result->doubted))
        notify_watchers(e, result->snapshot);
    follow_hint(e, result);
    if (e->watchers != NULL)
        plan_next_poll(e, result);
    if (result->snapshot == NULL)
        report_failure(e, result);
    settle(e);
}

/* Another worker has stored a new snapshot in Redis. If it cannot be read there, a watcher is charged for a
 * query. At the limit of fetches, it is read after RETRY_MS. */
static void on_notification(void *ctx, const struct notification *n)
{
    struct poller *p = ctx;
    struct poll_entry *e = find(p, n->key, n->key_len);
    struct quota *payer = NULL;
    if (e == NULL || e->watchers == NULL)
        return;
    find_payer(e, &payer);
    if (fetches_refresh(p->parts.fetches, &e->task, false, payer) == FETCH_REFUSED) {
        set_watch_due(e, RETRY_MS);
        settle(e);
    }
}

/* ---- the poller ---- */

struct poller *poller_new(struct poller_parts parts)
{
    struct poller *p = xcalloc(1, sizeof(*p));
    p->parts = parts;
    uv_timer_init(parts.loop, &p->report_timer);
    uv_unref((uv_handle_t *)&p->report_timer); /* it does not keep the loop running */
    fetches_listen(parts.fetches, (struct fetches_listener){on_fetched, on_notification, p});
    return p;
}

void poller_free(struct poller *p)
{
    struct poll_entry *e, *next;
    if (p == NULL)
        return;
    fetches_listen(p->parts.fetches, (struct fetches_listener){0});
    HASH_ITER(hh, p->table, e, next)
    entry_free(e);
    close_and_free((uv_handle_t *)&p->report_timer, p);
}
