/* Paths with variables: parsing, matching and building, with percent-encoding. */
#include "unit.h"

#include <stdlib.h>
#include <string.h>

#include "config/pattern.h"

static struct grammar grammars[4];
static const char *const regexes[][2] = {{"task_id", "[A-Za-z0-9_-]{1,128}"},
                                         {"kind", "text2video|image2video"},
                                         {"owner", ".*"},
                                         {"app", "[a-z.]+"}};

static int make_grammars(void **unused __attribute__((unused)))
{
    for (size_t i = 0; i < NELEMS(grammars); i++) {
        if (grammar_init(&grammars[i], regexes[i][0], regexes[i][1]) < 0)
            return -1;
    }
    return 0;
}

static int free_grammars(void **unused __attribute__((unused)))
{
    for (size_t i = 0; i < NELEMS(grammars); i++)
        grammar_done(&grammars[i]);
    return 0;
}

static struct pattern pattern_of(const char *text)
{
    struct pattern pattern;
    const char *why = NULL;
    if (pattern_init(&pattern, text, grammars, NELEMS(grammars), &why) < 0)
        fail_msg("%s %s", text, why);
    return pattern;
}

static void assert_match(const struct pattern *pattern, const char *path, const char *query,
                         enum pattern_match expected, const char *expected_id)
{
    char id[TASK_ID_MAX];
    memset(id, 'x', sizeof(id));
    assert_int_equal(pattern_match(pattern, path, query, id), expected);
    if (expected_id != NULL)
        assert_string_equal(id, expected_id);
}

TEST(path_matches_when_its_value_matches_the_grammar)
{
    struct pattern p = pattern_of("/sora/v1/videos/{task_id}");
    assert_match(&p, "/sora/v1/videos/task_01", NULL, PATTERN_MATCHES, "task_01");
    assert_match(&p, "/sora/v1/videos/task_01", "a=b", PATTERN_MATCHES, "task_01");
    assert_match(&p, "/sora/v1/videos/%74ask%5f01", NULL, PATTERN_MATCHES, "task_01");
    pattern_done(&p);
}

TEST(other_path_does_not_match_whatever_its_values)
{
    static const char *const others[] = {"",
                                         "/",
                                         "sora/v1/videos/x",
                                         "/sora/v1/videos",
                                         "/sora/v1/videos/x/",
                                         "/sora/v1/videos/x/y",
                                         "/sora/v1/video/x",
                                         "/sora/v1/videosx/x",
                                         "/Sora/v1/videos/x",
                                         "//sora/v1/videos/x",
                                         "/sora/v1/videos/%%/y",
                                         "/sora/v%31/videos/x"};
    struct pattern p = pattern_of("/sora/v1/videos/{task_id}");
    for (size_t i = 0; i < NELEMS(others); i++)
        assert_match(&p, others[i], NULL, PATTERN_OTHER, NULL);
    pattern_done(&p);
}

TEST(value_outside_its_grammar_is_a_bad_id)
{
    static const char *const bad[] = {"",        "a b",       "a.b",  "..",  ".",     "a%2fb",
                                      "a%2Fb",   "%2e%2e",    "a%00", "%",   "%4",    "%4g",
                                      "a%0d%0a", "a\xc3\xa9", "a?b",  "a+b", "a%20b", "a;b"};
    struct pattern p = pattern_of("/t/{task_id}/status");
    for (size_t i = 0; i < NELEMS(bad); i++) {
        char *path = xasprintf("/t/%s/status", bad[i]);
        assert_match(&p, path, NULL, PATTERN_BAD_ID, NULL);
        free(path);
    }
    pattern_done(&p);
}

/* "/aaa…" of this many bytes, and perhaps a suffix. */
static enum pattern_match match_of_length(const char *pattern_text, size_t len, const char *rest)
{
    char id[TASK_ID_MAX];
    struct pattern pattern = pattern_of(pattern_text);
    struct buf path;
    buf_init(&path, 4096);
    buf_putc(&path, '/');
    while (path.len <= len)
        buf_putc(&path, 'a');
    buf_puts(&path, rest);
    enum pattern_match match = pattern_match(&pattern, path.data, NULL, id);
    buf_done(&path);
    pattern_done(&pattern);
    return match;
}

TEST(id_length_is_limited_by_grammar_and_buffer)
{
    assert_int_equal(match_of_length("/{task_id}", 128, ""), PATTERN_MATCHES);
    assert_int_equal(match_of_length("/{task_id}", 129, ""), PATTERN_BAD_ID);
    assert_int_equal(match_of_length("/{owner}/{task_id}", TASK_ID_MAX - 3, "/x"), PATTERN_MATCHES);
    assert_int_equal(match_of_length("/{owner}/{task_id}", TASK_ID_MAX - 2, "/x"), PATTERN_BAD_ID);
    assert_int_equal(match_of_length("/{owner}/{task_id}", 3000, "/x"), PATTERN_BAD_ID);
}

TEST(variables_form_one_id_in_path_order)
{
    struct pattern p = pattern_of("/{owner}/{app}/requests/{task_id}/status");
    struct buf out;
    buf_init(&out, 1024);
    assert_match(&p, "/fal-ai/pika/requests/ID-1/status", NULL, PATTERN_MATCHES, "fal-ai/pika/ID-1");
    assert_match(&p, "/fal%2Fai/pika/requests/ID-1/status", NULL, PATTERN_BAD_ID, NULL);
    pattern_build(&p, "fal-ai/pika/ID-1", &out);
    assert_string_equal(out.data, "/fal-ai/pika/requests/ID-1/status");
    buf_done(&out);
    pattern_done(&p);
}

TEST(variable_may_be_in_the_query)
{
    struct pattern p = pattern_of("/v1/query?type=a&task_id={task_id}");
    struct buf out;
    buf_init(&out, 1024);
    assert_match(&p, "/v1/query", "task_id=x1", PATTERN_MATCHES, "x1");
    assert_match(&p, "/v1/query", "a=b&task_id=x%31&c", PATTERN_MATCHES, "x1");
    assert_match(&p, "/v1/query", NULL, PATTERN_BAD_ID, NULL);
    assert_match(&p, "/v1/query", "", PATTERN_BAD_ID, NULL);
    assert_match(&p, "/v1/query", "task_id", PATTERN_BAD_ID, NULL);
    assert_match(&p, "/v1/query", "task_id=", PATTERN_BAD_ID, NULL);
    assert_match(&p, "/v1/query", "xtask_id=x1", PATTERN_BAD_ID, NULL);
    assert_match(&p, "/v1/query", "task_id=x1&task_id=x2", PATTERN_BAD_ID, NULL);
    assert_match(&p, "/v1/query", "task_id=%zz", PATTERN_BAD_ID, NULL);
    assert_match(&p, "/v1/other", "task_id=x1", PATTERN_OTHER, NULL);
    pattern_build(&p, "x1", &out);
    assert_string_equal(out.data, "/v1/query?type=a&task_id=x1");
    buf_done(&out);
    pattern_done(&p);
}

TEST(built_path_is_percent_encoded_and_matches_again)
{
    struct pattern p = pattern_of("/x/{owner}");
    struct buf out;
    buf_init(&out, 1024);
    pattern_build(&p, "a b?#%&=\xc3\xa9", &out);
    assert_string_equal(out.data, "/x/a%20b%3F%23%25%26%3D%C3%A9");
    assert_match(&p, out.data, NULL, PATTERN_MATCHES, "a b?#%&=\xc3\xa9");
    buf_done(&out);
    pattern_done(&p);
}

TEST(plain_id_must_match_all_variables)
{
    struct pattern one = pattern_of("/{task_id}"), two = pattern_of("/{kind}/{task_id}");
    assert_true(pattern_takes_id(&one, "x1"));
    assert_false(pattern_takes_id(&one, ""));
    assert_false(pattern_takes_id(&one, "x/1"));
    assert_false(pattern_takes_id(&one, "x1/"));
    assert_true(pattern_takes_id(&two, "text2video/x1"));
    assert_false(pattern_takes_id(&two, "x1"));
    assert_false(pattern_takes_id(&two, "x1/text2video"));
    assert_false(pattern_takes_id(&two, "text2video/"));
    assert_false(pattern_takes_id(&two, "/text2video/x1"));
    char long_id[2000] = "";
    memset(long_id, 'a', sizeof(long_id) - 1);
    assert_false(pattern_takes_id(&one, long_id));
    pattern_done(&one);
    pattern_done(&two);
}

TEST(malformed_pattern_is_refused_with_a_reason)
{
    static const char *const bad[] = {
        "",
        "x/{task_id}",
        "/",
        "/a/b",
        "/{nothing}",
        "/{task_id",
        "/{task_id}x",
        "/x{task_id}",
        "/{}",
        "/{task_id}/{task_id}",
        "/a%20b/{task_id}",
        "/a?{task_id}",
        "/a?=x&b={task_id}",
        "/a?task_id",
        "/a?b&task_id={task_id}",
        "/a#b/{task_id}",
        "/{task_id}?task_id={task_id}",
        "/1/2/3/4/5/6/7/8/9/10/11/12/13/14/15/16/{task_id}",
        "/{task_id}?1=1&2=2&3=3&4=4&5=5&6=6&7=7&8=8&9=9&10=10&11=11&12=12&13=13&14=14&15=15&16=16"};
    for (size_t i = 0; i < NELEMS(bad); i++) {
        struct pattern p;
        const char *why = NULL;
        if (pattern_init(&p, bad[i], grammars, NELEMS(grammars), &why) == 0)
            fail_msg("taken: %s", bad[i]);
        assert_non_null(why);
        pattern_done(&p);
    }
}

TEST(grammar_applies_to_the_whole_value)
{
    struct grammar alternatives = {0}, broken = {0};
    assert_int_equal(grammar_init(&alternatives, "x", "a|b"), 0);
    assert_true(grammar_takes(&alternatives, "a"));
    assert_false(grammar_takes(&alternatives, "ab"));
    assert_false(grammar_takes(&alternatives, "xb"));
    assert_false(grammar_takes(&alternatives, "a\nb"));
    assert_false(grammar_takes(&alternatives, ""));
    grammar_done(&alternatives);
    grammar_done(&alternatives);
    assert_int_equal(grammar_init(&broken, "x", "[a"), -1);
    assert_int_equal(grammar_init(&broken, "x", "a{2"), -1);
    grammar_done(&broken);
}

TEST(percent_decoding_respects_its_buffer_and_rejects_malformed_input)
{
    char out[4];
    assert_int_equal(percent_decode("%41b%63", 7, out, sizeof(out)), 0);
    assert_string_equal(out, "Abc");
    assert_int_equal(percent_decode("", 0, out, sizeof(out)), 0);
    assert_string_equal(out, "");
    assert_int_equal(percent_decode("abcd", 4, out, sizeof(out)), -1);
    assert_int_equal(percent_decode("a%4", 3, out, sizeof(out)), -1);
    assert_int_equal(percent_decode("a%41", 3, out, sizeof(out)), -1); /* truncated escape */
    assert_int_equal(percent_decode("%00", 3, out, sizeof(out)), -1);
    assert_int_equal(percent_decode("a\0b", 3, out, sizeof(out)), -1);
    assert_int_equal(percent_decode("%-1", 3, out, sizeof(out)), -1);
}

TEST(parameter_value_is_found_completely_or_not_at_all)
{
    char out[16];
    assert_true(query_value("a=1&b=2", "b", out, sizeof(out)));
    assert_string_equal(out, "2");
    assert_true(query_value("a==&", "a", out, sizeof(out)));
    assert_string_equal(out, "=");
    assert_false(query_value(NULL, "a", out, sizeof(out)));
    assert_false(query_value("&&&", "a", out, sizeof(out)));
    assert_false(query_value("ab=1", "a", out, sizeof(out)));
    assert_false(query_value("a", "a", out, sizeof(out)));
    assert_false(query_value("a=0123456789abcdef", "a", out, sizeof(out)));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(path_matches_when_its_value_matches_the_grammar),
        cmocka_unit_test(other_path_does_not_match_whatever_its_values),
        cmocka_unit_test(value_outside_its_grammar_is_a_bad_id),
        cmocka_unit_test(id_length_is_limited_by_grammar_and_buffer),
        cmocka_unit_test(variables_form_one_id_in_path_order),
        cmocka_unit_test(variable_may_be_in_the_query),
        cmocka_unit_test(built_path_is_percent_encoded_and_matches_again),
        cmocka_unit_test(plain_id_must_match_all_variables),
        cmocka_unit_test(malformed_pattern_is_refused_with_a_reason),
        cmocka_unit_test(grammar_applies_to_the_whole_value),
        cmocka_unit_test(percent_decoding_respects_its_buffer_and_rejects_malformed_input),
        cmocka_unit_test(parameter_value_is_found_completely_or_not_at_all),
    };
    return cmocka_run_group_tests_name("pattern", tests, make_grammars, free_grammars);
}
