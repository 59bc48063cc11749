/* status_server: see status_server.h. */
#include "server/status_server.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lib/descriptors.h"
#include "lib/log.h"
#include "lib/stats.h"
#include "net/fcgi.h"
#include "request/answer.h"
#include "server/sandbox.h"
#include "server/status_page.h"
#include "server/worker.h"

enum { CONNECTIONS_MAX = 256 };

struct status_server {
    uv_loop_t loop;
    struct fcgi_server *server;
    uv_signal_t terminate;
    uv_poll_t control; /* the end of the control connection */
    uv_timer_t beat;   /* the next heartbeat */
};

/* ---- requests ---- */

/* Blocks until the master answers. It sends one page at a time, so this delays no other request. */
static int ask(int page, struct buf *text)
{
    const char question[] = {WORKER_PAGE, (char)page};
    struct pollfd answer = {.fd = WORKER_FD_CONTROL, .events = POLLIN};
    if (send(WORKER_FD_CONTROL, question, sizeof(question), MSG_NOSIGNAL) < 0)
        return -1;
    while (poll(&answer, 1, -1) < 0 && errno == EINTR)
        ;
    return status_page_receive(WORKER_FD_CONTROL, text);
}

static void on_request(void *ctx, struct fcgi_request *client)
{
    (void)ctx;
    const char *method = fcgi_param(client, "REQUEST_METHOD");
    char id[ANSWER_ID_SIZE];
    struct answer_facts facts = {.request_id = id, .source = SOURCE_NONE};
    struct answer answer;
    struct buf text;
    int page = status_page_find(fcgi_param(client, "REQUEST_URI")), code = 0;
    buf_init(&text, STATUS_PAGE_MAX);
    answer_id(fcgi_param(client, "REQUEST_ID"), id);
    facts.head_only = method != NULL && strcmp(method, "HEAD") == 0;
    if (page < 0)
        facts.problem = PROBLEM_NOT_FOUND;
    else if (method == NULL || (!facts.head_only && strcmp(method, "GET") != 0))
        facts.problem = PROBLEM_METHOD;
    else if ((code = ask(page, &text)) < 0)
        facts.problem = PROBLEM_OVERLOADED;
    if (facts.problem != PROBLEM_NONE)
        answer_problem(&answer, &facts);
    else
        answer_text(&answer, &facts, code, status_page_type(page), &text);
    fcgi_send(client, answer.head.data, answer.head.len, &answer.body);
    answer_done(&answer);
    buf_done(&text);
}

/* ---- the end ---- */

static void on_drained(void *ctx)
{
    struct status_server *s = ctx;
    uv_stop(&s->loop);
}

static void on_terminate(uv_signal_t *signal, int number)
{
    (void)number;
    fcgi_drain(CONTAINER_OF(signal, struct status_server, terminate)->server);
}

/* The master has exited, or is about to. */
static void on_control_closed(uv_poll_t *poll, int status, int events)
{
    (void)status, (void)events;
    uv_stop(poll->loop);
}

/* ---- the process ---- */

static void on_beat(uv_timer_t *timer)
{
    (void)timer;
    stats_beat();
    descriptors_tick();
    log_tick();
}

static void listen_and_watch(struct status_server *s)
{
    signal(SIGPIPE, SIG_IGN);
    signal(SIGINT, SIG_IGN); /* a terminal sends it to the whole group */
    signal(SIGHUP, SIG_IGN);
    uv_loop_init(&s->loop);
    uv_signal_init(&s->loop, &s->terminate);
    uv_poll_init(&s->loop, &s->control, WORKER_FD_CONTROL);
    uv_timer_init(&s->loop, &s->beat);
    uv_signal_start(&s->terminate, on_terminate, SIGTERM); /* before fcgi_listen: see fcgi.h */
    s->server =
        fcgi_listen(&s->loop, WORKER_FD_LISTEN, CONNECTIONS_MAX,
                    (struct fcgi_handlers){.on_request = on_request, .on_drained = on_drained, .ctx = s});
    uv_poll_start(&s->control, UV_DISCONNECT, on_control_closed);
    uv_timer_start(&s->beat, on_beat, WORKER_BEAT_MS, WORKER_BEAT_MS);
}

/* Returns the exit status. */
static int run(struct status_server *s)
{
    uv_run(&s->loop, UV_RUN_DEFAULT);
    fcgi_free(s->server);
    uv_close((uv_handle_t *)&s->terminate, NULL);
    uv_close((uv_handle_t *)&s->control, NULL);
    uv_close((uv_handle_t *)&s->beat, NULL);
    uv_run(&s->loop, UV_RUN_DEFAULT); /* the closing callbacks */
    if (uv_loop_close(&s->loop) != 0)
        abort(); /* a handle was not closed */
    log_finish();
    return EXIT_SUCCESS;
}

int status_server_main(char **args)
{
    struct status_server server;
    log_setup((enum log_level)atoi(args[2]), (enum log_format)atoi(args[3]), "status server");
    char *error = stats_attach(WORKER_FD_STATS, atoi(args[0])) < 0
                      ? xstrdup("cannot map the page of counters")
                      : sandbox_become(args[1]);
    if (error != NULL) {
        log_error("%s", error);
        free(error);
        return EXIT_FAILURE;
    }
    close(WORKER_FD_STATS);
    sandbox_protect_process();
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    listen_and_watch(&server);
    if (atoi(args[4]) == SANDBOX_ON)
        sandbox_enter();
    worker_report_ready();
    return run(&server);
}
