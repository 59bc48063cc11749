/* lookup: the tasks of one request, and the results found so far. Most requests are about one task;
 * /v1/tasks?ids= is about many. */
#ifndef LOOKUP_H
#define LOOKUP_H

#include "request/answer.h"
#include "fetch/fetch.h"
#include "access/ownership.h"
#include "fetch/poller.h"

struct lookups;

/* Where a lookup is after the look in memory: the next step, or it has a result for the client, which an event stream
 * may follow. */
enum lookup_stage { STAGE_FETCH, STAGE_CLAIM, STAGE_SETTLE, STAGE_SETTLED, STAGE_FOLLOWED };

/* What the client of an event stream knows of a task. */
struct told {
    char mark[ETAG_SIZE]; /* of the last view, or of the problem that was the end; see stream.h */
    enum problem trouble; /* the problem since then, or NONE */
};

/* One task of a request. */
struct lookup {
    struct lookups *lookups; /* (ref) those of the request */
    struct task task;
    struct snapshot *snapshot; /* to serve; NULL with a problem */
    struct snapshot *last;     /* may be served in its place, or NULL */
    enum answer_source source;
    int64_t ttl_ms; /* SOURCE_MEMORY: how long it stays fresh */
    bool stored;
    enum problem problem;
    bool doubted;           /* the problem is hidden: an old snapshot is served instead */
    int64_t retry_after_ms; /* of the problem; 0: unknown */
    struct fetch_waiter waiter;
    struct watcher watcher;
    struct claim claim;
    bool granted; /* the team may read the task */
    int64_t paid; /* queries that the team was charged for the result */
    struct charge charge;
    enum lookup_stage stage;
    bool pending;        /* the result of the last step comes later */
    int64_t retry_at_ms; /* of an event stream: loop time at which a failed lookup begins again */
    struct told told;    /* likewise */
};

/* Shared by all requests of a worker. All (ref), and outlive the lookups. */
struct lookups_parts {
    const struct conf *conf;
    struct fetches *fetches;
    struct ownership *ownership;
    struct poller *poller;
    /* The last of n_pending results has come, or a watched task has changed or does not exist any more. */
    void (*on_update)(struct lookups *lookups);
};

/* The lookups of one request; embedded in it. */
struct lookups {
    const struct lookups_parts *parts; /* (ref) */
    const char *request_id;            /* (ref) */
    struct moment now;                 /* when the request was run last; the request sets it */
    struct lookup *items;
    size_t n;
    size_t n_pending;   /* lookups whose results come later */
    bool every_change;  /* on_update is called for each change of a list; false: when all tasks have ended */
    bool followed;      /* by an event stream: on_update is called for each result, change and failure */
    size_t n_ended;     /* the first items, which are known to have ended */
    struct lookup only; /* the one lookup of most requests */
    unsigned char *order; /* of a list: the item at each of its n_listed places; a task may be named twice */
    size_t n_listed;
};

/* True for /v1/tasks?ids=, even if it names only one task. */
bool lookups_are_list(const struct lookups *lookups);

/* One lookup, whose task the caller sets in `only`. All (ref), and outlive the lookups. */
void lookups_init(struct lookups *lookups, const struct lookups_parts *parts, const char *request_id);

/* Releases the snapshots, and stops waiting and watching. */
void lookups_done(struct lookups *lookups);

/* Replaces the one lookup by those of /v1/tasks?ids=. Returns false if the list is malformed. */
MUST_CHECK bool lookups_take_ids(struct lookups *lookups, const char *uri);

/* Sets the quota of the requesting team (NULL: no team). Tasks that the team may not read get a problem, and so do those that
 * are not in the list of its link (NULL: it has no such link). */
void lookups_authorize(struct lookups *lookups, struct quota *quota, const char *linked);

/* Calls one of the functions below for each lookup. Returns how many of them returned true. */
size_t lookups_each(struct lookups *lookups, bool (*step)(struct lookup *lookup));

/* Looks the task up in the cache. Returns true if it has the answer, or a problem because of which no query should be
 * sent. */
bool lookup_in_memory(struct lookup *lookup);

/* Takes the lookup as far as it goes without waiting. Returns true if a result comes later; otherwise, it is settled. If
 * another team owns the task, the result is the same as for a task that does not exist. */
bool lookup_advance(struct lookup *lookup);

/* Takes the newest snapshot in the cache and watches the task from then on: changes call on_update.
 * Returns false if the task cannot change any more. */
bool lookup_watch(struct lookup *lookup);

/* lookup_advance for an event stream: watches the task, too, and begins again after a pause if the lookup has failed with
 * a problem that may pass. Later results call on_update. Returns whether the task can change any more. */
bool lookup_follow(struct lookup *lookup);

/* Whether an event stream can begin with this result. It watches the task from then on. */
bool lookup_can_stream(struct lookup *lookup);

/* The loop time at which the next failed lookup begins again; INT64_MAX: none does. */
int64_t lookups_retry_at_ms(const struct lookups *lookups);

/* Looks the task up in the cache again: it may have changed, or fetches of it may have failed. */
bool lookup_again(struct lookup *lookup);

/* Forgets the results. */
void lookups_forget(struct lookups *lookups);

/* Stops waiting and watching. */
void lookups_leave(struct lookups *lookups);

/* Sets the problem of lookups that need a fetch or wait for one. */
void lookups_give_up(struct lookups *lookups, enum problem problem);

/* Whether there is a view of any of the tasks. */
bool lookups_have_view(const struct lookups *lookups);

/* The longest time that any of the fetches may take. */
int64_t lookups_timeout_ms(const struct lookups *lookups);

/* Where the result came from; for a list, the highest value. */
enum answer_source lookups_source(const struct lookups *lookups);

/* The answer for one task or for many; `facts` are those of the request. */
void lookups_answer(const struct lookups *lookups, enum view_kind view, const struct answer_facts *facts,
                    struct answer *answer);

/* Whether the client already has the answer. True without If-None-Match (NULL), because such a client waits
 * for the end of the task. */
bool lookups_are_known(const struct lookups *lookups, enum view_kind view, const char *if_none_match);

#endif
