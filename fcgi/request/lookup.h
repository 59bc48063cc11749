/* lookup: one task that a request asks about, and what is known of it by now. */
#ifndef LOOKUP_H
#define LOOKUP_H

#include "request/answer.h"
#include "fetch/fetches.h"
#include "access/ownership.h"
#include "fetch/poller.h"

struct lookup {
    struct task task;
    struct snapshot *snapshot; /* what is answered, or NULL with a problem */
    struct snapshot *last;     /* what may stand in for it, or NULL */
    enum answer_source source;
    int64_t ttl_ms; /* SOURCE_MEMORY: how long it is fresh yet */
    bool stored;
    enum problem problem;
    bool doubted;           /* the problem is not believed as long as there is something to show */
    int64_t retry_after_ms; /* of the problem; 0: unknown */
    bool waits;             /* for a fetch */
    struct fetch_waiter waiter;
    struct watcher watcher;
    const struct team *team; /* (ref) who asks; NULL: it does not matter */
    struct claim claim;
    bool granted;                           /* the task is the team's to read */
    void *owner;                            /* (ref) who is called */
    void (*on_done)(struct lookup *lookup); /* the fetch is over */
    void (*on_news)(
        struct lookup *lookup); /* the task that is watched has changed, or turned out not to exist */
};

/* True when memory has the answer, or knows that there is none to be had now. */
bool lookup_in_memory(struct lookup *lookup, struct fetches *fetches, int64_t now_ms);

/* Joins or begins a fetch. True: on_done will be called, later; false: the limit is reached, which is the
 * problem. */
bool lookup_fetch(struct lookup *lookup, struct fetches *fetches);

/* Claims a task of which something is known for the team that asks. True: on_done will be called, later; false:
 * that was all. A task that is another team's is forgotten: to this one it does not exist. */
bool lookup_claim(struct lookup *lookup, struct ownership *ownership);

/* Lets the last snapshot stand in for a failure, when there is one that may. */
void lookup_excuse(struct lookup *lookup, int64_t now_ms);

/* Looks in memory once more, for what has become of the task since. */
void lookup_again(struct lookup *lookup, struct fetches *fetches, int64_t now_ms);

/* Takes the newest snapshot in the cache and watches the task from here on, so that on_news is called. Returns false if
 * the task cannot change any more. */
bool lookup_watch(struct lookup *lookup, struct poller *poller, struct cache *cache);

/* Nothing is known but a problem. */
void lookup_forget(struct lookup *lookup, enum problem problem);

/* Waits and watches no longer. */
void lookup_leave(struct lookup *lookup);

/* Leaves, and lets go of what it holds. */
void lookup_done(struct lookup *lookup);

/* Likewise all of them, and frees them, unless they are the one that is embedded in the request. */
void lookups_free(struct lookup *lookups, size_t n, const struct lookup *embedded);

/* The lookups of /v1/tasks?ids=, which the caller frees (lookups_free); NULL when the list is malformed.
 */
struct lookup *lookups_new(const struct conf *conf, const char *uri, void *owner, size_t *ret_n);

/* The team asks, at the cost of the quota (each NULL: nobody's). What it may not ask about has that as its
 * problem. */
void lookups_judge(struct lookup *lookups, size_t n, const struct conf *conf, const struct team *team,
                   struct quota *quota);

/* What is said above, for each of the lookups of a request that has no problem yet: true when memory has all
 * of them; how many wait for a fetch; whether there is anything to watch. */
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

/* How long the slowest of them may take to fetch. */
int64_t lookups_timeout_ms(const struct lookup *lookups, size_t n, const struct conf *conf);

/* Those that have nothing yet have this problem, and wait no longer. */
void lookups_give_up(struct lookup *lookups, size_t n, enum problem problem);

/* The answer about one task, or about many; `facts` has what is true of the request. */
void lookup_answer(const struct lookup *lookup, enum view_kind view, const struct answer_facts *facts,
                   struct answer *answer);
void lookups_answer(const struct lookup *lookups, size_t n, const struct answer_facts *facts,
                    struct answer *answer);

/* Whether the answer, about one task or about many, is what the client has already. Without an If-None-Match
 * (NULL) it is: then the client waits for the end. */
bool lookups_are_known(const struct lookup *lookups, size_t n, bool many, enum view_kind view,
                       const char *if_none_match);

#endif
