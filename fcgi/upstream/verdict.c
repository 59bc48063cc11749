/* verdict: see verdict.h. */
#include "upstream/verdict.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/stats.h"

enum { OUT_OF_MEANS_MS = 1000 };

/* A task is there: what is known of it becomes a snapshot. */
static struct snapshot *make_snapshot(const struct verdict_question *q, const struct view *view,
                                      const struct upstream_answer *answer)
{
    int64_t now = wall_ms();
    struct snapshot_facts facts = {.state = view->state,
                                   .known = view->known,
                                   .created_ms = view->created_at * 1000,
                                   .fetched_ms = now,
                                   .urls_expire_at = view->urls_expire_at,
                                   .retry_after_ms = answer->retry_after_ms,
                                   .key = answer->key};
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
        v->snapshot = make_snapshot(q, view, answer);
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
        .provider = q->task->route->provider, .task_id = task_id(q->task), .secrets = q->secrets};
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
        return;
    case UPSTREAM_NO_KEY:
        v->reading = READING_REFUSED;
        return;
    }
}

/* ---- keys ---- */

static enum key_word word_of(enum reading reading, int http_status)
{
    switch (reading) {
    case READING_MISSING:
        return KEY_MISSING;
    case READING_REFUSED:
        return http_status == 403 ? KEY_DOUBTED : KEY_REFUSED;
    case READING_BUSY:
        return KEY_BUSY;
    default:
        return KEY_GOOD;
    }
}

/* No key is left: the last answer stands for what all of them came to. */
static void judge_keys(struct verdict *v, struct upstreams *upstreams, const struct conf_upstream *upstream,
                       const struct key_turn *turn)
{
    static const enum reading readings[] = {[KEY_END_MISSING] = READING_MISSING,
                                            [KEY_END_REFUSED] = READING_REFUSED,
                                            [KEY_END_BUSY] = READING_BUSY};
    static const enum problem problems[] = {[KEY_END_MISSING] = PROBLEM_TASK_NOT_FOUND,
                                            [KEY_END_REFUSED] = PROBLEM_UPSTREAM_AUTH,
                                            [KEY_END_BUSY] = PROBLEM_UNAVAILABLE};
    enum key_end end = upstream_key_end(upstreams, upstream, turn, &v->retry_after_ms);
    v->reading = readings[end];
    v->problem = problems[end];
}

bool verdict_ask_again(struct verdict *v, struct upstreams *upstreams, const struct conf_upstream *upstream,
                       struct key_turn *turn, const struct upstream_answer *answer)
{
    if (answer->outcome == UPSTREAM_ANSWERED && v->reading != READING_ERROR &&
        v->reading != READING_INVALID) {
        enum key_word word = word_of(v->reading, answer->http_status);
        if (upstream_judge_key(upstreams, upstream, turn, word, answer->retry_after_ms)) {
            stat_inc(STAT_KEY_RETRIES);
            return true;
        }
    }
    if (v->reading == READING_MISSING || v->reading == READING_REFUSED || v->reading == READING_BUSY)
        judge_keys(v, upstreams, upstream, turn);
    return false;
}

void verdict_done(struct verdict *v)
{
    snapshot_unref(v->snapshot);
    free(v->result_path);
}
