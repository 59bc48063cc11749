/* content: see content.h. */
#include "request/content.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "lib/json.h"
#include "upstream/view.h"

enum { VIEW_DEPTH = 8, POINTER_SIZE = 64, URL_MAX = 8192, RETRY_MS = 1000 };

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
    const struct view_bytes *view = &s->views[VIEW_UNIFIED];
    struct json_error error;
    struct json_object *row = NULL;
    char pointer[POINTER_SIZE];
    *ret_doc = json_read(view->data, view->len, VIEW_DEPTH, JSON_PLAIN, &error);
    snprintf(pointer, sizeof(pointer), "/results/%zu", n);
    if (*ret_doc == NULL || json_pointer_get(*ret_doc, pointer, &row) != 0)
        return NULL;
    return row;
}

static enum problem problem_of(const struct answer_facts *facts, const struct snapshot *s, const char *url)
{
    if (url == NULL)
        return PROBLEM_NO_RESULT;
    int64_t expiry = expiry_of(url, s);
    if (expiry == 0 || expiry * 1000 > facts->now.date_ms)
        return PROBLEM_NONE;
    return facts->source == SOURCE_STALE ? facts->problem : PROBLEM_CONTENT_EXPIRED;
}

static void refuse(struct answer *a, const struct answer_facts *facts, enum problem problem,
                   int64_t retry_after_ms)
{
    struct answer_facts refusal = *facts;
    refusal.problem = problem;
    refusal.retry_after_ms = retry_after_ms;
    answer_problem(a, &refusal);
}

static void answer_row(struct answer *a, const struct answer_facts *facts, const struct snapshot *s,
                       struct json_object *row)
{
    struct json_object *member = NULL;
    const char *url = json_object_object_get_ex(row, "url", &member) ? json_text(member) : NULL;
    enum problem problem = problem_of(facts, s, url);
    struct buf location;
    buf_init(&location, URL_MAX);
    if (problem == PROBLEM_NONE && !write_url(url, &location))
        problem = PROBLEM_UPSTREAM_INVALID;
    if (problem == PROBLEM_NONE)
        answer_redirect(a, facts, s, location.data, expiry_of(url, s));
    else
        refuse(a, facts, problem, facts->source == SOURCE_STALE ? facts->retry_after_ms : 0);
    buf_done(&location);
}

void content_answer(struct answer *a, const struct answer_facts *facts, const struct snapshot *s)
{
    if (!state_ended(s->state)) {
        int64_t left_ms = snapshot_left_ms(s, facts->now);
        if (left_ms < facts->retry_after_ms)
            left_ms = facts->retry_after_ms;
        refuse(a, facts, PROBLEM_NOT_READY, left_ms > 0 ? left_ms : RETRY_MS);
        return;
    }
    if (s->state != STATE_SUCCEEDED) {
        refuse(a, facts, PROBLEM_NO_RESULTS, 0);
        return;
    }
    struct json_object *doc, *row = find_row(s, facts->content_number, &doc);
    answer_row(a, facts, s, row);
    json_object_put(doc);
}
