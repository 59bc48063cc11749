/* Headers of answers to teams: CORS, WWW-Authenticate, and quota. */
#include "unit.h"

#include <string.h>

#include "request/answer.h"

static const struct answer_facts facts = {.request_id = "req-1",
                                          .now = {5000, 1736867746000},
                                          .by_origin = true,
                                          .origin = "https://app.example.com"};

static void assert_line(const struct buf *head, const char *line)
{
    if (strstr(head->data, line) == NULL)
        fail_msg("no %s in\n%s", line, head->data);
}

static void assert_no_line(const struct buf *head, const char *line)
{
    if (strstr(head->data, line) != NULL)
        fail_msg("%s in\n%s", line, head->data);
}

static void assert_problem_line(struct answer_facts problem_facts, enum problem problem, const char *line)
{
    struct answer a;
    problem_facts.problem = problem;
    answer_problem(&a, &problem_facts);
    assert_line(&a.head, line);
    answer_done(&a);
}

TEST(allowed_origin_gets_cors_headers)
{
    assert_problem_line(facts, PROBLEM_FORBIDDEN, "\r\nVary: Accept, Prefer, Origin, Authorization\r\n");
    assert_problem_line(facts, PROBLEM_FORBIDDEN,
                        "\r\nAccess-Control-Allow-Origin: https://app.example.com\r\n"
                        "Access-Control-Allow-Credentials: true\r\nAccess-Control-Expose-Headers: Age, ");
}

TEST(other_origin_gets_no_cors_headers)
{
    struct answer a;
    struct answer_facts other = facts;
    other.origin = NULL;
    other.problem = PROBLEM_NO_CREDENTIAL;
    answer_problem(&a, &other);
    assert_line(&a.head, "\r\nVary: Accept, Prefer, Origin, Authorization\r\n");
    assert_no_line(&a.head, "Access-Control");
    answer_done(&a);
}

TEST(stream_has_cors_headers)
{
    struct buf head;
    answer_stream_head(&facts, &head);
    assert_line(&head, "\r\nVary: Accept, Prefer, Origin, Authorization\r\nAccess-Control-Allow-Origin: "
                       "https://app.example.com\r\n");
    assert_string_equal(head.data + head.len - 4, "\r\n\r\n");
    buf_done(&head);
}

TEST(missing_credential_gives_www_authenticate)
{
    struct answer a;
    struct answer_facts none = facts;
    assert_problem_line(facts, PROBLEM_NO_CREDENTIAL, "Status: 401 Unauthorized\r\n");
    assert_problem_line(facts, PROBLEM_WRONG_TOKEN, "\r\nWWW-Authenticate: Bearer realm=\"taskproxy\"\r\n");
    none.problem = PROBLEM_FORBIDDEN;
    answer_problem(&a, &none);
    assert_line(&a.head, "Status: 403 Forbidden\r\n");
    assert_no_line(&a.head, "WWW-Authenticate");
    answer_done(&a);
}

TEST(exhausted_quota_is_reported_with_its_limit)
{
    struct answer_facts limited = facts;
    limited.limit = 600;
    limited.retry_after_ms = 12001;
    assert_problem_line(limited, PROBLEM_RATE_LIMITED, "Status: 429 Too Many Requests\r\n");
    assert_problem_line(
        limited, PROBLEM_RATE_LIMITED,
        "\r\nRetry-After: 13\r\nRateLimit-Limit: 600\r\nRateLimit-Remaining: 0\r\nRateLimit-Reset: 13\r\n");
}

TEST(preflight_lists_the_allowed_headers)
{
    struct answer a;
    answer_preflight(&a, &facts, "authorization,if-none-match");
    assert_int_equal(a.status, 204);
    assert_int_equal(body_len(&a.body), 0);
    assert_line(&a.head, "\r\nAccess-Control-Allow-Methods: GET, HEAD\r\n");
    assert_line(&a.head, "\r\nAccess-Control-Allow-Headers: authorization,if-none-match\r\n");
    assert_string_equal(a.head.data + a.head.len - 4, "\r\n\r\n");
    answer_done(&a);
}

TEST(malformed_header_names_are_not_echoed)
{
    static char large[4000];
    static const char *const wanted[] = {NULL, "a\r\nSet-Cookie: b", "a:b", "a;b", "\xff", large};
    memset(large, 'a', sizeof(large) - 1);
    for (size_t i = 0; i < NELEMS(wanted); i++) {
        struct answer a;
        answer_preflight(&a, &facts, wanted[i]);
        assert_false(a.head.failed);
        assert_no_line(&a.head, "Allow-Headers");
        answer_done(&a);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(allowed_origin_gets_cors_headers),
        cmocka_unit_test(other_origin_gets_no_cors_headers),
        cmocka_unit_test(stream_has_cors_headers),
        cmocka_unit_test(missing_credential_gives_www_authenticate),
        cmocka_unit_test(exhausted_quota_is_reported_with_its_limit),
        cmocka_unit_test(preflight_lists_the_allowed_headers),
        cmocka_unit_test(malformed_header_names_are_not_echoed),
    };
    return cmocka_run_group_tests_name("answers to teams", tests, NULL, NULL);
}
