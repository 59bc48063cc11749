/* master: see master.h.
 *
 *     start:   sockets -> page of counters -> a generation of workers
 *     HUP:     new configuration -> a new generation on the same sockets
 *     live or secret files change: the same configuration with the new files -> likewise
 *     HUP, and another program is installed: exec it -> start, with sockets, counters and workers taken over
 *     TERM:    the workers drain -> the last one has exited -> the master exits
 *
 * A bad configuration is refused, and the one in force stays; so does the content of a bad file, while the others
 * are applied. Any number of HUPs and changes of files while a generation is starting cause one more reload. */
#include "server/master.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/log.h"
#include "lib/stats.h"
#include "lib/vault.h"
#include "lib/version.h"
#include "server/notify.h"
#include "server/sandbox.h"
#include "server/status_page.h"
#include "server/workers.h"

/* Environment variable for the next program in an upgrade: the descriptor of the page of counters. */
static const char handed_over[] = "TASKPROXY_COUNTERS";

/* Files that keep changing are reloaded after CHANGES_MAX ticks; refused ones are tried again every RETRY_TICKS. */
enum { TICK_MS = 500, CHECK_MAX_TICKS = 60, CHANGES_MAX = 10, RETRY_TICKS = 20 };

struct master {
    uv_loop_t loop;
    const char *conf_path; /* (ref) */
    struct conf *conf;
    int stats_fd;
    bool stats_inherited;
    struct sockets *sockets;
    struct workers *workers;
    struct notify notify;
    struct history history;
    uint64_t sample_due_ms;  /* loop time of its next sample */
    char *refusal;           /* why the last reload was refused; NULL: it was not */
    uint64_t started_ms;     /* loop time */
    uint64_t stamp_reported; /* files_stamp of the live and secret files when they were loaded, or refused */
    uint64_t stamp_seen;     /* at the last tick */
    int changes;             /* consecutive ticks in which they changed again */
    int retry_ticks;         /* since refused files were tried */
    bool reload_wanted;      /* HUP came */
    int check_pid;           /* of the installed program, which checks the configuration; 0: none */
    bool stopping;
    int check_ticks; /* after so many ticks, that program is killed */
    int signal_fd;
    uv_poll_t signals; /* of signal_fd */
    uv_signal_t child_signal;
    uv_timer_t watchdog;
    uv_timer_t tick; /* every TICK_MS: the log, the check, the history, the files on the disk */
};

/* ---- the watchdog ---- */

/* Reports only while no worker is hung and at least one is ready. */
static void on_watchdog(uv_timer_t *timer)
{
    const struct master *m = CONTAINER_OF(timer, struct master, watchdog);
    if (workers_hung(m->workers) == 0 && (m->stopping || workers_ready(m->workers) > 0))
        notify_alive(&m->notify);
}

static void set_up_log(const struct conf *conf)
{
    log_setup((enum log_level)conf->log_level, (enum log_format)conf->log_format, "master");
}

/* ---- reload ---- */

char *master_refuses(const struct conf *conf)
{
    gid_t gid;
    if (geteuid() == 0 && !sandbox_has_user(conf->user))
        return conf_error(conf, "/user: there is no user \"%s\"", conf->user);
    if (conf->socket_group != NULL && sandbox_find_group(conf->socket_group, &gid) < 0)
        return conf_error(conf, "/socket_group: there is no group \"%s\"", conf->socket_group);
    return NULL;
}

/* While a worker hangs, the master does not feed the watchdog. */
static void check_watchdog(const struct master *m, const struct conf *conf)
{
    char hung_after[32], watchdog[32];
    if (m->notify.watchdog_ms == 0 || conf->hung_after_ms <= m->notify.watchdog_ms / 2)
        return;
    format_duration(conf->hung_after_ms, hung_after);
    format_duration(m->notify.watchdog_ms, watchdog);
    log_warn(
        "\"hung_after\" is %s, more than half of WatchdogSec= (%s): a hung worker may restart the service",
        hung_after, watchdog);
}

/* Watches the files for changes since they were read, or refused. */
static void watch_files(struct master *m)
{
    m->stamp_reported = m->stamp_seen = files_stamp(m->conf->files, false);
}

static void report_file(const struct file *file, const struct file *before)
{
    const char *known = before != NULL ? before->refused : NULL;
    if (file->refused == NULL && known != NULL)
        log_info("%s is no longer refused", file->path);
    if (file->refused != NULL && (known == NULL || strcmp(file->refused, known) != 0))
        log_error("%s refused, %s: %s", file->path,
                  file->len > 0 ? "its previous content stays in use" : "continuing without it",
                  file->refused);
}

/* Reports which files are refused now, and were not before or for another reason. */
static void report_files(const struct files *files, const struct files *before)
{
    const struct file *file;
    int n = 0;
    for (size_t i = 0; (file = files_at(files, i)) != NULL; i++) {
        report_file(file, before ? files_find(before, file->path) : NULL);
        n += file->refused != NULL;
    }
    stat_set(STAT_FILES_REFUSED, n);
}

/* Opens the sockets of `conf` and starts its workers. Returns an error (allocated), or NULL. */
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
        return xasprintf("cannot pass the configuration to the workers: %s", strerror(-result));
    workers_start(m->workers, conf, files);
    check_watchdog(m, conf);
    return NULL;
}

/* Replaces the configuration in force with `conf` and takes ownership of it. Returns an error (allocated), or
 * NULL. */
static char *apply(struct master *m, struct conf *conf)
{
    char *error = strcmp(conf->socket_dir, m->conf->socket_dir) == 0
                      ? start_generation(m, conf)
                      : xstrdup("\"socket_dir\" cannot change without a restart");
    if (error != NULL) {
        conf_free(conf);
        return error;
    }
    report_files(conf->files, m->conf->files);
    conf_free(m->conf);
    m->conf = conf;
    watch_files(m);
    stat_set(STAT_RELOADED_AT, wall_ms() / 1000);
    set_up_log(conf);
    return NULL;
}

static void refuse_reload(struct master *m, const char *why)
{
    char *text = xasprintf("reload refused, the old configuration stays in force: %s", why);
    stat_inc(STAT_RELOADS_REFUSED);
    stat_set(STAT_RELOADED_OK, 0);
    log_error("%s", text);
    notify_refused(&m->notify, text);
    free(text);
    free(m->refusal);
    m->refusal = xstrdup(why);
}

static void reload(struct master *m)
{
    char *error = NULL;
    notify_reloading(&m->notify);
    struct conf *conf = conf_load(m->conf_path, files_new(FILES_ALL), &error);
    if (conf != NULL)
        error = apply(m, conf);
    if (error != NULL) {
        refuse_reload(m, error);
        free(error);
        return;
    }
    stat_inc(STAT_RELOADS);
    stat_set(STAT_RELOADED_OK, 1);
    free(m->refusal);
    m->refusal = NULL;
    log_info("configuration reloaded: %d workers", (int)m->conf->workers);
}

/* ---- upgrade: HUP --another program is installed--> it checks the configuration --accepts--> exec ---- */

/* Whether the file at `program` is not the one that is running. */
static bool is_replaced(const char *program)
{
    struct stat there, ours;
    return stat(program, &there) == 0 && stat("/proc/self/exe", &ours) == 0 &&
           (there.st_dev != ours.st_dev || there.st_ino != ours.st_ino);
}

/* Executes the installed program. Signals that arrive from here on stay blocked and pending for it. */
static void become(struct master *m)
{
    const char *program = workers_program(m->workers);
    char *stats_fd = xasprintf("%d", m->stats_fd);
    log_info("replacing this program by the one installed at %s", program);
    workers_hand_over(m->workers);
    sockets_hand_over(m->sockets);
    fcntl(m->stats_fd, F_SETFD, 0);
    setenv(handed_over, stats_fd, 1);
    free(stats_fd);
    log_finish();
    execl(program, program, "-c", m->conf_path, (char *)NULL);
    const char *why = strerror(errno);
    close_range(STDERR_FILENO + 1, UINT_MAX, CLOSE_RANGE_CLOEXEC); /* workers must not inherit them */
    refuse_reload(m, why);
}

static void start_reload(struct master *m);

static void on_checked(struct master *m, bool good)
{
    m->check_pid = 0;
    if (m->stopping)
        return;
    if (good)
        become(m);
    else
        refuse_reload(m, "the installed program refuses the configuration");
    start_reload(m);
}

/* Starts the installed program to check the configuration; it prints errors on standard error. */
static void upgrade(struct master *m)
{
    const char *const args[] = {workers_program(m->workers), "-c", m->conf_path, "--check-config", NULL};
    const int fds[] = {-1, -1, STDERR_FILENO};
    notify_reloading(&m->notify);
    int pid = workers_spawn(&m->loop, args, fds, NELEMS(fds));
    if (pid < 0)
        return refuse_reload(m, "the installed program cannot be started");
    m->check_pid = pid;
    m->check_ticks = CHECK_MAX_TICKS;
}

/* ---- rotation: the configuration in force, with changed files ---- */

static void reload_files(struct master *m)
{
    const char *first = "";
    struct conf *conf = conf_renew(m->conf_path, m->conf->files);
    size_t n = files_changed(m->conf->files, conf->files, &first);
    if (n == 0) {
        report_files(conf->files, m->conf->files);
        files_take_refusals(m->conf->files, conf->files);
        conf_free(conf);
        return watch_files(m);
    }
    log_info("%s has changed%s: starting new workers", first, n > 1 ? ", and others" : "");
    char *error = apply(m, conf);
    if (error == NULL)
        stat_inc(STAT_ROTATIONS);
    else
        log_error("the changed files are not in use: %s", error);
    free(error);
}

/* ---- the causes of a reload or a rotation ---- */

/* False while a generation is starting, unless it is stuck. */
static bool may_reload(const struct master *m)
{
    return !m->stopping && m->check_pid == 0 &&
           (workers_is_complete(m->workers) || workers_is_stuck(m->workers));
}

static void reload_or_upgrade(struct master *m)
{
    if (is_replaced(workers_program(m->workers)))
        upgrade(m);
    else
        reload(m);
}

/* Starts the reload that is wanted, or leaves it to the end of the one under way. */
static void start_reload(struct master *m)
{
    if (m->reload_wanted && may_reload(m)) {
        m->reload_wanted = false;
        reload_or_upgrade(m);
    }
}

/* Compares the stamps of the files at each tick: that finds every change, on every file system, and costs one
 * stat(2) per file. Changes are reported together, once the files no longer change and no reload is under way.
 * Refused files are also tried again without a change: what they name may have changed. */
static void check_files(struct master *m)
{
    uint64_t now = files_stamp(m->conf->files, true);
    m->changes = now == m->stamp_seen ? 0 : m->changes + 1;
    m->stamp_seen = now;
    bool changed = now != m->stamp_reported && (m->changes == 0 || m->changes >= CHANGES_MAX);
    bool retry = stat_get(STAT_FILES_REFUSED) > 0 && ++m->retry_ticks >= RETRY_TICKS;
    if ((!changed && !retry) || !may_reload(m))
        return;
    m->changes = m->retry_ticks = 0;
    m->stamp_reported = now;
    reload_files(m);
    stat_add(STAT_ROTATIONS_REFUSED, changed && stat_get(STAT_FILES_REFUSED) > 0);
}

static void take_sample(struct master *m)
{
    if (uv_now(&m->loop) < m->sample_due_ms)
        return;
    m->sample_due_ms = uv_now(&m->loop) + HISTORY_STEP_S * 1000;
    history_sample(&m->history, m->conf);
}

static void on_tick(uv_timer_t *timer)
{
    struct master *m = CONTAINER_OF(timer, struct master, tick);
    log_tick();
    if (m->check_pid != 0 && --m->check_ticks == 0)
        kill(m->check_pid, SIGKILL);
    take_sample(m);
    check_files(m);
}

/* ---- stopping ---- */

static void stop_when_empty(struct master *m)
{
    if (workers_is_empty(m->workers))
        uv_stop(&m->loop);
}

static void on_terminate(struct master *m, unsigned number)
{
    if (m->stopping)
        return;
    log_info("stopping: received %s", number == SIGINT ? "SIGINT" : "SIGTERM");
    m->stopping = true;
    notify_stopping(&m->notify, m->conf->drain_ms + 2 * WORKERS_GRACE_MS);
    workers_stop(m->workers);
    stop_when_empty(m);
}

static void on_workers_change(void *ctx)
{
    struct master *m = ctx;
    if (m->stopping)
        return stop_when_empty(m);
    if (workers_is_complete(m->workers))
        sockets_tidy(m->sockets);
    notify_workers(&m->notify, m->workers, (int)m->conf->workers);
    start_reload(m);
}

static void on_page(void *ctx, unsigned page, int control)
{
    const struct master *m = ctx;
    const struct status_facts facts = {.workers = m->workers,
                                       .conf = m->conf,
                                       .history = &m->history,
                                       .refusal = m->refusal,
                                       .uptime_s = (long long)(uv_now(&m->loop) - m->started_ms) / 1000};
    status_page_send(&facts, page, control);
}

/* ---- signals ---- */

/* Reaps every child: as process 1 of a container, the master is also the parent of orphans. */
static void on_child_signal(uv_signal_t *handle, int number)
{
    (void)number;
    struct master *m = CONTAINER_OF(handle, struct master, child_signal);
    int status;
    for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;) {
        if (pid == m->check_pid)
            on_checked(m, WIFEXITED(status) && WEXITSTATUS(status) == 0);
        else
            workers_exited(m->workers, pid, status);
    }
}

static void on_signals(uv_poll_t *poll, int status, int events)
{
    (void)status, (void)events;
    struct master *m = CONTAINER_OF(poll, struct master, signals);
    struct signalfd_siginfo info;
    while (read(m->signal_fd, &info, sizeof(info)) == (ssize_t)sizeof(info)) {
        if (info.ssi_signo == SIGHUP)
            m->reload_wanted = true;
        else
            on_terminate(m, info.ssi_signo);
    }
    start_reload(m);
}

/* Without SIGCHLD: libuv resets it to the default action at times, and the kernel then discards a pending
 * one. */
static sigset_t handled_signals(void)
{
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGHUP);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    return signals;
}

void master_block_signals(void)
{
    const sigset_t signals = handled_signals();
    sigprocmask(SIG_BLOCK, &signals, NULL);
}

/* Signals are blocked and read from a signalfd. With libuv's handlers, one that comes while the master
 * replaces itself could be lost in libuv's pipe; a blocked one stays pending, and the next program reads
 * it. */
static void open_signals(struct master *m)
{
    const sigset_t signals = handled_signals();
    m->signal_fd = signalfd(-1, &signals, SFD_NONBLOCK | SFD_CLOEXEC);
    if (m->signal_fd < 0 || uv_poll_init(&m->loop, &m->signals, m->signal_fd) < 0)
        abort(); /* no descriptor is left at the very start */
}

/* ---- the master ---- */

/* Opens the page of counters that the program before an upgrade has passed on, or a new one. */
static int open_counters(struct master *m)
{
    const char *text = getenv(handed_over);
    int64_t fd;
    if (text != NULL && parse_int(text, &fd) == 0 && fd > STDERR_FILENO && fd <= INT32_MAX &&
        stats_adopt((int)fd) == 0) {
        m->stats_fd = (int)fd;
        m->stats_inherited = true;
        return 0;
    }
    m->stats_fd = stats_create();
    return m->stats_fd < 0 ? m->stats_fd : stats_attach(m->stats_fd, STATS_MASTER_SLOT);
}

/* Returns an error (allocated), or NULL. */
static char *open_everything(struct master *m)
{
    char *error = socket_dir_make(m->conf->socket_dir);
    if (error != NULL)
        return error;
    int result = open_counters(m);
    if (result < 0)
        return xasprintf("cannot create the page of counters: %s", strerror(-result));
    series_set(stat_series(FAMILY_BUILD, "version", TASKPROXY_VERSION), 1);
    stat_set(STAT_RELOADED_OK, 1);
    stat_set(STAT_RELOADED_AT, wall_ms() / 1000);
    m->workers = workers_new((struct workers_parts){.loop = &m->loop,
                                                    .conf_path = m->conf_path,
                                                    .stats_fd = m->stats_fd,
                                                    .stats_inherited = m->stats_inherited,
                                                    .sockets = m->sockets,
                                                    .on_change = on_workers_change,
                                                    .on_page = on_page,
                                                    .ctx = m});
    return NULL;
}

static void init(struct master *m)
{
    uv_loop_init(&m->loop);
    m->started_ms = uv_now(&m->loop);
    open_signals(m);
    notify_init(&m->notify);
    m->sockets = sockets_new(&m->loop);
    uv_signal_init(&m->loop, &m->child_signal);
    uv_signal_start(&m->child_signal, on_child_signal, SIGCHLD);
    uv_timer_init(&m->loop, &m->watchdog);
    uv_timer_init(&m->loop, &m->tick);
}

static void close_everything(struct master *m)
{
    workers_free(m->workers);
    sockets_free(m->sockets);
    uv_close((uv_handle_t *)&m->signals, NULL);
    uv_close((uv_handle_t *)&m->child_signal, NULL);
    uv_close((uv_handle_t *)&m->watchdog, NULL);
    uv_close((uv_handle_t *)&m->tick, NULL);
    uv_run(&m->loop, UV_RUN_DEFAULT);
    if (uv_loop_close(&m->loop) != 0)
        abort(); /* a handle was not closed */
    close(m->signal_fd);
    close(m->stats_fd);
    notify_done(&m->notify);
    free(m->refusal);
    conf_free(m->conf);
    if (!vault_is_empty())
        abort(); /* a secret was not wiped */
}

static void run(struct master *m)
{
    uv_poll_start(&m->signals, UV_READABLE, on_signals);
    uint64_t alive_ms = (uint64_t)m->notify.watchdog_ms / 3;
    if (alive_ms > 0)
        uv_timer_start(&m->watchdog, on_watchdog, alive_ms, alive_ms);
    watch_files(m);
    report_files(m->conf->files, NULL);
    uv_timer_start(&m->tick, on_tick, TICK_MS, TICK_MS);
    log_info("started: %d workers on %s", (int)m->conf->workers, m->conf->socket_dir);
    if (!vault_is_locked())
        log_warn("cannot lock the keys in memory: RLIMIT_MEMLOCK is too low");
    uv_run(&m->loop, UV_RUN_DEFAULT);
    log_info("stopped");
}

int master_main(const char *path, struct conf *conf)
{
    struct master master = {.conf_path = path, .conf = conf, .stats_fd = -1}, *m = &master;
    set_up_log(conf);
    sandbox_protect_process(); /* this process keeps the keys, too, for the workers that it starts later */
    signal(SIGPIPE, SIG_IGN);
    init(m);
    char *error = open_everything(m);
    if (error == NULL)
        error = start_generation(m, conf);
    bool started = error == NULL;
    if (started) {
        run(m);
    } else {
        log_error("%s", error);
        notify_refused(&m->notify, error);
        free(error);
    }
    close_everything(m);
    return started ? EXIT_SUCCESS : EXIT_FAILURE;
}
