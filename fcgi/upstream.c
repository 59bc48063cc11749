/* upstream: see upstream.h.
 *
 * curl's multi interface tells which sockets and which time-out it waits for (on_socket, on_timeout); the
 * loop tells curl when something happens; then finished transfers are read off. curl is never called from
 * inside its own callbacks. */
#include "upstream.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include <curl/curl.h>
#include <utlist.h>

#include "standing.h"
#include "stats.h"

enum { HEADER_MAX = 8192, HEADERS_LARGE = 256 * 1024 };

/* One upstream of the configuration. */
struct origin {
    const struct conf_upstream *conf; /* (ref) */
    int64_t in_flight;
    struct upstream_call *queue; /* those that wait for their turn, the oldest first */
    struct standing standing;    /* by the loop's time */
};

/* The headers of a route's queries. They hold the key, so where they are always the same they are made once.
 */
struct route_headers {
    struct curl_slist *list; /* NULL: made anew for each query */
    struct jwt jwt;
};

struct upstream_call {
    struct upstreams *upstreams; /* (ref) */
    struct origin *origin;       /* (ref) */
    struct upstream_call *prev, *next;
    const struct conf_route *route; /* (ref) */
    CURL *easy;                     /* NULL while it waits for its turn, or is held */
    struct upstream_call **list;    /* which of the lists it is in */
    uint64_t begun_ms;              /* loop time */
    struct curl_slist *headers;     /* its own, or NULL: those of the route */
    char *url;
    struct buf body;
    bool no_descriptor; /* none was left for its socket */
    upstream_callback *on_answer;
    void *user;
};

/* A socket that curl waits for. */
struct watch {
    struct upstreams *upstreams; /* (ref) */
    curl_socket_t socket;
    uv_poll_t poll;
};

struct upstreams {
    uv_loop_t *loop;         /* (ref) */
    const struct conf *conf; /* (ref) */
    CURLM *multi;
    struct origin *origins;        /* as many as conf->upstreams */
    struct route_headers *headers; /* as many as conf->routes */
    struct upstream_call *running;
    struct upstream_call *held; /* to be told so in the next turn of the loop */
    uv_timer_t timer;           /* curl's */
    uv_timer_t held_timer;
    int open_handles;
};

static void start_next(struct origin *origin);

/* ---- between curl and the loop ---- */

static void read_off_finished(struct upstreams *u);

static void on_watch_closed(uv_handle_t *handle)
{
    free(handle->data);
}

static void on_socket_ready(uv_poll_t *poll, int status, int events)
{
    struct watch *watch = poll->data;
    struct upstreams *u = watch->upstreams;
    int flags = status < 0 ? CURL_CSELECT_ERR : 0, running;
    if (events & UV_READABLE)
        flags |= CURL_CSELECT_IN;
    if (events & UV_WRITABLE)
        flags |= CURL_CSELECT_OUT;
    curl_multi_socket_action(u->multi, watch->socket, flags, &running);
    read_off_finished(u);
}

static void stop_watching(struct upstreams *u, struct watch *watch)
{
    curl_multi_assign(u->multi, watch->socket, NULL);
    uv_poll_stop(&watch->poll);
    uv_close((uv_handle_t *)&watch->poll, on_watch_closed);
}

static struct watch *start_watching(struct upstreams *u, curl_socket_t socket)
{
    struct watch *watch = xcalloc(1, sizeof(*watch));
    *watch = (struct watch){.upstreams = u, .socket = socket};
    watch->poll.data = watch;
    if (uv_poll_init(u->loop, &watch->poll, (int)socket) < 0) {
        free(watch);
        return NULL;
    }
    curl_multi_assign(u->multi, socket, watch);
    return watch;
}

static int on_socket(CURL *easy, curl_socket_t socket, int what, void *user, void *socket_data)
{
    (void)easy;
    struct upstreams *u = user;
    struct watch *watch = socket_data;
    if (what == CURL_POLL_REMOVE) {
        if (watch != NULL)
            stop_watching(u, watch);
        return 0;
    }
    if (watch == NULL)
        watch = start_watching(u, socket);
    if (watch == NULL)
        return -1;
    int events = (what & CURL_POLL_IN ? UV_READABLE : 0) | (what & CURL_POLL_OUT ? UV_WRITABLE : 0);
    uv_poll_start(&watch->poll, events, on_socket_ready);
    return 0;
}

static void on_curl_time(uv_timer_t *timer)
{
    struct upstreams *u = timer->data;
    int running;
    curl_multi_socket_action(u->multi, CURL_SOCKET_TIMEOUT, 0, &running);
    read_off_finished(u);
}

static int on_timeout(CURLM *multi, long timeout_ms, void *user)
{
    (void)multi;
    struct upstreams *u = user;
    if (timeout_ms < 0)
        uv_timer_stop(&u->timer);
    else
        uv_timer_start(&u->timer, on_curl_time, (uint64_t)timeout_ms,
                       0); /* 0: in the next turn of the loop */
    return 0;
}

/* ---- one query ---- */

/* Lists hold the key. */
static void free_headers(struct curl_slist *list)
{
    for (struct curl_slist *item = list; item != NULL; item = item->next)
        explicit_bzero(item->data, strlen(item->data));
    curl_slist_free_all(list);
}

static void call_free(struct upstream_call *call)
{
    free_headers(call->headers);
    free(call->url);
    buf_done(&call->body);
    free(call);
}

static void enter_list(struct upstream_call *call, struct upstream_call **list)
{
    call->list = list;
    DL_APPEND(*list, call);
}

/* Takes a running query out of curl. */
static void unplug(struct upstream_call *call)
{
    struct upstreams *u = call->upstreams;
    curl_multi_remove_handle(u->multi, call->easy);
    curl_easy_cleanup(call->easy);
    DL_DELETE(*call->list, call);
    call->origin->in_flight--;
    stat_dec(STAT_UPSTREAM_IN_FLIGHT);
}

static size_t on_body(char *data, size_t size, size_t n, void *user)
{
    struct upstream_call *call = user;
    buf_add(&call->body, data, size * n);
    return call->body.failed ? 0 : size * n; /* a short count ends the transfer */
}

/* curl does not tell why it got no socket. */
static curl_socket_t on_open_socket(void *user, curlsocktype purpose, struct curl_sockaddr *address)
{
    (void)purpose;
    struct upstream_call *call = user;
    int fd = socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
    call->no_descriptor = fd < 0 && (errno == EMFILE || errno == ENFILE);
    return fd < 0 ? CURL_SOCKET_BAD : fd;
}

static enum upstream_outcome outcome_of(const struct upstream_call *call, CURLcode code)
{
    long header_bytes = 0;
    switch (code) {
    case CURLE_OK:
        return UPSTREAM_ANSWERED;
    case CURLE_OPERATION_TIMEDOUT:
        return UPSTREAM_TIMED_OUT;
    case CURLE_WRITE_ERROR: /* on_body has had enough */
    case CURLE_PARTIAL_FILE:
    case CURLE_WEIRD_SERVER_REPLY:
    case CURLE_UNSUPPORTED_PROTOCOL: /* HTTP/0.9, that is: no HTTP */
        return UPSTREAM_UNUSABLE;
    case CURLE_RECV_ERROR: /* also when curl has had enough of the headers */
        curl_easy_getinfo(call->easy, CURLINFO_HEADER_SIZE, &header_bytes);
        return header_bytes > HEADERS_LARGE ? UPSTREAM_UNUSABLE : UPSTREAM_FAILED;
    default:
        return call->no_descriptor ? UPSTREAM_OUT_OF_MEANS : UPSTREAM_FAILED;
    }
}

static void finish(struct upstream_call *call, CURLcode code)
{
    long http_status = 0, connects = 0;
    curl_off_t retry_after = 0;
    curl_easy_getinfo(call->easy, CURLINFO_RESPONSE_CODE, &http_status);
    curl_easy_getinfo(call->easy, CURLINFO_NUM_CONNECTS, &connects);
    curl_easy_getinfo(call->easy, CURLINFO_RETRY_AFTER, &retry_after);
    struct upstream_answer answer = {.outcome = outcome_of(call, code),
                                     .http_status = (int)http_status,
                                     .body = call->body.data ? call->body.data : "",
                                     .len = call->body.len};
    if (retry_after > 0)
        answer.retry_after_ms = retry_after > 86400 ? 86400 * 1000 : (int64_t)retry_after * 1000;
    stat_add(STAT_UPSTREAM_CONNECTS, connects);
    if (code != CURLE_OK) {
        stat_inc(STAT_UPSTREAM_FAILURES);
        upstream_report(call->upstreams, call->origin->conf,
                        call->no_descriptor ? "cannot be asked: we have no descriptor left"
                                            : curl_easy_strerror(code));
    }
    struct origin *origin = call->origin;
    unplug(call);
    start_next(origin);
    call->on_answer(call->user, &answer);
    call_free(call);
}

static void read_off_finished(struct upstreams *u)
{
    CURLMsg *message;
    int left;
    while ((message = curl_multi_info_read(u->multi, &left)) != NULL) {
        struct upstream_call *call = NULL;
        CURLcode code = message->data.result;
        curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &call);
        finish(call, code);
    }
}

static struct curl_slist *add_header(struct curl_slist *list, const struct conf_route *route,
                                     const char *name, const char *value, struct jwt *jwt)
{
    struct buf line;
    buf_init(&line, HEADER_MAX);
    headers_add(name, value, route->upstream->key, jwt, wall_ms() / 1000, &line);
    list = curl_slist_append(list, line.data); /* which copies it */
    explicit_bzero(line.data, line.len);
    buf_done(&line);
    return list;
}

static struct curl_slist *make_headers(const struct conf_route *route, struct jwt *jwt)
{
    const struct provider *provider = route->provider;
    const struct pair *pairs = provider->headers.items;
    struct curl_slist *list = curl_slist_append(NULL, "Accept: application/json");
    for (size_t i = 0; i < provider->headers.n; i++)
        list = add_header(list, route, pairs[i].name, pairs[i].value, jwt);
    return add_header(list, route, provider->auth.header, provider->auth.value, jwt);
}

static struct route_headers *headers_of(const struct upstreams *u, const struct conf_route *route)
{
    return &u->headers[route - conf_route(u->conf, 0)];
}

struct secrets upstream_secrets(const struct upstreams *u, const struct conf_route *route)
{
    return headers_secrets(route->upstream->key, &headers_of(u, route)->jwt);
}

static struct curl_slist *headers_for(struct upstream_call *call)
{
    struct route_headers *headers = headers_of(call->upstreams, call->route);
    if (headers->list == NULL)
        call->headers = make_headers(call->route, &headers->jwt);
    return headers->list ? headers->list : call->headers;
}

static void set_options(struct upstream_call *call, int64_t timeout_ms)
{
    const struct conf_upstream *conf = call->origin->conf;
    CURL *easy = call->easy;
    bool tls = strncmp(conf->base_url, "https:", 6) == 0;
    curl_easy_setopt(easy, CURLOPT_PRIVATE, call);
    curl_easy_setopt(easy, CURLOPT_URL, call->url);
    curl_easy_setopt(easy, CURLOPT_PATH_AS_IS, 1L);
    curl_easy_setopt(easy, CURLOPT_HTTPHEADER, headers_for(call));
    curl_easy_setopt(easy, CURLOPT_USERAGENT, "taskproxy");
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(easy, CURLOPT_WRITEDATA, call);
    curl_easy_setopt(easy, CURLOPT_OPENSOCKETFUNCTION, on_open_socket);
    curl_easy_setopt(easy, CURLOPT_OPENSOCKETDATA, call);
    curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, (long)timeout_ms);
    curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, (long)conf->connect_timeout_ms);
    curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(easy, CURLOPT_QUICK_EXIT, 1L); /* do not wait for a resolver thread that hangs */

    /* The key goes to one origin: no redirect, no proxy of the environment, no other protocol. */
    curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0L);
    curl_easy_setopt(easy, CURLOPT_PROXY, "");
    curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, tls ? "https" : "http");
    curl_easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, 1L);
    curl_easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, 2L);
    if (conf->ca != NULL) {
        struct curl_blob blob = {.data = conf->ca->data, .len = conf->ca->len, .flags = CURL_BLOB_NOCOPY};
        curl_easy_setopt(easy, CURLOPT_CAINFO_BLOB, &blob);
    }
    /* One HTTP/2 connection rather than many, where the upstream offers it. */
    curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_2TLS);
    curl_easy_setopt(easy, CURLOPT_PIPEWAIT, 1L);
}

/* Hands a call to curl with what is left of its time. */
static void start(struct upstream_call *call)
{
    struct upstreams *u = call->upstreams;
    struct origin *origin = call->origin;
    int64_t left_ms = origin->conf->timeout_ms - (int64_t)(uv_now(u->loop) - call->begun_ms);
    call->easy = curl_easy_init();
    if (call->easy == NULL)
        abort(); /* out of memory */
    set_options(call, left_ms > 0 ? left_ms : 1);
    origin->in_flight++;
    stat_inc(STAT_UPSTREAM_IN_FLIGHT);
    stat_inc(STAT_UPSTREAM_QUERIES);
    enter_list(call, &u->running);
    curl_multi_add_handle(u->multi, call->easy);
}

static void start_next(struct origin *origin)
{
    struct upstream_call *call = origin->queue;
    if (call == NULL || origin->in_flight >= origin->conf->max_in_flight)
        return;
    DL_DELETE(*call->list, call);
    start(call);
}

static void on_held(uv_timer_t *timer)
{
    struct upstreams *u = timer->data;
    struct upstream_call *call;
    while ((call = u->held) != NULL) {
        int64_t held_ms = standing_held_ms(&call->origin->standing, (int64_t)uv_now(u->loop));
        struct upstream_answer answer = {.outcome = UPSTREAM_HELD, .retry_after_ms = held_ms ? held_ms : 1};
        DL_DELETE(*call->list, call);
        call->on_answer(call->user, &answer);
        call_free(call);
    }
}

/* Even a refusal comes later, never from within upstream_get. */
static void hold_back(struct upstream_call *call)
{
    enter_list(call, &call->upstreams->held);
    uv_timer_start(&call->upstreams->held_timer, on_held, 0, 0);
}

static struct origin *origin_of(struct upstreams *u, const struct conf_upstream *conf)
{
    return &u->origins[conf - conf_upstream(u->conf, 0)];
}

struct upstream_call *upstream_get(struct upstreams *u, const struct conf_route *route, const char *target,
                                   upstream_callback *on_answer, void *user)
{
    struct origin *origin = origin_of(u, route->upstream);
    struct upstream_call *call = xcalloc(1, sizeof(*call));
    *call =
        (struct upstream_call){.upstreams = u, .origin = origin, .route = route, .begun_ms = uv_now(u->loop)};
    call->on_answer = on_answer;
    call->user = user;
    call->url = xasprintf("%s%s", origin->conf->base_url, target);
    buf_init(&call->body, (size_t)origin->conf->max_body);
    if (standing_held_ms(&origin->standing, (int64_t)call->begun_ms) > 0)
        hold_back(call);
    else if (origin->in_flight < origin->conf->max_in_flight)
        start(call);
    else
        enter_list(call, &origin->queue);
    return call;
}

void upstream_cancel(struct upstream_call *call)
{
    if (call->easy != NULL)
        unplug(call);
    else
        DL_DELETE(*call->list, call);
    call_free(call);
}

/* ---- what is known of an upstream ---- */

int64_t upstream_hold(struct upstreams *u, const struct conf_upstream *upstream, int64_t ms)
{
    return standing_hold(&origin_of(u, upstream)->standing, ms, (int64_t)uv_now(u->loop));
}

void upstream_report(struct upstreams *u, const struct conf_upstream *upstream, const char *trouble)
{
    if (!standing_note(&origin_of(u, upstream)->standing, trouble))
        return;
    if (trouble != NULL)
        log_warn("upstream %s: %s", upstream->name, trouble);
    else
        log_info("upstream %s answers again", upstream->name);
}

/* ---- all of them ---- */

struct upstreams *upstreams_new(uv_loop_t *loop, const struct conf *conf)
{
    struct upstreams *u = xcalloc(1, sizeof(*u));
    u->loop = loop;
    u->conf = conf;
    u->origins = xcalloc(conf->upstreams.n, sizeof(*u->origins));
    u->headers = xcalloc(conf->routes.n, sizeof(*u->headers));
    for (size_t i = 0; i < conf->upstreams.n; i++)
        u->origins[i].conf = conf_upstream(conf, i);
    for (size_t i = 0; i < conf->routes.n; i++) {
        const struct conf_route *route = conf_route(conf, i);
        if (!headers_are_fresh(route->provider))
            u->headers[i].list = make_headers(route, &u->headers[i].jwt);
    }
    uv_timer_init(loop, &u->timer);
    uv_timer_init(loop, &u->held_timer);
    u->timer.data = u->held_timer.data = u;
    u->open_handles = 2;
    if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK || (u->multi = curl_multi_init()) == NULL)
        abort(); /* out of memory */
    curl_multi_setopt(u->multi, CURLMOPT_SOCKETFUNCTION, on_socket);
    curl_multi_setopt(u->multi, CURLMOPT_SOCKETDATA, u);
    curl_multi_setopt(u->multi, CURLMOPT_TIMERFUNCTION, on_timeout);
    curl_multi_setopt(u->multi, CURLMOPT_TIMERDATA, u);
    return u;
}

static void on_timer_closed(uv_handle_t *handle)
{
    struct upstreams *u = handle->data;
    if (--u->open_handles > 0)
        return;
    curl_multi_cleanup(u->multi);
    curl_global_cleanup();
    for (size_t i = 0; i < u->conf->routes.n; i++) {
        free_headers(u->headers[i].list);
        jwt_done(&u->headers[i].jwt);
    }
    free(u->headers);
    free(u->origins);
    free(u);
}

void upstreams_free(struct upstreams *u)
{
    if (u == NULL)
        return;
    while (u->running != NULL)
        upstream_cancel(u->running);
    while (u->held != NULL)
        upstream_cancel(u->held);
    for (size_t i = 0; i < u->conf->upstreams.n; i++) {
        while (u->origins[i].queue != NULL)
            upstream_cancel(u->origins[i].queue);
    }
    uv_close((uv_handle_t *)&u->timer, on_timer_closed);
    uv_close((uv_handle_t *)&u->held_timer, on_timer_closed);
}
