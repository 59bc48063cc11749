/* status: see status.h. */
#include "status.h"

#include <string.h>

#include "answer.h"
#include "metrics.h"

enum { TEXT_MAX = 1024 * 1024 };

static int write_health(struct buf *out, const struct health *health)
{
    (void)health;
    buf_puts(out, "{\"status\":\"alive\"}\n");
    return 200;
}

static int write_readiness(struct buf *out, const struct health *health)
{
    bool ready = health->workers_ready > 0;
    buf_addf(out, "{\"status\":\"%s\",\"workers\":%d,\"workers_ready\":%d,\"workers_hung\":%d}\n",
             ready ? "ready" : "not ready", health->workers, health->workers_ready, health->workers_hung);
    return ready ? 200 : 503;
}

static int write_metrics(struct buf *out, const struct health *health)
{
    (void)health;
    metrics_print(out);
    return 200;
}

struct page {
    const char *path;
    const char *type;
    int (*write)(struct buf *out, const struct health *health); /* returns the HTTP status */
};

static const struct page pages[] = {{"/healthz", "application/json", write_health},
                                    {"/readyz", "application/json", write_readiness},
                                    {"/metrics", "text/plain; version=0.0.4", write_metrics}};

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
        int status = page->write(&text, health);
        answer_text(&answer, &facts, status, page->type, &text);
    }
    fcgi_send(client, answer.head.data, answer.head.len, answer.body, answer.body_len);
    answer_done(&answer);
    buf_done(&text);
}
