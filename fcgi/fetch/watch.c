/* watch: see watch.h.
 *
 *     watch_join --> wait until it is no longer fresh --> fetch_refresh --> on_news --> the watchers
 *                     ^---------------------------------------------------------'  */
#include "fetch/watch.h"

#include <stdlib.h>
#include <string.h>

#include <uthash.h>
#include <utlist.h>

#include "lib/stats.h"

enum { TELL_MS = 1000, RETRY_MS = 1000, JITTER_PART = 10, JITTER_MAX_MS = 500, FETCH_MAX_MS = 5 * 60 * 1000 };

struct watch {
    struct watches *watches; /* (ref) */
    struct task task;
    struct watcher *watchers;
    int64_t n_watchers;
    bool telling; /* the watchers are being told: the watch may not go away under their callbacks */
    uv_timer_t timer;
    UT_hash_handle hh; /* by the task's key */
};

struct watches {
    uv_loop_t *loop;         /* (ref) */
    struct fetches *fetches; /* (ref) */
    struct watch *table;
    uv_timer_t timer; /* while there are any: the next time that the most watched are told */
};

static void on_time(uv_timer_t *timer);

static struct watch *find_key(struct watches *ws, const char *key, size_t key_len)
{
    struct watch *w;
    HASH_FIND(hh, ws->table, key, key_len, w);
    return w;
}

static struct watch *find(struct watches *ws, const struct task *task)
{
    return find_key(ws, task->key, task->key_len);
}

/* ---- the schedule ---- */

/* A random part of the wait, so that tasks that were asked for together do not stay together. */
static uint64_t with_jitter(int64_t wait_ms)
{
    int64_t most_ms = wait_ms / JITTER_PART < JITTER_MAX_MS ? wait_ms / JITTER_PART : JITTER_MAX_MS;
    return (uint64_t)(wait_ms + rand() % (most_ms + 1));
}

static void wait_ms(struct watch *w, int64_t ms)
{
    uv_timer_start(&w->timer, on_time, with_jitter(ms > 0 ? ms : 1), 0);
}

/* The first of the watchers that has a query left. When none has: until one may have. */
static int64_t find_payer(const struct watch *w, struct quota **ret_payer)
{
    int64_t now = wall_ms(), soonest_ms = FETCH_MAX_MS;
    const struct watcher *watcher;
    DL_FOREACH(w->watchers, watcher)
    {
        *ret_payer = watcher->payer;
        if (!quota_is_spent(watcher->payer, now))
            return 0;
        int64_t left_ms = quota_left_ms(watcher->payer, now);
        soonest_ms = left_ms < soonest_ms ? left_ms : soonest_ms;
    }
    return soonest_ms;
}

static void on_time(uv_timer_t *timer)
{
    struct watch *w = timer->data;
    struct quota *payer = NULL;
    struct fetches *fetches = w->watches->fetches;
    struct cache_look look = cache_look(fetches_cache(fetches), &w->task, wall_ms());
    if (look.left_ms > 0)
        return wait_ms(w, look.left_ms); /* someone else has asked, or asking has just failed */
    int64_t spent_ms = find_payer(w, &payer);
    if (spent_ms > 0)
        return wait_ms(w, spent_ms);
    /* The end of the fetch goes on with the schedule; the timer is for the case that it never ends. */
    wait_ms(w, fetches_refresh(fetches, &w->task, 0, payer) != FETCH_REFUSED ? FETCH_MAX_MS : RETRY_MS);
}

/* ---- the most watched ---- */

static void on_tell_time(uv_timer_t *timer)
{
    struct watches *ws = CONTAINER_OF(timer, struct watches, timer);
    struct top_tasks_list list = {0};
    const struct watch *w;
    for (w = ws->table; w != NULL; w = w->hh.next)
        top_tasks_offer(&list, w->task.route->provider->name, task_id(&w->task), w->n_watchers);
    stats_tell_watched(&list);
    if (ws->table == NULL)
        uv_timer_stop(timer);
}

static void tell_most_watched(struct watches *ws)
{
    if (!uv_is_active((uv_handle_t *)&ws->timer))
        uv_timer_start(&ws->timer, on_tell_time, 0, TELL_MS);
}

/* ---- the watches ---- */

static void on_closed(uv_handle_t *handle)
{
    free(handle->data);
}

static void watch_free(struct watch *w)
{
    HASH_DEL(w->watches->table, w);
    stat_dec(STAT_WATCHED);
    uv_close((uv_handle_t *)&w->timer, on_closed);
}

static struct watch *watch_new(struct watches *ws, const struct task *task)
{
    struct watch *w = xcalloc(1, sizeof(*w));
    w->watches = ws;
    w->task = *task;
    uv_timer_init(ws->loop, &w->timer);
    w->timer.data = w;
    HASH_ADD(hh, ws->table, task.key, w->task.key_len, w);
    stat_inc(STAT_WATCHED);
    tell_most_watched(ws);
    return w;
}

static void enter_list(struct watcher *watcher, struct watcher **list)
{
    watcher->list = list;
    DL_APPEND(*list, watcher);
}

void watch_join(struct watches *ws, const struct task *task, const struct snapshot *known,
                struct watcher *watcher)
{
    struct watch *w = find(ws, task);
    if (w == NULL) {
        w = watch_new(ws, task);
        wait_ms(w, known->fresh_until_ms - wall_ms());
    }
    watcher->watch = w;
    w->n_watchers++;
    enter_list(watcher, &w->watchers);
}

static void free_when_empty(struct watch *w)
{
    if (w->watchers == NULL && !w->telling)
        watch_free(w);
}

void watch_leave(struct watcher *watcher)
{
    struct watch *w = watcher->watch;
    if (w == NULL)
        return;
    watcher->watch = NULL;
    w->n_watchers--;
    DL_DELETE(*watcher->list, watcher);
    free_when_empty(w);
}

/* ---- news ---- */

/* Each watcher goes back into the list before it is called, so that it, or any other, can leave. */
static void tell(struct watch *w, struct snapshot *snapshot)
{
    struct watcher *untold = NULL, *watcher;
    while ((watcher = w->watchers) != NULL) {
        DL_DELETE(w->watchers, watcher);
        enter_list(watcher, &untold);
    }
    w->telling = true;
    while ((watcher = untold) != NULL) {
        DL_DELETE(untold, watcher);
        enter_list(watcher, &w->watchers);
        watcher->on_news(watcher, snapshot);
    }
    w->telling = false;
}

static void on_fetched(void *ctx, const struct fetch_result *result)
{
    struct watches *ws = ctx;
    struct watch *w = find(ws, result->task);
    if (w == NULL)
        return;
    if (result->snapshot != NULL)
        tell(w, result->snapshot);
    else if (result->problem == PROBLEM_TASK_NOT_FOUND && !result->doubted)
        tell(w, NULL);
    struct cache_look look = cache_look(fetches_cache(ws->fetches), result->task, wall_ms());
    wait_ms(w, look.left_ms > 0 ? look.left_ms : RETRY_MS);
    free_when_empty(w);
}

/* What another worker has brought home lies in Redis. */
static bool on_news(void *ctx, const struct news *news)
{
    struct watches *ws = ctx;
    struct watch *w = find_key(ws, news->key, news->key_len);
    struct quota *payer = NULL; /* should it not lie there */
    if (w == NULL)
        return false;
    find_payer(w, &payer);
    fetches_refresh(ws->fetches, &w->task, 0, payer);
    return true;
}

struct watches *watches_new(uv_loop_t *loop, struct fetches *fetches)
{
    struct watches *ws = xcalloc(1, sizeof(*ws));
    *ws = (struct watches){.loop = loop, .fetches = fetches};
    uv_timer_init(loop, &ws->timer);
    uv_unref((uv_handle_t *)&ws->timer); /* no reason to stay */
    fetches_listen(fetches,
                   (struct fetches_listener){.on_fetched = on_fetched, .on_news = on_news, .ctx = ws});
    return ws;
}

static void on_all_closed(uv_handle_t *handle)
{
    free(CONTAINER_OF((uv_timer_t *)handle, struct watches, timer));
}

void watches_free(struct watches *ws)
{
    struct watch *w, *next;
    if (ws == NULL)
        return;
    fetches_listen(ws->fetches, (struct fetches_listener){0});
    HASH_ITER(hh, ws->table, w, next)
    watch_free(w);
    uv_close((uv_handle_t *)&ws->timer, on_all_closed);
}
