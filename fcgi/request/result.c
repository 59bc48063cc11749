/* result: see result.h. */
#include "request/result.h"

#include <string.h>

#include "lib/json.h"

enum { DEPTH_MAX = 64, TEXT_MAX = 16 * 1024 * 1024 };

/* The member of the view, which the caller frees; NULL if there is none. */
static struct json_object *member_of(const struct view_bytes *view, const char *name)
{
    struct json_error error;
    struct json_object *doc = json_read(view->data, view->len, DEPTH_MAX, JSON_PLAIN, &error);
    struct json_object *member = json_object_get(json_object_object_get(doc, name));
    json_object_put(doc);
    return member;
}

static struct json_object *with_detail(struct json_object *detail)
{
    struct json_object *body = json_object_new_object();
    json_object_object_add(body, "detail", detail);
    return body;
}

static struct json_object *body_for(const struct snapshot *s, const struct result_query *query)
{
    if (!state_ended(s->state))
        return with_detail(json_object_new_string(query->served.unfinished_detail));
    struct json_object *result = member_of(&s->views[VIEW_NATIVE], query->into);
    return result != NULL ? result : with_detail(member_of(&s->views[VIEW_UNIFIED], "error"));
}

static int status_for(const struct snapshot *s, const struct result_query *query)
{
    if (s->state == STATE_SUCCEEDED)
        return 200;
    return (int)(state_ended(s->state) ? query->served.failed_status : query->served.unfinished_status);
}

void result_answer(struct answer *answer, const struct answer_facts *facts, const struct snapshot *s,
                   const struct result_query *query)
{
    struct json_object *body = body_for(s, query);
    struct buf text;
    buf_init(&text, TEXT_MAX);
    buf_puts(&text, json_object_to_json_string_ext(body, JSON_C_TO_STRING_NOSLASHESCAPE));
    json_object_put(body);
    answer_part(answer, facts, s, status_for(s, query), &text);
}
