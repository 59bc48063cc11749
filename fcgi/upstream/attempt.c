/* attempt: see attempt.h.
 *
 *     send_query --> on_answer --> read_answer --> upstream_learn --> finish
 *         ^-- another key, or the second half of the answer --'  */
#include "upstream/attempt.h"

#include <stdlib.h>
#include <string.h>

#include "lib/stats.h"
#include "upstream/view.h"

enum { TARGET_MAX = 4096, NO_DESCRIPTORS_MS = 1000 };

struct attempt {
    struct attempt_order order;
    struct key_choice choice;   /* the keys tried so far */
    struct upstream_call *call; /* under way, or NULL */
    struct buf first;           /* the first answer, while the second query is made */
    int first_status;           /* its HTTP status */
    struct buf result_path;     /* of the second query; empty before */
};

static void on_answer(void *user, struct upstream_call *call, const struct http_answer *answer);

static const struct conf_upstream *upstream_of(const struct attempt *a)
{
    return a->order.task->route->upstream;
}

static void send_query(struct attempt *a)
{
    const struct task *task = a->order.task;
    struct buf target;
    buf_init(&target, TARGET_MAX);
    if (a->result_path.len > 0)
        buf_puts(&target, a->result_path.data);
    else
        pattern_build(&task->route->upstream_path, task_id(task), &target);
    const struct upstream_query query = {.route = task->route,
                                         .team = a->order.team,
                                         .seen = a->order.last != NULL,
                                         .target = target.data,
                                         .choice = &a->choice,
                                         .on_queued = a->order.on_queued,
                                         .on_turn = a->order.on_turn,
                                         .turn_user = a->order.ctx};
    a->call = upstream_get(a->order.upstreams, &query, on_answer, a);
    buf_done(&target);
}

/* ---- reading an answer ---- */

static struct snapshot *make_snapshot(const struct attempt *a, const struct http_answer *answer,
                                      const struct view *view)
{
    const struct moment now = moment_now(a->order.loop);
    const struct snapshot *last = a->order.last;
    const struct snapshot_rules rules = task_rules(a->order.task, a->order.cache);
    struct snapshot draft = {.state = view->state,
                             .known = view->known,
                             .created_ms = view->created_at * 1000,
                             .fetched_ms = now.date_ms,
                             .since_ms = now.ms,
                             .urls_expire_at = view->urls_expire_at,
                             .retry_after_ms = answer->retry_after_ms};
    memcpy(draft.key, a->choice.owner, sizeof(draft.key));
    if (draft.created_ms == 0)
        draft.created_ms = last ? last->created_ms : now.date_ms;
    memcpy(draft.identity, view->identity[0] || !last ? view->identity : last->identity, IDENTITY_SIZE);
    for (size_t i = 0; i < VIEW_COUNT; i++)
        draft.views[i] = (struct view_bytes){.data = view->views[i].data, .len = view->views[i].len};
    return snapshot_new(&draft, &rules, now);
}

static enum outcome read_view(const struct attempt *a, const struct upstream_call *call,
                              const struct http_answer *answer, struct view *view)
{
    struct secrets secrets;
    const struct view_answer first = {
        .http_status = a->first_status, .body = a->first.data, .len = a->first.len};
    const struct view_answer now = {.http_status = answer->status, .body = answer->body, .len = answer->len};
    const struct view_input input = {.provider = a->order.task->route->provider,
                                     .task_id = task_id(a->order.task),
                                     .secrets = &secrets,
                                     .base_url = upstream_of(a)->base_url,
                                     .unnamed = !a->order.task->route->named};
    upstream_secrets(call, &secrets);
    bool second = a->result_path.len > 0;
    return view_read(&input, second ? &first : &now, second ? &now : NULL, view);
}

static void keep_first_half(struct attempt *a, const struct http_answer *answer, const struct view *view)
{
    a->first_status = answer->status;
    buf_add(&a->first, answer->body, answer->len);
    buf_puts(&a->result_path, view->result_path.data);
}

static void read_answer(struct attempt *a, struct upstream_call *call, const struct http_answer *answer,
                        struct attempt_end *end)
{
    struct view view;
    end->outcome = read_view(a, call, answer, &view);
    upstream_learn(call, answer, end->outcome, view.why);
    if (end->outcome == OUTCOME_PARTIAL)
        keep_first_half(a, answer, &view);
    if (end->outcome == OUTCOME_OK)
        end->snapshot = make_snapshot(a, answer, &view);
    if (end->outcome == OUTCOME_OK && !view.known)
        upstream_note_status(call, view.status);
    view_done(&view);
}

/* ---- after an answer ---- */

/* Whether another key may give a better answer. */
static bool depends_on_key(enum outcome outcome)
{
    return outcome == OUTCOME_NO_KEY || outcome_row(outcome)->key > KEY_GOOD;
}

/* Whether to send the query again with another key; otherwise the outcome is that of all keys. */
static bool try_another_key(struct attempt *a, struct upstream_call *call, struct attempt_end *end)
{
    if (!upstream_has_key(call, &end->outcome, &end->retry_after_ms))
        return false;
    if (!a->order.pay(a->order.ctx, false)) {
        end->outcome = OUTCOME_OVER_QUOTA;
        upstream_learn(call, NULL, end->outcome, NULL);
        return false;
    }
    stat_inc(STAT_KEY_RETRIES);
    return true;
}

static bool needs_further_query(struct attempt *a, struct upstream_call *call, struct attempt_end *end)
{
    if (end->outcome == OUTCOME_PARTIAL)
        return a->order.pay(a->order.ctx, true);
    return depends_on_key(end->outcome) && try_another_key(a, call, end);
}

static void attempt_free(struct attempt *a)
{
    buf_done(&a->first);
    buf_done(&a->result_path);
    free(a);
}

static void finish(struct attempt *a, struct attempt_end *end)
{
    if (end->outcome == OUTCOME_NO_DESCRIPTORS) {
        stat_inc(STAT_OVERLOADED);
        end->retry_after_ms = NO_DESCRIPTORS_MS;
    }
    a->order.on_end(a->order.ctx, end);
    snapshot_unref(end->snapshot);
    attempt_free(a);
}

static bool has_reached_upstream(const struct http_answer *answer)
{
    return outcome_row(answer->outcome)->kind != KIND_UNSENT && answer->outcome != OUTCOME_NO_DESCRIPTORS;
}

static void on_answer(void *user, struct upstream_call *call, const struct http_answer *answer)
{
    struct attempt *a = user;
    struct attempt_end end = {.outcome = answer->outcome, .sent = has_reached_upstream(answer)};
    a->call = NULL;
    if (answer->outcome == OUTCOME_OK)
        read_answer(a, call, answer, &end);
    else
        upstream_learn(call, answer, answer->outcome, answer->why);
    if (answer->outcome == OUTCOME_HELD)
        end.retry_after_ms = answer->retry_after_ms;
    if (needs_further_query(a, call, &end))
        send_query(a);
    else
        finish(a, &end);
}

/* ---- from outside ---- */

struct attempt *attempt_start(const struct attempt_order *order)
{
    struct attempt *a = xcalloc(1, sizeof(*a));
    a->order = *order;
    buf_init(&a->first, (size_t)upstream_of(a)->max_body);
    buf_init(&a->result_path, TARGET_MAX);
    if (order->last != NULL)
        memcpy(a->choice.owner, order->last->key, sizeof(a->choice.owner));
    send_query(a);
    return a;
}

bool attempt_join(struct attempt *a, const struct team *team)
{
    if (!upstream_join(a->call, team))
        return false;
    a->order.team = team;
    return true;
}

void attempt_resume(struct attempt *a)
{
    upstream_resume(a->call);
}

void attempt_cancel(struct attempt *a)
{
    upstream_cancel(a->call);
    attempt_free(a);
}
