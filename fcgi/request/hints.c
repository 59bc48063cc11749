/* hints: see hints.h. */
#include "request/hints.h"

#include <stdlib.h>
#include <string.h>

#include <uthash.h>

#include "lib/stats.h"

enum { HINTS_MAX = 256 };

/* A task that was fetched for a hint just now. */
struct hint {
    struct hints *hints; /* (ref) */
    struct task task;
    bool again; /* another hint has come since */
    uv_timer_t timer;
    UT_hash_handle hh; /* by the task's key */
};

struct hints {
    uv_loop_t *loop;         /* (ref) */
    struct fetches *fetches; /* (ref) */
    struct hint *table;
};

static void on_closed(uv_handle_t *handle)
{
    free(handle->data);
}

static void hint_free(struct hint *h)
{
    HASH_DEL(h->hints->table, h);
    uv_close((uv_handle_t *)&h->timer, on_closed);
}

static void on_interval_over(uv_timer_t *timer);

/* What has ended stays as it is. */
static bool has_ended(struct fetches *fetches, const struct task *task)
{
    struct cache_look look = cache_look(fetches_cache(fetches), task, wall_ms());
    return look.snapshot != NULL && state_ended(look.snapshot->state);
}

/* A query that is under way already may have been answered before the change. */
static void fetch_anew(struct hint *h)
{
    struct fetches *fetches = h->hints->fetches;
    h->again =
        !has_ended(fetches, &h->task) && fetches_refresh(fetches, &h->task, wall_ms(), NULL) != FETCH_STARTED;
    uv_timer_start(&h->timer, on_interval_over, (uint64_t)h->task.route->provider->poll.min_ms, 0);
}

static void on_interval_over(uv_timer_t *timer)
{
    struct hint *h = timer->data;
    if (h->again)
        fetch_anew(h);
    else
        hint_free(h);
}

static struct hint *hint_new(struct hints *hs, const struct task *task)
{
    struct hint *h = xcalloc(1, sizeof(*h));
    h->hints = hs;
    h->task = *task;
    uv_timer_init(hs->loop, &h->timer);
    h->timer.data = h;
    HASH_ADD(hh, hs->table, task.key, h->task.key_len, h);
    return h;
}

void hints_take(struct hints *hs, const struct task *task)
{
    struct hint *h;
    HASH_FIND(hh, hs->table, task->key, task->key_len, h);
    if (h != NULL) {
        stat_inc(STAT_HOOKS_COLLAPSED);
        h->again = true;
    } else if (HASH_COUNT(hs->table) >= HINTS_MAX) {
        stat_inc(STAT_HOOKS_DROPPED);
    } else {
        stat_inc(STAT_HOOKS_TAKEN);
        fetch_anew(hint_new(hs, task));
    }
}

struct hints *hints_new(uv_loop_t *loop, struct fetches *fetches)
{
    struct hints *hs = xcalloc(1, sizeof(*hs));
    *hs = (struct hints){.loop = loop, .fetches = fetches};
    return hs;
}

void hints_free(struct hints *hs)
{
    struct hint *h, *next;
    if (hs == NULL)
        return;
    HASH_ITER(hh, hs->table, h, next)
    hint_free(h);
    free(hs);
}
