/* status_page: see status_page.h. The page is an object with one member for each section: an object, or an
 * array of objects with the same members. */
#include "server/status_page.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/sanitize.h"
#include "lib/version.h"
#include "request/request_metrics.h"
#include "upstream/upstream_stats.h"

enum { PROBLEM_MAX = 200, CELL_MAX = 256, LINE_MAX_BYTES = 4096, TEXT_WIDTH = 20, NUMBER_WIDTH = 8 };

/* ---- problems ---- */

static PRINTF(2, 3) void report(struct json_object *problems, const char *format, ...)
{
    char text[PROBLEM_MAX];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    json_object_array_add(problems, json_object_new_string(text));
}

static void check_workers(const struct status *status, struct json_object *problems)
{
    int hung = workers_hung(status->workers), wanted = (int)status->conf->workers;
    int missing = wanted - workers_ready(status->workers) - hung;
    if (hung > 0)
        report(problems, "%d of %d workers do not respond", hung, wanted);
    if (missing > 0)
        report(problems, "%d of %d workers are missing", missing, wanted);
}

static void check_redis(const struct status *status, const struct shm_counters *total,
                        struct json_object *problems)
{
    const struct conf_redis *redis = &status->conf->redis;
    if (redis->address == NULL || stat_read(total, STAT_REDIS_UP) >= workers_ready(status->workers))
        return;
    if (stat_read(total, STAT_REDIS_REJECTED) == 0)
        report(problems, "Redis is unavailable");
    else
        report(problems, redis->password.text ? "Redis rejects our password" : "Redis requires a password");
}

static void check_upstream(const struct conf_upstream *upstream, const struct shm_counters *total,
                           struct json_object *problems)
{
    struct upstream_reading reading;
    upstream_stats_read(upstream, total, &reading);
    if (reading.breaker_open > 0)
        report(problems, "upstream %s is failing", upstream->name);
    for (size_t i = 0; i < upstream->keys.n; i++) {
        struct key_reading key;
        upstream_stats_read_key(upstream, i, total, &key);
        if (key.aside > 0)
            report(problems, "upstream %s rejects the key of %s", upstream->name, key.name);
    }
}

struct json_object *status_problems(const struct status *status, const struct shm_counters *total)
{
    struct json_object *problems = json_object_new_array();
    check_workers(status, problems);
    check_redis(status, total, problems);
    for (size_t i = 0; i < status->conf->upstreams.n; i++)
        check_upstream(conf_upstream(status->conf, i), total, problems);
    if (stat_read(total, STAT_RELOADED_OK) == 0)
        report(problems, "the last reload was refused");
    return problems;
}

/* ---- sections ---- */

static struct json_object *add_section(struct json_object *page, const char *name,
                                       struct json_object *section)
{
    json_object_object_add(page, name, section);
    return section;
}

static struct json_object *add_row(struct json_object *section)
{
    struct json_object *row = json_object_new_object();
    json_object_array_add(section, row);
    return row;
}

static void add_text(struct json_object *row, const char *name, const char *value)
{
    json_object_object_add(row, name, json_object_new_string(value));
}

static void add_number(struct json_object *row, const char *name, int64_t value)
{
    json_object_object_add(row, name, json_object_new_int64(value));
}

static void add_program(struct json_object *page, const struct status *status,
                        const struct shm_counters *total)
{
    struct json_object *row = add_section(page, "taskproxy", json_object_new_object());
    char at[32];
    utc_text(stat_read(total, STAT_RELOADED_AT), at);
    add_text(row, "version", TASKPROXY_VERSION);
    add_number(row, "uptime_s", status->uptime_ms / 1000);
    add_text(row, "configuration_of", at);
    add_number(row, "reloads", stat_read(total, STAT_RELOADS));
    add_number(row, "refused", stat_read(total, STAT_RELOADS_REFUSED));
    add_number(row, "worker_deaths", stat_read(total, STAT_WORKER_DEATHS));
}

static void add_problems(struct json_object *page, const struct status *status,
                         const struct shm_counters *total)
{
    struct json_object *section = add_section(page, "troubles", json_object_new_array());
    struct json_object *problems = status_problems(status, total);
    for (size_t i = 0; i < json_object_array_length(problems); i++)
        add_text(add_row(section), "what", json_object_get_string(json_object_array_get_idx(problems, i)));
    json_object_put(problems);
}

static void add_workers(struct json_object *page, const struct workers *workers)
{
    static const char *const states[] = {[WORKER_STARTING] = "starting",
                                         [WORKER_READY_TO_SERVE] = "ready",
                                         [WORKER_HUNG] = "hung",
                                         [WORKER_LEAVING] = "leaving"};
    struct json_object *section = add_section(page, "workers", json_object_new_array());
    struct shm_counters *own = xcalloc(1, sizeof(*own));
    struct worker_info worker;
    for (size_t i = 0; workers_info(workers, i, &worker); i++) {
        struct request_metrics_reading metrics;
        stats_sum_of(worker.slot, own);
        request_metrics_read(own, &metrics);
        struct json_object *row = add_row(section);
        add_number(row, "worker", worker.index);
        add_number(row, "pid", worker.pid);
        add_text(row, "state", states[worker.state]);
        add_number(row, "uptime_s", worker.uptime_ms / 1000);
        add_number(row, "requests", metrics.requests);
    }
    free(own);
}

/* The share of lookups that a fresh snapshot answered; 0 without lookups. */
static void add_hit_ratio(struct json_object *row, const struct request_metrics_reading *metrics)
{
    char digits[32];
    int64_t asked = metrics->hits + metrics->misses + metrics->collapsed + metrics->stale;
    double ratio = asked > 0 ? (double)metrics->hits / (double)asked : 0;
    snprintf(digits, sizeof(digits), "%.3f", ratio);
    json_object_object_add(row, "hit_ratio", json_object_new_double_s(ratio, digits));
}

static void add_requests(struct json_object *page, const struct shm_counters *total)
{
    struct json_object *row = add_section(page, "requests", json_object_new_object());
    struct request_metrics_reading metrics;
    request_metrics_read(total, &metrics);
    add_number(row, "answered", metrics.requests);
    add_number(row, "hits", metrics.hits);
    add_number(row, "misses", metrics.misses);
    add_number(row, "collapsed", metrics.collapsed);
    add_number(row, "stale", metrics.stale);
    add_hit_ratio(row, &metrics);
    add_number(row, "queries_spared", stat_read(total, STAT_SPARED));
}

static void add_present(struct json_object *page, const struct shm_counters *total)
{
    static const struct {
        const char *name;
        enum stat_id id;
    } fields[] = {{"waiters", STAT_WAITERS},
                  {"streams", STAT_STREAMS},
                  {"watched_tasks", STAT_WATCHED},
                  {"fetches", STAT_FETCHES},
                  {"cached", STAT_CACHE_ENTRIES},
                  {"cache_bytes", STAT_CACHE_BYTES},
                  {"evictions", STAT_CACHE_EVICTIONS},
                  {"redis_up", STAT_REDIS_UP},
                  {"redis_failures", STAT_REDIS_FAILURES}};
    struct json_object *row = add_section(page, "now", json_object_new_object());
    for (size_t i = 0; i < NELEMS(fields); i++)
        add_number(row, fields[i].name, stat_read(total, fields[i].id));
}

static void add_upstreams(struct json_object *page, const struct conf *conf, const struct shm_counters *total)
{
    struct json_object *section = add_section(page, "upstreams", json_object_new_array());
    for (size_t i = 0; i < conf->upstreams.n; i++) {
        struct json_object *row = add_row(section);
        struct upstream_reading reading;
        upstream_stats_read(conf_upstream(conf, i), total, &reading);
        add_text(row, "upstream", conf_upstream(conf, i)->name);
        add_text(row, "breaker", reading.breaker_open > 0 ? "open" : "closed");
        add_number(row, "in_flight", reading.in_flight);
        add_number(row, "queries", reading.queries);
        add_number(row, "failures", reading.failures);
    }
}

static void add_keys_of(struct json_object *section, const struct conf_upstream *upstream,
                        const struct shm_counters *total)
{
    for (size_t i = 0; i < upstream->keys.n; i++) {
        struct json_object *row = add_row(section);
        struct key_reading key;
        upstream_stats_read_key(upstream, i, total, &key);
        add_text(row, "upstream", upstream->name);
        add_text(row, "key", key.name);
        add_text(row, "digest", key.mark);
        add_text(row, "state", key.aside > 0 ? "set aside" : key.resting > 0 ? "resting" : "in use");
        add_number(row, "refusals", key.refusals);
    }
}

static void add_keys(struct json_object *page, const struct conf *conf, const struct shm_counters *total)
{
    struct json_object *section = add_section(page, "keys", json_object_new_array());
    for (size_t i = 0; i < conf->upstreams.n; i++)
        add_keys_of(section, conf_upstream(conf, i), total);
}

static void add_top_tasks(struct json_object *page)
{
    struct json_object *section = add_section(page, "most_watched", json_object_new_array());
    struct top_tasks_list list;
    stats_watched(&list);
    for (size_t i = 0; i < list.n; i++) {
        struct json_object *row = add_row(section);
        add_text(row, "task", list.tasks[i].name);
        add_number(row, "watchers", list.tasks[i].watchers);
    }
}

/* ---- columns ---- */

static void add_cell(struct buf *line, const char *text, size_t width)
{
    char cell[CELL_MAX];
    size_t len = sanitize_copy(cell, sizeof(cell), text, strlen(text)), shown = 0;
    for (size_t i = 0; i < len; i++)
        shown += ((unsigned char)cell[i] & 0xc0) != 0x80; /* the first byte of a character */
    buf_addf(line, "  %s%*s", cell, shown < width ? (int)(width - shown) : 0, "");
}

/* The names of the members, or their values. */
static void print_line(struct json_object *row, bool names, struct buf *out)
{
    struct buf line;
    buf_init(&line, LINE_MAX_BYTES);
    json_object_object_foreach(row, name, value)
    {
        size_t width = json_object_is_type(value, json_type_string) ? TEXT_WIDTH : NUMBER_WIDTH;
        size_t name_len = strlen(name);
        add_cell(&line, names ? name : json_object_get_string(value), name_len > width ? name_len : width);
    }
    while (line.len > 0 && line.data[line.len - 1] == ' ')
        line.len--;
    buf_add(out, line.data, line.len);
    buf_putc(out, '\n');
    buf_done(&line);
}

static void print_section(const char *name, struct json_object *section, struct buf *out)
{
    bool is_array = json_object_is_type(section, json_type_array);
    size_t n = is_array ? json_object_array_length(section) : 1;
    buf_addf(out, "%s\n%s", name, n == 0 ? "  none\n" : "");
    for (size_t i = 0; i < n; i++) {
        struct json_object *row = is_array ? json_object_array_get_idx(section, i) : section;
        if (i == 0)
            print_line(row, true, out);
        print_line(row, false, out);
    }
    buf_putc(out, '\n');
}

/* ---- the page ---- */

static struct json_object *make_page(const struct status *status)
{
    struct json_object *page = json_object_new_object();
    struct shm_counters *total = xcalloc(1, sizeof(*total));
    stats_sum(total);
    add_program(page, status, total);
    add_problems(page, status, total);
    add_workers(page, status->workers);
    add_requests(page, total);
    add_present(page, total);
    add_upstreams(page, status->conf, total);
    add_keys(page, status->conf, total);
    add_top_tasks(page);
    free(total);
    return page;
}

void status_page_print(const struct status *status, bool as_text, struct buf *out)
{
    struct json_object *page = make_page(status);
    if (as_text) {
        json_object_object_foreach(page, name, section)
        {
            print_section(name, section, out);
        }
    } else {
        buf_puts(out, json_object_to_json_string_ext(page, JSON_C_TO_STRING_NOSLASHESCAPE));
        buf_putc(out, '\n');
    }
    json_object_put(page);
}
