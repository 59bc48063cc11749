/* upstream: see upstream.h.
 *
 *     upstream_get --> queue, while max_in_flight run --> key pool, breaker --granted--> http_get --> on_answer
 *                      |   '-- on_turn: paused --resume--^      '--refused--> on_answer     '-- time-out --> on_answer
 *                      '-- time-out --> on_answer
 *
 * The callback of a query that is not sent comes on the next loop iteration.
 *
 * The system may stop a worker for longer than a time-out. Then curl would time out before it reads the answer that
 * has come meanwhile, so the time-outs are set here: the loop polls the sockets once more before a query times out. */
#include "upstream/upstream.h"

#include <stdlib.h>
#include <string.h>

#include <utlist.h>

#include "access/quota.h"
#include "upstream/breaker.h"
#include "lib/log.h"
#include "lib/stats.h"
#include "lib/trace.h"

/* With less time left than this, a query is not sent: it would only time out. */
enum { LEFT_LEAST_MS = 5, ERROR_TEXT_MAX = 1024 };

/* The queries of one team at one upstream. */
struct share {
    const struct team *team; /* (ref) NULL: queries for no team */
    int64_t in_flight;
    int64_t queued;
    char *last_failed;      /* the URL of the seen task whose answer was a 5xx last, or NULL */
    struct breaker breaker; /* in loop time */
};

/* One upstream of the configuration. */
struct origin {
    struct upstreams *upstreams;      /* (ref) */
    const struct conf_upstream *conf; /* (ref) */
    struct share *shares;             /* of no team, and of each team in their order */
    int64_t in_flight;
    bool multiplexes;              /* its last answer came over HTTP/2 */
    struct upstream_call *running; /* queries under way, the oldest first */
    struct upstream_call *queue;   /* queries that wait to be sent, the oldest first */
    struct upstream_call *paused;  /* queries that count as in flight, and are sent when they are resumed */
    uv_timer_t timer;              /* for the time-out of the oldest query */
    int64_t polled_from_ms;        /* loop time since when the sockets are polled before it fires */
    struct bucket bucket;          /* in loop time */
    struct error_notes notes;      /* in loop time */
    struct keypool pool;           /* in loop time */
    struct jwt *tokens;            /* as many as keys */
    struct upstream_stats stats;
};

struct upstream_call {
    struct origin *origin; /* (ref) */
    struct share *share;   /* (ref) */
    bool seen;
    struct upstream_call *prev, *next;
    struct upstream_call **list;    /* the list it is in */
    const struct conf_route *route; /* (ref) */
    struct key_choice *choice;      /* (ref) the caller's */
    char *url;
    struct http_answer refusal; /* if it is not sent */
    int64_t begun_ms;           /* loop time */
    uint64_t sent_ns;           /* uv_hrtime */
    struct trace trace;         /* the trace it belongs to */
    struct http_call *http;     /* NULL while it waits */
    bool (*on_turn)(void *turn_user);
    void *turn_user;
    upstream_callback *on_answer;
    void *user;
};

struct upstreams {
    uv_loop_t *loop;         /* (ref) */
    const struct conf *conf; /* (ref) */
    size_t n_shares;         /* at each upstream */
    bool shared;             /* there are several teams */
    struct http *http;
    struct origin **origins;          /* as many as conf->upstreams */
    struct upstream_call *refused;    /* queries that are not sent; their callbacks are due */
    uv_timer_t refusals;              /* for their callbacks */
    struct log_once unknown_statuses; /* values that were logged */
};

static void start_next(struct origin *origin);
static void on_timer(uv_timer_t *timer);
static void on_refusals(uv_timer_t *timer);

static int64_t now_ms(const struct origin *origin)
{
    return (int64_t)uv_now(origin->upstreams->loop);
}

/* ---- the lists: a query is in one of them until it ends ---- */

/* Counts a query that enters (1) or leaves (-1) its list. Paused queries count as in flight. */
static void count(const struct upstream_call *call, int n)
{
    struct origin *origin = call->origin;
    if (call->list == &origin->queue) {
        call->share->queued += n;
    } else if (call->list != &origin->upstreams->refused) {
        call->share->in_flight += n;
        origin->in_flight += n;
    }
}

static int by_age(const struct upstream_call *a, const struct upstream_call *b)
{
    return a->begun_ms <= b->begun_ms ? -1 : 1;
}

static void enter(struct upstream_call *call, struct upstream_call **list)
{
    call->list = list;
    if (list == &call->origin->running)
        DL_INSERT_INORDER(*list, call, by_age);
    else
        DL_APPEND(*list, call);
    count(call, 1);
}

static void leave(struct upstream_call *call)
{
    DL_DELETE(*call->list, call); // NOLINT(clang-analyzer-core.NullDereference): it is in the list
    count(call, -1);
}

static void call_free(struct upstream_call *call)
{
    free(call->url);
    free(call);
}

/* ---- how a query ends ---- */

static void leave_upstream(struct upstream_call *call)
{
    call->http = NULL;
    upstream_stats_left(&call->origin->stats, (int64_t)(uv_hrtime() - call->sent_ns));
}

static void end(struct upstream_call *call, const struct http_answer *answer)
{
    leave(call);
    call->on_answer(call->user, call, answer);
    call_free(call);
}

static void on_http_answer(void *user, const struct http_answer *answer)
{
    struct upstream_call *call = user;
    struct origin *origin = call->origin;
    const struct trace trace = call->trace, *outer = trace_enter(&trace);
    origin->multiplexes = answer->multiplexed;
    leave_upstream(call);
    end(call, answer);
    trace_enter(outer);
    start_next(origin);
}

/* ---- time-outs: that of all queries is the same, so the oldest times out first ---- */

static int64_t left_ms(const struct upstream_call *call)
{
    return call->begun_ms + call->origin->conf->timeout_ms - now_ms(call->origin);
}

/* Starts the timer, unless it fires early enough. The loop polls the sockets before a timer of 1 ms fires. */
static void set_timer(struct origin *origin)
{
    const struct upstream_call *oldest = origin->running, *queued = origin->queue;
    if (oldest == NULL || (queued != NULL && queued->begun_ms < oldest->begun_ms))
        oldest = queued;
    if (oldest == NULL)
        return;
    int64_t pause_ms = left_ms(oldest) > 1 ? left_ms(oldest) : 1;
    if (uv_is_active((uv_handle_t *)&origin->timer) &&
        (int64_t)uv_timer_get_due_in(&origin->timer) <= pause_ms)
        return;
    origin->polled_from_ms = now_ms(origin);
    uv_timer_start(&origin->timer, on_timer, (uint64_t)pause_ms, 0);
}

static void time_out(struct upstream_call *call)
{
    http_cancel(call->http);
    on_http_answer(call, &(struct http_answer){.outcome = OUTCOME_TIMEOUT, .body = ""});
}

/* ---- how a query begins ---- */

static void add_template(struct buf *headers, const struct upstream_call *call, const char *name,
                         const char *value)
{
    struct origin *origin = call->origin;
    size_t key = call->choice->key;
    headers_add_template(headers, name, value, conf_keys(origin->conf)[key].text, &origin->tokens[key],
                         wall_ms() / 1000);
}

static void make_headers(const struct upstream_call *call, struct buf *headers)
{
    const struct provider *provider = call->route->provider;
    const struct pair *pairs = provider->headers.items;
    buf_init_secret(headers, HEADERS_MAX);
    headers_add(headers, "Accept", "application/json");
    for (size_t i = 0; i < provider->headers.n; i++)
        add_template(headers, call, pairs[i].name, pairs[i].value);
    add_template(headers, call, provider->auth.header, provider->auth.value);
    if (call->trace.parent[0] != '\0')
        headers_add(headers, "traceparent", call->trace.parent);
}

static void send_query(struct upstream_call *call)
{
    struct origin *origin = call->origin;
    const struct conf_upstream *conf = origin->conf;
    struct buf headers;
    make_headers(call, &headers);
    const struct http_request request = {.url = call->url,
                                         .headers = headers.data,
                                         .ca = conf->ca ? conf->ca->data : NULL,
                                         .ca_len = conf->ca ? conf->ca->len : 0,
                                         .allowed = conf->allowed,
                                         .connect_timeout_ms = conf->connect_timeout_ms,
                                         .max_body = conf->max_body,
                                         .multiplexes = origin->multiplexes};
    call->http = http_get(origin->upstreams->http, &request, on_http_answer, call);
    buf_done_secret(&headers);
    call->sent_ns = uv_hrtime();
    upstream_stats_sent(&origin->stats, call->choice->key);
    enter(call, &origin->running);
    set_timer(origin);
}

/* The callback comes later, never from within upstream_get. */
static void refuse(struct upstream_call *call, enum outcome outcome, int64_t retry_after_ms)
{
    struct upstreams *u = call->origin->upstreams;
    call->refusal = (struct http_answer){.outcome = outcome, .body = "", .retry_after_ms = retry_after_ms};
    enter(call, &u->refused);
    uv_timer_start(&u->refusals, on_refusals, 0, 0);
}

static void on_refusals(uv_timer_t *timer)
{
    struct upstreams *u = CONTAINER_OF(timer, struct upstreams, refusals);
    while (u->refused != NULL)
        end(u->refused, &u->refused->refusal);
}

/* Takes the key last: a query that is not sent must not use up the probe of a suspended key. */
static void start(struct upstream_call *call)
{
    struct origin *origin = call->origin;
    int64_t held_ms;
    if (!call->choice->stays && !keypool_has(&origin->pool, call->choice, now_ms(origin)))
        refuse(call, OUTCOME_NO_KEY, 0);
    else if ((held_ms = breaker_try(&call->share->breaker, &origin->bucket, call->seen, now_ms(origin))) > 0)
        refuse(call, OUTCOME_HELD, held_ms);
    else if (keypool_take(&origin->pool, call->choice, now_ms(origin)))
        send_query(call);
}

/* ---- the queue ---- */

/* Whether the next query of the share may run now. */
static bool has_room(const struct origin *origin, const struct share *share)
{
    return quota_may_take(share->in_flight, 1, origin->conf->max_in_flight - origin->in_flight,
                          origin->upstreams->shared);
}

static void refuse_late(struct origin *origin)
{
    struct upstream_call *call;
    while ((call = origin->queue) != NULL && left_ms(call) < LEFT_LEAST_MS) {
        leave(call);
        refuse(call, OUTCOME_QUEUE_TIMEOUT, 0);
    }
}

static void on_timer(uv_timer_t *timer)
{
    struct origin *origin = CONTAINER_OF(timer, struct origin, timer);
    const int64_t polled_from_ms = origin->polled_from_ms;
    struct upstream_call *call;
    refuse_late(origin);
    while ((call = origin->running) != NULL && call->begun_ms + origin->conf->timeout_ms <= polled_from_ms)
        time_out(call);
    set_timer(origin);
}

/* Whether a query of the queue may run now. Looks at the shares: a team at its limit may have thousands of queries
 * in the queue. */
static bool can_start(const struct origin *origin)
{
    for (size_t i = 0; i < origin->upstreams->n_shares; i++) {
        if (origin->shares[i].queued > 0 && has_room(origin, &origin->shares[i]))
            return true;
    }
    return false;
}

/* The oldest query of the queue that may run now, or NULL. */
static struct upstream_call *find_next(const struct origin *origin)
{
    struct upstream_call *call = origin->queue;
    if (call == NULL || !can_start(origin))
        return NULL;
    while (call != NULL && !has_room(origin, call->share))
        call = call->next;
    return call;
}

static void resume(struct upstream_call *call)
{
    leave(call);
    if (left_ms(call) < LEFT_LEAST_MS)
        refuse(call, OUTCOME_QUEUE_TIMEOUT, 0);
    else
        start(call);
}

static void start_next(struct origin *origin)
{
    struct upstream_call *call;
    refuse_late(origin);
    while ((call = find_next(origin)) != NULL) {
        leave(call);
        enter(call, &origin->paused);
        if (call->on_turn(call->turn_user))
            resume(call);
    }
    set_timer(origin);
}

void upstream_resume(struct upstream_call *call)
{
    struct origin *origin = call->origin;
    resume(call);
    start_next(origin);
}

static struct share *share_of(const struct origin *origin, const struct team *team)
{
    size_t index = team ? (size_t)(team - teams_at(&origin->upstreams->conf->teams, 0)) + 1 : 0;
    return &origin->shares[index];
}

struct upstream_call *upstream_get(struct upstreams *u, const struct upstream_query *query,
                                   upstream_callback *on_answer, void *user)
{
    struct origin *origin = u->origins[query->route->upstream - conf_upstream(u->conf, 0)];
    struct upstream_call *call = xcalloc(1, sizeof(*call));
    *call = (struct upstream_call){.origin = origin,
                                   .share = share_of(origin, query->team),
                                   .seen = query->seen,
                                   .route = query->route,
                                   .choice = query->choice,
                                   .url = xasprintf("%s%s", origin->conf->base_url, query->target),
                                   .begun_ms = now_ms(origin),
                                   .trace = trace_now(),
                                   .on_turn = query->on_turn,
                                   .turn_user = query->turn_user,
                                   .on_answer = on_answer,
                                   .user = user};
    if (call->share->queued == 0 && has_room(origin, call->share)) {
        start(call);
    } else {
        enter(call, &origin->queue);
        set_timer(origin);
        query->on_queued(query->turn_user);
    }
    return call;
}

bool upstream_join(struct upstream_call *call, const struct team *team)
{
    struct share *share = share_of(call->origin, team);
    if (call->list != &call->origin->queue || share->queued >= call->share->queued ||
        share->breaker.state != BREAKER_CLOSED)
        return false;
    count(call, -1);
    call->share = share;
    count(call, 1);
    start_next(call->origin);
    return true;
}

void upstream_cancel(struct upstream_call *call)
{
    struct origin *origin = call->origin;
    bool was_paused = call->list == &origin->paused;
    if (call->http != NULL) {
        http_cancel(call->http);
        leave_upstream(call);
        upstream_learn(call, NULL, OUTCOME_CANCELLED, NULL);
    }
    leave(call);
    call_free(call);
    if (was_paused)
        start_next(origin);
}

/* ---- what a query has shown ---- */

/* Whether a rejection of the key may concern the task alone. Such rejections do not suspend the key, which all teams
 * share, but open the team's breaker, so that a revoked key is not sent with each query for a new task. */
static bool may_concern_task(const struct upstream_call *call, enum outcome outcome)
{
    const struct origin *origin = call->origin;
    return outcome == OUTCOME_REFUSED && !call->seen &&
           keypool_trusts(&origin->pool, call->choice, now_ms(origin));
}

/* True when the key was suspended or came back. */
static bool teach_pool(struct upstream_call *call, const struct http_answer *answer, enum key_lesson lesson)
{
    struct origin *origin = call->origin;
    size_t key = call->choice->key;
    int64_t rest_ms = answer ? answer->retry_after_ms : 0;
    bool changed = keypool_learn(&origin->pool, call->choice, lesson, rest_ms, now_ms(origin));
    if (lesson == KEY_REFUSED || lesson == KEY_DOUBTED)
        series_add(origin->stats.keys[key].refusals, 1);
    upstream_stats_keys(&origin->stats, &origin->pool, now_ms(origin));
    return changed;
}

static void report(struct upstream_call *call, const struct http_answer *answer, enum outcome outcome,
                   const char *why)
{
    struct origin *origin = call->origin;
    const struct outcome_details details = {.status = answer->status,
                                            .key = conf_key_name(origin->conf, call->choice->key),
                                            .pause_ms = origin->pool.keys[call->choice->key].rests_until_ms -
                                                        now_ms(origin),
                                            .why = why};
    struct buf error;
    buf_init(&error, ERROR_TEXT_MAX);
    outcome_describe(outcome, &details, &error);
    if (error_note(&origin->notes, error.data, now_ms(origin))) {
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

/* The end is logged with the next good answers. */
static void log_exhaustion(struct origin *origin)
{
    if (keypool_is_exhausted(&origin->pool, now_ms(origin)) &&
        log_once(&origin->notes.logged, "every key", now_ms(origin)))
        log_warn("upstream %s: every API key is suspended or paused", origin->conf->name);
}

/* An upstream that fails for one task again and again, or for a task that was never seen, may be well
 * otherwise. */
static bool concerns_task(struct upstream_call *call)
{
    struct share *share = call->share;
    if (!call->seen)
        return true;
    bool same_task = share->last_failed != NULL && strcmp(share->last_failed, call->url) == 0;
    free(share->last_failed);
    share->last_failed = xstrdup(call->url);
    return same_task;
}

static void set_breaker_stats(struct origin *origin)
{
    int64_t open = 0, proven = 0;
    for (size_t i = 0; i < origin->upstreams->n_shares; i++) {
        const struct breaker *breaker = &origin->shares[i].breaker;
        open += breaker->state != BREAKER_CLOSED;
        proven += breaker->state != BREAKER_CLOSED && now_ms(origin) - breaker->tried_ms < PROVEN_MS;
    }
    series_set(origin->stats.breaker_open, proven > 0);
    series_set(origin->stats.breaker_unproven, open > 0 && proven == 0);
}

static void teach_breaker(struct upstream_call *call, enum outcome outcome, enum breaker_lesson lesson)
{
    struct origin *origin = call->origin;
    struct breaker *breaker = &call->share->breaker;
    const char *of = call->share->team ? " for team " : "",
               *team = call->share->team ? call->share->team->name : "";
    double random = (double)rand() / ((double)RAND_MAX + 1);
    if (outcome == OUTCOME_SERVER_ERROR && concerns_task(call))
        lesson = BREAKER_NOTHING;
    if (!breaker_learn(breaker, lesson, call->seen, random, now_ms(origin)))
        return;
    bool closed = breaker->state == BREAKER_CLOSED;
    set_breaker_stats(origin);
    if (closed)
        log_info("upstream %s recovered%s%s; sending it all queries again", origin->conf->name, of, team);
    else
        log_warn("upstream %s failed %lld times in a row%s%s; only probing it until it recovers",
                 origin->conf->name, (long long)breaker->failures, of, team);
}

void upstream_learn(struct upstream_call *call, const struct http_answer *answer, enum outcome outcome,
                    const char *why)
{
    upstream_stats_count(&call->origin->stats, outcome);
    if (outcome_row(outcome)->kind == KIND_UNSENT)
        return;
    bool doubted = may_concern_task(call, outcome);
    bool key_changed = teach_pool(call, answer, doubted ? KEY_DOUBTED : outcome_row(outcome)->key);
    if (answer != NULL)
        report(call, answer, outcome, why);
    if (key_changed)
        log_key_change(call->origin, call->choice->key);
    log_exhaustion(call->origin);
    teach_breaker(call, outcome, doubted ? BREAKER_FAILED : outcome_row(outcome)->breaker);
}

bool upstream_has_key(struct upstream_call *call, enum outcome *ret_outcome, int64_t *ret_retry_after_ms)
{
    const struct origin *origin = call->origin;
    if (keypool_has(&origin->pool, call->choice, now_ms(origin)))
        return true;
    *ret_outcome = keypool_outcome(&origin->pool, call->choice, now_ms(origin), ret_retry_after_ms);
    return false;
}

void upstream_secrets(const struct upstream_call *call, struct secrets *out)
{
    const struct origin *origin = call->origin;
    *out = (struct secrets){{NULL}};
    for (size_t i = 0; i < origin->pool.n; i++)
        headers_add_secrets(conf_keys(origin->conf)[i].text, &origin->tokens[i], out);
}

void upstream_note_status(struct upstream_call *call, const char *value)
{
    const char *provider = call->route->provider->name;
    struct log_once *logged = &call->origin->upstreams->unknown_statuses;
    char *status = xasprintf("%s: %s", provider, value);
    stat_inc(STAT_UNKNOWN_STATUS);
    if (log_once(logged, status, 0))
        log_warn("provider %s does not list the status %s; treating it as running%s", provider, value,
                 log_once_full(logged) ? "; further values are only counted" : "");
    free(status);
}

/* ---- all of them ---- */

static void share_init(struct share *share, const struct conf_upstream *conf, const struct team *team)
{
    share->team = team;
    breaker_init(&share->breaker, conf->breaker_failures, conf->breaker_pause_ms);
}

static struct origin *origin_new(struct upstreams *u, const struct conf_upstream *conf)
{
    struct origin *origin = xcalloc(1, sizeof(*origin));
    origin->shares = xcalloc(u->n_shares, sizeof(*origin->shares));
    for (size_t i = 0; i < u->n_shares; i++)
        share_init(&origin->shares[i], conf, i > 0 ? teams_at(&u->conf->teams, i - 1) : NULL);
    origin->upstreams = u;
    origin->conf = conf;
    origin->tokens = xcalloc(conf->keys.n, sizeof(*origin->tokens));
    uv_timer_init(u->loop, &origin->timer);
    keypool_init(&origin->pool, conf_keys(conf), conf->keys.n);
    bucket_init(&origin->bucket, conf->queries_per_second, u->shared, now_ms(origin));
    upstream_stats_init(&origin->stats, conf, &origin->pool);
    return origin;
}

static void cancel_all(struct upstream_call **list)
{
    while (*list != NULL)
        upstream_cancel(*list);
}

static void origin_free(struct origin *origin)
{
    cancel_all(&origin->running);
    cancel_all(&origin->queue);
    cancel_all(&origin->paused);
    for (size_t i = 0; i < origin->pool.n; i++)
        jwt_done(&origin->tokens[i]);
    free(origin->tokens);
    for (size_t i = 0; i < origin->upstreams->n_shares; i++)
        free(origin->shares[i].last_failed);
    free(origin->shares);
    upstream_stats_done(&origin->stats);
    close_and_free((uv_handle_t *)&origin->timer, origin);
}

struct upstreams *upstreams_new(uv_loop_t *loop, const struct conf *conf)
{
    struct upstreams *u = xcalloc(1, sizeof(*u));
    *u = (struct upstreams){.loop = loop, .conf = conf, .http = http_new(loop)};
    u->n_shares = 1 + conf->teams.list.n;
    u->shared = u->n_shares > 2;
    uv_timer_init(loop, &u->refusals);
    u->origins = xcalloc(conf->upstreams.n, sizeof(*u->origins));
    for (size_t i = 0; i < conf->upstreams.n; i++)
        u->origins[i] = origin_new(u, conf_upstream(conf, i));
    return u;
}

void upstreams_refresh_stats(struct upstreams *u)
{
    for (size_t i = 0; i < u->conf->upstreams.n; i++) {
        struct origin *origin = u->origins[i];
        upstream_stats_keys(&origin->stats, &origin->pool, now_ms(origin));
        set_breaker_stats(origin);
    }
}

void upstreams_free(struct upstreams *u)
{
    if (u == NULL)
        return;
    cancel_all(&u->refused);
    for (size_t i = 0; i < u->conf->upstreams.n; i++)
        origin_free(u->origins[i]);
    free(u->origins);
    http_free(u->http);
    close_and_free((uv_handle_t *)&u->refusals, u);
}
