/* redis: see redis.h.
 *
 *     DOWN --pause over--> CONNECTING (AUTH, SELECT, PING) --PONG--> UP --error, time-out--> DOWN
 *
 * hiredis 0.14 knows neither time-outs nor, in its adapter for libuv, refused connections: the adapter
 * (struct link) and the deadlines are here. */
#include "redis.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <hiredis/async.h>
#include <hiredis/hiredis.h>
#include <utlist.h>

#include "stats.h"

enum { CONNECT_MAX_MS = 1000, PAUSE_FIRST_MS = 100, PAUSE_LAST_MS = 5000 };

enum redis_state { DOWN, CONNECTING, UP };

/* The adapter between one hiredis context and the loop. */
struct link {
    uv_poll_t poll;
    redisAsyncContext *context; /* (ref) NULL once hiredis has let go */
    int events;
};

/* What a command is, for its reply. */
enum command_kind { HANDSHAKE, GET, SET };

struct redis_command {
    struct redis *redis; /* (ref) */
    struct redis_command *prev, *next;
    enum command_kind kind;
    uint64_t deadline_ms;     /* loop time */
    redis_callback *on_reply; /* NULL: nobody waits, or cancelled */
    void *user;
};

struct redis {
    uv_loop_t *loop;               /* (ref) */
    const struct conf_redis *conf; /* (ref) */
    enum redis_state state;
    redisAsyncContext *context;     /* NULL while DOWN */
    struct redis_command *commands; /* sent, in the order of their replies */
    bool first_attempt;             /* commands may wait for the very first connection */
    uint64_t pause_ms;
    char reason[128];      /* why it is away, as logged; "" while all is well */
    char latest[128];      /* why the last attempt failed */
    char complaint[2][32]; /* by command_kind - GET: the first word of the error that was logged */
    bool late;             /* a deadline is over, and the socket gets a last look */
    bool freed;
    uv_timer_t timer; /* DOWN: the pause; else the deadline of the first command */
};

static void connect_now(struct redis *r);
static void set_timer(struct redis *r);

/* ---- the adapter ---- */

static void on_link_closed(uv_handle_t *handle)
{
    free(handle->data);
}

static void on_link_ready(uv_poll_t *poll, int status, int events)
{
    struct link *link = poll->data;
    if (status < 0) { /* libuv has stopped the handle: hiredis learns why from the socket */
        redisAsyncHandleRead(link->context);
        return;
    }
    if (link->context != NULL && (events & UV_READABLE))
        redisAsyncHandleRead(link->context);
    if (link->context != NULL && (events & UV_WRITABLE))
        redisAsyncHandleWrite(link->context);
}

static void link_change(struct link *link, int add, int remove)
{
    int events = (link->events | add) & ~remove;
    if (events == link->events)
        return;
    link->events = events;
    if (events == 0)
        uv_poll_stop(&link->poll);
    else
        uv_poll_start(&link->poll, events, on_link_ready);
}

static void link_add_read(void *data)
{
    link_change(data, UV_READABLE, 0);
}

static void link_del_read(void *data)
{
    link_change(data, 0, UV_READABLE);
}

static void link_add_write(void *data)
{
    link_change(data, UV_WRITABLE, 0);
}

static void link_del_write(void *data)
{
    link_change(data, 0, UV_WRITABLE);
}

/* Called by hiredis before it closes the socket. */
static void link_cleanup(void *data)
{
    struct link *link = data;
    link->context = NULL;
    uv_poll_stop(&link->poll);
    uv_close((uv_handle_t *)&link->poll, on_link_closed);
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
    context->ev.addRead = link_add_read;
    context->ev.delRead = link_del_read;
    context->ev.addWrite = link_add_write;
    context->ev.delWrite = link_del_write;
    context->ev.cleanup = link_cleanup;
    return true;
}

/* ---- the state ---- */

static void on_timer(uv_timer_t *timer);

/* The connection is gone already. Logs a reason that is new, and tries again after a pause. */
static void go_down(struct redis *r, const char *reason)
{
    if (r->freed)
        return;
    if (r->state == UP)
        stat_set(STAT_REDIS_UP, 0);
    r->state = DOWN;
    r->first_attempt = false;
    /* Another reason is news when it comes twice: a Redis that is just starting has several for a moment. */
    bool news = r->reason[0] == '\0' || strcmp(reason, r->latest) == 0;
    snprintf(r->latest, sizeof(r->latest), "%s", reason);
    if (news && strcmp(reason, r->reason) != 0) {
        log_warn("Redis at %s is away: %s; going on without it", r->conf->address, reason);
        snprintf(r->reason, sizeof(r->reason), "%s", reason);
    }
    uv_timer_start(&r->timer, on_timer, r->pause_ms, 0);
    r->pause_ms = r->pause_ms * 2 < PAUSE_LAST_MS ? r->pause_ms * 2 : PAUSE_LAST_MS;
}

static void go_up(struct redis *r)
{
    r->state = UP;
    r->pause_ms = PAUSE_FIRST_MS;
    r->complaint[0][0] = r->complaint[1][0] = '\0';
    stat_set(STAT_REDIS_UP, 1);
    if (r->reason[0] != '\0')
        log_info("Redis at %s is back", r->conf->address);
    r->reason[0] = '\0';
}

/* Drops the connection; every command that was sent is answered with "away". */
static void drop(struct redis *r, const char *reason)
{
    redisAsyncContext *context = r->context;
    r->context = NULL;
    go_down(r, reason);
    if (context != NULL)
        redisAsyncFree(context);
}

/* Replies come in the order of the commands, and so do deadlines, but for commands that wait behind the
 * handshake of the very first connection. */
static uint64_t earliest_deadline(const struct redis *r)
{
    uint64_t earliest = r->commands->deadline_ms;
    const struct redis_command *command;
    if (r->state == CONNECTING) {
        DL_FOREACH(r->commands, command)
        earliest = command->deadline_ms < earliest ? command->deadline_ms : earliest;
    }
    return earliest;
}

static void set_timer(struct redis *r)
{
    if (r->state == DOWN)
        return;
    uint64_t now = uv_now(r->loop), deadline = r->commands ? earliest_deadline(r) : 0;
    if (r->commands == NULL)
        uv_timer_stop(&r->timer);
    else
        uv_timer_start(&r->timer, on_timer, deadline > now ? deadline - now : 0, 0);
}

/* Timers run before sockets are looked at: where it was we who stood still, the answer may be there already.
 */
static void look_once_more(struct redis *r)
{
    r->late = true;
    uv_timer_start(&r->timer, on_timer, 0, 0);
}

static void on_timer(uv_timer_t *timer)
{
    struct redis *r = timer->data;
    if (r->state == DOWN)
        connect_now(r);
    else if (r->commands == NULL || uv_now(r->loop) < earliest_deadline(r))
        set_timer(r);
    else if (r->late)
        drop(r, "it does not answer in time");
    else
        look_once_more(r);
}

static void on_connected(const redisAsyncContext *context, int status)
{
    struct redis *r = context->data;
    if (status == REDIS_OK || r->context != context)
        return; /* up only after PONG */
    char reason[128];
    snprintf(reason, sizeof(reason), "%s", context->errstr);
    r->context = NULL; /* hiredis frees it itself */
    go_down(r, reason);
}

static void on_disconnected(const redisAsyncContext *context, int status)
{
    struct redis *r = context->data;
    if (r->context != context)
        return; /* dropped by us */
    char reason[128];
    snprintf(reason, sizeof(reason), "%s", status == REDIS_OK ? "closed" : context->errstr);
    r->context = NULL;
    go_down(r, reason);
}

/* ---- commands and replies ---- */

static void complain(struct redis *r, enum command_kind kind, const char *error)
{
    char *said = r->complaint[kind - GET], word[sizeof(r->complaint[0])];
    snprintf(word, sizeof(word), "%.*s", (int)strcspn(error, " "), error);
    if (strcmp(word, said) == 0)
        return;
    strcpy(said, word);
    log_warn("Redis at %s refused a %s (%s); going on without it", r->conf->address,
             kind == GET ? "GET" : "SET", word);
}

static void end_handshake_step(struct redis *r, const redisReply *reply)
{
    if (reply == NULL)
        return; /* on_connected or on_disconnected says why */
    if (reply->type == REDIS_REPLY_ERROR) {
        char reason[128];
        /* Redis' words, but not past the first: an AUTH error might repeat what was sent. */
        snprintf(reason, sizeof(reason), "it refused the connection (%.*s)", (int)strcspn(reply->str, " "),
                 reply->str);
        drop(r, reason);
    } else if (reply->type == REDIS_REPLY_STATUS && strcmp(reply->str, "PONG") == 0) {
        go_up(r);
    }
}

static enum redis_result judge(struct redis *r, enum command_kind kind, const redisReply *reply)
{
    if (reply != NULL && reply->type == REDIS_REPLY_STRING)
        return REDIS_FOUND;
    if (reply != NULL && (reply->type == REDIS_REPLY_NIL || reply->type == REDIS_REPLY_STATUS))
        return REDIS_NOTHING;
    stat_inc(STAT_REDIS_FAILURES);
    if (reply != NULL && !r->freed)
        complain(r, kind, reply->type == REDIS_REPLY_ERROR ? reply->str : "UNEXPECTED");
    return REDIS_AWAY;
}

static void on_reply(redisAsyncContext *context, void *reply_, void *data)
{
    (void)context;
    const redisReply *reply = reply_;
    struct redis_command *command = data;
    struct redis *r = command->redis;
    DL_DELETE(r->commands, command);
    r->late = false;
    if (!r->freed)
        set_timer(r);
    if (command->kind == HANDSHAKE) {
        end_handshake_step(r, reply);
    } else {
        struct redis_reply result = {.result = judge(r, command->kind, reply)};
        if (command->kind == SET && result.result == REDIS_NOTHING)
            r->complaint[SET - GET][0] = '\0';
        if (result.result == REDIS_FOUND) {
            result.value = reply->str;
            result.len = (size_t)reply->len;
        }
        if (command->on_reply != NULL)
            command->on_reply(command->user, &result);
    }
    free(command);
}

static struct redis_command *send_command(struct redis *r, enum command_kind kind, int64_t timeout_ms,
                                          int argc, const char **argv, const size_t *lens)
{
    struct redis_command *command = xcalloc(1, sizeof(*command));
    *command = (struct redis_command){
        .redis = r, .kind = kind, .deadline_ms = uv_now(r->loop) + (uint64_t)timeout_ms};
    if (redisAsyncCommandArgv(r->context, on_reply, command, argc, argv, lens) != REDIS_OK) {
        free(command);
        return NULL;
    }
    DL_APPEND(r->commands, command);
    set_timer(r);
    return command;
}

static bool is_usable(const struct redis *r)
{
    return r->context != NULL && (r->state == UP || (r->state == CONNECTING && r->first_attempt));
}

struct redis_command *redis_get(struct redis *r, const char *key, redis_callback *on_reply_, void *user)
{
    if (!is_usable(r))
        return NULL;
    const char *argv[] = {"GET", key};
    const size_t lens[] = {3, strlen(key)};
    struct redis_command *command = send_command(r, GET, r->conf->timeout_ms, 2, argv, lens);
    if (command == NULL)
        return NULL;
    command->on_reply = on_reply_;
    command->user = user;
    stat_inc(STAT_REDIS_GETS);
    return command;
}

void redis_cancel(struct redis_command *command)
{
    command->on_reply = NULL;
}

void redis_set(struct redis *r, const char *key, const char *value, size_t len, int64_t ttl_ms)
{
    if (!is_usable(r))
        return;
    char ttl[24];
    snprintf(ttl, sizeof(ttl), "%lld", (long long)ttl_ms);
    const char *argv[] = {"SET", key, value, "PX", ttl};
    const size_t lens[] = {3, strlen(key), len, 2, strlen(ttl)};
    if (send_command(r, SET, r->conf->timeout_ms, 5, argv, lens) != NULL)
        stat_inc(STAT_REDIS_SETS);
}

bool redis_is_busy(const struct redis *r)
{
    return r->commands != NULL;
}

/* ---- connecting ---- */

static bool send_handshake(struct redis *r, int argc, const char **argv)
{
    size_t lens[3];
    for (int i = 0; i < argc; i++)
        lens[i] = strlen(argv[i]);
    return send_command(r, HANDSHAKE, CONNECT_MAX_MS, argc, argv, lens) != NULL;
}

static bool shake_hands(struct redis *r)
{
    const struct conf_redis *conf = r->conf;
    char database[24];
    snprintf(database, sizeof(database), "%lld", (long long)conf->database);
    bool ok = true;
    if (conf->password != NULL && conf->username != NULL)
        ok = send_handshake(r, 3, (const char *[]){"AUTH", conf->username, conf->password});
    else if (conf->password != NULL)
        ok = send_handshake(r, 2, (const char *[]){"AUTH", conf->password});
    if (ok && conf->database != 0)
        ok = send_handshake(r, 2, (const char *[]){"SELECT", database});
    return ok && send_handshake(r, 1, (const char *[]){"PING"});
}

static void connect_now(struct redis *r)
{
    const struct conf_redis *conf = r->conf;
    redisAsyncContext *context =
        conf->socket ? redisAsyncConnectUnix(conf->socket) : redisAsyncConnect(conf->host, conf->port);
    if (context == NULL || context->err != 0) {
        char reason[128];
        snprintf(reason, sizeof(reason), "%s", context ? context->errstr : "out of memory");
        if (context != NULL)
            redisAsyncFree(context);
        return go_down(r, reason);
    }
    context->data = r;
    r->context = context;
    r->state = CONNECTING;
    if (!link_attach(r->loop, context))
        return drop(r, "its socket cannot be watched");
    redisAsyncSetConnectCallback(context, on_connected);
    redisAsyncSetDisconnectCallback(context, on_disconnected);
    if (!shake_hands(r))
        drop(r, "the connection broke");
}

struct redis *redis_new(uv_loop_t *loop, const struct conf_redis *conf)
{
    struct redis *r = xcalloc(1, sizeof(*r));
    *r = (struct redis){.loop = loop, .conf = conf, .first_attempt = true, .pause_ms = PAUSE_FIRST_MS};
    uv_timer_init(loop, &r->timer);
    r->timer.data = r;
    if (conf->address != NULL)
        connect_now(r);
    return r;
}

static void on_timer_closed(uv_handle_t *handle)
{
    free(handle->data);
}

void redis_free(struct redis *r)
{
    if (r == NULL)
        return;
    struct redis_command *command;
    DL_FOREACH(r->commands, command)
    redis_cancel(command);
    r->freed = true;
    redisAsyncContext *context = r->context;
    r->context = NULL;
    if (context != NULL)
        redisAsyncFree(context);
    uv_close((uv_handle_t *)&r->timer, on_timer_closed);
}
