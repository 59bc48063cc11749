/* route: from the line a client sent to the task it asks about. */
#ifndef ROUTE_H
#define ROUTE_H

#include "conf.h"
#include "problem.h"
#include "snapshot.h"


/* One task of one route: the identity that fetches, the cache and Redis go by. */
struct task {
    const struct conf_route *route; /* (ref) */
    char id[TASK_ID_MAX];           /* the values of the path's variables, joined by '/' */
};

struct target {
    struct task task;
    enum view_kind view;
};

/* What `uri` (path and query, as they came) asks for. PROBLEM_NONE, or PROBLEM_NOT_FOUND for no such route, or
 * PROBLEM_BAD_REQUEST for an id against the provider's grammar. */
enum problem route_find(const struct conf *conf, const char *uri, struct target *ret_target);

/* The task's key in Redis, without the prefix, and in the memory cache: "main:sora:ID". */
void task_key(const struct task *task, struct buf *out);

/* For `taskproxy --print-nginx`: the map from the URI to the task, and the upstream blocks. */
void route_print_nginx(const struct conf *conf, struct buf *out);

#endif
