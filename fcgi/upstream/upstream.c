/* upstream: see upstream.h.
 *
 *     upstream_get --> queue, while max_in_flight run --> key pool, breaker --granted--> http_get --> on_answer
 *                        '-- time-out --> on_answer             '--refused--> on_answer
 *
 * The callback of a query that is not sent comes on the next loop iteration. */
#include "upstream/upstream.h"

#include <stdlib.h>
#include <string.h>

#include <utlist.h>

#include "upstream/http.h"
#include "upstream/breaker.h"
#include "lib/log_ratelimit.h"
#include "lib/stats.h"
#include "lib/trace.h"

/* With less time left than this, a query is not sent: it would only time out. */
enum { LEFT_LEAST_MS = 5, ERROR_TEXT_MAX = 1024 };

/* One upstream of the configuration. */
struct origin {
    struct upstreams *upstreams;      /* (ref) */
    const struct conf_upstream *conf; /* (ref) */
    int64_t in_flight;
    bool multiplexes;            /* its last answer came over HTTP/2 */
    struct upstream_call *queue; /* queries that wait for their turn, the oldest first */
    uv_timer_t queue_timer;      /* time-out of the oldest */
    char *last_failed;           /* the URL whose answer was a 5xx last, or NULL */
    struct breaker breaker;      /* in loop time */
    struct keypool pool;         /* in loop time */
    struct jwt *tokens;          /* as many as keys */
    struct upstream_stats stats;
};

struct upstream_call {
    struct upstreams *upstreams; /* (ref) */
    struct origin *origin;       /* (ref) */
    struct upstream_call *prev, *next;
    struct upstream_call **list;    /* the list it is in */
    const struct conf_route *route; /* (ref) */
    struct key_turn *turn;          /* (ref) the caller's */
    char *url;
    struct upstream_answer unsent; /* if it is not sent */
    uint64_t begun_ms;             /* loop time */
    uint64_t sent_ns;              /* uv_hrtime */
    struct trace trace;            /* the trace it belongs to */
    struct http_call *http;        /* NULL while it waits */
    upstream_callback *on_answer;
    void *user;
};

struct upstreams {
    uv_loop_t *loop;         /* (ref) */
    const struct conf *conf; /* (ref) */
    struct http *http;
    struct origin *origins; /* as many as conf->upstreams */
    struct upstream_call *running;
    struct upstream_call *unsent; /* queries that are not sent; their callbacks are due */
    uv_timer_t unsent_timer;
    struct log_once unknown_statuses; /* values that were logged */
    int open_handles;
};

static void start_next(struct origin *origin);

static struct origin *origin_of(struct upstreams *u, const struct conf_upstream *conf)
{
    return &u->origins[conf - conf_upstream(u->conf, 0)];
}

static void enter_list(struct upstream_call *call, struct upstream_call **list)
{
    call->list = list;
    DL_APPEND(*list, call);
}

static void leave_list(struct upstream_call *call)
{
    DL_DELETE(*call->list, call); // NOLINT(clang-analyzer-core.NullDereference): it is in the list
}

static void call_free(struct upstream_call *call)
{
    leave_list(call);
    free(call->url);
    free(call);
}

/* ---- how a query ends ---- */

static void leave_upstream(struct upstream_call *call)
{
    call->http = NULL;
    call->origin->in_flight--;
    upstream_stats_left(&call->origin->stats, (int64_t)(uv_hrtime() - call->sent_ns));
}

static void on_http_answer(void *user, const struct http_answer *http)
{
    struct upstream_call *call = user;
    struct origin *origin = call->origin;
    const struct upstream_answer answer = {.outcome = http->outcome,
                                           .http_status = http->status,
                                           .body = http->body,
                                           .len = http->len,
                                           .retry_after_ms = http->retry_after_ms,
                                           .key = origin->pool.keys[call->turn->key].mark,
                                           .why = http->why};
    const struct trace *outer = trace_enter(&call->trace);
    origin->multiplexes = http->multiplexed;
    leave_upstream(call);
    call->on_answer(call->user, call, &answer);
    trace_enter(outer);
    call_free(call);
    start_next(origin);
}

/* ---- how a query begins ---- */

static void add_template(struct headers *headers, const struct upstream_call *call, const char *name,
                         const char *value)
{
    struct origin *origin = call->origin;
    size_t key = call->turn->key;
    headers_add_template(headers, name, value, conf_keys(origin->conf)[key], &origin->tokens[key],
                         wall_ms() / 1000);
}

static void make_headers(const struct upstream_call *call, struct headers *headers)
{
    const struct provider *provider = call->route->provider;
    const struct pair *pairs = provider->headers.items;
    headers_init(headers);
    headers_add(headers, "Accept", "application/json");
    for (size_t i = 0; i < provider->headers.n; i++)
        add_template(headers, call, pairs[i].name, pairs[i].value);
    add_template(headers, call, provider->auth.header, provider->auth.value);
    if (call->trace.parent[0] != '\0')
        headers_add(headers, "traceparent", call->trace.parent);
}

static int64_t left_ms(const struct upstream_call *call)
{
    return call->origin->conf->timeout_ms - (int64_t)(uv_now(call->upstreams->loop) - call->begun_ms);
}

static void send_query(struct upstream_call *call)
{
    struct upstreams *u = call->upstreams;
    const struct conf_upstream *conf = call->origin->conf;
    struct headers headers;
    make_headers(call, &headers);
    const struct http_question question = {.url = call->url,
                                           .headers = headers.lines,
                                           .ca = conf->ca ? conf->ca->data : NULL,
                                           .ca_len = conf->ca ? conf->ca->len : 0,
                                           .allowed = conf->allowed,
                                           .timeout_ms = left_ms(call),
                                           .connect_timeout_ms = conf->connect_timeout_ms,
                                           .max_body = conf->max_body,
                                           .multiplexes = call->origin->multiplexes};
    call->http = http_get(u->http, &question, on_http_answer, call);
    headers_done(&headers);
    call->origin->in_flight++;
    call->sent_ns = uv_hrtime();
    upstream_stats_sent(&call->origin->stats);
    enter_list(call, &u->running);
}

static void on_unsent(uv_timer_t *timer)
{
    struct upstreams *u = timer->data;
    struct upstream_call *call;
    while ((call = u->unsent) != NULL) {
        call->on_answer(call->user, call, &call->unsent);
        call_free(call);
    }
}

/* The callback comes later, never from within upstream_get. */
static void refuse(struct upstream_call *call, enum outcome outcome, int64_t retry_after_ms)
{
    call->unsent = (struct upstream_answer){.outcome = outcome, .body = "", .retry_after_ms = retry_after_ms};
    enter_list(call, &call->upstreams->unsent);
    uv_timer_start(&call->upstreams->unsent_timer, on_unsent, 0, 0);
}

static void start(struct upstream_call *call)
{
    int64_t now_ms = (int64_t)uv_now(call->upstreams->loop), held_ms;
    if (!keypool_take(&call->origin->pool, call->turn, now_ms))
        refuse(call, OUTCOME_NO_KEY, 0);
    else if ((held_ms = breaker_ask(&call->origin->breaker, now_ms)) > 0)
        refuse(call, OUTCOME_HELD, held_ms);
    else
        send_query(call);
}

/* ---- the queue: all queries have the same time-out, so the oldest times out first ---- */

static void on_queue_time(uv_timer_t *timer)
{
    struct origin *origin = timer->data;
    struct upstream_call *call;
    while ((call = origin->queue) != NULL && left_ms(call) < LEFT_LEAST_MS) {
        leave_list(call);
        refuse(call, OUTCOME_QUEUE_TIMEOUT, 0);
    }
    if (call != NULL)
        uv_timer_start(timer, on_queue_time, (uint64_t)left_ms(call), 0);
}

static void start_next(struct origin *origin)
{
    struct upstream_call *call;
    while ((call = origin->queue) != NULL && origin->in_flight < origin->conf->max_in_flight) {
        leave_list(call);
        if (left_ms(call) < LEFT_LEAST_MS)
            refuse(call, OUTCOME_QUEUE_TIMEOUT, 0);
        else
            start(call);
    }
    if (call == NULL)
        uv_timer_stop(&origin->queue_timer);
}

struct upstream_call *upstream_get(struct upstreams *u, const struct conf_route *route, const char *target,
                                   struct key_turn *turn, upstream_callback *on_answer, void *user)
{
    struct origin *origin = origin_of(u, route->upstream);
    struct upstream_call *call = xcalloc(1, sizeof(*call));
    *call = (struct upstream_call){.upstreams = u,
                                   .origin = origin,
                                   .route = route,
                                   .turn = turn,
                                   .url = xasprintf("%s%s", origin->conf->base_url, target),
                                   .begun_ms = uv_now(u->loop),
                                   .trace = trace_now(),
                                   .on_answer = on_answer,
                                   .user = user};
    if (origin->queue == NULL && origin->in_flight < origin->conf->max_in_flight) {
        start(call);
    } else {
        if (origin->queue == NULL)
            uv_timer_start(&origin->queue_timer, on_queue_time, (uint64_t)left_ms(call), 0);
        enter_list(call, &origin->queue);
    }
    return call;
}

void upstream_cancel(struct upstream_call *call)
{
    if (call->http != NULL) {
        http_cancel(call->http);
        leave_upstream(call);
        upstream_learn(call, NULL, OUTCOME_CANCELLED, NULL);
    }
    call_free(call);
}

/* ---- what a query has shown ---- */

/* True when the key was suspended or came back. */
static bool teach_pool(struct upstream_call *call, const struct upstream_answer *answer, enum outcome outcome)
{
    struct origin *origin = call->origin;
    enum key_lesson lesson = outcome_row(outcome)->key;
    size_t key = call->turn->key;
    int64_t now_ms = (int64_t)uv_now(call->upstreams->loop), rest_ms = answer ? answer->retry_after_ms : 0;
    bool changed = keypool_learn(&origin->pool, call->turn, lesson, rest_ms, now_ms);
    series_set(origin->stats.keys[key].aside, origin->pool.keys[key].aside);
    if (lesson == KEY_REFUSED || lesson == KEY_DOUBTED)
        series_add(origin->stats.keys[key].refusals, 1);
    upstream_stats_resting(&origin->stats, &origin->pool, now_ms);
    return changed;
}

static void report(struct upstream_call *call, const struct upstream_answer *answer, enum outcome outcome,
                   const char *why)
{
    struct origin *origin = call->origin;
    int64_t now_ms = (int64_t)uv_now(call->upstreams->loop);
    const struct outcome_details details = {.status = answer->http_status,
                                            .key = conf_key_name(origin->conf, call->turn->key),
                                            .pause_ms =
                                                origin->pool.keys[call->turn->key].rests_until_ms - now_ms,
                                            .why = why};
    struct buf error;
    buf_init(&error, ERROR_TEXT_MAX);
    outcome_describe(outcome, &details, &error);
    if (breaker_note(&origin->breaker, error.data, now_ms)) {
        if (error.data != NULL)
            log_warn("upstream %s: %s", origin->conf->name, error.data);
        else
            log_info("upstream %s answers again", origin->conf->name);
    }
    buf_done(&error);
}

static void log_key_change(const struct origin *origin, size_t key)
{
    const char *upstream = origin->conf->name, *name = conf_key_name(origin->conf, key);
    if (origin->pool.keys[key].aside)
        log_warn("upstream %s: API key %s suspended; probing it now and then", upstream, name);
    else
        log_info("upstream %s: API key %s accepted again", upstream, name);
}

/* An upstream that fails for one task again and again may be well otherwise. */
static bool failed_here_before(struct upstream_call *call)
{
    struct origin *origin = call->origin;
    bool same_task = origin->last_failed != NULL && strcmp(origin->last_failed, call->url) == 0;
    free(origin->last_failed);
    origin->last_failed = xstrdup(call->url);
    return same_task;
}

static void teach_breaker(struct upstream_call *call, enum outcome outcome)
{
    struct origin *origin = call->origin;
    enum breaker_lesson lesson = outcome_row(outcome)->breaker;
    double random = (double)rand() / ((double)RAND_MAX + 1);
    if (outcome == OUTCOME_SERVER_ERROR && failed_here_before(call))
        lesson = BREAKER_NOTHING;
    if (!breaker_learn(&origin->breaker, lesson, random, (int64_t)uv_now(call->upstreams->loop)))
        return;
    series_set(origin->stats.breaker_open, origin->breaker.state != BREAKER_CLOSED);
    if (origin->breaker.state == BREAKER_CLOSED)
        log_info("upstream %s recovered; sending it all queries again", origin->conf->name);
    else
        log_warn("upstream %s failed %lld times in a row; only probing it until it recovers",
                 origin->conf->name, (long long)origin->breaker.failures);
}

void upstream_learn(struct upstream_call *call, const struct upstream_answer *answer, enum outcome outcome,
                    const char *why)
{
    upstream_stats_count(&call->origin->stats, outcome);
    if (outcome_row(outcome)->kind == KIND_UNSENT)
        return;
    bool key_changed = teach_pool(call, answer, outcome);
    if (answer != NULL)
        report(call, answer, outcome, why);
    if (key_changed)
        log_key_change(call->origin, call->turn->key);
    teach_breaker(call, outcome);
}

bool upstream_has_key(struct upstreams *u, const struct conf_upstream *upstream, const struct key_turn *turn)
{
    return keypool_has(&origin_of(u, upstream)->pool, turn, (int64_t)uv_now(u->loop));
}

enum outcome upstream_key_outcome(struct upstreams *u, const struct conf_upstream *upstream,
                                  const struct key_turn *turn, int64_t *ret_retry_after_ms)
{
    return keypool_outcome(&origin_of(u, upstream)->pool, turn, (int64_t)uv_now(u->loop), ret_retry_after_ms);
}

void upstream_note_status(struct upstreams *u, const struct provider *provider, const char *value)
{
    char *status = xasprintf("%s: %s", provider->name, value);
    stat_inc(STAT_UNKNOWN_STATUS);
    if (log_once(&u->unknown_statuses, status, 0))
        log_warn("provider %s does not list the status %s: taken as running%s", provider->name, value,
                 log_once_full(&u->unknown_statuses) ? "; further values are only counted" : "");
    free(status);
}

void upstreams_refresh_stats(struct upstreams *u)
{
    for (size_t i = 0; i < u->conf->upstreams.n; i++) {
        struct origin *origin = &u->origins[i];
        upstream_stats_resting(&origin->stats, &origin->pool, (int64_t)uv_now(u->loop));
    }
}

void upstream_secrets(struct upstreams *u, const struct conf_upstream *upstream, struct secrets *out)
{
    const struct origin *origin = origin_of(u, upstream);
    *out = (struct secrets){{NULL}};
    for (size_t i = 0; i < upstream->keys.n; i++)
        headers_add_secrets(conf_keys(upstream)[i], &origin->tokens[i], out);
}

/* ---- all of them ---- */

struct upstreams *upstreams_new(uv_loop_t *loop, const struct conf *conf)
{
    struct upstreams *u = xcalloc(1, sizeof(*u));
    *u = (struct upstreams){.loop = loop, .conf = conf, .http = http_new(loop)};
    u->origins = xcalloc(conf->upstreams.n, sizeof(*u->origins));
    for (size_t i = 0; i < conf->upstreams.n; i++) {
        const struct conf_upstream *upstream = conf_upstream(conf, i);
        const struct breaker_rules rules = {.breaker_failures = upstream->breaker_failures,
                                            .breaker_pause_ms = upstream->breaker_pause_ms,
                                            .per_second = upstream->queries_per_second};
        u->origins[i].upstreams = u;
        u->origins[i].conf = upstream;
        u->origins[i].tokens = xcalloc(upstream->keys.n, sizeof(*u->origins[i].tokens));
        keypool_init(&u->origins[i].pool, conf_keys(upstream), upstream->keys.n);
        upstream_stats_init(&u->origins[i].stats, upstream, &u->origins[i].pool);
        uv_timer_init(loop, &u->origins[i].queue_timer);
        u->origins[i].queue_timer.data = &u->origins[i];
        breaker_init(&u->origins[i].breaker, rules, (int64_t)uv_now(loop));
    }
    uv_timer_init(loop, &u->unsent_timer);
    u->unsent_timer.data = u;
    u->open_handles = 1 + (int)conf->upstreams.n;
    return u;
}

static void on_timer_closed(struct upstreams *u)
{
    if (--u->open_handles > 0)
        return;
    for (size_t i = 0; i < u->conf->upstreams.n; i++) {
        for (size_t k = 0; k < u->origins[i].pool.n; k++)
            jwt_done(&u->origins[i].tokens[k]);
        free(u->origins[i].tokens);
        upstream_stats_done(&u->origins[i].stats);
        free(u->origins[i].last_failed);
    }
    free(u->origins);
    free(u);
}

static void on_unsent_timer_closed(uv_handle_t *handle)
{
    on_timer_closed(handle->data);
}

static void on_queue_timer_closed(uv_handle_t *handle)
{
    on_timer_closed(((struct origin *)handle->data)->upstreams);
}

void upstreams_free(struct upstreams *u)
{
    if (u == NULL)
        return;
    while (u->running != NULL)
        upstream_cancel(u->running);
    while (u->unsent != NULL)
        upstream_cancel(u->unsent);
    for (size_t i = 0; i < u->conf->upstreams.n; i++) {
        while (u->origins[i].queue != NULL)
            upstream_cancel(u->origins[i].queue);
        uv_close((uv_handle_t *)&u->origins[i].queue_timer, on_queue_timer_closed);
    }
    http_free(u->http);
    uv_close((uv_handle_t *)&u->unsent_timer, on_unsent_timer_closed);
}
