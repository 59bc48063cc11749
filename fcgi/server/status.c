/* status: see status.h. */
#include "server/status.h"

#include <stdlib.h>
#include <string.h>

#include "request/answer.h"
#include "server/metrics.h"
#include "server/status_page.h"
#include "lib/stats.h"

enum { TEXT_MAX = 1024 * 1024 };

/* A page that is asked for, and what comes of it. */
struct view {
    const struct health *health; /* (ref) */
    bool text;                   /* plain text is wanted, where there is a choice */
    const char *type;            /* of the content */
    struct buf *out;
};

static int write_health(struct view *view)
{
    buf_addf(view->out, "{\"status\":\"alive\",\"uptime_s\":%lld}\n",
             (long long)(view->health->uptime_ms / 1000));
    return 200;
}

static void add_trouble(void *ctx, const char *trouble)
{
    struct buf *list = ctx;
    if (list->len > 0)
        buf_putc(list, ',');
    buf_add_json_string(list, trouble, strlen(trouble));
}

static int write_readiness(struct view *view)
{
    const struct health *health = view->health;
    bool ready = health->workers_ready > 0;
    struct shm_counters *total = xcalloc(1, sizeof(*total));
    struct buf troubles;
    buf_init(&troubles, TEXT_MAX);
    stats_sum(total);
    bool degraded = health_troubles(health, total, add_trouble, &troubles) > 0;
    buf_addf(view->out,
             "{\"status\":\"%s\",\"workers\":%d,\"workers_ready\":%d,\"workers_hung\":%d,\"why\":[",
             !ready     ? "not ready"
             : degraded ? "degraded"
                        : "ready",
             (int)health->conf->workers, health->workers_ready, health->workers_hung);
    buf_puts(view->out, troubles.len > 0 ? troubles.data : "");
    buf_puts(view->out, "]}\n");
    buf_done(&troubles);
    free(total);
    return ready ? 200 : 503;
}

static int write_metrics(struct view *view)
{
    metrics_print(view->out);
    return 200;
}

static int write_overview(struct view *view)
{
    status_page_print(view->health, view->text, view->out);
    if (view->text)
        view->type = "text/plain; charset=utf-8";
    return 200;
}

struct page {
    const char *path;
    const char *type;
    int (*write)(struct view *view); /* returns the HTTP status */
};

static const struct page pages[] = {{"/healthz", "application/json", write_health},
                                    {"/readyz", "application/json", write_readiness},
                                    {"/metrics", "text/plain; version=0.0.4", write_metrics},
                                    {"/status", "application/json", write_overview}};

static bool wants_text(const struct fcgi_request *client, const char *uri)
{
    char format[16] = "";
    const char *query = strchr(uri, '?'), *accept = fcgi_param(client, "HTTP_ACCEPT");
    if (query != NULL && query_value(query + 1, "format", format, sizeof(format)))
        return strcmp(format, "text") == 0;
    return accept != NULL && strncmp(accept, "text/plain", strlen("text/plain")) == 0;
}

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

void status_serve(const struct health *health, struct fcgi_request *client)
{
    const struct page *page = find_page(fcgi_param(client, "REQUEST_URI"));
    const char *method = fcgi_param(client, "REQUEST_METHOD");
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
    if (facts.problem != PROBLEM_NONE) {
        answer_problem(&answer, &facts);
    } else {
        struct view view = {.health = health,
                            .text = wants_text(client, fcgi_param(client, "REQUEST_URI")),
                            .type = page->type,
                            .out = &text};
        int status = page->write(&view);
        answer_text(&answer, &facts, status, view.type, &text);
    }
    fcgi_send(client, answer.head.data, answer.head.len, answer.body, answer.body_len);
    answer_done(&answer);
    buf_done(&text);
}
