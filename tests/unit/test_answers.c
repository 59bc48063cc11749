/* Every recorded answer under tests/answers gives the result in its .expect.json (tests/answers/README.md), one test
 * per case. Run from the top of the repository. */
#include "unit.h"

#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/buf.h"
#include "upstream/view.h"

enum { ANSWER_MAX = 1024 * 1024 };

struct recorded {
    char *name;   /* PROVIDER/CASE */
    char *folder; /* tests/answers/PROVIDER */
};

static const struct file *read_file(struct files *files, const char *folder, const char *name,
                                    const char *suffix)
{
    char *why, *path = xasprintf("%s/%s%s", folder, name, suffix);
    const struct file *file = files_get(files, path, FILE_PLAIN, ANSWER_MAX, &why);
    free(path);
    free(why);
    return file;
}

/* Output of `curl -i`, or a body alone. */
static struct view_answer answer_of(const struct file *file)
{
    struct view_answer answer = {.http_status = 200, .body = file->data, .len = file->len};
    if (strncmp(file->data, "HTTP/", 5) == 0) {
        const char *blank = strstr(file->data, "\r\n\r\n");
        assert_non_null(blank);
        answer.http_status = atoi(strchr(file->data, ' '));
        answer.body = blank + 4;
        answer.len = file->len - (size_t)(answer.body - file->data);
    }
    return answer;
}

static struct json_object *expected(struct json_object *expect, const char *name)
{
    struct json_object *value = NULL;
    json_object_object_get_ex(expect, name, &value);
    return value;
}

/* The bytes of a container in the expectation, without the white space between tokens. json-c does not write them,
 * because its versions may serialize a document differently. */
static char *bytes_of(const struct file *expect, const char *name)
{
    struct buf out;
    char *key = xasprintf("\n \"%s\": ", name);
    const char *at = strstr(expect->data, key);
    int depth = 0;
    bool in_string = false;
    buf_init(&out, ANSWER_MAX);
    for (at = at == NULL ? "" : at + strlen(key); *at != '\0'; at++) {
        if (in_string || strchr(" \n", *at) == NULL)
            buf_putc(&out, *at);
        if (in_string && *at == '\\')
            buf_putc(&out, *++at);
        else if (*at == '"')
            in_string = !in_string;
        else if (!in_string)
            depth += (*at == '{' || *at == '[') - (*at == '}' || *at == ']');
        if (depth == 0)
            break;
    }
    free(key);
    return out.data;
}

static void assert_same_bytes(const char *what, const struct buf *is, const struct file *expect)
{
    char *should = bytes_of(expect, what);
    assert_non_null(should);
    if (strcmp(is->data, should) != 0) {
        print_error("%s view:\n%s\nshould be\n%s\n", what, is->data, should);
        fail();
    }
    free(should);
}

static void assert_nothing_private(const struct buf *view)
{
    static const char *const words[] = {"hunter2", "secret", "u-17"};
    for (size_t i = 0; i < NELEMS(words); i++) {
        if (view->len > 0 && strstr(view->data, words[i]) != NULL)
            fail_msg("\"%s\" stands in a view:\n%s", words[i], view->data);
    }
}

static void assert_task(const struct view *view, struct json_object *expect, const struct file *expect_file)
{
    assert_string_equal(state_name(view->state), json_object_get_string(expected(expect, "state")));
    assert_int_equal(view->known, json_object_get_boolean(expected(expect, "known")));
    assert_same_bytes("native", &view->views[VIEW_NATIVE], expect_file);
    assert_same_bytes("unified", &view->views[VIEW_UNIFIED], expect_file);
    for (size_t i = 0; i < VIEW_COUNT; i++)
        assert_nothing_private(&view->views[i]);
}

static struct provider *provider_of(struct files *files, const struct recorded *recorded)
{
    char *error = NULL, *path = xasprintf("conf/providers/%s.json", strrchr(recorded->folder, '/') + 1);
    struct provider *provider = provider_load(files, path, &error);
    if (provider == NULL)
        fail_msg("%s", error);
    free(path);
    return provider;
}

static void becomes_what_is_expected(void **state)
{
    const struct recorded *recorded = *state;
    struct files *files = files_new(FILES_ALL);
    const char *name = strrchr(recorded->name, '/') + 1;
    const struct file *first = read_file(files, recorded->folder, name, ".answer");
    const struct file *second = read_file(files, recorded->folder, name, ".result.answer");
    const struct file *expect_file = read_file(files, recorded->folder, name, ".expect.json");
    assert_non_null(expect_file);
    struct json_object *expect = json_tokener_parse(expect_file->data);
    struct provider *provider = provider_of(files, recorded);
    const struct view_input input = {.provider = provider,
                                     .task_id = json_object_get_string(expected(expect, "task")),
                                     .base_url = "https://upstream"};
    const struct view_answer answer = answer_of(first);
    struct view_answer result;
    struct view view;

    assert_true(pattern_takes_id(&provider->path, input.task_id));
    enum outcome outcome = view_read(&input, &answer, NULL, &view);
    assert_int_equal(outcome == OUTCOME_PARTIAL, second != NULL);
    if (second != NULL) {
        view_done(&view);
        result = answer_of(second);
        outcome = view_read(&input, &answer, &result, &view);
    }
    assert_string_equal(outcome_row(outcome)->label, json_object_get_string(expected(expect, "outcome")));
    if (outcome == OUTCOME_OK)
        assert_task(&view, expect, expect_file);
    view_done(&view);
    json_object_put(expect);
    provider_free(provider);
    files_free(files);
}

/* "tests/answers/sora/missing.expect.json" */
static struct recorded recorded_at(const char *path)
{
    const char *base = strrchr(path, '/'), *end = strstr(base, ".expect.json");
    struct recorded recorded = {.folder = xstrndup(path, (size_t)(base - path))};
    const char *provider = strrchr(recorded.folder, '/') + 1;
    recorded.name = xasprintf("%s/%.*s", provider, (int)(end - base - 1), base + 1);
    return recorded;
}

static int run_cases(const glob_t *found)
{
    struct recorded *cases = xcalloc(found->gl_pathc, sizeof(*cases));
    struct CMUnitTest *tests = xcalloc(found->gl_pathc, sizeof(*tests));
    for (size_t i = 0; i < found->gl_pathc; i++) {
        cases[i] = recorded_at(found->gl_pathv[i]);
        tests[i] = (struct CMUnitTest){
            .name = cases[i].name, .test_func = becomes_what_is_expected, .initial_state = &cases[i]};
    }
    int failures = _cmocka_run_group_tests("answers", tests, found->gl_pathc, NULL, NULL);
    for (size_t i = 0; i < found->gl_pathc; i++) {
        free(cases[i].name);
        free(cases[i].folder);
    }
    free(tests);
    free(cases);
    return failures;
}

int main(void)
{
    glob_t found;
    if (glob("tests/answers/*/*.expect.json", 0, NULL, &found) != 0) {
        fputs("test_answers: there is no tests/answers here; run it from the top of the repository\n",
              stderr);
        return 1;
    }
    int failures = run_cases(&found);
    globfree(&found);
    return failures;
}
