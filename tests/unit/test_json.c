/* Valid and invalid JSON, and the line of an error in a file. */
#include "unit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "lib/buf.h"
#include "lib/json.h"

enum { DEPTH = 32 };

static struct json_object *read_text(const char *text, enum json_form form, struct json_error *ret_error)
{
    /* Exactly as long as the text, so that the sanitizer detects reads past the end. */
    size_t len = strlen(text);
    char *exact = malloc(len > 0 ? len : 1);
    memcpy(exact, text, len);
    struct json_object *doc = json_read(exact, len, DEPTH, form, ret_error);
    free(exact);
    return doc;
}

static void assert_taken(const char *text)
{
    struct json_error error;
    struct json_object *doc = read_text(text, JSON_PLAIN, &error);
    if (doc == NULL)
        fail_msg("%s: %s", text, error.why);
    json_object_put(doc);
}

static void assert_refused(const char *text)
{
    struct json_error error;
    struct json_object *doc = read_text(text, JSON_PLAIN, &error);
    if (doc != NULL || error.why == NULL || error.line == 0)
        fail_msg("%s: taken, or refused without a reason and a line", text);
}

TEST(valid_rfc_8259_documents_are_accepted)
{
    static const char *const good[] = {"{}",
                                       "[]",
                                       " \t\r\n{ } \n",
                                       "[null,true,false]",
                                       "[0,-0,10,-1,0.5,1e5,1E+5,1.25e-3]",
                                       "[\"\"]",
                                       "[\"\\\"\\\\\\/\\b\\f\\n\\r\\t\\u00e9\"]",
                                       "[\"\\ud83d\\ude00\"]",
                                       "[\"\xf0\x9f\x98\x80\"]",
                                       "{\"\":{}}",
                                       "[9223372036854775807,-9223372036854775808,18446744073709551615]",
                                       "{\"a\":{\"b\":1},\"b\":{\"b\":1}}",
                                       "{\"A\":1,\"a\":2}"};
    for (size_t i = 0; i < NELEMS(good); i++)
        assert_taken(good[i]);
}

TEST(invalid_json_is_rejected_with_reason_and_line)
{
    static const char *const bad[] = {"",
                                      " ",
                                      "{",
                                      "[",
                                      "}",
                                      "]",
                                      "[1",
                                      "[1,",
                                      "[1,]",
                                      "[,1]",
                                      "{\"a\"}",
                                      "{\"a\":}",
                                      "{\"a\":1,}",
                                      "{,}",
                                      "{a:1}",
                                      "{'a':1}",
                                      "['a']",
                                      "[1 2]",
                                      "{}{}",
                                      "[] x",
                                      "[1]]",
                                      "{\"a\"::1}",
                                      "{\"a\" 1}",
                                      "[tru]",
                                      "[True]",
                                      "[TRUE]",
                                      "[FALSE]",
                                      "[nul]",
                                      "[Null]",
                                      "[truefalse]",
                                      "[nulll]",
                                      "[NaN]",
                                      "[nan]",
                                      "[Infinity]",
                                      "[-Infinity]",
                                      "[-]",
                                      "[+1]",
                                      "[01]",
                                      "[-01]",
                                      "[1.]",
                                      "[.5]",
                                      "[1e]",
                                      "[1e+]",
                                      "[0x10]",
                                      "[1_000]",
                                      "[\"",
                                      "[\"a]",
                                      "[\"\t\"]",
                                      "[\"\n\"]",
                                      "[\"\\x41\"]",
                                      "[\"\\u12\"]",
                                      "[\"\\u12g4\"]",
                                      "[\"\\",
                                      "[\"\\u",
                                      "[1-1]",
                                      "[1.2.3]",
                                      "[1\"a\"]",
                                      "[\"a\"\"b\"]",
                                      "{\"a\":1}}",
                                      "{\"a\":[1,]}",
                                      "[{\"a\":1,}]",
                                      "[1,/**/]",
                                      "[\"a\"]\v",
                                      "[1\f]",
                                      "[] nonsense",
                                      "[]\n,",
                                      "/* c */[]",
                                      "[] // c",
                                      "\xef\xbb\xbf{}"};
    for (size_t i = 0; i < NELEMS(bad); i++)
        assert_refused(bad[i]);
}

/* A parser of RFC 8259 over one-byte tokens, where 's' is a string: the position after the value at `at`, or NULL. */
static const char *grammar_value(const char *at);

static const char *grammar_member(const char *at, char close)
{
    if (close == '}')
        at = at[0] == 's' && at[1] == ':' ? at + 2 : NULL;
    return at ? grammar_value(at) : NULL;
}

static const char *grammar_container(const char *at, char close)
{
    if (*at == close)
        return at + 1;
    for (;;) {
        at = grammar_member(at, close);
        if (at == NULL || (*at != ',' && *at != close))
            return NULL;
        if (*at++ == close)
            return at;
    }
}

static const char *grammar_value(const char *at)
{
    switch (*at) {
    case 's':
        return at + 1;
    case '{':
        return grammar_container(at + 1, '}');
    case '[':
        return grammar_container(at + 1, ']');
    default:
        return NULL;
    }
}

static bool is_document(const char *tokens)
{
    const char *end = grammar_value(tokens);
    return end != NULL && *end == '\0' && *tokens != 's';
}

/* Every string has a different letter, so no key is repeated. */
static void spell(const char *tokens, char *out)
{
    for (size_t i = 0; tokens[i] != '\0'; i++)
        out +=
            sprintf(out, tokens[i] == 's' ? "\"%c\" " : "%c ", tokens[i] == 's' ? (int)('a' + i) : tokens[i]);
}

/* Checks all sequences that begin with these tokens; returns the number of documents. */
static size_t judge_all(char *tokens, size_t len, size_t longest)
{
    static const char alphabet[] = "{}[],:s";
    char text[64] = "";
    size_t documents = 0;
    spell(tokens, text);
    if (is_document(tokens)) {
        assert_taken(text);
        documents++;
    } else {
        assert_refused(text);
    }
    for (const char *next = alphabet; *next != '\0' && len < longest; next++) {
        tokens[len] = *next;
        documents += judge_all(tokens, len + 1, longest);
        tokens[len] = '\0';
    }
    return documents;
}

TEST(every_sequence_of_up_to_six_tokens_follows_rfc_8259)
{
    char tokens[8] = "";
    assert_int_equal(judge_all(tokens, 0, 6), 16);
}

TEST(lone_value_is_a_document_or_has_a_reason)
{
    static const char *const lone[] = {"null", "true", "1", "\"a\"", "-1.5e3", "nul", "1x", "", " "};
    for (size_t i = 0; i < NELEMS(lone); i++) {
        struct json_error error;
        struct json_object *doc = read_text(lone[i], JSON_PLAIN, &error);
        if (doc == NULL && (error.why == NULL || strcmp(error.why, "continue") == 0))
            fail_msg("%s: neither a document nor a reason", lone[i]);
        json_object_put(doc);
    }
}

TEST(lone_surrogates_are_rejected)
{
    assert_refused("[\"\\ud83d\"]");
    assert_refused("[\"\\ud83dx\"]");
    assert_refused("[\"\\ud83d\\n\"]");
    assert_refused("[\"\\ud83d\\ud83d\"]");
    assert_refused("[\"\\ude00\"]");
    assert_refused("[\"\\ude00\\ud83d\"]");
    assert_refused("[\"\\ud83d\\u0041\"]");
}

TEST(invalid_utf_8_is_rejected)
{
    assert_refused("[\"\xff\"]");
    assert_refused("[\"\xc3\"]");
    assert_refused("[\"\xc0\x80\"]");
    assert_refused("[\"\xed\xa0\x80\"]");
    assert_refused("[\"\xf5\x80\x80\x80\"]");
    assert_refused("{\"\xff\":1}");
}

TEST(nul_byte_does_not_end_a_document)
{
    static const char inside[] = "[\"a\0b\"]", behind[] = "[1]\0", between[] = "[1]\0[2]";
    struct json_error error;
    assert_null(json_read(inside, sizeof(inside) - 1, DEPTH, JSON_PLAIN, &error));
    assert_null(json_read(behind, sizeof(behind) - 1, DEPTH, JSON_PLAIN, &error));
    assert_null(json_read(between, sizeof(between) - 1, DEPTH, JSON_PLAIN, &error));
    assert_non_null(error.why);
}

TEST(out_of_range_integers_are_rejected)
{
    assert_refused("[18446744073709551616]");
    assert_refused("[-9223372036854775809]");
    assert_refused("[100000000000000000000000000000000000000]");
    assert_taken("[1e400]"); /* a double keeps its text, whatever its value */
}

TEST(numbers_keep_their_text)
{
    static const char text[] = "[1.10,1e5,0.1000,5.0,1.7976931348623157e308,18446744073709551615]";
    struct json_error error;
    struct json_object *doc = read_text(text, JSON_PLAIN, &error);
    assert_string_equal(json_object_to_json_string_ext(doc, JSON_C_TO_STRING_PLAIN), text);
    json_object_put(doc);
}

TEST(duplicate_key_is_rejected_at_any_depth)
{
    struct json_error error;
    assert_refused("{\"a\":1,\"b\":2,\"a\":3}");
    assert_refused("[{},{\"x\":[{\"k\":1,\"k\":1}]}]");
    assert_refused("{\"\":1,\"\":1}");
    assert_null(read_text("{\"a\":1,\"\\u0061\":2}", JSON_PLAIN, &error));
    assert_string_equal(error.why, "a duplicate key");
    assert_null(read_text("{\"a\":1,\n\"a\":2,\n\"a\":3}", JSON_PLAIN, &error));
    assert_int_equal(error.line, 2);
}

TEST(duplicate_key_in_a_configuration_file_is_reported_with_its_line)
{
    struct json_error error;
    assert_null(read_text("{\"a\":1, // a\n\"b\":2,\n\"a\":3}", JSON_WITH_COMMENTS, &error));
    assert_string_equal(error.why, "a duplicate key");
    assert_int_equal(error.line, 3);
    assert_null(read_text("[{},{\"x\":[{\"k\":1,\n\"k\":1}]}]", JSON_WITH_COMMENTS, &error));
    assert_int_equal(error.line, 2);
}

TEST(key_with_a_nul_is_rejected)
{
    assert_refused("{\"a\\u0000b\":1}");
    assert_refused("{\"a\\u0000b\":1,\"a\":2}");
    assert_refused("{\"a\\u0000b\":1,\"a\\u0000c\":2}");
}

static char *nested(size_t depth, const char *open, const char *innermost, const char *close)
{
    struct buf b;
    buf_init(&b, 1 << 20);
    for (size_t i = 0; i < depth; i++)
        buf_puts(&b, open);
    buf_puts(&b, innermost);
    for (size_t i = 0; i < depth; i++)
        buf_puts(&b, close);
    return b.data;
}

static void assert_nested_refused(size_t depth, const char *close)
{
    char *text = nested(depth, "[", "", close);
    assert_refused(text);
    free(text);
}

TEST(nesting_limit_is_exact)
{
    char *empty = nested(DEPTH, "[", "", "]"), *full = nested(DEPTH, "[", "0,\"a\"", "]");
    assert_taken(empty);
    assert_taken(full); /* only containers count as levels */
    free(empty);
    free(full);
    assert_nested_refused(DEPTH + 1, "]");
    assert_nested_refused(10000, "]");
    assert_nested_refused(10000, "");
}

/* {"k0":0,"k1":0,...}, the last one twice. */
static struct buf many_keys(size_t n)
{
    struct buf b;
    buf_init(&b, 1 << 24);
    for (size_t i = 0; i < n; i++)
        buf_addf(&b, "%c\"k%zu\":0", i > 0 ? ',' : '{', i);
    buf_addf(&b, ",\"k%zu\":0}", n - 1);
    return b;
}

/* Processor time, in clock ticks. */
static clock_t time_to_refuse(size_t keys)
{
    struct buf b = many_keys(keys);
    struct json_error error;
    clock_t start = clock();
    assert_null(json_read(b.data, b.len, DEPTH, JSON_PLAIN, &error));
    clock_t end = clock();
    buf_done(&b);
    return end - start;
}

TEST(duplicate_among_many_keys_is_found_in_linear_time)
{
    assert_true(time_to_refuse(200000) < 64 * time_to_refuse(12500)); /* quadratic: 256 times as long */
}

TEST(configuration_files_may_have_comments)
{
    struct json_error error;
    struct json_object *doc =
        read_text("// one\n{ /* two\n */ \"a\": \"/* no */ // no\", // three\n\"b\": 1 }\n// four",
                  JSON_WITH_COMMENTS, &error);
    assert_non_null(doc);
    struct json_object *value = NULL;
    assert_true(json_object_object_get_ex(doc, "a", &value));
    assert_string_equal(json_object_get_string(value), "/* no */ // no");
    json_object_put(doc);
}

TEST(unterminated_comments_and_json5_are_rejected_with_the_line)
{
    static const char *const bad[] = {"\n{} /*", "\n{} /* *", "\n{} #",      "\n{} /",
                                      "\n/",     "\n{'a':1}", "\n{\"a\":1,}"};
    for (size_t i = 0; i < NELEMS(bad); i++) {
        struct json_error error;
        assert_null(read_text(bad[i], JSON_WITH_COMMENTS, &error));
        assert_int_equal(error.line, 2);
    }
}

TEST(line_of_a_value_is_found_by_its_pointer)
{
    static const char text[] = "{\n \"a\": {\n  \"b\": [1,\n   2,\n   {\"c\":\n3}]\n },\n // x\n \"d\": 4\n}";
    static const struct {
        const char *pointer;
        size_t line;
    } places[] = {{"", 1}, {"/a", 2}, {"/a/b", 3}, {"/a/b/1", 4}, {"/a/b/2", 5}, {"/a/b/2/c", 6}, {"/d", 9}};
    for (size_t i = 0; i < NELEMS(places); i++)
        assert_int_equal(json_line_of(text, strlen(text), places[i].pointer), places[i].line);
}

TEST(pointer_to_nothing_gives_some_line_of_the_text)
{
    static const char text[] = "{\n\"a\": [1,\n2]\n}";
    static const char *const pointers[] = {"/x",  "/a/9", "/a/x", "/a/0/y",
                                           "/a/", "//",   "x",    "/a/18446744073709551617"};
    for (size_t i = 0; i < NELEMS(pointers); i++)
        assert_in_range(json_line_of(text, strlen(text), pointers[i]), 1, 4);
}

TEST(path_is_parsed_as_in_rfc_6901)
{
    struct json_path path;
    assert_int_equal(json_path_init(&path, "/a~1b/m~0n/*//0"), 0);
    assert_int_equal(path.n_segments, 5);
    assert_string_equal(path.segments[0], "a/b");
    assert_string_equal(path.segments[1], "m~n");
    assert_true(json_path_is_star(&path, 2));
    assert_false(json_path_is_star(&path, 1));
    assert_string_equal(path.segments[3], "");
    assert_string_equal(path.text, "/a~1b/m~0n/*//0");
    json_path_done(&path);
    json_path_done(&path);
}

TEST(malformed_path_is_rejected)
{
    static const char *const bad[] = {
        "", "a", "a/b", "/~", "/~2", "/a~", "/1/2/3/4/5/6/7/8/9/10/11/12/13/14/15/16/17"};
    struct json_path path;
    for (size_t i = 0; i < NELEMS(bad); i++)
        assert_int_equal(json_path_init(&path, bad[i]), -1);
    assert_int_equal(json_path_init(&path, "/1/2/3/4/5/6/7/8/9/10/11/12/13/14/15/16"), 0);
    json_path_done(&path);
}

static const char *at(struct json_object *doc, const char *pointer, const size_t *indices)
{
    struct json_path path;
    struct json_object *value = NULL;
    assert_int_equal(json_path_init(&path, pointer), 0);
    bool found = json_at(doc, &path, indices, &value);
    json_path_done(&path);
    return found ? json_object_to_json_string_ext(value, JSON_C_TO_STRING_PLAIN) : NULL;
}

TEST(path_traverses_objects_arrays_and_stars)
{
    struct json_error error;
    struct json_object *doc = read_text(
        "{\"a\":[{\"b\":[1,2]},{\"b\":[3,4]}],\"n\":null,\"0\":{\"*\":5},\"t\":\"x\"}", JSON_PLAIN, &error);
    const size_t second_first[] = {1, 0}, far[] = {7, 7};
    assert_string_equal(at(doc, "/a/1/b/1", NULL), "4");
    assert_string_equal(at(doc, "/a/*/b/*", NULL), "1");
    assert_string_equal(at(doc, "/a/*/b/*", second_first), "3");
    assert_string_equal(at(doc, "/n", NULL), "null");
    assert_null(at(doc, "/a/*/b/*", far));
    assert_null(at(doc, "/a/2", NULL));
    assert_null(at(doc, "/a/-1", NULL));
    assert_null(at(doc, "/a/x", NULL));
    assert_null(at(doc, "/a/99999999999999999999", NULL));
    assert_null(at(doc, "/0/*", NULL)); /* a star is for arrays only */
    assert_null(at(doc, "/t/0", NULL));
    assert_null(at(doc, "/n/a", NULL));
    assert_null(at(NULL, "/a", NULL));
    json_object_put(doc);
}

TEST(text_of_a_value_requires_a_string_without_nul)
{
    struct json_error error;
    struct json_object *doc = read_text("[\"a\",\"\",\"a\\u0000b\",1,null,[]]", JSON_PLAIN, &error);
    assert_string_equal(json_text(json_object_array_get_idx(doc, 0)), "a");
    assert_string_equal(json_text(json_object_array_get_idx(doc, 1)), "");
    for (size_t i = 2; i < 6; i++)
        assert_null(json_text(json_object_array_get_idx(doc, i)));
    json_object_put(doc);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(valid_rfc_8259_documents_are_accepted),
        cmocka_unit_test(invalid_json_is_rejected_with_reason_and_line),
        cmocka_unit_test(every_sequence_of_up_to_six_tokens_follows_rfc_8259),
        cmocka_unit_test(lone_value_is_a_document_or_has_a_reason),
        cmocka_unit_test(lone_surrogates_are_rejected),
        cmocka_unit_test(invalid_utf_8_is_rejected),
        cmocka_unit_test(nul_byte_does_not_end_a_document),
        cmocka_unit_test(out_of_range_integers_are_rejected),
        cmocka_unit_test(numbers_keep_their_text),
        cmocka_unit_test(duplicate_key_is_rejected_at_any_depth),
        cmocka_unit_test(duplicate_key_in_a_configuration_file_is_reported_with_its_line),
        cmocka_unit_test(key_with_a_nul_is_rejected),
        cmocka_unit_test(nesting_limit_is_exact),
        cmocka_unit_test(duplicate_among_many_keys_is_found_in_linear_time),
        cmocka_unit_test(configuration_files_may_have_comments),
        cmocka_unit_test(unterminated_comments_and_json5_are_rejected_with_the_line),
        cmocka_unit_test(line_of_a_value_is_found_by_its_pointer),
        cmocka_unit_test(pointer_to_nothing_gives_some_line_of_the_text),
        cmocka_unit_test(path_is_parsed_as_in_rfc_6901),
        cmocka_unit_test(malformed_path_is_rejected),
        cmocka_unit_test(path_traverses_objects_arrays_and_stars),
        cmocka_unit_test(text_of_a_value_requires_a_string_without_nul),
    };
    return cmocka_run_group_tests_name("json", tests, NULL, NULL);
}
