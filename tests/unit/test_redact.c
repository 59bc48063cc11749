/* Secrets that the upstream repeats are removed. */
#include "unit.h"

#include <string.h>

#include "upstream/view.h"

static void assert_redacted(const struct secrets *secrets, const char *text, size_t len, const char *expected)
{
    struct buf out;
    buf_init(&out, 4096);
    view_add_string(&out, text, len, secrets);
    assert_false(out.failed);
    assert_string_equal(out.data, expected);
    buf_done(&out);
}

#define REDACTED(secrets, text, expected) assert_redacted(secrets, text, sizeof(text) - 1, expected)

TEST(text_without_a_secret_is_unchanged)
{
    const struct secrets key = {.items = {"sk-12345678"}}, none = {0};
    REDACTED(&key, "", "\"\"");
    REDACTED(&key, "sk-1234567", "\"sk-1234567\"");
    REDACTED(&key, "a \"quote\"", "\"a \\\"quote\\\"\"");
    REDACTED(&none, "sk-12345678", "\"sk-12345678\"");
    REDACTED(NULL, "sk-12345678", "\"sk-12345678\"");
}

TEST(secret_is_replaced_everywhere)
{
    const struct secrets key = {.items = {"sk-12345678"}};
    REDACTED(&key, "sk-12345678", "\"[redacted]\"");
    REDACTED(&key, "Bearer sk-12345678 was wrong", "\"Bearer [redacted] was wrong\"");
    REDACTED(&key, "sk-12345678sk-12345678", "\"[redacted][redacted]\"");
    REDACTED(&key, "sk-sk-12345678", "\"sk-[redacted]\"");
    REDACTED(&key, "a\0sk-12345678\0b", "\"a\\u0000[redacted]\\u0000b\"");
}

TEST(redaction_does_not_create_a_new_secret)
{
    const struct secrets key = {.items = {"aab"}};
    REDACTED(&key, "aaabb", "\"a[redacted]b\"");
}

TEST(json_escaped_secret_is_found)
{
    const struct secrets key = {.items = {"a\"b\\c/d"}};
    REDACTED(&key, "x a\"b\\c/d y", "\"x [redacted] y\"");
}

TEST(longer_of_two_secrets_with_a_common_prefix_is_replaced)
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

TEST(empty_secret_is_ignored)
{
    const struct secrets empty = {.items = {"", "key-1"}};
    REDACTED(&empty, "abc key-1", "\"abc [redacted]\"");
}

TEST(full_buffer_fails_without_a_part_of_the_secret)
{
    const struct secrets key = {.items = {"sk-12345678"}};
    struct buf out;
    buf_init(&out, 8);
    view_add_string(&out, "sk-12345678", 11, &key);
    assert_true(out.failed);
    assert_true(out.data == NULL || strstr(out.data, "sk-") == NULL);
    buf_done(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(text_without_a_secret_is_unchanged),
        cmocka_unit_test(secret_is_replaced_everywhere),
        cmocka_unit_test(redaction_does_not_create_a_new_secret),
        cmocka_unit_test(json_escaped_secret_is_found),
        cmocka_unit_test(longer_of_two_secrets_with_a_common_prefix_is_replaced),
        cmocka_unit_test(each_of_several_secrets_is_replaced),
        cmocka_unit_test(empty_secret_is_ignored),
        cmocka_unit_test(full_buffer_fails_without_a_part_of_the_secret),
    };
    return cmocka_run_group_tests_name("redact", tests, NULL, NULL);
}
