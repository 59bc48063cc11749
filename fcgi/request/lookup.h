/* lookup: one task of a request, and the result found so far. */
#ifndef LOOKUP_H
#define LOOKUP_H

#include "request/answer.h"
#include "fetch/fetches.h"
#include "access/ownership.h"
#include "fetch/poller.h"

struct lookup {
    struct task task;
    struct snapshot *snapshot; /* to serve; NULL with a problem */
    struct snapshot *last;     /* may be served in its place, or NULL */
    enum answer_source source;
    int64_t ttl_ms; /* SOURCE_MEMORY: how long it stays fresh */
    bool stored;
    enum problem problem;
    bool doubted;           /* an old snapshot is served in place of the problem */
    int64_t retry_after_ms; /* of the problem; 0: unknown */
    bool waits;             /* for a fetch */
    struct fetch_waiter waiter;
    struct watcher watcher;
    const struct team *team; /* (ref) the requesting team; NULL: none */
    struct claim claim;
    bool granted;                           /* the team may read the task */
    void *owner;                            /* (ref) for the callbacks */
    void (*on_done)(struct lookup *lookup); /* the fetch is over */
    void (*on_news)(struct lookup *lookup); /* the watched task has changed, or does not exist any more */
};

/* Looks in the cache. Returns true if the cache has the answer, or a problem because of which no query should
 * be sent. */
bool lookup_in_memory(struct lookup *lookup, struct fetches *fetches, int64_t now_ms);

/* Joins or starts a fetch. Returns true if on_done will be called, later; false: the limit of fetches is
 * reached, and the problem is set. */
bool lookup_fetch(struct lookup *lookup, struct fetches *fetches);

/* Claims an existing task for the requesting team. Returns true if on_done will be called, later; false: the
 * claim is decided. If another team owns the task, the result is that the task does not exist. */
bool lookup_claim(struct lookup *lookup, struct ownership *ownership);

/* After a failure, falls back to the last snapshot if it is not too old. */
void lookup_excuse(struct lookup *lookup, int64_t now_ms);

/* Looks in the cache again: the task may have changed, or fetches of it may have failed. */
void lookup_again(struct lookup *lookup, struct fetches *fetches, int64_t now_ms);

/* Takes the newest snapshot in the cache and watches the task from then on: each change calls on_news.
 * Returns false if the task cannot change any more. */
bool lookup_watch(struct lookup *lookup, struct poller *poller, struct cache *cache);

/* Forgets the snapshots and sets the problem. */
void lookup_forget(struct lookup *lookup, enum problem problem);

/* Stops waiting and watching. */
void lookup_leave(struct lookup *lookup);

/* Stops waiting and watching, and releases the snapshots. */
void lookup_done(struct lookup *lookup);

/* The same for n lookups; frees the array unless it is `embedded`, the one lookup in the request. */
void lookups_free(struct lookup *lookups, size_t n, const struct lookup *embedded);

/* The lookups of /v1/tasks?ids=, for lookups_free. NULL if the list is malformed. */
struct lookup *lookups_new(const struct conf *conf, const char *uri, void *owner, size_t *ret_n);

/* Sets the team and the quota (either may be NULL). Tasks that the team may not read get a problem. */
void lookups_judge(struct lookup *lookups, size_t n, const struct conf *conf, const struct team *team,
                   struct quota *quota);

/* The functions above, for each lookup of a request that has no problem yet. They return whether the cache
 * has all of them, how many lookups wait for on_done, and whether any task is watched. */
bool lookups_in_memory(struct lookup *lookups, size_t n, struct fetches *fetches, int64_t now_ms);
size_t lookups_fetch(struct lookup *lookups, size_t n, struct fetches *fetches,
                     void (*on_done)(struct lookup *lookup));
size_t lookups_claim(struct lookup *lookups, size_t n, struct ownership *ownership,
                     void (*on_done)(struct lookup *lookup));
bool lookups_watch(struct lookup *lookups, size_t n, struct poller *poller, struct cache *cache,
                   void (*on_news)(struct lookup *lookup));
void lookups_excuse(struct lookup *lookups, size_t n, int64_t now_ms);
void lookups_again(struct lookup *lookups, size_t n, struct fetches *fetches, int64_t now_ms);
void lookups_forget(struct lookup *lookups, size_t n);
void lookups_leave(struct lookup *lookups, size_t n);

/* The longest time that any of the fetches may take. */
int64_t lookups_timeout_ms(const struct lookup *lookups, size_t n, const struct conf *conf);

/* Sets the problem of lookups without a result, and stops waiting. */
void lookups_give_up(struct lookup *lookups, size_t n, enum problem problem);

/* The answer for one task, or for many; `facts` are those of the request. */
void lookup_answer(const struct lookup *lookup, enum view_kind view, const struct answer_facts *facts,
                   struct answer *answer);
void lookups_answer(const struct lookup *lookups, size_t n, const struct answer_facts *facts,
                    struct answer *answer);

/* Whether the client already has the answer, for one task or for many. True without If-None-Match (NULL),
 * because such a client waits for the end of the task. */
bool lookups_are_known(const struct lookup *lookups, size_t n, bool many, enum view_kind view,
                       const char *if_none_match);

#endif
