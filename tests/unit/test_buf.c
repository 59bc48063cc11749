/* Buffers respect their maximum, and JSON and percent-encoded output is well-formed. */
#include "unit.h"

#include <string.h>

#include "lib/buf.h"
#include "lib/json.h"

TEST(buffer_grows_up_to_its_maximum)
{
    struct buf b;
    buf_init(&b, 1000);
    for (int i = 0; i < 1000; i++)
        buf_putc(&b, 'x');
    assert_int_equal(b.len, 1000);
    assert_false(b.failed);
    buf_putc(&b, 'x');
    assert_true(b.failed);
    assert_int_equal(b.len, 1000);
    assert_int_equal(strlen(b.data), 1000);
    buf_done(&b);
}

TEST(oversized_addition_adds_nothing_and_blocks_later_ones)
{
    struct buf b;
    buf_init(&b, 4);
    buf_puts(&b, "abc");
    buf_puts(&b, "de");
    assert_true(b.failed);
    assert_string_equal(b.data, "abc");
    buf_putc(&b, 'd');
    assert_string_equal(b.data, "abc");
    buf_reset(&b);
    buf_puts(&b, "four");
    assert_false(b.failed);
    assert_string_equal(b.data, "four");
    buf_done(&b);
}

TEST(buffer_with_maximum_0_stays_empty)
{
    struct buf b;
    buf_init(&b, 0);
    buf_add(&b, NULL, 0);
    assert_false(b.failed);
    buf_addf(&b, "%s", "x");
    assert_true(b.failed);
    buf_done(&b);
    buf_done(&b);
}

TEST(huge_length_fails_without_overflow)
{
    struct buf b;
    volatile size_t huge = SIZE_MAX; /* the compiler would refuse a constant */
    buf_init(&b, SIZE_MAX - 1);
    buf_puts(&b, "x");
    b.max = 100;
    buf_add(&b, "y", huge);
    assert_true(b.failed);
    assert_string_equal(b.data, "x");
    buf_done(&b);
}

TEST(formatted_text_of_any_length_is_added_completely)
{
    char text[5000];
    struct buf b;
    memset(text, 'a', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    buf_init(&b, 2 * sizeof(text));
    for (int len = 505; len < 520; len++) { /* around the size of the small buffer on the stack */
        buf_reset(&b);
        buf_addf(&b, "%.*s", len, text);
        assert_int_equal(b.len, len);
        assert_int_equal(strlen(b.data), len);
    }
    buf_addf(&b, "%s", text);
    assert_false(b.failed);
    buf_addf(&b, "%s%s", text, text);
    assert_true(b.failed);
    buf_done(&b);
}

TEST(any_bytes_survive_a_json_string_round_trip)
{
    char bytes[128];
    struct buf b;
    struct json_error error;
    for (size_t i = 0; i < sizeof(bytes); i++)
        bytes[i] = (char)i;
    buf_init(&b, 4096);
    buf_putc(&b, '[');
    buf_add_json_string(&b, bytes, sizeof(bytes));
    buf_putc(&b, ']');
    struct json_object *doc = json_read(b.data, b.len, 4, JSON_PLAIN, &error);
    assert_non_null(doc);
    struct json_object *text = json_object_array_get_idx(doc, 0);
    assert_int_equal(json_object_get_string_len(text), sizeof(bytes));
    assert_memory_equal(json_object_get_string(text), bytes, sizeof(bytes));
    json_object_put(doc);
    buf_done(&b);
}

TEST(json_string_escapes_only_what_it_must)
{
    struct buf b;
    buf_init(&b, 256);
    buf_add_json_string(&b, "a/b\"c\\d\n\t\x01\x7f\xc3\xa9", 13);
    assert_string_equal(b.data, "\"a/b\\\"c\\\\d\\n\\t\\u0001\x7f\xc3\xa9\"");
    buf_reset(&b);
    buf_add_json_string(&b, "", 0);
    assert_string_equal(b.data, "\"\"");
    buf_done(&b);
}

TEST(percent_encoding_leaves_only_unreserved_characters)
{
    struct buf b;
    buf_init(&b, 256);
    buf_add_percent(&b, "aZ09-._~ /?#%\xc3\xa9");
    assert_string_equal(b.data, "aZ09-._~%20%2F%3F%23%25%C3%A9");
    buf_done(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(buffer_grows_up_to_its_maximum),
        cmocka_unit_test(oversized_addition_adds_nothing_and_blocks_later_ones),
        cmocka_unit_test(buffer_with_maximum_0_stays_empty),
        cmocka_unit_test(huge_length_fails_without_overflow),
        cmocka_unit_test(formatted_text_of_any_length_is_added_completely),
        cmocka_unit_test(any_bytes_survive_a_json_string_round_trip),
        cmocka_unit_test(json_string_escapes_only_what_it_must),
        cmocka_unit_test(percent_encoding_leaves_only_unreserved_characters),
    };
    return cmocka_run_group_tests_name("buf", tests, NULL, NULL);
}
