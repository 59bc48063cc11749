/* master: see master.h.
 *
 *     start:   sockets -> page of counters -> a generation of workers
 *     HUP:     new configuration -> a new generation on the same sockets
 *     change:  the same one with new secrets -> likewise
 *     HUP, and another program lies where this one did: exec it -> start, with sockets and workers taken over
 *     TERM:    the workers leave -> the last is gone -> so are we
 *
 * A bad configuration or secret changes nothing. HUPs and changes that come while a generation is still starting
 * make one reload more. */
#include "server/master.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "server/workers.h"
#include "server/elders.h"
#include "server/filewatch.h"
#include "server/identity.h"
#include "server/panel.h"
#include "server/report.h"
#include "server/sandbox.h"
#include "lib/stats.h"
#include "server/upgrade.h"
#include "lib/vault.h"
#include "lib/version.h"

enum { KILL_GRACE_MS = 2000 };

/* In the environment of a program that takes over. */
static const char elders_variable[] = "TASKPROXY_WORKERS";

struct master {
    uv_loop_t loop;
    const char *conf_path; /* (ref) */
    struct conf *conf;
    int stats_fd;
    struct sockets *sockets;
    struct workers *workers;
    struct elders *elders; /* workers of the program that we were */
    struct report report;
    struct panel *panel;
    uint64_t started_ms; /* loop time */
    struct filewatch *watch;
    char *refusal;      /* why secrets that have changed were not taken, or NULL */
    bool reload_again;  /* HUP came while a generation was starting */
    bool secrets_again; /* secrets changed meanwhile */
    bool checking;      /* another program is looking at the configuration */
    bool stopping;
    uv_signal_t hup, terminate, interrupt;
    uv_timer_t kill_timer, watchdog, log_timer;
};

static void on_look(void *ctx, struct health *ret_health)
{
    const struct master *m = ctx;
    ret_health->conf = m->conf;
    ret_health->uptime_ms = (int64_t)(uv_now(&m->loop) - m->started_ms);
    workers_look(m->workers, ret_health);
}

/* ---- the watchdog ---- */

/* Only while the loops turn: all of those that should, and at least one. */
static void on_watchdog(uv_timer_t *timer)
{
    const struct master *m = CONTAINER_OF(timer, struct master, watchdog);
    if (workers_hung(m->workers) == 0 && (m->stopping || workers_ready(m->workers) > 0))
        notify_alive(&m->report.notify);
}

/* ---- the log ---- */

static void set_up_log(const struct conf *conf)
{
    log_setup((enum log_level)conf->log_level, (enum log_format)conf->log_format, "master");
}

static void on_log_time(uv_timer_t *timer)
{
    (void)timer;
    log_tick();
}

/* ---- reload ---- */

/* Why the new configuration cannot take the place of the old one, allocated, or NULL. */
static char *refuse_change(const struct master *m, const struct conf *conf)
{
    if (strcmp(conf->socket_dir, m->conf->socket_dir) != 0)
        return xstrdup("\"socket_dir\" cannot change without a restart");
    return NULL;
}

char *master_refuses(const struct conf *conf)
{
    uid_t uid;
    gid_t gid;
    if (geteuid() == 0 && identity_user(conf->user, &uid) < 0)
        return conf_error(conf, "/user", "there is no user \"%s\"", conf->user);
    if (conf->socket_group != NULL && identity_group(conf->socket_group, &gid) < 0)
        return conf_error(conf, "/socket_group", "there is no group \"%s\"", conf->socket_group);
    return NULL;
}

/* Workers for `conf`, whose sockets are opened first; an error, allocated, or NULL. */
static char *start_generation(struct master *m, const struct conf *conf)
{
    char *error = master_refuses(conf);
    if (error != NULL)
        return error;
    if (workers_open_sockets(m->workers, conf, &error) < 0)
        return error;
    struct files_image files;
    int result = files_seal(conf->files, &files);
    if (result < 0)
        return xasprintf("the configuration cannot be handed to the workers: %s", strerror(-result));
    workers_start(m->workers, conf, files);
    return NULL;
}

/* Puts `conf`, which is given up, in the place of the one in force; an error, allocated, or NULL. */
static char *take(struct master *m, struct conf *conf)
{
    char *error = refuse_change(m, conf);
    if (error == NULL)
        error = start_generation(m, conf);
    if (error != NULL) {
        conf_free(conf);
        return error;
    }
    conf_free(m->conf);
    m->conf = conf;
    filewatch_set(m->watch, conf->files);
    stat_set(STAT_RELOADED_AT, wall_ms() / 1000);
    set_up_log(conf);
    return NULL;
}

static void refuse_reload(struct master *m, const char *why)
{
    char *text = xasprintf("not reloaded, the old configuration stays in force: %s", why);
    stat_inc(STAT_RELOADS_REFUSED);
    stat_set(STAT_RELOADED_OK, 0);
    log_error("%s", text);
    report_refusal(&m->report, text);
    free(text);
}

static void reload(struct master *m)
{
    char *error = NULL;
    report_reload(&m->report);
    struct conf *conf = conf_load(m->conf_path, files_new(), &error);
    if (conf != NULL)
        error = take(m, conf);
    if (error != NULL) {
        refuse_reload(m, error);
        free(error);
        return;
    }
    stat_inc(STAT_RELOADS);
    stat_set(STAT_RELOADED_OK, 1);
    log_info("configuration reloaded: %d workers", (int)m->conf->workers);
}

/* ---- upgrade ---- */

/* What is not handed over - counters, connections to the status socket - begins anew. */
static void become(struct master *m)
{
    struct buf list;
    buf_init(&list, 64 * 1024);
    workers_name(m->workers, &list);
    elders_name_all(m->elders, &list);
    setenv(elders_variable, list.len > 0 ? list.data : "", 1);
    sockets_hand_over(m->sockets);
    notify_hand_over(&m->report.notify);
    log_info("another program lies at %s: it takes over", workers_program(m->workers));
    const char *why = upgrade_exec(workers_program(m->workers), m->conf_path);
    unsetenv(elders_variable);
    elders_unname(&list);
    buf_done(&list);
    sockets_take_back(m->sockets);
    notify_take_back();
    refuse_reload(m, why);
}

static void catch_up(struct master *m);

static void on_checked(void *ctx, bool good)
{
    struct master *m = ctx;
    m->checking = false;
    if (m->stopping)
        return;
    if (good)
        become(m);
    else
        refuse_reload(m, "the program that lies there now refuses the configuration");
    catch_up(m);
}

static void upgrade(struct master *m)
{
    report_reload(&m->report);
    m->checking = upgrade_check(&m->loop, workers_program(m->workers), m->conf_path, on_checked, m);
    if (!m->checking)
        refuse_reload(m, "the program that lies there now cannot be started");
}

/* ---- rotation: the configuration in force, with secrets that have changed ---- */

/* The same refusal is said once, until something was taken. */
static void refuse_secrets(struct master *m, char *error)
{
    stat_inc(STAT_ROTATIONS_REFUSED);
    if (m->refusal == NULL || strcmp(m->refusal, error) != 0)
        log_error("a secret that has changed is not taken, the old one stays in force: %s", error);
    free(m->refusal);
    m->refusal = error;
}

static void forget_refusal(struct master *m)
{
    free(m->refusal);
    m->refusal = NULL;
}

static void take_secrets(struct master *m)
{
    const char *first = "";
    char *error = NULL;
    struct conf *conf = conf_load(m->conf_path, files_renew(m->conf->files), &error);
    if (conf == NULL)
        return refuse_secrets(m, error);
    size_t n = files_changed(m->conf->files, conf->files, &first);
    if (n == 0) {
        if (m->refusal != NULL)
            log_info("the secrets are as they were");
        forget_refusal(m);
        return conf_free(conf);
    }
    forget_refusal(m);
    log_info("%s has changed%s: new workers take over with it", first, n > 1 ? ", and others" : "");
    error = take(m, conf);
    if (error != NULL)
        return refuse_secrets(m, error);
    stat_inc(STAT_ROTATIONS);
}

/* ---- what asks for one of the two ---- */

/* A generation that is still starting is not overtaken, unless it may never be complete. */
static bool may_reload(const struct master *m)
{
    return !m->checking && (workers_is_complete(m->workers) || workers_is_stuck(m->workers));
}

static void reload_or_upgrade(struct master *m)
{
    if (upgrade_is_due(workers_program(m->workers)))
        upgrade(m);
    else
        reload(m);
}

static void on_hup(uv_signal_t *signal, int number)
{
    (void)number;
    struct master *m = CONTAINER_OF(signal, struct master, hup);
    if (m->stopping)
        return;
    if (may_reload(m))
        reload_or_upgrade(m);
    else
        m->reload_again = true;
}

static void on_secrets_change(void *ctx)
{
    struct master *m = ctx;
    if (m->stopping)
        return;
    if (may_reload(m))
        take_secrets(m);
    else
        m->secrets_again = true;
}

/* What had to wait. A reload takes the secrets, too, unless it is refused. */
static void catch_up(struct master *m)
{
    bool whole = m->reload_again, secrets = m->secrets_again;
    if ((!whole && !secrets) || !may_reload(m))
        return;
    m->reload_again = m->secrets_again = false;
    if (whole)
        reload_or_upgrade(m);
    if (secrets && may_reload(m))
        take_secrets(m);
}

/* ---- stopping ---- */

static void on_kill_time(uv_timer_t *timer)
{
    struct master *m = CONTAINER_OF(timer, struct master, kill_timer);
    workers_kill(m->workers);
    elders_kill(m->elders);
}

static void stop_when_empty(struct master *m)
{
    if (workers_size(m->workers) == 0 && elders_count(m->elders) == 0)
        uv_stop(&m->loop);
}

static void on_terminate(uv_signal_t *signal, int number)
{
    struct master *m = signal->data;
    if (m->stopping)
        return;
    log_info("stopping: %s", number == SIGINT ? "interrupted" : "told to");
    m->stopping = true;
    notify_stopping(&m->report.notify, m->conf->drain_ms + 2 * KILL_GRACE_MS);
    workers_stop(m->workers);
    elders_retire(m->elders, m->conf->drain_ms + KILL_GRACE_MS);
    uv_timer_start(&m->kill_timer, on_kill_time, (uint64_t)m->conf->drain_ms + KILL_GRACE_MS, 0);
    stop_when_empty(m);
}

static void on_crew_change(void *ctx)
{
    struct master *m = ctx;
    if (m->stopping)
        return stop_when_empty(m);
    if (workers_is_complete(m->workers)) {
        elders_retire(m->elders, m->conf->drain_ms + KILL_GRACE_MS);
        sockets_tidy(m->sockets);
    }
    report_crew(&m->report, m->workers, (int)m->conf->workers);
    catch_up(m);
}

/* ---- the whole ---- */

static bool open_everything(struct master *m, char **ret_error)
{
    if (socket_dir_make(m->conf->socket_dir, ret_error) < 0)
        return false;
    m->stats_fd = stats_create();
    if (m->stats_fd < 0 || stats_attach(m->stats_fd, STATS_MASTER_SLOT) < 0) {
        *ret_error = xstrdup("the page of counters cannot be made");
        return false;
    }
    series_set(stat_series(FAMILY_BUILD, "version", TASKPROXY_VERSION), 1);
    stat_set(STAT_RELOADED_OK, 1);
    stat_set(STAT_RELOADED_AT, wall_ms() / 1000);
    m->elders = elders_new(&m->loop, getenv(elders_variable), on_crew_change, m);
    unsetenv(elders_variable);
    m->workers = workers_new((struct workers_parts){.loop = &m->loop,
                                                    .conf_path = m->conf_path,
                                                    .stats_fd = m->stats_fd,
                                                    .sockets = m->sockets,
                                                    .on_change = on_crew_change,
                                                    .ctx = m});
    m->panel =
        panel_open((struct panel_parts){.loop = &m->loop, .sockets = m->sockets, .look = on_look, .ctx = m},
                   m->conf, ret_error);
    return m->panel != NULL && workers_open_sockets(m->workers, m->conf, ret_error) == 0;
}

static void init(struct master *m)
{
    notify_init(&m->report.notify);
    m->sockets = sockets_new();
    uv_loop_init(&m->loop);
    m->started_ms = uv_now(&m->loop);
    uv_signal_init(&m->loop, &m->hup);
    uv_signal_init(&m->loop, &m->terminate);
    uv_signal_init(&m->loop, &m->interrupt);
    m->terminate.data = m->interrupt.data = m;
    uv_timer_init(&m->loop, &m->kill_timer);
    uv_timer_init(&m->loop, &m->watchdog);
    uv_timer_init(&m->loop, &m->log_timer);
    uv_timer_start(&m->log_timer, on_log_time, LOG_TICK_MS, LOG_TICK_MS);
    uv_unref((uv_handle_t *)&m->log_timer);
    m->watch = filewatch_new(&m->loop, on_secrets_change, m);
}

static void close_everything(struct master *m)
{
    workers_free(m->workers);
    elders_free(m->elders);
    filewatch_free(m->watch);
    forget_refusal(m);
    panel_close(m->panel);
    uv_close((uv_handle_t *)&m->hup, NULL);
    uv_close((uv_handle_t *)&m->terminate, NULL);
    uv_close((uv_handle_t *)&m->interrupt, NULL);
    uv_close((uv_handle_t *)&m->kill_timer, NULL);
    uv_close((uv_handle_t *)&m->watchdog, NULL);
    uv_close((uv_handle_t *)&m->log_timer, NULL);
    uv_run(&m->loop, UV_RUN_DEFAULT);
    if (uv_loop_close(&m->loop) != 0)
        abort(); /* a handle that nobody closed */
    close(m->stats_fd);
    sockets_free(m->sockets);
    notify_done(&m->report.notify);
    conf_free(m->conf);
    if (!vault_is_empty())
        abort(); /* a secret that nobody wiped */
    log_finish();
}

/* The keys are in memory here, too: for the next worker that has to be started. */
static void protect_process(void)
{
    const struct rlimit none = {0, 0};
    setrlimit(RLIMIT_CORE, &none);
    prctl(PR_SET_DUMPABLE, 0);
    sandbox_refuse_io_uring();
    signal(SIGPIPE, SIG_IGN);
}

static void warn_of_oddities(const struct master *m)
{
    size_t at = 0;
    for (const char *path; (path = sockets_unused(m->sockets, &at)) != NULL;)
        log_warn(
            "%s, passed by the service manager, is no socket of this configuration: nobody answers there",
            path);
    if (!vault_is_locked())
        log_warn("the keys cannot be locked in memory: too little may be locked (RLIMIT_MEMLOCK)");
}

static void run(struct master *m)
{
    /* After fcgi_listen: libfcgi would put handlers of its own in place. */
    uv_signal_start(&m->hup, on_hup, SIGHUP);
    uv_signal_start(&m->terminate, on_terminate, SIGTERM);
    uv_signal_start(&m->interrupt, on_terminate, SIGINT);
    signals_unblock();
    uint64_t feeding_ms = (uint64_t)m->report.notify.watchdog_ms / 3;
    if (feeding_ms > 0)
        uv_timer_start(&m->watchdog, on_watchdog, feeding_ms, feeding_ms);
    filewatch_set(m->watch, m->conf->files);
    log_info("started: %d workers on %s", (int)m->conf->workers, m->conf->socket_dir);
    warn_of_oddities(m);
    uv_run(&m->loop, UV_RUN_DEFAULT);
    log_info("stopped");
}

int master_main(const char *path, struct conf *conf)
{
    struct master master = {.conf_path = path, .conf = conf, .stats_fd = -1}, *m = &master;
    char *error = NULL;
    set_up_log(conf);
    protect_process();
    init(m);
    if (open_everything(m, &error))
        error = start_generation(m, conf);
    bool started = error == NULL;
    if (started) {
        run(m);
    } else {
        log_error("%s", error);
        notify_status(&m->report.notify, error);
        free(error);
    }
    close_everything(m);
    return started ? EXIT_SUCCESS : EXIT_FAILURE;
}
