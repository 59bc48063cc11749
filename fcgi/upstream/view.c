/* view: see view.h.
 *
 *     view_read:  parse -> missing? refused? busy? error? -> status -> native view -> unified view
 *
 * The views are written straight from the parsed document: members that the keep list does not name are never
 * copied. */
#include "upstream/view.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "task/expiry.h"
#include "task/redact.h"
#include "task/unified.h"

enum { MAX_DEPTH = 32, VIEW_MAX = 8 * 1024 * 1024, PATH_NAME_MAX = 512, PATH_MAX_BYTES = 4096 };

/* ---- the kind of answer ---- */

static bool is_empty(struct json_object *value)
{
    switch (json_object_get_type(value)) {
    case json_type_null:
        return true;
    case json_type_string:
        return json_object_get_string_len(value) == 0;
    case json_type_array:
        return json_object_array_length(value) == 0;
    case json_type_object:
        return json_object_object_length(value) == 0;
    default:
        return false;
    }
}

static bool hold(const struct list *conditions, bool all, int http_status, struct json_object *doc);

static bool holds(const struct condition *condition, int http_status, struct json_object *doc)
{
    if (condition->http != 0 && condition->http != http_status)
        return false;
    if (condition->at.n_segments == 0)
        return hold(&condition->also, true, http_status, doc);
    if (doc == NULL)
        return false; /* the body is not JSON */
    struct json_object *value = NULL;
    bool there = json_at(doc, &condition->at, NULL, &value);
    if (condition->is == PRESENCE_FILLED && (!there || is_empty(value)))
        return false;
    if (condition->is == PRESENCE_EMPTY && there && !is_empty(value))
        return false;
    if (condition->equals.n > 0 && !(there && scalar_is_among(value, &condition->equals)))
        return false;
    return hold(&condition->also, true, http_status, doc);
}

/* Whether one of the conditions holds, or with `all` each of them. */
static bool hold(const struct list *conditions, bool all, int http_status, struct json_object *doc)
{
    const struct condition *items = conditions->items;
    for (size_t i = 0; i < conditions->n; i++) {
        if (holds(&items[i], http_status, doc) != all)
            return !all;
    }
    return all;
}

static bool any_holds(const struct list *conditions, int http_status, struct json_object *doc)
{
    return hold(conditions, false, http_status, doc);
}

/* Refusals are recognised first; the remaining answers describe a task. `doc` is NULL if the body is not
 * JSON. */
static enum outcome classify(const struct provider *p, const struct condition *ok, int http_status,
                             struct json_object *doc, struct view *view)
{
    if (any_holds(&p->missing, http_status, doc))
        return OUTCOME_MISSING;
    if (http_status == 401 || http_status == 403 || any_holds(&p->refused, http_status, doc))
        return http_status == 403 ? OUTCOME_FORBIDDEN : OUTCOME_REFUSED;
    if (http_status == 429 || any_holds(&p->busy, http_status, doc))
        return OUTCOME_BUSY;
    if (http_status >= 300 && http_status < 400) {
        view->why = "a redirect";
        return OUTCOME_INVALID;
    }
    if (http_status < 200 || http_status >= 300) {
        view->why = NULL; /* the status is enough */
        return http_status >= 500 ? OUTCOME_SERVER_ERROR : OUTCOME_ERROR;
    }
    if (!json_object_is_type(doc, json_type_object)) {
        view->why = view->why ? view->why : "not a JSON object";
        return OUTCOME_INVALID;
    }
    if (!holds(ok, http_status, doc)) {
        view->why = "an application error";
        return OUTCOME_ERROR;
    }
    return OUTCOME_OK;
}

/* The status value for the log, without secrets: a hostile upstream could send our key as a status. */
static void write_status(const struct view_question *q, struct json_object *value, struct view *view)
{
    struct buf text;
    bool string = json_object_is_type(value, json_type_string);
    const char *status = string ? json_object_get_string(value) : json_object_to_json_string(value);
    buf_init(&text, VIEW_MAX);
    redact_json_string(&text, status, strlen(status), q->secrets);
    snprintf(view->status, sizeof(view->status), "%s", text.data);
    buf_done(&text);
}

static bool read_state(const struct view_question *q, int http_status, struct json_object *doc,
                       struct view *view)
{
    const struct provider *p = q->provider;
    struct json_object *value = NULL;
    bool there = json_at(doc, &p->status.at, NULL, &value);
    enum state state = there ? provider_state_of(p, value) : STATE_NONE;
    if (state == STATE_NONE && value == NULL)
        state = (enum state)p->status.absent;
    view->known = state != STATE_NONE;
    write_status(q, value, view);
    if (!view->known) {
        bool scalar = value != NULL && !json_object_is_type(value, json_type_object) &&
                      !json_object_is_type(value, json_type_array);
        view->state = STATE_RUNNING;
        return scalar; /* otherwise this is some other document */
    }
    const struct status_exception *exceptions = p->status.exceptions.items;
    for (size_t i = 0; i < p->status.exceptions.n; i++) {
        if (exceptions[i].from == (int)state && holds(&exceptions[i].when, http_status, doc)) {
            state = (enum state)exceptions[i].state;
            break;
        }
    }
    view->state = state;
    return true;
}

/* ---- the native view ---- */

struct copier {
    struct buf *out;
    const struct secrets *secrets; /* (ref) or NULL */
    int64_t urls_expire_at;        /* the earliest seen */
};

static void note_expiry(struct copier *c, const char *text)
{
    if (strncmp(text, "http", 4) != 0)
        return;
    int64_t at = url_expiry(text);
    if (at != 0 && (c->urls_expire_at == 0 || at < c->urls_expire_at))
        c->urls_expire_at = at;
}

static void copy_string(struct copier *c, const char *text, size_t len)
{
    note_expiry(c, text);
    redact_json_string(c->out, text, len, c->secrets);
}

static bool copy_kept(struct copier *c, struct json_object *value, const struct keep *keep);

/* The child of `keep` for a member of that name; for a leaf, the leaf itself, since everything below it is
 * kept. */
static const struct keep *keep_for(const struct keep *keep, const char *name)
{
    for (size_t i = 0; i < keep->n_children; i++) {
        if (strcmp(keep->children[i].name, name) == 0)
            return &keep->children[i];
    }
    return keep->n_children == 0 ? keep : NULL;
}

/* Copies a member of an object, or with NULL as its name an element of an array. */
static void copy_member(struct copier *c, const char *name, struct json_object *value,
                        const struct keep *keep, const char **separator)
{
    const size_t before = c->out->len;
    buf_puts(c->out, *separator);
    if (name != NULL) {
        copy_string(c, name, strlen(name));
        buf_putc(c->out, ':');
    }
    if (copy_kept(c, value, keep))
        *separator = ",";
    else
        c->out->len = before;
}

static void copy_object(struct copier *c, struct json_object *object, const struct keep *keep)
{
    const char *separator = "";
    buf_putc(c->out, '{');
    json_object_object_foreach(object, name, member)
    {
        const struct keep *child = keep_for(keep, name);
        if (child != NULL)
            copy_member(c, name, member, child, &separator);
    }
    buf_putc(c->out, '}');
}

static void copy_array(struct copier *c, struct json_object *array, const struct keep *element)
{
    const char *separator = "";
    buf_putc(c->out, '[');
    for (size_t i = 0; i < json_object_array_length(array); i++)
        copy_member(c, NULL, json_object_array_get_idx(array, i), element, &separator);
    buf_putc(c->out, ']');
}

/* Returns false if the value does not have the form that the list describes; the output is then to be
 * discarded. For example, a string in place of an object could contain anything. A null is kept: it means
 * that the value is not known yet. */
static bool copy_kept(struct copier *c, struct json_object *value, const struct keep *keep)
{
    const struct keep *element = keep_for(keep, "*");
    bool leaf = keep->n_children == 0, names = keep->n_children > (element != NULL ? 1 : 0);
    switch (json_object_get_type(value)) {
    case json_type_object:
        if (leaf || names)
            copy_object(c, value, keep);
        return leaf || names;
    case json_type_array:
        if (element != NULL)
            copy_array(c, value, element);
        return element != NULL;
    case json_type_string:
        if (leaf)
            copy_string(c, json_object_get_string(value), (size_t)json_object_get_string_len(value));
        return leaf;
    case json_type_null:
        buf_puts(c->out, "null");
        return true;
    default:
        if (leaf)
            buf_puts(c->out, json_object_to_json_string(value));
        return leaf;
    }
}

/* ---- the second answer ---- */

/* A string, or an integer as text; NULL for anything else. It belongs to the document. */
static const char *scalar_text(struct json_object *value)
{
    return json_object_is_type(value, json_type_int) ? json_object_get_string(value) : json_text(value);
}

/* Writes the path of the second query, with variables of the task and members of the first answer filled
 * in. */
static bool write_result_path(const struct view_question *q, struct json_object *doc, struct buf *out)
{
    const struct provider *p = q->provider;
    for (const char *at = p->result.path; *at != '\0';) {
        size_t plain = strcspn(at, "{");
        buf_add(out, at, plain);
        at += plain;
        if (*at == '\0')
            break;
        char name[PATH_NAME_MAX], value[TASK_ID_MAX];
        size_t len = strcspn(++at, "}");
        snprintf(name, sizeof(name), "%.*s", (int)len, at);
        at += len + 1;
        struct json_object *member = NULL;
        const char *text = value;
        if (name[0] == '/')
            text = json_pointer_get(doc, name, &member) == 0 ? scalar_text(member) : NULL;
        else if (!pattern_variable(&p->path, name, q->task_id, value, sizeof(value)))
            text = NULL;
        if (text == NULL || text[0] == '\0' || strcmp(text, ".") == 0 || strcmp(text, "..") == 0)
            return false;
        buf_add_percent(out, text);
    }
    return !out->failed;
}

/* The second answer becomes a member of the first. */
static enum outcome join_result(const struct view_question *q, struct json_object *doc,
                                const struct view_answer *result, struct view *view)
{
    const struct result_query *query = &q->provider->result;
    struct json_error error;
    struct json_object *second = json_read(result->body, result->len, MAX_DEPTH, JSON_PLAIN, &error);
    enum outcome outcome = OUTCOME_OK;
    if (second == NULL)
        view->why = error.why;
    if (second != NULL && any_holds(&query->failed, result->http_status, second))
        view->state = STATE_FAILED;
    else
        outcome = classify(q->provider, &query->ok, result->http_status, second, view);
    if (outcome == OUTCOME_OK)
        json_object_object_add(doc, query->into, json_object_get(second));
    json_object_put(second);
    return outcome;
}

static enum outcome read_result(const struct view_question *q, struct json_object *doc,
                                const struct view_answer *result, struct view *view)
{
    if (q->provider->result.path == NULL || view->state != STATE_SUCCEEDED)
        return OUTCOME_OK;
    if (result != NULL)
        return join_result(q, doc, result, view);
    if (write_result_path(q, doc, &view->result_path))
        return OUTCOME_PARTIAL;
    view->why = "no reference to the result";
    return OUTCOME_INVALID;
}

/* ---- the views ---- */

static enum outcome make_views(const struct view_question *q, struct json_object *doc, struct view *view)
{
    struct copier copier = {.out = &view->views[VIEW_NATIVE], .secrets = q->secrets};
    copy_object(&copier, doc, &q->provider->keep);
    struct unified_task task = {.provider = q->provider,
                                .id = q->task_id,
                                .secrets = q->secrets,
                                .state = view->state,
                                .doc = doc,
                                .urls_expire_at = copier.urls_expire_at};
    unified_write(&task, &view->views[VIEW_UNIFIED]);
    view->urls_expire_at = task.urls_expire_at;
    view->created_at = task.created_at;
    if (!view->views[VIEW_NATIVE].failed && !view->views[VIEW_UNIFIED].failed)
        return OUTCOME_OK;
    view->why = "the view would be too large";
    return OUTCOME_INVALID;
}

enum outcome view_read(const struct view_question *q, const struct view_answer *answer,
                       const struct view_answer *result, struct view *view)
{
    *view = (struct view){.state = STATE_NONE};
    for (size_t i = 0; i < VIEW_COUNT; i++)
        buf_init(&view->views[i], VIEW_MAX);
    buf_init(&view->result_path, PATH_MAX_BYTES);
    struct json_error error;
    struct json_object *doc = json_read(answer->body, answer->len, MAX_DEPTH, JSON_PLAIN, &error);
    if (doc == NULL)
        view->why = error.why;
    enum outcome outcome = classify(q->provider, &q->provider->ok, answer->http_status, doc, view);
    if (outcome == OUTCOME_OK && !read_state(q, answer->http_status, doc, view)) {
        view->why = "no status at its place";
        outcome = OUTCOME_INVALID;
    }
    if (outcome == OUTCOME_OK)
        outcome = read_result(q, doc, result, view);
    if (outcome == OUTCOME_OK)
        outcome = make_views(q, doc, view);
    json_object_put(doc);
    return outcome;
}

void view_done(struct view *view)
{
    for (size_t i = 0; i < VIEW_COUNT; i++)
        buf_done(&view->views[i]);
    buf_done(&view->result_path);
}
