/* status_server: see status_server.h. */
#include "server/status_server.h"

#include <stdlib.h>
#include <string.h>

#include "lib/stats.h"
#include "net/fcgi.h"
#include "request/answer.h"
#include "server/metrics.h"
#include "server/status_page.h"

enum { CONNECTIONS_MAX = 256, TEXT_MAX = 1024 * 1024 };

struct status_server {
    uv_loop_t *loop;               /* (ref) */
    struct sockets *sockets;       /* (ref) */
    const struct workers *workers; /* (ref) */
    const struct conf *conf;       /* (ref) the configuration in force */
    uint64_t started_ms;           /* loop time */
    char *path;
    struct fcgi_server *server;
};

/* ---- pages: each writes its text to `out` and returns the HTTP status ---- */

static int print_health(const struct status *status, bool as_text, struct buf *out)
{
    (void)as_text;
    buf_addf(out, "{\"status\":\"alive\",\"uptime_s\":%lld}\n", (long long)(status->uptime_ms / 1000));
    return 200;
}

static int print_readiness(const struct status *status, bool as_text, struct buf *out)
{
    (void)as_text;
    int ready = workers_ready(status->workers);
    struct shm_counters *total = xcalloc(1, sizeof(*total));
    stats_sum(total);
    struct json_object *problems = status_problems(status, total);
    bool degraded = json_object_array_length(problems) > 0;
    buf_addf(out, "{\"status\":\"%s\",\"workers\":%d,\"workers_ready\":%d,\"workers_hung\":%d,\"why\":%s}\n",
             ready == 0 ? "not ready"
             : degraded ? "degraded"
                        : "ready",
             (int)status->conf->workers, ready, workers_hung(status->workers),
             json_object_to_json_string_ext(problems, JSON_C_TO_STRING_NOSLASHESCAPE));
    json_object_put(problems);
    free(total);
    return ready > 0 ? 200 : 503;
}

static int print_metrics(const struct status *status, bool as_text, struct buf *out)
{
    (void)status, (void)as_text;
    metrics_print(out);
    return 200;
}

static int print_status(const struct status *status, bool as_text, struct buf *out)
{
    status_page_print(status, as_text, out);
    return 200;
}

struct page {
    const char *path;
    int (*print)(const struct status *status, bool as_text, struct buf *out);
    const char *type; /* of the content */
    bool has_text;    /* also available as plain text */
};

static const struct page pages[] = {{"/healthz", print_health, "application/json", false},
                                    {"/readyz", print_readiness, "application/json", false},
                                    {"/metrics", print_metrics, "text/plain; version=0.0.4", false},
                                    {"/status", print_status, "application/json", true}};

static const struct page *find_page(const char *uri)
{
    if (uri == NULL)
        return NULL;
    size_t len = strcspn(uri, "?");
    for (size_t i = 0; i < NELEMS(pages); i++) {
        if (strlen(pages[i].path) == len && memcmp(pages[i].path, uri, len) == 0)
            return &pages[i];
    }
    return NULL;
}

/* ---- requests ---- */

static bool wants_text(const struct fcgi_request *client, const char *uri)
{
    char format[16] = "";
    const char *query = strchr(uri, '?'), *accept = fcgi_param(client, "HTTP_ACCEPT");
    if (query != NULL && query_value(query + 1, "format", format, sizeof(format)))
        return strcmp(format, "text") == 0;
    return accept != NULL && strncmp(accept, "text/plain", strlen("text/plain")) == 0;
}

/* `text` holds the body until the answer is sent. */
static void answer_page(const struct status_server *server, const struct page *page, bool as_text,
                        const struct answer_facts *facts, struct buf *text, struct answer *answer)
{
    const struct status status = {.conf = server->conf,
                                  .workers = server->workers,
                                  .uptime_ms = (int64_t)(uv_now(server->loop) - server->started_ms)};
    int code = page->print(&status, as_text, text);
    answer_text(answer, facts, code, as_text ? "text/plain; charset=utf-8" : page->type, text);
}

static void on_request(void *ctx, struct fcgi_request *client)
{
    const char *uri = fcgi_param(client, "REQUEST_URI"), *method = fcgi_param(client, "REQUEST_METHOD");
    const struct page *page = find_page(uri);
    char id[ANSWER_ID_SIZE];
    struct answer_facts facts = {.request_id = id, .source = SOURCE_NONE};
    struct answer answer;
    struct buf text;
    buf_init(&text, TEXT_MAX);
    answer_id(fcgi_param(client, "REQUEST_ID"), id);
    facts.head_only = method != NULL && strcmp(method, "HEAD") == 0;
    if (page == NULL)
        facts.problem = PROBLEM_NOT_FOUND;
    else if (method == NULL || (!facts.head_only && strcmp(method, "GET") != 0))
        facts.problem = PROBLEM_METHOD;
    if (facts.problem != PROBLEM_NONE)
        answer_problem(&answer, &facts);
    else
        answer_page(ctx, page, page->has_text && wants_text(client, uri), &facts, &text, &answer);
    fcgi_send(client, answer.head.data, answer.head.len, answer.body, answer.body_len);
    answer_done(&answer);
    buf_done(&text);
}

/* ---- the server ---- */

static void on_drained(void *ctx)
{
    (void)ctx;
}

struct status_server *status_server_open(uv_loop_t *loop, struct sockets *sockets,
                                         const struct workers *workers, const struct conf *conf,
                                         char **ret_error)
{
    char *path = xasprintf("%s/status.sock", conf->socket_dir);
    int fd = sockets_listen(sockets, path, conf->socket_group, ret_error);
    if (fd < 0) {
        free(path);
        return NULL;
    }
    struct status_server *server = xcalloc(1, sizeof(*server));
    *server = (struct status_server){.loop = loop,
                                     .sockets = sockets,
                                     .workers = workers,
                                     .conf = conf,
                                     .started_ms = uv_now(loop),
                                     .path = path};
    server->server = fcgi_listen(
        loop, fd, CONNECTIONS_MAX,
        (struct fcgi_handlers){.on_request = on_request, .on_drained = on_drained, .ctx = server});
    return server;
}

void status_server_set_conf(struct status_server *server, const struct conf *conf)
{
    server->conf = conf;
}

void status_server_close(struct status_server *server)
{
    if (server == NULL)
        return;
    sockets_remove(server->sockets, server->path);
    fcgi_free(server->server);
    free(server->path);
    free(server);
}
