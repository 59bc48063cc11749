/* upstream: see upstream.h.
 *
 *     upstream_get --> queue, while max_in_flight run --> key pool, breaker --granted--> http_get --> on_answer
 *                        '-- its time is over --> told so       '--refused--> told so
 *
 * Who is not sent is told so in the next turn of the loop. */
#include "upstream/upstream.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <utlist.h>

#include "upstream/http.h"
#include "upstream/breaker.h"
#include "lib/stats.h"
#include "lib/trace.h"

/* A query with less time than this would only be sent to be given up. */
enum { LEFT_LEAST_MS = 5 };

/* One upstream of the configuration. */
struct origin {
    struct upstreams *upstreams;      /* (ref) */
    const struct conf_upstream *conf; /* (ref) */
    int64_t in_flight;
    bool multiplexes;            /* its last answer came over HTTP/2 */
    struct upstream_call *queue; /* those that wait for their turn, the oldest first */
    uv_timer_t queue_timer;      /* the end of the oldest one's time */
    char *last_failed;           /* the URL that was answered with a 5xx last, or NULL */
    struct breaker breaker;      /* by the loop's time */
    struct keypool pool;         /* likewise */
    struct jwt *tokens;          /* as many as keys */
    struct upstream_stats stats;
};

struct upstream_call {
    struct upstreams *upstreams; /* (ref) */
    struct origin *origin;       /* (ref) */
    struct upstream_call *prev, *next;
    struct upstream_call **list;    /* which of the lists it is in */
    const struct conf_route *route; /* (ref) */
    struct key_turn *turn;          /* (ref) of who asks */
    char *url;
    struct upstream_answer unasked; /* what it is told when it is not sent */
    uint64_t begun_ms;              /* loop time */
    uint64_t sent_ns;               /* uv_hrtime */
    struct trace trace;             /* that it belongs to */
    struct http_call *http;         /* NULL while it waits */
    upstream_callback *on_answer;
    void *user;
};

struct upstreams {
    uv_loop_t *loop;         /* (ref) */
    const struct conf *conf; /* (ref) */
    struct http *http;
    struct origin *origins; /* as many as conf->upstreams */
    struct upstream_call *running;
    struct upstream_call *unasked; /* those that are not sent, to be told so */
    uv_timer_t unasked_timer;
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

/* ---- how it ends ---- */

/* What an answer says of the upstream: that it is there, whatever it thinks of the question, or that it
 * fails. */
static enum breaker_end breaker_of(const struct upstream_call *call, const struct http_answer *answer)
{
    if (answer->outcome == HTTP_OUT_OF_MEANS)
        return BREAKER_UNKNOWN;
    if (answer->outcome != HTTP_ANSWERED)
        return BREAKER_FAILED;
    if (answer->status < 500)
        return BREAKER_GOOD;
    /* An upstream that fails for one task again and again may be well otherwise. */
    struct origin *origin = call->origin;
    bool same_task = origin->last_failed != NULL && strcmp(origin->last_failed, call->url) == 0;
    free(origin->last_failed);
    origin->last_failed = xstrdup(call->url);
    return same_task ? BREAKER_UNKNOWN : BREAKER_FAILED;
}

static void leave_upstream(struct upstream_call *call, enum breaker_end end)
{
    struct origin *origin = call->origin;
    const char *name = origin->conf->name;
    double random = (double)rand() / ((double)RAND_MAX + 1);
    call->http = NULL;
    origin->in_flight--;
    upstream_stats_left(&origin->stats, (int64_t)(uv_hrtime() - call->sent_ns));
    if (!breaker_end(&origin->breaker, end, random, (int64_t)uv_now(call->upstreams->loop)))
        return;
    series_set(origin->stats.breaker_open, origin->breaker.state != BREAKER_CLOSED);
    if (origin->breaker.state == BREAKER_CLOSED)
        log_info("upstream %s is asked again", name);
    else
        log_warn("upstream %s has failed %lld times in a row: it is asked only now and then until it is back",
                 name, (long long)origin->breaker.failures);
}

/* What an answer came to, its reader counts. */
static void count_trouble(struct origin *origin, enum http_outcome outcome)
{
    static const enum upstream_end ends[] = {[HTTP_TIMED_OUT] = END_TIMEOUT,
                                             [HTTP_FAILED] = END_FAILED,
                                             [HTTP_UNUSABLE] = END_INVALID,
                                             [HTTP_OUT_OF_MEANS] = END_OUT_OF_MEANS};
    if (outcome != HTTP_ANSWERED)
        upstream_stats_end(&origin->stats, ends[outcome]);
}

static void on_http_answer(void *user, const struct http_answer *http)
{
    static const enum upstream_outcome outcomes[] = {[HTTP_ANSWERED] = UPSTREAM_ANSWERED,
                                                     [HTTP_TIMED_OUT] = UPSTREAM_TIMED_OUT,
                                                     [HTTP_FAILED] = UPSTREAM_FAILED,
                                                     [HTTP_UNUSABLE] = UPSTREAM_UNUSABLE,
                                                     [HTTP_OUT_OF_MEANS] = UPSTREAM_OUT_OF_MEANS};
    struct upstream_call *call = user;
    const struct upstream_answer answer = {.outcome = outcomes[http->outcome],
                                           .http_status = http->status,
                                           .body = http->body,
                                           .len = http->len,
                                           .retry_after_ms = http->retry_after_ms,
                                           .key = call->origin->pool.keys[call->turn->key].mark};
    struct origin *origin = call->origin;
    const struct trace *outer = trace_enter(&call->trace);
    origin->multiplexes = http->multiplexed;
    count_trouble(origin, http->outcome);
    if (http->trouble != NULL)
        upstream_report(call->upstreams, origin->conf, http->trouble);
    leave_upstream(call, breaker_of(call, http));
    call->on_answer(call->user, &answer); /* first: it may say that nothing more is to be asked */
    trace_enter(outer);
    call_free(call);
    start_next(origin);
}

/* ---- how it begins ---- */

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

static void on_unasked(uv_timer_t *timer)
{
    struct upstreams *u = timer->data;
    struct upstream_call *call;
    while ((call = u->unasked) != NULL) {
        call->on_answer(call->user, &call->unasked);
        call_free(call);
    }
}

/* Even this comes later, never from within upstream_get. */
static void tell_unasked(struct upstream_call *call, enum upstream_outcome outcome, int64_t retry_after_ms)
{
    static const enum upstream_unasked reasons[] = {[UPSTREAM_NO_KEY] = UNASKED_NO_KEY,
                                                    [UPSTREAM_HELD] = UNASKED_HELD,
                                                    [UPSTREAM_TIMED_OUT] = UNASKED_QUEUED};
    series_add(call->origin->stats.unasked[reasons[outcome]], 1);
    call->unasked =
        (struct upstream_answer){.outcome = outcome, .body = "", .retry_after_ms = retry_after_ms};
    enter_list(call, &call->upstreams->unasked);
    uv_timer_start(&call->upstreams->unasked_timer, on_unasked, 0, 0);
}

static void start(struct upstream_call *call)
{
    int64_t now_ms = (int64_t)uv_now(call->upstreams->loop), refused_ms;
    if (!keypool_take(&call->origin->pool, call->turn, now_ms))
        tell_unasked(call, UPSTREAM_NO_KEY, 0);
    else if ((refused_ms = breaker_ask(&call->origin->breaker, now_ms)) > 0)
        tell_unasked(call, UPSTREAM_HELD, refused_ms);
    else
        send_query(call);
}

/* ---- the queue: all have the same time, so the oldest one's ends first ---- */

static void on_queue_time(uv_timer_t *timer)
{
    struct origin *origin = timer->data;
    struct upstream_call *call;
    while ((call = origin->queue) != NULL && left_ms(call) < LEFT_LEAST_MS) {
        leave_list(call);
        tell_unasked(call, UPSTREAM_TIMED_OUT, 0);
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
            tell_unasked(call, UPSTREAM_TIMED_OUT, 0);
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
        upstream_stats_end(&call->origin->stats, END_CANCELLED);
        leave_upstream(call, BREAKER_UNKNOWN);
    }
    call_free(call);
}

/* ---- what is known of an upstream ---- */

void upstream_report(struct upstreams *u, const struct conf_upstream *upstream, const char *trouble)
{
    if (!breaker_note(&origin_of(u, upstream)->breaker, trouble, (int64_t)uv_now(u->loop)))
        return;
    if (trouble != NULL)
        log_warn("upstream %s: %s", upstream->name, trouble);
    else
        log_info("upstream %s answers again", upstream->name);
}

void upstream_count(struct upstreams *u, const struct conf_upstream *upstream, enum upstream_end end)
{
    upstream_stats_end(&origin_of(u, upstream)->stats, end);
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

/* ---- what is known of its keys ---- */

/* `changed`: it was set aside, or came back. */
static void report_key(struct upstreams *u, const struct conf_upstream *upstream, size_t i,
                       enum key_word word, bool changed)
{
    const char *name = conf_key_name(upstream, i);
    char trouble[160];
    if (word == KEY_REFUSED || word == KEY_DOUBTED) {
        series_add(origin_of(u, upstream)->stats.keys[i].refusals, 1);
        snprintf(trouble, sizeof(trouble), "it refused the key of %s", name);
        upstream_report(u, upstream, trouble);
    }
    if (!changed)
        return;
    if (word == KEY_REFUSED)
        log_warn("upstream %s: the key of %s is set aside, and probed now and then", upstream->name, name);
    else
        log_info("upstream %s takes the key of %s again", upstream->name, name);
    series_set(origin_of(u, upstream)->stats.keys[i].aside, word == KEY_REFUSED);
}

bool upstream_judge_key(struct upstreams *u, const struct conf_upstream *upstream, struct key_turn *turn,
                        enum key_word word, int64_t rest_ms)
{
    struct keypool *pool = &origin_of(u, upstream)->pool;
    int64_t now_ms = (int64_t)uv_now(u->loop);
    bool changed = keypool_said(pool, turn, word, rest_ms, now_ms);
    upstream_stats_resting(&origin_of(u, upstream)->stats, pool, now_ms);
    report_key(u, upstream, turn->key, word, changed);
    return word != KEY_GOOD && keypool_has(pool, turn, now_ms);
}

enum key_end upstream_key_end(struct upstreams *u, const struct conf_upstream *upstream,
                              const struct key_turn *turn, int64_t *ret_retry_after_ms)
{
    return keypool_end(&origin_of(u, upstream)->pool, turn, (int64_t)uv_now(u->loop), ret_retry_after_ms);
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
    uv_timer_init(loop, &u->unasked_timer);
    u->unasked_timer.data = u;
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

static void on_unasked_timer_closed(uv_handle_t *handle)
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
    while (u->unasked != NULL)
        upstream_cancel(u->unasked);
    for (size_t i = 0; i < u->conf->upstreams.n; i++) {
        while (u->origins[i].queue != NULL)
            upstream_cancel(u->origins[i].queue);
        uv_close((uv_handle_t *)&u->origins[i].queue_timer, on_queue_timer_closed);
    }
    http_free(u->http);
    uv_close((uv_handle_t *)&u->unasked_timer, on_unasked_timer_closed);
}
