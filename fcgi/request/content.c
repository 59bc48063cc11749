/* content: see content.h. */
#include "request/content.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "lib/json.h"
#include "upstream/view.h"

enum { VIEW_DEPTH = 8, URL_MAX = 8192, LINES_MAX = URL_MAX + 4096, RETRY_MS = 1000 };

/* ---- URLs, which come from the upstream ---- */

/* Percent-encodes unusual characters, as browsers do, and accepts only http and https: the URL of an upstream can neither
 * add a header line nor run a script. */
static bool write_url(const char *url, struct buf *out)
{
    static const char allowed[] = "!#$%&'()*+,-./:;=?@[]_~";
    if (strncasecmp(url, "https://", 8) != 0 && strncasecmp(url, "http://", 7) != 0)
        return false;
    for (const unsigned char *c = (const unsigned char *)url; *c != '\0'; c++) {
        bool plain = (*c >= '0' && *c <= '9') || (*c >= 'A' && *c <= 'Z') || (*c >= 'a' && *c <= 'z');
        buf_addf(out, plain || strchr(allowed, *c) != NULL ? "%c" : "%%%02X", *c);
    }
    return !out->failed;
}

/* The expiry in the URL, in seconds since 1970; if it has none, that of the task's results. 0: unknown. */
static int64_t expiry_of(const char *url, const struct snapshot *s)
{
    int64_t at = url_expiry(url);
    return at != 0 ? at : s->urls_expire_at;
}

/* ---- the result ---- */

/* The row of the unified view; NULL if there is none. The caller frees *ret_doc. */
static struct json_object *find_row(const struct snapshot *s, size_t n, struct json_object **ret_doc)
{
    const struct view_bytes *view = snapshot_view(s, VIEW_KEYED);
    struct json_error error;
    struct json_object *row = NULL;
    *ret_doc = json_read(view->data, view->len, VIEW_DEPTH, JSON_PLAIN, &error);
    json_pointer_getf(*ret_doc, &row, "/results/%zu", n);
    return row;
}

static enum problem problem_of(const struct answer_facts *facts, const struct snapshot *s, const char *url,
                               bool keyed)
{
    if (url == NULL)
        return PROBLEM_NO_RESULT;
    int64_t expiry = expiry_of(url, s);
    if (expiry != 0 && expiry * 1000 <= facts->now.date_ms)
        return facts->source == SOURCE_STALE ? facts->problem : PROBLEM_CONTENT_EXPIRED;
    return keyed && !facts->offload ? PROBLEM_NOT_OFFLOADED : PROBLEM_NONE;
}

static void refuse(struct answer *a, const struct answer_facts *facts, enum problem problem,
                   int64_t retry_after_ms)
{
    struct answer_facts refusal = *facts;
    refusal.problem = problem;
    refusal.retry_after_ms = retry_after_ms;
    answer_problem(a, &refusal);
}

/* The key that the task was queried with, or the first if that was removed. */
static const char *key_of(const struct conf_upstream *upstream, const struct snapshot *s)
{
    char mark[KEY_MARK_SIZE];
    for (size_t i = 0; i < upstream->keys.n; i++) {
        key_mark(conf_keys(upstream)[i].text, mark);
        if (strcmp(mark, s->key) == 0)
            return conf_keys(upstream)[i].text;
    }
    return conf_keys(upstream)[0].text;
}

/* A stored snapshot may be older than the configuration. */
static bool takes_key(const struct conf_route *route, const char *url)
{
    const struct list *results = &route->provider->unified.results;
    for (size_t i = 0; i < results->n; i++) {
        if (result_takes_key((struct result_field *)results->items + i, route->upstream->base_url, url))
            return true;
    }
    return false;
}

/* Lines that only nginx sees: the parts of the URL, and the header with the key. */
static void write_offload(const struct conf_route *route, const char *key, int64_t now_s, const char *url,
                          struct buf *lines)
{
    const struct provider_auth *auth = &route->provider->auth;
    struct jwt jwt = {0};
    struct buf header;
    const char *host = strstr(url, "://") + 3, *target = host + strcspn(host, "/?#");
    char *name = xasprintf("X-Taskproxy-Key-%s", auth->header);
    buf_init_secret(&header, HEADERS_MAX);
    headers_add_template(&header, name, auth->value, key, &jwt, now_s);
    buf_puts(lines, "X-Accel-Redirect: @taskproxy_content\r\nCache-Control: private, no-cache\r\n");
    buf_puts(lines, "Content-Type: application/octet-stream\r\n");
    buf_addf(lines, "X-Taskproxy-Scheme: %.*s\r\nX-Taskproxy-Host: %.*s\r\nX-Taskproxy-Target: ",
             (int)(host - url - 3), url, (int)(target - host), host);
    route_origin_name(url, lines);
    buf_addf(lines, "%s%.*s\r\n", *target == '/' ? "" : "/", (int)strcspn(target, "#"), target);
    if (header.len > 0) {
        buf_puts(lines, header.data);
        buf_puts(lines, "\r\n");
    }
    buf_done_secret(&header);
    jwt_done(&jwt);
    free(name);
}

/* Clients may keep it until the URL expires. The URL's host does not learn where the request came from: the query of a
 * signed link would be in the Referer. */
static void write_redirect(struct moment now, const struct snapshot *s, int64_t expiry, const char *url,
                           struct buf *lines)
{
    int64_t left_ms = expiry != 0 ? expiry * 1000 - now.date_ms : snapshot_left_ms(s, now);
    buf_addf(lines,
             "Location: %s\r\nCache-Control: private, max-age=%lld\r\nReferrer-Policy: no-referrer\r\n", url,
             (long long)seconds_down(left_ms));
}

static void answer_row(struct answer *a, const struct answer_facts *facts, const struct snapshot *s,
                       const struct conf_route *route, struct json_object *row)
{
    struct json_object *member = NULL;
    const char *text = json_object_object_get_ex(row, "url", &member) ? json_text(member) : NULL;
    bool keyed = json_object_object_get_ex(row, "needs_key", NULL);
    enum problem problem = problem_of(facts, s, text, keyed);
    struct buf url, lines;
    buf_init(&url, URL_MAX);
    buf_init_secret(&lines, LINES_MAX);
    if (problem == PROBLEM_NONE && (!write_url(text, &url) || (keyed && !takes_key(route, url.data))))
        problem = PROBLEM_UPSTREAM_INVALID;
    if (problem == PROBLEM_NONE && keyed)
        write_offload(route, key_of(route->upstream, s), facts->now.date_ms / 1000, url.data, &lines);
    else if (problem == PROBLEM_NONE)
        write_redirect(facts->now, s, expiry_of(text, s), url.data, &lines);
    buf_puts(&lines, "Content-Length: 0\r\n\r\n");
    if (problem == PROBLEM_NONE && lines.failed)
        problem = PROBLEM_UPSTREAM_INVALID;
    if (problem == PROBLEM_NONE)
        answer_content(a, facts, s, keyed ? 200 : 302, &lines);
    else
        refuse(a, facts, problem, facts->source == SOURCE_STALE ? facts->retry_after_ms : 0);
    buf_done(&url);
    buf_done_secret(&lines);
}

void content_answer(struct answer *a, const struct answer_facts *facts, const struct snapshot *s,
                    const struct conf_route *route)
{
    if (!state_ended(s->state)) {
        int64_t left_ms = max64(snapshot_left_ms(s, facts->now), facts->retry_after_ms);
        refuse(a, facts, PROBLEM_NOT_READY, left_ms > 0 ? left_ms : RETRY_MS);
        return;
    }
    if (s->state != STATE_SUCCEEDED) {
        refuse(a, facts, PROBLEM_NO_RESULTS, 0);
        return;
    }
    struct json_object *doc, *row = find_row(s, facts->content_number, &doc);
    answer_row(a, facts, s, route, row);
    json_object_put(doc);
}
