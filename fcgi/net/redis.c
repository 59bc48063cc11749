/* redis: see redis.h.
 *
 *     DOWN --pause over--> CONNECTING (AUTH, SELECT, probe) --> UP --connection lost, time-out, replica--> DOWN
 *            |                   ^                     '--SUBSCRIBE--^ if it is a subscription
 *            '-----> ASKING -----' if Sentinels know the master's address
 *
 * For a Redis Cluster, a `struct redis` that is no connection, the front, stands for the connections to all nodes;
 * redis_cluster.c chooses among them.
 *
 * After each lost connection, the worker asks one Sentinel for the master: the last one that answered or, if that led
 * to no master, the next. After a failover by SENTINEL FAILOVER, the old master accepts writes for 10 s more, which are
 * lost when Sentinel makes it a replica. So another connection, the announcer, asks a Sentinel for the master, too, then
 * subscribes to its announcements, and asks again after each of them. The subscription to notifications uses the server
 * of the commands.
 *
 * The probe is a write that stores nothing, because PING also succeeds on a replica and on a full Redis. A
 * Redis that rejects writes is UP, because results can still be read; probes detect when it accepts writes
 * again.
 *
 * hiredis 0.14 has no time-outs, and its adapter for libuv does not detect refused connections, so this file
 * has its own adapter (struct link) and deadlines. Since hiredis 1.0, TLS is in a separate library, hiredis_ssl. */
#include "net/redis.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <hiredis/async.h>
#include <hiredis/hiredis.h>
#if HAVE_HIREDIS_SSL
#include <hiredis/hiredis_ssl.h>
#endif
#include <utlist.h>

#include "lib/backoff.h"
#include "lib/stats.h"
#include "lib/tls.h"
#include "net/redis_cluster.h"

enum {
    CONNECT_MAX_MS = 1000,
    PAUSE_FIRST_MS = 100,
    PAUSE_MAX_MS = 5000,
    PAUSE_MAX_FAILOVER_MS = 1000, /* with Sentinel or a cluster, a failover ends within seconds */
    COMPLAIN_AGAIN_MS = 60000,
    PROBE_MS = 5000, /* from the last rejected command to the next probe */
    LAST_LOOK_MS =
        1 /* not 0: libuv runs a timer that its own callback armed with 0 before it reads a socket */
};

enum redis_state { DOWN, ASKING, CONNECTING, UP };

/* The adapter between one hiredis context and the loop. */
struct link {
    uv_poll_t poll;
    redisAsyncContext *context; /* (ref) NULL once hiredis has released the link */
    int events;
};

/* The verbs of the connection's own commands: probes, the rest of the handshake, the question to a Sentinel and that to
 * a node of a cluster, and the prefix of a command that ASK has redirected. */
enum { PROBE = REDIS_VERBS, HANDSHAKE, QUESTION, SLOTS_QUESTION, ASKING_PREFIX };

static const struct {
    const char *word;
    const char *label; /* of the histogram */
    enum stat_id sent; /* the counter */
} verbs[] = {[REDIS_GET] = {"GET", "get", STAT_REDIS_GETS},
             [REDIS_PTTL] = {"PTTL", "pttl", STAT_REDIS_PTTLS},
             [REDIS_SET] = {"SET", "set", STAT_REDIS_SETS},
             [REDIS_EVAL] = {"EVAL", "eval", STAT_REDIS_EVALS},
             [PROBE] = {.word = "SET"},
             [HANDSHAKE] = {.word = "the handshake"},
             [QUESTION] = {.word = "SENTINEL"},
             [SLOTS_QUESTION] = {.word = "CLUSTER"},
             [ASKING_PREFIX] = {.word = "ASKING"}};

/* What error replies mean for the connection. The last three end it; during the handshake, so do NO_TROUBLE
 * and NO_PERMISSION. */
enum trouble {
    NO_TROUBLE,    /* only this command failed */
    NO_WRITES,     /* stored results can still be read */
    NO_PERMISSION, /* the user's ACL lacks a command or key */
    REPLICA,       /* after a failover, a new connection may lead to the master */
    PASSWORD,
    UNAVAILABLE /* for another reason, which is logged */
};

#define SLOT_NOT_SERVED "CLUSTERDOWN Hash slot not served"

static const struct {
    const char *start; /* of the error reply */
    const char *words; /* for the log */
    enum trouble trouble;
} rejections[] = {
    {"OOM", "OOM", NO_WRITES},
    {"MISCONF", "MISCONF", NO_WRITES},
    {"NOREPLICAS", "NOREPLICAS", NO_WRITES},
    {SLOT_NOT_SERVED, "CLUSTERDOWN", NO_TROUBLE}, /* other slots may be */
    {"CLUSTERDOWN", "CLUSTERDOWN", NO_WRITES},
    {"ERR This instance has cluster support disabled", "not a cluster", UNAVAILABLE},
    {"NOPERM", "NOPERM", NO_PERMISSION},
    {"ERR The user executing the script can't", "NOPERM", NO_PERMISSION}, /* Redis 7.0 */
    {"ERR ACL failure in script", "NOPERM", NO_PERMISSION},               /* Redis 7.2 */
    {"LOADING", "LOADING", UNAVAILABLE},
    {"ERR DB index is out of range", "no such database", UNAVAILABLE},
    {"READONLY", "read-only replica", REPLICA},
    {"MASTERDOWN", "read-only replica", REPLICA},
    {"NOAUTH", "NOAUTH", PASSWORD},
    {"WRONGPASS", "WRONGPASS", PASSWORD},
    {"ERR AUTH", "no password is configured there", PASSWORD},
};

struct redis {
    uv_loop_t *loop;               /* (ref) */
    const struct conf_redis *conf; /* (ref) */
    char *name;                    /* for messages */
    enum redis_state state;
    size_t sentinel;                     /* the Sentinel to ask */
    struct endpoint server;              /* of the connection, or of the last one; not of a Sentinel */
    redisAsyncContext *context;          /* NULL while DOWN */
    struct ssl_st *tls;                  /* (ref) of the context, or NULL */
    struct redis_command *commands_sent; /* in the order of their replies */
    bool first_attempt;                  /* commands may be queued for the very first connection */
    struct backoff pause;
    enum trouble trouble;        /* UP: of recent commands; else: why the connection was lost */
    char reason[128];            /* why Redis is unavailable, as logged; "" while it is up */
    char latest[128];            /* why the last attempt failed */
    int64_t *times[REDIS_VERBS]; /* series: how long replies took */
    struct log_once errors;      /* the verbs and first words of error replies */
    bool late;                   /* a deadline has passed; Redis has one more chance */
    bool freed;
    bool announces;          /* it is the announcer */
    bool is_hidden;          /* a node of a cluster without a metric of its own */
    uv_timer_t timer;        /* DOWN: the pause; else the deadline of the first command */
    uv_timer_t probe_timer;  /* UP, with trouble: the next probe */
    struct redis *listener;  /* (ref) the connection subscribed to notifications, or NULL */
    struct redis *announcer; /* the connection subscribed to a Sentinel's announcements, or NULL */

    struct redis_cluster *cluster; /* of a front: the nodes; else NULL */
    struct redis *front;           /* (ref) of a node of a cluster; else NULL */

    /* Of a subscribed connection: */
    struct redis *commands; /* (ref) the connection for commands; NULL: this is that connection */
    const char *channel;    /* (ref) */
    redis_message *on_message;
    void *ctx;
};

static void connect_now(struct redis *r);
static void connect_to(struct redis *r, enum redis_state state, const struct endpoint *server);
static void set_timer(struct redis *r);
static bool send_probe(struct redis *r, int64_t timeout_ms);

/* ---- the adapter ---- */

static void on_link_ready(uv_poll_t *poll, int status, int events)
{
    struct link *link = poll->data;
    tls_forget_errors();
    if (status < 0 || (events & UV_READABLE)) /* hiredis reads an error from the socket, too */
        redisAsyncHandleRead(link->context);
    if (link->context != NULL && (events & UV_WRITABLE))
        redisAsyncHandleWrite(link->context);
}

/* Always polls for replies and the end of the connection. */
static void link_poll(struct link *link, int events)
{
    if (events != link->events)
        uv_poll_start(&link->poll, events, on_link_ready);
    link->events = events;
}

static void link_add_write(void *data)
{
    link_poll(data, UV_READABLE | UV_WRITABLE);
}

static void link_del_write(void *data)
{
    link_poll(data, UV_READABLE);
}

/* Called by hiredis before it closes the socket. */
static void link_cleanup(void *data)
{
    struct link *link = data;
    link->context = NULL;
    uv_poll_stop(&link->poll);
    close_and_free((uv_handle_t *)&link->poll, link);
}

static bool link_attach(uv_loop_t *loop, redisAsyncContext *context)
{
    struct link *link = xcalloc(1, sizeof(*link));
    link->context = context;
    link->poll.data = link;
    if (uv_poll_init(loop, &link->poll, context->c.fd) < 0) {
        free(link);
        return false;
    }
    context->ev.data = link;
    context->ev.addWrite = link_add_write;
    context->ev.delWrite = link_del_write;
    context->ev.cleanup = link_cleanup;
    return true;
}

/* ---- the state ---- */

static void on_timer(uv_timer_t *timer);

bool redis_is_up(const struct redis *r)
{
    return r->cluster != NULL ? cluster_is_up(r->cluster) : r->state == UP;
}

/* Whether to log the reason of a lost connection. Until the connection is up again, a different reason is
 * logged only when it comes twice in a row, because a Redis that is starting gives several in quick
 * succession. A lost subscription is logged when its reason comes twice in a row while the connection for
 * commands is up. */
static bool is_new_reason(struct redis *r, const char *reason)
{
    bool again = strcmp(reason, r->latest) == 0;
    snprintf(r->latest, sizeof(r->latest), "%s", reason);
    if (strcmp(reason, r->reason) == 0)
        return false;
    return r->commands ? again && redis_is_up(r->commands) : again || r->reason[0] == '\0';
}

/* The subscribed connection has the same trouble as the connection for commands, which alone counts it. A cluster has the
 * trouble of any of its nodes. */
static void set_trouble(struct redis *r, enum trouble trouble)
{
    static const enum stat_id gauges[] = {[NO_WRITES] = STAT_REDIS_NO_WRITES,
                                          [NO_PERMISSION] = STAT_REDIS_NO_PERMISSION,
                                          [REPLICA] = STAT_REDIS_REPLICA,
                                          [PASSWORD] = STAT_REDIS_PASSWORD};
    r->trouble = trouble;
    for (size_t i = NO_WRITES; r->commands == NULL && i < NELEMS(gauges); i++)
        stat_set(gauges[i], r->front != NULL ? cluster_has_trouble(r->front->cluster, (int)i) : i == trouble);
}

/* Workers whose commands go to this server. */
static int64_t *workers_of(const struct redis *r)
{
    char server[ENDPOINT_TEXT];
    endpoint_format(&r->server, server);
    return stat_series(FAMILY_REDIS_SERVERS, "server", r->conf->socket ? r->conf->address : server);
}

static void set_up(const struct redis *r, int64_t up)
{
    if (r->announces)
        return;
    if (r->front == NULL) /* a cluster is up if all of its slots are */
        stat_set(r->commands ? STAT_REDIS_LISTENING : STAT_REDIS_UP, up);
    if (r->commands == NULL && !r->is_hidden)
        series_set(workers_of(r), up);
}

static bool has_sentinels(const struct redis *r)
{
    return r->conf->sentinels.n > 0;
}

/* The next attempt does not go to a Sentinel that has failed, or has named a server that is no master. */
static void blame_sentinel(struct redis *r)
{
    if (has_sentinels(r) && r->state != UP)
        r->sentinel = (r->sentinel + 1) % r->conf->sentinels.n;
}

/* Formats of log lines. */
static const struct words {
    const char *lost, *restored;
} of_commands = {"Redis at %s is unavailable: %s; continuing without it", "Redis at %s is available again"},
  of_listener = {"Redis subscription lost (%s): %s; continuing without notifications",
                 "Redis subscription restored (%s)"},
  of_announcer = {"Redis Sentinel subscription lost (%s): %s; failovers are noticed later",
                  "Redis Sentinel subscription restored (%s)"};

static const struct words *words_of(const struct redis *r)
{
    return r->announces ? &of_announcer : r->commands ? &of_listener : &of_commands;
}

/* The connection is closed already. Logs the reason if it is new, and reconnects after a pause. */
static void go_down(struct redis *r, enum trouble trouble, const char *reason)
{
    if (r->freed)
        return;
    blame_sentinel(r);
    uv_timer_stop(&r->probe_timer);
    set_trouble(r, trouble);
    if (r->state == UP)
        set_up(r, 0);
    r->state = DOWN;
    r->first_attempt = false;
    if (is_new_reason(r, reason)) {
        log_warn(words_of(r)->lost, r->name, reason);
        snprintf(r->reason, sizeof(r->reason), "%s", reason);
    }
    uv_timer_start(&r->timer, on_timer, (uint64_t)backoff_next(&r->pause), 0);
    if (r->front != NULL)
        cluster_changed(r->front->cluster);
}

/* Closes the connection. The commands under way end with REDIS_UNAVAILABLE. */
static void drop(struct redis *r, enum trouble trouble, const char *reason)
{
    redisAsyncContext *context = r->context;
    r->context = NULL;
    go_down(r, trouble, reason);
    if (context != NULL)
        redisAsyncFree(context);
}

/* The commands may use another server than before. If the network was lost for a while, a subscribed connection may have
 * survived, but then gets its messages only when TCP repeats them, as much later as the loss was long. */
static void renew(struct redis *subscribed, uint64_t pause_ms)
{
    if (subscribed == NULL || subscribed->state != UP)
        return;
    drop(subscribed, UNAVAILABLE, "renewed");
    subscribed->latest[0] = '\0'; /* not a failure */
    uv_timer_start(&subscribed->timer, on_timer, pause_ms, 0);
}

/* To be called when a connection for commands comes up. While a node of a cluster was lost, its commands failed, and a
 * subscription to another node may have missed messages; the subscriber makes up for both. */
static void refresh_listener(struct redis *r)
{
    struct redis *listener = r->front != NULL ? r->front->listener : r->listener;
    if (r->front == NULL || (listener != NULL && endpoint_equal(&r->server, &listener->server)))
        renew(listener, 0);
    else if (listener != NULL)
        listener->on_message(listener->ctx, NULL);
}

static void go_up(struct redis *r)
{
    if (r->announcer != NULL)
        r->announcer->sentinel = r->sentinel; /* another one may not know this master */
    renew(r->announcer, 0);
    r->state = UP;
    backoff_reset(&r->pause);
    log_once_reset(&r->errors);
    set_up(r, 1);
    if (r->reason[0] != '\0')
        log_info(words_of(r)->restored, r->name);
    r->reason[0] = '\0';
    if (r->front != NULL)
        cluster_changed(r->front->cluster);
    refresh_listener(r);
}

/* Deadlines are in the order of the commands, except for commands that were queued behind the first
 * handshake or the question for the table of slots. */
static uint64_t earliest_deadline(const struct redis *r)
{
    uint64_t earliest = r->commands_sent->deadline_ms;
    const struct redis_command *command;
    if (r->state == CONNECTING || r->commands_sent->verb == SLOTS_QUESTION) {
        DL_FOREACH(r->commands_sent, command)
        earliest = command->deadline_ms < earliest ? command->deadline_ms : earliest;
    }
    return earliest;
}

static void set_timer(struct redis *r)
{
    if (r->state == DOWN || r->late)
        return; /* the timer runs for something else */
    uint64_t now = uv_now(r->loop), deadline = r->commands_sent ? earliest_deadline(r) : 0;
    if (r->commands_sent == NULL)
        uv_timer_stop(&r->timer);
    else
        uv_timer_start(&r->timer, on_timer, deadline > now ? deadline - now : 0, 0);
}

/* Whether a command has not been written to the socket yet. */
static bool is_unwritten(const struct redis *r)
{
    const struct link *link = r->context->ev.data;
    return (link->events & UV_WRITABLE) != 0;
}

/* This process may have been busy or descheduled until now. Then the reply may already be in the socket, which
 * is polled once more; or the command has not been written yet, and Redis has all of its time. */
static int64_t more_time_ms(const struct redis *r)
{
    return is_unwritten(r) ? r->conf->timeout_ms : LAST_LOOK_MS;
}

static void on_timer(uv_timer_t *timer)
{
    struct redis *r = timer->data;
    if (r->state == DOWN)
        connect_now(r);
    else if (r->commands_sent == NULL || uv_now(r->loop) < earliest_deadline(r))
        set_timer(r);
    else if (r->late)
        drop(r, UNAVAILABLE, "no reply in time");
    else {
        r->late = true;
        uv_timer_start(timer, on_timer, (uint64_t)more_time_ms(r), 0);
    }
}

/* hiredis reports only the system error, which is none if TLS failed. */
static const char *reason_of(const struct redis *r, const redisAsyncContext *context)
{
    const char *reason = r->tls != NULL && context->err != REDIS_ERR_EOF ? tls_failure(r->tls) : NULL;
    return reason ? reason : context->errstr;
}

static void on_connected(const redisAsyncContext *context, int status)
{
    struct redis *r = context->data;
    if (status == REDIS_OK || r->context != context)
        return;        /* it is up after the handshake */
    r->context = NULL; /* hiredis frees it later */
    go_down(r, UNAVAILABLE, context->errstr);
}

static void on_disconnected(const redisAsyncContext *context, int status)
{
    struct redis *r = context->data;
    if (r->context != context)
        return;        /* dropped by us */
    r->context = NULL; /* hiredis frees it later, and its r->tls */
    go_down(r, UNAVAILABLE, status == REDIS_OK ? "connection closed" : reason_of(r, context));
}

/* ---- commands and replies ---- */

/* Logs that a command failed, unless it was logged for this verb recently. */
static void complain(struct redis *r, int verb, const char *words)
{
    char what[64];
    snprintf(what, sizeof(what), "%s: %s", verbs[verb].word, words);
    if (log_once(&r->errors, what, (int64_t)uv_now(r->loop)))
        log_warn("Redis at %s rejected %s; results are not shared", r->name, what);
}

static void on_probe_due(uv_timer_t *timer)
{
    struct redis *r = timer->data;
    if (!send_probe(r, r->conf->timeout_ms))
        drop(r, UNAVAILABLE, "connection lost");
}

/* The trouble lasts until no command has been rejected for a while and a probe succeeds. A probe does not
 * test all permissions, so after a missing permission the pause is longer. */
static void note_trouble(struct redis *r, enum trouble trouble, int verb, const char *words)
{
    if (r->commands != NULL)
        return;
    if (r->state != UP || trouble > r->trouble) {
        set_trouble(r, trouble);
        log_warn(trouble == NO_WRITES
                     ? "Redis at %s rejected %s: %s; results are not shared"
                     : "Redis at %s rejected %s: %s; its ACL LOG names the missing permission",
                 r->name, verbs[verb].word, words);
    }
    uint64_t pause_ms = r->trouble == NO_WRITES ? PROBE_MS : COMPLAIN_AGAIN_MS;
    uv_timer_start(&r->probe_timer, on_probe_due, pause_ms, 0);
}

static void end_trouble(struct redis *r)
{
    if (r->state == UP && r->trouble != NO_TROUBLE)
        log_info("Redis at %s accepts all commands again", r->name);
    set_trouble(r, NO_TROUBLE);
}

/* Closes the connection. A replica's notifications may not be the master's, so the subscription moves, too. */
static void leave(struct redis *r, enum trouble trouble, const char *words)
{
    char reason[sizeof(r->reason)];
    snprintf(reason, sizeof(reason), trouble == REPLICA ? "%s" : "connection rejected: %s", words);
    drop(r, trouble, reason);
    if (trouble == REPLICA && r->listener != NULL && r->listener->context != NULL)
        drop(r->listener, trouble, reason);
}

/* Only the first word of an unknown error is logged, because a reply to AUTH could repeat the password. */
static void take_error(struct redis *r, int verb, const char *error)
{
    enum trouble trouble = NO_TROUBLE;
    char words[40];
    snprintf(words, sizeof(words), "%.*s", (int)strcspn(error, " "), error);
    for (size_t i = 0; i < NELEMS(rejections); i++) {
        if (strncmp(error, rejections[i].start, strlen(rejections[i].start)) == 0) {
            trouble = rejections[i].trouble;
            snprintf(words, sizeof(words), "%s", rejections[i].words);
            break;
        }
    }
    if (trouble == NO_WRITES || (trouble == NO_PERMISSION && r->state == UP))
        note_trouble(r, trouble, verb, words);
    else if (trouble == NO_TROUBLE && r->state == UP)
        complain(r, verb, words);
    else
        leave(r, trouble, words);
}

/* hiredis calls this for the reply to SUBSCRIBE, for each message, and when the connection ends. */
static void on_subscription(redisAsyncContext *context, void *reply_, void *data)
{
    (void)context;
    const redisReply *reply = reply_;
    struct redis *r = data;
    if (reply == NULL || r->freed || reply->type != REDIS_REPLY_ARRAY || reply->elements != 3)
        return;
    const redisReply *last = reply->element[2]; /* after the kind of message and the channel */
    if (last->type == REDIS_REPLY_STRING)
        r->on_message(r->ctx, last->str);
    else if (r->state == CONNECTING) { /* "subscribe" and the number of channels */
        go_up(r);
        r->on_message(r->ctx, NULL);
    }
}

static void subscribe(struct redis *r)
{
    if (redisAsyncCommand(r->context, on_subscription, r, "SUBSCRIBE %s", r->channel) != REDIS_OK)
        drop(r, UNAVAILABLE, "connection lost");
}

static bool is_in_cluster(const struct redis *r)
{
    return r->front != NULL || (r->commands != NULL && r->commands->cluster != NULL);
}

static bool is_redirect(const struct redis *r, const char *error)
{
    return is_in_cluster(r) && (strncmp(error, "MOVED ", 6) == 0 || strncmp(error, "ASK ", 4) == 0 ||
                                strncmp(error, "TRYAGAIN ", 9) == 0);
}

/* A node of a cluster also accepts commands if it redirects a probe, or if no node serves the slot of the probe's key. */
static bool accepts_commands(const struct redis *r, const redisReply *reply)
{
    return reply->type != REDIS_REPLY_ERROR || is_redirect(r, reply->str) ||
           (is_in_cluster(r) && strncmp(reply->str, SLOT_NOT_SERVED, strlen(SLOT_NOT_SERVED)) == 0);
}

/* Handles replies to probes after the handshake, too. */
static void end_handshake_step(struct redis *r, int verb, const redisReply *reply)
{
    if (reply == NULL)
        return; /* on_connected or on_disconnected has the reason */
    if (!accepts_commands(r, reply))
        take_error(r, verb, reply->str);
    else if (verb == PROBE)
        end_trouble(r);
    if (verb != PROBE || r->state != CONNECTING)
        return;
    if (r->channel != NULL)
        subscribe(r);
    else
        go_up(r);
}

/* The server in a Sentinel's reply, an array of its address and port. False if it names none that can be used. */
static bool read_master(const redisReply *reply, struct endpoint *ret)
{
    char text[80];
    if (reply->type != REDIS_REPLY_ARRAY || reply->elements != 2 ||
        reply->element[0]->type != REDIS_REPLY_STRING || reply->element[1]->type != REDIS_REPLY_STRING)
        return false;
    const char *host = reply->element[0]->str;
    snprintf(text, sizeof(text), strchr(host, ':') ? "[%s]:%s" : "%s:%s", host, reply->element[1]->str);
    return endpoint_parse(text, ret) == 0;
}

/* The answer for the announcer. If the commands use another server, they move. */
static void follow_master(struct redis *r, const struct endpoint *master)
{
    struct redis *commands = r->commands;
    if (commands->state == UP && !endpoint_equal(&commands->server, master)) {
        commands->sentinel = r->sentinel; /* the others may not know yet */
        drop(commands, UNAVAILABLE, "Sentinel names another master");
    }
    r->state = CONNECTING;
    subscribe(r);
}

static void take_master(struct redis *r, const redisReply *reply)
{
    struct endpoint server;
    redisAsyncContext *sentinel = r->context;
    if (reply == NULL)
        return; /* on_connected or on_disconnected has the reason */
    if (reply->type == REDIS_REPLY_ERROR)
        return take_error(r, QUESTION, reply->str);
    if (!read_master(reply, &server))
        return drop(r, UNAVAILABLE, "the Sentinel names no IP address for this master");
    if (r->announces)
        return follow_master(r, &server);
    if (!server.loopback && !r->conf->plaintext && r->conf->tls.settings == NULL)
        return drop(r, UNAVAILABLE, "the connection to the master would not be encrypted");
    r->context = NULL;
    redisAsyncFree(sentinel);
    r->server = server;
    connect_to(r, CONNECTING, &r->server);
}

static void take_slots(struct redis *r, const redisReply *reply)
{
    if (reply == NULL || r->freed)
        return;
    if (reply->type == REDIS_REPLY_STRING)
        cluster_learn(r->front->cluster, r, reply->str, (size_t)reply->len);
    else
        take_error(r, SLOTS_QUESTION, reply->type == REDIS_REPLY_ERROR ? reply->str : "UNEXPECTED");
}

static struct redis_reply judge(struct redis *r, int verb, const redisReply *reply)
{
    int type = reply ? reply->type : REDIS_REPLY_ERROR;
    if (type == REDIS_REPLY_STRING || type == REDIS_REPLY_STATUS)
        return (struct redis_reply){.result = REDIS_FOUND, .value = reply->str, .len = (size_t)reply->len};
    if (type == REDIS_REPLY_INTEGER)
        return (struct redis_reply){.result = REDIS_FOUND, .number = reply->integer};
    if (type == REDIS_REPLY_NIL)
        return (struct redis_reply){.result = REDIS_NOTHING};
    if (reply != NULL && type == REDIS_REPLY_ERROR && r->front != NULL && verb == REDIS_EVAL &&
        strncmp(reply->str, "TRYAGAIN ", 9) == 0)
        return (struct redis_reply){.result = REDIS_DIVIDED};
    stat_inc(STAT_REDIS_FAILURES);
    if (reply == NULL || r->freed)
        return (struct redis_reply){.result = REDIS_UNAVAILABLE};
    if (type == REDIS_REPLY_ERROR && is_redirect(r, reply->str))
        complain(r, verb, "a redirection that cannot be followed");
    else
        take_error(r, verb, type == REDIS_REPLY_ERROR ? reply->str : "UNEXPECTED");
    return (struct redis_reply){.result = REDIS_UNAVAILABLE};
}

static void finish(struct redis *r, struct redis_command *command, const redisReply *reply)
{
    struct redis_reply result = judge(r, command->verb, reply);
    if (reply != NULL)
        series_observe(r->times[command->verb], (int64_t)(uv_hrtime() - command->sent_ns));
    if (command->on_reply != NULL)
        command->on_reply(command->user, &result);
}

/* Whether the cluster sends the command again. If it cannot, because the other node is unavailable, which is logged already,
 * the command fails as if the connection were lost. */
static bool is_sent_again(struct redis *r, struct redis_command *command, const redisReply **reply)
{
    if (r->front == NULL || r->freed)
        return false;
    if (*reply != NULL && (*reply)->type == REDIS_REPLY_ERROR) {
        enum cluster_redirect redirect = cluster_redirect(r->front->cluster, command, r, (*reply)->str);
        if (redirect == CLUSTER_SENT_AGAIN)
            return true;
        if (redirect == CLUSTER_TARGET_UNAVAILABLE)
            *reply = NULL;
    }
    cluster_forget(r->front->cluster, command);
    return false;
}

static void on_reply(redisAsyncContext *context, void *reply_, void *data)
{
    (void)context;
    const redisReply *reply = reply_;
    struct redis_command *command = data;
    struct redis *r = command->redis;
    DL_DELETE(r->commands_sent, command);
    r->late = false;
    if (!r->freed)
        set_timer(r);
    if (command->verb == QUESTION)
        take_master(r, reply);
    else if (command->verb == SLOTS_QUESTION)
        take_slots(r, reply);
    else if (command->verb >= REDIS_VERBS)
        end_handshake_step(r, command->verb, reply);
    else if (!command->failed && is_sent_again(r, command, &reply))
        return;
    else if (!command->failed)
        finish(r, command, reply);
    redis_command_free(command);
}

/* Sends a command, or a redirected command again; the caller frees it if that fails. */
static bool transmit(struct redis *r, struct redis_command *command, int argc, const char **argv)
{
    if (redisAsyncCommandArgv(r->context, on_reply, command, argc, argv, NULL) != REDIS_OK)
        return false;
    command->redis = r;
    DL_APPEND(r->commands_sent, command);
    set_timer(r);
    return true;
}

static struct redis_command *send_command(struct redis *r, int verb, int64_t timeout_ms, int argc,
                                          const char **argv)
{
    struct redis_command *command = xcalloc(1, sizeof(*command));
    *command = (struct redis_command){.verb = verb, .deadline_ms = uv_now(r->loop) + (uint64_t)timeout_ms};
    if (transmit(r, command, argc, argv))
        return command;
    free(command);
    return NULL;
}

bool redis_is_usable(const struct redis *r)
{
    return r->context != NULL && (r->state == UP || (r->state == CONNECTING && r->first_attempt));
}

/* Of the words, the verb included, that which is the key. */
static int key_index(int verb)
{
    return verb == REDIS_EVAL ? 3 : 1;
}

static void keep_words(struct redis_command *command, int argc, const char **argv)
{
    for (int i = 0; i < argc; i++)
        command->argv[i] = xstrdup(argv[i]);
    command->argc = argc;
    command->give_up_ms = command->deadline_ms;
}

struct redis_command *redis_send(struct redis *r, enum redis_verb verb, const char *const words[],
                                 redis_callback *on_reply_, void *user)
{
    const char *argv[REDIS_WORDS_MAX] = {verbs[verb].word};
    int argc = 1;
    for (; words[argc - 1] != NULL && argc < REDIS_WORDS_MAX; argc++)
        argv[argc] = words[argc - 1];
    if (r->cluster != NULL)
        r = cluster_route(r->cluster, argv[key_index(verb)]);
    if (r == NULL || !redis_is_usable(r))
        return NULL;
    struct redis_command *command = send_command(r, verb, r->conf->timeout_ms, argc, argv);
    if (command == NULL)
        return NULL;
    if (r->front != NULL)
        keep_words(command, argc, argv);
    command->on_reply = on_reply_;
    command->user = user;
    command->sent_ns = uv_hrtime();
    stat_inc(verbs[verb].sent);
    return command;
}

void redis_cancel(struct redis_command **command)
{
    if (*command != NULL)
        (*command)->on_reply = NULL;
    *command = NULL;
}

bool redis_is_busy(const struct redis *r)
{
    return r->cluster != NULL ? cluster_is_busy(r->cluster) : r->commands_sent != NULL;
}

/* ---- nodes of a cluster ---- */

const struct endpoint *redis_node_server(const struct redis *node)
{
    return &node->server;
}

bool redis_node_is_missed(const struct redis *node)
{
    return node->reason[0] != '\0';
}

bool redis_node_is_busy(const struct redis *node)
{
    return node->commands_sent != NULL;
}

int redis_node_trouble(const struct redis *node)
{
    return node->trouble;
}

bool redis_node_send_question(struct redis *node)
{
    const char *words[] = {"CLUSTER", "NODES"};
    return send_command(node, SLOTS_QUESTION, CONNECT_MAX_MS, NELEMS(words), words) != NULL;
}

/* The connection has all of the time-out for its reply: a command that has little time left does not end it. */
bool redis_node_send(struct redis *node, struct redis_command *command, bool asking)
{
    const char *prefix = verbs[ASKING_PREFIX].word;
    if (!redis_is_usable(node) ||
        (asking && send_command(node, ASKING_PREFIX, node->conf->timeout_ms, 1, &prefix) == NULL))
        return false;
    command->deadline_ms = uv_now(node->loop) + (uint64_t)node->conf->timeout_ms;
    return transmit(node, command, command->argc, (const char **)command->argv);
}

void redis_command_fail(struct redis_command *command)
{
    redis_callback *on_reply_ = command->on_reply;
    stat_inc(STAT_REDIS_FAILURES);
    command->on_reply = NULL;
    command->failed = true;
    if (on_reply_ != NULL)
        on_reply_(command->user, &(struct redis_reply){.result = REDIS_UNAVAILABLE});
}

void redis_command_free(struct redis_command *command)
{
    for (int i = 0; i < command->argc; i++)
        free(command->argv[i]);
    free(command);
}

void redis_check_listener(struct redis *front)
{
    struct redis *listener = front->listener;
    if (listener == NULL || listener->context == NULL || !cluster_has_left(front->cluster, &listener->server))
        return;
    drop(listener, UNAVAILABLE, "its node is unavailable, or has no slots");
    uv_timer_start(&listener->timer, on_timer, 0, 0);
}

/* ---- connecting ---- */

/* The key never exists, because XX only replaces a value. */
static bool send_probe(struct redis *r, int64_t timeout_ms)
{
    char *key =
        r->front != NULL ? cluster_probe_key(r->front->cluster, r) : xasprintf("%s#probe", r->conf->prefix);
    bool sent = send_command(r, PROBE, timeout_ms, 4, (const char *[]){"SET", key, "1", "XX"}) != NULL;
    free(key);
    return sent;
}

static bool send_handshake(struct redis *r, int argc, const char **argv)
{
    return send_command(r, HANDSHAKE, CONNECT_MAX_MS, argc, argv) != NULL;
}

static bool ask_for_master(struct redis *r)
{
    const char *words[] = {"SENTINEL", "get-master-addr-by-name", r->conf->master_name};
    return send_command(r, QUESTION, CONNECT_MAX_MS, NELEMS(words), words) != NULL;
}

static bool shake_hands(struct redis *r)
{
    const struct conf_redis *conf = r->conf;
    char database[24];
    snprintf(database, sizeof(database), "%lld", (long long)conf->database);
    bool ok = true;
    if (conf->password.text != NULL && conf->username != NULL)
        ok = send_handshake(r, 3, (const char *[]){"AUTH", conf->username, conf->password.text});
    else if (conf->password.text != NULL)
        ok = send_handshake(r, 2, (const char *[]){"AUTH", conf->password.text});
    if (ok && conf->database != 0)
        ok = send_handshake(r, 2, (const char *[]){"SELECT", database});
    return ok && send_probe(r, CONNECT_MAX_MS);
}

/* The handshake proceeds when the loop finds the socket ready. Returns NULL, or why it has failed already. */
static const char *start_tls(struct redis *r, const char *host)
{
#if HAVE_HIREDIS_SSL
    const struct conf_tls *conf = &r->conf->tls;
    struct ssl_st *tls = tls_connect(conf->settings, conf->server_name ? conf->server_name : host);
    if (redisInitiateSSL(&r->context->c, tls) == REDIS_OK) {
        r->tls = tls;
        return NULL;
    }
    const char *reason = tls_failure(tls);
    tls_close(tls); /* not the context's in this case */
    return reason ? reason : r->context->errstr;
#else
    (void)r, (void)host;
    return "this build has no TLS"; /* the configuration has refused it */
#endif
}

/* Prepares a new context for the loop. Returns NULL, or why it cannot be used. */
static const char *prepare(struct redis *r, const char *host)
{
    redisAsyncContext *context = r->context;
    context->data = r;
    redisAsyncSetConnectCallback(context, on_connected);
    redisAsyncSetDisconnectCallback(context, on_disconnected);
    if (r->conf->socket == NULL) /* a subscribed connection would not notice that the host has vanished */
        redisEnableKeepAlive(&context->c);
    if (!link_attach(r->loop, context))
        return "its socket cannot be polled";
    return r->conf->tls.settings != NULL ? start_tls(r, host) : NULL;
}

/* Begins to connect in this state: ASKING or CONNECTING. */
static void connect_to(struct redis *r, enum redis_state state, const struct endpoint *server)
{
    const char *socket = r->conf->socket;
    redisAsyncContext *context =
        socket ? redisAsyncConnectUnix(socket) : redisAsyncConnect(server->host, server->port);
    r->state = state;
    if (context == NULL || context->err != 0) {
        go_down(r, UNAVAILABLE, context ? context->errstr : "out of memory");
        if (context != NULL)
            redisAsyncFree(context);
        return;
    }
    r->context = context;
    r->tls = NULL;
    const char *reason = prepare(r, server->host);
    if (reason != NULL)
        return drop(r, UNAVAILABLE, reason);
    if (!(state == ASKING ? ask_for_master(r) : shake_hands(r)))
        drop(r, UNAVAILABLE, "connection lost");
}

static void connect_now(struct redis *r)
{
    bool follows = r->commands != NULL && !r->announces && r->commands->state == UP;
    if (has_sentinels(r) && !follows)
        return connect_to(r, ASKING, &r->conf->endpoints[r->sentinel]);
    if (r->commands != NULL && r->commands->cluster != NULL)
        r->server = cluster_next_server(r->commands->cluster, &r->server);
    else if (r->front == NULL)
        r->server = follows ? r->commands->server : r->conf->endpoints[0];
    connect_to(r, CONNECTING, &r->server);
}

static struct redis *prepare_state(uv_loop_t *loop, struct redis facts)
{
    struct redis *r = xcalloc(1, sizeof(*r));
    bool failover = has_sentinels(&facts) || facts.conf->cluster;
    *r = facts;
    r->loop = loop;
    r->name = facts.name != NULL ? facts.name : xstrdup(r->conf->name != NULL ? r->conf->name : "");
    r->pause = (struct backoff){.first_ms = PAUSE_FIRST_MS,
                                .max_ms = failover ? PAUSE_MAX_FAILOVER_MS : PAUSE_MAX_MS};
    r->errors.again_ms = COMPLAIN_AGAIN_MS;
    for (size_t i = 0; i < REDIS_VERBS; i++)
        r->times[i] = stat_series(FAMILY_REDIS_TIME, "command", verbs[i].label);
    uv_timer_init(loop, &r->timer);
    uv_timer_init(loop, &r->probe_timer);
    r->timer.data = r->probe_timer.data = r;
    return r;
}

static struct redis *begin(uv_loop_t *loop, struct redis facts)
{
    struct redis *r = prepare_state(loop, facts);
    bool can_log_in = r->conf->password.path == NULL || r->conf->password.text != NULL;
    if (r->conf->name != NULL && can_log_in)
        connect_now(r);
    return r;
}

static struct redis *begin_cluster(uv_loop_t *loop, const struct conf_redis *conf)
{
    struct redis *front = prepare_state(loop, (struct redis){.conf = conf});
    front->cluster = cluster_new(loop, conf, front);
    cluster_start(front->cluster);
    return front;
}

struct redis *redis_new(uv_loop_t *loop, const struct conf_redis *conf)
{
    stat_set(STAT_REDIS_WANTED, conf->name != NULL);
    return conf->cluster ? begin_cluster(loop, conf)
                         : begin(loop, (struct redis){.conf = conf, .first_attempt = true});
}

struct redis *redis_node_new(uv_loop_t *loop, const struct conf_redis *conf, struct redis *front,
                             const struct endpoint *server, bool is_hidden)
{
    char text[ENDPOINT_TEXT];
    endpoint_format(server, text);
    return begin(loop, (struct redis){.conf = conf,
                                      .front = front,
                                      .server = *server,
                                      .is_hidden = is_hidden,
                                      .name = xasprintf("%s (cluster node)", text),
                                      .first_attempt = true});
}

static void on_announcement(void *ctx, const char *text)
{
    struct redis *r = ctx;
    if (text != NULL)
        renew(r->announcer, PAUSE_FIRST_MS); /* it asks for the master; a Sentinel may announce without end */
}

static struct redis *announcer_new(struct redis *commands)
{
    return begin(commands->loop, (struct redis){.conf = commands->conf,
                                                .commands = commands,
                                                .announces = true,
                                                .channel = "+switch-master",
                                                .on_message = on_announcement,
                                                .ctx = commands});
}

struct redis *redis_subscribe(struct redis *first, const char *channel, redis_message *on_message, void *ctx)
{
    if (has_sentinels(first))
        first->announcer = announcer_new(first);
    return first->listener = begin(first->loop, (struct redis){.conf = first->conf,
                                                               .commands = first,
                                                               .channel = channel,
                                                               .on_message = on_message,
                                                               .ctx = ctx});
}

static void on_timer_closed(uv_handle_t *handle)
{
    struct redis *r = handle->data;
    free(r->name);
    close_and_free((uv_handle_t *)&r->probe_timer, r);
}

void redis_free(struct redis *r)
{
    if (r == NULL)
        return;
    struct redis_command *command;
    DL_FOREACH(r->commands_sent, command)
    command->on_reply = NULL;
    r->freed = true;
    uv_timer_stop(&r->probe_timer); /* it is closed only after the other timer */
    redis_free(r->announcer);
    if (r->commands != NULL && !r->announces)
        r->commands->listener = NULL;
    cluster_free(r->cluster);
    redisAsyncContext *context = r->context;
    r->context = NULL;
    if (context != NULL)
        redisAsyncFree(context);
    uv_close((uv_handle_t *)&r->timer, on_timer_closed);
}

void redis_node_free(struct redis *node)
{
    set_trouble(node, NO_TROUBLE);
    if (node->state == UP)
        set_up(node, 0);
    redis_free(node);
}
