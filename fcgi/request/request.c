/* request: see request.h. The steps of one request:
 *
 *     route -> authorize -> look_in_memory -> look_up -> hold -> respond
 *       |  |       |            ^    |          ^-'       ^-'|       ^
 *       |  |       '- take_ids -'    |                       '-> begin_stream -> stream --.
 *       |  |                         '-- the stream of a list ------^    |        ^-------'
 *       |  '-- take_hint --.                                             |
 *       '----- refused ----'---------------------------------------------'
 *
 * Most requests are about one task; /v1/tasks?ids= is about many, and each has a lookup, whose steps are in lookup.c.
 * A long poll is held until one of its tasks changes; a stream sends each change and each failure, and repeats failed
 * lookups. A step that refuses the request sets the problem and returns RESPOND. Only
 * run() changes the step and frees the request. */
#include "request/request.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <utlist.h>

#include "access/throttle.h"
#include "request/lookup.h"
#include "lib/descriptors.h"
#include "lib/stats.h"
#include "request/request_metrics.h"
#include "fetch/poller.h"
#include "request/client_request.h"
#include "request/stream.h"

enum { GRACE_MS = 250, RETRY_MS = 1000, HEARTBEAT_MS = 15000, EVENT_MAX = 16 * 1024 * 1024 };
enum { OPEN_MS = 1000 }; /* longest delay of a stream's headers while it has no event to send */
enum { DUE_MAX = 1000 }; /* due requests for one task that one loop iteration runs */

/* X(step, its function) */
#define STEPS(X)                                                                                             \
    X(ROUTE, route)                                                                                          \
    X(TAKE_HINT, take_hint)                                                                                  \
    X(AUTHORIZE, authorize)                                                                                  \
    X(TAKE_IDS, take_ids)                                                                                    \
    X(LOOK_IN_MEMORY, look_in_memory)                                                                        \
    X(LOOK_UP, look_up)                                                                                      \
    X(HOLD, hold)                                                                                            \
    X(BEGIN_STREAM, begin_stream)                                                                            \
    X(STREAM, stream)                                                                                        \
    X(RESPOND, respond)

#define STEP_ID(id, function)       id,
#define STEP_NAME(id, function)     #function,
#define STEP_FUNCTION(id, function) function,

enum step { STEPS(STEP_ID) WAIT, DONE };

/* The event stream of a request. */
struct stream {
    bool open;        /* the head was sent, and the stream was not closed */
    bool known;       /* the client knows a result of each task, so there may be no news: 204 */
    int64_t spoke_ms; /* loop time at which the last text was sent, or the stream began */
};

struct request {
    struct requests *requests;   /* (ref) */
    struct fcgi_request *client; /* (ref) NULL after the answer, or when the client has left */
    struct request *prev, *next; /* in the list of waiting requests */
    struct request *due_prev, *due_next;
    bool due;       /* it is in the list of due requests */
    enum step step; /* the next one to run */
    bool waits;     /* it is in the list, and has a timer */
    struct client_request asked;
    struct wait_slot wait_slot; /* of the team's limit of waiting requests */
    struct lookups lookups;
    int64_t until_ms;  /* wall time: when the client's link expires */
    char *linked;      /* the tasks of its link for a list; NULL: it has none */
    uint64_t begun_ms; /* loop time */
    uint64_t begun_ns; /* uv_hrtime */
    bool held;         /* it waits for a change */
    bool time_over;    /* the deadline has passed: answer with the current results */
    struct stream stream;
    uv_timer_t timer; /* the deadline, or when a stream has something to do */
    struct answer_facts facts;
    char id[ANSWER_ID_SIZE];
};

struct requests {
    struct requests_parts parts;
    struct lookups_parts lookups;
    struct poller *poller;
    struct request_metrics *metrics;
    struct throttle *throttle;
    struct request *waiting;
    int64_t n_waiting;   /* tasks that they wait for */
    struct request *due; /* requests that the next loop iterations run */
    uv_idle_t idle;      /* active while there are any */
    bool leaving;        /* no request is held any more */
};

static void run(struct request *r);

/* ---- due requests ----
 *
 * Requests for many tasks, and those that are held, run in the next loop iteration, each once however many
 * changes have come. One iteration runs one list, or DUE_MAX requests for one task: hits are answered between
 * lists, but the clients of one task get its news before those that were answered first come again. */

static void unschedule(struct request *r)
{
    if (r->due)
        DL_DELETE2(r->requests->due, r, due_prev, due_next);
    r->due = false;
}

static void on_loop_idle(uv_idle_t *idle)
{
    struct requests *rs = CONTAINER_OF(idle, struct requests, idle);
    struct request *r;
    size_t n = 0;
    while ((r = rs->due) != NULL && n < DUE_MAX) {
        n += r->facts.kind == ROUTE_MANY ? DUE_MAX : 1;
        run(r);
    }
    if (rs->due == NULL)
        uv_idle_stop(idle);
}

static void run_later(struct request *r)
{
    struct requests *rs = r->requests;
    if (r->due)
        return;
    r->due = true;
    DL_APPEND2(rs->due, r, due_prev, due_next);
    uv_idle_start(&rs->idle, on_loop_idle);
}

static void on_gone(void *user)
{
    struct request *r = user;
    stat_inc(STAT_REQUESTS_GONE);
    r->client = NULL;
    run(r);
}

static enum step refuse(struct request *r, enum problem problem)
{
    r->facts.problem = problem;
    return RESPOND;
}

/* A limit is reached. The answer has a Retry-After. */
static enum step refuse_overload(struct request *r)
{
    stat_inc(STAT_OVERLOADED);
    r->facts.retry_after_ms = RETRY_MS;
    r->asked.wait_s = 0; /* the wait was not granted, even if a stale view is served */
    return refuse(r, PROBLEM_OVERLOADED);
}

/* An address that has sent too many invalid credentials gets 429 in place of the problem. */
static enum step refuse_credential(struct request *r, enum credential kind, enum problem problem)
{
    int64_t left_ms = throttle_refused(r->requests->throttle, kind, fcgi_param(r->client, "REMOTE_ADDR"),
                                       (int64_t)uv_now(r->requests->parts.loop));
    if (left_ms == 0)
        return refuse(r, problem);
    r->facts.limit = THROTTLE_REFUSALS;
    r->facts.retry_after_ms = left_ms;
    return refuse(r, PROBLEM_THROTTLED);
}

/* ---- route ---- */

static enum step route(struct request *r)
{
    const struct conf *conf = r->requests->parts.conf;
    struct task *task = &r->lookups.only.task;
    enum problem problem = client_request_read(conf, r->client, &r->asked, &r->facts, task);
    answer_id(fcgi_param(r->client, "REQUEST_ID"), r->id);
    r->facts.request_id = r->id;
    if (fcgi_is_refused(r->client)) {
        descriptors_exhausted(EMFILE); /* the others are for queries */
        return refuse_overload(r);
    }
    if (problem == PROBLEM_NOT_FOUND && client_request_is_hook(r->asked.uri))
        return refuse_credential(r, CREDENTIAL_HOOK, problem);
    if (problem != PROBLEM_NONE)
        return refuse(r, problem);
    return r->facts.kind == ROUTE_HOOK ? TAKE_HINT : AUTHORIZE;
}

/* ---- take_hint: a webhook with the right secret ---- */

static enum step take_hint(struct request *r)
{
    size_t len;
    const char *body = fcgi_body(r->client, &len);
    struct task *task = &r->lookups.only.task;
    enum problem problem = client_request_hint(&r->asked, body, len, task);
    if (problem != PROBLEM_NONE)
        return refuse(r, problem);
    poller_hint(r->requests->poller, task);
    if (r->requests->parts.pass_hint != NULL)
        r->requests->parts.pass_hint(task->key, task->key_len);
    return RESPOND;
}

void requests_take_hint(struct requests *rs, const char *key)
{
    struct task task;
    if (!task_from_key(rs->parts.conf, key, &task))
        return;
    struct cache_result cached =
        cache_get(fetches_cache(rs->parts.fetches), &task, moment_now(rs->parts.loop));
    if (cached.snapshot != NULL || cached.problem != PROBLEM_NONE)
        poller_hint(rs->poller, &task);
}

/* ---- authorize ---- */

/* A wait ends when the link does. */
static void limit_wait(struct request *r)
{
    int64_t left_s = (r->until_ms - r->facts.now.date_ms) / 1000;
    if (r->asked.wait_s > left_s)
        r->asked.wait_s = left_s > 0 ? (int)left_s : 0;
}

static enum step authorize_lookups(struct request *r)
{
    lookups_authorize(&r->lookups, r->wait_slot.quota, r->linked);
    return LOOK_IN_MEMORY;
}

static enum step defer_list(struct request *r)
{
    r->step = TAKE_IDS;
    fcgi_on_gone(r->client, on_gone, r);
    run_later(r);
    return WAIT;
}

static enum step authorize(struct request *r)
{
    const struct conf *conf = r->requests->parts.conf;
    const struct task *task = r->facts.kind == ROUTE_MANY ? NULL : &r->lookups.only.task;
    struct caller caller;
    if (r->asked.preflight)
        return r->asked.foreign ? refuse(r, PROBLEM_ORIGIN) : RESPOND;
    enum problem problem =
        access_authenticate(conf, &r->asked.given, task, r->facts.now.date_ms / 1000, &caller);
    r->linked = caller.tasks;
    if (problem == PROBLEM_WRONG_TOKEN)
        return refuse_credential(r, CREDENTIAL_TOKEN, problem);
    if (problem == PROBLEM_WRONG_LINK)
        return refuse_credential(r, CREDENTIAL_LINK, problem);
    if (problem == PROBLEM_FORBIDDEN) {
        lookups_authorize(&r->lookups, quotas_of(r->requests->parts.quotas, caller.team), r->linked);
        lookups_each(&r->lookups, lookup_advance);
    }
    if (problem != PROBLEM_NONE)
        return refuse(r, problem);
    if (!access_is_origin(conf, caller.team, r->facts.origin))
        r->facts.origin = NULL;
    r->until_ms = caller.until_ms;
    limit_wait(r);
    if (r->until_ms != INT64_MAX)
        r->facts.repeat_ms = 0; /* nginx does not know when the link expires */
    r->facts.team = caller.team ? caller.team->name : NULL;
    r->wait_slot.quota = quotas_of(r->requests->parts.quotas, caller.team);
    r->facts.limit = quota_limit_of(r->wait_slot.quota, LIMIT_QUERIES);
    return r->facts.kind == ROUTE_MANY ? defer_list(r) : authorize_lookups(r);
}

/* ---- take_ids: a list, which is read only for an authorized client ---- */

static enum step take_ids(struct request *r)
{
    if (r->client == NULL)
        return RESPOND;
    return lookups_take_ids(&r->lookups, r->asked.uri) ? authorize_lookups(r) : refuse(r, PROBLEM_BAD_IDS);
}

/* ---- waiting: limits count the tasks that are waited for ---- */

static void count_waiting(struct request *r, int64_t n)
{
    r->requests->n_waiting += n;
    quota_add(r->wait_slot.quota, QUOTA_WAITERS, n);
}

static void start_waiting(struct request *r)
{
    if (r->waits)
        return;
    r->waits = true;
    DL_APPEND(r->requests->waiting, r);
    count_waiting(r, (int64_t)r->lookups.n);
    stat_inc(STAT_WAITERS);
    if (r->timer.loop == NULL)
        uv_timer_init(r->requests->parts.loop, &r->timer);
    fcgi_on_gone(r->client, on_gone, r);
}

static void stop_waiting(struct request *r)
{
    lookups_leave(&r->lookups);
    wait_slot_release(&r->wait_slot);
    if (!r->waits)
        return;
    r->waits = false;
    uv_timer_stop(&r->timer);
    DL_DELETE(r->requests->waiting, r);
    count_waiting(r, -(int64_t)r->lookups.n);
    stat_dec(STAT_WAITERS);
}

static bool too_many_wait(const struct request *r)
{
    int64_t left = r->requests->parts.conf->limits.waiters - r->requests->n_waiting;
    return !r->waits && !quota_has_room(r->wait_slot.quota, QUOTA_WAITERS, (int64_t)r->lookups.n, left);
}

/* The team is at its limit. No cached view is served, because clients would then poll without a pause. */
static enum step refuse_watcher(struct request *r)
{
    quota_refused(r->wait_slot.quota, LIMIT_WATCHERS);
    lookups_forget(&r->lookups);
    r->facts.limit = quota_limit_of(r->wait_slot.quota, LIMIT_WATCHERS);
    r->facts.retry_after_ms = RETRY_MS;
    return refuse(r, PROBLEM_TOO_MANY_WATCHERS);
}

static void on_update(struct lookups *lookups)
{
    struct request *r = CONTAINER_OF(lookups, struct request, lookups);
    if (r->held || r->stream.open || r->facts.kind == ROUTE_MANY)
        run_later(r);
    else
        run(r);
}

/* ---- look_in_memory ---- */

/* At the limit of waiting requests, no query is sent. Tasks in memory are still served. */
static enum step look_in_memory(struct request *r)
{
    bool found = lookups_each(&r->lookups, lookup_in_memory) == r->lookups.n;
    if (r->facts.kind == ROUTE_MANY && r->asked.stream)
        return BEGIN_STREAM;
    if (!found && too_many_wait(r)) {
        lookups_give_up(&r->lookups, PROBLEM_OVERLOADED);
        refuse_overload(r);
    }
    return LOOK_UP;
}

/* ---- look_up ---- */

static void on_fetch_deadline(uv_timer_t *timer)
{
    struct request *r = CONTAINER_OF(timer, struct request, timer);
    lookups_give_up(&r->lookups, PROBLEM_UPSTREAM_TIMEOUT);
    run(r);
}

/* This process may have been busy or descheduled until now. Then results may already be in the sockets, which
 * the loop polls before the grace period ends. */
static void on_fetch_late(uv_timer_t *timer)
{
    uv_timer_start(timer, on_fetch_deadline, GRACE_MS, 0);
}

/* The deadline is that of the fetches. Later waits need none, because Redis replies or times out. */
static enum step look_up(struct request *r)
{
    if (r->client == NULL)
        return RESPOND;
    if (lookups_each(&r->lookups, lookup_advance) == 0)
        return HOLD;
    if (!r->waits) {
        start_waiting(r);
        uv_timer_start(&r->timer, on_fetch_late, (uint64_t)lookups_timeout_ms(&r->lookups), 0);
    }
    r->step = LOOK_UP;
    return WAIT;
}

/* ---- hold ---- */

static void on_hold_over(uv_timer_t *timer)
{
    struct request *r = CONTAINER_OF(timer, struct request, timer);
    r->time_over = true;
    run_later(r);
}

/* The rest of the client's wait, which started when the request arrived. */
static uint64_t hold_ms(const struct request *r)
{
    uint64_t now = uv_now(r->requests->parts.loop), until = r->begun_ms + (uint64_t)r->asked.wait_s * 1000;
    return until > now ? until - now : 0;
}

static enum step hold(struct request *r)
{
    if (r->time_over) /* fetches may have begun to fail meanwhile */
        lookups_each(&r->lookups, lookup_again);
    if (r->client == NULL || r->time_over || r->facts.problem != PROBLEM_NONE ||
        (r->asked.wait_s == 0 && !r->asked.stream))
        return RESPOND;
    if (r->asked.stream && lookups_each(&r->lookups, lookup_can_stream) > 0)
        return BEGIN_STREAM;
    r->lookups.every_change = r->facts.if_none_match != NULL;
    if (r->asked.wait_s == 0 || r->requests->leaving || lookups_each(&r->lookups, lookup_watch) == 0 ||
        !lookups_are_known(&r->lookups, r->asked.view, r->facts.if_none_match))
        return RESPOND;
    if (too_many_wait(r)) {
        r->asked.wait_s = 0; /* the wait was not granted */
        return RESPOND;
    }
    if (!wait_slot_take(&r->wait_slot, (int64_t)r->lookups.n))
        return refuse_watcher(r);
    start_waiting(r);
    if (!r->held)
        uv_timer_start(&r->timer, on_hold_over, hold_ms(r), 0);
    r->held = true;
    r->step = HOLD;
    return WAIT;
}

/* ---- answers that clients do not read ---- */

static bool may_keep(const struct request *r, size_t len)
{
    int64_t left = r->requests->parts.conf->limits.unsent - stat_get(STAT_UNSENT_BYTES);
    return quota_has_room(r->wait_slot.quota, QUOTA_UNSENT_BYTES, (int64_t)len, left);
}

/* Replaces an answer that the client's team may leave unread, but for which there is no room. */
static void check_room(struct request *r, struct answer *answer)
{
    fcgi_account(r->client, quota_counter(r->wait_slot.quota, QUOTA_UNSENT_BYTES));
    size_t len = answer->head.len + body_len(&answer->body);
    if (len <= FCGI_RECORD_MAX || may_keep(r, len))
        return;
    answer_done(answer);
    refuse_overload(r);
    r->facts.source = SOURCE_NONE;
    answer_problem(answer, &r->facts);
}

/* ---- begin_stream ---- */

static enum step begin_stream(struct request *r)
{
    if (too_many_wait(r))
        return refuse_overload(r);
    if (!wait_slot_take(&r->wait_slot, (int64_t)r->lookups.n))
        return refuse_watcher(r);
    start_waiting(r);
    r->stream.spoke_ms = r->facts.now.ms;
    r->stream.known = stream_take_last_id(&r->lookups, r->asked.last_event_id);
    r->lookups.followed = r->lookups.every_change = true;
    return STREAM;
}

/* ---- stream ---- */

static bool link_has_expired(const struct request *r)
{
    return wall_ms() >= r->until_ms;
}

static void on_stream_time(uv_timer_t *timer)
{
    run(CONTAINER_OF(timer, struct request, timer));
}

/* For the head or the next heartbeat, the end of the client's link, or the next attempt for a task that could not be
 * served. */
static void start_stream_timer(struct request *r)
{
    int64_t now = r->facts.now.ms;
    int64_t due_ms = r->stream.spoke_ms + (r->stream.open ? HEARTBEAT_MS : OPEN_MS);
    due_ms = min64(due_ms, lookups_retry_at_ms(&r->lookups));
    int64_t left_ms = min64(due_ms - now, r->until_ms - wall_ms());
    uv_timer_start(&r->timer, on_stream_time, left_ms > 0 ? (uint64_t)left_ms : 0, 0);
}

static void open_stream(struct request *r)
{
    struct buf head;
    answer_stream_head(&r->facts, &head);
    fcgi_account(r->client, quota_counter(r->wait_slot.quota, QUOTA_UNSENT_BYTES));
    fcgi_stream(r->client, head.data, head.len);
    buf_done(&head);
    r->stream.open = true;
    stat_inc(STAT_STREAMS);
}

/* Sends the text, after the head if the stream is new. If the client has left or reads too slowly, it must not be used
 * any more. */
static void send_text(struct request *r, struct buf *text)
{
    if (!r->stream.open)
        open_stream(r);
    r->stream.spoke_ms = r->facts.now.ms;
    if (!fcgi_stream_send(r->client, text->data, text->len, may_keep(r, text->len)))
        r->client = NULL;
}

static void end_stream(struct request *r)
{
    if (!r->stream.open)
        return;
    if (r->client != NULL)
        fcgi_stream_end(r->client);
    r->stream.open = false;
    stat_dec(STAT_STREAMS);
}

/* How long the client may be sent nothing. A head goes out as soon as it is certain that the answer is not 204: a task
 * runs, or the client does not know one of them. */
static int64_t silence_ms(const struct request *r, size_t n_following)
{
    if (r->stream.open)
        return HEARTBEAT_MS;
    return r->stream.known && n_following == r->lookups.n_pending ? OPEN_MS : 0;
}

/* Writes what the client does not know. Without any news, it writes when to reconnect, because nginx sends a head only
 * together with data; later, a comment as a heartbeat. Returns whether the stream goes on. */
static bool write_stream(struct request *r, struct buf *text)
{
    if (r->stream.open && link_has_expired(r)) {
        stream_add_problem(text, PROBLEM_LINK_EXPIRED, r->id, 0);
        return false;
    }
    size_t n_following = lookups_each(&r->lookups, lookup_follow);
    bool moved = r->requests->leaving, goes_on = n_following > 0 && !moved;
    stream_add_news(&r->lookups, r->asked.view, text);
    if (goes_on && text->len == 0 && r->facts.now.ms >= r->stream.spoke_ms + silence_ms(r, n_following)) {
        if (r->stream.open)
            buf_puts(text, ": still here\n\n");
        else
            stream_add_retry(text, false);
    }
    if (!goes_on && (n_following > 0 || text->len > 0 || r->stream.open))
        stream_add_retry(text, moved);
    return goes_on;
}

static enum step stream(struct request *r)
{
    struct buf text;
    if (r->client == NULL)
        return RESPOND;
    buf_init(&text, EVENT_MAX);
    bool goes_on = write_stream(r, &text) && !text.failed;
    r->facts.no_content = text.len == 0 && !goes_on; /* 204 tells an EventSource not to reconnect */
    if (text.len > 0 && !text.failed)
        send_text(r, &text);
    buf_done(&text);
    if (r->client == NULL || !goes_on)
        return RESPOND;
    start_stream_timer(r);
    r->step = STREAM;
    return WAIT;
}

/* Instead of a refusal that may pass, the client gets a stream that ends at once, and comes again: an EventSource does
 * not reconnect after a status other than 200. */
static void refuse_stream(struct request *r)
{
    struct buf text;
    buf_init(&text, EVENT_MAX);
    stream_add_retry(&text, false);
    stream_add_problem(&text, r->facts.problem, r->id, r->facts.retry_after_ms);
    send_text(r, &text);
    buf_done(&text);
}

/* ---- respond ---- */

static void count(const struct request *r, int status, enum answer_source source)
{
    const struct conf_route *route = r->asked.hook ? r->asked.hook : r->lookups.only.task.route;
    int64_t took_ns = (int64_t)(uv_hrtime() - r->begun_ns);
    const struct request_metrics_request request = {
        r->facts.kind, route, status, source, r->held || r->stream.open, took_ns};
    request_metrics_count(r->requests->metrics, &request);
    log_debug("request %s: answered with %d after %lld ms", r->id, status, (long long)(took_ns / 1000000));
}

/* Chooses the answer function for the kind of request. */
static void make_answer(const struct request *r, struct answer *ret_answer)
{
    const struct answer_facts *facts = &r->facts;
    if (r->asked.preflight && facts->problem == PROBLEM_NONE)
        answer_preflight(ret_answer, facts, fcgi_param(r->client, "HTTP_ACCESS_CONTROL_REQUEST_HEADERS"));
    else if (facts->problem != PROBLEM_NONE && !lookups_have_view(&r->lookups))
        answer_problem(ret_answer, facts);
    else if (r->facts.kind == ROUTE_HOOK)
        answer_nothing(ret_answer, facts);
    else
        lookups_answer(&r->lookups, r->asked.view, facts, ret_answer);
}

static void give_answer(struct request *r)
{
    struct answer answer;
    r->facts.waited_s = r->asked.wait_s;
    make_answer(r, &answer);
    check_room(r, &answer);
    count(r, answer.status, answer.source);
    fcgi_send(r->client, answer.head.data, answer.head.len, &answer.body);
    answer_done(&answer);
}

static enum step respond(struct request *r)
{
    stop_waiting(r);
    if (r->client != NULL && r->asked.stream && problem_may_pass(r->facts.problem))
        refuse_stream(r);
    if (r->stream.open) {
        count(r, 200, r->facts.problem == PROBLEM_NONE ? lookups_source(&r->lookups) : SOURCE_NONE);
        end_stream(r);
    } else if (r->client == NULL) {
        count(r, REQUEST_METRICS_GONE, SOURCE_NONE);
    } else {
        give_answer(r);
    }
    return DONE;
}

/* ---- the driver ---- */

static void request_free(struct request *r)
{
    unschedule(r);
    stop_waiting(r);
    end_stream(r);
    lookups_done(&r->lookups);
    free(r->linked);
    if (r->timer.loop != NULL)
        close_and_free((uv_handle_t *)&r->timer, r);
    else
        free(r);
}

static void run(struct request *r)
{
    static enum step (*const steps[])(struct request *) = {STEPS(STEP_FUNCTION)};
    static const char *const names[] = {STEPS(STEP_NAME) "wait", "done"};
    const struct trace *outer = trace_enter(&r->asked.trace);
    r->facts.now = r->lookups.now = moment_now(r->requests->parts.loop);
    unschedule(r);
    enum step step = r->step;
    while (step != WAIT && step != DONE) {
        enum step next = steps[step](r);
        log_debug("request %s: %s -> %s", r->id, names[step], names[next]);
        step = next;
    }
    trace_enter(outer);
    if (step == DONE)
        request_free(r);
}

void request_serve(struct requests *rs, struct fcgi_request *client)
{
    struct request *r = xcalloc(1, sizeof(*r));
    r->requests = rs;
    r->client = client;
    r->step = ROUTE;
    lookups_init(&r->lookups, &rs->lookups, r->id);
    r->begun_ms = uv_now(rs->parts.loop);
    r->begun_ns = uv_hrtime();
    run(r);
}

/* ---- the requests of a worker ---- */

struct requests *requests_new(struct requests_parts parts)
{
    struct requests *rs = xcalloc(1, sizeof(*rs));
    rs->parts = parts;
    rs->poller = poller_new((struct poller_parts){.loop = parts.loop,
                                                  .conf = parts.conf,
                                                  .fetches = parts.fetches,
                                                  .on_idle = parts.on_idle,
                                                  .ctx = parts.ctx});
    rs->lookups = (struct lookups_parts){.conf = parts.conf,
                                         .fetches = parts.fetches,
                                         .ownership = parts.ownership,
                                         .poller = rs->poller,
                                         .on_update = on_update};
    rs->metrics = request_metrics_new(parts.conf);
    rs->throttle = throttle_new();
    uv_idle_init(parts.loop, &rs->idle);
    return rs;
}

void requests_release(struct requests *rs)
{
    struct request *r, *next;
    rs->leaving = true;
    DL_FOREACH_SAFE(rs->waiting, r, next)
    {
        if (r->held || r->step == STREAM) {
            r->time_over = true;
            run(r);
        }
    }
    poller_drain(rs->poller);
}

bool requests_are_busy(const struct requests *rs)
{
    return poller_is_busy(rs->poller);
}

static void drop(struct request *r)
{
    if (r->client != NULL)
        fcgi_on_gone(r->client, NULL, NULL);
    r->client = NULL;
    request_free(r);
}

void requests_free(struct requests *rs)
{
    if (rs == NULL)
        return;
    while (rs->waiting != NULL)
        drop(rs->waiting);
    while (rs->due != NULL)
        drop(rs->due);
    request_metrics_free(rs->metrics);
    throttle_free(rs->throttle);
    poller_free(rs->poller);
    close_and_free((uv_handle_t *)&rs->idle, rs);
}
