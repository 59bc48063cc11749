/* redis_node: a connection to one node of a Redis Cluster, and commands that wait for replies. redis.c implements the
 * functions, and only redis_cluster.c calls them. */
#ifndef REDIS_NODE_H
#define REDIS_NODE_H

#include <uv.h>

#include "config/conf.h"

struct redis;
struct redis_cluster;
struct redis_reply;

enum { REDIS_WORDS_MAX = 12 }; /* of a command */

struct redis_command {
    struct redis *redis; /* (ref) of the connection */
    struct redis_command *prev, *next;
    int verb;
    uint64_t deadline_ms; /* loop time; then the connection counts as lost */
    uint64_t sent_ns;     /* uv_hrtime */
    void (*on_reply)(void *user, const struct redis_reply *reply); /* NULL: none wanted, or cancelled */
    void *user;

    /* In a cluster: */
    int argc; /* 0: a redirection is not followed */
    char *argv[REDIS_WORDS_MAX];
    uint64_t give_up_ms; /* loop time; then the caller gets no other reply */
    int n_redirects;     /* > 0: it is among the cluster's redirected commands */
    bool failed;         /* already: its reply is ignored */
    struct redis_command *redirected_prev, *redirected_next;
};

/* Connects to the server, as one node of the cluster for which `front` stands. `is_hidden`: without a metric of its own. */
struct redis *redis_node_new(uv_loop_t *loop, const struct conf_redis *conf, struct redis *front,
                             const struct endpoint *server, bool is_hidden);
void redis_node_free(struct redis *node);

const struct endpoint *redis_node_server(const struct redis *node);
bool redis_node_is_missed(const struct redis *node); /* it was logged as unavailable */
bool redis_node_is_busy(const struct redis *node);
int redis_node_trouble(const struct redis *node);

/* Of any connection: */
bool redis_is_up(const struct redis *redis);
bool redis_is_usable(const struct redis *redis); /* it is up, or queues commands until it is */

/* Requests the table of slots; cluster_learn is called with the reply. False if the connection is lost. */
bool redis_node_send_question(struct redis *node);

/* Sends a redirected command again, after ASKING if `asking`. False if the node is unavailable. */
bool redis_node_send(struct redis *node, struct redis_command *command, bool asking);

/* The command ends with REDIS_UNAVAILABLE, unless it was cancelled. */
void redis_command_fail(struct redis_command *command);
void redis_command_free(struct redis_command *command);

/* Subscribes at another node if that of the subscription is not connected any more, or has no slots. */
void redis_check_listener(struct redis *front);

#endif
