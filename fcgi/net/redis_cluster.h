/* redis_cluster: routes commands to the nodes of a Redis Cluster.
 *
 *     key -> slot -> owner's connection --MOVED--> the new owner   (the table changes, and is requested again)
 *                                       --ASK----> the other node  (for this command only, after ASKING)
 *
 * A command that was sent again keeps its deadline: the caller never waits longer than redis.timeout in total.
 *
 * The worker has a connection to each master that has slots. It asks one of these masters for the table of slots (CLUSTER
 * NODES) when a connection comes up or is lost, after MOVED and CLUSTERDOWN, and at intervals, which are shorter while
 * slots are without a connected node. It connects to the address in the configuration at first, and again when no node
 * can be reached.
 *
 * Only redis.c calls these functions. */
#ifndef REDIS_CLUSTER_H
#define REDIS_CLUSTER_H

#include <stdbool.h>
#include <stddef.h>

#include "net/redis_node.h"

/* `front` (ref) is the Redis that callers know. */
struct redis_cluster *cluster_new(uv_loop_t *loop, const struct conf_redis *conf, struct redis *front);

/* Begins to connect. */
void cluster_start(struct redis_cluster *cluster);

/* Pending commands get no callback. Freed in the loop's closing callbacks. */
void cluster_free(struct redis_cluster *cluster);

/* The connection for commands with this key; NULL if it is unavailable. */
struct redis *cluster_route(struct redis_cluster *cluster, const char *key);

/* Returns the key for a probe of this node: one in its slots, if it has any. The caller frees the key. */
char *cluster_probe_key(const struct redis_cluster *cluster, const struct redis *node);

enum cluster_redirect {
    CLUSTER_NO_REDIRECT, /* another error, or a redirection that cannot be followed */
    CLUSTER_SENT_AGAIN,
    CLUSTER_TARGET_UNAVAILABLE /* or there is no time left: the command has failed */
};

/* Follows a redirection by the node. */
enum cluster_redirect cluster_redirect(struct redis_cluster *cluster, struct redis_command *command,
                                       const struct redis *node, const char *error);

/* To be called when a redirected command ends. */
void cluster_forget(struct redis_cluster *cluster, struct redis_command *command);

/* Takes the node's reply to CLUSTER NODES. */
void cluster_learn(struct redis_cluster *cluster, const struct redis *node, const char *text, size_t len);

/* To be called when the connection to a node has come up or was lost. */
void cluster_changed(struct redis_cluster *cluster);

/* Whether all slots have a connected node. */
bool cluster_is_up(const struct redis_cluster *cluster);
bool cluster_is_busy(const struct redis_cluster *cluster);
bool cluster_has_trouble(const struct redis_cluster *cluster, int trouble);

/* The server for the next subscription: the connected node after `last` or, if no node is connected, the address in the
 * configuration. */
struct endpoint cluster_next_server(const struct redis_cluster *cluster, const struct endpoint *last);

/* Whether the subscription should move, because its server is none of the connected nodes, and there are others. */
bool cluster_has_left(const struct redis_cluster *cluster, const struct endpoint *server);

#endif
