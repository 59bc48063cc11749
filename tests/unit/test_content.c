/* The answer to a request for a result itself. */
#include "unit.h"

#include <stdlib.h>
#include <string.h>

#include "request/content.h"

static const int64_t now_ms = 1736867746000, now_s = 1736867746, loop_now = 5000;
static const struct snapshot_rules rules = {
    .terminal_ttl_ms = 3600000, .stale_for_ms = 600000, .poll_min_ms = 2000, .poll_max_ms = 15000};

static char header[] = "X-Api-Key", value[] = "Key {key}", first[] = "sk-first", second[] = "sk-second";
static char x[] = "https://x", x_8443[] = "https://x:8443", local[] = "http://127.0.0.1:80";
static char *origins[] = {x, x_8443, local};
static struct result_field fields[] = {
    {.download = DOWNLOAD_REDIRECT},
    {.download = DOWNLOAD_KEYED, .origins = {.items = origins, .n = NELEMS(origins)}}};
static struct provider provider = {.auth = {.header = header, .value = value},
                                   .unified.results = {.items = fields, .n = NELEMS(fields)}};
static struct secret keys[] = {{.text = first}, {.text = second}};
static struct conf_upstream upstream = {.keys = {.items = keys, .n = NELEMS(keys)}};
static const struct conf_route route = {.provider = &provider, .upstream = &upstream};
static bool offload; /* the web server can get results with the key */
static char owner[KEY_MARK_SIZE];

/* A request for the n-th of the results, and its answer. */
struct trial {
    struct answer_facts facts;
    struct snapshot *snapshot;
    struct answer answer;
};

static struct trial answered(enum state state, enum answer_source source, const char *results, size_t n,
                             int64_t urls_expire_at)
{
    char *view = xasprintf("{\"results\":[%s]}", results);
    const struct snapshot given = {.state = state,
                                   .known = true,
                                   .created_ms = now_ms,
                                   .fetched_ms = now_ms,
                                   .since_ms = loop_now,
                                   .urls_expire_at = urls_expire_at,
                                   .views[VIEW_NATIVE] = {.data = "", .len = 0},
                                   .views[VIEW_UNIFIED] = {.data = view, .len = strlen(view)}};
    struct snapshot draft = given;
    memcpy(draft.key, owner, sizeof(draft.key));
    struct trial t = {.facts = {.request_id = "req-1",
                                .source = source,
                                .now = {loop_now, now_ms},
                                .kind = ROUTE_CONTENT,
                                .offload = offload,
                                .content_number = n,
                                .problem = source == SOURCE_STALE ? PROBLEM_UNREACHABLE : PROBLEM_NONE,
                                .retry_after_ms = source == SOURCE_STALE ? 7000 : 0},
                      .snapshot = snapshot_new(&draft, &rules, (struct moment){loop_now, now_ms})};
    content_answer(&t.answer, &t.facts, t.snapshot, &route);
    free(view);
    return t;
}

static void done(struct trial *t)
{
    answer_done(&t->answer);
    snapshot_unref(t->snapshot);
}

static void assert_line(const struct trial *t, const char *line)
{
    char *whole = xasprintf("\r\n%s\r\n", line);
    if (strstr(t->answer.head.data, whole) == NULL)
        fail_msg("no line \"%s\" in\n%s", line, t->answer.head.data);
    free(whole);
}

static void assert_refused(struct trial t, int status, const char *code)
{
    char *member = xasprintf("\"code\":\"%s\"", code);
    assert_int_equal(t.answer.status, status);
    assert_non_null(strstr(t.answer.text.data, member));
    assert_null(strstr(t.answer.head.data, "Location"));
    free(member);
    done(&t);
}

#define ROW(url) "{\"type\":\"v\",\"url\":\"" url "\"}"

static void assert_location(const char *row, const char *expected)
{
    struct trial t = answered(STATE_SUCCEEDED, SOURCE_MEMORY, row, 0, 0);
    char *line = xasprintf("Location: %s", expected);
    assert_int_equal(t.answer.status, 302);
    assert_line(&t, line);
    assert_ptr_equal(strstr(t.answer.head.data, "\r\n\r\n"), t.answer.head.data + t.answer.head.len - 4);
    assert_int_equal(body_len(&t.answer.body), 0);
    free(line);
    done(&t);
}

TEST(result_is_a_redirect_to_its_url)
{
    static const char rows[] = ROW("https://x/0") "," ROW("https://x/1?a=b&c=%2F#d");
    struct trial t = answered(STATE_SUCCEEDED, SOURCE_MEMORY, rows, 1, 0);
    assert_int_equal(t.answer.status, 302);
    assert_line(&t, "Location: https://x/1?a=b&c=%2F#d");
    assert_line(&t, "Cache-Control: private, max-age=3600");
    assert_line(&t, "Referrer-Policy: no-referrer");
    assert_line(&t, "Content-Length: 0");
    done(&t);
}

TEST(client_keeps_a_redirect_until_its_url_expires)
{
    static const char rows[] = ROW("https://x/0?Expires=1736867846") "," ROW("https://x/1");
    struct trial t = answered(STATE_SUCCEEDED, SOURCE_MEMORY, rows, 0, now_s + 50);
    assert_line(&t, "Cache-Control: private, max-age=100");
    done(&t);
    t = answered(STATE_SUCCEEDED, SOURCE_MEMORY, rows, 1, now_s + 50);
    assert_line(&t, "Cache-Control: private, max-age=50");
    done(&t);
}

TEST(unusual_characters_are_encoded)
{
    assert_location(ROW("http://x/a b"), "http://x/a%20b");
    assert_location(ROW("HTTPS://x/\\u00e9"), "HTTPS://x/%C3%A9");
    assert_location(ROW("https://x/\\r\\nSet-Cookie: a=b"), "https://x/%0D%0ASet-Cookie:%20a=b");
    assert_location(ROW("https://x\\\\@y/\\\"<>^`{|}\\u007f"), "https://x%5C@y/%22%3C%3E%5E%60%7B%7C%7D%7F");
    assert_location(ROW("https://[::1]:8/%zz!$&'()*+,;="), "https://[::1]:8/%zz!$&'()*+,;=");
}

TEST(other_schemes_are_no_redirects)
{
    static const char *const rows[] = {ROW("javascript://x/%0aalert(1)"),
                                       ROW("data://x"),
                                       ROW("file:///etc/passwd"),
                                       ROW("//x/"),
                                       ROW(" https://x"),
                                       ROW("https:x"),
                                       ROW("/v1/tasks"),
                                       ROW(""),
                                       ROW("ftp://x/https://y")};
    for (size_t i = 0; i < NELEMS(rows); i++)
        assert_refused(answered(STATE_SUCCEEDED, SOURCE_MEMORY, rows[i], 0, 0), 502, "upstream_invalid");
}

TEST(too_long_url_is_no_redirect)
{
    char *row = xasprintf("{\"url\":\"https://x/%09000d\"}", 0);
    assert_refused(answered(STATE_SUCCEEDED, SOURCE_MEMORY, row, 0, 0), 502, "upstream_invalid");
    free(row);
}

TEST(result_that_does_not_exist_is_not_found)
{
    static const char rows[] = ROW("https://x/0") "," ROW("https://x/1");
    assert_refused(answered(STATE_SUCCEEDED, SOURCE_MEMORY, rows, 2, 0), 404, "content_not_found");
    assert_refused(answered(STATE_SUCCEEDED, SOURCE_MEMORY, "", 0, 0), 404, "content_not_found");
    assert_refused(answered(STATE_SUCCEEDED, SOURCE_MEMORY, rows, 999999999, 0), 404, "content_not_found");
}

TEST(task_without_success_has_no_content)
{
    assert_refused(answered(STATE_FAILED, SOURCE_MEMORY, "", 0, 0), 404, "content_not_found");
    assert_refused(answered(STATE_CANCELLED, SOURCE_MEMORY, "", 0, 0), 404, "content_not_found");
    struct trial t = answered(STATE_RUNNING, SOURCE_MEMORY, "", 0, 0);
    assert_line(&t, "Retry-After: 2");
    assert_refused(t, 409, "content_not_ready");
}

TEST(expired_url_is_no_redirect)
{
    static const char row[] = ROW("https://x/0?Expires=1736867746"), other[] = ROW("https://x/0");
    assert_refused(answered(STATE_SUCCEEDED, SOURCE_UPSTREAM, row, 0, 0), 410, "content_expired");
    assert_refused(answered(STATE_SUCCEEDED, SOURCE_UPSTREAM, other, 0, now_s), 410, "content_expired");
}

TEST(expired_url_of_an_old_snapshot_gives_the_problem_of_the_fetch)
{
    static const char row[] = ROW("https://x/0?Expires=1736867746"), other[] = ROW("https://x/0");
    struct trial t = answered(STATE_SUCCEEDED, SOURCE_STALE, row, 0, 0);
    assert_line(&t, "Retry-After: 7");
    assert_refused(t, 502, "upstream_error");
    t = answered(STATE_SUCCEEDED, SOURCE_STALE, other, 0, 0);
    assert_int_equal(t.answer.status, 302);
    done(&t);
}

#define KEYED(url) "{\"type\":\"v\",\"url\":\"" url "\",\"needs_key\":true}"

static void assert_offloaded(const char *url, const char *place, const char *target, const char *key)
{
    char *row = xasprintf("{\"type\":\"v\",\"url\":\"%s\",\"needs_key\":true}", url);
    char *expected = xasprintf("X-Taskproxy-%s\r\nX-Taskproxy-Target: %s\r\n", place, target);
    char *key_line = xasprintf("X-Taskproxy-Key-X-Api-Key: Key %s", key);
    offload = true;
    struct trial t = answered(STATE_SUCCEEDED, SOURCE_MEMORY, row, 0, 0);
    offload = false;
    assert_int_equal(t.answer.status, 200);
    assert_line(&t, "X-Accel-Redirect: @taskproxy_content");
    assert_line(&t, key_line);
    assert_null(strstr(t.answer.head.data, "Location"));
    if (strstr(t.answer.head.data, expected) == NULL)
        fail_msg("no\n%sin\n%s", expected, t.answer.head.data);
    assert_ptr_equal(strstr(t.answer.head.data, "\r\n\r\n"), t.answer.head.data + t.answer.head.len - 4);
    done(&t);
    free(key_line);
    free(expected);
    free(row);
}

TEST(keyed_result_is_left_to_the_web_server)
{
    assert_offloaded("https://x/v/1?a=b#c", "Scheme: https\r\nX-Taskproxy-Host: x", "https_x/v/1?a=b",
                     "sk-first");
    assert_offloaded("https://x:8443", "Scheme: https\r\nX-Taskproxy-Host: x:8443", "https_x_8443/",
                     "sk-first");
    assert_offloaded("https://x?a", "Scheme: https\r\nX-Taskproxy-Host: x", "https_x/?a", "sk-first");
    assert_offloaded("HTTPS://X/%2e%2e/../%0d%0a", "Scheme: HTTPS\r\nX-Taskproxy-Host: X",
                     "https_x/%2e%2e/../%0d%0a", "sk-first");
    assert_offloaded("http://127.0.0.1:80/\\r\\nX: y", "Scheme: http\r\nX-Taskproxy-Host: 127.0.0.1:80",
                     "http_127.0.0.1_80/%0D%0AX:%20y", "sk-first");
}

TEST(key_is_the_one_that_owns_the_task)
{
    key_mark("sk-second", owner);
    assert_offloaded("https://x/", "Scheme: https\r\nX-Taskproxy-Host: x", "https_x/", "sk-second");
    key_mark("sk-removed", owner);
    assert_offloaded("https://x/", "Scheme: https\r\nX-Taskproxy-Host: x", "https_x/", "sk-first");
    owner[0] = '\0';
}

/* A stored view may be older than the configuration, or not be ours. */
TEST(key_is_not_sent_to_other_origins)
{
    static const char *const rows[] = {
        KEYED("https://y/"),   KEYED("http://x/"),        KEYED("https://x:80/"),    KEYED("https://x@y/"),
        KEYED("https://x.y/"), KEYED("https://x\\\\@y/"), KEYED("https://x%2f@y/"),  KEYED("https:/x/"),
        KEYED("file:///x"),    KEYED("https://u:p@x/"),   KEYED("https://x\\r\\n/"), KEYED("//x/"),
    };
    offload = true;
    for (size_t i = 0; i < NELEMS(rows); i++)
        assert_refused(answered(STATE_SUCCEEDED, SOURCE_MEMORY, rows[i], 0, 0), 502, "upstream_invalid");
    offload = false;
}

TEST(result_whose_url_and_key_are_too_long_is_refused)
{
    char *path = xcalloc(1, 8192), *row;
    memset(path, 'a', 8150);
    row = xasprintf(KEYED("https://x/%s"), path);
    offload = true;
    struct trial t = answered(STATE_SUCCEEDED, SOURCE_MEMORY, row, 0, 0);
    assert_int_equal(t.answer.status, 200);
    assert_string_equal(t.answer.head.data + t.answer.head.len - 4, "\r\n\r\n");
    done(&t);
    char *longer = xcalloc(1, 4096);
    memset(longer, 'k', 4095);
    keys[0].text = longer;
    assert_refused(answered(STATE_SUCCEEDED, SOURCE_MEMORY, row, 0, 0), 502, "upstream_invalid");
    keys[0].text = first;
    offload = false;
    free(longer);
    free(row);
    free(path);
}

TEST(other_web_servers_cannot_get_a_keyed_result)
{
    assert_refused(answered(STATE_SUCCEEDED, SOURCE_MEMORY, KEYED("https://x/"), 0, 0), 501,
                   "content_not_offloaded");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(result_is_a_redirect_to_its_url),
        cmocka_unit_test(client_keeps_a_redirect_until_its_url_expires),
        cmocka_unit_test(unusual_characters_are_encoded),
        cmocka_unit_test(other_schemes_are_no_redirects),
        cmocka_unit_test(too_long_url_is_no_redirect),
        cmocka_unit_test(result_that_does_not_exist_is_not_found),
        cmocka_unit_test(task_without_success_has_no_content),
        cmocka_unit_test(expired_url_is_no_redirect),
        cmocka_unit_test(keyed_result_is_left_to_the_web_server),
        cmocka_unit_test(key_is_the_one_that_owns_the_task),
        cmocka_unit_test(key_is_not_sent_to_other_origins),
        cmocka_unit_test(result_whose_url_and_key_are_too_long_is_refused),
        cmocka_unit_test(other_web_servers_cannot_get_a_keyed_result),
        cmocka_unit_test(expired_url_of_an_old_snapshot_gives_the_problem_of_the_fetch),
    };
    return cmocka_run_group_tests_name("content", tests, NULL, NULL);
}
