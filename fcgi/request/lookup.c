/* lookup: see lookup.h. The steps of one lookup:
 *
 *     look in memory -> join_fetch -> claim -> settle -> follow, by an event stream
 *           ^                                              |
 *           '-------- after a failure and its pause -------'
 *
 * A step returns true if its result comes later. Only a settled lookup has a result for the client: before, the task may
 * be another team's. */
#include "request/lookup.h"

#include <stdlib.h>
#include <string.h>

#include "access/access.h"
#include "lib/stats.h"
#include "request/content.h"
#include "request/result.h"

enum { RETRY_MS = 1000, RETRY_JITTER_MS = 500 };

void lookups_init(struct lookups *ls, const struct lookups_parts *parts, const char *request_id)
{
    *ls = (struct lookups){
        .parts = parts, .request_id = request_id, .items = &ls->only, .n = 1, .only.lookups = ls};
}

bool lookups_are_list(const struct lookups *ls)
{
    return ls->items != &ls->only;
}

/* The place of a task among the first n items, or n. */
static size_t find_task(const struct lookups *ls, const struct task *task)
{
    size_t i = 0;
    while (i < ls->n && (ls->items[i].problem != PROBLEM_NONE || ls->items[i].task.key_len != task->key_len ||
                         memcmp(ls->items[i].task.key, task->key, task->key_len) != 0))
        i++;
    return i;
}

bool lookups_take_ids(struct lookups *ls, const char *uri)
{
    struct task *tasks = xcalloc(ROUTE_IDS_MAX, sizeof(*tasks));
    enum problem problems[ROUTE_IDS_MAX];
    int n = route_ids(ls->parts->conf, uri, tasks, problems);
    if (n > 0) {
        ls->n = 0;
        ls->n_listed = (size_t)n;
        ls->items = xcalloc(ls->n_listed, sizeof(*ls->items));
        ls->order = xcalloc(ls->n_listed, 1);
    }
    for (int i = 0; i < n; i++) {
        size_t at = problems[i] == PROBLEM_NONE ? find_task(ls, &tasks[i]) : ls->n;
        ls->order[i] = (unsigned char)at;
        if (at == ls->n)
            ls->items[ls->n++] = (struct lookup){.lookups = ls, .task = tasks[i], .problem = problems[i]};
    }
    free(tasks);
    return n > 0;
}

size_t lookups_each(struct lookups *ls, bool (*step)(struct lookup *lookup))
{
    size_t n = 0;
    for (size_t i = 0; i < ls->n; i++)
        n += step(&ls->items[i]);
    return n;
}

/* The requesting team; NULL: none. */
static const struct team *team_of(const struct lookup *l)
{
    return quota_team(l->waiter.payer);
}

static void forget(struct lookup *l, enum problem problem)
{
    snapshot_unref(l->snapshot);
    snapshot_unref(l->last);
    l->snapshot = l->last = NULL;
    l->problem = problem;
    l->doubted = false;
}

void lookups_forget(struct lookups *ls)
{
    for (size_t i = 0; i < ls->n; i++)
        forget(&ls->items[i], PROBLEM_NONE);
}

void lookups_authorize(struct lookups *ls, struct quota *quota, const char *linked)
{
    for (size_t i = 0; i < ls->n; i++) {
        struct lookup *l = &ls->items[i];
        l->granted = ls->parts->conf->access.ownership == OWNERSHIP_NONE;
        l->waiter.payer = l->watcher.payer = quota;
        if (l->problem == PROBLEM_NONE)
            l->problem = access_authorize(quota_team(quota), linked, &l->task);
    }
}

/* Forgets the results and where they came from. */
static void lose(struct lookup *l, enum problem problem)
{
    forget(l, problem);
    l->source = SOURCE_UPSTREAM;
    l->stored = false;
    l->ttl_ms = l->retry_after_ms = 0;
}

/* ---- the cache ---- */

/* Drops the results if they are not of the task that the team has claimed. */
static void drop_foreign(struct lookup *l)
{
    const struct snapshot *found = l->snapshot ? l->snapshot : l->last;
    if (found != NULL && !ownership_covers(&l->claim, found))
        lose(l, PROBLEM_TASK_NOT_FOUND);
}

static struct cache_result cached(const struct lookup *l)
{
    return cache_get(fetches_cache(l->lookups->parts->fetches), &l->task, l->lookups->now);
}

/* Takes a fresh snapshot or a known problem; otherwise, the last snapshot. */
static void take(struct lookup *l, const struct cache_result *got)
{
    bool fresh = got->problem == PROBLEM_NONE && got->left_ms > 0;
    l->source = SOURCE_MEMORY;
    l->ttl_ms = got->left_ms;
    l->problem = got->problem;
    if (fresh)
        l->snapshot = snapshot_ref(got->snapshot);
    else if (got->snapshot != NULL)
        l->last = snapshot_ref(got->snapshot);
    l->doubted = got->problem != PROBLEM_NONE && got->snapshot != NULL;
    if (l->doubted || (got->problem != PROBLEM_NONE && got->problem != PROBLEM_TASK_NOT_FOUND))
        l->retry_after_ms = got->left_ms;
    if (got->left_ms > 0 && !l->doubted) { /* a stale answer is counted when it is sent */
        stat_inc(STAT_HITS_MEMORY);
        stat_inc(STAT_SPARED);
    }
}

bool lookup_in_memory(struct lookup *l)
{
    if (l->problem != PROBLEM_NONE)
        return true;
    const struct cache_result got = cached(l);
    take(l, &got);
    return got.left_ms > 0;
}

/* After a failure, falls back to the last snapshot, unless that is too old. */
static void excuse(struct lookup *l)
{
    const struct snapshot *last = l->last;
    bool excusable = l->doubted || problem_is_excusable(l->problem);
    if (!l->granted || !excusable || l->snapshot != NULL || last == NULL ||
        l->lookups->now.ms >= last->keep_until_ms)
        return;
    l->snapshot = snapshot_ref(l->last);
    l->source = SOURCE_STALE;
}

bool lookup_again(struct lookup *l)
{
    if (l->snapshot == NULL)
        return false;
    const struct cache_result got = cached(l);
    if (got.left_ms > 0) {
        forget(l, PROBLEM_NONE);
        take(l, &got);
        drop_foreign(l);
        excuse(l);
        return true;
    }
    l->source = SOURCE_MEMORY;
    l->problem = PROBLEM_NONE;
    if (got.failing) /* the problem has expired, and the next poll has no answer yet */
        l->source = SOURCE_STALE;
    return false;
}

/* ---- fetches ---- */

static void end_wait(struct lookup *l)
{
    l->pending = false;
    if (--l->lookups->n_pending == 0 || l->lookups->followed)
        l->lookups->parts->on_update(l->lookups);
}

static void on_fetched(struct fetch_waiter *waiter, const struct fetch_result *result)
{
    struct lookup *l = CONTAINER_OF(waiter, struct lookup, waiter);
    if (result->snapshot != NULL)
        l->snapshot = snapshot_ref(result->snapshot);
    if (result->from_redis)
        l->source = SOURCE_REDIS;
    l->stored = result->stored;
    l->problem = result->problem;
    l->doubted = result->doubted;
    l->paid = waiter->charged;
    l->retry_after_ms = result->retry_after_ms;
    if (result->last != NULL) {
        snapshot_unref(l->last);
        l->last = snapshot_ref(result->last);
    }
    end_wait(l);
}

static bool needs_fetch(const struct lookup *l)
{
    return l->problem == PROBLEM_NONE && l->snapshot == NULL;
}

static bool join_fetch(struct lookup *l)
{
    if (!needs_fetch(l))
        return false;
    l->waiter.on_fetched = on_fetched;
    l->source = SOURCE_UPSTREAM;
    switch (fetches_join(l->lookups->parts->fetches, &l->task, &l->waiter)) {
    case FETCH_COLLAPSED:
        l->source = SOURCE_COLLAPSED;
        stat_inc(STAT_COLLAPSED);
        stat_inc(STAT_SPARED);
        return true;
    case FETCH_STARTED:
        return true;
    case FETCH_REFUSED:
        stat_inc(STAT_OVERLOADED);
        l->problem = PROBLEM_OVERLOADED;
        l->retry_after_ms = RETRY_MS;
    }
    return false;
}

int64_t lookups_timeout_ms(const struct lookups *ls)
{
    const struct conf_redis *redis = &ls->parts->conf->redis;
    int64_t longest = 0;
    for (size_t i = 0; i < ls->n; i++) {
        const struct task *task = &ls->items[i].task;
        int64_t ms = task->route ? task_timeout_ms(task) : 0;
        if (ms > 0 && redis->name != NULL)
            ms += lease_wait_ms(task); /* another worker may query first and die */
        longest = ms > longest ? ms : longest;
    }
    return longest + redis->timeout_ms;
}

/* ---- owners ----
 *
 * A task of another team and one that does not exist get the same answer, whatever the cache knows of them, and
 * each such answer costs as many queries: as if the task had been asked for with every key. */

static void limit(struct lookup *l)
{
    quota_refused(l->waiter.payer, LIMIT_QUERIES);
    l->problem = PROBLEM_RATE_LIMITED;
    l->retry_after_ms = quota_left_ms(l->waiter.payer);
}

static void on_charged(struct charge *charge)
{
    struct lookup *l = CONTAINER_OF(charge, struct lookup, charge);
    if (!charge->granted)
        limit(l);
    end_wait(l);
}

/* Charges the answer for the queries that were not charged yet. Returns true if the charge is decided later. */
static bool charge_answer(struct lookup *l)
{
    struct quota *payer = l->waiter.payer;
    int64_t n = task_queries_max(&l->task) - l->paid;
    bool spent = quota_is_spent(payer);
    if (n > 0 && !spent && quota_charge(payer, n, &l->charge, on_charged))
        return true;
    if (n > 0 && (spent || !l->charge.granted))
        limit(l);
    return false;
}

/* The Retry-After of an answer. The pause after a failure depends on the age of the task, so it is not told. */
static int64_t concealed_pause_ms(const struct lookup *l, enum problem problem)
{
    if (problem == PROBLEM_RATE_LIMITED || problem == PROBLEM_OVERLOADED)
        return l->retry_after_ms;
    return problem == PROBLEM_TASK_NOT_FOUND ? 0 : l->task.route->provider->poll.min_ms;
}

/* Returns true if the answer is decided later. */
static bool conceal(struct lookup *l)
{
    enum problem problem = l->problem != PROBLEM_NONE ? l->problem : PROBLEM_TASK_NOT_FOUND;
    if (l->claim.undecided) {
        stat_inc(STAT_OVERLOADED);
        problem = PROBLEM_OVERLOADED;
        l->retry_after_ms = RETRY_MS;
    }
    int64_t pause_ms = concealed_pause_ms(l, problem);
    lose(l, problem);
    l->retry_after_ms = pause_ms;
    bool unsent =
        problem == PROBLEM_RATE_LIMITED || problem == PROBLEM_OVERLOADED || problem == PROBLEM_UNAVAILABLE;
    return !unsent && charge_answer(l);
}

static void on_claimed(struct claim *claim)
{
    struct lookup *l = CONTAINER_OF(claim, struct lookup, claim);
    l->granted = claim->granted;
    if (l->granted || !conceal(l))
        end_wait(l);
}

static bool claim(struct lookup *l)
{
    const struct snapshot *known = l->snapshot ? l->snapshot : l->last;
    if (l->granted || l->source == SOURCE_NONE)
        return false;
    if (known != NULL) {
        if (ownership_claim(l->lookups->parts->ownership, &l->claim, &l->task, known, team_of(l), on_claimed))
            return true;
        l->granted = l->claim.granted;
    }
    return !l->granted && conceal(l);
}

/* ---- settling ---- */

/* Logs the decision, if the configuration wants an audit. */
static void audit(const struct lookup *l)
{
    static const char *const events[] = {
        [CLAIM_TAKEN] = "claimed", [CLAIM_CONFIRMED] = "read", [CLAIM_REFUSED] = "refused"};
    enum claim_event event = l->problem == PROBLEM_FORBIDDEN ? CLAIM_REFUSED : l->claim.event;
    if (!l->lookups->parts->conf->audit || event == CLAIM_NO_EVENT)
        return;
    char *task = xasprintf("%s/%s", l->task.route->provider->name, task_id(&l->task));
    log_audit(&(struct log_audit){events[event], team_of(l)->name, l->lookups->request_id, task});
    free(task);
}

static bool settle(struct lookup *l)
{
    audit(l);
    excuse(l);
    return false;
}

/* ---- the steps ---- */

bool lookup_advance(struct lookup *l)
{
    static bool (*const steps[])(struct lookup * l) = {join_fetch, claim, settle};
    static const char *const names[] = {"join_fetch", "claim", "settle"};
    while (!l->pending && l->stage < STAGE_SETTLED) {
        log_debug("request %s: %s: %s", l->lookups->request_id, l->task.key, names[l->stage]);
        l->pending = steps[l->stage++](l);
        l->lookups->n_pending += l->pending;
    }
    return l->pending;
}

/* ---- watching ---- */

static void take_snapshot(struct lookup *l, struct snapshot *snapshot)
{
    snapshot_ref(snapshot); /* before the old one is released: they may be the same */
    forget(l, PROBLEM_NONE);
    l->snapshot = snapshot;
    l->source = SOURCE_COLLAPSED;
    l->stored = true;
    drop_foreign(l);
}

static bool is_running(const struct lookup *l)
{
    return l->snapshot != NULL && !state_ended(l->snapshot->state);
}

/* Whether the request may be answered now that a lookup has a new result. */
static bool can_end(struct lookups *ls)
{
    if (!lookups_are_list(ls) || ls->every_change)
        return true;
    while (ls->n_ended < ls->n && !is_running(&ls->items[ls->n_ended]))
        ls->n_ended++;
    return ls->n_ended == ls->n;
}

/* The view is served until the task changes, but the client learns that it may be old. */
static void on_watched_trouble(struct watcher *watcher, enum problem problem, int64_t retry_after_ms)
{
    struct lookup *l = CONTAINER_OF(watcher, struct lookup, watcher);
    if (!l->lookups->followed || l->problem == problem)
        return;
    l->problem = problem;
    l->retry_after_ms = retry_after_ms;
    l->lookups->parts->on_update(l->lookups);
}

static void on_watched_change(struct watcher *watcher, struct snapshot *snapshot)
{
    struct lookup *l = CONTAINER_OF(watcher, struct lookup, watcher);
    const char *etag = l->snapshot ? l->snapshot->views[VIEW_UNIFIED].etag : "";
    bool same = snapshot != NULL && strcmp(snapshot->views[VIEW_UNIFIED].etag, etag) == 0;
    if (snapshot != NULL)
        take_snapshot(l, snapshot); /* or drops it as foreign */
    else
        lose(l, PROBLEM_TASK_NOT_FOUND);
    bool is_news = !same || l->snapshot == NULL || l->told.trouble != PROBLEM_NONE;
    if (can_end(l->lookups) && (is_news || !lookups_are_list(l->lookups)))
        l->lookups->parts->on_update(l->lookups);
}

bool lookup_watch(struct lookup *l)
{
    const struct lookups_parts *parts = l->lookups->parts;
    if (l->snapshot == NULL)
        return false;
    if (l->watcher.entry == NULL) {
        struct snapshot *newest = cached(l).snapshot;
        if (newest != NULL && newest != l->snapshot)
            take_snapshot(l, newest);
    }
    if (l->snapshot == NULL || state_ended(l->snapshot->state))
        return false;
    l->watcher.on_change = on_watched_change;
    l->watcher.on_trouble = on_watched_trouble;
    if (l->watcher.entry == NULL)
        poller_join(parts->poller, &l->task, l->snapshot, &l->watcher);
    return true;
}

/* ---- event streams ---- */

bool lookup_can_stream(struct lookup *l)
{
    lookup_watch(l);
    return l->snapshot != NULL || problem_may_pass(l->problem);
}

/* A failed lookup begins again as that of a new request. */
static void begin_again(struct lookup *l)
{
    lose(l, PROBLEM_NONE);
    l->granted = l->lookups->parts->conf->access.ownership == OWNERSHIP_NONE;
    l->claim.event = CLAIM_NO_EVENT;
    l->paid = 0;
    l->stage = STAGE_FETCH;
    lookup_in_memory(l);
}

/* A task that cannot be served is looked up again when it may be queried. The jitter spreads out tasks that failed
 * together. */
static void follow_result(struct lookup *l)
{
    l->stage = STAGE_FOLLOWED;
    lookup_watch(l);
    if (l->snapshot != NULL || !problem_may_pass(l->problem))
        return;
    l->retry_after_ms = max64(l->retry_after_ms, l->task.route->provider->poll.min_ms);
    l->retry_at_ms = l->lookups->now.ms + l->retry_after_ms + rand() % RETRY_JITTER_MS;
}

static bool is_failing(const struct lookup *l)
{
    return l->stage == STAGE_FOLLOWED && l->snapshot == NULL && problem_may_pass(l->problem);
}

bool lookup_follow(struct lookup *l)
{
    if (is_failing(l) && l->lookups->now.ms >= l->retry_at_ms)
        begin_again(l);
    if (lookup_advance(l))
        return true;
    if (l->stage == STAGE_SETTLED)
        follow_result(l);
    if (!is_running(l))
        poller_leave(&l->watcher);
    return is_running(l) || is_failing(l);
}

int64_t lookups_retry_at_ms(const struct lookups *ls)
{
    int64_t soonest_ms = INT64_MAX;
    for (size_t i = 0; i < ls->n; i++) {
        const struct lookup *l = &ls->items[i];
        if (is_failing(l))
            soonest_ms = min64(soonest_ms, l->retry_at_ms);
    }
    return soonest_ms;
}

/* ---- leaving ---- */

void lookups_leave(struct lookups *ls)
{
    for (size_t i = 0; i < ls->n; i++) {
        ownership_cancel(&ls->items[i].claim);
        quota_cancel(&ls->items[i].charge);
        fetches_leave(&ls->items[i].waiter);
        poller_leave(&ls->items[i].watcher);
    }
}

void lookups_give_up(struct lookups *ls, enum problem problem)
{
    for (size_t i = 0; i < ls->n; i++) {
        struct lookup *l = &ls->items[i];
        if (!needs_fetch(l))
            continue;
        fetches_leave(&l->waiter);
        ls->n_pending -= l->pending;
        l->pending = false;
        l->problem = problem;
    }
}

bool lookups_have_view(const struct lookups *ls)
{
    size_t i = 0;
    while (i < ls->n && ls->items[i].snapshot == NULL)
        i++;
    return i < ls->n;
}

void lookups_done(struct lookups *ls)
{
    lookups_leave(ls);
    lookups_forget(ls);
    free(ls->order);
    if (lookups_are_list(ls))
        free(ls->items);
}

/* ---- answering ---- */

static void list_items(const struct lookups *ls, struct answer_item *items)
{
    for (size_t i = 0; i < ls->n_listed; i++) {
        const struct lookup *l = &ls->items[ls->order[i]];
        items[i] = (struct answer_item){.snapshot = l->snapshot, .problem = l->problem};
    }
}

static void answer_one(const struct lookup *l, enum view_kind view, struct answer_facts *facts,
                       struct answer *answer)
{
    facts->source = l->source;
    facts->stored = l->stored;
    facts->problem = l->problem;
    facts->ttl_ms = l->ttl_ms;
    facts->retry_after_ms = l->retry_after_ms;
    if (l->snapshot == NULL)
        answer_problem(answer, facts);
    else if (facts->kind == ROUTE_CONTENT)
        content_answer(answer, facts, l->snapshot, l->task.route);
    else if (facts->kind == ROUTE_RESULT)
        result_answer(answer, facts, l->snapshot, &l->task.route->provider->result);
    else
        answer_view(answer, facts, l->snapshot, view);
}

static void count_stale(const struct lookups *ls)
{
    for (size_t i = 0; i < ls->n; i++) {
        if (ls->items[i].source == SOURCE_STALE)
            stat_inc(STAT_STALE);
    }
}

/* The lookup whose result came from farthest away. */
static const struct lookup *farthest(const struct lookups *ls)
{
    const struct lookup *l = &ls->items[0];
    for (size_t i = 1; i < ls->n; i++)
        l = ls->items[i].source > l->source ? &ls->items[i] : l;
    return l;
}

enum answer_source lookups_source(const struct lookups *ls)
{
    return farthest(ls)->source;
}

void lookups_answer(const struct lookups *ls, enum view_kind view, const struct answer_facts *request,
                    struct answer *answer)
{
    struct answer_item items[ROUTE_IDS_MAX];
    struct answer_facts facts = *request;
    count_stale(ls);
    if (!lookups_are_list(ls))
        return answer_one(&ls->only, view, &facts, answer);
    facts.source = SOURCE_MEMORY;
    if (farthest(ls)->source > SOURCE_MEMORY) {
        facts.source = farthest(ls)->source;
        facts.problem = farthest(ls)->problem;
    }
    for (size_t i = 0; i < ls->n; i++)
        facts.stored |= ls->items[i].stored;
    list_items(ls, items);
    answer_many(answer, &facts, items, ls->n_listed, view);
}

bool lookups_are_known(const struct lookups *ls, enum view_kind view, const char *if_none_match)
{
    struct answer_item items[ROUTE_IDS_MAX];
    char etag[ETAG_SIZE];
    if (if_none_match == NULL)
        return true;
    if (!lookups_are_list(ls))
        return answer_etag_matches(if_none_match, snapshot_view(ls->only.snapshot, view)->etag);
    list_items(ls, items);
    answer_list_etag(items, ls->n_listed, view, etag);
    return answer_etag_matches(if_none_match, etag);
}
