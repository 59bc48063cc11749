/* try: see try.h. */
#include "cli/try.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "upstream/view.h"

enum { ANSWER_FILE_MAX = 64 * 1024 * 1024 };

/* Reads a recorded answer; a status line and headers may precede the body. */
static bool read_answer(struct files *files, const char *path, struct view_answer *ret_answer)
{
    char *why;
    const struct file *file = files_get(files, path, FILE_PLAIN, ANSWER_FILE_MAX, &why);
    if (file == NULL) {
        fprintf(stderr, "taskproxy: %s: %s\n", path, why);
        free(why);
        return false;
    }
    *ret_answer = (struct view_answer){.http_status = 200, .body = file->data, .len = file->len};
    if (strncmp(file->data, "HTTP/", 5) != 0)
        return true;
    const char *blank = strstr(file->data, "\r\n\r\n"), *lf_blank = strstr(file->data, "\n\n");
    const char *body = blank ? blank + 4 : lf_blank ? lf_blank + 2 : file->data + file->len;
    ret_answer->http_status = atoi(file->data + strcspn(file->data, " "));
    ret_answer->body = body;
    ret_answer->len = file->len - (size_t)(body - file->data);
    return true;
}

/* Any id will do: uses the names of the variables. */
static void make_id(const struct provider *provider, char id[static TASK_ID_MAX])
{
    id[0] = '\0';
    for (size_t i = 0; i < provider->path.n_variables; i++) {
        size_t used = strlen(id);
        snprintf(id + used, TASK_ID_MAX - used, "%s%s", used ? "/" : "", provider->path.variables[i]->name);
    }
}

static void print_json(const char *title, const struct buf *view)
{
    struct json_object *doc = json_tokener_parse(view->data);
    printf("%s (%zu bytes):\n%s\n", title, view->len,
           json_object_to_json_string_ext(doc, JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_NOSLASHESCAPE));
    json_object_put(doc);
}

static void print_view(const struct view *view)
{
    char expiry[32] = "not known";
    if (view->urls_expire_at != 0)
        utc_text(view->urls_expire_at, expiry);
    printf("state: %s%s\n", state_name(view->state),
           view->known ? "" : " (the file does not list this status)");
    printf("status value: %s\n", view->status);
    printf("results expire: %s\n", expiry);
    printf("identity: %s\n", view->identity[0] ? view->identity : "none");
    print_json("native view", &view->views[VIEW_NATIVE]);
    print_json("unified view", &view->views[VIEW_UNIFIED]);
}

static void print_outcome(enum outcome outcome, const struct view *view)
{
    printf("answer: %s", outcome_row(outcome)->label);
    if (view->why != NULL)
        printf(" (%s)", view->why);
    putchar('\n');
    if (outcome == OUTCOME_OK)
        print_view(view);
    else if (outcome == OUTCOME_PARTIAL)
        printf("next query: %s\n", view->result_path.data);
}

int try_answer(const char *provider_path, const char *answer_path, const char *result_path)
{
    char *error = NULL, id[TASK_ID_MAX];
    struct files *files = files_new(FILES_ALL);
    struct provider *provider = provider_load(files, provider_path, &error);
    struct view_answer answer, result;
    bool ok = provider != NULL && read_answer(files, answer_path, &answer) &&
              (result_path == NULL || read_answer(files, result_path, &result));
    if (error != NULL)
        fprintf(stderr, "taskproxy: %s\n", error);
    if (ok) {
        struct view view;
        make_id(provider, id);
        const struct view_input input = {.provider = provider, .task_id = id, .base_url = "https://upstream"};
        enum outcome outcome = view_read(&input, &answer, result_path ? &result : NULL, &view);
        print_outcome(outcome, &view);
        view_done(&view);
    }
    provider_free(provider);
    files_free(files);
    free(error);
    return ok ? EXIT_SUCCESS : EXIT_FAILURE;
}
