/* route: maps the URI of a request to a task. */
#ifndef ROUTE_H
#define ROUTE_H

#include "config/conf.h"
#include "task/problem.h"
#include "task/snapshot.h"

/* Names of upstreams and providers have at most 64 characters. */
enum { TASK_KEY_MAX = 2 * 65 + TASK_ID_MAX };

/* One task of one route. Fetches, memory and Redis identify it by its key. */
struct task {
    const struct conf_route *route; /* (ref) */
    char key[TASK_KEY_MAX];         /* "main:sora:ID"; in Redis, after the prefix */
    size_t key_len;
    size_t id_at; /* offset of the id in the key */
};

/* Initializes a task from an id that the route's pattern has accepted. */
void task_init(struct task *task, const struct conf_route *route, const char *id);

/* The values of the path's variables, joined by '/'. */
static inline const char *task_id(const struct task *task)
{
    return task->key + task->id_at;
}

/* Finds the task of a key from another process. Returns false if no route of `conf` has it. */
bool task_from_key(const struct conf *conf, const char *key, struct task *ret_task);

enum { ROUTE_IDS_MAX = 100 };

/* Determines what `uri` (path and query, as received) requests. */
enum route_kind {
    ROUTE_NONE,    /* not a valid request; the problem is set */
    ROUTE_NATIVE,  /* a provider's own path */
    ROUTE_UNIFIED, /* /v1/tasks/PROVIDER/ID */
    ROUTE_RESULT,  /* the provider's path for the result alone */
    ROUTE_CONTENT, /* any path of a task, followed by /content/N or /content */
    ROUTE_MANY,    /* /v1/tasks?ids=... */
    ROUTE_HOOK     /* a webhook; see client_request.h */
};

/* All but ROUTE_MANY (see route_ids) and ROUTE_HOOK set the task. */
enum route_kind route_find(const struct conf *conf, const char *uri, struct task *ret_task,
                           enum problem *ret_problem);

/* N in the URI of ROUTE_CONTENT, 0 without N; SIZE_MAX, which no result has, for a variant of a video. */
size_t route_content_number(const char *uri);

/* The task of the name "PROVIDER/ID", not percent-encoded. If several routes have the provider, the first is
 * used. */
enum problem route_named(const struct conf *conf, const char *name, struct task *ret_task);

/* The tasks of /v1/tasks?ids=, in the order of the request. An invalid item gets a problem and no route, and
 * its key is the sanitized item, which may be cut. Both
 * arrays hold ROUTE_IDS_MAX items. Returns the number of items, or -1 if the list is malformed, empty or
 * longer. */
int route_ids(const struct conf *conf, const char *uri, struct task *ret_tasks, enum problem *ret_problems);

/* How long the upstream may take to answer: a second query may follow the first. */
int64_t task_timeout_ms(const struct task *task);

/* The most queries that it takes to find a task: one with each key, and a second one for its result. */
int64_t task_queries_max(const struct task *task);

/* How long snapshots of the task are fresh and kept. */
struct snapshot_rules task_rules(const struct task *task, const struct conf_cache *conf);

/* The name in nginx's configuration of the origin of a URL: "https_api.example.com_8443". */
void route_origin_name(const char *url, struct buf *out);

/* For `taskproxy --print-nginx`: the map from the URI to the variable $NAME_task, and the upstream blocks NAME and
 * NAME_status. */
void route_print_nginx(const struct conf *conf, const char *name, struct buf *out);

#endif
