/* fetch: see fetch.h. The steps of one fetch:
 *
 *     ask_redis --> read_redis --> charge --> ask_upstream --> read_upstream --> keep --> deliver
 *       ^    |       | | |         ^    |                             |          ^          ^
 *       |    '-away--|-|-|---------'    '--no query left--------------|----------|----------|
 *       |            | | |                                            '--problem-|----------|
 *       |            | | '--a fresh snapshot-------------------------------------'          |
 *       '---news-----' '--another worker asks--> await_news --> read_news ----a problem-----'
 *
 * While another worker queries the upstream, the fetch waits for its news. After news of a new snapshot, the
 * fetch reads Redis again; news of a problem ends it.
 *
 * Each step does one thing and returns the next one. Only run() changes the step; a callback stores its
 * result and calls run(), which continues with the step set before the WAIT. */
#include "fetch/fetch.h"

#include <stdlib.h>

#include "lib/backoff.h"
#include "lib/stats.h"
#include "lib/trace.h"

enum { LOOK_AGAIN_FIRST_MS = 100, LOOK_AGAIN_MAX_MS = 1000 };

/* X(step, its function) */
#define STEPS(X)                                                                                             \
    X(ASK_REDIS, ask_redis)                                                                                  \
    X(READ_REDIS, read_redis)                                                                                \
    X(AWAIT_NEWS, await_news)                                                                                \
    X(READ_NEWS, read_news)                                                                                  \
    X(CHARGE, charge)                                                                                        \
    X(READ_CHARGE, read_charge)                                                                              \
    X(ASK_UPSTREAM, ask_upstream)                                                                            \
    X(READ_UPSTREAM, read_upstream)                                                                          \
    X(KEEP, keep)                                                                                            \
    X(DELIVER, deliver)

#define STEP_ID(id, function)       id,
#define STEP_NAME(id, function)     #function,
#define STEP_FUNCTION(id, function) function,

enum step { STEPS(STEP_ID) WAIT, DONE };

struct fetch {
    const struct fetch_parts *parts; /* (ref) */
    struct task task;
    enum step step;            /* the next one to run */
    struct fetch_order order;  /* except for the task */
    struct trace trace;        /* of the request that the fetch was begun for, if any */
    struct charge charge;      /* for the next query */
    struct lease_look look;    /* the reply from Redis, and the lease */
    bool awaits_news;          /* from another worker, which holds the lease */
    bool has_heard;            /* news has come since the last look at Redis: */
    enum problem heard;        /* why the other worker failed, or NONE */
    int64_t heard_retry_ms;    /* no query before that time; 0: unknown */
    bool looked_again;         /* because of news that came before the reply */
    struct backoff look_again; /* the pauses of AWAIT_NEWS */
    int64_t awaited_ms;        /* the sum of these pauses */
    uv_timer_t timer;          /* for pauses; its loop is NULL until it is first used */
    bool asked;                /* an attempt was made; other workers should get its result */
    struct attempt *attempt;   /* under way, or NULL */
    struct attempt_end end;    /* in READ_UPSTREAM, except for the snapshot */
    struct snapshot *last;     /* the newest known so far, or NULL */
    bool fresh;                /* `last` is fresh, and not outdated */
    struct snapshot *snapshot; /* the result, or NULL */
    struct fetch_result result;
};

static void run(struct fetch *f);

static enum step fail(struct fetch *f, enum problem problem, int64_t retry_after_ms)
{
    f->result.problem = problem;
    f->result.retry_after_ms = retry_after_ms;
    return DELIVER;
}

static enum step take_missing(struct fetch *f)
{
    f->result.doubted = !cache_keep_missing(f->parts->cache, &f->task, f->last, wall_ms());
    if (!f->result.doubted && f->last != NULL)
        lease_remove(f->parts->lease, &f->task);
    return fail(f, PROBLEM_TASK_NOT_FOUND, 0);
}

/* ---- Redis ---- */

static void on_looked(struct lease_look *look)
{
    run(CONTAINER_OF(look, struct fetch, look));
}

static enum step ask_redis(struct fetch *f)
{
    f->has_heard = false;
    if (!lease_look(f->parts->lease, &f->look, &f->task, on_looked))
        return CHARGE;
    f->step = READ_REDIS;
    return WAIT;
}

/* Whether the newest known snapshot makes a query unnecessary. With `anew`, only that of an ended task does:
 * when another worker sent its query is unknown. */
static bool is_enough(const struct fetch *f)
{
    return f->last != NULL && f->fresh && (!f->order.anew || state_ended(f->last->state));
}

/* Whether a snapshot from Redis replaces the known one. The snapshot of an ended task always replaces that of
 * a running one, even if the hosts' clocks differ; after news from another worker, so does any snapshot. */
static bool is_newer(const struct fetch *f, const struct snapshot *found)
{
    const struct snapshot *last = f->last;
    if (last == NULL || state_ended(found->state) != state_ended(last->state))
        return last == NULL || state_ended(found->state);
    if (!f->fresh && snapshot_is_fresh(found, wall_ms()))
        return found->fetched_ms != last->fetched_ms;
    return found->fetched_ms > last->fetched_ms;
}

static enum step take_known(struct fetch *f, struct snapshot *s)
{
    f->snapshot = snapshot_ref(s);
    f->result.from_redis = true;
    return KEEP;
}

static enum step read_redis(struct fetch *f)
{
    struct snapshot *found = f->look.found;
    f->look.found = NULL;
    if (found != NULL && is_newer(f, found)) {
        snapshot_unref(f->last);
        f->last = snapshot_ref(found);
        f->fresh = snapshot_is_fresh(found, wall_ms());
    }
    snapshot_unref(found);
    if (is_enough(f)) {
        stat_inc(STAT_HITS_REDIS);
        stat_inc(STAT_SPARED);
        return take_known(f, f->last);
    }
    if (f->has_heard && (f->heard != PROBLEM_NONE || !f->looked_again)) {
        f->looked_again = true; /* once: a flood of news must not keep the fetch from going on */
        return READ_NEWS;
    }
    return f->look.turn == LEASE_THEIRS ? AWAIT_NEWS : CHARGE;
}

static void on_pause_over(uv_timer_t *timer)
{
    struct fetch *f = CONTAINER_OF(timer, struct fetch, timer);
    f->awaits_news = false;
    run(f);
}

static enum step pause_before(struct fetch *f, enum step next, int64_t ms)
{
    if (f->timer.loop == NULL)
        uv_timer_init(f->parts->loop, &f->timer);
    uv_timer_start(&f->timer, on_pause_over, (uint64_t)ms, 0);
    f->step = next;
    return WAIT;
}

/* If the news has not come within the time that one attempt may take, the lease holder is assumed to be
 * dead. */
static enum step await_news(struct fetch *f)
{
    int64_t left_ms = task_timeout_ms(&f->task) - f->awaited_ms, pause_ms = backoff_next(&f->look_again);
    if (left_ms <= 0)
        return CHARGE;
    pause_ms = pause_ms < left_ms ? pause_ms : left_ms;
    f->awaited_ms += pause_ms;
    f->awaits_news = true;
    return pause_before(f, ASK_REDIS, pause_ms);
}

static enum step read_news(struct fetch *f)
{
    lease_leave(&f->look); /* Redis may have granted the lease to this worker just after the news */
    switch (f->heard) {
    case PROBLEM_NONE:
        return ASK_REDIS;
    case PROBLEM_TASK_NOT_FOUND:
        return take_missing(f);
    default:
        return fail(f, f->heard, f->heard_retry_ms);
    }
}

/* ---- quotas ---- */

static void on_charged(struct charge *charge)
{
    run(CONTAINER_OF(charge, struct fetch, charge));
}

/* Makes a team that waits for the task and has a query left the payer. Returns false if there is none. */
static bool find_payer(struct fetch *f, int64_t now_ms)
{
    struct quota **payer = &f->order.payer;
    return !quota_is_spent(*payer, now_ms) || f->order.next_payer(f->order.ctx, now_ms, payer);
}

static enum step refuse_query(struct fetch *f, int64_t now_ms)
{
    f->asked = false; /* other teams may have a query left */
    stat_inc(STAT_LIMITED_QUERIES);
    return fail(f, PROBLEM_RATE_LIMITED, quota_left_ms(f->order.payer, now_ms));
}

/* A refusal is reported on the next loop iteration: fetch_begin must return before on_end is called. */
static enum step charge(struct fetch *f)
{
    int64_t now = wall_ms();
    if (!find_payer(f, now))
        return pause_before(f, refuse_query(f, now), 0);
    f->step = READ_CHARGE;
    return quota_charge(f->order.payer, &f->charge, on_charged) ? WAIT : READ_CHARGE;
}

static enum step read_charge(struct fetch *f)
{
    if (!f->charge.granted)
        return CHARGE;
    f->result.query = ++*f->parts->n_sent;
    return ASK_UPSTREAM;
}

/* ---- the upstream ---- */

static bool pay(void *ctx, bool required)
{
    struct fetch *f = ctx;
    if (!required && !find_payer(f, wall_ms()))
        return false;
    quota_charge_again(f->order.payer);
    return true;
}

static void on_attempt_end(void *ctx, const struct attempt_end *end)
{
    struct fetch *f = ctx;
    f->attempt = NULL;
    f->end = *end;
    f->snapshot = end->snapshot ? snapshot_ref(end->snapshot) : NULL;
    if (!end->asked)
        quota_give_back(f->order.payer);
    run(f);
}

static enum step ask_upstream(struct fetch *f)
{
    const struct attempt_order order = {.upstreams = f->parts->upstreams,
                                        .cache = &f->parts->conf->cache,
                                        .task = &f->task,
                                        .last = f->last,
                                        .pay = pay,
                                        .on_end = on_attempt_end,
                                        .ctx = f};
    f->attempt = attempt_start(&order);
    f->asked = true;
    f->step = READ_UPSTREAM;
    return WAIT;
}

static enum step read_upstream(struct fetch *f)
{
    enum outcome outcome = f->end.outcome;
    if (outcome == OUTCOME_OK)
        return KEEP;
    if (outcome == OUTCOME_MISSING)
        return take_missing(f);
    if (outcome == OUTCOME_OVER_QUOTA)
        return refuse_query(f, wall_ms());
    return fail(f, outcome_row(outcome)->problem, f->end.retry_after_ms);
}

/* ---- keeping and delivering ---- */

static enum step keep(struct fetch *f)
{
    struct cache *cache = f->parts->cache;
    cache_keep(cache, &f->task, f->snapshot);
    stat_set(STAT_CACHE_ENTRIES, (int64_t)cache_entries(cache));
    stat_set(STAT_CACHE_BYTES, (int64_t)cache_bytes(cache));
    stat_set(STAT_CACHE_EVICTIONS, (int64_t)cache_evictions(cache));
    f->result.stored = true;
    return DELIVER;
}

/* Keeps the failure in the cache. Returns how long the task should not be queried; 0: unknown. An exhausted
 * quota says nothing about the task, so it is not kept. */
static int64_t note_failure(struct fetch *f)
{
    const struct fetch_result *result = &f->result;
    int64_t pause_ms = 0;
    if (result->problem == PROBLEM_RATE_LIMITED)
        return 0;
    if (problem_is_excusable(result->problem) || result->doubted)
        pause_ms = cache_keep_failure(f->parts->cache, &f->task, f->last, result->problem,
                                      result->retry_after_ms, wall_ms());
    return f->last != NULL && pause_ms > 0 ? pause_ms : result->retry_after_ms;
}

/* Releases the lease. If this worker has queried the upstream, other workers get the result. A snapshot with
 * an unlisted status is not stored. */
static void tell_others(struct fetch *f, int64_t pause_ms)
{
    bool stored = f->snapshot != NULL && f->snapshot->known;
    if (f->asked)
        lease_tell(&f->look, stored ? f->snapshot : NULL, f->result.problem, pause_ms);
    else
        lease_leave(&f->look);
}

static void on_closed(uv_handle_t *handle)
{
    free(CONTAINER_OF((uv_timer_t *)handle, struct fetch, timer));
}

static void fetch_free(struct fetch *f)
{
    quota_cancel(&f->charge);
    snapshot_unref(f->last);
    snapshot_unref(f->snapshot);
    stat_dec(STAT_FETCHES);
    if (f->timer.loop != NULL)
        uv_close((uv_handle_t *)&f->timer, on_closed);
    else
        free(f);
}

static enum step deliver(struct fetch *f)
{
    tell_others(f, note_failure(f));
    f->result.task = &f->task;
    f->result.snapshot = f->snapshot;
    f->result.last = f->last;
    f->order.on_end(f->order.ctx, &f->result);
    return DONE;
}

static void run(struct fetch *f)
{
    static enum step (*const steps[])(struct fetch *) = {STEPS(STEP_FUNCTION)};
    static const char *const names[] = {STEPS(STEP_NAME) "wait", "done"};
    const struct trace *outer = trace_enter(&f->trace);
    enum step step = f->step;
    while (step != WAIT && step != DONE) {
        enum step next = steps[step](f);
        log_debug("fetch %s: %s -> %s", f->task.key, names[step], names[next]);
        step = next;
    }
    trace_enter(outer);
    if (step == DONE)
        fetch_free(f);
}

/* ---- the fetch ---- */

struct fetch *fetch_begin(const struct fetch_parts *parts, const struct fetch_order *order)
{
    struct fetch *f = xcalloc(1, sizeof(*f));
    *f = (struct fetch){.parts = parts,
                        .task = *order->task,
                        .step = ASK_REDIS,
                        .order = *order,
                        .trace = trace_now(),
                        .look_again = {.first_ms = LOOK_AGAIN_FIRST_MS, .max_ms = LOOK_AGAIN_MAX_MS}};
    f->order.task = NULL;
    const struct cache_look known = cache_look(parts->cache, &f->task, wall_ms());
    f->last = known.snapshot ? snapshot_ref(known.snapshot) : NULL;
    f->fresh = known.problem == PROBLEM_NONE && known.left_ms > 0;
    stat_inc(STAT_FETCHES);
    run(f);
    return f;
}

void fetch_hear(struct fetch *f, const struct news *news)
{
    f->has_heard = true;
    f->heard = news->problem;
    f->heard_retry_ms = news->retry_after_ms;
    if (!f->awaits_news)
        return; /* read_redis handles it */
    uv_timer_stop(&f->timer);
    f->awaits_news = false;
    f->step = READ_NEWS;
    run(f);
}

void fetch_abandon(struct fetch *f)
{
    tell_others(f, 0);
    if (f->attempt != NULL)
        attempt_cancel(f->attempt);
    fetch_free(f);
}
