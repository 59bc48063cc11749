/* A secret that the upstream repeats does not come out. */
#include "unit.h"

#include <string.h>

#include "task/redact.h"

static void assert_redacted(const struct secrets *secrets, const char *text, size_t len, const char *expected)
{
    struct buf out;
    buf_init(&out, 4096);
    redact_json_string(&out, text, len, secrets);
    assert_false(out.failed);
    assert_string_equal(out.data, expected);
    buf_done(&out);
}

#define REDACTED(secrets, text, expected) assert_redacted(secrets, text, sizeof(text) - 1, expected)

TEST(text_without_a_secret_stays_as_it_is)
{
    const struct secrets key = {.items = {"sk-12345678"}}, none = {0};
    REDACTED(&key, "", "\"\"");
    REDACTED(&key, "sk-1234567", "\"sk-1234567\"");
    REDACTED(&key, "a \"quote\"", "\"a \\\"quote\\\"\"");
    REDACTED(&none, "sk-12345678", "\"sk-12345678\"");
    REDACTED(NULL, "sk-12345678", "\"sk-12345678\"");
}

TEST(a_secret_is_replaced_wherever_it_stands)
{
    const struct secrets key = {.items = {"sk-12345678"}};
    REDACTED(&key, "sk-12345678", "\"[redacted]\"");
    REDACTED(&key, "Bearer sk-12345678 was wrong", "\"Bearer [redacted] was wrong\"");
    REDACTED(&key, "sk-12345678sk-12345678", "\"[redacted][redacted]\"");
    REDACTED(&key, "sk-sk-12345678", "\"sk-[redacted]\"");
    REDACTED(&key, "a\0sk-12345678\0b", "\"a\\u0000[redacted]\\u0000b\"");
}

TEST(what_redacting_leaves_is_no_secret_again)
{
    const struct secrets key = {.items = {"aab"}};
    REDACTED(&key, "aaabb", "\"a[redacted]b\"");
}

TEST(a_secret_that_json_would_escape_is_found)
{
    const struct secrets key = {.items = {"a\"b\\c/d"}};
    REDACTED(&key, "x a\"b\\c/d y", "\"x [redacted] y\"");
}

TEST(of_two_secrets_that_begin_alike_the_longer_one_is_replaced)
{
    const struct secrets both = {.items = {"sk-12345678", "sk-12345678-and-more"}};
    REDACTED(&both, "sk-12345678-and-more", "\"[redacted]\"");
    REDACTED(&both, "sk-12345678-and", "\"[redacted]-and\"");
}

TEST(each_of_several_secrets_is_replaced)
{
    const struct secrets all = {.items = {"access:secret", "secret", "eyJhbGci.x.y"}};
    REDACTED(&all, "secret and eyJhbGci.x.y and access:secret",
             "\"[redacted] and [redacted] and [redacted]\"");
}

TEST(an_empty_secret_is_no_secret)
{
    const struct secrets empty = {.items = {"", "key-1"}};
    REDACTED(&empty, "abc key-1", "\"abc [redacted]\"");
}

TEST(a_buffer_that_is_full_fails_and_shows_no_part_of_the_secret)
{
    const struct secrets key = {.items = {"sk-12345678"}};
    struct buf out;
    buf_init(&out, 8);
    redact_json_string(&out, "sk-12345678", 11, &key);
    assert_true(out.failed);
    assert_true(out.data == NULL || strstr(out.data, "sk-") == NULL);
    buf_done(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(text_without_a_secret_stays_as_it_is),
        cmocka_unit_test(a_secret_is_replaced_wherever_it_stands),
        cmocka_unit_test(what_redacting_leaves_is_no_secret_again),
        cmocka_unit_test(a_secret_that_json_would_escape_is_found),
        cmocka_unit_test(of_two_secrets_that_begin_alike_the_longer_one_is_replaced),
        cmocka_unit_test(each_of_several_secrets_is_replaced),
        cmocka_unit_test(an_empty_secret_is_no_secret),
        cmocka_unit_test(a_buffer_that_is_full_fails_and_shows_no_part_of_the_secret),
    };
    return cmocka_run_group_tests_name("redact", tests, NULL, NULL);
}
