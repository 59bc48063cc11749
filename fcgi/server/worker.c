/* worker: see worker.h. Its modules; each uses those to its right:
 *
 *     fcgi_server --on_request--> requests --join--> fetches --> lease --> redis
 *                                       |               '------> upstreams --> http
 *                                       '--> quotas, ownership --> redis
 *
 * They are created from right to left and freed from left to right. */
#include "server/worker.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "request/request.h"
#include "server/sandbox.h"
#include "lib/descriptors.h"
#include "lib/stats.h"
#include "lib/vault.h"

enum { HEADROOM_FDS = 64 };

struct worker {
    uv_loop_t loop;
    struct conf *conf;
    struct redis *redis;
    struct lease *lease;
    struct upstreams *upstreams;
    struct fetches *fetches;
    struct quotas *quotas;
    struct ownership *ownership;
    struct requests *requests;
    struct fcgi_server *server;
    void (*pass_hint)(const char *key, size_t key_len); /* NULL: hints need not be passed on */
    bool leaving;
    bool drained; /* no connection is left */
    uv_signal_t terminate;
    uv_poll_t control; /* of the control descriptor */
    uv_timer_t drain;  /* the end of "drain" */
    uv_timer_t beat;   /* the next heartbeat */
    uint64_t beat_due_ns;
    int64_t *lag; /* series: how late the heartbeats were */
};

/* ---- the process ---- */

/* The number of descriptors for connections: all but one for each upstream query and a few in reserve. */
static size_t connections_for(const struct conf *conf)
{
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) < 0)
        abort(); /* never happens on Linux */
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    getrlimit(RLIMIT_NOFILE, &files);
    int64_t kept = HEADROOM_FDS, all = files.rlim_cur > 1048576 ? 1048576 : (int64_t)files.rlim_cur;
    for (size_t i = 0; i < conf->upstreams.n; i++)
        kept += conf_upstream(conf, i)->max_in_flight;
    return (size_t)(all > 2 * kept ? all - kept : all / 2);
}

/* ---- the parts ---- */

static void on_request(void *ctx, struct fcgi_request *client)
{
    struct worker *w = ctx;
    request_serve(w->requests, client);
}

static void close_parts(struct worker *w)
{
    uv_timer_stop(&w->beat); /* it uses modules that are about to be freed */
    uv_timer_stop(&w->drain);
    requests_free(w->requests);
    fcgi_free(w->server);
    if (w->control.loop != NULL) {
        uv_close((uv_handle_t *)&w->control, NULL);
        close(WORKER_FD_CONTROL); /* the master expects no more heartbeats */
    }
    fetches_free(w->fetches);
    upstreams_free(w->upstreams);
    quotas_free(w->quotas);
    ownership_free(w->ownership);
    lease_free(w->lease);
    while (redis_is_busy(w->redis)) /* the last results and released leases must reach it */
        uv_run(&w->loop, UV_RUN_ONCE);
    redis_free(w->redis);
    uv_close((uv_handle_t *)&w->terminate, NULL);
    uv_close((uv_handle_t *)&w->drain, NULL);
    uv_close((uv_handle_t *)&w->beat, NULL);
}

static void stop_when_done(void *ctx)
{
    struct worker *w = ctx;
    if (w->drained && !requests_are_busy(w->requests))
        uv_stop(&w->loop);
}

static void on_drained(void *ctx)
{
    struct worker *w = ctx;
    w->drained = true;
    stop_when_done(w);
}

static void make_parts(struct worker *w)
{
    unsigned seed; /* for jitter: workers that start together must not poll together */
    sandbox_protect_process();
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    signal(SIGPIPE, SIG_IGN);
    random_bytes(&seed, sizeof(seed));
    srand(seed);
    uv_loop_init(&w->loop);
    w->redis = redis_new(&w->loop, &w->conf->redis);
    w->lease = lease_new(&w->loop, w->conf, w->redis);
    w->upstreams = upstreams_new(&w->loop, w->conf);
    w->fetches = fetches_new((struct fetches_parts){
        .loop = &w->loop, .conf = w->conf, .lease = w->lease, .upstreams = w->upstreams});
    w->quotas = quotas_new(&w->loop, w->conf, w->redis);
    w->ownership = ownership_new(w->conf, w->redis);
    w->requests = requests_new((struct requests_parts){.loop = &w->loop,
                                                       .conf = w->conf,
                                                       .fetches = w->fetches,
                                                       .quotas = w->quotas,
                                                       .ownership = w->ownership,
                                                       .pass_hint = w->pass_hint,
                                                       .on_idle = stop_when_done,
                                                       .ctx = w});
    uv_signal_init(&w->loop, &w->terminate);
    uv_timer_init(&w->loop, &w->drain);
    uv_timer_init(&w->loop, &w->beat);
}

/* Returns the exit status. */
static int run(struct worker *w)
{
    uv_run(&w->loop, UV_RUN_DEFAULT);
    close_parts(w);
    uv_run(&w->loop, UV_RUN_DEFAULT); /* the closing callbacks */
    if (uv_loop_close(&w->loop) != 0)
        abort(); /* a handle was not closed */
    conf_free(w->conf);
    if (!vault_is_empty())
        abort(); /* a secret was not wiped */
    return EXIT_SUCCESS;
}

static struct fcgi_handlers handlers_of(struct worker *w)
{
    return (struct fcgi_handlers){.on_request = on_request, .on_drained = on_drained, .ctx = w};
}

/* ---- leaving ---- */

static void on_drain_over(uv_timer_t *timer)
{
    struct worker *w = CONTAINER_OF(timer, struct worker, drain);
    log_warn("exiting with unanswered requests: they took longer than \"drain\"");
    uv_stop(&w->loop);
}

static void leave(struct worker *w)
{
    if (w->leaving)
        return;
    w->leaving = true;
    stat_set(STAT_WORKERS_READY, 0);
    uv_timer_start(&w->drain, on_drain_over, (uint64_t)w->conf->drain_ms, 0);
    fcgi_drain(w->server);
    requests_release(w->requests);
}

static void on_terminate(uv_signal_t *signal, int number)
{
    (void)number;
    leave(CONTAINER_OF(signal, struct worker, terminate));
}

static void on_control(uv_poll_t *poll, int status, int events)
{
    (void)status, (void)events;
    struct worker *w = CONTAINER_OF(poll, struct worker, control);
    char message[WORKER_MESSAGE_MAX + 1];
    ssize_t n = recv(WORKER_FD_CONTROL, message, WORKER_MESSAGE_MAX, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0) {
        log_warn("the master has exited");
        uv_poll_stop(poll);
        return leave(w);
    }
    message[n] = '\0';
    if (message[0] == WORKER_HINT)
        requests_take_hint(w->requests, message + 1);
}

/* Not needed while Redis accepts writes, because the other workers get the result of the fetch through it. */
static void pass_hint(const char *key, size_t key_len)
{
    char message[WORKER_MESSAGE_MAX] = {WORKER_HINT};
    if (stat_get(STAT_REDIS_UP) > stat_get(STAT_REDIS_NO_WRITES) + stat_get(STAT_REDIS_NO_PERMISSION))
        return;
    memcpy(message + 1, key, key_len);
    if (send(WORKER_FD_CONTROL, message, 1 + key_len, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
        stat_inc(STAT_HOOKS_DROPPED);
}

/* ---- the two ways to run ---- */

static struct conf *load_inherited(const char *path, char **ret_error)
{
    struct files *files = files_unseal(WORKER_FD_FILES);
    close(WORKER_FD_FILES);
    if (files != NULL)
        return conf_load(path, files, ret_error);
    *ret_error = xstrdup("cannot read the configuration from the master: is it another version?");
    return NULL;
}

static void on_beat(uv_timer_t *timer)
{
    struct worker *w = CONTAINER_OF(timer, struct worker, beat);
    uint64_t now_ns = uv_hrtime();
    series_observe(w->lag, (int64_t)(now_ns - w->beat_due_ns));
    w->beat_due_ns = now_ns + (uint64_t)WORKER_BEAT_MS * 1000000;
    upstreams_refresh_stats(w->upstreams);
    stats_beat();
    descriptors_tick();
    log_tick();
}

static void start_beating(struct worker *w)
{
    w->lag = stat_series(FAMILY_LOOP_LAG, NULL);
    w->beat_due_ns = uv_hrtime() + (uint64_t)WORKER_BEAT_MS * 1000000;
    uv_timer_start(&w->beat, on_beat, WORKER_BEAT_MS, WORKER_BEAT_MS);
}

void worker_report_ready(void)
{
    const char ready = WORKER_READY;
    if (send(WORKER_FD_CONTROL, &ready, 1, MSG_NOSIGNAL) < 0)
        log_warn("cannot report ready to the master: %s", strerror(errno));
}

int worker_main(int index, int slot, const char *path)
{
    struct worker w = {.conf = NULL};
    char mark[24], *error = NULL;
    snprintf(mark, sizeof(mark), "worker %d", index);
    log_setup(LOG_INFO, LOG_TEXT, mark);
    if (stats_attach(WORKER_FD_STATS, slot) < 0)
        error = xstrdup("cannot map the page of counters");
    else
        w.conf = load_inherited(path, &error);
    close(WORKER_FD_STATS);
    if (w.conf != NULL) {
        log_setup((enum log_level)w.conf->log_level, (enum log_format)w.conf->log_format, mark);
        error = sandbox_become(w.conf->user);
    }
    if (w.conf == NULL || error != NULL) {
        log_error("%s", error);
        free(error);
        conf_free(w.conf);
        return EXIT_FAILURE;
    }
    w.pass_hint = w.conf->workers > 1 ? pass_hint : NULL;
    make_parts(&w);
    conf_wipe_unused(w.conf); /* after make_parts, which names each key's metrics by a digest of the key */
    uv_signal_start(&w.terminate, on_terminate, SIGTERM); /* before fcgi_listen: see fcgi.h */
    w.server = fcgi_listen(&w.loop, WORKER_FD_LISTEN, connections_for(w.conf), handlers_of(&w));
    signal(SIGINT, SIG_IGN); /* a terminal sends it to the whole group; the master sends TERM instead */
    signal(SIGHUP, SIG_IGN);
    uv_poll_init(&w.loop, &w.control, WORKER_FD_CONTROL);
    uv_poll_start(&w.control, UV_READABLE | UV_DISCONNECT, on_control);
    start_beating(&w);
    fetches_subscribe(w.fetches);
    if (w.conf->sandbox == SANDBOX_ON)
        sandbox_enter();
    stat_set(STAT_WORKERS_READY, 1);
    worker_report_ready();
    return run(&w);
}

int worker_cgi(struct conf *conf)
{
    struct worker w = {.conf = conf};
    log_setup((enum log_level)conf->log_level, (enum log_format)conf->log_format, NULL);
    make_parts(&w);
    w.server = fcgi_serve_cgi(&w.loop, handlers_of(&w));
    if (conf->sandbox == SANDBOX_ON)
        sandbox_enter();
    return run(&w);
}
