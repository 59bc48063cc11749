/* progress: see progress.h. */
#include "cli/progress.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/json.h"
#include "lib/sanitize.h"

enum { MAX_DEPTH = 8, RESULTS_MAX = 64, URL_SIZE = 8192, BAR_LEAST = 10 };

/* ---- reading ---- */

/* Copies the sanitized text of a member; "" if there is none. */
static void copy_text(struct json_object *doc, const char *name, char *out, size_t size)
{
    struct json_object *member = NULL;
    const char *text = json_member(doc, name, &member) ? json_text(member) : NULL;
    sanitize_copy(out, size, text ? text : "", text ? strlen(text) : 0);
}

/* ASCII only, so that each byte takes one column. */
static void copy_ascii(struct json_object *doc, const char *name, char *out, size_t size)
{
    copy_text(doc, name, out, size);
    for (char *c = out; *c != '\0'; c++) {
        if ((unsigned char)*c >= 0x80)
            *c = '?';
    }
}

static int read_percent(struct json_object *doc)
{
    struct json_object *member;
    if (!json_member(doc, "progress", &member) || !json_object_is_type(member, json_type_int))
        return -1;
    int64_t percent = json_object_get_int64(member);
    return percent < 0 || percent > 100 ? -1 : (int)percent;
}

static void read_results(struct json_object *doc, struct list *ret)
{
    struct json_object *results;
    char url[URL_SIZE];
    if (!json_member(doc, "results", &results) || !json_object_is_type(results, json_type_array))
        return;
    size_t n = json_object_array_length(results);
    char **urls = xcalloc(RESULTS_MAX, sizeof(*urls));
    for (size_t i = 0; i < n && ret->n < RESULTS_MAX; i++) {
        copy_text(json_object_array_get_idx(results, i), "url", url, sizeof(url));
        if (url[0] != '\0')
            urls[ret->n++] = xstrdup(url);
    }
    ret->items = urls;
}

bool progress_read(const char *data, size_t len, struct progress *ret)
{
    struct json_error error;
    struct json_object *doc = json_read(data, len, MAX_DEPTH, JSON_PLAIN, &error);
    char status[16], provider[80], id[PROGRESS_TASK_SIZE - 81];
    copy_text(doc, "status", status, sizeof(status));
    *ret = (struct progress){.state = state_by_name(status), .percent = read_percent(doc)};
    copy_ascii(doc, "provider", provider, sizeof(provider));
    copy_ascii(doc, "task_id", id, sizeof(id));
    snprintf(ret->task, sizeof(ret->task), "%s/%s", provider, id);
    copy_text(doc, "error", ret->error, sizeof(ret->error));
    bool good = ret->state != STATE_NONE && provider[0] != '\0' && id[0] != '\0';
    if (good)
        read_results(doc, &ret->results);
    json_object_put(doc);
    return good;
}

void progress_done(struct progress *p)
{
    char **urls = p->results.items;
    for (size_t i = 0; i < p->results.n; i++)
        free(urls[i]);
    free(urls);
    p->results = (struct list){NULL, 0};
}

void progress_problem(const char *data, size_t len, char out[static PROGRESS_TEXT_SIZE])
{
    struct json_error error;
    struct json_object *doc = json_read(data, len, MAX_DEPTH, JSON_PLAIN, &error);
    copy_text(doc, "detail", out, PROGRESS_TEXT_SIZE);
    json_object_put(doc);
}

/* ---- showing ---- */

void progress_line(const struct progress *p, char out[static PROGRESS_LINE_MAX])
{
    int n = snprintf(out, PROGRESS_LINE_MAX, "%s %s", p->task, state_name(p->state));
    if (p->percent >= 0 && p->state == STATE_RUNNING)
        snprintf(out + n, (size_t)(PROGRESS_LINE_MAX - n), " %d %%", p->percent);
    else if (p->error[0] != '\0')
        snprintf(out + n, (size_t)(PROGRESS_LINE_MAX - n), ": %s", p->error);
}

/* "  42 %  1:05" */
static void write_tail(const struct progress *p, int64_t elapsed_s, char *out, size_t size)
{
    char percent[16] = "";
    long long h = elapsed_s / 3600, m = elapsed_s / 60 % 60, s = elapsed_s % 60;
    if (p->percent >= 0)
        snprintf(percent, sizeof(percent), "  %3d %%", p->percent);
    if (h > 0)
        snprintf(out, size, "%s  %lld:%02lld:%02lld", percent, h, m, s);
    else
        snprintf(out, size, "%s  %lld:%02lld", percent, m, s);
}

void progress_bar(const struct progress *p, int64_t elapsed_s, int width, char out[static PROGRESS_LINE_MAX])
{
    static const char full[] = "########################################";
    static const char empty[] = "........................................";
    char tail[64], bar[2 * sizeof(full) + 8] = "";
    write_tail(p, elapsed_s, tail, sizeof(tail));
    size_t others = strlen(p->task) + 2 + strlen(state_name(p->state)) + strlen("  []") + strlen(tail);
    int cells = width - 1 - (int)others, most = (int)sizeof(full) - 1;
    if (cells > most)
        cells = most;
    if (cells >= BAR_LEAST) {
        int done = p->percent < 0 ? 0 : cells * p->percent / 100;
        snprintf(bar, sizeof(bar), "  [%.*s%.*s]", done, full, cells - done, empty);
    }
    snprintf(out, PROGRESS_LINE_MAX, "%s  %s%s%s", p->task, state_name(p->state), bar, tail);
    out[width > 1 && width <= PROGRESS_LINE_MAX ? width - 1 : PROGRESS_LINE_MAX - 1] = '\0';
}
