/* From an upstream's bytes to the two views, with small provider files; test_answers.c does the same with
 * recorded answers and the shipped provider files. */
#include "unit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "upstream/view.h"
#include "given.h"

#define STATUS                                                                                               \
    "\"status\":{\"at\":\"/"                                                                                 \
    "s\",\"queued\":[\"Q\"],\"running\":[\"R\"],\"succeeded\":[\"S\"],\"failed\":[\"F\"],"                   \
    "\"cancelled\":[\"C\"]}"

static const struct secrets key = {.items = {"sk-a/b\"cdefg"}};

struct trial {
    struct provider *provider;
    enum outcome outcome;
    struct view view;
};

static struct provider *load(const char *members)
{
    char *error = NULL;
    char *text = xasprintf("{\"name\":\"p\",\"path\":\"/p/{task_id}\",\"task_id\":\"[a-z0-9]{1,8}\","
                           "\"auth\":{\"header\":\"A\",\"value\":\"{key}\"},%s}",
                           members);
    struct given file = {.path = "p.json", .text = text};
    struct files *files = given_files(&file, 1);
    struct provider *provider = provider_load(files, "p.json", &error);
    if (provider == NULL)
        fail_msg("%s", error);
    files_free(files);
    free(text);
    return provider;
}

static enum outcome read_bytes(struct trial *t, int http_status, const char *body, size_t len)
{
    const struct view_input input = {.provider = t->provider, .task_id = "x1", .secrets = &key};
    const struct view_answer answer = {.http_status = http_status, .body = body, .len = len};
    t->outcome = view_read(&input, &answer, NULL, &t->view);
    return t->outcome;
}

static struct trial tried(const char *members, int http_status, const char *body)
{
    struct trial t = {.provider = load(members)};
    read_bytes(&t, http_status, body, strlen(body));
    return t;
}

static void done(struct trial *t)
{
    view_done(&t->view);
    provider_free(t->provider);
}

static const char *native_of(const struct trial *t)
{
    return t->view.views[VIEW_NATIVE].data;
}

static void assert_native(const char *members, const char *body, const char *expected)
{
    struct trial t = tried(members, 200, body);
    assert_int_equal(t.outcome, OUTCOME_OK);
    assert_string_equal(native_of(&t), expected);
    done(&t);
}

static void assert_outcome(const char *members, int http_status, const char *body, enum outcome expected)
{
    struct trial t = tried(members, http_status, body);
    if (t.outcome != expected)
        fail_msg("%d %s: %s, not %s", http_status, body, outcome_row(t.outcome)->label,
                 outcome_row(expected)->label);
    assert_true((t.view.why != NULL) || (expected != OUTCOME_INVALID));
    done(&t);
}

/* A member of the unified view, as JSON text. */
static void assert_unified(const char *members, const char *body, const char *name, const char *expected)
{
    struct trial t = tried(members, 200, body);
    assert_int_equal(t.outcome, OUTCOME_OK);
    struct json_object *doc = json_tokener_parse(t.view.views[VIEW_UNIFIED].data), *value = NULL;
    assert_true(json_object_object_get_ex(doc, name, &value));
    assert_string_equal(
        json_object_to_json_string_ext(value, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE),
        expected);
    json_object_put(doc);
    done(&t);
}

/* ---- the native view ---- */

TEST(only_listed_members_are_kept_in_answer_order)
{
    assert_native(STATUS ",\"keep\":[\"/s\",\"/a/b\",\"/t\"]",
                  "{\"t\":1,\"user\":\"u\",\"a\":{\"c\":1,\"b\":2,\"d\":{\"b\":3}},\"s\":\"R\",\"b\":4}",
                  "{\"t\":1,\"a\":{\"b\":2},\"s\":\"R\"}");
}

TEST(star_matches_every_array_element)
{
    assert_native(
        STATUS ",\"keep\":[\"/s\",\"/a/*/u\",\"/b/*/*\"]",
        "{\"s\":\"R\",\"a\":[{\"u\":1,\"x\":2},{\"x\":3},{\"u\":null}],\"b\":[[1,[2],{\"c\":3}],[]]}",
        "{\"s\":\"R\",\"a\":[{\"u\":1},{},{\"u\":null}],\"b\":[[1,[2],{\"c\":3}],[]]}");
}

TEST(listed_member_is_kept_completely)
{
    assert_native(STATUS ",\"keep\":[\"/s\",\"/a\"]",
                  "{\"s\":\"R\",\"a\":{\"b\":[{\"c\":[]},null,true,\"\"]}}",
                  "{\"s\":\"R\",\"a\":{\"b\":[{\"c\":[]},null,true,\"\"]}}");
}

TEST(member_of_unexpected_type_is_omitted)
{
    static const char members[] = STATUS ",\"keep\":[\"/s\",\"/a/b\",\"/c/*/d\",\"/e/*\"]";
    assert_native(members, "{\"s\":\"R\",\"a\":\"text\",\"c\":\"text\",\"e\":\"text\"}", "{\"s\":\"R\"}");
    assert_native(members, "{\"s\":\"R\",\"a\":[{\"b\":1}],\"c\":{\"d\":1},\"e\":{\"*\":1}}",
                  "{\"s\":\"R\"}");
    assert_native(members, "{\"a\":5,\"c\":[5,\"x\",[{\"d\":1}],{\"d\":2}],\"e\":true,\"s\":\"R\"}",
                  "{\"c\":[{\"d\":2}],\"s\":\"R\"}");
    assert_native(members, "{\"a\":null,\"c\":null,\"e\":[],\"s\":\"R\"}",
                  "{\"a\":null,\"c\":null,\"e\":[],\"s\":\"R\"}");
}

TEST(numbers_keep_their_text_and_strings_their_value)
{
    assert_native(STATUS ",\"keep\":[\"/s\",\"/n\",\"/t\"]",
                  "{\"s\":\"R\",\"n\":[1.10,1e5,18446744073709551615,-9223372036854775808,0.1e-7],"
                  "\"t\":[\"a\\/b\",\"\\u00e9\",\"\\ud83d\\ude00\",\"\\u0000\\u001f\",\"\\\"\\\\\"]}",
                  "{\"s\":\"R\",\"n\":[1.10,1e5,18446744073709551615,-9223372036854775808,0.1e-7],"
                  "\"t\":[\"a/b\",\"\xc3\xa9\",\"\xf0\x9f\x98\x80\",\"\\u0000\\u001f\",\"\\\"\\\\\"]}");
}

TEST(secret_repeated_by_the_upstream_does_not_leak)
{
    struct trial t =
        tried(STATUS ",\"keep\":[\"/s\",\"/a\"],\"unified\":{\"error\":\"/a/e\"}", 200,
              "{\"s\":\"F\",\"a\":{\"sk-a/b\\\"cdefg\":1,\"e\":\"the key sk-a\\/b\\u0022cdefg is bad\","
              "\"l\":[\"sk-a/b\\\"cdefg\"]}}");
    assert_int_equal(t.outcome, OUTCOME_OK);
    assert_string_equal(native_of(&t),
                        "{\"s\":\"F\",\"a\":{\"[redacted]\":1,\"e\":\"the key [redacted] is bad\","
                        "\"l\":[\"[redacted]\"]}}");
    assert_non_null(strstr(t.view.views[VIEW_UNIFIED].data, "\"error\":\"the key [redacted] is bad\""));
    done(&t);
}

TEST(secret_in_the_status_is_not_logged)
{
    struct trial t = tried(STATUS ",\"keep\":[\"/s\"]", 200, "{\"s\":\"sk-a/b\\\"cdefg\"}");
    assert_int_equal(t.outcome, OUTCOME_OK);
    assert_null(strstr(t.view.status, "cdefg"));
    assert_non_null(strstr(t.view.status, "[redacted]"));
    done(&t);
}

/* ---- the outcome of an answer ---- */

TEST(unknown_status_is_running_and_unlisted)
{
    static const char *const bodies[] = {"{\"s\":\"PAUSED\"}", "{\"s\":\"\"}", "{\"s\":\"s\"}",
                                         "{\"s\":7}",          "{\"s\":1.5}",  "{\"s\":true}"};
    for (size_t i = 0; i < NELEMS(bodies); i++) {
        struct trial t = tried(STATUS ",\"keep\":[\"/s\"]", 200, bodies[i]);
        assert_int_equal(t.outcome, OUTCOME_OK);
        assert_int_equal(t.view.state, STATE_RUNNING);
        assert_false(t.view.known);
        done(&t);
    }
}

TEST(logged_status_is_short_json)
{
    struct trial t = tried(STATUS ",\"keep\":[\"/s\"]", 200, "{\"s\":\"PAUSED\"}");
    assert_string_equal(t.view.status, "\"PAUSED\"");
    done(&t);
    t = tried(STATUS ",\"keep\":[\"/s\"]", 200,
              "{\"s\":\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\"}");
    assert_int_equal(strlen(t.view.status), sizeof(t.view.status) - 1);
    done(&t);
}

TEST(missing_or_container_status_is_invalid)
{
    static const char *const bodies[] = {"{}", "{\"s\":null}", "{\"s\":{}}", "{\"s\":[\"R\"]}",
                                         "{\"S\":\"R\"}"};
    for (size_t i = 0; i < NELEMS(bodies); i++)
        assert_outcome(STATUS ",\"keep\":[\"/s\"]", 200, bodies[i], OUTCOME_INVALID);
}

TEST(absent_status_may_have_a_meaning)
{
    static const char members[] =
        "\"status\":{\"at\":\"/"
        "done\",\"running\":[false],\"succeeded\":[true],\"absent\":\"queued\"},\"keep\":[\"/done\"]";
    struct trial t = tried(members, 200, "{}");
    assert_int_equal(t.view.state, STATE_QUEUED);
    assert_true(t.view.known);
    done(&t);
    t = tried(members, 200, "{\"done\":null}");
    assert_int_equal(t.view.state, STATE_QUEUED);
    done(&t);
    assert_outcome(members, 200, "{\"done\":[]}", OUTCOME_INVALID);
}

TEST(second_member_may_change_the_state)
{
    static const char members[] =
        "\"status\":{\"at\":\"/s\",\"running\":[\"R\"],\"succeeded\":[\"S\"],\"except\":["
        "{\"from\":\"succeeded\",\"at\":\"/error\",\"is\":\"filled\",\"state\":\"failed\"},"
        "{\"from\":\"succeeded\",\"at\":\"/"
        "out\",\"is\":\"empty\",\"and\":[{\"http\":200}],\"state\":\"cancelled\"}]},"
        "\"keep\":[\"/s\"]";
    static const struct {
        const char *body;
        enum state state;
    } cases[] = {{"{\"s\":\"S\",\"out\":[1]}", STATE_SUCCEEDED},
                 {"{\"s\":\"S\",\"out\":[1],\"error\":null}", STATE_SUCCEEDED},
                 {"{\"s\":\"S\",\"out\":[1],\"error\":{}}", STATE_SUCCEEDED},
                 {"{\"s\":\"S\",\"out\":[1],\"error\":\"\"}", STATE_SUCCEEDED},
                 {"{\"s\":\"S\",\"out\":[1],\"error\":\"bad\"}", STATE_FAILED},
                 {"{\"s\":\"S\",\"out\":[1],\"error\":{\"a\":1}}", STATE_FAILED},
                 {"{\"s\":\"S\",\"out\":[1],\"error\":0}", STATE_FAILED},
                 {"{\"s\":\"S\",\"out\":[]}", STATE_CANCELLED},
                 {"{\"s\":\"S\"}", STATE_CANCELLED},
                 {"{\"s\":\"R\",\"error\":\"bad\"}", STATE_RUNNING}};
    for (size_t i = 0; i < NELEMS(cases); i++) {
        struct trial t = tried(members, 200, cases[i].body);
        assert_int_equal(t.outcome, OUTCOME_OK);
        assert_int_equal(t.view.state, cases[i].state);
        done(&t);
    }
    struct trial t = tried(members, 202, "{\"s\":\"S\"}");
    assert_int_equal(t.view.state, STATE_SUCCEEDED);
    done(&t);
}

TEST(kinds_of_errors_are_distinguished)
{
    static const char members[] = STATUS
        ",\"keep\":[\"/s\"],\"ok\":{\"at\":\"/code\",\"equals\":[0]},"
        "\"missing\":[{\"http\":404},{\"at\":\"/code\",\"equals\":[\"gone\"]}],"
        "\"refused\":[{\"at\":\"/code\",\"equals\":[401]}],\"busy\":[{\"at\":\"/code\",\"equals\":[429]}]";
    static const struct {
        int http_status;
        const char *body;
        enum outcome outcome;
    } cases[] = {{200, "{\"code\":0,\"s\":\"R\"}", OUTCOME_OK},
                 {202, "{\"code\":0,\"s\":\"R\"}", OUTCOME_OK},
                 {404, "{\"code\":0,\"s\":\"R\"}", OUTCOME_MISSING},
                 {404, "<html>", OUTCOME_MISSING},
                 {200, "{\"code\":\"gone\"}", OUTCOME_MISSING},
                 {500, "{\"code\":\"gone\"}", OUTCOME_MISSING},
                 {401, "", OUTCOME_REFUSED},
                 {403, "{\"code\":0,\"s\":\"R\"}", OUTCOME_FORBIDDEN},
                 {200, "{\"code\":401}", OUTCOME_REFUSED},
                 {429, "<html>", OUTCOME_BUSY},
                 {200, "{\"code\":429}", OUTCOME_BUSY},
                 {200, "{\"code\":1,\"s\":\"R\"}", OUTCOME_ERROR},
                 {200, "{\"s\":\"R\"}", OUTCOME_ERROR},
                 {200, "{\"code\":\"0\",\"s\":\"R\"}", OUTCOME_ERROR},
                 {200, "{\"code\":[0],\"s\":\"R\"}", OUTCOME_ERROR},
                 {400, "{\"code\":0,\"s\":\"R\"}", OUTCOME_ERROR},
                 {500, "<html>", OUTCOME_SERVER_ERROR},
                 {503, "", OUTCOME_SERVER_ERROR},
                 {100, "", OUTCOME_ERROR},
                 {0, "", OUTCOME_ERROR},
                 {999, "{}", OUTCOME_SERVER_ERROR},
                 {301, "{\"code\":0,\"s\":\"R\"}", OUTCOME_INVALID},
                 {304, "", OUTCOME_INVALID},
                 {200, "", OUTCOME_INVALID},
                 {204, "", OUTCOME_INVALID},
                 {200, "<html>", OUTCOME_INVALID},
                 {200, "null", OUTCOME_INVALID},
                 {200, "[]", OUTCOME_INVALID},
                 {200, "[{\"code\":0,\"s\":\"R\"}]", OUTCOME_INVALID},
                 {200, "\"R\"", OUTCOME_INVALID},
                 {200, "{\"code\":0,\"s\":\"R\"", OUTCOME_INVALID},
                 {200, "{\"code\":0,\"s\":\"R\"}}", OUTCOME_INVALID},
                 {200, "{\"code\":0,\"s\":\"R\",\"s\":\"S\"}", OUTCOME_INVALID},
                 {200, "{\"code\":0,\"s\":\"R\",\"x\":NaN}", OUTCOME_INVALID},
                 {200, "{\"code\":0,\"s\":\"R\",\"x\":\"\\ud800\"}", OUTCOME_INVALID},
                 {200, "{\"code\":0,\"s\":\"R\",\"x\":\"\xff\"}", OUTCOME_INVALID}};
    for (size_t i = 0; i < NELEMS(cases); i++)
        assert_outcome(members, cases[i].http_status, cases[i].body, cases[i].outcome);
}

TEST(invalid_json_is_not_a_missing_task)
{
    static const char members[] =
        STATUS ",\"keep\":[\"/s\"],\"missing\":[{\"at\":\"/data\",\"is\":\"empty\"}]";
    assert_outcome(members, 200, "{\"data\":null}", OUTCOME_MISSING);
    assert_outcome(members, 200, "{}", OUTCOME_MISSING);
    assert_outcome(members, 200, "<html>", OUTCOME_INVALID);
    assert_outcome(members, 200, "", OUTCOME_INVALID);
    assert_outcome(members, 500, "<html>", OUTCOME_SERVER_ERROR);
}

TEST(hostile_bodies_are_rejected_quickly)
{
    struct trial t = {.provider = load(STATUS ",\"keep\":[\"/s\",\"/a\"]")};
    size_t size = 10 * 1024 * 1024;
    char *body = malloc(size);
    memset(body, '[', size);
    assert_int_equal(read_bytes(&t, 200, body, size), OUTCOME_INVALID);
    view_done(&t.view);
    memset(body, '{', size);
    assert_int_equal(read_bytes(&t, 200, body, size), OUTCOME_INVALID);
    view_done(&t.view);
    memset(body, 0, size);
    assert_int_equal(read_bytes(&t, 200, body, size), OUTCOME_INVALID);
    view_done(&t.view);
    memset(body, ' ', size);
    assert_int_equal(read_bytes(&t, 200, body, size), OUTCOME_INVALID);
    view_done(&t.view);
    memset(body, '1', size);
    memcpy(body, "{\"s\":\"R\",\"a\":\"", 14);
    memcpy(body + size - 2, "\"}", 2); /* valid, but larger than the limit of a view */
    assert_int_equal(read_bytes(&t, 200, body, size), OUTCOME_INVALID);
    free(body);
    done(&t);
}

/* ---- the unified view ---- */

#define WITH(unified) STATUS ",\"keep\":[\"/s\"],\"unified\":{" unified "}"

TEST(every_member_is_present_and_null_when_unknown)
{
    struct trial t = tried(STATUS ",\"keep\":[\"/s\"]", 200, "{\"s\":\"R\"}");
    assert_string_equal(
        t.view.views[VIEW_UNIFIED].data,
        "{\"provider\":\"p\",\"task_id\":\"x1\",\"status\":\"running\",\"progress\":null,\"error\":null,"
        "\"created_at\":null,\"started_at\":null,\"finished_at\":null,\"results\":[],"
        "\"results_expire_at\":null}");
    done(&t);
}

static void assert_progress(const char *form, const char *value, const char *expected)
{
    char *members = xasprintf(WITH("\"progress\":{\"at\":\"/p\",\"as\":\"%s\"}"), form);
    char *body = xasprintf("{\"s\":\"R\",\"p\":%s}", value);
    assert_unified(members, body, "progress", expected);
    free(members);
    free(body);
}

TEST(progress_is_normalized_to_an_integer_from_0_to_100)
{
    static const char *const cases[][3] = {{"percent-text", "\"42%\"", "42"},
                                           {"percent-text", "\"0%\"", "0"},
                                           {"percent-text", "\"99.5%\"", "100"},
                                           {"percent-text", "\"-5%\"", "0"},
                                           {"percent-text", "\"1000%\"", "100"},
                                           {"percent-text", "\"\"", "null"},
                                           {"percent-text", "\"%\"", "null"},
                                           {"percent-text", "\"42%%\"", "null"},
                                           {"percent-text", "\"x\"", "null"},
                                           {"percent-text", "42", "42"},
                                           {"percent-text", "null", "null"},
                                           {"percent-text", "[42]", "null"},
                                           {"percent-text", "\"nan%\"", "null"},
                                           {"percent-text", "\"inf%\"", "null"},
                                           {"percent", "42", "42"},
                                           {"percent", "41.6", "42"},
                                           {"percent", "\"42\"", "42"},
                                           {"percent", "-1", "0"},
                                           {"percent", "1e300", "100"},
                                           {"percent", "1e999", "null"},
                                           {"percent", "true", "null"},
                                           {"percent", "{}", "null"},
                                           {"percent", "18446744073709551615", "100"},
                                           {"fraction", "0.42", "42"},
                                           {"fraction", "1", "100"},
                                           {"fraction", "0", "0"},
                                           {"fraction", "1.7", "100"},
                                           {"fraction", "-0.1", "0"},
                                           {"fraction", "\"0.5\"", "50"}};
    for (size_t i = 0; i < NELEMS(cases); i++)
        assert_progress(cases[i][0], cases[i][1], cases[i][2]);
}

TEST(succeeded_task_has_progress_100)
{
    assert_unified(WITH("\"progress\":{\"at\":\"/p\",\"as\":\"percent\"}"), "{\"s\":\"S\",\"p\":7}",
                   "progress", "100");
    assert_unified(WITH("\"results\":[]"), "{\"s\":\"S\"}", "progress", "100");
    assert_unified(WITH("\"progress\":{\"at\":\"/p\",\"as\":\"percent\"}"), "{\"s\":\"F\",\"p\":7}",
                   "progress", "7");
}

TEST(times_are_normalized_to_rfc_3339)
{
    static const char *const cases[][3] = {
        {"unix-seconds", "1736867746", "\"2025-01-14T15:15:46Z\""},
        {"unix-seconds", "1736867746.9", "\"2025-01-14T15:15:46Z\""},
        {"unix-seconds", "\"1736867746\"", "\"2025-01-14T15:15:46Z\""},
        {"unix-seconds", "0", "null"},
        {"unix-seconds", "\"\"", "null"},
        {"unix-seconds", "-5", "null"},
        {"unix-seconds", "null", "null"},
        {"unix-seconds", "1736867746000", "null"},
        {"unix-seconds", "1e300", "null"},
        {"unix-seconds", "18446744073709551615", "null"},
        {"unix-seconds", "true", "null"},
        {"unix-seconds", "[1736867746]", "null"},
        {"unix-seconds", "\"2025-01-14\"", "null"},
        {"unix-milliseconds", "1736867746724", "\"2025-01-14T15:15:46Z\""},
        {"unix-milliseconds", "0", "null"},
        {"unix-milliseconds", "999", "null"},
        {"iso8601", "\"2025-01-14T15:15:46.72Z\"", "\"2025-01-14T15:15:46Z\""},
        {"iso8601", "\"2025-01-14T23:15:46+08:00\"", "\"2025-01-14T15:15:46Z\""},
        {"iso8601", "\"\"", "null"},
        {"iso8601", "1736867746", "null"},
        {"iso8601", "\"yesterday\"", "null"},
        {"iso8601", "\"9999-12-31T23:59:59-12:00\"", "null"},
        {"beijing", "\"2025-01-14 23:15:46.123\"", "\"2025-01-14T15:15:46Z\""},
        {"beijing", "\"\"", "null"}};
    for (size_t i = 0; i < NELEMS(cases); i++) {
        char *members = xasprintf(WITH("\"created_at\":{\"at\":\"/t\",\"as\":\"%s\"}"), cases[i][0]);
        char *body = xasprintf("{\"s\":\"R\",\"t\":%s}", cases[i][1]);
        assert_unified(members, body, "created_at", cases[i][2]);
        free(members);
        free(body);
    }
}

TEST(only_an_ended_task_has_an_end_time)
{
    static const char members[] = WITH("\"finished_at\":{\"at\":\"/t\",\"as\":\"unix-seconds\"}");
    assert_unified(members, "{\"s\":\"R\",\"t\":1736867746}", "finished_at", "null");
    assert_unified(members, "{\"s\":\"F\",\"t\":1736867746}", "finished_at", "\"2025-01-14T15:15:46Z\"");
}

TEST(error_is_the_first_text_of_a_failed_task)
{
    static const char members[] = WITH("\"error\":[\"/a\",\"/b\",\"/c/0/m\"]");
    assert_unified(members, "{\"s\":\"F\",\"a\":\"\",\"b\":\"why\"}", "error", "\"why\"");
    assert_unified(members, "{\"s\":\"C\",\"a\":{\"x\":1},\"c\":[{\"m\":\"why\"}]}", "error", "\"why\"");
    assert_unified(members, "{\"s\":\"F\",\"a\":5,\"b\":null}", "error", "null");
    assert_unified(members, "{\"s\":\"S\",\"a\":\"not an error\"}", "error", "null");
    assert_unified(members, "{\"s\":\"R\",\"a\":\"not an error\"}", "error", "null");
}

#define CONTENT(n) "\"content\":\"/v1/tasks/p/x1/content/" n "\","

TEST(results_take_their_sizes_from_the_same_member)
{
    static const char members[] = WITH("\"results\":[{\"type\":\"video\",\"url\":\"/v/*/u\",\"width\":\"/v/*/"
                                       "w\",\"height\":\"/h\",\"bytes\":\"/v/*/b\"},"
                                       "{\"type\":\"image\",\"url\":\"/i\"}]");
    assert_unified(
        members,
        "{\"s\":\"S\",\"h\":480,\"v\":[{\"u\":\"https://x/"
        "1\",\"w\":1,\"b\":\"12\"},{\"w\":2},{\"u\":\"\",\"w\":3},"
        "{\"u\":\"https://x/4\",\"w\":-4,\"b\":1.50},{\"u\":5}],\"i\":\"https://x/i\"}",
        "results",
        "[{\"type\":\"video\",\"url\":\"https://x/"
        "1\"," CONTENT(
            "0") "\"width\":1,\"height\":480,\"duration_seconds\":null,\"bytes\":12},"
                 "{\"type\":\"video\",\"url\":\"https://x/"
                 "4\"," CONTENT(
                     "1") "\"width\":null,\"height\":480,\"duration_seconds\":null,\"bytes\":1.50},"
                          "{\"type\":\"image\",\"url\":\"https://x/"
                          "i\"," CONTENT("2") "\"width\":null,\"height\":null,\"duration_seconds\":null,"
                                              "\"bytes\":null}]");
    assert_unified(members, "{\"s\":\"R\",\"i\":\"https://x/i\"}", "results", "[]");
    assert_unified(members, "{\"s\":\"S\",\"v\":{\"u\":\"https://x/1\"},\"i\":[\"https://x/i\"]}", "results",
                   "[]");
}

TEST(nested_stars_are_expanded)
{
    assert_unified(
        WITH("\"results\":[{\"type\":\"v\",\"url\":\"/a/*/b/*\",\"width\":\"/a/*/"
             "w\",\"height\":\"/a/*/h/*\"}]"),
        "{\"s\":\"S\",\"a\":[{\"b\":[\"u://0\"],\"w\":1,\"h\":[10]},{\"b\":[\"u://1\",\"u://"
        "2\"],\"w\":2,\"h\":[20,21]}]}",
        "results",
        "[{\"type\":\"v\",\"url\":\"u://"
        "0\"," CONTENT(
            "0") "\"width\":1,\"height\":10,\"duration_seconds\":null,\"bytes\":null},"
                 "{\"type\":\"v\",\"url\":\"u://"
                 "1\"," CONTENT(
                     "1") "\"width\":2,\"height\":20,\"duration_seconds\":null,\"bytes\":null},"
                          "{\"type\":\"v\",\"url\":\"u://"
                          "2\"," CONTENT(
                              "2") "\"width\":2,\"height\":21,\"duration_seconds\":null,\"bytes\":null}]");
}

static void assert_content(const char *task_id, bool unnamed, const char *expected)
{
    struct trial t = {.provider = load(WITH("\"results\":[{\"type\":\"v\",\"url\":\"/u\"}]"))};
    const struct view_input input = {.provider = t.provider, .task_id = task_id, .unnamed = unnamed};
    const char body[] = "{\"s\":\"S\",\"u\":\"u://x\"}";
    const struct view_answer answer = {.http_status = 200, .body = body, .len = strlen(body)};
    assert_int_equal(view_read(&input, &answer, NULL, &t.view), OUTCOME_OK);
    assert_non_null(strstr(t.view.views[VIEW_UNIFIED].data, expected));
    done(&t);
}

TEST(content_is_a_reference_to_the_named_task)
{
    assert_content("x1", false, "\"content\":\"/v1/tasks/p/x1/content/0\",");
    assert_content("fal-ai/pika/~ID", false, "\"content\":\"/v1/tasks/p/fal-ai/pika/~ID/content/0\",");
    assert_content("a b/\"%\xc3\xa9", false, "\"content\":\"/v1/tasks/p/a%20b/%22%25%C3%A9/content/0\",");
    assert_content("x1", true, "\"content\":null,");
}

/* The result of a provider whose results are keyed, for an upstream at https://up:8. */
static void assert_keyed(const char *row, const char *body, bool keyed, const char *url)
{
    char *members =
        xasprintf(STATUS ",\"keep\":[\"/s\"],\"unified\":{\"results\":[{\"type\":\"v\",\"url\":\"/"
                         "u\",\"download\":\"keyed\"%s}]}",
                  row);
    struct trial t = {.provider = load(members)};
    const struct view_input input = {
        .provider = t.provider, .task_id = "x1", .secrets = &key, .base_url = "https://up:8"};
    const struct view_answer answer = {.http_status = 200, .body = body, .len = strlen(body)};
    assert_int_equal(view_read(&input, &answer, NULL, &t.view), OUTCOME_OK);
    const char *unified = t.view.views[VIEW_UNIFIED].data, *own = t.view.views[VIEW_KEYED].data;
    char *plain = xasprintf("\"url\":\"%s\"", keyed ? "/v1/tasks/p/x1/content/0" : url);
    char *with_key =
        xasprintf("\"url\":\"%s\",\"content\":\"/v1/tasks/p/x1/content/0\",\"needs_key\":true,", url);
    if (strstr(unified, plain) == NULL || strstr(unified, "needs_key") != NULL)
        fail_msg("not %s in %s", plain, unified);
    if (keyed ? strstr(own, with_key) == NULL : own != NULL)
        fail_msg("%s", own);
    free(with_key);
    free(plain);
    free(members);
    done(&t);
}

TEST(only_urls_of_the_listed_origins_take_the_key)
{
    static const char listed[] = ",\"origins\":[\"https://a\",\"https://b\"]",
                      own[] = ",\"path\":\"/v/{task_id}?x\"";
#define URL(url) "{\"s\":\"S\",\"u\":\"" url "\"}"
    assert_keyed("", URL("https://up:8/v"), true, "https://up:8/v");
    assert_keyed("", URL("HTTPS://UP:8?v"), true, "HTTPS://UP:8?v");
    assert_keyed("", URL("https://up:8"), true, "https://up:8");
    assert_keyed("", URL("https://up:80/v"), false, "https://up:80/v");
    assert_keyed("", URL("http://up:8/v"), false, "http://up:8/v");
    assert_keyed("", URL("https://up:8@evil/v"), false, "https://up:8@evil/v");
    assert_keyed("", URL("https://up:8.evil/v"), false, "https://up:8.evil/v");
    assert_keyed(listed, URL("https://b/v"), true, "https://b/v");
    assert_keyed(listed, URL("https://up:8/v"), false, "https://up:8/v");
    assert_keyed(own, "{\"s\":\"S\"}", true, "https://up:8/v/x1?x");
    assert_keyed(own, URL("https://cdn/v"), false, "https://cdn/v");
}

TEST(number_of_results_is_limited)
{
    struct buf body;
    buf_init(&body, 1 << 20);
    buf_puts(&body, "{\"s\":\"S\",\"v\":[\"u://x\"");
    for (int i = 0; i < 10000; i++)
        buf_puts(&body, ",\"u://x\"");
    buf_puts(&body, "]}");
    struct trial t = tried(WITH("\"results\":[{\"type\":\"v\",\"url\":\"/v/*\"}]"), 200, body.data);
    struct json_object *doc = json_tokener_parse(t.view.views[VIEW_UNIFIED].data), *results = NULL;
    assert_true(json_object_object_get_ex(doc, "results", &results));
    assert_int_equal(json_object_array_length(results), 256);
    json_object_put(doc);
    buf_done(&body);
    done(&t);
}

TEST(earliest_expiry_of_a_kept_url_or_the_body_wins)
{
    static const char members[] = STATUS
        ",\"keep\":[\"/s\",\"/u\"],\"unified\":{\"expires_at\":{\"at\":\"/e\",\"as\":\"unix-seconds\"}}";
    static const char *const cases[][2] = {
        {"{\"s\":\"S\",\"u\":[\"https://x/?Expires=1736867746\",\"https://x/?Expires=1736867740\"]}",
         "\"2025-01-14T15:15:40Z\""},
        {"{\"s\":\"S\",\"u\":\"https://x/?Expires=1736867746\",\"hidden\":\"https://x/?Expires=1736867740\"}",
         "\"2025-01-14T15:15:46Z\""},
        {"{\"s\":\"S\",\"u\":\"https://x/?Expires=1736867746\",\"e\":1736867740}",
         "\"2025-01-14T15:15:40Z\""},
        {"{\"s\":\"S\",\"u\":\"https://x/?Expires=1736867740\",\"e\":1736867746}",
         "\"2025-01-14T15:15:40Z\""},
        {"{\"s\":\"S\",\"u\":\"x?Expires=1736867740\"}", "null"},
        {"{\"s\":\"S\",\"u\":\"https://x/?Expires=99999999999999\"}", "null"},
        {"{\"s\":\"S\",\"u\":\"https://x/?Expires=0\",\"e\":0}", "null"},
        {"{\"s\":\"S\",\"u\":\"https://x/?Expires=173686774\\u00000\"}", "null"}};
    for (size_t i = 0; i < NELEMS(cases); i++)
        assert_unified(members, cases[i][0], "results_expire_at", cases[i][1]);
}

TEST(lifetime_may_be_added_to_a_time)
{
    assert_unified(WITH("\"expires_at\":{\"at\":\"/t\",\"as\":\"unix-seconds\",\"plus\":\"1h\"}"),
                   "{\"s\":\"S\",\"t\":1736867746}", "results_expire_at", "\"2025-01-14T16:15:46Z\"");
    assert_unified(WITH("\"expires_at\":{\"at\":\"/t\",\"as\":\"unix-seconds\",\"plus\":\"1h\"}"),
                   "{\"s\":\"S\",\"t\":0}", "results_expire_at", "null");
}

/* ---- the second query ---- */

#define SECOND                                                                                               \
    STATUS ",\"keep\":[\"/s\",\"/r/u\"],\"missing\":[{\"http\":404}],"                                       \
           "\"result\":{\"path\":\"/files/{task_id}/{/f}?x=1\",\"into\":\"r\",\"ok\":{\"at\":\"/"            \
           "c\",\"equals\":[0]},"                                                                            \
           "\"failed\":[{\"http\":422}]}"

TEST(succeeded_task_is_partial_until_its_result_arrives)
{
    struct trial t = tried(SECOND, 200, "{\"s\":\"S\",\"f\":\"a b/..\"}");
    assert_int_equal(t.outcome, OUTCOME_PARTIAL);
    assert_string_equal(t.view.result_path.data, "/files/x1/a%20b%2F..?x=1");
    done(&t);
    assert_outcome(SECOND, 200, "{\"s\":\"S\",\"f\":42}", OUTCOME_PARTIAL);
    assert_outcome(SECOND, 200, "{\"s\":\"R\",\"f\":42}", OUTCOME_OK);
    assert_outcome(SECOND, 200, "{\"s\":\"F\"}", OUTCOME_OK);
}

TEST(answer_without_the_value_for_the_result_query_is_invalid)
{
    static const char *const bodies[] = {"{\"s\":\"S\"}",
                                         "{\"s\":\"S\",\"f\":null}",
                                         "{\"s\":\"S\",\"f\":\"\"}",
                                         "{\"s\":\"S\",\"f\":{}}",
                                         "{\"s\":\"S\",\"f\":1.5}",
                                         "{\"s\":\"S\",\"f\":\"a\\u0000b\"}",
                                         "{\"s\":\"S\",\"f\":\"..\"}",
                                         "{\"s\":\"S\",\"f\":\".\"}"};
    for (size_t i = 0; i < NELEMS(bodies); i++)
        assert_outcome(SECOND, 200, bodies[i], OUTCOME_INVALID);
}

TEST(second_answer_completes_or_fails_the_first)
{
    static const struct {
        int http_status;
        const char *body;
        enum outcome outcome;
        enum state state;
        const char *native;
    } cases[] = {{200, "{\"c\":0,\"u\":\"https://x\",\"v\":1}", OUTCOME_OK, STATE_SUCCEEDED,
                  "{\"s\":\"S\",\"r\":{\"u\":\"https://x\"}}"},
                 {422, "{\"u\":\"no\"}", OUTCOME_OK, STATE_FAILED, "{\"s\":\"S\",\"r\":{\"u\":\"no\"}}"},
                 {200, "{\"c\":1}", OUTCOME_ERROR, 0, NULL},
                 {200, "[]", OUTCOME_INVALID, 0, NULL},
                 {200, "<html>", OUTCOME_INVALID, 0, NULL},
                 {422, "<html>", OUTCOME_ERROR, 0, NULL},
                 {401, "", OUTCOME_REFUSED, 0, NULL},
                 {404, "", OUTCOME_MISSING, 0, NULL},
                 {429, "", OUTCOME_BUSY, 0, NULL},
                 {500, "{\"c\":0}", OUTCOME_SERVER_ERROR, 0, NULL},
                 {302, "", OUTCOME_INVALID, 0, NULL}};
    static const char first[] = "{\"s\":\"S\",\"f\":\"F1\",\"r\":\"replaced\"}";
    struct trial t = {.provider = load(SECOND)};
    const struct view_input input = {.provider = t.provider, .task_id = "x1", .secrets = &key};
    const struct view_answer answer = {.http_status = 200, .body = first, .len = sizeof(first) - 1};
    for (size_t i = 0; i < NELEMS(cases); i++) {
        const struct view_answer result = {cases[i].http_status, cases[i].body, strlen(cases[i].body)};
        assert_int_equal(view_read(&input, &answer, &result, &t.view), cases[i].outcome);
        if (cases[i].native != NULL) {
            assert_int_equal(t.view.state, cases[i].state);
            assert_string_equal(native_of(&t), cases[i].native);
        }
        view_done(&t.view);
    }
    provider_free(t.provider);
}

/* ---- the identity ---- */

static void write_identity_of(const char *id, char out[static IDENTITY_SIZE])
{
    char *body = xasprintf("{\"s\":\"R\",\"t\":{\"id\":%s}}", id);
    struct trial t = tried(STATUS ",\"identity\":\"/t/id\",\"keep\":[\"/s\"]", 200, body);
    assert_int_equal(t.outcome, OUTCOME_OK);
    memcpy(out, t.view.identity, IDENTITY_SIZE);
    done(&t);
    free(body);
}

TEST(spellings_of_an_id_are_one_identity)
{
    static const struct {
        const char *one, *other;
        bool same;
    } pairs[] = {{"\"7\"", "\"007\"", true},
                 {"\"007\"", "7", true},
                 {"\"17f20503-6C24\"", "\"17F20503-6c24\"", true},
                 {"18446744073709551615", "\"18446744073709551615\"", true},
                 {"\"7\"", "\"70\"", false},
                 {"\"a7\"", "\"0a7\"", false},
                 {"\"Xy\"", "\"xy\"", false},
                 {"\"x/y\"", "\"x\"", false}};
    for (size_t i = 0; i < NELEMS(pairs); i++) {
        char one[IDENTITY_SIZE], other[IDENTITY_SIZE];
        write_identity_of(pairs[i].one, one);
        write_identity_of(pairs[i].other, other);
        assert_int_equal(strlen(one), IDENTITY_SIZE - 1);
        if ((strcmp(one, other) == 0) != pairs[i].same)
            fail_msg("%s and %s", pairs[i].one, pairs[i].other);
    }
}

TEST(only_a_text_or_an_integer_is_an_identity)
{
    static const char *const bad[] = {"null", "\"\"", "{}", "[\"a\"]", "true", "1.5", "\"a\\u0000b\""};
    char identity[IDENTITY_SIZE];
    for (size_t i = 0; i < NELEMS(bad); i++) {
        write_identity_of(bad[i], identity);
        assert_string_equal(identity, "");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(only_listed_members_are_kept_in_answer_order),
        cmocka_unit_test(star_matches_every_array_element),
        cmocka_unit_test(listed_member_is_kept_completely),
        cmocka_unit_test(member_of_unexpected_type_is_omitted),
        cmocka_unit_test(numbers_keep_their_text_and_strings_their_value),
        cmocka_unit_test(secret_repeated_by_the_upstream_does_not_leak),
        cmocka_unit_test(secret_in_the_status_is_not_logged),
        cmocka_unit_test(unknown_status_is_running_and_unlisted),
        cmocka_unit_test(logged_status_is_short_json),
        cmocka_unit_test(missing_or_container_status_is_invalid),
        cmocka_unit_test(absent_status_may_have_a_meaning),
        cmocka_unit_test(second_member_may_change_the_state),
        cmocka_unit_test(kinds_of_errors_are_distinguished),
        cmocka_unit_test(invalid_json_is_not_a_missing_task),
        cmocka_unit_test(hostile_bodies_are_rejected_quickly),
        cmocka_unit_test(every_member_is_present_and_null_when_unknown),
        cmocka_unit_test(progress_is_normalized_to_an_integer_from_0_to_100),
        cmocka_unit_test(succeeded_task_has_progress_100),
        cmocka_unit_test(times_are_normalized_to_rfc_3339),
        cmocka_unit_test(only_an_ended_task_has_an_end_time),
        cmocka_unit_test(error_is_the_first_text_of_a_failed_task),
        cmocka_unit_test(results_take_their_sizes_from_the_same_member),
        cmocka_unit_test(nested_stars_are_expanded),
        cmocka_unit_test(content_is_a_reference_to_the_named_task),
        cmocka_unit_test(only_urls_of_the_listed_origins_take_the_key),
        cmocka_unit_test(number_of_results_is_limited),
        cmocka_unit_test(earliest_expiry_of_a_kept_url_or_the_body_wins),
        cmocka_unit_test(lifetime_may_be_added_to_a_time),
        cmocka_unit_test(succeeded_task_is_partial_until_its_result_arrives),
        cmocka_unit_test(answer_without_the_value_for_the_result_query_is_invalid),
        cmocka_unit_test(second_answer_completes_or_fails_the_first),
        cmocka_unit_test(spellings_of_an_id_are_one_identity),
        cmocka_unit_test(only_a_text_or_an_integer_is_an_identity),
    };
    return cmocka_run_group_tests_name("view", tests, NULL, NULL);
}
