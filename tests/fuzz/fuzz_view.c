/* The first byte selects one of the shipped provider files, the second an HTTP status; a body and, after a NUL, the
 * answer to the second query follow. A view is valid JSON and never contains the key. Run from the top of the
 * repository. */
#include "fuzz.h"

#include <glob.h>
#include <string.h>

#include "upstream/view.h"

enum { PROVIDERS_MAX = 256 };

static const struct secrets secrets = {.items = {"canary-key"}};
static struct provider *providers[PROVIDERS_MAX];
static size_t n_providers;

int LLVMFuzzerInitialize(int *argc __attribute__((unused)), char ***argv __attribute__((unused)))
{
    glob_t found;
    char *error;
    struct files *files = files_new(FILES_ALL);
    PROMISE(glob("conf/providers/*.json", 0, NULL, &found) == 0 && found.gl_pathc <= PROVIDERS_MAX);
    for (; n_providers < found.gl_pathc; n_providers++) {
        providers[n_providers] = provider_load(files, found.gl_pathv[n_providers], &error);
        PROMISE(providers[n_providers] != NULL);
    }
    globfree(&found);
    files_free(files);
    return 0;
}

static void check_view(const struct buf *view)
{
    struct json_error error;
    struct json_object *doc = json_read(view->data, view->len, 64, JSON_PLAIN, &error);
    PROMISE(json_object_is_type(doc, json_type_object));
    PROMISE(strstr(view->data, "canary-key") == NULL);
    json_object_put(doc);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const int statuses[] = {200, 202, 302, 400, 401, 404, 422, 429, 500};
    if (size < 2)
        return 0;
    const char *body = (const char *)data + 2, *end = (const char *)data + size;
    const char *second = memchr(body, '\0', size - 2);
    const struct view_input input = {.provider = providers[data[0] % n_providers],
                                     .task_id = "a/b/c/d",
                                     .secrets = &secrets,
                                     .base_url = "https://api.openai.com"};
    const struct view_answer answer = {statuses[data[1] % NELEMS(statuses)], body,
                                       (size_t)((second ? second : end) - body)};
    struct view_answer result = {.http_status = 200, .body = second ? second + 1 : end};
    result.len = (size_t)(end - result.body);
    struct view view;
    enum outcome outcome = view_read(&input, &answer, second ? &result : NULL, &view);
    PROMISE(outcome != OUTCOME_PARTIAL || (second == NULL && view.result_path.data[0] == '/'));
    PROMISE(strstr(view.status, "canary-key") == NULL);
    PROMISE(strspn(view.identity, "0123456789abcdef") == (view.identity[0] ? IDENTITY_SIZE - 1 : 0));
    for (size_t i = 0; i < VIEW_COUNT && outcome == OUTCOME_OK; i++) {
        if (i != VIEW_KEYED || view.views[i].len > 0)
            check_view(&view.views[i]);
    }
    view_done(&view);
    return 0;
}
