/* fetch: see fetch.h. The story of one fetch:
 *
 *     ask_redis -> read_redis -> ask_upstream -> read_upstream -> keep -> deliver
 *         |            |               ^          |  |              ^         ^
 *         '---- away --|---------------'-- half --'  '-- problem ---|---------'
 *                      '------------- fresh there ------------------'
 *
 * "Half" is an answer whose result has to be asked for by a second query.
 *
 * Each step does one thing and returns the next. run() alone changes the step; a callback stores what came
 * and runs on from the step behind the WAIT. */
#include "fetch.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <uthash.h>
#include <utlist.h>

#include "stats.h"
#include "view.h"

enum { TARGET_MAX = 4096, UNKNOWN_MAX = 32 };

enum step { ASK_REDIS, READ_REDIS, ASK_UPSTREAM, READ_UPSTREAM, KEEP, DELIVER, WAIT, DONE };

struct fetch {
    struct fetches *fetches; /* (ref) */
    struct task task;
    enum step step; /* the next one to run */
    struct fetch_waiter *waiters;
    struct redis_command *redis_command;  /* under way, or NULL */
    struct upstream_call *upstream_call;  /* under way, or NULL */
    const struct redis_reply *reply;      /* (ref) in READ_REDIS */
    const struct upstream_answer *answer; /* (ref) in READ_UPSTREAM */
    struct buf first;                     /* the first answer, while the second query is made */
    int first_status;                     /* its HTTP status */
    struct buf result_path;               /* of the second query; empty before */
    bool redis_away;                      /* it said nothing of this task, and is told nothing */
    struct snapshot *last;                /* the newest that was known before, or NULL */
    struct snapshot *snapshot;            /* what was brought home, or NULL */
    struct fetch_result result;
    UT_hash_handle hh;
    size_t key_len;
    char key[];
};

struct fetches {
    struct fetches_parts parts;
    struct fetch *table;
    struct memory *memory;
    char *unknown_statuses[UNKNOWN_MAX]; /* those that were logged */
    size_t n_unknown;
    fetch_news *on_news; /* or NULL */
    void *news_ctx;
};

static void run(struct fetch *f);

/* ---- Redis ---- */

static void on_redis(void *user, const struct redis_reply *reply)
{
    struct fetch *f = user;
    f->redis_command = NULL;
    f->reply = reply;
    run(f);
}

static enum step ask_redis(struct fetch *f)
{
    f->redis_command = shared_get(f->fetches->parts.shared, &f->task, on_redis, f);
    f->redis_away = f->redis_command == NULL;
    if (f->redis_away)
        return ASK_UPSTREAM;
    f->step = READ_REDIS;
    return WAIT;
}

static enum step read_redis(struct fetch *f)
{
    f->redis_away = f->reply->result == REDIS_AWAY;
    if (f->reply->result != REDIS_FOUND)
        return ASK_UPSTREAM;
    struct snapshot *s = shared_read(f->fetches->parts.shared, &f->task, f->reply);
    if (s == NULL)
        return ASK_UPSTREAM;
    if (snapshot_is_fresh(s, wall_ms())) {
        f->snapshot = s;
        f->result.from_redis = true;
        stat_inc(STAT_HITS_REDIS);
        return KEEP;
    }
    if (f->last == NULL || f->last->fetched_ms < s->fetched_ms) {
        snapshot_unref(f->last);
        f->last = snapshot_ref(s);
    }
    snapshot_unref(s);
    return ASK_UPSTREAM;
}

/* ---- the upstream ---- */

static enum step fail(struct fetch *f, enum problem problem, int64_t retry_after_ms)
{
    f->result.problem = problem;
    f->result.retry_after_ms = retry_after_ms;
    return DELIVER;
}

static void on_upstream(void *user, const struct upstream_answer *answer)
{
    struct fetch *f = user;
    f->upstream_call = NULL;
    f->answer = answer;
    run(f);
}

static enum step ask_upstream(struct fetch *f)
{
    struct buf target;
    buf_init(&target, TARGET_MAX);
    if (f->result_path.len > 0)
        buf_puts(&target, f->result_path.data);
    else
        pattern_build(&f->task.route->upstream_path, f->task.id, &target);
    f->upstream_call = upstream_get(f->fetches->parts.upstreams, f->task.route, target.data, on_upstream, f);
    buf_done(&target);
    f->step = READ_UPSTREAM;
    return WAIT;
}

/* Each value is said once, and only so many of them: an upstream might make them up. */
static void note_unknown_status(struct fetch *f, const struct view *view)
{
    struct fetches *fs = f->fetches;
    const char *provider = f->task.route->provider->name;
    stat_inc(STAT_UNKNOWN_STATUS);
    if (fs->n_unknown == UNKNOWN_MAX)
        return;
    char *status = xasprintf("%s: %s", provider, view->status);
    for (size_t i = 0; i < fs->n_unknown; i++) {
        if (strcmp(status, fs->unknown_statuses[i]) == 0) {
            free(status);
            return;
        }
    }
    fs->unknown_statuses[fs->n_unknown++] = status;
    log_warn("provider %s does not list the status %s: taken as running%s", provider, view->status,
             fs->n_unknown == UNKNOWN_MAX ? "; further values are only counted" : "");
}

/* A task is there: what is known of it becomes a snapshot. */
static enum step take_view(struct fetch *f, const struct view *view)
{
    int64_t now = wall_ms();
    const struct snapshot_rules rules = shared_rules(f->fetches->parts.conf, &f->task);
    struct snapshot_facts facts = {.state = view->state,
                                   .known = view->known,
                                   .created_ms = view->created_at * 1000,
                                   .fetched_ms = now,
                                   .urls_expire_at = view->urls_expire_at,
                                   .retry_after_ms = f->answer->retry_after_ms};
    if (facts.created_ms == 0)
        facts.created_ms = f->last ? f->last->created_ms : now;
    for (size_t i = 0; i < VIEW_COUNT; i++) {
        facts.views[i] = view->views[i].data;
        facts.view_lens[i] = view->views[i].len;
    }
    if (!view->known)
        note_unknown_status(f, view);
    f->snapshot = snapshot_new(&facts, &rules);
    return KEEP;
}

/* The task has succeeded, and what it has made stands in another answer. */
static enum step take_half(struct fetch *f, const struct view *view)
{
    f->first_status = f->answer->http_status;
    buf_add(&f->first, f->answer->body, f->answer->len);
    buf_puts(&f->result_path, view->result_path.data);
    return ASK_UPSTREAM;
}

static enum step take_missing(struct fetch *f)
{
    f->result.doubted = !memory_keep_missing(f->fetches->memory, &f->task, f->last, wall_ms());
    return fail(f, PROBLEM_TASK_NOT_FOUND, 0);
}

static enum step take_refusal(struct fetch *f)
{
    const struct conf_upstream *upstream = f->task.route->upstream;
    char trouble[160];
    snprintf(trouble, sizeof(trouble), "it refused the key of %s (status %d)",
             ((char **)upstream->key_files.items)[0], f->answer->http_status);
    upstream_report(f->fetches->parts.upstreams, upstream, trouble);
    return fail(f, PROBLEM_UPSTREAM_AUTH, 0);
}

static enum step take_busy(struct fetch *f)
{
    struct upstreams *upstreams = f->fetches->parts.upstreams;
    const struct conf_upstream *upstream = f->task.route->upstream;
    upstream_report(upstreams, upstream, "it says that we ask too often");
    return fail(f, PROBLEM_UNAVAILABLE, upstream_hold(upstreams, upstream, f->answer->retry_after_ms));
}

static enum step take_reading(struct fetch *f, enum reading reading, const struct view *view)
{
    const struct conf_upstream *upstream = f->task.route->upstream;
    char trouble[160];
    switch (reading) {
    case READING_OK:
        upstream_report(f->fetches->parts.upstreams, upstream, NULL);
        return take_view(f, view);
    case READING_HALF:
        return take_half(f, view);
    case READING_MISSING:
        upstream_report(f->fetches->parts.upstreams, upstream, NULL);
        return take_missing(f);
    case READING_REFUSED:
        return take_refusal(f);
    case READING_BUSY:
        return take_busy(f);
    default:
        stat_inc(STAT_UPSTREAM_FAILURES);
        snprintf(trouble, sizeof(trouble), "its answer (status %d) was %s", f->answer->http_status,
                 view->why);
        upstream_report(f->fetches->parts.upstreams, upstream, trouble);
        return fail(f, reading == READING_ERROR ? PROBLEM_UPSTREAM_ERROR : PROBLEM_UPSTREAM_INVALID, 0);
    }
}

static enum step read_upstream(struct fetch *f)
{
    const struct conf_route *route = f->task.route;
    switch (f->answer->outcome) {
    case UPSTREAM_TIMED_OUT:
        return fail(f, PROBLEM_UPSTREAM_TIMEOUT, 0);
    case UPSTREAM_FAILED:
        return fail(f, PROBLEM_UPSTREAM_ERROR, 0);
    case UPSTREAM_UNUSABLE:
        return fail(f, PROBLEM_UPSTREAM_INVALID, 0);
    case UPSTREAM_OUT_OF_MEANS:
        stat_inc(STAT_OVERLOADED);
        return fail(f, PROBLEM_OVERLOADED, 1000);
    case UPSTREAM_HELD:
        return fail(f, PROBLEM_UNAVAILABLE, f->answer->retry_after_ms);
    case UPSTREAM_ANSWERED:
        break;
    }
    struct view view;
    const struct secrets secrets = upstream_secrets(f->fetches->parts.upstreams, route);
    const struct view_question question = {
        .provider = route->provider, .task_id = f->task.id, .secrets = &secrets};
    const struct view_answer first = {
        .http_status = f->first_status, .body = f->first.data, .len = f->first.len};
    const struct view_answer answer = {
        .http_status = f->answer->http_status, .body = f->answer->body, .len = f->answer->len};
    bool second = f->result_path.len > 0;
    enum reading reading = view_read(&question, second ? &first : &answer, second ? &answer : NULL, &view);
    enum step next = take_reading(f, reading, &view);
    view_done(&view);
    return next;
}

/* ---- keeping and delivering ---- */

static enum step keep(struct fetch *f)
{
    struct memory *memory = f->fetches->memory;
    memory_keep(memory, &f->task, f->snapshot);
    stat_set(STAT_CACHE_ENTRIES, (int64_t)memory_entries(memory));
    stat_set(STAT_CACHE_BYTES, (int64_t)memory_bytes(memory));
    stat_set(STAT_CACHE_EVICTIONS, (int64_t)memory_evictions(memory));
    f->result.stored = true;
    if (!f->result.from_redis && !f->redis_away && f->snapshot->known)
        shared_keep(f->fetches->parts.shared, &f->task, f->snapshot);
    return DELIVER;
}

/* A task that could not be asked for is not asked for again before it would have been asked anyway. */
static void keep_failure(struct fetch *f)
{
    enum problem problem = f->result.problem;
    if (f->last == NULL || (!problem_is_excusable(problem) && !f->result.doubted))
        return;
    const struct snapshot_rules rules = shared_rules(f->fetches->parts.conf, &f->task);
    int64_t now = wall_ms(), pause_ms = snapshot_interval_ms(f->last, &rules, now);
    if (f->result.retry_after_ms > pause_ms)
        pause_ms = f->result.retry_after_ms;
    memory_keep_failure(f->fetches->memory, &f->task, f->last, problem, now + pause_ms);
}

static void fetch_free(struct fetch *f)
{
    snapshot_unref(f->last);
    snapshot_unref(f->snapshot);
    buf_done(&f->first);
    buf_done(&f->result_path);
    stat_dec(STAT_FETCHES);
    free(f);
}

/* The fetch leaves its table before anyone is woken: who asks again from a callback begins a new one. */
static enum step deliver(struct fetch *f)
{
    struct fetches *fs = f->fetches;
    HASH_DEL(fs->table, f);
    keep_failure(f);
    f->result.snapshot = f->snapshot;
    f->result.last = f->last;
    struct fetch_waiter *waiter;
    while ((waiter = f->waiters) != NULL) {
        DL_DELETE(f->waiters, waiter);
        waiter->fetch = NULL;
        waiter->on_fetched(waiter, &f->result);
    }
    if (fs->on_news != NULL)
        fs->on_news(fs->news_ctx, &f->task, &f->result);
    return DONE;
}

static void run(struct fetch *f)
{
    static enum step (*const steps[])(struct fetch *) = {[ASK_REDIS] = ask_redis,
                                                         [READ_REDIS] = read_redis,
                                                         [ASK_UPSTREAM] = ask_upstream,
                                                         [READ_UPSTREAM] = read_upstream,
                                                         [KEEP] = keep,
                                                         [DELIVER] = deliver};
    static const char *const names[] = {"ask_redis", "read_redis", "ask_upstream", "read_upstream",
                                        "keep",      "deliver",    "wait",         "done"};
    enum step step = f->step;
    while (step != WAIT && step != DONE) {
        enum step next = steps[step](f);
        log_debug("fetch %s: %s -> %s", f->key, names[step], names[next]);
        step = next;
    }
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

static struct fetch *begin(struct fetches *fs, const struct task *task, const struct buf *key)
{
    struct fetch *f = xcalloc(1, sizeof(*f) + key->len + 1);
    f->fetches = fs;
    f->task = *task;
    f->step = ASK_REDIS;
    buf_init(&f->first, (size_t)task->route->upstream->max_body);
    buf_init(&f->result_path, TARGET_MAX);
    f->key_len = key->len;
    memcpy(f->key, key->data, key->len + 1);
    struct snapshot *last = memory_look(fs->memory, task, wall_ms()).snapshot;
    f->last = last ? snapshot_ref(last) : NULL;
    HASH_ADD(hh, fs->table, key, f->key_len, f);
    stat_inc(STAT_FETCHES);
    return f;
}

/* The fetch of a task, begun when there is none; NULL at the limit. */
static struct fetch *find_or_begin(struct fetches *fs, const struct task *task, bool *ret_begun)
{
    struct buf key;
    buf_init(&key, TASK_KEY_MAX);
    task_key(task, &key);
    struct fetch *f = find(fs, key.data, key.len);
    *ret_begun = f == NULL && HASH_COUNT(fs->table) < (size_t)fs->parts.conf->limits.fetches;
    if (*ret_begun)
        f = begin(fs, task, &key);
    buf_done(&key);
    return f;
}

enum fetch_join fetch_join(struct fetches *fs, const struct task *task, struct fetch_waiter *waiter)
{
    bool begun;
    struct fetch *f = find_or_begin(fs, task, &begun);
    if (f == NULL)
        return FETCH_REFUSED;
    waiter->fetch = f;
    DL_APPEND(f->waiters, waiter);
    if (begun)
        run(f);
    return begun ? FETCH_STARTED : FETCH_COLLAPSED;
}

bool fetch_refresh(struct fetches *fs, const struct task *task)
{
    bool begun;
    struct fetch *f = find_or_begin(fs, task, &begun);
    if (begun)
        run(f);
    return f != NULL;
}

void fetch_leave(struct fetch_waiter *waiter)
{
    if (waiter->fetch == NULL)
        return;
    DL_DELETE(waiter->fetch->waiters, waiter);
    waiter->fetch = NULL;
}

/* ---- all of them ---- */

struct fetches *fetches_new(struct fetches_parts parts)
{
    struct fetches *fs = xcalloc(1, sizeof(*fs));
    fs->parts = parts;
    fs->memory = memory_new(&parts.conf->cache);
    return fs;
}

void fetches_free(struct fetches *fs)
{
    if (fs == NULL)
        return;
    struct fetch *f, *next;
    HASH_ITER(hh, fs->table, f, next)
    {
        if (f->redis_command != NULL)
            redis_cancel(f->redis_command);
        if (f->upstream_call != NULL)
            upstream_cancel(f->upstream_call);
        HASH_DEL(fs->table, f);
        fetch_free(f);
    }
    memory_free(fs->memory);
    for (size_t i = 0; i < fs->n_unknown; i++)
        free(fs->unknown_statuses[i]);
    free(fs);
}

struct memory *fetches_memory(struct fetches *fs)
{
    return fs->memory;
}

void fetches_on_news(struct fetches *fs, fetch_news *on_news, void *ctx)
{
    fs->on_news = on_news;
    fs->news_ctx = ctx;
}
