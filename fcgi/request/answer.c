/* answer: see answer.h. */
#include "request/answer.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { HEAD_MAX = 16 * 1024, WANTED_HEADERS_MAX = 1024, TEXT_MAX = 1024 * 1024 };
enum { REPEATED_MAX = 8 * 1024 }; /* bytes; limits the files of nginx's cache */

#define WORD "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-"

static const char *status_text(int status)
{
    static const struct {
        int status;
        const char *text;
    } texts[] = {{200, "OK"},
                 {204, "No Content"},
                 {302, "Found"},
                 {304, "Not Modified"},
                 {400, "Bad Request"},
                 {401, "Unauthorized"},
                 {403, "Forbidden"},
                 {404, "Not Found"},
                 {405, "Method Not Allowed"},
                 {409, "Conflict"},
                 {410, "Gone"},
                 {413, "Content Too Large"},
                 {422, "Unprocessable Content"},
                 {429, "Too Many Requests"},
                 {501, "Not Implemented"},
                 {502, "Bad Gateway"},
                 {503, "Service Unavailable"},
                 {504, "Gateway Timeout"}};
    for (size_t i = 0; i < NELEMS(texts); i++) {
        if (texts[i].status == status)
            return texts[i].text;
    }
    return "Unknown";
}

static bool is_of_word(char c)
{
    return isalnum((unsigned char)c) || c == '_' || c == '-' || c == '.'; /* in the C locale: ASCII only */
}

/* For each request, so without strspn(3), which first makes a table of the accepted characters. */
void answer_id(const char *given, char out[static ANSWER_ID_SIZE])
{
    size_t len = 0;
    while (given != NULL && len < ANSWER_ID_SIZE && is_of_word(given[len]))
        len++;
    if (len > 0 && len < ANSWER_ID_SIZE && given[len] == '\0') {
        memcpy(out, given, len + 1);
        return;
    }
    unsigned char random[16];
    random_bytes(random, sizeof(random));
    hex_encode(random, sizeof(random), out);
}

static void add_number(struct buf *head, const char *before, int64_t number, const char *after)
{
    buf_puts(head, before);
    buf_add_int(head, number);
    buf_puts(head, after);
}

/* A line of the head. */
static void add_line(struct buf *head, const char *name_and_colon, const char *value)
{
    buf_puts(head, name_and_colon);
    buf_puts(head, value);
    buf_puts(head, "\r\n");
}

/* The team, for the web server's log. */
static void add_team(struct buf *head, const struct answer_facts *facts)
{
    if (facts->team == NULL)
        return;
    buf_puts(head, "X-Taskproxy-Team: ");
    buf_add_percent(head, facts->team);
    buf_puts(head, "\r\n");
}

/* The header lines that every answer has. Those of a repeatable answer are in add_repeatable. */
static void add_common(struct buf *head, const struct answer_facts *facts)
{
    buf_puts(head, "X-Content-Type-Options: nosniff\r\n");
    add_line(head, "X-Request-Id: ", facts->request_id);
    add_team(head, facts);
}

/* Begins the head, without the common lines. */
static void start(struct answer *a, const struct answer_facts *facts, int status)
{
    *a = (struct answer){.status = status, .source = facts->source};
    buf_init(&a->head, HEAD_MAX);
    buf_init(&a->text, TEXT_MAX);
    if (status != 200) { /* the default of CGI */
        add_number(&a->head, "Status: ", status, " ");
        add_line(&a->head, status_text(status), "");
    }
    if (facts->waited_s > 0 && status < 400) /* a problem is no reason to ask again at once */
        add_number(&a->head, "Preference-Applied: wait=", facts->waited_s, "\r\n");
}

static void begin(struct answer *a, const struct answer_facts *facts, int status)
{
    start(a, facts, status);
    add_common(&a->head, facts);
}

/* The headers of the body, if the status has one, and the end of the head. An answer to HEAD has the length of
 * the body that it omits. */
static void end(struct answer *a, const struct answer_facts *facts, const char *type, struct body body)
{
    if (a->status == 204 || a->status == 304) {
        buf_puts(&a->head, "\r\n");
        return;
    }
    a->body = body;
    buf_puts(&a->head, "Content-Type: ");
    buf_puts(&a->head, type);
    add_number(&a->head, "\r\nContent-Length: ", (int64_t)body_len(&a->body), "\r\n\r\n");
    if (facts->head_only)
        a->body = (struct body){0};
}

static struct body body_of(const struct buf *text)
{
    return (struct body){.text = text->data, .text_len = text->len};
}

/* "upstream-timeout" for "upstream_timeout": other caches write '-' in the tokens of Cache-Status. */
static void add_detail(struct buf *head, enum problem problem)
{
    buf_puts(head, "; detail=");
    for (const char *c = problem_code(problem); *c != '\0'; c++)
        buf_putc(head, *c == '_' ? '-' : *c);
}

static const char *x_cache(enum answer_source source)
{
    static const char *const values[] = {
        [SOURCE_NONE] = "MISS",           [SOURCE_MEMORY] = "HIT",    [SOURCE_REDIS] = "HIT",
        [SOURCE_COLLAPSED] = "COLLAPSED", [SOURCE_UPSTREAM] = "MISS", [SOURCE_STALE] = "STALE"};
    return values[source];
}

static void add_cache_status(struct buf *head, const struct answer_facts *facts, int64_t ttl_ms)
{
    bool hit = facts->source == SOURCE_MEMORY || facts->source == SOURCE_REDIS;
    buf_puts(head, "Cache-Status: taskproxy");
    if (hit)
        add_number(head, "; hit; ttl=", seconds_down(ttl_ms),
                   facts->source == SOURCE_REDIS ? "; detail=redis" : "");
    else if (facts->source == SOURCE_NONE)
        buf_puts(head, "; fwd=bypass");
    else if (facts->source == SOURCE_STALE)
        buf_puts(head, "; fwd=stale");
    else
        buf_addf(head, "; fwd=miss%s%s", facts->stored ? "; stored" : "",
                 facts->source == SOURCE_COLLAPSED ? "; collapsed" : "");
    if (!hit && facts->problem != PROBLEM_NONE)
        add_detail(head, facts->problem);
    buf_puts(head, "\r\n");
}

static void add_cache_headers(struct buf *head, const struct answer_facts *facts, int64_t ttl_ms)
{
    add_cache_status(head, facts, ttl_ms);
    add_line(head, "X-Cache: ", x_cache(facts->source));
}

/* Whether the parameters contain "q=0" or "q=0.000". */
static bool is_refused(const char *parameters, size_t len)
{
    for (const char *at = memchr(parameters, ';', len); at != NULL;) {
        at += 1 + strspn(at + 1, " \t");
        size_t left = len - (size_t)(at - parameters);
        if (left >= 3 && strncasecmp(at, "q=0", 3) == 0)
            return strspn(at + 3, ".0") == strcspn(at + 3, " \t,;");
        at = memchr(at, ';', left);
    }
    return false;
}

bool answer_accepts(const char *accept, const char *type)
{
    for (const char *at = accept; at != NULL && *at != '\0';) {
        at += strspn(at, " \t,");
        size_t len = strcspn(at, ",");
        if (strncasecmp(at, type, strlen(type)) == 0 && strchr(" \t,;", at[strlen(type)]) != NULL)
            return !is_refused(at, len);
        at += len;
    }
    return false;
}

bool answer_etag_matches(const char *list, const char *etag)
{
    size_t len = strlen(etag);
    while (list != NULL && *list != '\0') {
        list += strspn(list, " \t,");
        if (*list == '*')
            return true;
        if (strncmp(list, "W/", 2) == 0)
            list += 2;
        if (strncmp(list, etag, len) == 0)
            return true;
        list += strcspn(list, ",");
    }
    return false;
}

/* The last second, since 1970, in which nginx may repeat an answer of `len` bytes that is fresh for `left_ms`; 0: none.
 * nginx compares whole seconds, so a second that is not over when the answer expires does not count. Of simultaneous
 * requests for a task, only the one that began the fetch is kept: nginx would write a file for each of them. */
static int64_t repeat_until_s(const struct answer_facts *facts, int64_t left_ms, size_t len)
{
    int64_t ms = min64(facts->repeat_ms, left_ms), until_s = (facts->now.date_ms + ms) / 1000 - 1;
    bool repeatable =
        facts->source != SOURCE_STALE && facts->source != SOURCE_COLLAPSED && len <= REPEATED_MAX;
    return repeatable && ms > 0 && until_s >= facts->now.date_ms / 1000 ? until_s : 0;
}

/* The times that a view's headers depend on. */
struct timing {
    int64_t ttl_ms, age_ms;
    int64_t retry_ms; /* until the view can have changed; 0: it has ended */
    int64_t until_s;  /* repeat_until_s */
};

/* nginx keeps the head of a repeatable answer, too, but cannot count. So the headers that differ from one second to the
 * next, or between the first answer and its repetitions, are in one, from which nginx makes them (taskproxy-http.conf explains
 * it): the last digit of each second, Age and Retry-After; X-Cache. nginx adds X-Request-Id and X-Content-Type-Options,
 * too: each byte that it keeps costs it time with each repetition. "X-Taskproxy-Facts: 8=17/2 9=18/1,MISS" */
static void add_repeatable(struct buf *head, const struct answer_facts *facts, const struct timing *timing)
{
    add_number(head, "X-Accel-Expires: @", timing->until_s, "\r\nX-Taskproxy-Facts:");
    for (int64_t s = facts->now.date_ms / 1000; s <= timing->until_s; s++) {
        int64_t later_ms = max64(s * 1000 - facts->now.date_ms, 0);
        add_number(head, " ", s % 10, "=");
        buf_add_int(head, seconds_down(timing->age_ms + later_ms));
        if (timing->retry_ms > 0)
            add_number(head, "/", seconds_up(max64(timing->retry_ms - later_ms, 1)), "");
    }
    add_line(head, ",", x_cache(facts->source));
    add_cache_status(head, facts, timing->ttl_ms);
    add_team(head, facts);
}

/* The headers that belong to the request or depend on the time. */
static void add_timed(struct buf *head, const struct answer_facts *facts, const struct timing *timing)
{
    if (timing->until_s != 0) {
        add_repeatable(head, facts, timing);
        return;
    }
    add_common(head, facts);
    add_cache_headers(head, facts, timing->ttl_ms);
    add_number(head, "Age: ", seconds_down(timing->age_ms), "\r\n");
    if (timing->retry_ms > 0)
        add_number(head, "Retry-After: ", seconds_up(timing->retry_ms), "\r\n");
}

/* A client should request the view of a running task again, but not before the task can have changed. */
static int64_t view_retry_ms(const struct answer_facts *facts, const struct snapshot *s, int64_t left_ms)
{
    bool stale = facts->source == SOURCE_STALE;
    if (state_ended(s->state) && !stale)
        return 0;
    return max64(stale || left_ms < facts->retry_after_ms ? facts->retry_after_ms : left_ms, 1);
}

/* A client may keep the view of an ended task until its URLs expire. */
static void add_cache_control(struct buf *head, const struct answer_facts *facts, const struct snapshot *s,
                              const struct timing *timing)
{
    if (timing->retry_ms > 0) {
        buf_puts(head, "Cache-Control: private, no-cache\r\n");
        return;
    }
    int64_t left_ms = timing->ttl_ms, urls_left_ms = s->urls_expire_at * 1000 - facts->now.date_ms;
    if (s->urls_expire_at != 0 && urls_left_ms < left_ms)
        left_ms = urls_left_ms;
    /* The client subtracts the Age (RFC 9111, 4.2.3). */
    add_number(head, "Cache-Control: private, max-age=", seconds_down(left_ms) + seconds_down(timing->age_ms),
               "\r\n");
}

/* Vary and, if a page may read the answer, the CORS headers. */
static void add_readers(struct buf *head, const struct answer_facts *facts)
{
    buf_puts(head, "Vary: Accept, Prefer");
    if (facts->target_header != NULL)
        buf_addf(head, ", %s", facts->target_header);
    if (facts->by_origin)
        buf_puts(head, ", Origin, Authorization");
    if (facts->by_origin && facts->key_header != NULL && strcasecmp(facts->key_header, "Authorization") != 0)
        buf_addf(head, ", %s", facts->key_header);
    buf_puts(head, "\r\n");
    if (facts->origin == NULL)
        return;
    buf_puts(head, "Access-Control-Allow-Origin: ");
    buf_puts(head, facts->origin);
    buf_puts(
        head,
        "\r\nAccess-Control-Allow-Credentials: true\r\nAccess-Control-Expose-Headers: Age, Cache-Status, "
        "ETag, Preference-Applied, RateLimit-Limit, RateLimit-Remaining, RateLimit-Reset, Retry-After, "
        "X-Cache, X-Request-Id\r\n");
}

/* A status 200 becomes 304 if the client has the view. Of a repeatable answer, nginx compares the tag, and needs the
 * view. */
static int status_of_view(const struct answer_facts *facts, const char *etag, int64_t until_s)
{
    return until_s == 0 && answer_etag_matches(facts->if_none_match, etag) ? 304 : 200;
}

/* The headers that depend on the view, which has `len` bytes. */
static void begin_view(struct answer *a, const struct answer_facts *facts, const struct snapshot *s,
                       const char *etag, size_t len, int status)
{
    struct timing timing = {.ttl_ms = snapshot_left_ms(s, facts->now), .age_ms = facts->now.ms - s->since_ms};
    timing.retry_ms = view_retry_ms(facts, s, timing.ttl_ms);
    timing.until_s = status == 200 ? repeat_until_s(facts, timing.ttl_ms, len) : 0;
    start(a, facts, status == 200 ? status_of_view(facts, etag, timing.until_s) : status);
    add_timed(&a->head, facts, &timing);
    add_cache_control(&a->head, facts, s, &timing);
    add_line(&a->head, "ETag: ", etag);
    add_readers(&a->head, facts);
}

void answer_view(struct answer *a, const struct answer_facts *facts, const struct snapshot *s,
                 enum view_kind kind)
{
    const struct view_bytes *view = snapshot_view(s, kind);
    begin_view(a, facts, s, view->etag, view->len, facts->no_content ? 204 : 200);
    end(a, facts, "application/json", (struct body){.blobs = &view->whole, .n_blobs = 1});
}

void answer_part(struct answer *a, const struct answer_facts *facts, const struct snapshot *s, int status,
                 const struct buf *text)
{
    char etag[ETAG_SIZE];
    etag_of(text->data, text->len, etag);
    begin_view(a, facts, s, etag, text->len, status);
    a->text = *text;
    end(a, facts, "application/json", body_of(&a->text));
}

void answer_content(struct answer *a, const struct answer_facts *facts, const struct snapshot *s, int status,
                    const struct buf *lines)
{
    begin(a, facts, status);
    add_cache_headers(&a->head, facts, snapshot_left_ms(s, facts->now));
    add_readers(&a->head, facts);
    buf_add(&a->head, lines->data, lines->len);
}

/* draft-ietf-httpapi-ratelimit-headers-06. Nothing remains when a limit is reached. */
static void add_limit(struct buf *head, const struct answer_facts *facts)
{
    add_number(head, "RateLimit-Limit: ", facts->limit, "\r\nRateLimit-Remaining: 0\r\n");
    add_number(head, "RateLimit-Reset: ", seconds_up(facts->retry_after_ms), "\r\n");
}

static const char *methods(const struct answer_facts *facts)
{
    return facts->by_origin ? "GET, HEAD, OPTIONS" : "GET, HEAD";
}

/* Some clients read errors only if their media type is application/json. */
static const char *problem_type(const char *accept)
{
    static const char problem[] = "application/problem+json", json[] = "application/json";
    bool plain = answer_accepts(accept, json) && !answer_accepts(accept, problem) &&
                 !answer_accepts(accept, "application/*") && !answer_accepts(accept, "*/*");
    return plain ? json : problem;
}

void answer_problem(struct answer *a, const struct answer_facts *facts)
{
    begin(a, facts, problem_status(facts->problem));
    add_cache_headers(&a->head, facts, facts->ttl_ms);
    buf_puts(&a->head, "Cache-Control: no-store\r\n");
    add_readers(&a->head, facts);
    if (a->status == 405)
        buf_addf(&a->head, "Allow: %s\r\n", facts->allow ? facts->allow : methods(facts));
    if (a->status == 401)
        buf_puts(&a->head, "WWW-Authenticate: Bearer realm=\"taskproxy\"\r\n");
    if (facts->retry_after_ms > 0)
        add_number(&a->head, "Retry-After: ", seconds_up(facts->retry_after_ms), "\r\n");
    if (a->status == 429)
        add_limit(&a->head, facts);
    problem_body(facts->problem, facts->request_id, &a->text);
    end(a, facts, problem_type(facts->accept), body_of(&a->text));
}

/* Of a list: the shortest freshness, the age of the oldest view, and the first possible change. */
static struct timing timing_of_list(const struct answer_facts *facts, const struct answer_item *items,
                                    size_t n, enum view_kind kind)
{
    struct timing list = {.ttl_ms = INT64_MAX};
    bool complete = true;
    size_t len = 0;
    for (size_t i = 0; i < n; i++) {
        const struct snapshot *s = items[i].snapshot;
        if (s == NULL) {
            complete = false; /* the problem in its place has the request's id */
            continue;
        }
        len += snapshot_view(s, kind)->len;
        int64_t left_ms = max64(snapshot_left_ms(s, facts->now), 1);
        if (!state_ended(s->state) && (list.retry_ms == 0 || left_ms < list.retry_ms))
            list.retry_ms = left_ms;
        list.ttl_ms = min64(list.ttl_ms, left_ms);
        list.age_ms = max64(list.age_ms, facts->now.ms - s->since_ms);
    }
    list.ttl_ms = list.ttl_ms == INT64_MAX ? 0 : list.ttl_ms;
    list.until_s = complete ? repeat_until_s(facts, list.ttl_ms, len) : 0;
    return list;
}

/* The tag covers the items, except for the request's id in problems. */
void answer_list_etag(const struct answer_item *items, size_t n, enum view_kind kind,
                      char etag[static ETAG_SIZE])
{
    struct buf text;
    buf_init(&text, TEXT_MAX);
    for (size_t i = 0; i < n; i++)
        buf_puts(&text, items[i].snapshot ? snapshot_view(items[i].snapshot, kind)->etag
                                          : problem_code(items[i].problem));
    etag_of(text.data, text.len, etag);
    buf_done(&text);
}

static void write_list(struct answer *a, const struct answer_facts *facts, const struct answer_item *items,
                       size_t n, enum view_kind kind)
{
    a->blobs = xcalloc(n, sizeof(*a->blobs));
    buf_puts(&a->text, "{\"tasks\":[");
    for (size_t i = 0; i < n; i++) {
        const struct snapshot *s = items[i].snapshot;
        if (i > 0)
            buf_putc(&a->text, ',');
        if (s != NULL)
            a->blobs[a->n_blobs++] = (struct body_blob){a->text.len, snapshot_view(s, kind)->whole.blob};
        else
            problem_body(items[i].problem, facts->request_id, &a->text);
    }
    buf_puts(&a->text, "]}");
}

void answer_many(struct answer *a, const struct answer_facts *facts, const struct answer_item *items,
                 size_t n, enum view_kind kind)
{
    char etag[ETAG_SIZE];
    answer_list_etag(items, n, kind, etag);
    const struct timing timing = timing_of_list(facts, items, n, kind);
    start(a, facts, facts->no_content ? 204 : status_of_view(facts, etag, timing.until_s));
    add_timed(&a->head, facts, &timing);
    buf_puts(&a->head, "Cache-Control: private, no-cache\r\n");
    add_line(&a->head, "ETag: ", etag);
    add_readers(&a->head, facts);
    if (a->status == 200)
        write_list(a, facts, items, n, kind);
    end(a, facts, "application/json", (struct body){a->text.data, a->text.len, a->blobs, a->n_blobs});
}

void answer_nothing(struct answer *a, const struct answer_facts *facts)
{
    begin(a, facts, 204);
    buf_puts(&a->head, "Cache-Control: no-store\r\n\r\n");
}

void answer_preflight(struct answer *a, const struct answer_facts *facts, const char *wanted_headers)
{
    begin(a, facts, 204);
    buf_addf(&a->head, "Allow: %s\r\n", methods(facts));
    add_readers(&a->head, facts);
    if (facts->origin != NULL) {
        buf_puts(&a->head, "Access-Control-Allow-Methods: GET, HEAD\r\nAccess-Control-Max-Age: 7200\r\n");
        /* Any header is allowed; unknown ones are never read. */
        if (wanted_headers != NULL && strlen(wanted_headers) <= WANTED_HEADERS_MAX &&
            wanted_headers[strspn(wanted_headers, WORD ", ")] == '\0')
            buf_addf(&a->head, "Access-Control-Allow-Headers: %s\r\n", wanted_headers);
    }
    buf_puts(&a->head, "\r\n");
}

void answer_text(struct answer *a, const struct answer_facts *facts, int status, const char *type,
                 const struct buf *text)
{
    begin(a, facts, status);
    buf_puts(&a->head, "Cache-Control: no-store\r\n");
    end(a, facts, type, body_of(text));
}

void answer_stream_head(const struct answer_facts *facts, struct buf *out)
{
    buf_init(out, HEAD_MAX);
    add_common(out, facts);
    buf_puts(out, "Content-Type: text/event-stream\r\nCache-Control: no-store\r\nX-Accel-Buffering: no\r\n"
                  "Cache-Status: taskproxy; fwd=request\r\nX-Cache: MISS\r\n");
    add_readers(out, facts);
    buf_puts(out, "\r\n");
}

void answer_done(struct answer *a)
{
    explicit_bzero(a->head.data, a->head.len); /* may contain a key: content.c */
    buf_done(&a->head);
    buf_done(&a->text);
    free(a->blobs);
}
