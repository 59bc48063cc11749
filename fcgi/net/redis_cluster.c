/* redis_cluster: see redis_cluster.h. */
#include "net/redis_cluster.h"

#include <stdlib.h>
#include <string.h>

#include <utlist.h>

#include "lib/log.h"
#include "lib/stats.h"
#include "net/redis_slots.h"

enum {
    REDIRECTS_MAX = 5,        /* of one command */
    REFRESH_MIN_MS = 100,     /* between two requests for the table */
    REFRESH_TROUBLE_MS = 500, /* while slots are without a connected node */
    REFRESH_MS = 30000,
    COMPLAIN_AGAIN_MS = 60000,
    SHOWN_MAX = 64,               /* nodes that have a metric */
    PROBES_MAX = 16 * REDIS_SLOTS /* keys that are tried */
};

struct node {
    struct node *prev, *next;
    struct redis *connection;
    int n_slots;
    unsigned probe; /* number of the key of its last probe */
    bool used;      /* since the last table; such a node stays, even without slots */
};

struct redis_cluster {
    uv_loop_t *loop;               /* (ref) */
    const struct conf_redis *conf; /* (ref) */
    struct redis *front;           /* (ref) */
    struct node *nodes;
    size_t n_nodes;
    struct node *asked;               /* (ref) the node that was asked last for the table, or NULL */
    struct node *owners[REDIS_SLOTS]; /* (ref) NULL: unknown, or none */
    uint64_t asked_ms;                /* loop time */
    bool up;                          /* all slots have a connected node */
    uint64_t down_ms;                 /* loop time when `up` became false */
    bool logged_down;
    bool freed;
    struct log_once refusals;         /* why tables and redirections were not used */
    struct redis_command *redirected; /* redirected commands that have no reply yet */
    uv_timer_t refresh_timer;
    uv_timer_t redirect_timer; /* for the earliest give_up_ms of these commands */
};

/* ---- nodes ---- */

static struct node *find_node(const struct redis_cluster *c, const struct endpoint *server)
{
    struct node *node;
    DL_FOREACH(c->nodes, node)
    {
        if (endpoint_equal(redis_node_server(node->connection), server))
            break;
    }
    return node;
}

static void refuse(struct redis_cluster *c, const struct endpoint *server, const char *why)
{
    char address[ENDPOINT_TEXT];
    endpoint_format(server, address);
    char *text = xasprintf("%s: %s", address, why);
    if (log_once(&c->refusals, text, (int64_t)uv_now(c->loop)))
        log_warn("Redis at %s: not using its node at %s", c->conf->name, text);
    free(text);
}

/* The node at that address, which is added and connected to if it is new. NULL if it is refused. */
static struct node *get_node(struct redis_cluster *c, const struct endpoint *server)
{
    struct node *node = find_node(c, server);
    if (node != NULL)
        return node;
    if (!server->loopback && !c->conf->plaintext && c->conf->tls.settings == NULL) {
        refuse(c, server, "the connection would not be encrypted");
        return NULL;
    }
    if (c->n_nodes >= 2 * REDIS_NODES_MAX) {
        refuse(c, server, "too many nodes");
        return NULL;
    }
    node = xcalloc(1, sizeof(*node));
    node->connection = redis_node_new(c->loop, c->conf, c->front, server, c->n_nodes >= SHOWN_MAX);
    DL_APPEND(c->nodes, node);
    c->n_nodes++;
    return node;
}

static void remove_node(struct redis_cluster *c, struct node *node)
{
    DL_DELETE(c->nodes, node);
    c->n_nodes--;
    if (c->asked == node)
        c->asked = NULL;
    redis_node_free(node->connection);
    free(node);
}

static void assign(struct redis_cluster *c, int slot, struct node *node)
{
    if (c->owners[slot] != NULL)
        c->owners[slot]->n_slots--;
    c->owners[slot] = node;
    if (node != NULL)
        node->n_slots++;
}

static void log_removed(const struct redis_cluster *c, const struct node *node)
{
    char address[ENDPOINT_TEXT];
    endpoint_format(redis_node_server(node->connection), address);
    if (redis_node_is_missed(node->connection))
        log_info("Redis at %s: other nodes have the slots of %s", c->conf->name, address);
}

/* A node that has lost its slots stays until it has answered all commands. */
static void remove_unused(struct redis_cluster *c)
{
    struct node *node, *next;
    DL_FOREACH_SAFE(c->nodes, node, next)
    {
        if (node->n_slots == 0 && !node->used && !redis_node_is_busy(node->connection)) {
            log_removed(c, node);
            remove_node(c, node);
        } else {
            node->used = false;
        }
    }
}

/* The first connected node after this one, or from the beginning of the list if `after` is NULL. The list wraps around. NULL
 * if no node is connected. */
static struct node *next_connected(const struct redis_cluster *c, const struct node *after)
{
    struct node *node = after != NULL && after->next != NULL ? after->next : c->nodes;
    for (size_t i = 0; i < c->n_nodes; i++) {
        if (redis_is_up(node->connection))
            return node;
        node = node->next != NULL ? node->next : c->nodes;
    }
    return NULL;
}

bool cluster_has_trouble(const struct redis_cluster *c, int trouble)
{
    const struct node *node;
    DL_FOREACH(c->nodes, node)
    {
        if (redis_node_trouble(node->connection) == trouble)
            return true;
    }
    return false;
}

/* Handshakes do not count: among many unreachable nodes, one is always under way. */
bool cluster_is_busy(const struct redis_cluster *c)
{
    const struct node *node;
    DL_FOREACH(c->nodes, node)
    {
        if (redis_is_usable(node->connection) && redis_node_is_busy(node->connection))
            return true;
    }
    return false;
}

struct endpoint cluster_next_server(const struct redis_cluster *c, const struct endpoint *last)
{
    const struct node *node = next_connected(c, find_node(c, last));
    return node ? *redis_node_server(node->connection) : c->conf->endpoints[0];
}

bool cluster_has_left(const struct redis_cluster *c, const struct endpoint *server)
{
    const struct node *node = find_node(c, server);
    return (node == NULL || !redis_is_up(node->connection)) && next_connected(c, NULL) != NULL;
}

/* ---- the state ---- */

static void on_refresh(uv_timer_t *timer);

/* Starts the timer, unless it is due earlier. */
static void start_timer(uv_timer_t *timer, uv_timer_cb on_due, uint64_t due_ms)
{
    uint64_t now = uv_now(timer->loop), left = due_ms > now ? due_ms - now : 0;
    if (!uv_is_active((uv_handle_t *)timer) || uv_timer_get_due_in(timer) > left)
        uv_timer_start(timer, on_due, left, 0);
}

/* Asks for the table soon. Not at once, because callbacks of connections call this. */
static void refresh_soon(struct redis_cluster *c)
{
    uint64_t soon = uv_now(c->loop) + 1, due = c->asked_ms + REFRESH_MIN_MS;
    start_timer(&c->refresh_timer, on_refresh, due > soon ? due : soon);
}

static int count_connected(const struct redis_cluster *c)
{
    const struct node *node;
    int n = 0;
    DL_FOREACH(c->nodes, node)
    {
        n += redis_is_up(node->connection) ? node->n_slots : 0;
    }
    return n;
}

bool cluster_is_up(const struct redis_cluster *c)
{
    return c->up;
}

static void update_up(struct redis_cluster *c)
{
    bool up = count_connected(c) == REDIS_SLOTS;
    if (c->up && !up)
        c->down_ms = uv_now(c->loop);
    c->up = up;
    stat_set(STAT_REDIS_UP, c->up);
}

void cluster_changed(struct redis_cluster *c)
{
    if (c->freed)
        return;
    update_up(c);
    redis_check_listener(c->front);
    refresh_soon(c);
}

/* A slot that has just moved to another node lacks a connection for a moment, which is not logged. */
static void log_state(struct redis_cluster *c)
{
    bool down = !c->up && uv_now(c->loop) - c->down_ms >= REFRESH_TROUBLE_MS;
    if (c->up && c->logged_down)
        log_info("Redis at %s serves all slots again", c->conf->name);
    else if (down && !c->logged_down)
        log_warn("Redis at %s: %d of %d slots have no node that can be reached; continuing without them",
                 c->conf->name, REDIS_SLOTS - count_connected(c), REDIS_SLOTS);
    c->logged_down = down || (c->logged_down && !c->up);
}

static void on_refresh(uv_timer_t *timer)
{
    struct redis_cluster *c = timer->data;
    struct node *node = next_connected(c, c->asked), *first;
    log_state(c);
    uv_timer_start(timer, on_refresh, c->up ? REFRESH_MS : REFRESH_TROUBLE_MS, 0);
    c->asked = node;
    if (node != NULL) {
        c->asked_ms = uv_now(c->loop);
        redis_node_send_question(node->connection);
    } else if ((first = get_node(c, &c->conf->endpoints[0])) != NULL)
        first->used = true;
}

void cluster_learn(struct redis_cluster *c, const struct redis *from, const char *text, size_t len)
{
    struct redis_slots *slots = xcalloc(1, sizeof(*slots));
    struct node **nodes = xcalloc(REDIS_NODES_MAX, sizeof(struct node *));
    if (redis_slots_parse(text, len, redis_node_server(from), slots) == 0) {
        for (size_t i = 0; i < slots->n; i++)
            nodes[i] = get_node(c, &slots->nodes[i]);
        for (int slot = 0; slot < REDIS_SLOTS; slot++) {
            unsigned owner = slots->owners[slot];
            assign(c, slot, owner != REDIS_SLOT_UNASSIGNED ? nodes[owner] : NULL);
        }
        remove_unused(c);
        update_up(c);
        redis_check_listener(c->front);
    } else {
        refuse(c, redis_node_server(from), "its reply to CLUSTER NODES is malformed");
    }
    free(nodes);
    free(slots);
}

/* ---- commands ---- */

/* While the owner of a slot is not known, any node redirects to it. */
struct redis *cluster_route(struct redis_cluster *c, const char *key)
{
    struct node *node = c->owners[redis_slot(key)];
    if (node == NULL && (node = next_connected(c, NULL)) == NULL)
        node = c->nodes;
    return node != NULL && redis_is_usable(node->connection) ? node->connection : NULL;
}

char *cluster_probe_key(const struct redis_cluster *c, const struct redis *from)
{
    struct node *node = find_node(c, redis_node_server(from));
    for (int tried = 0;; tried++, node->probe++) {
        char *key = xasprintf("%s#probe:%u", c->conf->prefix, node != NULL ? node->probe : 0);
        if (node == NULL || node->n_slots == 0 || c->owners[redis_slot(key)] == node || tried == PROBES_MAX)
            return key;
        free(key);
    }
}

void cluster_forget(struct redis_cluster *c, struct redis_command *command)
{
    if (command->n_redirects > 0)
        DL_DELETE2(c->redirected, command, redirected_prev, redirected_next);
    command->n_redirects = 0;
}

/* The caller of a redirected command has waited for redis.timeout. A reply that arrives later is ignored. Callbacks may send
 * commands, but add none to this list. */
static void on_redirect_due(uv_timer_t *timer)
{
    struct redis_cluster *c = timer->data;
    struct redis_command *command, *next;
    DL_FOREACH_SAFE2(c->redirected, command, next, redirected_next)
    {
        if (uv_now(c->loop) >= command->give_up_ms) {
            cluster_forget(c, command);
            redis_command_fail(command);
        }
    }
    DL_FOREACH2(c->redirected, command, redirected_next)
    start_timer(timer, on_redirect_due, command->give_up_ms);
}

/* The node that a redirection names; NULL if it is refused. After MOVED, it has the slot; after ASK, only this key. */
static struct node *take_redirect(struct redis_cluster *c, const struct redis_redirect *redirect)
{
    struct node *node = get_node(c, &redirect->server);
    if (node == NULL)
        return NULL;
    node->used = true;
    if (redirect->kind == REDIS_MOVED && c->owners[redirect->slot] != node) {
        assign(c, redirect->slot, node);
        update_up(c);
        refresh_soon(c);
    }
    return node;
}

enum cluster_redirect cluster_redirect(struct redis_cluster *c, struct redis_command *command,
                                       const struct redis *from, const char *error)
{
    struct redis_redirect redirect;
    int result = redis_redirect_parse(error, redis_node_server(from), &redirect);
    if (result < 0 || redirect.kind == REDIS_CLUSTER_DOWN)
        refresh_soon(c);
    if (result < 0 || (redirect.kind != REDIS_MOVED && redirect.kind != REDIS_ASK) ||
        command->n_redirects >= REDIRECTS_MAX)
        return CLUSTER_NO_REDIRECT;
    if (uv_now(c->loop) >= command->give_up_ms)
        return CLUSTER_TARGET_UNAVAILABLE;
    const struct node *node = take_redirect(c, &redirect);
    if (node == NULL || !redis_node_send(node->connection, command, redirect.kind == REDIS_ASK))
        return CLUSTER_TARGET_UNAVAILABLE;
    if (command->n_redirects++ == 0)
        DL_APPEND2(c->redirected, command, redirected_prev, redirected_next);
    start_timer(&c->redirect_timer, on_redirect_due, command->give_up_ms);
    return CLUSTER_SENT_AGAIN;
}

/* ---- the cluster ---- */

struct redis_cluster *cluster_new(uv_loop_t *loop, const struct conf_redis *conf, struct redis *front)
{
    struct redis_cluster *c = xcalloc(1, sizeof(*c));
    *c = (struct redis_cluster){.loop = loop, .conf = conf, .front = front, .down_ms = uv_now(loop)};
    c->refusals.again_ms = COMPLAIN_AGAIN_MS;
    uv_timer_init(loop, &c->refresh_timer);
    uv_timer_init(loop, &c->redirect_timer);
    c->refresh_timer.data = c->redirect_timer.data = c;
    return c;
}

void cluster_start(struct redis_cluster *c)
{
    on_refresh(&c->refresh_timer);
}

static void on_timer_closed(uv_handle_t *handle)
{
    struct redis_cluster *c = handle->data;
    close_and_free((uv_handle_t *)&c->refresh_timer, c);
}

/* Commands that wait for a reply are freed with their connection. */
void cluster_free(struct redis_cluster *c)
{
    struct redis_command *command, *next;
    if (c == NULL)
        return;
    c->freed = true;
    DL_FOREACH_SAFE2(c->redirected, command, next, redirected_next)
    cluster_forget(c, command);
    while (c->nodes != NULL)
        remove_node(c, c->nodes);
    uv_timer_stop(&c->refresh_timer); /* closed after the other timer, because it frees the cluster */
    uv_close((uv_handle_t *)&c->redirect_timer, on_timer_closed);
}
