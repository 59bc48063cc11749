/* Status, headers and body of answers to clients. */
#include "unit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "request/answer.h"
#include "lib/json.h"

static const int64_t now = 1736867746000, loop_now = 5000;
static const struct snapshot_rules rules = {
    .terminal_ttl_ms = 3600000, .stale_for_ms = 600000, .poll_min_ms = 2000, .poll_max_ms = 15000};

static const char native[] = "{\"a\":1}", unified[] = "{\"provider\":\"p\"}";

static struct snapshot *made(enum state state, int64_t urls_expire_at)
{
    const struct snapshot draft = {.state = state,
                                   .known = true,
                                   .created_ms = now,
                                   .fetched_ms = now,
                                   .since_ms = loop_now,
                                   .urls_expire_at = urls_expire_at,
                                   .views = {{.data = native, .len = sizeof(native) - 1},
                                             {.data = unified, .len = sizeof(unified) - 1}}};
    return snapshot_new(&draft, &rules, (struct moment){loop_now, now});
}

static struct answer_facts facts_of(enum answer_source source)
{
    return (struct answer_facts){.request_id = "req-1", .source = source, .now = {loop_now, now}};
}

/* The value of a header that occurs once; NULL if there is none. The caller frees. */
static char *header_of(const struct answer *a, const char *name)
{
    char *head = xasprintf("\r\n%s", a->head.data), *wanted = xasprintf("\r\n%s: ", name), *value = NULL;
    const char *at = strstr(head, wanted);
    if (at != NULL) {
        at += strlen(wanted);
        value = xstrndup(at, strcspn(at, "\r"));
        assert_null(strstr(at, wanted));
    }
    free(wanted);
    free(head);
    return value;
}

static void assert_header(const struct answer *a, const char *name, const char *expected)
{
    char *value = header_of(a, name);
    if (expected == NULL)
        assert_null(value);
    else if (value == NULL)
        fail_msg("no %s in\n%s", name, a->head.data);
    else
        assert_string_equal(value, expected);
    free(value);
}

/* The whole body. The caller frees. */
static char *body_of(const struct answer *a)
{
    size_t len = body_len(&a->body), done = 0;
    char *text = xcalloc(len + 1, 1);
    struct body_position at = {0};
    while (!body_is_read(&a->body, &at)) {
        const char *data;
        size_t n = body_read(&a->body, &at, len, &data);
        memcpy(text + done, data, n);
        done += n;
    }
    assert_int_equal(done, len);
    return text;
}

static void assert_body(const struct answer *a, const char *expected)
{
    char *body = body_of(a);
    assert_string_equal(body, expected);
    free(body);
}

/* Every line ends with CRLF, and the head ends with the only empty line. No status means 200. */
static void assert_head_is_well_formed(const struct answer *a)
{
    assert_false(a->head.failed);
    assert_int_equal(strncmp(a->head.data, "Status: ", 8) == 0, a->status != 200);
    assert_ptr_equal(strstr(a->head.data, "\r\n\r\n"), a->head.data + a->head.len - 4);
    for (const char *at = a->head.data; (at = strchr(at, '\n')) != NULL; at++)
        assert_int_equal(at[-1], '\r');
}

static struct snapshot *shown; /* the last answer points into it */

static struct answer view_answer_of(struct answer_facts facts, enum state state, int64_t urls_expire_at,
                                    int64_t later_ms)
{
    struct answer a;
    snapshot_unref(shown);
    shown = made(state, urls_expire_at);
    facts.now.ms += later_ms;
    facts.now.date_ms += later_ms;
    answer_view(&a, &facts, shown, VIEW_NATIVE);
    assert_head_is_well_formed(&a);
    return a;
}

static int forget_shown(void **unused __attribute__((unused)))
{
    snapshot_unref(shown);
    return 0;
}

TEST(view_is_sent_unchanged)
{
    struct answer a = view_answer_of(facts_of(SOURCE_MEMORY), STATE_SUCCEEDED, 0, 0);
    assert_int_equal(a.status, 200);
    assert_body(&a, native);
    assert_header(&a, "Status", NULL); /* 200 */
    assert_header(&a, "Content-Type", "application/json");
    assert_header(&a, "Content-Length", "7");
    assert_header(&a, "X-Request-Id", "req-1");
    assert_header(&a, "Vary", "Accept, Prefer");
    answer_done(&a);
}

TEST(each_view_has_its_own_body_and_etag)
{
    struct answer a, b;
    struct answer_facts facts = facts_of(SOURCE_MEMORY);
    struct snapshot *s = made(STATE_SUCCEEDED, 0);
    answer_view(&a, &facts, s, VIEW_NATIVE);
    answer_view(&b, &facts, s, VIEW_UNIFIED);
    assert_body(&b, unified);
    assert_header(&a, "ETag", s->views[VIEW_NATIVE].etag);
    assert_header(&b, "ETag", s->views[VIEW_UNIFIED].etag);
    answer_done(&a);
    answer_done(&b);
    snapshot_unref(s);
}

TEST(cache_status_and_x_cache_show_the_origin)
{
    static const struct {
        enum answer_source source;
        bool stored;
        enum problem problem;
        const char *cache_status, *x_cache;
    } cases[] = {
        {SOURCE_MEMORY, false, PROBLEM_NONE, "taskproxy; hit; ttl=3590", "HIT"},
        {SOURCE_REDIS, false, PROBLEM_NONE, "taskproxy; hit; ttl=3590; detail=redis", "HIT"},
        {SOURCE_UPSTREAM, true, PROBLEM_NONE, "taskproxy; fwd=miss; stored", "MISS"},
        {SOURCE_UPSTREAM, false, PROBLEM_NONE, "taskproxy; fwd=miss", "MISS"},
        {SOURCE_COLLAPSED, true, PROBLEM_NONE, "taskproxy; fwd=miss; stored; collapsed", "COLLAPSED"},
        {SOURCE_STALE, false, PROBLEM_UPSTREAM_TIMEOUT, "taskproxy; fwd=stale; detail=upstream-timeout",
         "STALE"},
    };
    for (size_t i = 0; i < NELEMS(cases); i++) {
        struct answer_facts facts = facts_of(cases[i].source);
        facts.stored = cases[i].stored;
        facts.problem = cases[i].problem;
        struct answer a = view_answer_of(facts, STATE_SUCCEEDED, 0, 9500);
        assert_header(&a, "Cache-Status", cases[i].cache_status);
        assert_header(&a, "X-Cache", cases[i].x_cache);
        answer_done(&a);
    }
}

TEST(ended_task_is_cacheable_while_its_urls_work)
{
    struct answer a = view_answer_of(facts_of(SOURCE_MEMORY), STATE_SUCCEEDED, 0, 10999);
    assert_header(&a, "Cache-Control", "private, max-age=3599"); /* clients subtract the Age */
    assert_header(&a, "Age", "10");
    assert_header(&a, "Retry-After", NULL);
    answer_done(&a);
    a = view_answer_of(facts_of(SOURCE_MEMORY), STATE_SUCCEEDED, now / 1000 + 600, 0);
    assert_header(&a, "Cache-Control", "private, max-age=540");
    answer_done(&a);
}

TEST(max_age_never_exceeds_the_expiry_of_the_urls)
{
    struct answer a = view_answer_of(facts_of(SOURCE_UPSTREAM), STATE_SUCCEEDED, now / 1000 + 1, 0);
    assert_header(&a, "Cache-Control", "private, max-age=1");
    answer_done(&a);
    a = view_answer_of(facts_of(SOURCE_UPSTREAM), STATE_SUCCEEDED, now / 1000 - 5, 0);
    assert_header(&a, "Cache-Control", "private, max-age=0");
    answer_done(&a);
    a = view_answer_of(facts_of(SOURCE_UPSTREAM), STATE_SUCCEEDED, 5, 0);
    assert_header(&a, "Cache-Control", "private, max-age=0");
    answer_done(&a);
}

TEST(running_task_has_retry_after)
{
    struct answer a = view_answer_of(facts_of(SOURCE_UPSTREAM), STATE_RUNNING, 0, 0);
    assert_header(&a, "Cache-Control", "private, no-cache");
    assert_header(&a, "Retry-After", "2");
    answer_done(&a);
    a = view_answer_of(facts_of(SOURCE_MEMORY), STATE_QUEUED, 0, 1001);
    assert_header(&a, "Retry-After", "1");
    assert_header(&a, "Age", "1");
    answer_done(&a);
    a = view_answer_of(facts_of(SOURCE_STALE), STATE_RUNNING, 0, 500000);
    assert_header(&a, "Retry-After", "1");
    answer_done(&a);
}

TEST(stale_answer_is_not_cacheable)
{
    struct answer_facts facts = facts_of(SOURCE_STALE);
    facts.problem = PROBLEM_UPSTREAM_ERROR;
    struct answer a = view_answer_of(facts, STATE_SUCCEEDED, 0, 3700000);
    assert_header(&a, "Cache-Control", "private, no-cache");
    assert_header(&a, "Age", "3700");
    answer_done(&a);
}

TEST(age_does_not_depend_on_the_wall_clock)
{
    struct answer_facts facts = facts_of(SOURCE_MEMORY);
    for (int hours = -1; hours <= 1; hours++) {
        facts.now.date_ms = now + hours * 3600000LL;
        struct answer a = view_answer_of(facts, STATE_RUNNING, 0, 500);
        assert_header(&a, "Age", "0");
        assert_header(&a, "Retry-After", "2");
        answer_done(&a);
        a = view_answer_of(facts, STATE_SUCCEEDED, 0, 7000);
        assert_header(&a, "Age", "7");
        assert_header(&a, "Cache-Control", "private, max-age=3600");
        answer_done(&a);
    }
}

TEST(head_has_the_headers_and_no_body)
{
    struct answer_facts facts = facts_of(SOURCE_MEMORY);
    facts.head_only = true;
    struct answer a = view_answer_of(facts, STATE_SUCCEEDED, 0, 0);
    assert_int_equal(a.status, 200);
    assert_int_equal(body_len(&a.body), 0);
    assert_header(&a, "Content-Length", "7");
    answer_done(&a);
}

static int status_for(const char *if_none_match)
{
    struct answer_facts facts = facts_of(SOURCE_MEMORY);
    facts.if_none_match = if_none_match;
    struct answer a = view_answer_of(facts, STATE_SUCCEEDED, 0, 0);
    int status = a.status;
    if (status == 304) {
        assert_int_equal(body_len(&a.body), 0);
        assert_header(&a, "Content-Length", NULL);
        assert_header(&a, "Content-Type", NULL);
        assert_header(&a, "Cache-Control", "private, max-age=3600");
    }
    char *etag = header_of(&a, "ETag");
    assert_non_null(etag);
    free(etag);
    answer_done(&a);
    return status;
}

TEST(matching_etag_gives_304)
{
    struct snapshot *s = made(STATE_SUCCEEDED, 0);
    const char *etag = s->views[VIEW_NATIVE].etag;
    static const char *const matching[] = {"%s",     "W/%s",        "\"x\", %s", "\"x\",%s,\"y\"",
                                           " \t%s ", "\"x\" ,W/%s", "*",         " *"};
    static const char *const others[] = {"",  "\"\"",  "\"x\"", "W/\"x\"", ",,,",
                                         "x", "%.10s", "x%s",   "\"x%s",   "W/W/%s"};
    char text[200];
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    for (size_t i = 0; i < NELEMS(matching); i++) {
        snprintf(text, sizeof(text), matching[i], etag);
        assert_int_equal(status_for(text), 304);
    }
    for (size_t i = 0; i < NELEMS(others); i++) {
        snprintf(text, sizeof(text), others[i], etag);
        assert_int_equal(status_for(text), 200);
    }
#pragma GCC diagnostic pop
    assert_int_equal(status_for(NULL), 200);
    assert_int_equal(status_for(s->views[VIEW_UNIFIED].etag), 200);
    snapshot_unref(s);
}

static struct json_object *member_of(struct json_object *doc, const char *pointer)
{
    struct json_object *value = NULL;
    assert_int_equal(json_pointer_get(doc, pointer, &value), 0);
    return value;
}

TEST(every_problem_follows_rfc_9457_and_suits_sdks)
{
    for (int problem = PROBLEM_NONE + 1; problem < PROBLEM_COUNT; problem++) {
        struct answer_facts facts = facts_of(SOURCE_UPSTREAM);
        struct answer a;
        struct json_error error;
        facts.problem = (enum problem)problem;
        facts.request_id = "a\"b\\c";
        answer_problem(&a, &facts);
        assert_head_is_well_formed(&a);
        assert_int_equal(a.status, problem_status(facts.problem));
        assert_in_range(a.status, 400, 599);
        assert_null(strstr(a.head.data, "Unknown"));
        assert_header(&a, "Content-Type", "application/problem+json");
        assert_header(&a, "Cache-Control", "no-store");
        assert_header(&a, "Allow", problem_status(problem) == 405 ? "GET, HEAD" : NULL);
        struct json_object *doc = json_read(a.text.data, a.text.len, 4, JSON_PLAIN, &error);
        assert_non_null(doc);
        assert_int_equal(json_object_get_int(member_of(doc, "/status")), a.status);
        assert_string_equal(json_object_get_string(member_of(doc, "/code")), problem_code(facts.problem));
        assert_string_equal(json_object_get_string(member_of(doc, "/error/code")),
                            problem_code(facts.problem));
        assert_string_equal(json_object_get_string(member_of(doc, "/request_id")), "a\"b\\c");
        assert_string_equal(json_object_get_string(member_of(doc, "/message")),
                            json_object_get_string(member_of(doc, "/detail")));
        assert_string_equal(json_object_get_string(member_of(doc, "/error/message")),
                            json_object_get_string(member_of(doc, "/detail")));
        assert_int_equal(json_object_get_string_len(member_of(doc, "/title")) > 0, 1);
        member_of(doc, "/type");
        member_of(doc, "/error/type");
        json_object_put(doc);
        answer_done(&a);
    }
}

TEST(problem_has_retry_after)
{
    struct answer_facts facts = facts_of(SOURCE_UPSTREAM);
    struct answer a;
    facts.problem = PROBLEM_OVERLOADED;
    facts.retry_after_ms = 1001;
    answer_problem(&a, &facts);
    assert_header(&a, "Retry-After", "2");
    answer_done(&a);
    facts.retry_after_ms = 0;
    answer_problem(&a, &facts);
    assert_header(&a, "Retry-After", NULL);
    answer_done(&a);
}

TEST(head_of_a_problem_has_no_body)
{
    struct answer_facts facts = facts_of(SOURCE_UPSTREAM);
    struct answer a;
    facts.problem = PROBLEM_NOT_FOUND;
    facts.head_only = true;
    answer_problem(&a, &facts);
    assert_int_equal(body_len(&a.body), 0);
    assert_head_is_well_formed(&a);
    answer_done(&a);
}

TEST(list_has_views_and_problems_in_request_order)
{
    struct snapshot *running = made(STATE_RUNNING, 0), *ended = made(STATE_SUCCEEDED, 0);
    const struct answer_item items[] = {{.snapshot = running},
                                        {.problem = PROBLEM_TASK_NOT_FOUND},
                                        {.snapshot = ended},
                                        {.problem = PROBLEM_FORBIDDEN},
                                        {.snapshot = running}};
    struct answer_facts facts = facts_of(SOURCE_UPSTREAM);
    struct answer a, again;
    struct json_error error;
    answer_many(&a, &facts, items, NELEMS(items), VIEW_UNIFIED);
    assert_head_is_well_formed(&a);
    assert_header(&a, "Retry-After", "2");
    assert_header(&a, "Cache-Control", "private, no-cache");
    char *body = body_of(&a);
    struct json_object *doc = json_read(body, strlen(body), 8, JSON_PLAIN, &error);
    assert_int_equal(json_object_array_length(member_of(doc, "/tasks")), 5);
    assert_string_equal(json_object_get_string(member_of(doc, "/tasks/0/provider")), "p");
    assert_string_equal(json_object_get_string(member_of(doc, "/tasks/1/code")), "task_not_found");
    assert_string_equal(json_object_get_string(member_of(doc, "/tasks/3/code")), "forbidden");
    assert_string_equal(json_object_get_string(member_of(doc, "/tasks/4/provider")), "p");
    json_object_put(doc);
    free(body);
    char *etag = header_of(&a, "ETag");
    facts.if_none_match = etag;
    answer_many(&again, &facts, items, NELEMS(items), VIEW_UNIFIED);
    assert_int_equal(again.status, 304);
    assert_int_equal(body_len(&again.body), 0);
    free(etag);
    answer_done(&a);
    answer_done(&again);
    facts.if_none_match = NULL;
    facts.head_only = true;
    answer_many(&a, &facts, &items[1], 2, VIEW_UNIFIED);
    assert_header(&a, "Retry-After", NULL);
    assert_int_equal(body_len(&a.body), 0);
    answer_done(&a);
    snapshot_unref(running);
    snapshot_unref(ended);
}

/* The answer is repeatable, and has these values for its seconds; NULL: it is not. */
static void assert_seconds(const struct answer *a, const char *expected)
{
    static const char *const others[] = {"X-Request-Id", "X-Content-Type-Options", "X-Cache", "Age"};
    char *facts = header_of(a, "X-Taskproxy-Facts");
    if (facts != NULL)
        facts[strcspn(facts, ",")] = '\0';
    assert_string_equal(facts ? facts : "none", expected ? expected : "none");
    for (size_t i = 0; i < NELEMS(others); i++) {
        char *value = header_of(a, others[i]);
        assert_int_equal(value == NULL, expected != NULL);
        free(value);
    }
    free(facts);
}

static void assert_times(struct answer_facts facts, enum state state, int64_t later_ms, const char *expires,
                         const char *seconds)
{
    struct answer a = view_answer_of(facts, state, 0, later_ms);
    assert_header(&a, "X-Accel-Expires", expires);
    assert_seconds(&a, seconds);
    answer_done(&a);
}

TEST(repeatable_answer_has_the_headers_of_the_request_in_one)
{
    struct answer_facts facts = facts_of(SOURCE_UPSTREAM);
    facts.repeat_ms = 10000;
    facts.stored = true;
    struct answer a = view_answer_of(facts, STATE_RUNNING, 0, 0);
    assert_head_is_well_formed(&a);
    assert_header(&a, "X-Taskproxy-Facts", "6=0/2 7=1/1,MISS");
    assert_header(&a, "Cache-Status", "taskproxy; fwd=miss; stored");
    assert_header(&a, "Retry-After", NULL);
    answer_done(&a);
    facts.source = SOURCE_MEMORY;
    facts.team = "web";
    a = view_answer_of(facts, STATE_SUCCEEDED, 0, 3598999);
    assert_header(&a, "X-Taskproxy-Facts", "4=3598 5=3599,HIT");
    assert_header(&a, "X-Taskproxy-Team", "web");
    assert_header(&a, "Cache-Status", "taskproxy; hit; ttl=1");
    answer_done(&a);
}

TEST(repeatable_answer_has_an_expiry_and_the_values_of_each_second)
{
    struct answer_facts facts = facts_of(SOURCE_MEMORY); /* at the second 1736867746 */
    assert_times(facts, STATE_SUCCEEDED, 0, NULL, NULL);
    facts.repeat_ms = 1000;
    assert_times(facts, STATE_SUCCEEDED, 0, "@1736867746", "6=0");
    assert_times(facts, STATE_SUCCEEDED, 999, "@1736867746", "6=0");
    facts.repeat_ms = 10000;
    assert_times(facts, STATE_SUCCEEDED, 500, "@1736867755", "6=0 7=1 8=2 9=3 0=4 1=5 2=6 3=7 4=8 5=9");
    assert_times(facts, STATE_RUNNING, 0, "@1736867747", "6=0/2 7=1/1");
    assert_times(facts, STATE_RUNNING, 500, "@1736867747", "6=0/2 7=1/1");
    assert_times(facts, STATE_SUCCEEDED, 3598999, "@1736871345", "4=3598 5=3599");
}

TEST(answer_of_a_shared_query_is_not_repeatable)
{
    struct answer_facts facts = facts_of(SOURCE_COLLAPSED);
    facts.repeat_ms = 10000;
    assert_times(facts, STATE_SUCCEEDED, 0, NULL, NULL);
    facts.source = SOURCE_UPSTREAM;
    assert_times(facts, STATE_SUCCEEDED, 0, "@1736867755", "6=0 7=1 8=2 9=3 0=4 1=5 2=6 3=7 4=8 5=9");
}

TEST(answer_that_ends_within_the_second_or_is_stale_is_not_repeatable)
{
    struct answer_facts facts = facts_of(SOURCE_MEMORY);
    facts.repeat_ms = 10000;
    assert_times(facts, STATE_RUNNING, 1000, "@1736867747", "7=1/1");
    assert_times(facts, STATE_RUNNING, 1999, "@1736867747", "7=1/1");
    assert_times(facts, STATE_RUNNING, 2000, NULL, NULL);
    assert_times(facts, STATE_SUCCEEDED, 3600000, NULL, NULL);
    facts.now.date_ms += 500; /* the task changes in the middle of a second */
    assert_times(facts, STATE_RUNNING, 1500, NULL, NULL);
    facts.source = SOURCE_STALE;
    assert_times(facts, STATE_SUCCEEDED, 0, NULL, NULL);
}

TEST(repeatable_answer_is_whole_and_small)
{
    static const int sizes[] = {8192, 8193};
    for (size_t i = 0; i < NELEMS(sizes); i++) {
        struct answer_facts facts = facts_of(SOURCE_MEMORY);
        struct answer a;
        struct buf text;
        char etag[ETAG_SIZE];
        buf_init(&text, 16384);
        buf_addf(&text, "%*s", sizes[i], "x");
        etag_of(text.data, text.len, etag);
        facts.repeat_ms = 1000;
        facts.if_none_match = etag;
        struct snapshot *s = made(STATE_SUCCEEDED, 0);
        answer_part(&a, &facts, s, 200, &text);
        assert_int_equal(a.status, sizes[i] == 8192 ? 200 : 304);
        answer_done(&a);
        snapshot_unref(s);
    }
}

TEST(list_is_repeatable_if_all_tasks_have_a_view)
{
    struct snapshot *running = made(STATE_RUNNING, 0), *ended = made(STATE_SUCCEEDED, 0);
    const struct answer_item items[] = {
        {.snapshot = ended}, {.snapshot = running}, {.problem = PROBLEM_TASK_NOT_FOUND}};
    struct answer_facts facts = facts_of(SOURCE_MEMORY);
    facts.repeat_ms = 10000;
    for (size_t n = 1; n <= NELEMS(items); n++) {
        static const char *const times[] = {NULL, "6=0 7=1 8=2 9=3 0=4 1=5 2=6 3=7 4=8 5=9", "6=0/2 7=1/1",
                                            NULL};
        struct answer a;
        answer_many(&a, &facts, items, n, VIEW_UNIFIED);
        assert_seconds(&a, times[n]);
        answer_done(&a);
    }
    snapshot_unref(running);
    snapshot_unref(ended);
}

TEST(plain_text_is_sent_with_its_type)
{
    struct answer_facts facts = facts_of(SOURCE_MEMORY);
    struct answer a;
    struct buf text;
    buf_init(&text, 100);
    buf_puts(&text, "ok\n");
    answer_text(&a, &facts, 503, "text/plain", &text);
    assert_head_is_well_formed(&a);
    assert_memory_equal(a.head.data, "Status: 503 Service Unavailable\r\n", 33);
    assert_header(&a, "Content-Type", "text/plain");
    assert_body(&a, "ok\n");
    answer_done(&a);
    buf_done(&text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(view_is_sent_unchanged),
        cmocka_unit_test(each_view_has_its_own_body_and_etag),
        cmocka_unit_test(cache_status_and_x_cache_show_the_origin),
        cmocka_unit_test(ended_task_is_cacheable_while_its_urls_work),
        cmocka_unit_test(max_age_never_exceeds_the_expiry_of_the_urls),
        cmocka_unit_test(running_task_has_retry_after),
        cmocka_unit_test(stale_answer_is_not_cacheable),
        cmocka_unit_test(age_does_not_depend_on_the_wall_clock),
        cmocka_unit_test(head_has_the_headers_and_no_body),
        cmocka_unit_test(matching_etag_gives_304),
        cmocka_unit_test(every_problem_follows_rfc_9457_and_suits_sdks),
        cmocka_unit_test(problem_has_retry_after),
        cmocka_unit_test(head_of_a_problem_has_no_body),
        cmocka_unit_test(list_has_views_and_problems_in_request_order),
        cmocka_unit_test(plain_text_is_sent_with_its_type),
        cmocka_unit_test(repeatable_answer_has_the_headers_of_the_request_in_one),
        cmocka_unit_test(repeatable_answer_has_an_expiry_and_the_values_of_each_second),
        cmocka_unit_test(answer_of_a_shared_query_is_not_repeatable),
        cmocka_unit_test(answer_that_ends_within_the_second_or_is_stale_is_not_repeatable),
        cmocka_unit_test(repeatable_answer_is_whole_and_small),
        cmocka_unit_test(list_is_repeatable_if_all_tasks_have_a_view),
    };
    return cmocka_run_group_tests_name("answer", tests, NULL, forget_shown);
}
