/* request: see request.h. The story of one request:
 *
 *     route -> authorize -> look_in_memory -> join_fetch -> respond
 *       |          |              '-- fresh ------------------^
 *       '----------'-- refused -------------------------------'
 *
 * A step that refuses sets the problem and returns RESPOND. run() alone changes the step and frees the request. */
#include "request.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <utlist.h>

#include "answer.h"
#include "stats.h"

enum { REQUEST_ID_MAX = 64, GRACE_MS = 250, RETRY_MS = 1000 };

enum step { ROUTE, AUTHORIZE, LOOK_IN_MEMORY, JOIN_FETCH, RESPOND, WAIT, DONE };

struct request {
    struct requests *requests;   /* (ref) */
    struct fcgi_request *client; /* (ref) NULL once answered or gone */
    struct request *prev, *next; /* among those that wait */
    enum step step;              /* the next one to run */
    bool waits;                  /* in the list, with a timer */
    struct target target;
    struct fetch_waiter waiter;
    uv_timer_t deadline;
    struct snapshot *snapshot; /* what is answered, or NULL with a problem */
    struct snapshot *last;     /* what may stand in for it, or NULL */
    struct answer_facts facts;
    char id[REQUEST_ID_MAX + 1];
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

/* The web server's id for the request, if it is a plain word; otherwise one of our own. */
static void choose_id(struct request *r)
{
    static const char allowed[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-";
    const char *given = fcgi_param(r->client, "REQUEST_ID");
    size_t len = given ? strlen(given) : 0;
    if (len > 0 && len <= REQUEST_ID_MAX && strspn(given, allowed) == len) {
        memcpy(r->id, given, len + 1);
        return;
    }
    unsigned char random[16];
    random_bytes(random, sizeof(random));
    hex_encode(random, sizeof(random), r->id);
}

static enum step route(struct request *r)
{
    choose_id(r);
    r->facts.request_id = r->id;
    r->facts.source = SOURCE_UPSTREAM;
    r->facts.if_none_match = fcgi_param(r->client, "HTTP_IF_NONE_MATCH");
    const char *method = fcgi_param(r->client, "REQUEST_METHOD"), *uri = fcgi_param(r->client, "REQUEST_URI");
    r->facts.head_only = method != NULL && strcmp(method, "HEAD") == 0;
    if (fcgi_is_refused(r->client))
        return refuse_overload(r);
    enum problem problem =
        uri ? route_find(r->requests->parts.conf, uri, &r->target) : PROBLEM_BAD_REQUEST;
    if (problem == PROBLEM_NOT_FOUND)
        return refuse(r, problem);
    if (method == NULL || (!r->facts.head_only && strcmp(method, "GET") != 0))
        return refuse(r, PROBLEM_METHOD);
    return problem == PROBLEM_NONE ? AUTHORIZE : refuse(r, problem);
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

static enum step look_in_memory(struct request *r)
{
    struct snapshot *found = fetches_look(r->requests->parts.fetches, &r->target.task, r->facts.now_ms);
    if (found == NULL)
        return JOIN_FETCH;
    if (!snapshot_is_fresh(found, r->facts.now_ms)) {
        r->last = snapshot_ref(found);
        return JOIN_FETCH;
    }
    r->facts.source = SOURCE_MEMORY;
    stat_inc(STAT_HITS_MEMORY);
    if (found->state == STATE_NONE)
        return refuse(r, PROBLEM_TASK_NOT_FOUND);
    r->snapshot = snapshot_ref(found);
    return RESPOND;
}

/* ---- join_fetch ---- */

static void stop_waiting(struct request *r)
{
    if (!r->waits)
        return;
    r->waits = false;
    fetch_leave(&r->waiter);
    uv_timer_stop(&r->deadline);
    DL_DELETE(r->requests->waiting, r);
    r->requests->n_waiting--;
    stat_dec(STAT_WAITERS);
}

static void on_deadline(uv_timer_t *timer)
{
    struct request *r = CONTAINER_OF(timer, struct request, deadline);
    r->facts.problem = PROBLEM_UPSTREAM_TIMEOUT;
    run(r);
}

static void take_result(struct request *r, const struct fetch_result *result)
{
    if (result->snapshot != NULL)
        r->snapshot = snapshot_ref(result->snapshot);
    if (result->from_redis)
        r->facts.source = SOURCE_REDIS;
    r->facts.stored = result->stored;
    r->facts.problem = result->problem;
    r->facts.retry_after_ms = result->retry_after_ms;
    if (result->last != NULL) {
        snapshot_unref(r->last);
        r->last = snapshot_ref(result->last);
    }
}

static void on_fetched(struct fetch_waiter *waiter, const struct fetch_result *result)
{
    struct request *r = CONTAINER_OF(waiter, struct request, waiter);
    take_result(r, result);
    run(r);
}

static void on_gone(void *user)
{
    struct request *r = user;
    stat_inc(STAT_REQUESTS_GONE);
    r->client = NULL;
    run(r);
}

static void start_waiting(struct request *r)
{
    const struct conf *conf = r->requests->parts.conf;
    int64_t most_ms = conf->redis.timeout_ms + r->target.task.route->upstream->timeout_ms + GRACE_MS;
    r->waits = true;
    DL_APPEND(r->requests->waiting, r);
    r->requests->n_waiting++;
    stat_inc(STAT_WAITERS);
    uv_timer_init(r->requests->parts.loop, &r->deadline);
    uv_timer_start(&r->deadline, on_deadline, (uint64_t)most_ms, 0);
    fcgi_on_gone(r->client, on_gone, r);
}

static enum step join_fetch(struct request *r)
{
    struct requests *rs = r->requests;
    if (rs->n_waiting >= rs->parts.conf->limits.waiters)
        return refuse_overload(r);
    r->waiter.on_fetched = on_fetched;
    enum fetch_join joined = fetch_join(rs->parts.fetches, &r->target.task, &r->waiter);
    if (joined == FETCH_REFUSED)
        return refuse_overload(r);
    if (joined == FETCH_COLLAPSED) {
        r->facts.source = SOURCE_COLLAPSED;
        stat_inc(STAT_COLLAPSED);
    }
    start_waiting(r);
    r->step = RESPOND;
    return WAIT;
}

/* ---- respond ---- */

/* Failures in which an old snapshot is better than none. Not where the upstream has said something of the task, or of
 * our right to it. */
static bool is_excusable(enum problem problem)
{
    return problem == PROBLEM_UPSTREAM_ERROR || problem == PROBLEM_UPSTREAM_INVALID ||
           problem == PROBLEM_UPSTREAM_TIMEOUT || problem == PROBLEM_UNAVAILABLE || problem == PROBLEM_OVERLOADED;
}

static void count_answer(int status)
{
    static const enum stat_id classes[] = {STAT_ANSWERS_2XX, STAT_ANSWERS_3XX, STAT_ANSWERS_4XX, STAT_ANSWERS_5XX};
    stat_inc(classes[status / 100 - 2]);
}

static enum step respond(struct request *r)
{
    stop_waiting(r);
    if (r->client == NULL)
        return DONE;
    struct answer answer;
    r->facts.now_ms = wall_ms();
    const struct snapshot *shown = r->snapshot;
    if (shown == NULL && is_excusable(r->facts.problem) && r->last != NULL && r->last->state != STATE_NONE &&
        r->facts.now_ms < r->last->keep_until_ms) {
        shown = r->last;
        r->facts.source = SOURCE_STALE;
        stat_inc(STAT_STALE);
    }
    if (shown != NULL)
        answer_view(&answer, &r->facts, shown, r->target.view);
    else
        answer_problem(&answer, &r->facts);
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
    snapshot_unref(r->snapshot);
    snapshot_unref(r->last);
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
                                                           [JOIN_FETCH] = join_fetch,
                                                           [RESPOND] = respond};
    static const char *const names[] = {"route", "authorize", "look_in_memory", "join_fetch", "respond", "wait", "done"};
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
