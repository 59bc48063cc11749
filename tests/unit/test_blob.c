/* Shared bytes, and bodies that consist of text and blobs. */
#include "unit.h"

#include <stdlib.h>
#include <string.h>

#include "lib/blob.h"
#include "lib/util.h"

static struct blob *one, *two, *none;

static int make_blobs(void **unused __attribute__((unused)))
{
    one = blob_new("<one>", 5);
    two = blob_new("<second>", 8);
    none = blob_new(NULL, 0);
    return 0;
}

static int free_blobs(void **unused __attribute__((unused)))
{
    blob_unref(one);
    blob_unref(two);
    blob_unref(none);
    return 0;
}

TEST(blob_is_a_copy_with_a_nul)
{
    char data[] = "bytes";
    struct blob *b = blob_new(data, 5);
    memcpy(data, "other", 5);
    assert_int_equal(b->len, 5);
    assert_string_equal(b->data, "bytes");
    assert_string_equal(none->data, "");
    blob_unref(b);
}

TEST(only_the_first_and_the_last_reader_change_the_memory_kept)
{
    assert_int_equal(blob_keep(one), 5);
    assert_int_equal(blob_keep(one), 0);
    assert_int_equal(blob_release(one), 0);
    assert_int_equal(blob_keep(one), 0);
    assert_int_equal(blob_release(one), 0);
    assert_int_equal(blob_release(one), 5);
    assert_int_equal(one->refs, 1);
}

TEST(readers_outlive_the_other_references)
{
    struct blob *b = blob_new("late", 4);
    assert_int_equal(blob_keep(b), 4);
    assert_int_equal(blob_keep(b), 0);
    blob_unref(b);
    assert_int_equal(blob_release(b), 0);
    assert_string_equal(b->data, "late");
    assert_int_equal(blob_release(b), 4);
}

/* Reads the rest of a body in steps of up to `max` bytes. Returns how many bytes it wrote. */
static size_t read_rest(const struct body *b, struct body_position *at, size_t max, char *out)
{
    size_t len = 0;
    while (!body_is_read(b, at)) {
        const char *data;
        size_t n = body_read(b, at, max, &data);
        assert_in_range(n, 0, max);
        memcpy(out + len, data, n);
        len += n;
    }
    return len;
}

/* Reads in steps of each length, and in two parts that meet at each byte. */
static void assert_reads(const struct body *b, const char *expected)
{
    size_t len = strlen(expected);
    assert_int_equal(body_len(b), len);
    for (size_t max = 1; max <= len + 1; max++) {
        char *out = xcalloc(len + 1, 1); /* so that the sanitizer finds a byte too many */
        struct body_position at = {0};
        assert_int_equal(read_rest(b, &at, max, out), len);
        assert_string_equal(out, expected);
        free(out);
    }
    struct body_position split = {0};
    for (size_t i = 0; i < len; i++) {
        const char *data;
        char *out = xcalloc(len + 1, 1);
        struct body_position at = split;
        assert_int_equal(read_rest(b, &at, len, out), len - i);
        assert_string_equal(out, expected + i);
        free(out);
        while (body_read(b, &split, 1, &data) == 0) /* an empty blob */
            ;
        assert_int_equal(*data, expected[i]);
    }
}

TEST(text_alone_is_read)
{
    assert_reads(&(struct body){.text = "text", .text_len = 4}, "text");
}

TEST(blobs_alone_are_read)
{
    const struct body_blob blobs[] = {{0, one}, {0, two}, {0, one}};
    assert_reads(&(struct body){NULL, 0, blobs, 1}, "<one>");
    assert_reads(&(struct body){NULL, 0, blobs, 3}, "<one><second><one>");
}

TEST(blobs_are_read_between_the_text)
{
    const struct body_blob blobs[] = {{1, one}, {2, two}, {3, one}};
    assert_reads(&(struct body){"[,]", 3, blobs, 2}, "[<one>,<second>]");
    assert_reads(&(struct body){"[,]", 3, blobs, 3}, "[<one>,<second>]<one>");
    const struct body_blob both_ends[] = {{0, two}, {2, one}, {4, two}};
    assert_reads(&(struct body){"text", 4, both_ends, 3}, "<second>te<one>xt<second>");
}

TEST(empty_blobs_are_skipped)
{
    const struct body_blob blobs[] = {{0, none}, {1, none}, {1, one}, {2, none}};
    assert_reads(&(struct body){"ab", 2, blobs, 3}, "a<one>b");
    assert_reads(&(struct body){"ab", 2, blobs, 4}, "a<one>b");
}

TEST(empty_body_has_no_bytes)
{
    const struct body_blob blobs[] = {{0, none}};
    struct body_position at = {0};
    assert_true(body_is_read(&(struct body){0}, &at));
    assert_int_equal(body_len(&(struct body){0}), 0);
    assert_reads(&(struct body){NULL, 0, blobs, 1}, "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(blob_is_a_copy_with_a_nul),
        cmocka_unit_test(only_the_first_and_the_last_reader_change_the_memory_kept),
        cmocka_unit_test(readers_outlive_the_other_references),
        cmocka_unit_test(text_alone_is_read),
        cmocka_unit_test(blobs_alone_are_read),
        cmocka_unit_test(blobs_are_read_between_the_text),
        cmocka_unit_test(empty_blobs_are_skipped),
        cmocka_unit_test(empty_body_has_no_bytes),
    };
    return cmocka_run_group_tests(tests, make_blobs, free_blobs);
}
