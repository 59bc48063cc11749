/* verdict: see verdict.h. */
#include "verdict.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { OUT_OF_MEANS_MS = 1000 };

/* A task is there: what is known of it becomes a snapshot. */
static struct snapshot *make_snapshot(const struct verdict_question *q, const struct view *view,
                                      int64_t retry_after_ms)
{
    int64_t now = wall_ms();
    struct snapshot_facts facts = {.state = view->state,
                                   .known = view->known,
                                   .created_ms = view->created_at * 1000,
                                   .fetched_ms = now,
                                   .urls_expire_at = view->urls_expire_at,
                                   .retry_after_ms = retry_after_ms};
    if (facts.created_ms == 0)
        facts.created_ms = q->last ? q->last->created_ms : now;
    for (size_t i = 0; i < VIEW_COUNT; i++) {
        facts.views[i] = view->views[i].data;
        facts.view_lens[i] = view->views[i].len;
    }
    return snapshot_new(&facts, q->rules);
}

static void judge(const struct verdict_question *q, const struct upstream_answer *answer,
                  const struct view *view, struct verdict *v)
{
    switch (v->reading) {
    case READING_OK:
        v->snapshot = make_snapshot(q, view, answer->retry_after_ms);
        if (!view->known)
            snprintf(v->status, sizeof(v->status), "%s", view->status);
        return;
    case READING_HALF:
        v->result_path = xstrdup(view->result_path.data);
        return;
    case READING_MISSING:
        v->problem = PROBLEM_TASK_NOT_FOUND;
        return;
    case READING_REFUSED:
        v->problem = PROBLEM_UPSTREAM_AUTH;
        snprintf(v->trouble, sizeof(v->trouble), "it refused the key of %s (status %d)",
                 ((char **)q->task->route->upstream->key_files.items)[0], answer->http_status);
        return;
    case READING_BUSY:
        v->problem = PROBLEM_UNAVAILABLE;
        v->retry_after_ms = answer->retry_after_ms;
        snprintf(v->trouble, sizeof(v->trouble), "it says that we ask too often");
        return;
    case READING_ERROR:
    case READING_INVALID:
        v->problem = v->reading == READING_ERROR ? PROBLEM_UPSTREAM_ERROR : PROBLEM_UPSTREAM_INVALID;
        snprintf(v->trouble, sizeof(v->trouble), "its answer (status %d) was %s", answer->http_status,
                 view->why);
    }
}

static void read_body(const struct verdict_question *q, const struct upstream_answer *answer,
                      struct verdict *v)
{
    struct view view;
    const struct view_question question = {
        .provider = q->task->route->provider, .task_id = q->task->id, .secrets = q->secrets};
    const struct view_answer now = {
        .http_status = answer->http_status, .body = answer->body, .len = answer->len};
    v->reading = view_read(&question, q->before ? q->before : &now, q->before ? &now : NULL, &view);
    judge(q, answer, &view, v);
    view_done(&view);
}

void verdict_read(const struct verdict_question *q, const struct upstream_answer *answer, struct verdict *v)
{
    *v = (struct verdict){.reading = READING_ERROR};
    switch (answer->outcome) {
    case UPSTREAM_ANSWERED:
        return read_body(q, answer, v);
    case UPSTREAM_TIMED_OUT:
        v->problem = PROBLEM_UPSTREAM_TIMEOUT;
        return;
    case UPSTREAM_FAILED:
        v->problem = PROBLEM_UPSTREAM_ERROR;
        return;
    case UPSTREAM_UNUSABLE:
        v->problem = PROBLEM_UPSTREAM_INVALID;
        return;
    case UPSTREAM_OUT_OF_MEANS:
        v->problem = PROBLEM_OVERLOADED;
        v->retry_after_ms = OUT_OF_MEANS_MS;
        return;
    case UPSTREAM_HELD:
        v->problem = PROBLEM_UNAVAILABLE;
        v->retry_after_ms = answer->retry_after_ms;
    }
}

void verdict_done(struct verdict *v)
{
    snapshot_unref(v->snapshot);
    free(v->result_path);
}
