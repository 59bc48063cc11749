/* status_page: see status_page.h. A page about workers, upstreams or keys reads their counters from the sums
 * over all processes (stats.h). */
#include "server/status_page.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "access/quota.h"
#include "lib/json.h"
#include "lib/log.h"
#include "lib/stats.h"
#include "lib/version.h"
#include "request/request_metrics.h"
#include "upstream/upstream_stats.h"

/* ---- why the service is degraded although it may answer requests ---- */

#define report(problems, ...) add_problem(problems, xasprintf(__VA_ARGS__))

static void add_problem(struct json_object *problems, char *text)
{
    json_object_array_add(problems, json_object_new_string(text));
    free(text);
}

static void check_workers(const struct status_facts *facts, struct json_object *problems)
{
    int hung = workers_hung(facts->workers), wanted = (int)facts->conf->workers;
    int missing = wanted - workers_ready(facts->workers) - hung;
    if (hung > 0)
        report(problems, "%d of %d workers do not respond", hung, wanted);
    if (missing > 0)
        report(problems, "%d of %d workers are missing", missing, wanted);
}

static void check_redis(const struct status_facts *facts, const struct shm_counters *total,
                        struct json_object *problems)
{
    const struct conf_redis *redis = &facts->conf->redis;
    if (redis->name == NULL)
        return;
    if (stat_read(total, STAT_REDIS_NO_WRITES) > 0)
        report(problems, "Redis accepts no writes");
    if (stat_read(total, STAT_REDIS_NO_PERMISSION) > 0)
        report(problems, "Redis denies our user a permission");
    if (stat_read(total, STAT_REDIS_UP) >= workers_ready(facts->workers))
        return;
    if (stat_read(total, STAT_REDIS_PASSWORD) > 0)
        report(problems, redis->password.text ? "Redis rejects our password" : "Redis requires a password");
    else if (stat_read(total, STAT_REDIS_REPLICA) > 0)
        report(problems, "Redis is a read-only replica");
    else
        report(problems, "Redis is unavailable");
}

static void check_upstream(const struct conf_upstream *upstream, const struct shm_counters *total,
                           struct json_object *problems)
{
    if (series_read(total, FAMILY_BREAKER_OPEN, "upstream", upstream->name) > 0)
        report(problems, "upstream %s is failing", upstream->name);
    if (series_read(total, FAMILY_KEYS_EXHAUSTED, "upstream", upstream->name) > 0)
        report(problems, "every key of upstream %s is suspended or paused", upstream->name);
    for (size_t i = 0; i < upstream->keys.n; i++) {
        struct key_reading key;
        upstream_stats_read_key(upstream, i, total, &key);
        if (key.rejected > 0)
            report(problems, "upstream %s rejects the key of %s", upstream->name, key.name);
    }
}

static void check_files(const struct files *files, struct json_object *problems)
{
    const struct file *file;
    for (size_t i = 0; (file = files_at(files, i)) != NULL; i++) {
        if (file->refused != NULL)
            report(problems, "%s refused: %s", file->path, file->refused);
    }
}

/* An array of short texts, which the caller frees. */
static struct json_object *find_problems(const struct status_facts *facts, const struct shm_counters *total)
{
    struct json_object *problems = json_object_new_array();
    int unserved = (int)stat_read(total, STAT_SOCKETS_UNSERVED);
    check_workers(facts, problems);
    if (unserved > 0)
        report(problems, "no worker serves %d of the service manager's sockets", unserved);
    if (stat_read(total, STAT_DESCRIPTORS_EXHAUSTED) > 0)
        report(problems, "a process is out of file descriptors");
    check_redis(facts, total, problems);
    for (size_t i = 0; i < facts->conf->upstreams.n; i++)
        check_upstream(conf_upstream(facts->conf, i), total, problems);
    check_files(facts->conf->files, problems);
    if (stat_read(total, STAT_RELOADED_OK) == 0)
        report(problems, "the last reload was refused");
    return problems;
}

/* ---- /healthz and /readyz: each page writes its text to `out` and returns the HTTP status ---- */

static int print_health(const struct status_facts *facts, const struct shm_counters *none, struct buf *out)
{
    (void)none;
    buf_addf(out, "{\"status\":\"alive\",\"uptime_s\":%lld}\n", facts->uptime_s);
    return 200;
}

static const char *word_for(const struct status_facts *facts, const struct json_object *problems)
{
    if (workers_ready(facts->workers) == 0)
        return "not ready";
    return json_object_array_length(problems) > 0 ? "degraded" : "ready";
}

static int print_readiness(const struct status_facts *facts, const struct shm_counters *total,
                           struct buf *out)
{
    int ready = workers_ready(facts->workers);
    struct json_object *problems = find_problems(facts, total);
    buf_addf(out, "{\"status\":\"%s\",\"workers\":%d,\"workers_ready\":%d,\"workers_hung\":%d,\"why\":%s}\n",
             word_for(facts, problems), (int)facts->conf->workers, ready, workers_hung(facts->workers),
             json_object_to_json_string_ext(problems, JSON_C_TO_STRING_NOSLASHESCAPE));
    json_object_put(problems);
    return ready > 0 ? 200 : 503;
}

/* ---- /metrics ---- */

struct metric {
    enum stat_type type;
    const char *name;
    const char *help; /* NULL: another row of the metric above */
};

#define ROW_METRIC(id, type, metric, labels, help) {type, metric, help},
#define FAMILY_METRIC(id, type, metric, help)      {type, metric, help},
static const struct metric metrics[] = {STATS(ROW_METRIC) FAMILIES(FAMILY_METRIC)};

/* Adds the label "le" to those of the key. */
static void print_bucket(const char *key, const char *bound, long long sum, struct buf *out)
{
    size_t name = strcspn(key, "{"), len = strlen(key);
    buf_addf(out, "taskproxy_%.*s_bucket{", (int)name, key);
    if (name + 2 < len)
        buf_addf(out, "%.*s,", (int)(len - name - 2), key + name + 1);
    buf_addf(out, "le=\"%s\"} %lld\n", bound, sum);
}

static void print_histogram(const char *key, const int64_t *values, struct buf *out)
{
    char bound[32];
    long long sum = 0;
    int name = (int)strcspn(key, "{");
    for (size_t i = 0; i < STAT_BOUNDS; i++) {
        snprintf(bound, sizeof(bound), "%g", (double)stat_bounds_ns[i] / 1e9);
        print_bucket(key, bound, sum += values[i], out);
    }
    print_bucket(key, "+Inf", sum += values[STAT_BEHIND], out);
    buf_addf(out, "taskproxy_%.*s_sum%s %.9f\n", name, key, key + name, (double)values[STAT_SUM] / 1e9);
    buf_addf(out, "taskproxy_%.*s_count%s %lld\n", name, key, key + name, sum);
}

static void print_series(const struct shm_counters *total, const struct metric *metric, struct buf *out)
{
    size_t width;
    for (size_t at = 0; at < total->n; at += width) {
        const char *key = total->keys[at];
        width = shm_counters_width(total, at);
        if (!shm_counters_key_is(key, metric->name) ||
            (metric->type == histogram) != (width == STAT_HISTOGRAM))
            continue;
        if (width == STAT_HISTOGRAM)
            print_histogram(key, &total->values[at], out);
        else
            buf_addf(out, "taskproxy_%s %lld\n", key, (long long)total->values[at]);
    }
}

static int print_metrics(const struct status_facts *facts, const struct shm_counters *total, struct buf *out)
{
    static const char *const types[] = {[counter] = "counter", [gauge] = "gauge", [histogram] = "histogram"};
    (void)facts;
    for (size_t i = 0; i < NELEMS(metrics); i++) {
        const struct metric *metric = &metrics[i];
        if (metric->help == NULL)
            continue;
        buf_addf(out, "# HELP taskproxy_%s %s.\n", metric->name, metric->help);
        buf_addf(out, "# TYPE taskproxy_%s %s\n", metric->name, types[metric->type]);
        print_series(total, metric, out);
    }
    return 200;
}

/* ---- /status: an object with one member for each section ---- */

/* null if it is NULL. */
static void add_text(struct json_object *row, const char *name, const char *value)
{
    json_object_object_add(row, name, value != NULL ? json_object_new_string(value) : NULL);
}

static void add_number(struct json_object *row, const char *name, int64_t value)
{
    json_object_object_add(row, name, json_object_new_int64(value));
}

/* null if it is 0. */
static void add_time(struct json_object *row, const char *name, int64_t unix_seconds)
{
    char text[32];
    utc_text(unix_seconds, text);
    json_object_object_add(row, name, unix_seconds > 0 ? json_object_new_string(text) : NULL);
}

static struct json_object *add_row(struct json_object *array)
{
    struct json_object *row = json_object_new_object();
    json_object_array_add(array, row);
    return row;
}

static struct json_object *program_section(const struct status_facts *facts, const struct shm_counters *total)
{
    struct json_object *row = json_object_new_object();
    add_text(row, "version", TASKPROXY_VERSION);
    add_number(row, "uptime_s", facts->uptime_s);
    add_time(row, "configuration_of", stat_read(total, STAT_RELOADED_AT));
    add_number(row, "reloads", stat_read(total, STAT_RELOADS));
    add_number(row, "refused", stat_read(total, STAT_RELOADS_REFUSED));
    add_text(row, "last_refusal", facts->refusal);
    add_number(row, "worker_deaths", stat_read(total, STAT_WORKER_DEATHS));
    return row;
}

static struct json_object *workers_section(const struct workers *workers)
{
    static const char *const states[] = {[WORKER_STARTING] = "starting",
                                         [WORKER_READY_TO_SERVE] = "ready",
                                         [WORKER_HUNG] = "hung",
                                         [WORKER_LEAVING] = "leaving"};
    struct json_object *section = json_object_new_array();
    struct shm_counters *own = xcalloc(1, sizeof(*own));
    struct worker_info worker;
    for (size_t i = 0; workers_info(workers, i, &worker); i++) {
        stats_sum_of(worker.slot, own);
        struct json_object *row = add_row(section);
        add_number(row, "worker", worker.index);
        add_number(row, "pid", worker.pid);
        add_text(row, "state", states[worker.state]);
        add_number(row, "uptime_s", worker.uptime_ms / 1000);
        add_number(row, "requests", request_metrics_read(own, ""));
    }
    free(own);
    return section;
}

static struct json_object *requests_section(const struct shm_counters *total)
{
    struct json_object *row = json_object_new_object();
    add_number(row, "answered", request_metrics_read(total, ""));
    add_number(row, "hits", request_metrics_read(total, "hit"));
    add_number(row, "misses", request_metrics_read(total, "miss"));
    add_number(row, "collapsed", request_metrics_read(total, "collapsed"));
    add_number(row, "stale", request_metrics_read(total, "stale"));
    add_number(row, "queries_spared", stat_read(total, STAT_SPARED));
    return row;
}

/* The Redis servers in use, and by how many workers. */
static struct json_object *redis_servers(const struct shm_counters *total)
{
    struct json_object *rows = json_object_new_array();
    char address[SHM_COUNTERS_KEY];
    for (size_t at = 0; at < total->n; at += shm_counters_width(total, at)) {
        if (total->values[at] == 0 ||
            sscanf(total->keys[at], "redis_servers{server=\"%247[^\"]", address) != 1)
            continue;
        struct json_object *row = add_row(rows);
        add_text(row, "address", address);
        add_number(row, "workers", total->values[at]);
    }
    return rows;
}

static struct json_object *now_section(const struct shm_counters *total)
{
    struct json_object *row = json_object_new_object();
    add_number(row, "waiters", stat_read(total, STAT_WAITERS));
    add_number(row, "streams", stat_read(total, STAT_STREAMS));
    add_number(row, "watched_tasks", stat_read(total, STAT_WATCHED));
    add_number(row, "fetches", stat_read(total, STAT_FETCHES));
    add_number(row, "cached", stat_read(total, STAT_CACHE_ENTRIES));
    add_number(row, "cache_bytes", stat_read(total, STAT_CACHE_BYTES));
    add_number(row, "evictions", stat_read(total, STAT_CACHE_EVICTIONS));
    add_number(row, "redis_wanted", stat_read(total, STAT_REDIS_WANTED));
    add_number(row, "redis_up", stat_read(total, STAT_REDIS_UP));
    add_number(row, "redis_failures", stat_read(total, STAT_REDIS_FAILURES));
    json_object_object_add(row, "redis_servers", redis_servers(total));
    return row;
}

/* With any of its keys. */
static int64_t last_query(const struct conf_upstream *upstream, const struct shm_counters *total)
{
    int64_t last = 0;
    for (size_t i = 0; i < upstream->keys.n; i++) {
        struct key_reading key;
        upstream_stats_read_key(upstream, i, total, &key);
        last = max64(last, key.queried_at);
    }
    return last;
}

static struct json_object *upstreams_section(const struct conf *conf, const struct shm_counters *total)
{
    struct json_object *section = json_object_new_array();
    for (size_t i = 0; i < conf->upstreams.n; i++) {
        const struct conf_upstream *upstream = conf_upstream(conf, i);
        struct json_object *row = add_row(section);
        bool open = series_read(total, FAMILY_BREAKER_OPEN, "upstream", upstream->name) > 0;
        add_text(row, "upstream", upstream->name);
        bool unproven = series_read(total, FAMILY_BREAKER_UNPROVEN, "upstream", upstream->name) > 0;
        add_text(row, "breaker", open ? "open" : unproven ? "not tried for 10 min" : "closed");
        add_time(row, "last_query", last_query(upstream, total));
        add_number(row, "in_flight",
                   series_read(total, FAMILY_UPSTREAM_IN_FLIGHT, "upstream", upstream->name));
        add_number(row, "queries", series_read(total, FAMILY_UPSTREAM_QUERIES, "upstream", upstream->name));
        add_number(row, "failures", series_read(total, FAMILY_UPSTREAM_FAILURES, "upstream", upstream->name));
    }
    return section;
}

static void add_key(struct json_object *section, const struct conf_upstream *upstream, size_t i,
                    const struct shm_counters *total)
{
    struct json_object *row = add_row(section);
    struct key_reading key;
    upstream_stats_read_key(upstream, i, total, &key);
    add_text(row, "upstream", upstream->name);
    add_text(row, "key", key.name);
    add_text(row, "digest", key.mark);
    add_text(row, "state",
             key.aside > 0      ? "set aside"
             : key.rejected > 0 ? "rejected"
             : key.resting > 0  ? "resting"
             : key.unproven > 0 ? "not tried for 10 min"
                                : "in use");
    add_time(row, "last_query", key.queried_at);
    add_number(row, "refusals", key.refusals);
}

static struct json_object *keys_section(const struct conf *conf, const struct shm_counters *total)
{
    struct json_object *section = json_object_new_array();
    for (size_t i = 0; i < conf->upstreams.n; i++) {
        const struct conf_upstream *upstream = conf_upstream(conf, i);
        for (size_t key = 0; key < upstream->keys.n; key++)
            add_key(section, upstream, key, total);
    }
    return section;
}

/* The teams with metrics of their own, and those that share some. */
static struct json_object *teams_section(const struct conf *conf, const struct shm_counters *total)
{
    struct json_object *section = json_object_new_array();
    for (size_t i = 0; i < conf->teams.list.n && i <= QUOTA_SERIES_MAX; i++) {
        struct json_object *row = add_row(section);
        const char *name = quota_series_name(conf, i);
        const struct team *team = teams_at(&conf->teams, i);
        bool own = i < QUOTA_SERIES_MAX;
        add_text(row, "team", name);
        add_number(row, "queries_per_minute", own ? team->queries_per_minute : 0);
        add_number(row, "watchers", own ? team->watchers : 0);
        add_number(row, "queries", series_read(total, FAMILY_TEAM_QUERIES, "team", name));
        add_number(row, "queries_refused",
                   series_read(total, FAMILY_RATE_LIMITED, "team", name, "limit", "queries"));
        add_number(row, "waits_refused",
                   series_read(total, FAMILY_RATE_LIMITED, "team", name, "limit", "watchers"));
        add_number(row, "held", series_read(total, FAMILY_TEAM_HELD, "team", name));
    }
    return section;
}

/* Providers in use whose upstream has announced the end of the interface. */
static struct json_object *retiring_section(const struct conf *conf)
{
    struct json_object *section = json_object_new_array();
    for (size_t i = 0; i < conf->providers.n; i++) {
        const struct provider *provider = ((struct provider **)conf->providers.items)[i];
        if (provider->retires == NULL)
            continue;
        struct json_object *row = add_row(section);
        add_text(row, "provider", provider->name);
        add_text(row, "retires", provider->retires);
        add_number(row, "days_left", provider_days_left(provider, wall_ms() / 1000));
    }
    return section;
}

static struct json_object *tasks_section(void)
{
    struct json_object *section = json_object_new_array();
    struct top_tasks_list list;
    stats_watched(&list);
    for (size_t i = 0; i < list.n; i++) {
        struct json_object *row = add_row(section);
        add_text(row, "task", list.tasks[i].name);
        add_number(row, "watchers", list.tasks[i].watchers);
    }
    return section;
}

static int print_status(const struct status_facts *facts, const struct shm_counters *total, struct buf *out)
{
    const struct conf *conf = facts->conf;
    struct json_object *page = json_object_new_object(), *problems = find_problems(facts, total);
    add_text(page, "status", word_for(facts, problems));
    json_object_object_add(page, "taskproxy", program_section(facts, total));
    json_object_object_add(page, "troubles", problems);
    json_object_object_add(page, "workers", workers_section(facts->workers));
    json_object_object_add(page, "requests", requests_section(total));
    json_object_object_add(page, "now", now_section(total));
    json_object_object_add(page, "upstreams", upstreams_section(conf, total));
    json_object_object_add(page, "keys", keys_section(conf, total));
    json_object_object_add(page, "teams", teams_section(conf, total));
    json_object_object_add(page, "retiring", retiring_section(conf));
    json_object_object_add(page, "most_watched", tasks_section());
    json_object_object_add(page, "history", history_json(facts->history));
    buf_puts(out,
             json_object_to_json_string_ext(page, JSON_C_TO_STRING_NOSLASHESCAPE | JSON_C_TO_STRING_PRETTY));
    buf_putc(out, '\n');
    json_object_put(page);
    return 200;
}

/* ---- the table of pages ---- */

static const struct page {
    const char *path;
    int (*print)(const struct status_facts *facts, const struct shm_counters *total, struct buf *out);
    const char *type; /* of the content */
    bool counts;      /* it prints counters; otherwise `total` is NULL */
} pages[] = {{"/healthz", print_health, "application/json", false},
             {"/readyz", print_readiness, "application/json", true},
             {"/metrics", print_metrics, "text/plain; version=0.0.4", true},
             {"/status", print_status, "application/json", true}};

int status_page_find(const char *uri)
{
    if (uri == NULL)
        return -1;
    size_t len = strcspn(uri, "?");
    for (size_t i = 0; i < NELEMS(pages); i++) {
        if (strlen(pages[i].path) == len && memcmp(pages[i].path, uri, len) == 0)
            return (int)i;
    }
    return -1;
}

const char *status_page_type(int page)
{
    return pages[page].type;
}

/* ---- from the master to the status server: a message with the HTTP status and a memory file ---- */

union attachment {
    struct cmsghdr head;
    char room[CMSG_SPACE(sizeof(int))];
};

/* A message with the HTTP status `code`. */
static struct msghdr message_with(struct iovec *code, union attachment *file)
{
    return (struct msghdr){
        .msg_iov = code, .msg_iovlen = 1, .msg_control = file, .msg_controllen = sizeof(*file)};
}

static void send_page(int control, int code, const struct buf *text)
{
    int fd = memfd_create("taskproxy-page", MFD_CLOEXEC);
    union attachment file = {
        .head = {.cmsg_len = CMSG_LEN(sizeof(fd)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS}};
    struct msghdr message = message_with(&(struct iovec){&code, sizeof(code)}, &file);
    memcpy(CMSG_DATA(&file.head), &fd, sizeof(fd));
    if (fd < 0 || write_full(fd, text->data, text->len) < 0)
        message.msg_controllen = 0; /* a message without a page */
    if (sendmsg(control, &message, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
        log_warn("cannot send a status page: %s", strerror(errno));
    if (fd >= 0)
        close(fd);
}

void status_page_send(const struct status_facts *facts, unsigned page, int control)
{
    if (page >= NELEMS(pages))
        return; /* the status server never requests this */
    struct shm_counters *total = pages[page].counts ? xcalloc(1, sizeof(*total)) : NULL;
    struct buf text;
    buf_init(&text, STATUS_PAGE_MAX);
    if (total != NULL)
        stats_sum(total);
    int code = pages[page].print(facts, total, &text);
    send_page(control, code, &text);
    buf_done(&text);
    free(total);
}

int status_page_receive(int control, struct buf *text)
{
    int code, fd;
    union attachment file;
    struct msghdr message = message_with(&(struct iovec){&code, sizeof(code)}, &file);
    if (recvmsg(control, &message, MSG_CMSG_CLOEXEC) != (ssize_t)sizeof(code) || message.msg_controllen == 0)
        return -1;
    memcpy(&fd, CMSG_DATA(&file.head), sizeof(fd));
    size_t len = (size_t)lseek(fd, 0, SEEK_CUR); /* where the master stopped writing */
    void *data = mmap(NULL, len, PROT_READ, MAP_PRIVATE, fd, 0);
    close(fd);
    if (data == MAP_FAILED)
        return -1;
    buf_add(text, data, len);
    munmap(data, len);
    return code;
}
