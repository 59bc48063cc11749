/* fetch: see fetch.h. The steps of one fetch:
 *
 *     look_in_redis --> read_redis --> charge --> query_upstream --> read_upstream --> keep --> deliver
 *       ^      |            | | |        ^    |                              |           ^          ^
 *       |      '-no Redis---|-|-|--------'    '--no query left---------------|-----------|----------|
 *       |                   | | |                                            '--problem--|----------|
 *       |                   | | '--a fresh snapshot--------------------------------------'          |
 *       |                   | '--another worker queries--> await_notification --.                   |
 *       |                   '--a notification came--> read_notification <-------'                   |
 *       '---a new snapshot------------------------------------|   '-----------a problem-------------'
 *
 * While another worker queries the upstream, the fetch waits for its notification. After that of a new snapshot,
 * or after a pause without one, the fetch reads Redis again; that of a problem ends it. So does a problem that
 * another worker had before, until the time of the next query.
 *
 * Each step does one thing and returns the next one. Only run() changes the step; a callback stores its
 * result and calls run(), which continues with the step set before the WAIT. */
#include "fetch/fetch.h"

#include <stdlib.h>

#include <uthash.h>
#include <utlist.h>

#include "lib/backoff.h"
#include "lib/stats.h"
#include "lib/trace.h"
#include "upstream/attempt.h"

enum { REREAD_FIRST_MS = 100, REREAD_MAX_MS = 1000 };

/* X(step, its function) */
#define STEPS(X)                                                                                             \
    X(LOOK_IN_REDIS, look_in_redis)                                                                          \
    X(READ_REDIS, read_redis)                                                                                \
    X(AWAIT_NOTIFICATION, await_notification)                                                                \
    X(READ_NOTIFICATION, read_notification)                                                                  \
    X(CHARGE, charge)                                                                                        \
    X(REFUSE, refuse)                                                                                        \
    X(READ_CHARGE, read_charge)                                                                              \
    X(QUERY_UPSTREAM, query_upstream)                                                                        \
    X(READ_UPSTREAM, read_upstream)                                                                          \
    X(KEEP, keep)                                                                                            \
    X(DELIVER, deliver)

#define STEP_ID(id, function)       id,
#define STEP_NAME(id, function)     #function,
#define STEP_FUNCTION(id, function) function,

enum step { STEPS(STEP_ID) WAIT, DONE };

struct fetches {
    struct fetches_parts parts;
    struct fetch *table; /* under way, by the task's key */
    struct cache *cache;
    uint64_t n_sent;                  /* queries sent to upstreams so far; numbers them */
    struct fetches_listener listener; /* all NULL: none */
};

/* What the worker that holds the lease has reported since the last lookup in Redis. */
struct received {
    bool any;
    enum problem problem;   /* why that worker failed, or NONE */
    int64_t retry_after_ms; /* no query before that time; 0: unknown */
};

struct fetch {
    struct fetches *fetches; /* (ref) */
    struct task task;
    UT_hash_handle hh;
    struct fetch_waiter *waiters;
    enum step step;              /* the next one to run */
    bool revalidate;             /* accept only an ended task or the answer to a query sent from now on */
    struct quota *payer;         /* (ref) the quota to charge; NULL: none */
    struct fetch_waiter *paying; /* (ref) the waiter whose quota that is; NULL: none, or it has left */
    struct quota *owner;         /* (ref) the quota whose share of the fetches it uses; NULL: none */
    struct quota *sharer;        /* (ref) the quota whose share of the queries the attempt uses; NULL: none */
    struct trace trace;          /* of the request that the fetch was begun for, if any */
    struct charge charge;        /* for the next query */
    struct lease_lookup lookup;  /* the reply from Redis, and the lease */
    struct received received;    /* the last notification */
    bool reread;                 /* because of a notification that came before the reply, or in the queue */
    struct backoff reread_pause; /* the pauses of AWAIT_NOTIFICATION */
    int64_t awaited_ms;          /* the sum of these pauses */
    uv_timer_t timer;            /* for pauses */
    bool recalled;               /* the problem is that of an earlier query of another worker */
    bool queried;                /* an attempt was made, and other workers should get its result */
    bool parked;                 /* its query waits for its turn, and no lease is held meanwhile */
    struct attempt *attempt;     /* under way, or NULL */
    struct attempt_end end;      /* in READ_UPSTREAM, except for the snapshot */
    struct fetch_result result;  /* so far; `last` is the newest snapshot known, or NULL */
};

static void run(struct fetch *f);

static int64_t loop_ms(const struct fetches *fs)
{
    return (int64_t)uv_now(fs->parts.loop);
}

static enum step fail(struct fetch *f, enum problem problem, int64_t retry_after_ms)
{
    f->result.problem = problem;
    f->result.retry_after_ms = retry_after_ms;
    return DELIVER;
}

static void on_pause_over(uv_timer_t *timer)
{
    run(CONTAINER_OF(timer, struct fetch, timer));
}

static enum step pause_before(struct fetch *f, enum step next, int64_t ms)
{
    uv_timer_start(&f->timer, on_pause_over, (uint64_t)ms, 0);
    f->step = next;
    return WAIT;
}

static enum step note_missing(struct fetch *f)
{
    f->result.doubted = !cache_keep_missing(f->fetches->cache, &f->task, f->result.last, loop_ms(f->fetches));
    if (!f->result.doubted && f->result.last != NULL)
        lease_remove(f->fetches->parts.lease, &f->task);
    return fail(f, PROBLEM_TASK_NOT_FOUND, 0);
}

/* Makes a team that waits for the task and has a query left the payer. Returns false if there is none. */
static bool find_payer(struct fetch *f)
{
    struct fetch_waiter *waiter;
    if (!quota_is_spent(f->payer))
        return true;
    DL_FOREACH(f->waiters, waiter)
    {
        if (!quota_is_spent(waiter->payer)) {
            f->payer = waiter->payer;
            f->paying = waiter;
            return true;
        }
    }
    return false;
}

/* ---- Redis ---- */

static void on_lookup_done(struct lease_lookup *lookup)
{
    run(CONTAINER_OF(lookup, struct fetch, lookup));
}

static bool is_fresh(const struct fetch *f, const struct snapshot *s)
{
    return snapshot_left_ms(s, moment_now(f->fetches->parts.loop)) > 0;
}

/* Whether a snapshot makes a query unnecessary. With `revalidate`, only that of an ended task does: when another
 * worker sent its query is unknown. */
static bool suffices(const struct fetch *f, const struct snapshot *s)
{
    return s != NULL && is_fresh(f, s) && (!f->revalidate || state_ended(s->state));
}

/* A fetch that no team can pay for must not keep other workers from querying the task, so it acquires no lease. */
static enum step look_in_redis(struct fetch *f)
{
    bool acquire = find_payer(f);
    f->received.any = false;
    if (!lease_lookup(f->fetches->parts.lease, &f->lookup, &f->task, acquire, on_lookup_done)) {
        f->lookup.holder = LEASE_UNAVAILABLE;
        return suffices(f, f->result.last) ? pause_before(f, READ_REDIS, 0) : CHARGE;
    }
    f->step = READ_REDIS;
    return WAIT;
}

/* Whether a snapshot from Redis replaces the known one. The snapshot of an ended task always replaces that of
 * a running one. An older snapshot replaces only one that is not fresh: Redis has it if it was unavailable
 * when this worker got its own. */
static bool is_newer(const struct fetch *f, const struct snapshot *found)
{
    const struct snapshot *last = f->result.last;
    if (last == NULL || state_ended(found->state) != state_ended(last->state))
        return last == NULL || state_ended(found->state);
    if (found->fetched_ms == last->fetched_ms)
        return false;
    return found->since_ms > last->since_ms || (is_fresh(f, found) && !is_fresh(f, last));
}

/* Returns true if another worker's query has failed too recently for the next one. */
static bool recall_failure(struct fetch *f)
{
    struct fetch_result *result = &f->result;
    if (!f->revalidate)
        result->problem = cache_remote_failure(f->fetches->cache, &f->task, result->last, loop_ms(f->fetches),
                                               &result->retry_after_ms);
    return f->recalled = result->problem != PROBLEM_NONE;
}

static enum step read_redis(struct fetch *f)
{
    struct snapshot *found = f->lookup.found;
    f->lookup.found = NULL;
    if (found != NULL && is_newer(f, found)) {
        snapshot_unref(f->result.last);
        f->result.last = snapshot_ref(found);
    }
    snapshot_unref(found);
    if (suffices(f, f->result.last)) {
        stat_inc(STAT_HITS_REDIS);
        stat_inc(STAT_SPARED);
        f->result.snapshot = snapshot_ref(f->result.last);
        f->result.from_redis = true;
        return KEEP;
    }
    if (f->received.any && (f->received.problem != PROBLEM_NONE || !f->reread)) {
        f->reread = true; /* once: a flood of notifications must not keep the fetch from going on */
        return READ_NOTIFICATION;
    }
    if (recall_failure(f))
        return DELIVER;
    if (f->lookup.holder == LEASE_NOT_WANTED && find_payer(f))
        return LOOK_IN_REDIS; /* a team that can pay has joined */
    return f->lookup.holder == LEASE_THEIRS ? AWAIT_NOTIFICATION : CHARGE;
}

/* If no notification has come within that time, the lease holder is assumed to be dead. */
static enum step await_notification(struct fetch *f)
{
    int64_t left_ms = lease_wait_ms(&f->task) - f->awaited_ms, pause_ms = backoff_next(&f->reread_pause);
    if (left_ms <= 0)
        return CHARGE;
    if (f->awaited_ms == REREAD_FIRST_MS) /* once */
        lease_cap(&f->lookup);
    pause_ms = min64(pause_ms, left_ms);
    f->awaited_ms += pause_ms;
    return pause_before(f, LOOK_IN_REDIS, pause_ms);
}

static enum step read_notification(struct fetch *f)
{
    lease_abandon(&f->lookup); /* Redis may have granted this worker the lease just after the notification */
    switch (f->received.problem) {
    case PROBLEM_NONE:
        return LOOK_IN_REDIS;
    case PROBLEM_TASK_NOT_FOUND:
        return note_missing(f);
    default:
        return fail(f, f->received.problem, f->received.retry_after_ms);
    }
}

/* ---- quotas ---- */

static void on_charged(struct charge *charge)
{
    run(CONTAINER_OF(charge, struct fetch, charge));
}

/* Adds `n`, which may be negative, to the charges of the waiter that pays. */
static void note_charge(struct fetch *f, int64_t n)
{
    if (f->paying != NULL)
        f->paying->charged += n;
}

static enum step refuse_query(struct fetch *f)
{
    f->queried = false; /* other teams may have a query left */
    quota_refused(f->payer, LIMIT_QUERIES);
    return fail(f, PROBLEM_RATE_LIMITED, quota_left_ms(f->payer));
}

/* A refusal is reported on the next loop iteration: a fetch never ends while it begins. A team that has joined
 * meanwhile may have a query left. */
static enum step refuse(struct fetch *f)
{
    lease_abandon(&f->lookup);
    return find_payer(f) ? LOOK_IN_REDIS : refuse_query(f);
}

static enum step charge(struct fetch *f)
{
    if (!find_payer(f))
        return pause_before(f, REFUSE, 0);
    f->step = READ_CHARGE;
    return quota_charge(f->payer, 1, &f->charge, on_charged) ? WAIT : READ_CHARGE;
}

static enum step read_charge(struct fetch *f)
{
    if (!f->charge.granted)
        return CHARGE;
    f->result.query = ++f->fetches->n_sent;
    note_charge(f, 1);
    return QUERY_UPSTREAM;
}

/* ---- the upstream ---- */

static bool pay(void *ctx, bool required)
{
    struct fetch *f = ctx;
    if (!required && !find_payer(f))
        return false;
    quota_charge_again(f->payer);
    note_charge(f, 1);
    return true;
}

static void on_attempt_end(void *ctx, const struct attempt_end *end)
{
    struct fetch *f = ctx;
    f->attempt = NULL;
    f->end = *end;
    f->result.snapshot = end->snapshot ? snapshot_ref(end->snapshot) : NULL;
    if (!end->sent) {
        quota_give_back(f->payer);
        note_charge(f, -1);
    }
    run(f);
}

/* The fetch may wait in the queue of the team that began it, and must not delay another one. */
static void use_share_of(struct fetch *f, struct quota *quota)
{
    if (f->attempt != NULL && attempt_join(f->attempt, quota_team(quota)))
        f->sharer = quota;
}

/* ---- the queue: a query that waits for its turn holds no lease, so another worker may query the task,
 * perhaps for a team that need not wait. When its turn comes, the fetch looks in Redis again. ---- */

static void on_queued(void *ctx)
{
    struct fetch *f = ctx;
    lease_abandon(&f->lookup);
    f->parked = true;
}

/* Gives up the place in the queue. The fetch may end during this call. */
static void unpark(struct fetch *f, enum step next)
{
    attempt_cancel(f->attempt);
    f->attempt = NULL;
    quota_give_back(f->payer);
    note_charge(f, -1);
    f->parked = f->queried = false;
    f->step = next;
    run(f);
}

/* Whether another worker has queried the task in the meantime, or is querying it. */
static bool is_superseded(const struct fetch *f)
{
    const struct snapshot *found = f->lookup.found;
    return f->lookup.holder == LEASE_THEIRS || (found != NULL && is_newer(f, found) && suffices(f, found));
}

static void on_turn_looked_up(struct lease_lookup *lookup)
{
    struct fetch *f = CONTAINER_OF(lookup, struct fetch, lookup);
    if (is_superseded(f))
        return unpark(f, READ_REDIS);
    snapshot_unref(lookup->found); /* the attempt keeps using the last one */
    lookup->found = NULL;
    f->parked = false;
    attempt_resume(f->attempt);
}

static bool on_turn(void *ctx)
{
    struct fetch *f = ctx;
    f->parked = lease_lookup(f->fetches->parts.lease, &f->lookup, &f->task, true, on_turn_looked_up);
    return !f->parked;
}

static enum step query_upstream(struct fetch *f)
{
    const struct fetch_waiter *waiter;
    const struct attempt_order order = {.loop = f->fetches->parts.loop,
                                        .upstreams = f->fetches->parts.upstreams,
                                        .cache = &f->fetches->parts.conf->cache,
                                        .task = &f->task,
                                        .team = quota_team(f->payer),
                                        .last = f->result.last,
                                        .on_queued = on_queued,
                                        .on_turn = on_turn,
                                        .pay = pay,
                                        .on_end = on_attempt_end,
                                        .ctx = f};
    f->attempt = attempt_start(&order);
    f->sharer = f->payer;
    DL_FOREACH(f->waiters, waiter)
    {
        use_share_of(f, waiter->payer);
    }
    f->queried = true;
    f->step = READ_UPSTREAM;
    return WAIT;
}

static enum step read_upstream(struct fetch *f)
{
    enum outcome outcome = f->end.outcome;
    if (outcome == OUTCOME_OK)
        return KEEP;
    if (outcome == OUTCOME_MISSING)
        return note_missing(f);
    if (outcome == OUTCOME_OVER_QUOTA)
        return refuse_query(f);
    if (outcome == OUTCOME_NO_DESCRIPTORS)
        f->queried = false; /* other workers may have descriptors left */
    if (outcome == OUTCOME_HELD || outcome == OUTCOME_QUEUE_TIMEOUT) {
        f->result.refusal = f->fetches->parts.conf->teams.list.n > 0;
        f->result.refused = f->sharer;
        f->queried = !f->result.refusal;
    }
    return fail(f, outcome_row(outcome)->problem, f->end.retry_after_ms);
}

/* ---- keeping and delivering ---- */

static enum step keep(struct fetch *f)
{
    struct cache *cache = f->fetches->cache;
    cache_keep(cache, &f->task, f->result.snapshot, quota_account(f->payer));
    const struct cache_usage usage = cache_usage(cache);
    stat_set(STAT_CACHE_ENTRIES, (int64_t)usage.entries);
    stat_set(STAT_CACHE_BYTES, (int64_t)usage.bytes);
    stat_set(STAT_CACHE_EVICTIONS, (int64_t)usage.evictions);
    f->result.stored = true;
    return DELIVER;
}

/* Keeps the failure in the cache. Returns how long the task should not be queried; 0: unknown. The limits of
 * a team say nothing about the task, so such a refusal is not kept. A failure of another worker is kept as it is. */
static int64_t note_failure(struct fetch *f)
{
    const struct fetch_result *result = &f->result;
    int64_t pause_ms = 0;
    if (result->problem == PROBLEM_RATE_LIMITED || result->refusal || f->recalled)
        return 0;
    if (problem_is_excusable(result->problem) || result->doubted)
        pause_ms = cache_keep_failure(f->fetches->cache, &f->task, f->result.last, result->problem,
                                      result->retry_after_ms, moment_now(f->fetches->parts.loop));
    return f->result.last != NULL && pause_ms > 0 ? pause_ms : result->retry_after_ms;
}

/* Releases the lease. If this worker has queried the upstream, other workers get the result. A snapshot with
 * an unlisted status is not stored. */
static void publish(struct fetch *f, int64_t pause_ms)
{
    bool stored = f->result.snapshot != NULL && f->result.snapshot->known;
    if (f->queried && !f->parked)
        lease_publish(&f->lookup, stored ? f->result.snapshot : NULL, f->result.problem, pause_ms);
    else
        lease_abandon(&f->lookup);
}

static void fetch_free(struct fetch *f)
{
    quota_cancel(&f->charge);
    snapshot_unref(f->result.last);
    snapshot_unref(f->result.snapshot);
    stat_dec(STAT_FETCHES);
    close_and_free((uv_handle_t *)&f->timer, f);
}

/* Begins a fetch for a waiter if the result concerns another team alone. */
static bool fetch_again(struct fetch *f, struct fetch_waiter *waiter)
{
    return f->result.refusal && f->result.refused != waiter->payer &&
           fetches_join(f->fetches, &f->task, waiter) != FETCH_REFUSED;
}

/* The fetch is removed from the table before its waiters are called, so that a callback that requests the task
 * again starts a new fetch. */
static enum step deliver(struct fetch *f)
{
    const struct fetches_listener *listener = &f->fetches->listener;
    struct fetch_waiter *waiter;
    publish(f, note_failure(f));
    HASH_DEL(f->fetches->table, f);
    quota_add(f->owner, QUOTA_FETCHES, -1);
    while ((waiter = f->waiters) != NULL) {
        fetches_leave(waiter);
        if (!fetch_again(f, waiter))
            waiter->on_fetched(waiter, &f->result);
    }
    if (listener->on_fetched != NULL)
        listener->on_fetched(listener->ctx, &f->result);
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

/* ---- joining ---- */

static struct fetch *find(struct fetches *fs, const char *key, size_t key_len)
{
    struct fetch *f;
    HASH_FIND(hh, fs->table, key, key_len, f);
    return f;
}

static void enter(struct fetch *f, struct fetch_waiter *waiter)
{
    waiter->fetch = f;
    waiter->charged = 0;
    DL_APPEND(f->waiters, waiter);
}

/* The fetch belongs to the current trace. `waiter` may be NULL. */
static void begin(struct fetches *fs, const struct task *task, bool revalidate, struct quota *payer,
                  struct fetch_waiter *waiter)
{
    struct fetch *f = xcalloc(1, sizeof(*f));
    *f = (struct fetch){.fetches = fs,
                        .task = *task,
                        .step = LOOK_IN_REDIS,
                        .revalidate = revalidate,
                        .payer = payer,
                        .paying = waiter,
                        .owner = payer,
                        .trace = trace_now(),
                        .reread_pause = {.first_ms = REREAD_FIRST_MS, .max_ms = REREAD_MAX_MS}};
    const struct cache_result known = cache_get(fs->cache, task, moment_now(fs->parts.loop));
    uv_timer_init(fs->parts.loop, &f->timer);
    f->result.task = &f->task;
    f->result.last = known.snapshot ? snapshot_ref(known.snapshot) : NULL;
    HASH_ADD(hh, fs->table, task.key, f->task.key_len, f);
    quota_add(payer, QUOTA_FETCHES, 1);
    stat_inc(STAT_FETCHES);
    if (waiter != NULL)
        enter(f, waiter);
    run(f);
}

static enum fetches_join join(struct fetches *fs, const struct task *task, bool revalidate,
                              struct quota *payer, struct fetch_waiter *waiter)
{
    struct fetch *f = find(fs, task->key, task->key_len);
    if (f != NULL) {
        use_share_of(f, payer);
        if (waiter != NULL)
            enter(f, waiter);
        return FETCH_COLLAPSED;
    }
    int64_t left = fs->parts.conf->limits.fetches - (int64_t)HASH_COUNT(fs->table);
    if (!quota_has_room(payer, QUOTA_FETCHES, 1, left))
        return FETCH_REFUSED;
    begin(fs, task, revalidate, payer, waiter);
    return FETCH_STARTED;
}

enum fetches_join fetches_refresh(struct fetches *fs, const struct task *task, bool revalidate,
                                  struct quota *payer)
{
    return join(fs, task, revalidate, payer, NULL);
}

enum fetches_join fetches_join(struct fetches *fs, const struct task *task, struct fetch_waiter *waiter)
{
    return join(fs, task, false, waiter->payer, waiter);
}

uint64_t fetches_sent(const struct fetches *fs)
{
    return fs->n_sent;
}

void fetches_leave(struct fetch_waiter *waiter)
{
    if (waiter->fetch == NULL)
        return;
    DL_DELETE(waiter->fetch->waiters, waiter);
    if (waiter->fetch->paying == waiter)
        waiter->fetch->paying = NULL;
    waiter->fetch = NULL;
}

/* ---- notifications ---- */

void fetches_listen(struct fetches *fs, struct fetches_listener listener)
{
    fs->listener = listener;
}

/* A query gives up its place in the queue for one new snapshot, or for a problem, which ends the fetch. Further
 * snapshots are found when its turn comes. The fetch may end during this call. */
static void take_notification(struct fetch *f, const struct notification *n)
{
    bool leaves = f->parked && (n->problem != PROBLEM_NONE || !f->reread);
    f->received = (struct received){true, n->problem, n->retry_after_ms};
    f->reread |= leaves;
    if (leaves)
        return unpark(f, READ_NOTIFICATION);
    if (f->step != LOOK_IN_REDIS || !uv_is_active((uv_handle_t *)&f->timer))
        return; /* it is not in a pause of await_notification; read_redis handles the notification */
    uv_timer_stop(&f->timer);
    f->step = READ_NOTIFICATION;
    run(f);
}

/* A failure in another worker applies to this one, too. If Redis has a new snapshot, the one in the cache is
 * unconfirmed. After an interruption, so are the snapshots of all running tasks: requests look in Redis before they
 * get them. */
static void on_notification(void *ctx, const struct notification *n)
{
    struct fetches *fs = ctx;
    if (n == NULL)
        return cache_question_running(fs->cache);
    struct fetch *f = find(fs, n->key, n->key_len);
    struct task task;
    if (f != NULL)
        return take_notification(f, n);
    if ((problem_is_excusable(n->problem) || n->problem == PROBLEM_TASK_NOT_FOUND) &&
        task_from_key(fs->parts.conf, n->key, &task))
        cache_keep_remote_failure(fs->cache, &task, n->problem, n->retry_after_ms, loop_ms(fs));
    if (!n->stored)
        return;
    cache_question(fs->cache, n->key, n->key_len);
    if (fs->listener.on_notification != NULL)
        fs->listener.on_notification(fs->listener.ctx, n);
}

void fetches_subscribe(struct fetches *fs)
{
    lease_subscribe(fs->parts.lease, on_notification, fs);
}

/* ---- the fetches of a worker ---- */

struct fetches *fetches_new(struct fetches_parts parts)
{
    struct fetches *fs = xcalloc(1, sizeof(*fs));
    *fs =
        (struct fetches){.parts = parts, .cache = cache_new(&parts.conf->cache, quota_accounts(parts.conf))};
    return fs;
}

void fetches_free(struct fetches *fs)
{
    struct fetch *f, *next;
    if (fs == NULL)
        return;
    HASH_ITER(hh, fs->table, f, next)
    {
        HASH_DEL(fs->table, f);
        publish(f, 0);
        if (f->attempt != NULL)
            attempt_cancel(f->attempt);
        fetch_free(f);
    }
    cache_free(fs->cache);
    free(fs);
}

struct cache *fetches_cache(struct fetches *fs)
{
    return fs->cache;
}
