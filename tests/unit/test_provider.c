/* Provider files: the result of loading, and the error for invalid ones. */
#include "unit.h"

#include <stdlib.h>
#include <string.h>

#include "config/provider.h"
#include "given.h"

#define HEAD "{\"name\":\"p\",\"path\":\"/p/{task_id}\",\"task_id\":\"[a-z0-9]{1,8}\""
#define AUTH ",\"auth\":{\"header\":\"A\",\"value\":\"{key}\"}"
#define REST ",\"status\":{\"at\":\"/s\",\"running\":[\"R\"]},\"keep\":[\"/s\"]}"
#define SERVED                                                                                               \
    "\"served\":{\"unfinished_status\":400,\"unfinished_detail\":\"running\",\"failed_status\":422}"

#define AT(pointer) "/etc/x/p.json:1: " pointer ": "

static struct provider *load(const char *text, char **ret_error)
{
    struct given file = {.path = "/etc/x/p.json", .text = text};
    struct files *files = given_files(&file, 1);
    struct provider *provider = provider_load(files, "/etc/x/p.json", ret_error);
    files_free(files);
    return provider;
}

static struct provider *load_good(const char *text)
{
    char *error = NULL;
    struct provider *provider = load(text, &error);
    if (provider == NULL)
        fail_msg("%s", error);
    assert_null(error);
    return provider;
}

TEST(minimal_file_has_defaults)
{
    struct provider *p = load_good(HEAD AUTH REST);
    assert_string_equal(p->name, "p");
    assert_int_equal(p->n_grammars, 1);
    assert_int_equal(p->poll.min_ms, 2000);
    assert_int_equal(p->poll.max_ms, 15000);
    assert_int_equal(p->missing.n, 0);
    assert_int_equal(p->status.absent, STATE_NONE);
    assert_int_equal(p->unified.progress.at.n_segments, 0);
    assert_int_equal(strlen(p->digest), 16);
    assert_null(p->result.path);
    provider_free(p);
    provider_free(NULL);
}

TEST(days_are_counted_to_the_day_on_which_the_provider_retires)
{
    static const int64_t day_s = 86400, noon_s = 1793448000; /* 2026-10-31T12:00:00Z */
    struct provider *p = load_good(HEAD AUTH ",\"retires\":\"2026-10-31\"" REST);
    assert_int_equal(provider_days_left(p, noon_s), 0);
    assert_int_equal(provider_days_left(p, noon_s - day_s / 2), 0);
    assert_int_equal(provider_days_left(p, noon_s - day_s / 2 - 1), 1);
    assert_int_equal(provider_days_left(p, noon_s + day_s / 2), -1);
    assert_int_equal(provider_days_left(p, noon_s - 365 * day_s), 365);
    provider_free(p);
}

TEST(day_must_exist)
{
    static const char *const bad[] = {
        "",           "2026-10-32",  "2026-02-29", "2026-1-1", "26-10-31", "2026-10-31 ", "2026-10-31T",
        "31.10.2026", "2026-10-31x", "tomorrow"};
    for (size_t i = 0; i < NELEMS(bad); i++) {
        char *error = NULL, *text = xasprintf(HEAD AUTH ",\"retires\":\"%s\"" REST, bad[i]);
        assert_null(load(text, &error));
        assert_string_equal(error, AT("/retires") "must be a day, such as \"2026-10-31\"");
        free(error);
        free(text);
    }
}

TEST(digest_is_that_of_the_bytes)
{
    struct provider *a = load_good(HEAD AUTH REST), *b = load_good(HEAD AUTH REST),
                    *c = load_good(HEAD AUTH REST " ");
    assert_string_equal(a->digest, b->digest);
    assert_string_not_equal(a->digest, c->digest);
    provider_free(a);
    provider_free(b);
    provider_free(c);
}

TEST(keep_paths_with_a_common_beginning_are_adjacent)
{
    static const char *const sorted[] = {"/a/b", "/a/e", "/a-b", "/c/*/d", "/c/*/f"};
    struct provider *p = load_good(
        HEAD AUTH ",\"status\":{\"at\":\"/s\"},\"keep\":[\"/a/e\",\"/c/*/d\",\"/a-b\",\"/a/b\",\"/c/*/f\"]}");
    assert_int_equal(p->keep_paths.n, NELEMS(sorted));
    for (size_t i = 0; i < NELEMS(sorted); i++)
        assert_string_equal(((struct json_path *)p->keep_paths.items)[i].text, sorted[i]);
    provider_free(p);
}

static enum state state_of(const struct provider *p, const char *json)
{
    struct json_object *holder = json_tokener_parse(json);
    enum state state = provider_state_of(p, json_object_array_get_idx(holder, 0));
    json_object_put(holder);
    return state;
}

TEST(status_value_may_have_any_scalar_type)
{
    struct provider *p = load_good(
        HEAD AUTH ",\"status\":{\"at\":\"/s\",\"queued\":[\"Q\",0],\"running\":[false,\"\"],"
                  "\"succeeded\":[true,1],\"failed\":[-1,null],\"cancelled\":[\"1\"]},\"keep\":[\"/s\"]}");
    assert_int_equal(state_of(p, "[\"Q\"]"), STATE_QUEUED);
    assert_int_equal(state_of(p, "[0]"), STATE_QUEUED);
    assert_int_equal(state_of(p, "[false]"), STATE_RUNNING);
    assert_int_equal(state_of(p, "[\"\"]"), STATE_RUNNING);
    assert_int_equal(state_of(p, "[true]"), STATE_SUCCEEDED);
    assert_int_equal(state_of(p, "[1]"), STATE_SUCCEEDED);
    assert_int_equal(state_of(p, "[null]"), STATE_FAILED);
    assert_int_equal(state_of(p, "[-1]"), STATE_FAILED);
    assert_int_equal(state_of(p, "[\"1\"]"), STATE_CANCELLED);
    assert_int_equal(state_of(p, "[\"q\"]"), STATE_NONE);
    assert_int_equal(state_of(p, "[2]"), STATE_NONE);
    assert_int_equal(state_of(p, "[[]]"), STATE_NONE);
    assert_int_equal(state_of(p, "[{}]"), STATE_NONE);
    provider_free(p);
}

TEST(three_states_are_final)
{
    assert_false(state_ended(STATE_NONE));
    assert_false(state_ended(STATE_QUEUED));
    assert_false(state_ended(STATE_RUNNING));
    assert_true(state_ended(STATE_SUCCEEDED));
    assert_true(state_ended(STATE_FAILED));
    assert_true(state_ended(STATE_CANCELLED));
    assert_string_equal(state_name(STATE_SUCCEEDED), "succeeded");
}

TEST(route_may_have_another_path_with_the_same_variables)
{
    struct provider *p = load_good(HEAD AUTH REST);
    struct pattern pattern;
    const char *why = NULL;
    assert_int_equal(provider_pattern(p, "/other?id={task_id}", &pattern, &why), 0);
    pattern_done(&pattern);
    assert_int_equal(provider_pattern(p, "/other/{kind}", &pattern, &why), -1);
    assert_non_null(why);
    pattern_done(&pattern);
    provider_free(p);
}

TEST(every_error_is_reported_with_its_location)
{
#define STATUS(members) ",\"status\":{\"at\":\"/s\"," members "}"
    static const struct {
        const char *text;
        const char *error;
    } mistakes[] = {
        {"{}", "/etc/x/p.json:1: the key \"name\" is missing"},
        {"{\"name\":\"q\",\"path\":\"/p/{task_id}\",\"task_id\":\"x\"" AUTH REST,
         AT("/name") "must be the file's name without \".json\""},
        {HEAD ",\"auth\":{\"header\":\"A: x\",\"value\":\"{key}\"}" REST,
         AT("/auth/header") "a name must have 1 to 64 letters, digits, '_' and '-'"},
        {HEAD ",\"auth\":{\"header\":\"\",\"value\":\"{key}\"}" REST,
         AT("/auth/header") "a name must have 1 to 64 letters, digits, '_' and '-'"},
        {HEAD ",\"auth\":{\"header\":\"A\",\"value\":\"Bearer\"}" REST,
         AT("/auth/value") "must contain {key}, {jwt} or {key-or-jwt}"},
        {HEAD ",\"auth\":{\"header\":\"A\",\"value\":\"{key}\\r\\nB: c\"}" REST,
         AT("/auth/value") "must not contain control characters"},
        {HEAD AUTH ",\"headers\":{\"a\":\"x\"}" REST, AT("/headers") "a is the header of \"auth\""},
        {HEAD AUTH ",\"headers\":{\"a b\":\"x\"}" REST,
         AT("/headers/a b") "a name must have 1 to 64 letters, digits, '_' and '-'"},
        {HEAD AUTH ",\"headers\":{\"b\":\"x\\ny\"}" REST,
         AT("/headers/b") "must not contain control characters"},
        {HEAD AUTH ",\"identity\":\"/tasks/*/id\"" REST,
         AT("/identity") "must not contain '*': it names one task"},
        {HEAD AUTH ",\"poll\":{\"min\":\"10s\",\"max\":\"5s\"}" REST,
         AT("/poll/max") "must not be less than min"},
        {HEAD AUTH ",\"poll\":{\"min\":\"99ms\"}" REST, AT("/poll/min") "must be from \"100ms\" to \"1h\""},
        {"{\"name\":\"p\",\"path\":\"/p\",\"task_id\":\"x\"" AUTH REST, AT("/path") "contains no variable"},
        {"{\"name\":\"p\",\"path\":\"/p/{id}\",\"task_id\":\"x\"" AUTH REST,
         AT("/path") "names a variable that is neither \"task_id\" nor in \"variables\""},
        {"{\"name\":\"p\",\"path\":\"/p/{task_id}\",\"task_id\":\"[\"" AUTH REST,
         AT("/task_id") "is not an extended regular expression"},
        {HEAD ",\"variables\":{\"kind\":\"(\"}" AUTH REST,
         AT("/variables/kind") "is not an extended regular expression"},
        {HEAD ",\"variables\":{\"task_id\":\"x\"}" AUTH REST,
         AT("/variables/task_id") "belongs at the top level, not here"},
        {HEAD ",\"variables\":{\"a\":\"x\",\"b\":\"x\",\"c\":\"x\",\"d\":\"x\"}" AUTH REST,
         AT("/variables") "must have 0 to 3 members"},
        {HEAD AUTH STATUS("\"queued\":[\"X\"],\"failed\":[\"X\"]") ",\"keep\":[\"/s\"]}",
         AT("/status") "\"X\" is both queued and failed"},
        {HEAD AUTH STATUS(
             "\"except\":[{\"from\":\"none\",\"at\":\"/e\",\"state\":\"failed\"}]") ",\"keep\":[\"/s\"]}",
         AT("/status/except/0") "\"none\" is not allowed here"},
        {HEAD AUTH STATUS(
             "\"except\":[{\"from\":\"failed\",\"at\":\"/e\",\"state\":\"none\"}]") ",\"keep\":[\"/s\"]}",
         AT("/status/except/0") "\"none\" is not allowed here"},
        {HEAD AUTH STATUS("\"except\":[{\"from\":\"failed\",\"state\":\"running\"}]") ",\"keep\":[\"/s\"]}",
         AT("/status/except/0") "must name \"http\", \"at\" or \"and\""},
        {HEAD AUTH ",\"missing\":[{}]" REST, AT("/missing/0") "must name \"http\", \"at\" or \"and\""},
        {HEAD AUTH ",\"missing\":[{\"http\":404},{\"equals\":[\"x\"]}]" REST,
         AT("/missing/1") "must name \"http\", \"at\" or \"and\""},
        {HEAD AUTH ",\"missing\":[{\"http\":404,\"and\":[{\"http\":400},{}]}]" REST,
         AT("/missing/0/and/1") "must name \"http\", \"at\" or \"and\""},
        {HEAD AUTH ",\"ok\":{\"and\":[{}]}" REST, AT("/ok/and/0") "must name \"http\", \"at\" or \"and\""},
        {HEAD AUTH ",\"hook\":[\"/id\",\"/ids/*\"]" REST,
         AT("/hook/1") "must not contain '*': it names one task"},
        {HEAD AUTH ",\"refused\":[{\"is\":\"empty\"}]" REST,
         AT("/refused/0") "must name \"http\", \"at\" or \"and\""},
        {HEAD AUTH ",\"busy\":[{\"http\":1000}]" REST, AT("/busy/0/http") "must be from 0 to 599"},
        {HEAD AUTH ",\"missing\":[{\"at\":\"code\"}]" REST,
         AT("/missing/0/at") "\"code\" is not a JSON pointer of 1 to 16 segments, such as \"/data/status\""},
        {HEAD AUTH ",\"status\":{\"at\":\"/s\"},\"keep\":[\"/a\",\"/a/b\"]}",
         AT("/keep/1") "is already kept by \"/a\""},
        {HEAD AUTH ",\"status\":{\"at\":\"/s\"},\"keep\":[\"/a/b\",\"/a\"]}",
         AT("/keep/0") "is already kept by \"/a\""},
        {HEAD AUTH ",\"status\":{\"at\":\"/s\"}}", "/etc/x/p.json:1: the key \"keep\" is missing"},
        {HEAD AUTH ",\"unified\":{\"progress\":{\"at\":\"/p\"}}" REST,
         AT("/unified/progress") "the key \"as\" is missing"},
        {HEAD AUTH ",\"unified\":{\"created_at\":{\"at\":\"/p\",\"as\":\"unix\"}}" REST,
         AT("/unified/created_at/as") "must be one of \"unix-seconds\", \"unix-milliseconds\", \"iso8601\", "
                                      "\"beijing\""},
        {HEAD AUTH ",\"result\":{\"path\":\"x\",\"into\":\"r\"}" REST,
         AT("/result/path") "must begin with '/'"},
        {HEAD AUTH ",\"result\":{\"path\":\"/x/{kind}\",\"into\":\"r\"}" REST,
         AT("/result/path") "{ and } must enclose a variable of \"path\" or a pointer"},
        {HEAD AUTH ",\"result\":{\"path\":\"/x/{task_id\",\"into\":\"r\"}" REST,
         AT("/result/path") "{ and } must enclose a variable of \"path\" or a pointer"},
        {HEAD AUTH ",\"result\":{\"path\":\"/x?id={/file}\",\"into\":\"r\"," SERVED "}" REST,
         AT("/result/path") "names a variable that is neither \"task_id\" nor in \"variables\""},
        {HEAD AUTH ",\"result\":{\"path\":\"/x\",\"into\":\"r\"," SERVED "}" REST,
         AT("/result/path") "contains no variable"},
        {HEAD AUTH ",\"result\":{\"path\":\"/x\",\"into\":\"r\",\"served\":{}}" REST,
         AT("/result/served") "the key \"unfinished_status\" is missing"},
        {HEAD AUTH ",\"proxy\":{\"path\":\"x\",\"header\":\"h\",\"origin\":\"https://a\"}" REST,
         AT("/proxy/path") "must be a path of letters, digits and _ - . /"},
        {HEAD AUTH ",\"proxy\":{\"path\":\"/x\",\"header\":\"h\",\"origin\":\"https://a/b\"}" REST,
         AT("/proxy/origin") "must be https:// and a host name"},
        {HEAD AUTH ",\"proxy\":{\"path\":\"/x\",\"header\":\"h\",\"origin\":\"https://\"}" REST,
         AT("/proxy/origin") "must be https:// and a host name"},
        {HEAD AUTH ",\"result\":{\"path\":\"/x\"}" REST, AT("/result") "the key \"into\" is missing"},
    };
    for (size_t i = 0; i < NELEMS(mistakes); i++) {
        char *error = NULL;
        struct provider *p = load(mistakes[i].text, &error);
        if (p != NULL)
            fail_msg("taken: %s", mistakes[i].text);
        assert_string_equal(error, mistakes[i].error);
        free(error);
    }
}

TEST(missing_file_is_named)
{
    struct files *files = given_files(NULL, 0);
    char *error = NULL;
    assert_null(provider_load(files, "/nowhere/p.json", &error));
    assert_string_equal(error, "/nowhere/p.json: was not passed to this worker");
    free(error);
    files_free(files);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(minimal_file_has_defaults),
        cmocka_unit_test(days_are_counted_to_the_day_on_which_the_provider_retires),
        cmocka_unit_test(day_must_exist),
        cmocka_unit_test(digest_is_that_of_the_bytes),
        cmocka_unit_test(keep_paths_with_a_common_beginning_are_adjacent),
        cmocka_unit_test(status_value_may_have_any_scalar_type),
        cmocka_unit_test(three_states_are_final),
        cmocka_unit_test(route_may_have_another_path_with_the_same_variables),
        cmocka_unit_test(every_error_is_reported_with_its_location),
        cmocka_unit_test(missing_file_is_named),
    };
    return cmocka_run_group_tests_name("provider", tests, NULL, NULL);
}
