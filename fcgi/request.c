/* request: see request.h. The story of one request:
 *
 *     route -> authorize -> look_in_memory -> join_fetches -> respond
 *       |          |              '-- all fresh ----------------^
 *       '----------'-- refused ---------------------------------'
 *
 * Most requests ask about one task; /v1/tasks?ids= asks about many, each an item of its own. A step that
 * refuses the request sets the problem and returns RESPOND. run() alone changes the step and frees the
 * request. */
#include "request.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <utlist.h>

#include "answer.h"
#include "stats.h"

enum { GRACE_MS = 250, RETRY_MS = 1000 };

enum step { ROUTE, AUTHORIZE, LOOK_IN_MEMORY, JOIN_FETCHES, RESPOND, WAIT, DONE };

/* One task that is asked about, and what is known of it by now. */
struct item {
    struct request *request; /* (ref) */
    struct task task;
    struct fetch_waiter waiter;
    bool waits;                /* for a fetch */
    struct snapshot *snapshot; /* what is answered, or NULL with a problem */
    struct snapshot *last;     /* what may stand in for it, or NULL */
    enum answer_source source;
    int64_t ttl_ms; /* SOURCE_MEMORY: how long it is fresh yet */
    bool stored;
    enum problem problem;
    bool doubted;           /* the problem is not believed as long as there is something to show */
    int64_t retry_after_ms; /* of the problem; 0: unknown */
};

struct request {
    struct requests *requests;   /* (ref) */
    struct fcgi_request *client; /* (ref) NULL once answered or gone */
    struct request *prev, *next; /* among those that wait */
    enum step step;              /* the next one to run */
    bool waits;                  /* in the list, with a timer */
    enum route_kind kind;
    size_t n_items;
    size_t n_missing; /* items that wait */
    struct item *items;
    struct item only; /* the item of most requests */
    uv_timer_t deadline;
    struct answer_facts facts;
    char id[ANSWER_ID_SIZE];
};

struct requests {
    struct requests_parts parts;
    struct request *waiting;
    int64_t n_waiting;
};

static void run(struct request *r);

static enum step refuse(struct request *r, enum problem problem)
{
    r->facts.problem = problem;
    return RESPOND;
}

/* Over a limit: the client is told when it may try again. */
static enum step refuse_overload(struct request *r)
{
    stat_inc(STAT_OVERLOADED);
    r->facts.retry_after_ms = RETRY_MS;
    return refuse(r, PROBLEM_OVERLOADED);
}

/* ---- route ---- */

static enum step take_ids(struct request *r, const char *uri)
{
    struct task *tasks = xcalloc(ROUTE_IDS_MAX, sizeof(*tasks));
    enum problem problems[ROUTE_IDS_MAX];
    int n = route_ids(r->requests->parts.conf, uri, tasks, problems);
    if (n > 0) {
        r->items = xcalloc((size_t)n, sizeof(*r->items));
        r->n_items = (size_t)n;
    }
    for (int i = 0; i < n; i++)
        r->items[i] = (struct item){.request = r, .task = tasks[i], .problem = problems[i]};
    free(tasks);
    return n > 0 ? AUTHORIZE : refuse(r, PROBLEM_BAD_IDS);
}

static enum step route(struct request *r)
{
    answer_id(fcgi_param(r->client, "REQUEST_ID"), r->id);
    r->facts.request_id = r->id;
    r->facts.source = SOURCE_UPSTREAM;
    r->facts.if_none_match = fcgi_param(r->client, "HTTP_IF_NONE_MATCH");
    const char *method = fcgi_param(r->client, "REQUEST_METHOD"), *uri = fcgi_param(r->client, "REQUEST_URI");
    r->facts.head_only = method != NULL && strcmp(method, "HEAD") == 0;
    if (fcgi_is_refused(r->client))
        return refuse_overload(r);
    enum problem problem = PROBLEM_BAD_REQUEST;
    if (uri != NULL)
        r->kind = route_find(r->requests->parts.conf, uri, &r->only.task, &problem);
    if (problem == PROBLEM_NOT_FOUND)
        return refuse(r, problem);
    if (method == NULL || (!r->facts.head_only && strcmp(method, "GET") != 0))
        return refuse(r, PROBLEM_METHOD);
    if (problem != PROBLEM_NONE)
        return refuse(r, problem);
    return r->kind == ROUTE_MANY ? take_ids(r, uri) : AUTHORIZE;
}

/* ---- authorize ---- */

static enum step authorize(struct request *r)
{
    switch ((enum access_mode)r->requests->parts.conf->access.mode) {
    case ACCESS_OPEN: /* whoever the web server lets in */
        return LOOK_IN_MEMORY;
    }
    abort(); /* a mode of the configuration's table that this function does not know */
}

/* ---- look_in_memory ---- */

/* True when memory has the answer, or knows that there is none to be had now. */
static bool look_item(struct request *r, struct item *item)
{
    struct memory *memory = fetches_memory(r->requests->parts.fetches);
    struct memory_look look = memory_look(memory, &item->task, r->facts.now_ms);
    item->source = SOURCE_MEMORY;
    item->ttl_ms = look.left_ms;
    if (look.missing) {
        item->problem = PROBLEM_TASK_NOT_FOUND;
    } else if (look.problem != PROBLEM_NONE) {
        item->problem = look.problem;
        item->doubted = true;
        item->last = snapshot_ref(look.snapshot);
        return true;
    } else if (look.snapshot == NULL) {
        return false;
    } else if (look.left_ms == 0) {
        item->last = snapshot_ref(look.snapshot);
        return false;
    } else {
        item->snapshot = snapshot_ref(look.snapshot);
    }
    stat_inc(STAT_HITS_MEMORY);
    return true;
}

static enum step look_in_memory(struct request *r)
{
    for (size_t i = 0; i < r->n_items; i++) {
        struct item *item = &r->items[i];
        item->waits = item->problem == PROBLEM_NONE && !look_item(r, item);
        r->n_missing += item->waits;
    }
    return r->n_missing > 0 ? JOIN_FETCHES : RESPOND;
}

/* ---- join_fetches ---- */

static void stop_waiting(struct request *r)
{
    if (!r->waits)
        return;
    r->waits = false;
    for (size_t i = 0; i < r->n_items; i++)
        fetch_leave(&r->items[i].waiter);
    uv_timer_stop(&r->deadline);
    DL_DELETE(r->requests->waiting, r);
    r->requests->n_waiting--;
    stat_dec(STAT_WAITERS);
}

static void on_deadline(uv_timer_t *timer)
{
    struct request *r = CONTAINER_OF(timer, struct request, deadline);
    for (size_t i = 0; i < r->n_items; i++) {
        if (r->items[i].waits)
            r->items[i].problem = PROBLEM_UPSTREAM_TIMEOUT;
    }
    run(r);
}

static void take_result(struct item *item, const struct fetch_result *result)
{
    if (result->snapshot != NULL)
        item->snapshot = snapshot_ref(result->snapshot);
    if (result->from_redis)
        item->source = SOURCE_REDIS;
    item->stored = result->stored;
    item->problem = result->problem;
    item->doubted = result->doubted;
    item->retry_after_ms = result->retry_after_ms;
    if (result->last != NULL) {
        snapshot_unref(item->last);
        item->last = snapshot_ref(result->last);
    }
}

static void on_fetched(struct fetch_waiter *waiter, const struct fetch_result *result)
{
    struct item *item = CONTAINER_OF(waiter, struct item, waiter);
    take_result(item, result);
    item->waits = false;
    if (--item->request->n_missing == 0)
        run(item->request);
}

static void on_gone(void *user)
{
    struct request *r = user;
    stat_inc(STAT_REQUESTS_GONE);
    r->client = NULL;
    run(r);
}

/* A second query may follow the first. */
static int64_t longest_timeout_ms(const struct request *r)
{
    int64_t longest = 0;
    for (size_t i = 0; i < r->n_items; i++) {
        const struct conf_route *route = r->items[i].task.route;
        int64_t ms = route ? route->upstream->timeout_ms * (route->provider->result.path ? 2 : 1) : 0;
        longest = ms > longest ? ms : longest;
    }
    return longest;
}

static void start_waiting(struct request *r)
{
    const struct conf *conf = r->requests->parts.conf;
    int64_t most_ms = conf->redis.timeout_ms + longest_timeout_ms(r) + GRACE_MS;
    r->waits = true;
    DL_APPEND(r->requests->waiting, r);
    r->requests->n_waiting++;
    stat_inc(STAT_WAITERS);
    uv_timer_init(r->requests->parts.loop, &r->deadline);
    uv_timer_start(&r->deadline, on_deadline, (uint64_t)most_ms, 0);
    fcgi_on_gone(r->client, on_gone, r);
}

/* A fetch that cannot be joined is an item's problem, not the request's. */
static void join_item(struct request *r, struct item *item)
{
    item->waiter.on_fetched = on_fetched;
    item->source = SOURCE_UPSTREAM;
    switch (fetch_join(r->requests->parts.fetches, &item->task, &item->waiter)) {
    case FETCH_STARTED:
        return;
    case FETCH_COLLAPSED:
        item->source = SOURCE_COLLAPSED;
        stat_inc(STAT_COLLAPSED);
        return;
    case FETCH_REFUSED:
        stat_inc(STAT_OVERLOADED);
        item->problem = PROBLEM_OVERLOADED;
        item->retry_after_ms = RETRY_MS;
        item->waits = false;
        r->n_missing--;
    }
}

static enum step join_fetches(struct request *r)
{
    if (r->requests->n_waiting >= r->requests->parts.conf->limits.waiters)
        return refuse_overload(r);
    for (size_t i = 0; i < r->n_items; i++) {
        if (r->items[i].waits)
            join_item(r, &r->items[i]);
    }
    if (r->n_missing == 0)
        return RESPOND;
    start_waiting(r);
    r->step = RESPOND;
    return WAIT;
}

/* ---- respond ---- */

static void count_answer(int status)
{
    static const enum stat_id classes[] = {STAT_ANSWERS_2XX, STAT_ANSWERS_3XX, STAT_ANSWERS_4XX,
                                           STAT_ANSWERS_5XX};
    stat_inc(classes[status / 100 - 2]);
}

/* The last snapshot stands in for a failure. */
static void excuse(struct item *item, int64_t now_ms)
{
    const struct snapshot *last = item->last;
    if (item->snapshot != NULL || last == NULL || now_ms >= last->keep_until_ms ||
        !(item->doubted || problem_is_excusable(item->problem)))
        return;
    item->snapshot = snapshot_ref(item->last);
    item->source = SOURCE_STALE;
    stat_inc(STAT_STALE);
}

static void answer_one(const struct request *r, const struct item *item, struct answer *answer)
{
    struct answer_facts facts = r->facts;
    facts.source = item->source;
    facts.stored = item->stored;
    facts.problem = item->problem;
    facts.ttl_ms = item->ttl_ms;
    facts.retry_after_ms = item->retry_after_ms;
    if (item->snapshot != NULL)
        answer_view(answer, &facts, item->snapshot, r->kind == ROUTE_NATIVE ? VIEW_NATIVE : VIEW_UNIFIED);
    else
        answer_problem(answer, &facts);
}

static void answer_all(const struct request *r, struct answer *answer)
{
    struct answer_item items[ROUTE_IDS_MAX];
    struct answer_facts facts = r->facts;
    facts.source = SOURCE_MEMORY;
    for (size_t i = 0; i < r->n_items; i++) {
        items[i] = (struct answer_item){.snapshot = r->items[i].snapshot, .problem = r->items[i].problem};
        if (r->items[i].source > facts.source) {
            facts.source = r->items[i].source;
            facts.problem = r->items[i].problem;
        }
        facts.stored |= r->items[i].stored;
    }
    answer_many(answer, &facts, items, r->n_items);
}

static enum step respond(struct request *r)
{
    stop_waiting(r);
    if (r->client == NULL)
        return DONE;
    struct answer answer;
    r->facts.now_ms = wall_ms();
    for (size_t i = 0; i < r->n_items; i++) {
        if (r->facts.problem == PROBLEM_OVERLOADED && r->items[i].problem == PROBLEM_NONE)
            r->items[i].problem = r->facts.problem;
        excuse(&r->items[i], r->facts.now_ms);
    }
    if (r->facts.problem != PROBLEM_NONE && (r->kind == ROUTE_MANY || r->only.snapshot == NULL))
        answer_problem(&answer, &r->facts);
    else if (r->kind == ROUTE_MANY)
        answer_all(r, &answer);
    else
        answer_one(r, &r->only, &answer);
    count_answer(answer.status);
    fcgi_send(r->client, answer.head.data, answer.head.len, answer.body, answer.body_len);
    answer_done(&answer);
    return DONE;
}

/* ---- the driver ---- */

static void on_closed(uv_handle_t *handle)
{
    free(CONTAINER_OF((uv_timer_t *)handle, struct request, deadline));
}

static void request_free(struct request *r)
{
    stop_waiting(r);
    for (size_t i = 0; i < r->n_items; i++) {
        snapshot_unref(r->items[i].snapshot);
        snapshot_unref(r->items[i].last);
    }
    if (r->items != &r->only)
        free(r->items);
    if (r->deadline.loop != NULL)
        uv_close((uv_handle_t *)&r->deadline, on_closed);
    else
        free(r);
}

static void run(struct request *r)
{
    static enum step (*const steps[])(struct request *) = {[ROUTE] = route,
                                                           [AUTHORIZE] = authorize,
                                                           [LOOK_IN_MEMORY] = look_in_memory,
                                                           [JOIN_FETCHES] = join_fetches,
                                                           [RESPOND] = respond};
    static const char *const names[] = {"route", "authorize", "look_in_memory", "join_fetches", "respond",
                                        "wait",  "done"};
    enum step step = r->step;
    while (step != WAIT && step != DONE) {
        enum step next = steps[step](r);
        log_debug("request %s: %s -> %s", r->id, names[step], names[next]);
        step = next;
    }
    if (step == DONE)
        request_free(r);
}

void request_serve(struct requests *rs, struct fcgi_request *client)
{
    struct request *r = xcalloc(1, sizeof(*r));
    r->requests = rs;
    r->client = client;
    r->step = ROUTE;
    r->items = &r->only;
    r->n_items = 1;
    r->only.request = r;
    r->facts.now_ms = wall_ms();
    run(r);
}

/* ---- all of them ---- */

struct requests *requests_new(struct requests_parts parts)
{
    struct requests *rs = xcalloc(1, sizeof(*rs));
    rs->parts = parts;
    return rs;
}

void requests_free(struct requests *rs)
{
    if (rs == NULL)
        return;
    while (rs->waiting != NULL) {
        fcgi_on_gone(rs->waiting->client, NULL, NULL);
        request_free(rs->waiting);
    }
    free(rs);
}
