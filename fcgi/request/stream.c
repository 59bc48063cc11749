/* stream: see stream.h. */
#include "request/stream.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/stats.h"

enum {
    ID_LEN = ETAG_SIZE - 3, /* of an ETag without quotes */
    MARK_LEN = 8,           /* of it, in the ids of a list */
    RECONNECT_MS = 1000,    /* the shortest pause before a client reconnects, */
    SPREAD_MS = 1000        /* and what is added to it at random */
};

#define MARK_CHARACTERS "0123456789abcdefghijklmnopqrstuvwxyz_-"

static size_t mark_len(const struct lookups *ls)
{
    return lookups_are_list(ls) ? MARK_LEN : ID_LEN;
}

bool stream_take_last_id(struct lookups *ls, const char *id)
{
    size_t len = mark_len(ls);
    if (id == NULL || strlen(id) != ls->n * len || id[strspn(id, MARK_CHARACTERS)] != '\0')
        return false;
    for (size_t i = 0; i < ls->n; i++)
        memcpy(ls->items[i].told.mark, id + i * len, len);
    return strchr(id, '-') == NULL;
}

/* ---- what is new ---- */

/* The problem that the client should know of, while it waits for a view. */
static enum problem trouble_of(const struct lookup *l)
{
    return problem_may_pass(l->problem) ? l->problem : PROBLEM_NONE;
}

/* What stands for the result in ids; NULL if there is no result yet. */
static const char *mark_of(const struct lookup *l, enum view_kind view)
{
    if (l->snapshot != NULL)
        return snapshot_view(l->snapshot, view)->etag + 1;
    return l->problem == PROBLEM_NONE || problem_may_pass(l->problem) ? NULL : problem_code(l->problem);
}

static bool has_new_result(const struct lookup *l, enum view_kind view)
{
    const char *mark = mark_of(l, view);
    bool recovered = l->told.trouble != PROBLEM_NONE && trouble_of(l) == PROBLEM_NONE;
    return mark != NULL && (recovered || strncmp(mark, l->told.mark, mark_len(l->lookups)) != 0);
}

/* ---- events ---- */

static void add_id(struct buf *text, const struct lookups *ls)
{
    int len = (int)mark_len(ls);
    buf_puts(text, "id: ");
    for (size_t i = 0; i < ls->n; i++)
        buf_addf(text, "%.*s", len, ls->items[i].told.mark[0] ? ls->items[i].told.mark : "--------");
    buf_putc(text, '\n');
}

/* A name from the request is the provider up to the first slash, and the id. */
static void add_task(struct buf *text, const struct task *task)
{
    const char *id = task->route ? task_id(task) : task->key + strcspn(task->key, "/");
    size_t len = task->route ? strlen(task->route->provider->name) : (size_t)(id - task->key);
    buf_puts(text, ",\"provider\":");
    buf_add_json_string(text, task->route ? task->route->provider->name : task->key, len);
    id += task->route == NULL && *id == '/';
    buf_puts(text, ",\"task_id\":");
    buf_add_json_string(text, id, strlen(id));
}

static void add_problem(struct buf *text, enum problem problem, const char *request_id,
                        int64_t retry_after_ms, const struct task *task)
{
    buf_puts(text, "data: ");
    problem_members(problem, request_id, text);
    if (problem_may_pass(problem))
        buf_addf(text, ",\"retry_after\":%lld", (long long)max64(1, seconds_up(retry_after_ms)));
    if (task != NULL)
        add_task(text, task);
    buf_puts(text, "}\n\n");
}

void stream_add_problem(struct buf *text, enum problem problem, const char *request_id,
                        int64_t retry_after_ms)
{
    buf_puts(text, "event: problem\n");
    add_problem(text, problem, request_id, retry_after_ms, NULL);
}

void stream_add_retry(struct buf *text, bool moved)
{
    buf_addf(text, "retry: %d\n\n", rand() % SPREAD_MS + (moved ? 1 : RECONNECT_MS));
}

static void add_trouble(struct buf *text, struct lookup *l)
{
    bool spent = l->problem == PROBLEM_RATE_LIMITED && l->snapshot != NULL;
    l->told.trouble = l->problem;
    if (!spent)
        stream_add_retry(text, false);
    buf_puts(text, spent ? "event: stale\n" : "event: problem\n");
    add_problem(text, l->problem, l->lookups->request_id, l->retry_after_ms, &l->task);
}

/* A view contains no line breaks, so it fits into one data line. */
static void add_result(struct buf *text, const struct lookup *l, enum view_kind view, bool with_id)
{
    buf_puts(text, l->snapshot ? "event: status\n" : "event: problem\n");
    if (with_id && (l->snapshot != NULL || lookups_are_list(l->lookups)))
        add_id(text, l->lookups);
    if (l->snapshot == NULL)
        return add_problem(text, l->problem, l->lookups->request_id, 0, &l->task);
    const struct view_bytes *bytes = snapshot_view(l->snapshot, view);
    if (l->source == SOURCE_STALE)
        stat_inc(STAT_STALE);
    buf_puts(text, "data: ");
    buf_add(text, bytes->data, bytes->len);
    buf_puts(text, "\n\n");
}

static bool is_settled(const struct lookup *l)
{
    return l->stage >= STAGE_SETTLED;
}

/* The id says that the client knows all tasks, so only the last of these events has it. */
void stream_add_news(struct lookups *ls, enum view_kind view, struct buf *text)
{
    bool is_new[ROUTE_IDS_MAX];
    size_t last = ls->n;
    for (size_t i = 0; i < ls->n; i++) {
        struct lookup *l = &ls->items[i];
        if (!(is_new[i] = is_settled(l) && has_new_result(l, view)))
            continue;
        snprintf(l->told.mark, sizeof(l->told.mark), "%.*s", (int)mark_len(ls), mark_of(l, view));
        l->told.trouble = PROBLEM_NONE;
        last = i;
    }
    for (size_t i = 0; i < ls->n; i++) {
        struct lookup *l = &ls->items[i];
        if (is_new[i])
            add_result(text, l, view, i == last);
        if (is_settled(l) && trouble_of(l) != l->told.trouble && trouble_of(l) != PROBLEM_NONE)
            add_trouble(text, l);
    }
}
