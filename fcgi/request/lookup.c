/* lookup: see lookup.h. */
#include "request/lookup.h"

#include <stdlib.h>

#include "access/access.h"
#include "lib/stats.h"

enum { RETRY_MS = 1000 };

bool lookup_in_memory(struct lookup *l, struct fetches *fetches, int64_t now_ms)
{
    const struct cache_look look = cache_look(fetches_cache(fetches), &l->task, now_ms);
    bool fresh = look.problem == PROBLEM_NONE && look.left_ms > 0;
    l->source = SOURCE_MEMORY;
    l->ttl_ms = look.left_ms;
    l->problem = look.problem;
    if (fresh)
        l->snapshot = snapshot_ref(look.snapshot);
    else if (look.snapshot != NULL)
        l->last = snapshot_ref(look.snapshot);
    l->doubted = look.problem != PROBLEM_NONE && look.snapshot != NULL;
    if (l->doubted || (look.problem != PROBLEM_NONE && look.problem != PROBLEM_TASK_NOT_FOUND))
        l->retry_after_ms = look.left_ms;
    if (look.left_ms > 0 && !l->doubted) { /* a stale answer is counted when it is sent */
        stat_inc(STAT_HITS_MEMORY);
        stat_inc(STAT_SPARED);
    }
    return look.left_ms > 0;
}

static void take_result(struct lookup *l, const struct fetch_result *result)
{
    if (result->snapshot != NULL)
        l->snapshot = snapshot_ref(result->snapshot);
    if (result->from_redis)
        l->source = SOURCE_REDIS;
    l->stored = result->stored;
    l->problem = result->problem;
    l->doubted = result->doubted;
    l->retry_after_ms = result->retry_after_ms;
    if (result->last != NULL) {
        snapshot_unref(l->last);
        l->last = snapshot_ref(result->last);
    }
}

static void on_fetched(struct fetch_waiter *waiter, const struct fetch_result *result)
{
    struct lookup *l = CONTAINER_OF(waiter, struct lookup, waiter);
    take_result(l, result);
    l->waits = false;
    l->on_done(l);
}

bool lookup_fetch(struct lookup *l, struct fetches *fetches)
{
    l->waiter.on_fetched = on_fetched;
    l->source = SOURCE_UPSTREAM;
    switch (fetches_join(fetches, &l->task, &l->waiter)) {
    case FETCH_COLLAPSED:
        l->source = SOURCE_COLLAPSED;
        stat_inc(STAT_COLLAPSED);
        stat_inc(STAT_SPARED);
        break;
    case FETCH_STARTED:
        break;
    case FETCH_REFUSED:
        stat_inc(STAT_OVERLOADED);
        l->problem = PROBLEM_OVERLOADED;
        l->retry_after_ms = RETRY_MS;
        return false;
    }
    l->waits = true;
    return true;
}

static void take_claim(struct lookup *l)
{
    l->granted = l->claim.granted;
    if (l->granted)
        return;
    lookup_forget(l, PROBLEM_TASK_NOT_FOUND);
    l->retry_after_ms = l->ttl_ms = 0;
    l->source = SOURCE_UPSTREAM; /* as for a task that does not exist */
    l->stored = false;
}

static void on_claimed(struct claim *claim)
{
    struct lookup *l = CONTAINER_OF(claim, struct lookup, claim);
    take_claim(l);
    l->on_done(l);
}

bool lookup_claim(struct lookup *l, struct ownership *ownership)
{
    if (l->granted || (l->snapshot == NULL && l->last == NULL))
        return false;
    if (ownership_claim(ownership, &l->claim, &l->task, l->team, on_claimed))
        return true;
    take_claim(l);
    return false;
}

void lookup_excuse(struct lookup *l, int64_t now_ms)
{
    const struct snapshot *last = l->last;
    if (!l->granted || l->snapshot != NULL || last == NULL || now_ms >= last->keep_until_ms ||
        !(l->doubted || problem_is_excusable(l->problem)))
        return;
    l->snapshot = snapshot_ref(l->last);
    l->source = SOURCE_STALE;
    stat_inc(STAT_STALE);
}

void lookup_again(struct lookup *l, struct fetches *fetches, int64_t now_ms)
{
    struct snapshot *known = l->snapshot;
    if (known == NULL)
        return;
    l->snapshot = NULL;
    lookup_forget(l, PROBLEM_NONE);
    if (lookup_in_memory(l, fetches, now_ms)) {
        snapshot_unref(known);
        return;
    }
    lookup_forget(l, PROBLEM_NONE);
    l->snapshot = known;
}

/* ---- watching ---- */

static void take_news(struct lookup *l, struct snapshot *snapshot)
{
    snapshot_ref(snapshot); /* before the old one is released: they may be the same */
    lookup_forget(l, PROBLEM_NONE);
    l->snapshot = snapshot;
    l->source = SOURCE_COLLAPSED;
    l->stored = true;
}

static void on_watch_news(struct watcher *watcher, struct snapshot *snapshot)
{
    struct lookup *l = CONTAINER_OF(watcher, struct lookup, watcher);
    if (snapshot != NULL)
        take_news(l, snapshot);
    else
        lookup_forget(l, PROBLEM_TASK_NOT_FOUND);
    l->on_news(l);
}

bool lookup_watch(struct lookup *l, struct poller *poller, struct cache *cache)
{
    if (l->snapshot == NULL)
        return false;
    if (l->watcher.entry == NULL) {
        struct snapshot *newest = cache_look(cache, &l->task, wall_ms()).snapshot;
        if (newest != NULL && newest != l->snapshot)
            take_news(l, newest);
    }
    if (state_ended(l->snapshot->state))
        return false;
    l->watcher.on_news = on_watch_news;
    if (l->watcher.entry == NULL)
        poller_join(poller, &l->task, l->snapshot, &l->watcher);
    return true;
}

void lookup_forget(struct lookup *l, enum problem problem)
{
    snapshot_unref(l->snapshot);
    snapshot_unref(l->last);
    l->snapshot = l->last = NULL;
    l->problem = problem;
    l->doubted = false;
}

void lookup_leave(struct lookup *l)
{
    l->waits = false;
    ownership_cancel(&l->claim);
    fetches_leave(&l->waiter);
    poller_leave(&l->watcher);
}

void lookup_done(struct lookup *l)
{
    lookup_leave(l);
    lookup_forget(l, PROBLEM_NONE);
}

void lookups_free(struct lookup *lookups, size_t n, const struct lookup *embedded)
{
    for (size_t i = 0; i < n; i++)
        lookup_done(&lookups[i]);
    if (lookups != embedded)
        free(lookups);
}

/* ---- many ---- */

struct lookup *lookups_new(const struct conf *conf, const char *uri, void *owner, size_t *ret_n)
{
    struct task *tasks = xcalloc(ROUTE_IDS_MAX, sizeof(*tasks));
    enum problem problems[ROUTE_IDS_MAX];
    int n = route_ids(conf, uri, tasks, problems);
    struct lookup *lookups = n > 0 ? xcalloc((size_t)n, sizeof(*lookups)) : NULL;
    for (int i = 0; i < n; i++)
        lookups[i] = (struct lookup){.owner = owner, .task = tasks[i], .problem = problems[i]};
    free(tasks);
    *ret_n = n > 0 ? (size_t)n : 0;
    return lookups;
}

void lookups_judge(struct lookup *lookups, size_t n, const struct conf *conf, const struct team *team,
                   struct quota *quota)
{
    for (size_t i = 0; i < n; i++) {
        struct lookup *l = &lookups[i];
        l->team = team;
        l->granted = conf->access.ownership == OWNERSHIP_NONE;
        l->waiter.payer = l->watcher.payer = quota;
        if (l->problem == PROBLEM_NONE)
            l->problem = access_may(team, &l->task);
    }
}

bool lookups_in_memory(struct lookup *lookups, size_t n, struct fetches *fetches, int64_t now_ms)
{
    bool all = true;
    for (size_t i = 0; i < n; i++) {
        if (lookups[i].problem == PROBLEM_NONE)
            all &= lookup_in_memory(&lookups[i], fetches, now_ms);
    }
    return all;
}

size_t lookups_fetch(struct lookup *lookups, size_t n, struct fetches *fetches,
                     void (*on_done)(struct lookup *lookup))
{
    size_t n_waiting = 0;
    for (size_t i = 0; i < n; i++) {
        lookups[i].on_done = on_done;
        if (lookups[i].problem == PROBLEM_NONE && lookups[i].snapshot == NULL)
            n_waiting += lookup_fetch(&lookups[i], fetches);
    }
    return n_waiting;
}

size_t lookups_claim(struct lookup *lookups, size_t n, struct ownership *ownership,
                     void (*on_done)(struct lookup *lookup))
{
    size_t n_waiting = 0;
    for (size_t i = 0; i < n; i++) {
        lookups[i].on_done = on_done;
        n_waiting += lookup_claim(&lookups[i], ownership);
    }
    return n_waiting;
}

bool lookups_watch(struct lookup *lookups, size_t n, struct poller *poller, struct cache *cache,
                   void (*on_news)(struct lookup *lookup))
{
    bool any = false;
    for (size_t i = 0; i < n; i++) {
        lookups[i].on_news = on_news;
        any |= lookup_watch(&lookups[i], poller, cache);
    }
    return any;
}

void lookups_excuse(struct lookup *lookups, size_t n, int64_t now_ms)
{
    for (size_t i = 0; i < n; i++)
        lookup_excuse(&lookups[i], now_ms);
}

void lookups_again(struct lookup *lookups, size_t n, struct fetches *fetches, int64_t now_ms)
{
    for (size_t i = 0; i < n; i++)
        lookup_again(&lookups[i], fetches, now_ms);
}

void lookups_forget(struct lookup *lookups, size_t n)
{
    for (size_t i = 0; i < n; i++)
        lookup_forget(&lookups[i], PROBLEM_NONE);
}

void lookups_leave(struct lookup *lookups, size_t n)
{
    for (size_t i = 0; i < n; i++)
        lookup_leave(&lookups[i]);
}

int64_t lookups_timeout_ms(const struct lookup *lookups, size_t n, const struct conf *conf)
{
    int64_t longest = 0, others = conf->redis.address != NULL; /* another worker may query first and die */
    for (size_t i = 0; i < n; i++) {
        const struct task *task = &lookups[i].task;
        int64_t ms = task->route ? task_timeout_ms(task) * (1 + others) : 0;
        longest = ms > longest ? ms : longest;
    }
    return longest + conf->redis.timeout_ms;
}

void lookups_give_up(struct lookup *lookups, size_t n, enum problem problem)
{
    for (size_t i = 0; i < n; i++) {
        if (lookups[i].snapshot == NULL && lookups[i].problem == PROBLEM_NONE)
            lookups[i].problem = problem;
        lookup_leave(&lookups[i]);
    }
}

/* ---- answering ---- */

void lookup_answer(const struct lookup *l, enum view_kind view, const struct answer_facts *request,
                   struct answer *answer)
{
    struct answer_facts facts = *request;
    facts.source = l->source;
    facts.stored = l->stored;
    facts.problem = l->problem;
    facts.ttl_ms = l->ttl_ms;
    facts.retry_after_ms = l->retry_after_ms;
    if (l->snapshot != NULL)
        answer_view(answer, &facts, l->snapshot, view);
    else
        answer_problem(answer, &facts);
}

static void list_items(const struct lookup *lookups, size_t n, struct answer_item *items)
{
    for (size_t i = 0; i < n; i++)
        items[i] = (struct answer_item){.snapshot = lookups[i].snapshot, .problem = lookups[i].problem};
}

void lookups_answer(const struct lookup *lookups, size_t n, const struct answer_facts *request,
                    struct answer *answer)
{
    struct answer_item items[ROUTE_IDS_MAX];
    struct answer_facts facts = *request;
    facts.source = SOURCE_MEMORY;
    for (size_t i = 0; i < n; i++) {
        if (lookups[i].source > facts.source) {
            facts.source = lookups[i].source;
            facts.problem = lookups[i].problem;
        }
        facts.stored |= lookups[i].stored;
    }
    list_items(lookups, n, items);
    answer_many(answer, &facts, items, n);
}

bool lookups_are_known(const struct lookup *lookups, size_t n, bool many, enum view_kind view,
                       const char *if_none_match)
{
    struct answer_item items[ROUTE_IDS_MAX];
    char etag[ETAG_SIZE];
    if (if_none_match == NULL)
        return true;
    if (!many)
        return answer_etag_matches(if_none_match, lookups[0].snapshot->views[view].etag);
    list_items(lookups, n, items);
    answer_list_etag(items, n, etag);
    return answer_etag_matches(if_none_match, etag);
}
